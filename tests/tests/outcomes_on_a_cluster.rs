//! Does what people do with ads end a rollout that promises too much?
//!
//! On real processes: the bundle's calibrated odds are doubled, every guard but the one on outcomes is off, and clicks
//! are drawn from what the active bundle would have said, reported over both routers and charged by the ledger.

use gavel_model::author::vary::{Variation, vary};
use gavel_proto::hash::combine;
use gavel_tests::calls::event;
use gavel_tests::cluster::{Cluster, SMALL, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A rollout under traffic says by then what it has to say.
const PATIENCE: Duration = Duration::from_secs(240);
/// Users that take turns.
const USERS: u64 = 400;
/// Clicks are that many times as frequent as predicted: the guard compares bundles with each other.
const EAGER: f64 = 2.0;

/// Ads of a slate that pay for clicks: campaign, advertiser, token, prediction of a click.
fn paying(answer: &Value) -> Vec<(u64, u64, String, f64)> {
    let ads = answer["slate"].as_array().cloned().unwrap_or_default();
    let ads = ads.into_iter().filter(|ad| ad["bid_type"] == "cpc");
    ads.filter_map(|ad| {
        let predictions = ad["predictions"].as_array()?;
        let click = predictions.iter().find(|p| p["head"] == "click")?["value"].as_f64()?;
        let token = ad["token"].as_str().unwrap_or_default().to_owned();
        Some((ad["campaign"].as_u64()?, ad["advertiser"].as_u64()?, token, click))
    })
    .collect()
}

/// One request, and the clicks that follow it over the other router.
fn ask_and_click(cluster: &Cluster, turn: u64, drifting: Option<u64>) -> Vec<(u64, u64)> {
    let (router, user) = ((turn % 2) as usize, (turn % USERS).to_string());
    let request = gavel_tests::http::request_of(&user, turn + 1);
    let Some((200, answer)) = cluster.ask(router, &request) else { return Vec::new() };
    let ads = paying(&answer);
    let doubled = drifting.is_some_and(|version| answer["epoch"]["model_version"] == version);
    let mut clicks = Vec::new();
    for (slot, (_, _, token, click)) in ads.iter().enumerate() {
        let odds = click / (1.0 - click) / if doubled { 2.0 } else { 1.0 };
        let truth = EAGER * odds / (1.0 + odds);
        // The top 53 bits as a number from 0 to 1.
        let thrown = (combine(turn, slot as u64) >> 11) as f64 / (1u64 << 53) as f64;
        if thrown < truth && !token.is_empty() {
            clicks.push(event("click", token));
        }
    }
    if !clicks.is_empty() {
        // Whatever came of each: the router answered all of them.
        assert_eq!(cluster.report(1 - router, &clicks).len(), clicks.len());
    }
    ads.into_iter().map(|(campaign, advertiser, ..)| (campaign, advertiser)).collect()
}

#[test]
fn clicks_that_do_not_come_end_a_canary() {
    let cluster = Cluster::start_with(SMALL, &["--staging-cpu-share", "1"], 10);
    let bundle = cluster.folder().join("drifting");
    let demo = gavel_tests::repository::demo_bundle();
    vary(&demo, &bundle, Variation::Odds { factor: 2.0 }).expect("varied");
    let drifting = cluster.publish(&bundle);
    // Who pays for clicks has a budget: without one nothing is charged, and what is not charged is no outcome.
    let seen: BTreeMap<u64, u64> = (0..USERS).flat_map(|turn| ask_and_click(&cluster, turn, None)).collect();
    assert!(!seen.is_empty(), "nobody pays for clicks");
    for (campaign, advertiser) in &seen {
        cluster.budget((*campaign, *advertiser), "lifetime", 1_000_000_000_000);
    }
    let version = drifting.to_string();
    let asked = ["model", "canary", &version, "--steps", "50:1h,100:1h", "--window", "1", "--requests-min", "50"];
    let off = ["--p99-ratio-max", "0", "--prediction-ratio-max", "0", "--psi-max", "0", "--clicks-min", "60"];
    cluster.ctl(&[&asked[..], &off].concat()).expect("the canary begins");
    let (is_over, turns) = (AtomicBool::new(false), AtomicU64::new(USERS));
    let reason = std::thread::scope(|scope| {
        let traffic = || {
            while !is_over.load(Ordering::Acquire) {
                ask_and_click(&cluster, turns.fetch_add(1, Ordering::Relaxed), Some(drifting));
            }
        };
        let threads = [scope.spawn(traffic), scope.spawn(traffic)];
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("the guard", PATIENCE, || {
                let status = cluster.models()?;
                let history = status["history"].as_array()?.clone();
                let stop = history.into_iter().find(|event| event["kind"] == "stopped by a guard")?;
                stop["detail"].as_str().map(str::to_owned)
            })
        }));
        is_over.store(true, Ordering::Release);
        threads.into_iter().for_each(|thread| thread.join().expect("traffic"));
        stopped
    });
    let reason = reason.expect("a guard stops it");
    println!("after {} requests: {reason}", turns.load(Ordering::Relaxed));
    assert!(reason.starts_with("calibration: "), "{reason}");
    let status = cluster.models().expect("a status");
    assert_eq!(status["rollout"], Value::Null);
}
