//! Do pauses, bids, schedules and budgets of campaigns count on a running cluster, and outlive its control plane?
//!
//! Real processes with the demo catalogue, or a part of it with ad groups. What an auction was made of is read from the
//! clearing that `explain` gives: what is not among its candidates neither wins nor sets a price.

use gavel_proto::ids::AdId;
use gavel_proto::money::Micros;
use gavel_tests::calls::{Explained, SOON, Sold};
use gavel_tests::cluster::{Cluster, Logging, SMALL, wait_for};
use gavel_tests::traffic::Stops;
use gavel_tests::{corpus, http};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The auction of the request that these tests look at.
const SEED: u64 = 5;

fn explained(cluster: &Cluster, router: usize) -> Explained {
    cluster.explained(router, &http::request(SEED))
}

/// A campaign that wins that auction.
fn winner(cluster: &Cluster) -> u64 {
    let explained = explained(cluster, 0);
    let ad = &explained.clearing["winners"][0]["ad"];
    let won = explained.candidates().iter().find(|c| c["ad"] == *ad);
    won.and_then(|c| c["campaign"].as_u64()).expect("a winner")
}

/// A campaign that is next in line for the first slot, sets its price, and has the second.
fn second(cluster: &Cluster) -> u64 {
    let explained = explained(cluster, 0);
    let winners = &explained.clearing["winners"];
    assert_eq!(winners[0]["runner_up"], winners[1]["ad"], "{winners}");
    let next = explained.candidates().iter().find(|c| c["ad"] == winners[1]["ad"]);
    next.and_then(|c| c["campaign"].as_u64()).expect("another campaign")
}

fn done(output: &str) -> Value {
    let done: Value = serde_json::from_str(output).expect("JSON");
    assert_eq!(done["effective"], true, "{done}");
    done
}

#[test]
fn what_is_said_of_campaigns_counts_everywhere_and_stays() {
    let mut cluster = Cluster::start(SMALL);
    let campaign = winner(&cluster);
    pauses_and_bids(&cluster, campaign);
    a_paused_campaign_sets_no_price(&cluster);
    frequency_rules(&cluster);
    schedules_and_budgets(&cluster, campaign);
    mistakes(&cluster, campaign);
    stays_paused_without_the_control_plane(&mut cluster, campaign);
}

fn pauses_and_bids(cluster: &Cluster, campaign: u64) {
    let id = campaign.to_string();
    let paused = done(&cluster.ctl(&["campaign", "pause", &id, "--request-id", "one"]).expect("paused"));
    for router in 0..2 {
        let explained = explained(cluster, router);
        assert!(explained.of(campaign).is_empty(), "router {router}: {}", explained.clearing);
        assert!(explained.ads_for("not_eligible_paused") > 0, "{:?}", explained.reasons);
        assert!(explained.clearing["inputs"]["epoch"]["delivery"].as_u64() >= paused["delivery_version"].as_u64());
    }
    let now = cluster.campaign(campaign);
    assert_eq!((&now["status"], &now["silence"]), (&json!("paused"), &json!("paused")));

    done(&cluster.ctl(&["campaign", "resume", &id]).expect("resumed"));
    let again = done(&cluster.ctl(&["campaign", "pause", &id, "--request-id", "one"]).expect("answered as before"));
    assert_eq!(again["delivery_version"], paused["delivery_version"]);
    let before = explained(cluster, 0);
    assert!(!before.of(campaign).is_empty(), "a repeated request changes nothing: {}", before.clearing);

    let now = cluster.campaign(campaign);
    let (bid, multiplier) = (now["bid_micros"].as_u64().expect("a bid"), now["multiplier_ppm"].as_u64().expect("one"));
    cluster.change(campaign, "raise", json!({"bid_micros": bid * 3}));
    let paced = u128::from(bid * 3) * u128::from(multiplier) / 1_000_000;
    for router in 0..2 {
        let explained = explained(cluster, router);
        let held = explained.of(campaign);
        assert!(!held.is_empty() && held.iter().all(|c| c["bid_micros"].as_u64().map(u128::from) == Some(paced)));
    }
}

/// What the logs say of a campaign in some auctions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    auctions: usize,
    candidates: usize,
    wins: usize,
    /// Prices of others that it set, as the next in line.
    prices: usize,
}

