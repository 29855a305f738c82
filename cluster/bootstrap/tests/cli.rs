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
    let cases: [(&[&str], i32, &str); 10] = [
        (&["--help"], 0, ""),
        (&["--version"], 0, ""),
        (&[], 64, "Usage"),
        (&["sing"], 64, "sing"),
        (&["auction", "clear"], 64, "FILE"),
        (&["auction", "clear", "/nowhere/at/all.json"], 64, "/nowhere/at/all.json"),
        (&["auction", "clear", &broken], 65, "gavel:"),
        (&control, 64, "ID=HOST:PORT"),
        (&["ctl", "--control", "nowhere", "status"], 64, "host:port"),
        (&["sim", "market", "--candidates", "3"], 64, "--candidates is 4 to 200"),
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

/// The demo's bundle is sound; the same with an operator that nobody has is refused by name, and everything else
/// that is wrong with it is said in the same answer.
#[test]
fn a_bundle_is_checked_without_a_cluster() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/bundle");
    let output = gavel(&["model", "check", demo, "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["errors"], serde_json::json!([]), "{found}");
    assert!(found["max_rel_error"].as_f64().is_some_and(|e| e < 1e-4), "{found}");
    assert!(found["golden_rows"].as_u64().is_some_and(|n| n > 0), "{found}");
    let flops = |part: &str| found["parts"][part]["flops"].as_u64().expect("a number");
    assert_eq!(found["flops_total"], found["parts"]["whole"]["flops"]);
    assert_eq!(found["flops_per_candidate"], found["parts"]["candidate"]["flops"]);
    assert!(flops("candidate") < flops("whole") && flops("user") > 0 && flops("item") > 0, "{found}");
    let output = gavel(&["model", "check", demo]);
    assert!(output.status.success() && text(&output.stdout).contains("left the request path"));

    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(demo).expect("the demo").flatten() {
        let mut bytes = std::fs::read(entry.path()).expect("read");
        if entry.file_name() == "ranker.onnx" {
            // The name keeps its length, so that the file stays an ONNX file.
            replace(&mut bytes, b"MatMul", b"MatMap");
        }
        std::fs::write(folder.path().join(entry.file_name()), bytes).expect("written");
    }
    let path = folder.path().to_string_lossy().into_owned();
    let output = gavel(&["model", "check", &path, "--format", "json"]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let errors = found["errors"].to_string();
    assert!(errors.contains("ranker.onnx is damaged") && errors.contains("operator MatMap of node"), "{errors}");
    let absent = gavel(&["model", "check", "/nowhere/at/all"]);
    assert_eq!(absent.status.code(), Some(64), "{}", text(&absent.stderr));
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(i, _)| i).collect();
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to);
    }
}
