//! Does an object store take the place of the voters' disks, and is nothing of it believed?
//!
//! Voters of their own, as in `damaged_blobs`, over one store: an S3 server behind real HTTP, or a shared folder through
//! the same code. The client is the one that `gavel ctl` uses, the member's fetch the one of nodes and routers.

#[path = "support/s3.rs"]
mod s3;
mod support;

use gavel_control::blobs::{Addressing, BlobError, BlobFolder, Held, Keys, Shelf, Store, StoreLocation, Sweeper};
use gavel_control::{ControlConfig, Running};
use gavel_member::blobs::{FetchError, fetch};
use gavel_member::member::Voters;
use gavel_member::{Shutdown, transport};
use gavel_proto::limits::{CHUNK_BYTES_MAX, STORE_BYTES_MAX};
use gavel_proto::wire::blob_service_client::BlobServiceClient;
use gavel_proto::wire::{BlobChunk, BlobPutResponse, BlobStatRequest};
use s3::Server;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use support::CLUSTER;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);
const HOURS: u64 = 3_600_000;
/// More than a part, less than two, and no whole number of chunks.
const BYTES: usize = 9_000_001;

fn content() -> Vec<u8> {
    (0..BYTES as u64).map(|n| gavel_proto::hash::mix64(n) as u8).collect()
}

fn hash() -> [u8; 32] {
    *blake3::hash(&content()).as_bytes()
}

fn name(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

fn key(hash: &[u8; 32]) -> String {
    format!("blobs/{CLUSTER}/{}", name(hash))
}

fn location_of(server: &Server, bucket: &str) -> StoreLocation {
    StoreLocation::S3 {
        bucket: bucket.to_owned(),
        prefix: "blobs".to_owned(),
        endpoint: Some(server.endpoint.clone()),
        region: Some("eu-test-1".to_owned()),
        addressing: Addressing::Path,
        keys: Keys::Given { id: "id".to_owned(), secret: "secret".to_owned() },
    }
}

fn location(server: &Server) -> StoreLocation {
    location_of(server, s3::BUCKET)
}

/// Voters, each alone, over one store.
struct Scene {
    voters: Vec<Running>,
    folders: Vec<TempDir>,
    member: TempDir,
    shutdown: Shutdown,
}

impl Scene {
    async fn of(count: usize, location: &StoreLocation) -> Self {
        let shutdown = Shutdown::new();
        let (mut voters, mut folders) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let folder = tempfile::tempdir().expect("a folder");
            let mut config = ControlConfig::new(CLUSTER, 1, folder.path().to_owned(), "127.0.0.1:0", Vec::new());
            config.blob_store = Some(location.clone());
            voters.push(gavel_control::run(config, shutdown.clone()).await.expect("runs"));
            folders.push(folder);
        }
        Self { voters, folders, member: tempfile::tempdir().expect("a folder"), shutdown }
    }

    fn client(&self, voter: usize) -> BlobServiceClient<tonic::transport::Channel> {
        let address = self.voters[voter].address.to_string();
        BlobServiceClient::new(transport::bulk_channel(&address).expect("an address"))
            .max_decoding_message_size(transport::CHUNK_MESSAGE_BYTES_MAX)
    }

    async fn stat(&self, voter: usize, hash: &[u8; 32]) -> Result<(bool, u64), tonic::Status> {
        let stat = self.client(voter).stat(BlobStatRequest { hash: hash.to_vec() }).await?.into_inner();
        Ok((stat.whole, stat.bytes_held))
    }

    /// Sends what comes behind `from`, as the client does.
    async fn put(&self, voter: usize, bytes: &[u8], from: u64) -> Result<BlobPutResponse, tonic::Status> {
        let hash = *blake3::hash(bytes).as_bytes();
        let total_bytes = bytes.len() as u64;
        let rest = &bytes[from as usize..];
        let mut chunks: Vec<BlobChunk> = Vec::new();
        let pieces: Vec<&[u8]> = if rest.is_empty() { vec![rest] } else { rest.chunks(CHUNK_BYTES_MAX).collect() };
        for data in pieces {
            let offset = chunks.last().map_or(from, |last| last.offset + last.data.len() as u64);
            let crc32 = crc32fast::hash(data);
            chunks.push(BlobChunk { hash: hash.to_vec(), total_bytes, offset, data: data.to_vec(), crc32 });
        }
        let put = self.client(voter).put(tokio_stream::iter(chunks)).await?;
        Ok(put.into_inner())
    }

    /// What the client does with one voter: asks, and sends the rest.
    async fn upload(&self, voter: usize, bytes: &[u8]) -> Result<BlobPutResponse, tonic::Status> {
        let hash = *blake3::hash(bytes).as_bytes();
        let (whole, bytes_held) = self.stat(voter, &hash).await?;
        if whole {
            return Ok(BlobPutResponse { whole, bytes_held });
        }
        self.put(voter, bytes, bytes_held.min(bytes.len() as u64)).await
    }

    fn on_disk(&self, voter: usize) -> std::path::PathBuf {
        self.folders[voter].path().join("blobs").join(name(&hash()))
    }

    async fn fetch(&self, voters: &[usize]) -> Result<Vec<u8>, FetchError> {
        let addresses = voters.iter().map(|voter| self.voters[*voter].address.to_string()).collect();
        let (voters, dest) = (Voters::new(addresses).expect("somebody"), self.member.path().join("blob"));
        let fetched = tokio::time::timeout(PATIENCE, fetch(&hash(), BYTES as u64, &dest, &voters)).await;
        fetched.expect("a fetch ends")?;
        let bytes = std::fs::read(&dest).expect("it is there");
        std::fs::remove_file(dest).expect("removed");
        Ok(bytes)
    }

    async fn end(self) {
        self.shutdown.trigger();
        for voter in self.voters {
            drop(tokio::time::timeout(PATIENCE, voter.task).await.expect("a voter ends"));
        }
    }
}

