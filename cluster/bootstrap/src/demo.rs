//! Where does the demo come from?
//!
//! From the binary itself: a bundle, a catalogue and real requests, written to a folder when they are needed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Name below the demo folder, and content.
static FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));
/// Where the requests are.
const REQUESTS: &str = "catalogue/requests.jsonl.zst";
/// Requests that are shown.
const REQUESTS_SHOWN: usize = 3;

/// The demo on disk.
#[derive(Debug)]
pub struct Demo {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The catalogue's folder.
    pub catalogue: PathBuf,
}

/// Writes the demo below `folder`.
pub fn write(folder: &Path) -> io::Result<Demo> {
    for (name, bytes) in FILES {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    Ok(Demo { bundle: folder.join("bundle"), catalogue: folder.join("catalogue") })
}

/// A few real requests of different users, as bodies for `POST /v1/ads`.
pub fn requests() -> Vec<serde_json::Value> {
    let Some((_, packed)) = FILES.iter().find(|(name, _)| *name == REQUESTS) else { return Vec::new() };
    let Ok(text) = zstd::stream::decode_all(*packed) else { return Vec::new() };
    let lines = text.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice::<serde_json::Value>(l).ok());
    let mut shown: Vec<serde_json::Value> = Vec::new();
    for mut request in lines {
        if let Some(fields) = request.as_object_mut() {
            fields.remove("ts");
        }
        if !shown.iter().any(|s| s["user_id"] == request["user_id"]) {
            shown.push(request);
        }
        if shown.len() == REQUESTS_SHOWN {
            break;
        }
    }
    shown
}
