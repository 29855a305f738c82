//! Do the auctions of a running cluster equal single auctions, under every mechanism, and can they be cleared again?
//!
//! Real processes with the demo catalogue. `gavel bench truth` clears every scored ad by a twin; `gavel auction replay`
//! reads what the routers logged meanwhile; an excluded campaign is looked for in what was cleared.

use gavel_tests::cluster::{Cluster, REFERENCE, binary, wait_for};
use gavel_tests::http;
use gavel_tests::repository::root;
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Requests compared under each rule.
const COMPARED: &str = "25";

fn gavel(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

fn rules(cluster: &Cluster, options: &[&str]) {
    let arguments: Vec<&str> = ["rules"].iter().chain(options).copied().collect();
    cluster.ctl(&arguments).expect("the rules are taken");
    let wanted = cluster.status().expect("a status")["map_epoch"].as_u64().expect("an epoch");
    for router in 0..cluster.routers.len() {
        wait_for("the new rules", Duration::from_secs(20), || {
            let (status, body) = cluster.ask(router, &http::request(1))?;
            (status == 200 && body["epoch"]["map_epoch"].as_u64() >= Some(wanted)).then_some(())
        });
    }
}

fn compare(cluster: &Cluster, options: &[&str]) {
    rules(cluster, options);
    let requests = root().join("cluster/bootstrap/demo/catalogue/requests.jsonl.zst").display().to_string();
    let report = tempfile::NamedTempFile::new().expect("a file");
    let path = report.path().display().to_string();
    let output = gavel(&[
        "bench",
        "truth",
        "--control",
        &cluster.controls[0].grpc,
        "--requests",
        &requests,
        "--count",
        COMPARED,
        "--min-eligible",
        "100",
        "--min-graph-share",
        "0",
        "--json",
        &path,
    ]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{options:?}: {text}");
    let report: Value = serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON");
    assert!(report["slates_compared"].as_u64() >= Some(20), "{options:?}: {report}");
    assert_eq!(report["slates_equal"], report["slates_compared"], "{options:?}: {report}");
}

#[test]
fn auctions_of_a_cluster_are_single_auctions_and_come_out_again() {
    let cluster = Cluster::start(REFERENCE);
    let options = |mechanism, per_category, neighbours, squashing| {
        ["--mechanism", mechanism, "--per-category", per_category, "--neighbours", neighbours, "--squashing", squashing]
    };
    compare(&cluster, &options("gsp", "0", "any", "0"));
    compare(&cluster, &options("vcg", "1", "any", "0"));
    compare(&cluster, &options("vcg", "0", "apart", "0"));
    compare(&cluster, &options("gsp", "0", "apart", "0.4"));
    compare(&cluster, &options("first-price", "2", "any", "0"));
    // No twin of the probe knows cascading users: what it does is in the log, and comes out again.
    let cascade = ["--mechanism", "vcg", "--neighbours", "any", "--per-category", "0", "--cascade", "0.7"];
    rules(&cluster, &cascade);
    let with_feed = |seed: u64| {
        let mut request = http::request(seed);
        let feed: Vec<Value> =
            (0..10).map(|i| json!({"id": i.to_string(), "utility": 1.0 / f64::from(i + 1)})).collect();
        request["organic"] = json!(feed);
        request
    };
    for seed in 1..40 {
        assert_eq!(cluster.ask(0, &with_feed(seed)).expect("an answer").0, 200);
    }
    std::thread::sleep(Duration::from_millis(1_500));
    for folder in cluster.clearing_logs() {
        let output = gavel(&["auction", "replay", &folder.display().to_string(), "--format", "json"]);
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Value = serde_json::from_str(&report).expect("a report");
        assert!(output.status.success() && found["equal"].as_u64() >= Some(5), "{report}");
        assert_eq!(found["equal"], found["clearings"], "{report}");
    }
}

/// A campaign that is excluded for a request is not among the candidates of its auction, so it cannot set a price.
#[test]
fn an_excluded_campaign_is_not_in_the_auction() {
    let cluster = Cluster::start(REFERENCE);
    let address = cluster.routers[0].http.as_deref().expect("an address");
    let explain = |request: &Value| -> Value {
        let (status, text) = http::post(address, "/v1/explain", &request.to_string()).expect("an answer");
        assert_eq!(status, 200, "{text}");
        let explained: Value = serde_json::from_str(&text).expect("JSON");
        serde_json::from_str(explained["clearing"].as_str().expect("a line")).expect("a clearing")
    };
    let mut request = http::request(5);
    let before = explain(&request);
    let candidates = |clearing: &Value| clearing["inputs"]["candidates"].as_array().cloned().expect("candidates");
    let campaign = candidates(&before)[0]["campaign"].clone();
    request["blocked_campaigns"] = json!([campaign]);
    let after = explain(&request);
    assert!(candidates(&after).iter().all(|c| c["campaign"] != campaign), "{after}");
    assert_ne!(before["winners"], after["winners"]);
    assert!(!after["winners"].as_array().expect("winners").is_empty());
}
