//! Do the auctions of a running cluster equal single auctions, under every mechanism, and can they be cleared again?
//!
//! Real processes with half of the demo, whose campaigns have all five bid types, hold their bids back by shares of
//! their own, and may be seen so often by one user: what a user has seen enough of must be known where each shard
//! makes its cut, also when it was seen a moment ago. `gavel bench truth` clears every scored ad by a twin; `gavel
//! auction replay` reads what the routers logged meanwhile; an excluded campaign is looked for in what was cleared.

use gavel_proto::hash::mix64;
use gavel_proto::money::Micros;
use gavel_tests::calls::{Explained, SOON};
use gavel_tests::cluster::{Cluster, Logging, REFERENCE, Size, gavel, wait_for};
use gavel_tests::repository::root;
use gavel_tests::{corpus, http};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Requests compared under each rule.
const COMPARED: u64 = 200;
/// Every so manyth item of the demo.
const NTH_ITEM: usize = 2;
/// Four lists are merged, each cut by a shard of its own.
const FOUR_SHARDS: Size = Size { shards: 4, replicas: 1, ..REFERENCE };
/// Users whose requests are compared, with two requests each at most: few enough to have soon seen enough of something,
/// and not so few that a user's counters run out.
const USERS: usize = 60;
/// Users that the catalogue does not know, all with the same features.
const STRANGERS: [&str; 4] = ["stranger-1", "stranger-2", "stranger-3", "stranger-4"];
/// Requests of each of them among those that are compared.
const OF_A_STRANGER: usize = 5;
/// Auctions with organic content between the ads.
const FED: Range<u64> = 500_000..500_039;

/// A campaign with a share of its own by which its bid is held back, any of the five bid types, and as often as not a
/// frequency rule of any scope and window.
fn vary(campaign: &mut Value) {
    let mut dice = mix64(campaign["campaign_id"].as_u64().expect("an id"));
    let mut roll = |below: u64| {
        dice = mix64(dice);
        dice % below
    };
    campaign["multiplier_ppm"] = json!(1 + roll(1_000_000));
    if campaign["bid_type"] == "cpa" {
        // The others bid for conversions, too, and are billed for impressions and clicks.
        let bid_type = ["cpa", "ocpm", "ocpc"][roll(3) as usize];
        campaign["bid_type"] = json!(bid_type);
    }
    if roll(2) == 0 {
        let scope = ["ad", "campaign", "advertiser"][roll(3) as usize];
        let window = ["1h", "1d", "7d", "30d"][roll(4) as usize];
        let max = 1 + roll(2);
        campaign["frequency"] = json!([{"scope": scope, "window": window, "max": max}]);
    }
}

/// What is compared: requests of the demo by a few of its users, and of strangers.
fn requests(cluster: &Cluster) -> PathBuf {
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let is_taken = |request: &Value| {
        let user = request["user_id"].as_str().expect("a user");
        if taken.len() == USERS && !taken.contains_key(user) {
            return false;
        }
        let requests = taken.entry(user.to_owned()).or_default();
        *requests += 1;
        *requests <= 2
    };
    let mut requests = corpus::documents(&root().join("cluster/bootstrap/demo/catalogue/requests.jsonl.zst"));
    requests.retain(is_taken);
    let time = requests[0]["ts"].clone();
    for stranger in STRANGERS {
        let asked = http::request_of(stranger, 1);
        let timed = json!({
            "ts": time, "user_id": stranger, "placement": asked["placement"], "terms": asked["terms"],
            "context": asked["context"], "slots": asked["slots"],
        });
        requests.extend(std::iter::repeat_n(timed, OF_A_STRANGER));
    }
    let path = cluster.folder().join("requests.jsonl");
    let text: Vec<String> = requests.iter().map(Value::to_string).collect();
    std::fs::write(&path, text.join("\n")).expect("written");
    path
}

fn rules(cluster: &Cluster, options: &[&str]) {
    let arguments: Vec<&str> = ["rules"].iter().chain(options).copied().collect();
    cluster.ctl(&arguments).expect("the rules are taken");
    let wanted = cluster.status().expect("a status")["map_epoch"].as_u64().expect("an epoch");
    for router in 0..cluster.routers.len() {
        wait_for("the new rules", SOON, || {
            let (status, body) = cluster.ask(router, &http::request(1))?;
            (status == 200 && body["epoch"]["map_epoch"].as_u64() >= Some(wanted)).then_some(())
        });
    }
}

/// All routers together.
fn metric(cluster: &Cluster, name: &str) -> f64 {
    cluster.routers.iter().map(|router| router.metric(name)).sum()
}

/// What was compared so far.
struct Compared<'a> {
    cluster: &'a Cluster,
    requests: PathBuf,
    /// Rules.
    rules: u64,
    /// By bid type.
    winners: BTreeMap<String, u64>,
}

impl Compared<'_> {
    /// Compares slates under a rule; the campaigns and ads that users had seen enough of, summed over the requests.
    fn under(&mut self, options: &[&str]) -> f64 {
        let cluster = self.cluster;
        rules(cluster, options);
        self.rules += 1;
        let capped = || metric(cluster, "gavel_router_frequency_capped_total");
        let before = capped();
        let report = tempfile::NamedTempFile::new().expect("a file");
        let path = report.path().display().to_string();
        let (requests, count, seed) =
            (self.requests.display().to_string(), COMPARED.to_string(), self.rules.to_string());
        let control = cluster.controls[0].grpc.as_str();
        let sample = ["--control", control, "--requests", &requests, "--count", &count, "--seed", &seed];
        let least = ["--min-eligible", "100", "--min-graph-share", "0", "--json", &path];
        let output = gavel(&[&["bench", "truth"][..], &sample, &least].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = metric(cluster, "gavel_router_frequency_refused_total");
        let report: Value = serde_json::from_slice(&std::fs::read(path).expect("a report")).unwrap_or_default();
        assert!(output.status.success(), "{options:?}, {refused} impressions refused: {text} {report:#}");
        assert_eq!(report["slates_compared"], COMPARED, "{options:?}: {report:#}");
        assert_eq!(report["slates_equal"], COMPARED, "{options:?}: {report:#}");
        for (bid_type, winners) in report["winners"].as_object().expect("winners") {
            *self.winners.entry(bid_type.clone()).or_default() += winners.as_u64().expect("a count");
        }
        capped() - before
    }
}