/// One upload serves all: the second voter brings it from the store, and so does one that nobody has sent anything.
async fn one_upload_is_there_on_every_voter(location: &StoreLocation) -> Scene {
    let scene = Scene::of(3, location).await;
    let content = content();
    let half = scene.put(0, &content, BYTES as u64).await.expect("answers");
    assert_eq!((half.whole, half.bytes_held), (false, 0), "a claim to have sent it is not believed");
    assert!(scene.upload(0, &content).await.expect("taken").whole);
    assert_eq!(scene.stat(0, &hash()).await.expect("told"), (true, BYTES as u64));

    assert_eq!(scene.stat(1, &hash()).await.expect("told"), (false, BYTES as u64), "all of it, unverified");
    assert!(!scene.on_disk(1).exists());
    assert!(scene.put(1, &content, BYTES as u64).await.expect("brought").whole, "without a byte sent");
    assert!(scene.on_disk(1).exists());

    assert!(scene.fetch(&[2]).await.expect("read through") == content);
    assert!(scene.on_disk(2).exists(), "a copy for the next reader");
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_store_takes_the_place_of_the_disks() {
    let server = Server::start().await;
    let scene = one_upload_is_there_on_every_voter(&location(&server)).await;
    server.hold(|s| {
        assert_eq!(s.objects.keys().collect::<Vec<_>>(), [&key(&hash())]);
        assert!(s.objects[&key(&hash())] == content());
        assert_eq!((s.asked("part"), s.asked("complete"), s.unfinished()), (2, 1, 0));
    });
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_folder_takes_the_place_of_the_disks() {
    let shared = tempfile::tempdir().expect("a folder");
    let location = StoreLocation::Shared { folder: shared.path().to_owned() };
    let scene = one_upload_is_there_on_every_voter(&location).await;
    let object = shared.path().join(CLUSTER).join(name(&hash()));
    assert!(std::fs::read(&object).expect("there") == content());
    scene.end().await;
}

/// Readers are given no byte of it, another voter's verified copy is; an upload puts it right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_refused_and_another_copy_is_found() {
    let server = Server::start().await;
    let scene = Scene::of(3, &location(&server)).await;
    assert!(scene.upload(0, &content()).await.expect("taken").whole);
    server.hold(|s| s.objects.get_mut(&key(&hash())).expect("there")[BYTES - 1] ^= 1);

    let error = scene.fetch(&[1]).await.expect_err("it has other bytes");
    assert!(matches!(error, FetchError::Unavailable(_)), "{error}");
    assert!(!scene.on_disk(1).exists());
    let gets = server.hold(|s| s.asked("get"));
    drop(scene.fetch(&[1]).await.expect_err("still"));
    assert_eq!(server.hold(|s| s.asked("get")), gets, "it is remembered as damaged");
    assert!(scene.fetch(&[1, 2, 0]).await.expect("voter 0 has a copy") == content());

    assert_eq!(scene.stat(1, &hash()).await.expect("told"), (false, 0), "it has to be sent again");
    assert!(scene.upload(1, &content()).await.expect("taken").whole);
    assert!(server.hold(|s| s.objects[&key(&hash())] == content()));
    // Voter 2 has seen the damage, too, and forgets it only later; one that has not finds the good bytes.
    assert!(scene.fetch(&[1]).await.expect("put right") == content());
    scene.end().await;
}

/// Away: uploads are refused and kept half, readers get what disks have; afterwards all goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_disks_serve_and_uploads_wait() {
    let server = Server::start().await;
    let scene = Scene::of(2, &location(&server)).await;
    assert!(scene.upload(0, &content()).await.expect("taken").whole);
    server.hold(|s| s.away = true);
    let other = b"another blob".to_vec();
    let refused = scene.upload(0, &other).await.expect_err("nothing is taken that could not be kept");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(refused.message().contains("the object store"), "{refused}");
    assert!(scene.fetch(&[1, 0]).await.expect("voter 0 has a copy") == content());

    server.hold(|s| s.away = false);
    assert!(scene.upload(0, &other).await.expect("taken").whole);
    scene.end().await;
}

