//! Does a member ever take bytes that are not the ones it asked for?
//!
//! Voters whose disks have lost something: a copy with a flipped bit, a copy that ends too early, a voter that goes away
//! in the middle. A member asks them in the order in which it was told them. Every wait has an end.

mod support;

use gavel_control::Running;
use gavel_member::Shutdown;
use gavel_member::blobs::{FetchError, fetch};
use gavel_member::member::Voters;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::lone;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// Longest wait for a fetch, with its three rounds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Several chunks, and no whole number of them.
const BYTES: usize = 5_000_003;

fn content() -> Vec<u8> {
    (0..BYTES as u64).map(|n| gavel_proto::hash::mix64(n) as u8).collect()
}

/// What is wrong with a voter's copy.
#[derive(Clone, Copy)]
enum Copy {
    Good,
    /// A bit of the byte at this place is another.
    Flipped(usize),
    /// It ends here.
    Cut(usize),
}

/// Voters, each alone, with a copy on its disk; and a member's folder.
struct Scene {
    voters: Vec<Running>,
    folders: Vec<TempDir>,
    member: TempDir,
    shutdown: Shutdown,
    hash: [u8; 32],
}

impl Scene {
    async fn of(copies: &[Copy]) -> Self {
        let (content, shutdown) = (content(), Shutdown::new());
        let hash = blake3::hash(&content);
        let (mut voters, mut folders) = (Vec::new(), Vec::new());
        for copy in copies {
            let folder = tempfile::tempdir().expect("a folder");
            let mut bytes = content.clone();
            match *copy {
                Copy::Good => {}
                Copy::Flipped(at) => bytes[at] ^= 4,
                Copy::Cut(at) => bytes.truncate(at),
            }
            voters.push(lone(folder.path(), &shutdown).await);
            std::fs::write(folder.path().join("blobs").join(hash.to_hex().as_str()), bytes).expect("a damaged disk");
            folders.push(folder);
        }
        let member = tempfile::tempdir().expect("a folder");
        Self { voters, folders, member, shutdown, hash: *hash.as_bytes() }
    }

    fn addresses(&self) -> Vec<String> {
        self.voters.iter().map(|v| v.address.to_string()).collect()
    }

    fn dest(&self) -> PathBuf {
        self.member.path().join("blob")
    }

    fn part(&self) -> PathBuf {
        self.dest().with_extension("part")
    }

    /// Fetches from these addresses, within its time.
    async fn fetch_from(&self, addresses: Vec<String>) -> Result<(), FetchError> {
        let voters = Voters::new(addresses).expect("somebody");
        let dest = self.dest();
        let fetched = tokio::time::timeout(PATIENCE, fetch(&self.hash, BYTES as u64, &dest, &voters)).await;
        fetched.expect("a fetch ends")
    }

    async fn fetch(&self) -> Result<(), FetchError> {
        self.fetch_from(self.addresses()).await
    }

    #[track_caller]
    fn is_whole(&self) {
        let bytes = std::fs::read(self.dest()).expect("it is there");
        assert_eq!(blake3::hash(&bytes).as_bytes(), &self.hash);
        assert!(!self.part().exists(), "nothing half is left");
    }

    async fn end(self) {
        self.shutdown.trigger();
        for voter in self.voters {
            drop(tokio::time::timeout(PATIENCE, voter.task).await.expect("a voter ends"));
        }
        drop(self.folders);
    }
}

fn write_part(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_copy_is_found_behind_damaged_ones() {
    let scene = Scene::of(&[Copy::Flipped(17), Copy::Cut(BYTES / 2), Copy::Flipped(BYTES - 1), Copy::Good]).await;
    scene.fetch().await.expect("the last one is good");
    scene.is_whole();
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_copy_there_is_none() {
    // Damaged where the other one does not help: the good parts of two copies together may well be the whole.
    for copies in [[Copy::Flipped(BYTES - 1), Copy::Cut(1_000)], [Copy::Cut(BYTES / 3), Copy::Flipped(BYTES / 2)]] {
        let scene = Scene::of(&copies).await;
        let error = scene.fetch().await.expect_err("both are damaged");
        assert!(matches!(error, FetchError::Unavailable(_)), "{error}");
        assert!(!scene.dest().exists(), "nothing has the name");
        scene.end().await;
    }
}

/// What came before a break is kept. The only voter's copy is damaged in the part that is here already, so the whole
/// can only have come about by asking for the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_goes_on_where_it_broke_off() {
    let scene = Scene::of(&[Copy::Flipped(10)]).await;
    write_part(&scene.part(), &content()[..BYTES / 3]);
    scene.fetch().await.expect("the rest is good");
    scene.is_whole();
    scene.end().await;
}

/// Wrong bytes from before a break, or more of them than the blob has, cost one attempt and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_beginning_is_thrown_away() {
    let scene = Scene::of(&[Copy::Good]).await;
    write_part(&scene.part(), &vec![7; BYTES / 3]);
    scene.fetch().await.expect("the copy is good");
    scene.is_whole();
    std::fs::remove_file(scene.dest()).expect("removed");
    write_part(&scene.part(), &vec![7; BYTES + 1]);
    scene.fetch().await.expect("the copy is good");
    scene.is_whole();
    // A file with the name and other bytes is not taken for it.
    std::fs::write(scene.dest(), b"else").expect("written");
    scene.fetch().await.expect("the copy is good");
    scene.is_whole();
    scene.end().await;
}

/// Lets so many bytes through to the client of each connection, and then closes it.
async fn cut_line(to: String, after: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&to).await else { return };
            tokio::spawn(pass(client, server, after));
        }
    });
    address
}

async fn pass(client: TcpStream, server: TcpStream, after: u64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let asks = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut limited = tokio::io::AsyncReadExt::take(from_server, after);
    // Either side may have gone: the line is cut all the same.
    let _ = tokio::io::copy(&mut limited, &mut to_client).await;
    let _ = to_client.shutdown().await;
    asks.abort();
}

/// The line to the good voter is cut again and again; each time the rest is asked for, from it or from another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_costs_only_what_was_on_it() {
    let scene = Scene::of(&[Copy::Good, Copy::Flipped(10)]).await;
    let addresses = scene.addresses();
    let cut = cut_line(addresses[0].clone(), BYTES as u64 / 2).await;
    // The first half over the line that breaks, the rest from a voter whose copy is damaged where it is not read.
    scene.fetch_from(vec![cut.clone(), addresses[1].clone()]).await.expect("together they are whole");
    scene.is_whole();
    std::fs::remove_file(scene.dest()).expect("removed");
    // Half a blob a round, and there are three.
    scene.fetch_from(vec![cut]).await.expect("in pieces");
    scene.is_whole();
    scene.end().await;
}
