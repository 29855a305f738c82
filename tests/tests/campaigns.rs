//! Do pauses, bids, schedules and budgets of campaigns count on a running cluster, and outlive its control plane?
//!
//! Real processes with the demo catalogue, or a part of it with ad groups. What an auction was made of is read from the
//! clearing that `explain` gives: what is not among its candidates neither wins nor sets a price.

use gavel_tests::cluster::{Cluster, Logging, SMALL, wait_for};
use gavel_tests::{corpus, http};
use serde_json::{Value, json};
use std::collections::BTreeSet;
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

/// The ad group of an ad in the catalogue of the test below: half of each campaign's ads are in either.
fn group_of(ad: u64) -> u64 {
    1 + ad / 4_096 % 2
}

/// Every campaign pays for clicks and has two ad groups with ads, which bid as it does, and one that has none.
fn grouped() -> Cluster {
    let of_campaign = |campaign: &mut Value| {
        campaign["bid_type"] = json!("cpc");
        campaign["ad_groups"] = json!([{"id": 2}, {"id": 1}, {"id": 3, "bid": "9.5", "paused": true}]);
    };
    let of_ad = |ad: &mut Value| ad["ad_group"] = json!(group_of(ad["ad_id"].as_u64().expect("an id")));
    Cluster::start_of(SMALL, &[], Logging::Clearings, |folder| corpus::with_ads(8, folder, of_campaign, of_ad))
}

/// The campaign with the most candidates in the auction of this seed, of those of which both groups have some.
fn of_both_groups(cluster: &Cluster, seed: u64) -> u64 {
    let (clearing, _) = explained(cluster, 0, seed);
    let all = clearing["inputs"]["candidates"].as_array().expect("candidates");
    let campaigns: BTreeSet<u64> = all.iter().filter_map(|c| c["campaign"].as_u64()).collect();
    let has_both = |id: &u64| {
        let ads = candidates(&clearing, *id).into_iter().filter_map(|c| c["ad"].as_u64());
        ads.map(group_of).collect::<BTreeSet<u64>>().len() == 2
    };
    let most = campaigns.into_iter().filter(has_both).max_by_key(|id| candidates(&clearing, *id).len());
    most.expect("a campaign with candidates of both groups")
}

/// Group and bid of each candidate of a campaign, in the auction of this seed.
fn group_bids(cluster: &Cluster, router: usize, seed: u64, campaign: u64) -> BTreeSet<(u64, u64)> {
    let (clearing, _) = explained(cluster, router, seed);
    let of = |c: &Value| Some((group_of(c["ad"].as_u64()?), c["bid_micros"].as_u64()?));
    candidates(&clearing, campaign).iter().map(|c| of(c).expect("an ad and its bid")).collect()
}

/// One ad of the campaign that an answer has.
fn served_ad(cluster: &Cluster, seed: u64, campaign: u64) -> Option<Value> {
    let (status, body) = cluster.ask((seed % 2) as usize, &http::request(seed))?;
    let slate = body["slate"].as_array().filter(|_| status == 200)?;
    slate.iter().find(|ad| ad["campaign"].as_u64() == Some(campaign) && ad["token"].is_string()).cloned()
}

/// Clicks on ads of the campaign until one is charged: the ad group, and the price in micros.
fn charged_click(cluster: &Cluster, campaign: u64) -> (u64, u64) {
    let mut seed = 100;
    wait_for("a click that is charged", 2 * SOON, || {
        seed += 1;
        let ad = served_ad(cluster, seed, campaign)?;
        let body = json!({"events": [{"kind": "click", "token": ad["token"]}]}).to_string();
        let (status, text) = http::post(http_address(cluster, 0), "/v1/events", &body)?;
        let answered: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
        let is_charged = answered["answers"][0] == "charged";
        let number = |field: &str| ad[field].as_u64().expect("a number");
        is_charged.then(|| (group_of(number("ad")), number("price_micros")))
    })
}