#[test]
fn auctions_of_a_cluster_are_single_auctions_and_come_out_again() {
    let make = |folder: &Path| corpus::with_campaigns(NTH_ITEM, folder, vary);
    let cluster = Cluster::start_of(FOUR_SHARDS, &[], Logging::Clearings, make);
    for router in 0..cluster.routers.len() {
        wait_for("what users have seen", 3 * SOON, || {
            let (status, body) = cluster.ask(router, &http::request(1))?;
            let reasons = body["coverage"]["degraded_reasons"].as_array()?;
            (status == 200 && !reasons.contains(&json!("no_frequency_counts"))).then_some(())
        });
    }
    let mut compared = Compared { cluster: &cluster, requests: requests(&cluster), rules: 0, winners: BTreeMap::new() };
    let options = |mechanism, per_category, neighbours, squashing| {
        ["--mechanism", mechanism, "--per-category", per_category, "--neighbours", neighbours, "--squashing", squashing]
    };
    let capped = [
        compared.under(&options("gsp", "0", "any", "0")),
        compared.under(&options("vcg", "1", "any", "0")),
        compared.under(&options("vcg", "0", "apart", "0")),
        compared.under(&options("gsp", "0", "apart", "0.4")),
        compared.under(&options("first-price", "2", "any", "0")),
        compared.under(&[&options("vcg", "0", "any", "0")[..], &["--cascade", "0.7"]].concat()),
    ];
    println!("winners {:?}; seen enough of, by rule: {capped:?}", compared.winners);
    // One campaign or ad a request, if they were spread evenly.
    assert!(capped.iter().all(|of_rule| *of_rule >= COMPARED as f64), "{capped:?}");
    for bid_type in ["cpm", "cpc", "cpa", "ocpm", "ocpc"] {
        assert!(compared.winners.contains_key(bid_type), "no winner of type {bid_type}: {:?}", compared.winners);
    }
    bids_are_held_back_and_what_is_capped_is_gone(&cluster);
    clearings_come_out_again(&cluster);
}

/// A newcomer's auction beside those of strangers with the same features, who were asked for before.
fn bids_are_held_back_and_what_is_capped_is_gone(cluster: &Cluster) {
    let campaign_of = |line: &Value, name: &str| line[name].as_u64().expect("a campaign");
    let catalogue: BTreeMap<u64, Value> = corpus::documents(&cluster.folder().join("catalogue/campaigns.jsonl.zst"))
        .into_iter()
        .map(|line| (campaign_of(&line, "campaign_id"), line))
        .collect();
    let newcomer = cluster.explained(0, &http::request_of("newcomer", 5));
    for candidate in newcomer.candidates() {
        let campaign = &catalogue[&campaign_of(candidate, "campaign")];
        let bid = Micros::parse(campaign["bid"].as_str().expect("a bid")).expect("a bid");
        let multiplier = u32::try_from(campaign["multiplier_ppm"].as_u64().expect("a multiplier")).expect("a share");
        assert_eq!(candidate["bid_micros"], bid.paced(multiplier).0, "{candidate} {campaign}");
    }
    let with_rule = |explained: &Explained| -> BTreeSet<u64> {
        let of_candidates = explained.candidates().iter().map(|candidate| campaign_of(candidate, "campaign"));
        of_candidates.filter(|campaign| catalogue[campaign]["frequency"].is_array()).collect()
    };
    for stranger in STRANGERS {
        let explained = cluster.explained(0, &http::request_of(stranger, 5));
        let gone = with_rule(&newcomer).difference(&with_rule(&explained)).count();
        assert!(gone > 0, "{stranger} has seen enough of nothing");
        assert!(explained.ads_for("not_eligible_frequency") > 0, "{stranger}: {:?}", explained.reasons);
    }
}

/// With organic content between the ads, and users who cascade.
fn clearings_come_out_again(cluster: &Cluster) {
    let with_feed = |seed: u64| {
        let mut request = http::request(seed);
        let feed: Vec<Value> =
            (0..10).map(|i| json!({"id": i.to_string(), "utility": 1.0 / f64::from(i + 1)})).collect();
        request["organic"] = json!(feed);
        request
    };
    for auction in FED {
        assert_eq!(cluster.ask(0, &with_feed(auction)).expect("an answer").0, 200);
    }
    wait_for("the clearings of all of them", SOON, || {
        let logged: BTreeSet<u64> = cluster.clearings().iter().map(|c| c.inputs.auction_id.0).collect();
        FED.into_iter().all(|auction| logged.contains(&auction)).then_some(())
    });
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
    let mut request = http::request(5);
    let before = cluster.explained(0, &request);
    let campaign = before.candidates()[0]["campaign"].clone();
    request["blocked_campaigns"] = json!([campaign]);
    let after = cluster.explained(0, &request);
    assert!(after.candidates().iter().all(|c| c["campaign"] != campaign), "{}", after.clearing);
    let (before, after) = (&before.clearing["winners"], &after.clearing["winners"]);
    assert_ne!(before, after);
    assert!(!after.as_array().expect("winners").is_empty());
}
