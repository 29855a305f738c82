//! Where is everything in the checkout?

use std::path::{Path, PathBuf};

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The demo's bundle.
#[must_use]
pub fn demo_bundle() -> PathBuf {
    root().join("cluster/bootstrap/demo/bundle")
}

/// Every file below `folder` whose name ends in `ending`, sorted; build output and dot folders are left out.
#[must_use]
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The folder of the real data sets, or `None` with a line that says so: tests that need them pass
/// without, because a fresh machine has none.
#[must_use]
pub fn shared_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("GAVEL_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("{test}: not run, no data at {} (set GAVEL_DATA)", folder.display());
    None
}