/// A bucket that is not there, or keys that are not taken: said when it is tried, in words that name it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_store_refuses_is_told() {
    let server = Server::start().await;
    let scene = Scene::of(1, &location_of(&server, "other")).await;
    let refused = scene.upload(0, b"bytes").await.expect_err("no bucket");
    assert!(refused.message().contains("NoSuchBucket"), "{refused}");
    scene.end().await;
    let nowhere = StoreLocation::Shared { folder: "/nowhere/at/all".into() };
    assert!(Store::open(&nowhere, CLUSTER).is_err());
}

fn shelf(folder: &Path, location: &StoreLocation) -> Shelf {
    let disk = BlobFolder::open(folder, u64::MAX).expect("opened");
    Shelf::new(disk, Some(Store::open(location, CLUSTER).expect("a store")))
}

/// What the state does not name goes from the store once it is old, by the leader alone; a copy on a disk goes when the
/// store has it; what the store lacks is put there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeping_keeps_what_is_named_and_what_is_not_ours() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = shelf(folder.path(), &location(&server));
    let named = *blake3::hash(b"named").as_bytes();
    std::fs::write(folder.path().join(name(&named)), b"named").expect("from before there was a store");
    let forgotten = *blake3::hash(b"forgotten").as_bytes();
    let foreign = "blobs/another-cluster/x".to_owned();
    server.hold(|s| {
        for (key, bytes) in [
            (key(&forgotten), &b"forgotten"[..]),
            (foreign.clone(), b"x"),
            (format!("blobs/{CLUSTER}/notes.txt"), b"y"),
        ] {
            s.objects.insert(key.clone(), bytes.to_vec());
            s.old.push(key);
        }
    });
    let now_ms = gavel_member::clock::wall_ms();
    let sweep = |now_ms, who| shelf.sweep(BTreeSet::from([named]), now_ms, who);
    assert_eq!(sweep(now_ms, Sweeper::Follower).await.expect("swept"), 0);
    assert!(server.hold(|s| s.objects.contains_key(&key(&named))), "the store had none of it");
    assert!(server.hold(|s| s.objects.contains_key(&key(&forgotten))), "the leader's to remove");
    assert_eq!(sweep(now_ms, Sweeper::Leader).await.expect("swept"), 1);
    server.hold(|s| {
        assert!(!s.objects.contains_key(&key(&forgotten)));
        assert!(s.objects.contains_key(&foreign) && s.objects.contains_key(&format!("blobs/{CLUSTER}/notes.txt")));
    });
    assert!(folder.path().join(name(&named)).exists(), "somebody may ask for it soon");
    sweep(now_ms + 7 * HOURS, Sweeper::Leader).await.expect("swept");
    assert!(!folder.path().join(name(&named)).exists(), "the store has it");
    assert!(server.hold(|s| s.objects.contains_key(&key(&named))));
}

