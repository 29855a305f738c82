//! What does the cluster look like right now?
//!
//! One immutable View, swapped whole. It comes as a stream from any voter; when the stream falls silent the next
//! voter is asked, and meanwhile the last View stands: the control plane is not on the request path (RQ1). Every
//! View is also kept on disk, so that a process that starts while the control plane is away serves all the same.

use crate::member::{MemberConfig, Voters};
use crate::{Shutdown, disk, transport};
use arc_swap::ArcSwapOption;
use gavel_proto::wire::control_service_client::ControlServiceClient;
use gavel_proto::wire::{LastView, View, WatchViewRequest};
use prost::Message;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Views are resent whole every few seconds; a stream that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Between two attempts to find a voter.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const FILE_NAME: &str = "last_view";

/// The newest View, and a signal for each change.
#[derive(Debug)]
pub struct ViewFeed {
    current: ArcSwapOption<View>,
    epoch: watch::Sender<u64>,
}

impl Default for ViewFeed {
    fn default() -> Self {
        Self { current: ArcSwapOption::empty(), epoch: watch::Sender::new(0) }
    }
}

impl ViewFeed {
    /// The newest View; `None` before the first one.
    #[must_use]
    pub fn current(&self) -> Option<Arc<View>> {
        self.current.load_full()
    }

    /// Tells of every change; the value is the map epoch, 0 before the first View.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Map epoch of the newest View, 0 before the first one.
    #[must_use]
    pub fn map_epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Takes a View when it is newer; an older one comes from a voter that lags behind. One of another formation is
    /// taken whatever its epoch: the control plane was made anew, and the old one will not come back.
    pub fn offer(&self, view: View) -> Option<Arc<View>> {
        if let Some(held) = self.current.load().as_deref() {
            let anew = held.formation != 0 && view.formation != 0 && held.formation != view.formation;
            // A voter that holds no entry yet has nothing to say to a member that does.
            let unformed = held.formation != 0 && view.formation == 0;
            if unformed || (!anew && held.map_epoch >= view.map_epoch) {
                return None;
            }
            if anew {
                let (old, new) = (held.formation, view.formation);
                tracing::error!(old, new, "the control plane is another one: what the old one served is given up");
            }
        }
        let epoch = view.map_epoch;
        let view = Arc::new(view);
        self.current.store(Some(Arc::clone(&view)));
        self.epoch.send_replace(epoch);
        Some(view)
    }
}

/// The View that was on disk, if it is whole and of this cluster.
pub(crate) fn load_last(data_dir: &Path, cluster_id: &str) -> Option<LastView> {
    let path = data_dir.join(FILE_NAME);
    let bytes = match disk::read_sealed(&path) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the last View is not used");
            return None;
        }
    };
    let last = LastView::decode(bytes.as_slice()).ok()?;
    last.view.as_ref().is_some_and(|v| v.cluster_id == cluster_id).then_some(last)
}

/// Follows the View until the shutdown.
pub(crate) async fn follow(
    config: MemberConfig,
    voters: Arc<Voters>,
    feed: Arc<ViewFeed>,
    member_id: watch::Receiver<u64>,
    shutdown: Shutdown,
) {
    let mut keeper = Keeper { path: config.data_dir.join(FILE_NAME), member_id };
    let mut at = 0usize;
    loop {
        let addresses = voters.addresses();
        let address = addresses[at % addresses.len()].clone();
        tokio::select! {
            () = shutdown.wait() => return,
            end = watch_one(&address, &config.cluster_id, &voters, &feed, &mut keeper) => {
                tracing::debug!(%address, reason = %end, "the View stream ended");
            }
        }
        at += 1;
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

/// One stream from one voter; returns why it ended.
async fn watch_one(address: &str, cluster_id: &str, voters: &Voters, feed: &ViewFeed, keeper: &mut Keeper) -> String {
    let channel = match transport::control_channel(address) {
        Ok(channel) => channel,
        Err(e) => return e.to_string(),
    };
    let mut client = ControlServiceClient::new(channel).max_decoding_message_size(transport::MESSAGE_BYTES_MAX);
    let request = WatchViewRequest { cluster_id: cluster_id.to_owned(), from_epoch: feed.map_epoch() };
    let mut stream = match tokio::time::timeout(SILENCE_MAX, client.watch_view(request)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return status.to_string(),
        Err(_) => return "no answer".to_owned(),
    };
    loop {
        let view = match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(view))) => view,
            Ok(Ok(None)) => return "ended by the voter".to_owned(),
            Ok(Err(status)) => return status.to_string(),
            Err(_) => return "silent".to_owned(),
        };
        if view.cluster_id != cluster_id {
            return format!("it is of cluster {:?}", view.cluster_id);
        }
        if let Some(view) = feed.offer(view) {
            voters.learn(&view);
            metrics::gauge!("gavel_view_epoch").set(view.map_epoch as f64);
            keeper.keep(view).await;
        }
    }
}

/// Keeps the View on disk.
struct Keeper {
    path: PathBuf,
    member_id: watch::Receiver<u64>,
}

impl Keeper {
    async fn keep(&mut self, view: Arc<View>) {
        let path = self.path.clone();
        let last = LastView { view: Some(View::clone(&view)), member_id: *self.member_id.borrow() };
        let written = tokio::task::spawn_blocking(move || disk::write_sealed(&path, &last.encode_to_vec())).await;
        if let Ok(Err(error)) = written {
            tracing::error!(path = %self.path.display(), %error, "the View cannot be kept: a restart needs the control plane");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_view_is_not_taken() {
        let feed = ViewFeed::default();
        assert!(feed.current().is_none());
        assert!(feed.offer(View { map_epoch: 5, ..View::default() }).is_some());
        assert!(feed.offer(View { map_epoch: 5, ..View::default() }).is_none());
        assert!(feed.offer(View { map_epoch: 4, ..View::default() }).is_none());
        assert_eq!(feed.map_epoch(), 5);
    }

    #[test]
    fn a_control_plane_that_was_made_anew_is_followed() {
        let feed = ViewFeed::default();
        let view = |formation, map_epoch| View { formation, map_epoch, ..View::default() };
        assert!(feed.offer(view(0, 1)).is_some(), "before the first entry");
        assert!(feed.offer(view(7, 2)).is_some());
        assert!(feed.offer(view(7, 900)).is_some());
        assert!(feed.offer(view(0, 1)).is_none(), "from a voter that has just started");
        assert!(feed.offer(view(8, 3)).is_some(), "its epochs begin again");
        assert!(feed.offer(view(8, 3)).is_none());
        assert_eq!(feed.map_epoch(), 3);
    }

    #[test]
    fn a_view_of_another_cluster_is_not_loaded() {
        let dir = tempfile::tempdir().expect("a folder");
        let view = View { cluster_id: "a".to_owned(), map_epoch: 3, ..View::default() };
        let last = LastView { view: Some(view), member_id: 9 };
        disk::write_sealed(&dir.path().join(FILE_NAME), &last.encode_to_vec()).expect("written");
        assert_eq!(load_last(dir.path(), "a").map(|l| l.member_id), Some(9));
        assert!(load_last(dir.path(), "b").is_none());
    }
}