/// Reads the logs, which must have all of these auctions.
fn logged(cluster: &Cluster, campaign: u64, auctions: &BTreeSet<u64>) -> Part {
    wait_for("the clearings of everything answered", SOON, || {
        let mut part = Part::default();
        for clearing in cluster.clearings().iter().filter(|c| auctions.contains(&c.inputs.auction_id.0)) {
            let own = clearing.inputs.candidates.iter().filter(|c| c.campaign.0 == campaign);
            let ads: BTreeSet<AdId> = own.map(|c| c.ad).collect();
            let is_own = |ad: Option<AdId>| ad.is_some_and(|ad| ads.contains(&ad));
            let (own, others): (Vec<_>, Vec<_>) = clearing.winners.iter().partition(|w| is_own(Some(w.ad)));
            part.auctions += 1;
            part.candidates += ads.len();
            part.wins += own.len();
            part.prices += others.iter().filter(|w| is_own(w.runner_up)).count();
        }
        (part.auctions == auctions.len()).then_some(part)
    })
}

/// Both routers answer while it is paused. Of the auctions that began after the pause was in force, as the logs have
/// them, none has it among its candidates: it neither wins nor sets a price (M9). Before the pause it did both.
fn a_paused_campaign_sets_no_price(cluster: &Cluster) {
    let campaign = second(cluster);
    let id = campaign.to_string();
    let (is_over, next) = (AtomicBool::new(false), AtomicU64::new(1_000_000));
    let answered = [AtomicU64::new(0), AtomicU64::new(0)];
    let ask = |router: usize| {
        let mut auctions = Vec::new();
        while !is_over.load(Ordering::Acquire) {
            // Taken before it is asked: whatever begins later has a larger one.
            let auction = next.fetch_add(1, Ordering::AcqRel);
            let (status, body) = cluster.ask(router, &http::request(auction)).expect("an answer");
            // Two shared cores may be late; what is late is in no log.
            assert!(status == 200 || status == 504, "router {router}: {status} {body}");
            if status == 200 {
                auctions.push(auction);
                answered[router].fetch_add(1, Ordering::AcqRel);
            }
        }
        auctions
    };
    let more = || {
        let count = || answered.each_ref().map(|of_router| of_router.load(Ordering::Acquire));
        let before = count();
        let has_more = || count().iter().zip(&before).all(|(now, before)| *now >= before + 30).then_some(());
        wait_for("answers of both routers", SOON, has_more);
    };
    let (paused, auctions) = std::thread::scope(|scope| {
        let ends = Stops(&is_over);
        let ask = &ask;
        let threads = [0, 1].map(|router| scope.spawn(move || ask(router)));
        more();
        done(&cluster.ctl(&["campaign", "pause", &id]).expect("paused"));
        let paused = next.load(Ordering::Acquire);
        more();
        drop(ends);
        (paused, threads.into_iter().flat_map(|thread| thread.join().expect("answers")).collect::<Vec<u64>>())
    });
    let (after, before): (BTreeSet<u64>, BTreeSet<u64>) = auctions.into_iter().partition(|id| *id >= paused);
    let [before, after] = [before, after].map(|auctions| logged(cluster, campaign, &auctions));
    println!("before the pause {before:?}, after it {after:?}");
    assert!(before.wins > 0 && before.prices > 0 && after.auctions >= 40, "before {before:?}, after {after:?}");
    assert_eq!((after.candidates, after.wins, after.prices), (0, 0, 0), "{after:?}");
    done(&cluster.ctl(&["campaign", "resume", &id]).expect("resumed"));
    assert!(!explained(cluster, 0).of(campaign).is_empty(), "it takes part again");
}

/// What a user is served.
fn served(cluster: &Cluster, router: usize, user: &str) -> Vec<u64> {
    let (status, body) = cluster.ask(router, &http::request_of(user, 5)).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let unknown = json!("no_frequency_counts");
    assert!(!body["coverage"]["degraded_reasons"].as_array().expect("reasons").contains(&unknown), "{body}");
    body["slate"].as_array().expect("a slate").iter().filter_map(|entry| entry["campaign"].as_u64()).collect()
}

