//! Is what routers log what was scored, and does it join with what happened?
//!
//! Real processes: ads are asked of one router and events reported to the other, more often than once, out of order,
//! with forged ones among them. Then the logs are joined by the command. The logged features are put through the
//! bundle once more: they must give the predictions that were served.

use gavel_model::{Bundle, FeatureRow, FeatureSpec, FeatureValue, Scratch};
use gavel_proto::hash::value_hash;
use gavel_router::logged::{Features, LoggedValue, ScoredCandidate, ScoredLine};
use gavel_tests::calls::{Sold, event};
use gavel_tests::cluster::{Cluster, Logging, Size, gavel, wait_for};
use gavel_tests::http;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

const REQUESTS: u64 = 24;
/// Ids of the auctions of this test are above it.
const FIRST_AUCTION: u64 = 1_000;
/// Longest wait for what a log's thread writes.
const WRITTEN: Duration = Duration::from_secs(20);

#[test]
fn what_was_scored_joins_with_what_happened() {
    let size = Size { controls: 1, nodes: 2, routers: 2, shards: 2, replicas: 1 };
    let cluster = Cluster::start_logging(size, &[], 10, Logging::Everything);
    let sold = ask(&cluster);
    assert!(sold.len() as u64 > REQUESTS, "{} ads", sold.len());
    let sent = report(&cluster, &sold);

    let (out, json) = (cluster.folder().join("joined"), cluster.folder().join("joined.json"));
    let report = wait_for("the logs of everything", WRITTEN, || {
        let report = join(&cluster, &out, &json)?;
        (report["events"]["events"] == sent.events && report["placed"].as_u64()? >= sold.len() as u64).then_some(report)
    });
    // Requests before the ones of this test, by which it was waited for, leave lines as well.
    assert!(report["requests"].as_u64() >= Some(REQUESTS), "{report:#}");
    assert_eq!(report["unreadable"], 0, "{report:#}");
    assert_eq!(report["events"]["joined"], sent.distinct, "{report:#}");
    assert_eq!(report["events"]["duplicate"], sent.events - sent.distinct, "{report:#}");
    for nothing in ["late", "early", "unmatched", "contradicting"] {
        assert_eq!(report["events"][nothing], 0, "{nothing}: {report:#}");
    }
    let rows = report["train_rows"].as_u64().unwrap() + report["valid_rows"].as_u64().unwrap();
    assert_eq!((rows, &report["clicks"]), (sold.len() as u64, &json!(sent.clicks)), "{report:#}");
    assert!(report["valid_rows"].as_u64() > Some(0));
    let table = unpacked(&out.join("impressions_train.csv.gz"));
    let head = table.lines().next().unwrap().to_owned();
    for column in ["visit", "weight", "click", "conv", "i.product_type", "m.match_type", "p.click"] {
        assert!(head.split(',').any(|name| name == column), "{column}: {head}");
    }
    check_lines(&cluster);
    for router in &cluster.routers {
        assert!(router.metric("gavel_router_scored_logged_total") > 0.0);
        assert_eq!(router.metric("gavel_router_scored_dropped_total"), 0.0);
        assert_eq!(router.metric("gavel_router_events_dropped_total"), 0.0);
    }
}

