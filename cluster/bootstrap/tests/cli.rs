//! Does the binary say what it should, and end with the documented code?

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn gavel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gavel")).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Two bidders for one slot: the winner pays what the loser bid, as is published for a second-price auction.
#[test]
fn an_auction_is_cleared_from_a_file_and_from_standard_input() {
    let auction =
        r#"{"id":"second-price","mechanism":"gsp","position_factors":[1],"bids":["2.5","1.5"],"weights":[1,1]}"#;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(auction.as_bytes()).expect("written");
    let path = file.path().to_string_lossy().into_owned();
    let output = gavel(&["auction", "clear", &path, "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let cleared: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let first = cleared.get(0).unwrap_or(&cleared);
    assert_eq!(first["order"], serde_json::json!([0]), "{cleared}");
    assert_eq!(first["price_micros"], serde_json::json!([1_500_000]), "{cleared}");

    let mut child = Command::new(env!("CARGO_BIN_EXE_gavel"))
        .args(["auction", "clear", "-", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(auction.as_bytes()).expect("written");
    assert_eq!(text(&child.wait_with_output().expect("ended").stdout), text(&output.stdout));
}

#[test]
fn what_is_wrong_has_its_exit_code() {
    let mut broken = tempfile::NamedTempFile::new().expect("a file");
    broken.write_all(b"{\"bids\": ").expect("written");
    let broken = broken.path().to_string_lossy().into_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_string_lossy().into_owned();
    let control = ["control", "--id", "1", "--peers", "127.0.0.1:7001", "--data-dir", &path];
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--help"], 0, ""),
        (&["--version"], 0, ""),
        (&[], 64, "Usage"),
        (&["sing"], 64, "sing"),
        (&["auction", "clear"], 64, "FILE"),
        (&["auction", "clear", "/nowhere/at/all.json"], 64, "/nowhere/at/all.json"),
        (&["auction", "clear", &broken], 65, "gavel:"),
        (&control, 64, "ID=HOST:PORT"),
        (&["ctl", "--control", "nowhere", "status"], 64, "host:port"),
    ];
    for (arguments, code, says) in cases {
        let output = gavel(arguments);
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {complaint}");
        assert!(complaint.contains(says), "{arguments:?}: {complaint}");
        assert!(code == 0 || output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
    }
}

/// An address that is taken, or not ours, is not mistaken for a disk that fails.
#[test]
fn every_role_says_the_same_when_it_cannot_listen() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let peers = format!("1={taken}");
    // TEST-NET-3 is nobody's.
    for address in [taken.as_str(), "203.0.113.1:7001"] {
        let roles: [&[&str]; 4] = [
            &["control", "--id", "1", "--peers", &peers, "--listen", address],
            &["node", "--listen", address, "--control", "127.0.0.1:1"],
            &["router", "--listen", address, "--http-listen", "127.0.0.1:0", "--control", "127.0.0.1:1"],
            &["router", "--listen", "127.0.0.1:0", "--http-listen", address, "--control", "127.0.0.1:1"],
        ];
        for role in roles {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().to_string_lossy().into_owned();
            let output = gavel(&[role, &["--data-dir", &path]].concat());
            assert_eq!(output.status.code(), Some(69), "{role:?}: {}", text(&output.stderr));
        }
    }
}

/// A process of another cluster must not touch the folder, and damaged files are told from a failing disk.
#[test]
fn a_foreign_or_damaged_data_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_string_lossy().into_owned();
    let start = ["node", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:1", "--data-dir", &path];
    std::fs::write(
        folder.path().join("identity.toml"),
        "cluster_id = \"other\"\nmember_key = \"k\"\nincarnation = 1\n",
    )
    .expect("written");
    let foreign = gavel(&start);
    assert_eq!(foreign.status.code(), Some(66), "{}", text(&foreign.stderr));
    std::fs::write(folder.path().join("identity.toml"), "cluster_id = 7").expect("written");
    let damaged = gavel(&start);
    assert_eq!(damaged.status.code(), Some(65), "{}", text(&damaged.stderr));
}