#[test]
fn ad_groups_have_bids_and_statuses_of_their_own_and_share_a_budget() {
    let cluster = grouped();
    let campaign = of_both_groups(&cluster, 5);
    let id = campaign.to_string();
    // It wins wherever it may, so that ads of both groups stay within the cut.
    let bid = shown(&cluster, campaign)["bid_micros"].as_u64().expect("a bid") * 50;
    let change = json!({"bid_micros": bid, "wait_ms": 5_000});
    assert_eq!(patch(&cluster, campaign, "raise", &change).0, 200);
    for router in 0..2 {
        let held = group_bids(&cluster, router, 5, campaign);
        assert_eq!(held, BTreeSet::from([(1, bid), (2, bid)]), "both bid as their campaign does");
    }

    done(&cluster.ctl(&["campaign", "pause", &id, "--ad-group", "1"]).expect("paused"));
    let raised = format!("{}.{:06}", (bid + 7) / 1_000_000, (bid + 7) % 1_000_000);
    done(&cluster.ctl(&["campaign", "set", &id, "--ad-group", "2", "--bid", &raised]).expect("rebid"));
    for router in 0..2 {
        let held = group_bids(&cluster, router, 5, campaign);
        assert_eq!(held, BTreeSet::from([(2, bid + 7)]), "router {router}");
        let (_, reasons) = explained(&cluster, router, 5);
        assert!(ads_for(&reasons, "not_eligible_paused") > 0, "{reasons}");
    }
    let now = shown(&cluster, campaign);
    assert_eq!((&now["status"], &now["silence"]), (&json!("active"), &Value::Null));
    let group = |id: u64, bid: u64, status: &str| json!({"id": id, "bid_micros": bid, "status": status, "catalogue_bid_micros": null, "catalogue_paused": false});
    let third = json!({"id": 3, "bid_micros": 9_500_000, "status": "paused", "catalogue_bid_micros": 9_500_000,
                       "catalogue_paused": true});
    assert_eq!(now["ad_groups"], json!([group(1, bid, "paused"), group(2, bid + 7, "active"), third]));

    shares_a_budget(&cluster, campaign);
    mistakes_of_groups(&cluster, campaign);
    let back = json!({"reset": true, "wait_ms": 5_000});
    assert_eq!(patch(&cluster, campaign, "back", &back).0, 200);
    let own = shown(&cluster, campaign)["bid_micros"].as_u64().expect("a bid");
    assert_eq!(shown(&cluster, campaign)["ad_groups"][1], group(2, own, "active"));
}

/// Clicks on ads of either group are charged to the one account of the campaign; the first group is paused before.
fn shares_a_budget(cluster: &Cluster, campaign: u64) {
    let id = campaign.to_string();
    done(&cluster.ctl(&["campaign", "set", &id, "--daily", "1000000", "--zone", "UTC"]).expect("a budget"));
    let second = charged_click(cluster, campaign);
    assert_eq!(second.0, 2, "the other is paused");
    let turn = json!({"ad_groups": [{"id": 1, "reset": true}, {"id": 2, "status": "paused"}], "wait_ms": 5_000});
    let (status, answer) = patch(cluster, campaign, "turn", &turn);
    assert_eq!((status, &answer["effective"]), (200, &json!(true)), "{answer}");
    let first = charged_click(cluster, campaign);
    assert_eq!(first.0, 1, "the other is paused");
    let sum = (first.1 + second.1) * 1_000;
    let accounts = wait_for("the charges of both", SOON, || {
        let output = cluster.ctl(&["ledger", "balances", "--campaign", &id, "--json"]).ok()?;
        let balances: Value = serde_json::from_str(&output).ok()?;
        let of = balances["campaigns"].as_array()?.iter().find(|c| c["campaign"].as_u64() == Some(campaign))?;
        (of["charged_nanos"].as_u64() == Some(sum)).then(|| of["accounts"].clone())
    });
    let days: Vec<&Value> = accounts.as_array().expect("accounts").iter().filter(|a| a["span"] == "day").collect();
    let posted: u64 = days.iter().filter_map(|day| day["posted_nanos"].as_u64()).sum();
    assert_eq!(posted, sum, "{accounts}");
}

fn mistakes_of_groups(cluster: &Cluster, campaign: u64) {
    let id = campaign.to_string();
    let unknown = cluster.ctl(&["campaign", "pause", &id, "--ad-group", "9"]).expect_err("no such group");
    assert!(unknown.contains("has no ad group 9") && unknown.contains("it has 1, 2, 3"), "{unknown}");
    let shared = cluster.ctl(&["campaign", "set", &id, "--ad-group", "1", "--daily", "5"]).expect_err("not its own");
    assert!(shared.contains("--daily is for a whole campaign"), "{shared}");
    let (status, answer) = patch(cluster, campaign, "no bid", &json!({"ad_groups": [{"id": 1, "bid_micros": 0}]}));
    assert!(status == 400 && answer.to_string().contains("ad group 1: bid_micros is 0"), "{answer}");
}