/// A rule that is said counts on every router without a load, and is gone when it is taken back. Users that the
/// catalogue does not know all see the same.
fn frequency_rules(cluster: &Cluster) {
    let campaign = *served(cluster, 0, "carla").first().expect("an ad");
    let shows = |router: usize, user: &str| served(cluster, router, user).contains(&campaign);
    assert!((0..4).all(|turn| shows(turn % 2, "carla")), "nothing is counted");
    let rule = json!([{"scope": "campaign", "window_hours": 24, "max": 2}]);
    cluster.change(campaign, "cap", json!({ "frequency": rule }));
    let seen: Vec<bool> = (0..6).map(|turn| shows(turn % 2, "carla")).collect();
    assert_eq!(seen, [true, true, false, false, false, false], "counted from the rule on, over both routers");
    assert!(shows(1, "dora"), "another user sees it");
    for router in 0..2 {
        let explained = cluster.explained(router, &http::request_of("carla", SEED));
        assert!(explained.of(campaign).is_empty(), "it sets no price: {}", explained.clearing);
        assert!(explained.ads_for("not_eligible_frequency") > 0, "{:?}", explained.reasons);
    }
    cluster.change(campaign, "no cap", json!({"frequency": []}));
    assert!((0..2).all(|router| shows(router, "carla")));
    let refused = json!({"frequency": [{"scope": "ad", "window_hours": 25, "max": 1}]});
    let (status, answer) = cluster.patch(1, campaign, "odd window", &refused);
    assert!(status == 400 && answer.to_string().contains("a window of 25 hours"), "{answer}");
}

fn schedules_and_budgets(cluster: &Cluster, campaign: u64) {
    cluster.change(campaign, "over", json!({"schedule": {"ends_s": 1_000}}));
    let explained = explained(cluster, 1);
    assert!(explained.of(campaign).is_empty(), "{}", explained.clearing);
    assert!(explained.ads_for("not_eligible_schedule") > 0, "{:?}", explained.reasons);
    assert_eq!(cluster.campaign(campaign)["silence"], "out_of_schedule");
    let rule = json!({"scope": "campaign", "window_hours": 24, "max": 3});
    cluster.change(campaign, "back", json!({"reset": true, "frequency": [rule]}));
    let now = cluster.campaign(campaign);
    assert_eq!((&now["silence"], &now["frequency"]), (&Value::Null, &json!([rule])));
    assert_eq!(now["bid_micros"], now["catalogue_bid_micros"]);

    let id = campaign.to_string();
    done(&cluster.ctl(&["campaign", "set", &id, "--daily", "500", "--zone", "Europe/Berlin"]).expect("a budget"));
    cluster.change(campaign, "life", json!({"budgets": {"lifetime_micros": 9_000_000_000u64}}));
    let budgets = cluster.campaign(campaign)["budgets"].clone();
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
        cluster.http(0),
        &format!("PATCH /v1/campaigns/{campaign} HTTP/1.1"),
        &json!({"status": "paused"}).to_string(),
    )
    .expect("an answer");
    assert!(status == 400 && text.contains("Idempotency-Key"), "{text}");
    let (status, answer) = cluster.patch(1, campaign, "zero", &json!({"bid_micros": 0}));
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|m| m.contains("bid_micros is 0")), "{answer}");
    let both = json!({"updates": [{"campaign": campaign, "change": {"status": "paused"}},
                                  {"campaign": 999_999_999_999u64, "change": {"status": "paused"}}]});
    let head = "POST /v1/campaigns:batch HTTP/1.1\r\nIdempotency-Key: both";
    let (status, text) = http::send(cluster.http(0), head, &both.to_string()).expect("an answer");
    assert_eq!(status, 400, "{text}");
    assert_eq!(cluster.campaign(campaign)["status"], "active", "all of it or nothing");
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
        let explained = explained(cluster, router);
        assert!(explained.of(campaign).is_empty(), "router {router}: {}", explained.clearing);
    }
    // Then the node that was not started again goes, and the other answers alone.
    cluster.nodes[1].kill();
    let explained = explained(cluster, 0);
    assert!(explained.of(campaign).is_empty(), "{}", explained.clearing);
    assert!(explained.ads_for("not_eligible_paused") > 0, "{:?}", explained.reasons);
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

/// The campaign with the most candidates in the auction, of those of which both groups have some.
fn of_both_groups(cluster: &Cluster) -> u64 {
    let explained = explained(cluster, 0);
    let campaigns: BTreeSet<u64> = explained.candidates().iter().filter_map(|c| c["campaign"].as_u64()).collect();
    let has_both = |id: &u64| {
        let ads = explained.of(*id).into_iter().filter_map(|c| c["ad"].as_u64());
        ads.map(group_of).collect::<BTreeSet<u64>>().len() == 2
    };
    let most = campaigns.into_iter().filter(has_both).max_by_key(|id| explained.of(*id).len());
    most.expect("a campaign with candidates of both groups")
}