/// A router that is stopped leaves columns, and one that was killed leaves them when it starts again.
#[cfg(feature = "parquet")]
#[test]
fn columns_hold_what_lines_did() {
    let size = Size { controls: 1, nodes: 2, routers: 2, shards: 2, replicas: 1 };
    let mut cluster = Cluster::start_logging(size, &[], 10, Logging::Columns);
    let sold = ask(&cluster);
    let sent = report(&cluster, &sold);
    let (out, json) = (cluster.folder().join("joined"), cluster.folder().join("joined.json"));
    let names = ["visits.csv.gz", "impressions_train.csv.gz", "impressions_valid.csv.gz"];
    let tables = || names.map(|name| unpacked(&out.join(name)));
    let of_lines = wait_for("the logs of everything", WRITTEN, || {
        let report = join(&cluster, &out, &json)?;
        (report["events"]["events"] == sent.events && report["placed"].as_u64()? >= sold.len() as u64).then_some(report)
    });
    let expected = tables();

    cluster.routers[0].stop();
    cluster.routers[1].kill();
    cluster.routers[1].start();
    let files = |router: usize, log: &str| -> Vec<String> {
        let folder = std::fs::read_dir(&cluster.logs(log)[router]).expect("a folder").flatten();
        let mut names: Vec<String> = folder.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    for log in ["scored", "events"] {
        assert_eq!(files(0, log), [format!("{log}-00000001.parquet")]);
        let again = [format!("{log}-00000001.parquet"), format!("{log}-00000002.jsonl")];
        wait_for("columns of what was left", WRITTEN, || (files(1, log) == again).then_some(()));
    }
    let of_columns = join(&cluster, &out, &json).expect("a table");
    assert_eq!((of_columns, tables()), (of_lines, expected));
}

fn ask(cluster: &Cluster) -> Vec<Sold> {
    cluster.wait_tokens();
    let mut sold = Vec::new();
    for seed in 1..=REQUESTS {
        sold.extend(cluster.sell(seed as usize % 2, &http::request(FIRST_AUCTION + seed)).expect("an answer"));
    }
    sold
}

/// What was put on the wire and must be in the log.
#[derive(Default)]
struct Sent {
    events: u64,
    distinct: u64,
    clicks: u64,
}

/// Reports a win and an impression of every ad and a click on every third, the wins twice, all to the router that
/// did not serve them, from the last to the first; and what is nobody's.
fn report(cluster: &Cluster, sold: &[Sold]) -> Sent {
    let (mut sent, mut events) = (Sent::default(), Vec::new());
    for (number, ad) in sold.iter().enumerate() {
        let kinds: &[&str] = if number % 3 == 0 { &["win", "impression", "click"] } else { &["win", "impression"] };
        sent.clicks += u64::from(number % 3 == 0);
        sent.distinct += kinds.len() as u64;
        events.extend(kinds.iter().map(|kind| (*kind, ad)));
        events.push(("win", ad));
    }
    sent.events = events.len() as u64;
    events.reverse();
    for (number, batch) in events.chunks(100).enumerate() {
        let body: Vec<Value> = batch.iter().map(|(kind, ad)| event(kind, &ad.token)).collect();
        let answers = cluster.report(number % 2, &body);
        for ((kind, ad), answer) in batch.iter().zip(&answers) {
            let expected: &[&str] = match *kind {
                "win" => &["noted"],
                kind if kind == ad.billed() => &["charged", "unknown_campaign"],
                _ => &["not_billed"],
            };
            assert!(expected.contains(&answer.as_str()), "{kind} of {}: {answer}", ad.bid_type);
        }
    }
    let altered = sold[0].token.clone() + "A";
    let nobody = [event("win", &altered), event("click", &altered), event("hover", &sold[0].token)];
    assert_eq!(cluster.report(0, &nobody), ["forged", "forged", "invalid"]);
    let (status, text) = http::get(cluster.http(0), &format!("/v1/events/win/{altered}")).expect("an answer");
    assert_eq!((status, text.as_str()), (200, r#"{"answer":"forged"}"#));
    sent
}

/// The report of `gavel log join`; `None` while there is too little for a table.
fn join(cluster: &Cluster, out: &Path, json: &Path) -> Option<Value> {
    let places = |name: &str| {
        let shown: Vec<String> = cluster.logs(name).iter().map(|folder| folder.display().to_string()).collect();
        shown.join(",")
    };
    let (scored, events) = (places("scored"), places("events"));
    let asked = ["log", "join", "--scored", &scored, "--events", &events, "--open", "keep", "--period", "1ms"];
    let to = ["--json", &*json.to_string_lossy(), "--out", &*out.to_string_lossy()];
    let report = || serde_json::from_str(&std::fs::read_to_string(json).expect("a report")).expect("JSON");
    gavel(&[&asked[..], &to].concat()).status.success().then(report)
}

/// Every logged line by itself: what it says of the request, and that its features give its predictions.
fn check_lines(cluster: &Cluster) {
    let bundle = Bundle::open(&gavel_tests::repository::demo_bundle()).expect("the demo's bundle");
    let lines: Vec<ScoredLine> = cluster.logs("scored").iter().flat_map(read).collect();
    assert!(lines.len() as u64 >= REQUESTS);
    let (mut scratch, mut compared, mut beside) = (Scratch::default(), 0, 0);
    for line in &lines {
        assert_eq!((line.user_id.as_deref(), line.placement.as_str()), (Some("900"), "home"));
        let hour = LoggedValue::Category(gavel_router::logged::Hashed(value_hash("17")));
        assert_eq!(line.user.get("hour"), Some(&hour), "{:?}", line.user.keys());
        let user = row(&bundle.schema().user, &line.user);
        for candidate in &line.candidates {
            let item = row(&bundle.schema().item, &candidate.features);
            assert_eq!(item.values[0], FeatureValue::Category(value_hash(&candidate.item.to_string())), "its product");
            compare(&bundle, &mut scratch, (&user, &item), candidate);
            compared += 1;
            beside += u64::from(candidate.position.is_none());
            let has_token = candidate.token.is_some() || line.auction_id < FIRST_AUCTION;
            assert_eq!(candidate.position.is_some(), has_token && candidate.position.is_some(), "{candidate:?}");
            assert_eq!(candidate.sampling_weight, if candidate.position.is_some() { 1.0 } else { 10.0 });
        }
    }
    assert!(compared > 2 * REQUESTS && beside > 0, "{compared} candidates, {beside} beside the page");
}

fn compare(
    bundle: &Bundle,
    scratch: &mut Scratch,
    (user, item): (&FeatureRow, &FeatureRow),
    candidate: &ScoredCandidate,
) {
    let cross = bundle.cross(user, item);
    for (spec, encoded) in bundle.schema().cross.iter().zip(&cross) {
        let logged = candidate.matches.get(&spec.name).expect("a weight of each match feature");
        assert_eq!(spec.encode(*logged), *encoded, "{}", spec.name);
    }
    let mut predictions = Vec::new();
    bundle.rank_whole(scratch, user, std::slice::from_ref(item), &cross, &mut predictions).expect("ranked");
    for (head, again) in bundle.schema().heads.iter().zip(&predictions) {
        let served = candidate.predictions[&head.name];
        assert!((served - again).abs() <= 1e-3 * again.abs().max(1e-2), "{}: {served} and {again}", head.name);
    }
}

/// Logged features as a row of the schema.
fn row(specs: &[FeatureSpec], features: &Features) -> FeatureRow {
    let value = |spec: &FeatureSpec| match features.get(&spec.name) {
        None => FeatureValue::Missing,
        Some(LoggedValue::Category(hash)) => FeatureValue::Category(hash.0),
        Some(LoggedValue::Number(number)) => FeatureValue::Dense(*number),
        Some(LoggedValue::Set(pairs)) => FeatureValue::Set(pairs.iter().map(|(hash, w)| (hash.0, *w)).collect()),
    };
    FeatureRow { values: specs.iter().map(value).collect() }
}

fn read(folder: &PathBuf) -> Vec<ScoredLine> {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let text: String = files.map(|file| std::fs::read_to_string(file.path()).expect("text")).collect();
    text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("a table");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("unpacked");
    text
}
