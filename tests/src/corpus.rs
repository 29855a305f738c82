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

fn lines(path: &Path) -> Vec<String> {
    let text = zstd::decode_all(std::fs::File::open(path).expect("a file")).expect("unpacked");
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}
