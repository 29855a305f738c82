//! What would a mixed pair of the bundle that serves and the one that is published find?
//!
//! A cluster never serves such a pair; whoever publishes sees what the promise is worth, and whether the new towers are
//! the old ones trained on or another space. The active bundle comes from the voters, which have its bytes. What cannot
//! be measured is said and holds nothing up: whether a bundle may serve is asked elsewhere.

use gavel_bench::gate::skew::{Skew, measure};
use gavel_client::AdminClient;
use gavel_member::blobs;
use gavel_member::member::Voters;
use gavel_proto::limits::MODEL_REPORT_BYTES_MAX;
use gavel_proto::wire::ModelView;
use std::path::{Path, PathBuf};

/// The sentence that the registry keeps; empty when nothing serves.
pub async fn beside_active(admin: &AdminClient, bundle: &Path, work: &Path) -> String {
    let active = admin.status().await.ok().and_then(|status| status.view?.active_model);
    let Some(active) = active else { return String::new() };
    let version = active.version;
    let found = async {
        let folder = fetch(admin, &active, work).await?;
        let bundle = bundle.to_path_buf();
        let measured = tokio::task::spawn_blocking(move || measure(&folder, &bundle)).await;
        measured.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    };
    match found.await {
        Ok(skew) => in_words(version, &skew),
        Err(reason) => cut(format!("skew against version {version} was not measured: {reason}")),
    }
}

/// As much as the registry keeps: what cannot be measured must not hold the bundle up.
fn cut(mut words: String) -> String {
    words.truncate(words.floor_char_boundary(MODEL_REPORT_BYTES_MAX));
    words
}

/// Brings the bundle that serves here and unpacks it.
async fn fetch(admin: &AdminClient, active: &ModelView, work: &Path) -> Result<PathBuf, String> {
    let voters = admin.voters().await.map_err(|e| e.to_string())?;
    let voters = Voters::new(voters).ok_or("no voter answers")?;
    let hash: [u8; 32] = active.hash.as_slice().try_into().map_err(|_| "its hash is none")?;
    std::fs::create_dir_all(work).map_err(|e| e.to_string())?;
    let (packed, folder) = (work.join("active.packed"), work.join("active"));
    blobs::fetch(&hash, active.bytes, &packed, &voters).await.map_err(|e| e.to_string())?;
    let unpacked = folder.clone();
    let unpack = move || {
        let bytes = std::fs::read(&packed).map_err(|e| e.to_string())?;
        gavel_model::bundle::unpack(&bytes, &unpacked).map_err(|e| e.to_string())
    };
    tokio::task::spawn_blocking(unpack).await.map_err(|e| e.to_string())??;
    Ok(folder)
}

fn in_words(version: u64, skew: &Skew) -> String {
    if !skew.same_dimension {
        return format!("mixed with version {version} it would not run: the towers differ in dimension");
    }
    let split = if skew.same_partition { "" } else { "; nodes would refuse its user part" };
    format!(
        "mixed with version {version}, of the nearest {}: users of {version} would find {:.3} in the new index, new \
         users {:.3} in the old one (by chance {:.3}; both matched agree in {:.3}){split}",
        skew.nearest,
        skew.recall_old_users_new_items,
        skew.recall_new_users_old_items,
        skew.recall_by_chance,
        skew.recall_between_versions
    )
}