/// What made room came behind what needs it, and never came; a voter that does not lead did not hear that there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_takes_more_when_something_has_gone() {
    let server = Server::start().await;
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let [leader, follower] = folders.each_ref().map(|folder| shelf(folder.path(), &location(&server)));
    let named = *blake3::hash(b"named").as_bytes();
    for folder in &folders {
        std::fs::write(folder.path().join(name(&named)), b"named").expect("written");
    }
    let forgotten = key(blake3::hash(b"forgotten").as_bytes());
    server.hold(|s| {
        s.objects.insert(forgotten.clone(), b"forgotten".to_vec());
        s.claims.insert(forgotten.clone(), STORE_BYTES_MAX);
    });
    let now_ms = gavel_member::clock::wall_ms();
    let led = || leader.sweep(BTreeSet::from([named]), now_ms, Sweeper::Leader);
    let followed = || follower.sweep(BTreeSet::from([named]), now_ms, Sweeper::Follower);
    assert!(matches!(led().await, Err(BlobError::NoRoom(5))));
    assert!(matches!(followed().await, Err(BlobError::NoRoom(5))));
    server.hold(|s| s.old.push(forgotten.clone()));
    assert!(matches!(followed().await, Err(BlobError::NoRoom(5))), "the leader's to remove");
    assert_eq!(led().await.expect("swept, and then there is room"), 1);
    server.hold(|s| {
        assert_eq!(s.objects.keys().collect::<Vec<_>>(), [&key(&named)]);
        s.objects.clear();
    });
    assert_eq!(followed().await.expect("it has looked again"), 0);
    assert!(server.hold(|s| s.objects.contains_key(&key(&named))));
}

/// The first blob that failed ended the sweep, each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_blob_that_fails_keeps_no_other_from_the_store() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = shelf(folder.path(), &location(&server));
    let mut blobs = [b"one", b"two"].map(|bytes| (*blake3::hash(bytes).as_bytes(), bytes));
    // In the order in which they are looked at.
    blobs.sort();
    let [(first, _), (second, bytes)] = blobs;
    std::fs::write(folder.path().join(name(&first)), b"rotten").expect("written");
    std::fs::write(folder.path().join(name(&second)), bytes).expect("written");
    let named = BTreeSet::from([first, second]);
    let swept = shelf.sweep(named, gavel_member::clock::wall_ms(), Sweeper::Follower).await;
    assert!(matches!(swept, Err(BlobError::OtherBytes)), "{swept:?}");
    assert_eq!(server.hold(|s| s.objects.keys().cloned().collect::<Vec<_>>()), [key(&second)]);
}

/// The object kept its name and its length, so that the only good copy, on the disk, was let go hours later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_copy_outlives_a_store_that_alters_what_it_takes() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = shelf(folder.path(), &location(&server));
    let copy = folder.path().join(name(&hash()));
    std::fs::write(&copy, content()).expect("written");
    let late_ms = gavel_member::clock::wall_ms() + 7 * HOURS;
    let sweep = || shelf.sweep(BTreeSet::from([hash()]), late_ms, Sweeper::Leader);
    server.hold(|s| s.alters = true);
    assert!(matches!(sweep().await, Err(BlobError::OtherBytes)));
    assert!(server.hold(|s| s.objects.is_empty()), "nobody finds it there");

    // Also when the store does not delete it.
    server.hold(|s| s.keeps = true);
    for _ in 0..2 {
        assert!(matches!(sweep().await, Err(BlobError::OtherBytes)));
        assert!(server.hold(|s| s.objects.contains_key(&key(&hash()))));
        assert!(copy.exists());
    }
    assert_eq!(shelf.held(hash()).await.expect("told"), Held::Part(BYTES as u64), "it is to be put anew");

    server.hold(|s| s.alters = false);
    sweep().await.expect("put anew");
    assert!(server.hold(|s| s.objects[&key(&hash())] == content()));
    sweep().await.expect("let go");
    assert!(!copy.exists(), "the store has it");
}

/// Whoever is about to name a blob must find it afterwards: an object that would soon be swept is put anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_object_that_is_asked_for_is_put_anew() {
    let server = Server::start().await;
    let scene = Scene::of(1, &location(&server)).await;
    assert!(scene.upload(0, &content()).await.expect("taken").whole);
    server.hold(|s| s.old.push(key(&hash())));
    assert_eq!(scene.stat(0, &hash()).await.expect("told"), (false, BYTES as u64));
    assert!(scene.put(0, &content(), BYTES as u64).await.expect("put anew").whole);
    assert!(server.hold(|s| s.old.is_empty()));
    assert_eq!(scene.stat(0, &hash()).await.expect("told"), (true, BYTES as u64));
    scene.end().await;
}

/// A copy on a disk that rotted does not get into the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_copy_is_not_put() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = shelf(folder.path(), &location(&server));
    let mut rotten = content();
    rotten[17] ^= 1;
    std::fs::write(folder.path().join(name(&hash())), rotten).expect("written");
    let swept = shelf.sweep(BTreeSet::from([hash()]), gavel_member::clock::wall_ms(), Sweeper::Leader).await;
    assert!(swept.is_err());
    assert!(server.hold(|s| s.objects.is_empty() && s.unfinished() == 0), "nothing is left of it");
    assert!(!folder.path().join(name(&hash())).exists());
}
