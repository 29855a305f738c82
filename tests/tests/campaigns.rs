//! Do pauses, bids, schedules and budgets of campaigns count on a running cluster, and outlive its control plane?
//!
//! Real processes with the demo catalogue. What an auction was made of is read from the clearing that `explain` gives:
//! a campaign that is not among its candidates neither wins nor sets a price.

use gavel_tests::cluster::{Cluster, SMALL, wait_for};
use gavel_tests::http;
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than any change should take, on two cores that others share.
const SOON: Duration = Duration::from_secs(20);

fn http_address(cluster: &Cluster, router: usize) -> &str {
    cluster.routers[router].http.as_deref().expect("an address")
}

/// A request's clearing and the ads by reason; `None` while the router does not answer it whole.
fn explain(cluster: &Cluster, router: usize, seed: u64) -> Option<(Value, Value)> {
    let (status, text) = http::post(http_address(cluster, router), "/v1/explain", &http::request(seed).to_string())?;
    let explained: Value = serde_json::from_str(&text).ok()?;
    let is_whole = status == 200 && explained["response"]["coverage"]["fraction"] == 1.0;
    let clearing = explained["clearing"].as_str().filter(|_| is_whole)?;
    Some((serde_json::from_str(clearing).expect("a clearing"), explained["reasons"].clone()))
}

fn explained(cluster: &Cluster, router: usize, seed: u64) -> (Value, Value) {
    wait_for("a whole answer", SOON, || explain(cluster, router, seed))
}

fn candidates(clearing: &Value, campaign: u64) -> Vec<Value> {
    let all = clearing["inputs"]["candidates"].as_array().expect("candidates");
    all.iter().filter(|c| c["campaign"].as_u64() == Some(campaign)).cloned().collect()
}

fn ads_for(reasons: &Value, reason: &str) -> u64 {
    let all = reasons.as_array().expect("reasons");
    all.iter().find(|r| r["reason"] == reason).map_or(0, |r| r["ads"].as_u64().expect("a count"))
}

/// A campaign that wins the request of this seed.
fn winner(cluster: &Cluster, seed: u64) -> u64 {
    let (clearing, _) = explained(cluster, 0, seed);
    let ad = &clearing["winners"][0]["ad"];
    let all = clearing["inputs"]["candidates"].as_array().expect("candidates");
    all.iter().find(|c| c["ad"] == *ad).and_then(|c| c["campaign"].as_u64()).expect("a winner")
}

fn done(output: &str) -> Value {
    let done: Value = serde_json::from_str(output).expect("JSON");
    assert_eq!(done["effective"], true, "{done}");
    done
}

/// A change over HTTP that is in force when this returns.
fn patch(cluster: &Cluster, campaign: u64, key: &str, change: &Value) -> (u16, Value) {
    let head = format!("PATCH /v1/campaigns/{campaign} HTTP/1.1\r\nIdempotency-Key: {key}");
    let (status, text) = http::send(http_address(cluster, 1), &head, &change.to_string()).expect("an answer");
    (status, serde_json::from_str(&text).expect("JSON"))
}