/// Group and bid of each candidate of a campaign in the auction.
fn group_bids(cluster: &Cluster, router: usize, campaign: u64) -> BTreeSet<(u64, u64)> {
    let of = |c: &Value| Some((group_of(c["ad"].as_u64()?), c["bid_micros"].as_u64()?));
    explained(cluster, router).of(campaign).into_iter().map(|c| of(c).expect("an ad and its bid")).collect()
}

/// Clicks on ads of the campaign until one is charged: the ad group, and the price in micros.
fn charged_click(cluster: &Cluster, campaign: u64) -> (u64, u64) {
    let mut seed = 100;
    wait_for("a click that is charged", 2 * SOON, || {
        seed += 1;
        let sold = cluster.sell((seed % 2) as usize, &http::request(seed))?;
        let ad: Sold = sold.into_iter().find(|ad| ad.campaign == campaign)?;
        (cluster.report(0, &[ad.event()]) == ["charged"]).then(|| (group_of(ad.ad), ad.price_micros))
    })
}

#[test]
fn ad_groups_have_bids_and_statuses_of_their_own_and_share_a_budget() {
    let cluster = grouped();
    let campaign = of_both_groups(&cluster);
    let id = campaign.to_string();
    // It wins wherever it may, so that ads of both groups stay within the cut.
    let bid = cluster.campaign(campaign)["bid_micros"].as_u64().expect("a bid") * 50;
    cluster.change(campaign, "raise", json!({ "bid_micros": bid }));
    for router in 0..2 {
        let held = group_bids(&cluster, router, campaign);
        assert_eq!(held, BTreeSet::from([(1, bid), (2, bid)]), "both bid as their campaign does");
    }

    done(&cluster.ctl(&["campaign", "pause", &id, "--ad-group", "1"]).expect("paused"));
    let raised = Micros(bid + 7).to_string();
    done(&cluster.ctl(&["campaign", "set", &id, "--ad-group", "2", "--bid", &raised]).expect("rebid"));
    for router in 0..2 {
        let held = group_bids(&cluster, router, campaign);
        assert_eq!(held, BTreeSet::from([(2, bid + 7)]), "router {router}");
        let explained = explained(&cluster, router);
        assert!(explained.ads_for("not_eligible_paused") > 0, "{:?}", explained.reasons);
    }
    let now = cluster.campaign(campaign);
    assert_eq!((&now["status"], &now["silence"]), (&json!("active"), &Value::Null));
    let group = |id: u64, bid: u64, status: &str| {
        let own = Value::Null;
        json!({"id": id, "bid_micros": bid, "status": status, "catalogue_bid_micros": own, "catalogue_paused": false})
    };
    let third = json!({"id": 3, "bid_micros": 9_500_000, "status": "paused", "catalogue_bid_micros": 9_500_000,
                       "catalogue_paused": true});
    assert_eq!(now["ad_groups"], json!([group(1, bid, "paused"), group(2, bid + 7, "active"), third]));

    shares_a_budget(&cluster, campaign);
    mistakes_of_groups(&cluster, campaign);
    cluster.change(campaign, "back", json!({"reset": true}));
    let own = cluster.campaign(campaign)["bid_micros"].as_u64().expect("a bid");
    assert_eq!(cluster.campaign(campaign)["ad_groups"][1], group(2, own, "active"));
}

/// Clicks on ads of either group are charged to the one account of the campaign; the first group is paused before.
fn shares_a_budget(cluster: &Cluster, campaign: u64) {
    let id = campaign.to_string();
    done(&cluster.ctl(&["campaign", "set", &id, "--daily", "1000000", "--zone", "UTC"]).expect("a budget"));
    let second = charged_click(cluster, campaign);
    assert_eq!(second.0, 2, "the other is paused");
    let turn = json!({"ad_groups": [{"id": 1, "reset": true}, {"id": 2, "status": "paused"}]});
    cluster.change(campaign, "turn", turn);
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
    let (status, answer) = cluster.patch(1, campaign, "no bid", &json!({"ad_groups": [{"id": 1, "bid_micros": 0}]}));
    assert!(status == 400 && answer.to_string().contains("ad group 1: bid_micros is 0"), "{answer}");
}
