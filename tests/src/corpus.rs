//! How does a test get a catalogue that is staged in seconds?
//!
//! A part of the demo's: every so manyth item with its ads, and everything else as it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The demo's catalogue, or a folder below `to` with every so manyth item of it.
///
/// # Panics
/// When it cannot be read or written.
#[must_use]
pub fn every(nth: usize, to: &Path) -> PathBuf {
    let demo = crate::repository::root().join("cluster/bootstrap/demo/catalogue");
    if nth == 1 {
        return demo;
    }
    let folder = to.join("catalogue");
    std::fs::create_dir_all(&folder).expect("a folder");
    for entry in std::fs::read_dir(&demo).expect("the demo catalogue").flatten() {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
    }
    let item_of = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        line["item_id"].as_u64().expect("an item")
    };
    let items: Vec<String> = lines(&demo.join("items.jsonl.zst")).into_iter().step_by(nth).collect();
    let kept: BTreeSet<u64> = items.iter().map(|line| item_of(line)).collect();
    let mut ads = lines(&demo.join("ads.jsonl.zst"));
    ads.retain(|line| kept.contains(&item_of(line)));
    for (name, lines) in [("items.jsonl.zst", items), ("ads.jsonl.zst", ads)] {
        let packed = zstd::encode_all(lines.join("\n").as_bytes(), 0).expect("packed");
        std::fs::write(folder.join(name), packed).expect("written");
    }
    folder
}

/// The same with every line of its campaigns changed.
///
/// # Panics
/// When it cannot be read or written, or is the demo's own folder.
#[must_use]
pub fn with_campaigns(nth: usize, to: &Path, change: impl Fn(&mut serde_json::Value)) -> PathBuf {
    assert!(nth > 1, "the demo's own folder is not changed");
    let folder = every(nth, to);
    rewrite(&folder.join("campaigns.jsonl.zst"), change);
    folder
}

/// The same with every line of its ads changed, too.
///
/// # Panics
/// When it cannot be read or written, or is the demo's own folder.
#[must_use]
pub fn with_ads(
    nth: usize,
    to: &Path,
    of_campaign: impl Fn(&mut serde_json::Value),
    of_ad: impl Fn(&mut serde_json::Value),
) -> PathBuf {
    let folder = with_campaigns(nth, to, of_campaign);
    rewrite(&folder.join("ads.jsonl.zst"), of_ad);
    folder
}

fn rewrite(path: &Path, change: impl Fn(&mut serde_json::Value)) {
    let changed = lines(path).into_iter().map(|line| {
        let mut document = serde_json::from_str(&line).expect("a line of JSON");
        change(&mut document);
        document.to_string()
    });
    let text = changed.collect::<Vec<String>>().join("\n");
    std::fs::write(path, zstd::encode_all(text.as_bytes(), 0).expect("packed")).expect("written");
}

/// The documents of a file of a catalogue.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn documents(path: &Path) -> Vec<serde_json::Value> {
    lines(path).iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn lines(path: &Path) -> Vec<String> {
    let text = zstd::decode_all(std::fs::File::open(path).expect("a file")).expect("unpacked");
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}