fn shown(cluster: &Cluster, campaign: u64) -> Value {
    let path = format!("/v1/campaigns/{campaign}");
    let (status, text) = http::get(http_address(cluster, 0), &path).expect("an answer");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn what_is_said_of_campaigns_counts_everywhere_and_stays() {
    let mut cluster = Cluster::start(SMALL);
    let campaign = winner(&cluster, 5);
    pauses_and_bids(&cluster, campaign);
    frequency_rules(&cluster);
    schedules_and_budgets(&cluster, campaign);
    mistakes(&cluster, campaign);
    stays_paused_without_the_control_plane(&mut cluster, campaign);
}

fn pauses_and_bids(cluster: &Cluster, campaign: u64) {
    let id = campaign.to_string();
    let paused = done(&cluster.ctl(&["campaign", "pause", &id, "--request-id", "one"]).expect("paused"));
    for router in 0..2 {
        let (clearing, reasons) = explained(cluster, router, 5);
        assert!(candidates(&clearing, campaign).is_empty(), "router {router}: {clearing}");
        assert!(ads_for(&reasons, "not_eligible_paused") > 0, "{reasons}");
        assert!(clearing["inputs"]["epoch"]["delivery"].as_u64() >= paused["delivery_version"].as_u64());
    }
    let now = shown(cluster, campaign);
    assert_eq!((&now["status"], &now["silence"]), (&json!("paused"), &json!("paused")));

    done(&cluster.ctl(&["campaign", "resume", &id]).expect("resumed"));
    let again = done(&cluster.ctl(&["campaign", "pause", &id, "--request-id", "one"]).expect("answered as before"));
    assert_eq!(again["delivery_version"], paused["delivery_version"]);
    let (before, _) = explained(cluster, 0, 5);
    assert!(!candidates(&before, campaign).is_empty(), "a repeated request changes nothing: {before}");

    let now = shown(cluster, campaign);
    let (bid, multiplier) = (now["bid_micros"].as_u64().expect("a bid"), now["multiplier_ppm"].as_u64().expect("one"));
    let change = json!({"bid_micros": bid * 3, "wait_ms": 5_000});
    let (status, answer) = patch(cluster, campaign, "raise", &change);
    assert_eq!((status, &answer["effective"]), (200, &json!(true)), "{answer}");
    let paced = u128::from(bid * 3) * u128::from(multiplier) / 1_000_000;
    for router in 0..2 {
        let (clearing, _) = explained(cluster, router, 5);
        let held = candidates(&clearing, campaign);
        assert!(!held.is_empty() && held.iter().all(|c| c["bid_micros"].as_u64().map(u128::from) == Some(paced)));
    }
}

/// What a user is served.
fn served(cluster: &Cluster, router: usize, user: &str) -> Vec<u64> {
    let (status, body) = cluster.ask(router, &http::request_of(user, 5)).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let unknown = json!("no_frequency_counts");
    assert!(!body["coverage"]["degraded_reasons"].as_array().expect("reasons").contains(&unknown), "{body}");
    body["slate"].as_array().expect("a slate").iter().filter_map(|entry| entry["campaign"].as_u64()).collect()
}

/// A rule that is said counts on every router without a load, and is gone when it is taken back. Users that the catalogue
/// does not know all see the same.
fn frequency_rules(cluster: &Cluster) {
    let campaign = *served(cluster, 0, "carla").first().expect("an ad");
    let shows = |router: usize, user: &str| served(cluster, router, user).contains(&campaign);
    assert!((0..4).all(|turn| shows(turn % 2, "carla")), "nothing is counted");
    let rule = json!([{"scope": "campaign", "window_hours": 24, "max": 2}]);
    let (status, answer) = patch(cluster, campaign, "cap", &json!({"frequency": rule, "wait_ms": 5_000}));
    assert_eq!((status, &answer["effective"]), (200, &json!(true)), "{answer}");
    let seen: Vec<bool> = (0..6).map(|turn| shows(turn % 2, "carla")).collect();
    assert_eq!(seen, [true, true, false, false, false, false], "counted from the rule on, over both routers");
    assert!(shows(1, "dora"), "another user sees it");
    for router in 0..2 {
        let request = http::request_of("carla", 5).to_string();
        let (_, text) = http::post(http_address(cluster, router), "/v1/explain", &request).expect("an answer");
        let explained: Value = serde_json::from_str(&text).expect("JSON");
        let clearing = serde_json::from_str(explained["clearing"].as_str().expect("a line")).expect("a clearing");
        assert!(candidates(&clearing, campaign).is_empty(), "it sets no price: {clearing}");
        assert!(ads_for(&explained["reasons"], "not_eligible_frequency") > 0, "{explained}");
    }
    let (status, answer) = patch(cluster, campaign, "no cap", &json!({"frequency": [], "wait_ms": 5_000}));
    assert_eq!((status, &answer["effective"]), (200, &json!(true)), "{answer}");
    assert!((0..2).all(|router| shows(router, "carla")));
    let refused = json!({"frequency": [{"scope": "ad", "window_hours": 25, "max": 1}]});
    let (status, answer) = patch(cluster, campaign, "odd window", &refused);
    assert!(status == 400 && answer.to_string().contains("a window of 25 hours"), "{answer}");
}

fn schedules_and_budgets(cluster: &Cluster, campaign: u64) {
    let (status, answer) = patch(cluster, campaign, "over", &json!({"schedule": {"ends_s": 1_000}, "wait_ms": 5_000}));
    assert_eq!((status, &answer["effective"]), (200, &json!(true)), "{answer}");
    let (clearing, reasons) = explained(cluster, 1, 5);
    assert!(candidates(&clearing, campaign).is_empty(), "{clearing}");
    assert!(ads_for(&reasons, "not_eligible_schedule") > 0, "{reasons}");
    assert_eq!(shown(cluster, campaign)["silence"], "out_of_schedule");
    let rule = json!({"scope": "campaign", "window_hours": 24, "max": 3});
    let change = json!({"reset": true, "frequency": [rule], "wait_ms": 5_000});
    assert_eq!(patch(cluster, campaign, "back", &change).0, 200);
    let now = shown(cluster, campaign);
    assert_eq!((&now["silence"], &now["frequency"]), (&Value::Null, &json!([rule])));
    assert_eq!(now["bid_micros"], now["catalogue_bid_micros"]);

    let id = campaign.to_string();
    done(&cluster.ctl(&["campaign", "set", &id, "--daily", "500", "--zone", "Europe/Berlin"]).expect("a budget"));
    let change = json!({"budgets": {"lifetime_micros": 9_000_000_000u64}, "wait_ms": 5_000});
    assert_eq!(patch(cluster, campaign, "life", &change).0, 200);
    let budgets = shown(cluster, campaign)["budgets"].clone();
    assert_eq!(
        (&budgets["daily_micros"], &budgets["lifetime_micros"], &budgets["weekly_micros"]),
        (&json!(500_000_000), &json!(9_000_000_000u64), &Value::Null)
    );
}

fn mistakes(cluster: &Cluster, campaign: u64) {
    let unknown = cluster.ctl(&["campaign", "pause", "999999999999"]).expect_err("no such campaign");
    assert!(unknown.contains("is not in the catalogue that serves"), "{unknown}");
    let id = campaign.to_string();
    let other = cluster.ctl(&["campaign", "resume", &id, "--request-id", "one"]).expect_err("another wish");
    assert!(other.contains("request id was used"), "{other}");
    let (status, text) = http::send(
        http_address(cluster, 0),
        &format!("PATCH /v1/campaigns/{campaign} HTTP/1.1"),
        &json!({"status": "paused"}).to_string(),
    )
    .expect("an answer");
    assert!(status == 400 && text.contains("Idempotency-Key"), "{text}");
    let (status, answer) = patch(cluster, campaign, "zero", &json!({"bid_micros": 0}));
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|m| m.contains("bid_micros is 0")), "{answer}");
    let both = json!({"updates": [{"campaign": campaign, "change": {"status": "paused"}},
                                  {"campaign": 999_999_999_999u64, "change": {"status": "paused"}}]});
    let head = "POST /v1/campaigns:batch HTTP/1.1\r\nIdempotency-Key: both";
    let (status, text) = http::send(http_address(cluster, 0), head, &both.to_string()).expect("an answer");
    assert_eq!(status, 400, "{text}");
    assert_eq!(shown(cluster, campaign)["status"], "active", "all of it or nothing");
}

/// Every voter is killed, then a node and both routers are killed and started again.
fn stays_paused_without_the_control_plane(cluster: &mut Cluster, campaign: u64) {
    done(&cluster.ctl(&["campaign", "pause", &campaign.to_string()]).expect("paused"));
    cluster.controls.iter_mut().for_each(|voter| voter.kill());
    cluster.nodes[0].keep_address();
    for process in std::iter::once(&mut cluster.nodes[0]).chain(&mut cluster.routers) {
        process.kill();
        process.start();
    }
    for router in 0..2 {
        let (clearing, _) = explained(cluster, router, 5);
        assert!(candidates(&clearing, campaign).is_empty(), "router {router}: {clearing}");
    }
    // Then the node that was not started again goes, and the other answers alone.
    cluster.nodes[1].kill();
    let (clearing, reasons) = explained(cluster, 0, 5);
    assert!(candidates(&clearing, campaign).is_empty(), "{clearing}");
    assert!(ads_for(&reasons, "not_eligible_paused") > 0, "{reasons}");
}
