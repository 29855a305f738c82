//! Does a user see a capped campaign at most so often, over all routers, whoever dies?
//!
//! Real processes with a part of the demo, in which about half of the campaigns may be seen twice a day, or in which
//! ads and advertisers are counted by the hour. Users that the catalogue does not know all have the same features, so
//! that all of them would see the same ads.

use gavel_proto::frequency::{Owners, owners};
use gavel_proto::hash::value_hash;
use gavel_proto::ids::MemberId;
use gavel_tests::calls::Explained;
use gavel_tests::cluster::{Cluster, Logging, REFERENCE, wait_for};
use gavel_tests::{corpus, http};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Impressions of a capped campaign.
const BOUND: u64 = 2;
/// Every so manyth item of the demo.
const NTH_ITEM: usize = 4;
/// A node that joins or leaves is known, and its users have moved, within so long.
const MOVED: Duration = Duration::from_secs(60);

fn start() -> Cluster {
    let rule = json!([{"scope": "campaign", "window": "1d", "max": BOUND}]);
    let change = |campaign: &mut Value| {
        if is_capped(campaign["campaign_id"].as_u64().expect("an id")) {
            campaign["frequency"] = rule.clone();
        }
    };
    Cluster::start_of(REFERENCE, &[], Logging::Clearings, |folder| corpus::with_campaigns(NTH_ITEM, folder, change))
}

/// Some of the campaigns that win without rules, and not all: ids end with two digits of the department.
fn is_capped(campaign: u64) -> bool {
    (campaign / 100) % 2 == 1
}

fn ask(cluster: &Cluster, router: usize, user: &str, seed: u64) -> Value {
    let (status, body) = cluster.ask(router, &http::request_of(user, seed)).expect("an answer");
    assert_eq!(status, 200, "{body}");
    body
}

fn campaigns(body: &Value) -> Vec<u64> {
    body["slate"].as_array().expect("a slate").iter().filter_map(|entry| entry["campaign"].as_u64()).collect()
}

fn says_unknown(body: &Value) -> bool {
    let reasons = body["coverage"]["degraded_reasons"].as_array().expect("reasons");
    reasons.iter().any(|reason| reason == "no_frequency_counts")
}

/// A user's auction, explained by a router.
fn explained(cluster: &Cluster, router: usize, user: &str) -> Explained {
    cluster.explained(router, &http::request_of(user, 10))
}

/// The campaigns that take part in it.
fn candidates(explained: &Explained) -> Vec<u64> {
    let campaign = |candidate: &Value| candidate["campaign"].as_u64().expect("a campaign");
    explained.candidates().iter().map(campaign).collect()
}

/// Asks for a user over both routers in turn, and adds to what it has seen.
fn see(cluster: &Cluster, user: &str, seeds: std::ops::Range<u64>, seen: &mut BTreeMap<u64, u64>) {
    for seed in seeds {
        let body = ask(cluster, seed as usize % 2, user, seed);
        assert!(!campaigns(&body).is_empty(), "{body}");
        for campaign in campaigns(&body) {
            *seen.entry(campaign).or_default() += 1;
        }
    }
    let too_often = seen.iter().find(|(campaign, count)| is_capped(**campaign) && **count > BOUND);
    assert_eq!(too_often, None, "{seen:?}");
}

/// The members of the View, by their ids.
fn members(cluster: &Cluster) -> BTreeMap<u64, (String, bool)> {
    let status = cluster.status().expect("a status");
    let nodes = status["members"].as_array().expect("members").iter().filter(|m| m["role"] == "node");
    let one = |m: &Value| {
        let address = m["address"].as_str().expect("an address").to_owned();
        (m["member_id"].as_u64().expect("an id"), (address, m["alive"] == true))
    };
    nodes.map(one).collect()
}

/// Who counts for a user, as addresses.
fn owners_of(members: &BTreeMap<u64, (String, bool)>, user: &str) -> [String; 2] {
    let live: Vec<MemberId> = members.iter().filter(|(_, (_, alive))| *alive).map(|(id, _)| MemberId(*id)).collect();
    let Owners { owner, replica } = owners(&live, value_hash(user));
    [owner, replica].map(|id| members[&id.expect("two nodes live").0].0.clone())
}

fn kill(cluster: &mut Cluster, address: &str) {
    cluster.nodes.iter_mut().find(|node| node.grpc == address).expect("a node of that address").kill();
}

/// Waits until the counts of a user are known again.
fn wait_known(cluster: &Cluster, user: &str) {
    wait_for("counts of the user", MOVED, || {
        let known = (0..2).all(|router| {
            let (status, body) = cluster.ask(router, &http::request_of(user, 1)).unwrap_or_default();
            status == 200 && !says_unknown(&body)
        });
        known.then_some(())
    });
}

#[test]
fn a_capped_campaign_is_seen_so_often_and_never_sets_a_price_after() {
    let mut cluster = start();
    wait_known(&cluster, "somebody");
    let mut seen = BTreeMap::new();
    see(&cluster, "anna", 10..30, &mut seen);
    let at_its_cap = |seen: &BTreeMap<u64, u64>| -> Vec<u64> {
        seen.iter().filter(|(id, count)| is_capped(**id) && **count == BOUND).map(|(id, _)| *id).collect()
    };
    let capped = at_its_cap(&seen);
    assert!(!capped.is_empty() && seen.iter().any(|(id, count)| !is_capped(*id) && *count > BOUND), "{seen:?}");

    // Another user sees them from the first request on.
    let other = campaigns(&ask(&cluster, 0, "bert", 10));
    assert!(other.iter().any(|campaign| capped.contains(campaign)), "{other:?} of {capped:?}");

    // Anna's auction does not hold them: they are no runners-up.
    for router in 0..2 {
        let explained = explained(&cluster, router, "anna");
        let candidates = candidates(&explained);
        assert!(!candidates.is_empty() && !candidates.iter().any(|campaign| capped.contains(campaign)), "{capped:?}");
        let reasons = &explained.reasons;
        assert!(explained.ads_for("not_eligible_frequency") >= capped.len() as u64, "{reasons:?}");
        assert!(reasons.iter().all(|r| r["reason"] != "not_eligible_blocked"), "{reasons:?}");
    }

    // kill -9 of the owner: the replica counts on, at once and after everything has moved.
    let [owner, _] = owners_of(&members(&cluster), "anna");
    kill(&mut cluster, &owner);
    see(&cluster, "anna", 100..110, &mut seen);
    let is_missed = || members(&cluster).values().any(|(_, alive)| !alive).then_some(());
    wait_for("the View without the owner", MOVED, is_missed);
    wait_known(&cluster, "anna");
    see(&cluster, "anna", 110..130, &mut seen);

    // The next one, too: its users have been copied to others meanwhile.
    let [second, _] = owners_of(&members(&cluster), "anna");
    assert_ne!(owner, second);
    cluster.nodes.iter_mut().find(|node| node.grpc == owner).expect("the first one").start();
    wait_for("all nodes", MOVED, || members(&cluster).values().all(|(_, alive)| *alive).then_some(()));
    wait_known(&cluster, "anna");
    see(&cluster, "anna", 200..215, &mut seen);
    assert!(at_its_cap(&seen).len() >= capped.len());
}

#[test]
fn without_both_owners_nothing_that_is_capped_is_served_and_the_rest_is() {
    let mut cluster = start();
    wait_known(&cluster, "somebody");
    let members = members(&cluster);
    // A user whose two nodes are not all that serves a shard.
    let status = cluster.status().expect("a status");
    let shards = status["shards"].as_array().expect("shards").clone();
    let serve_on = |dead: &[String; 2]| {
        let is_dead = |id: &Value| id.as_u64().is_some_and(|id| dead.contains(&members[&id].0));
        shards.iter().all(|shard| !shard["serving"].as_array().expect("who serves").iter().all(is_dead))
    };
    let names = (0..1_000).map(|n| format!("user-{n}"));
    let user = names.into_iter().find(|user| serve_on(&owners_of(&members, user))).expect("one of a thousand");
    let mut seen = BTreeMap::new();
    see(&cluster, &user, 10..20, &mut seen);
    assert!(seen.iter().any(|(campaign, count)| is_capped(*campaign) && *count == BOUND), "{seen:?}");

    let incarnations = status["members"].as_array().expect("members").iter().map(|m| m["incarnation"].as_u64());
    let before: Vec<Option<u64>> = incarnations.collect();
    let [owner, replica] = owners_of(&members, &user);
    kill(&mut cluster, &owner);
    kill(&mut cluster, &replica);
    for seed in 20..30 {
        let body = ask(&cluster, seed as usize % 2, &user, seed);
        assert!(says_unknown(&body), "{body}");
        let shown = campaigns(&body);
        assert!(!shown.is_empty() && !shown.iter().any(|campaign| is_capped(*campaign)), "{shown:?}");
    }
    assert!(cluster.routers.iter().map(|r| r.metric("gavel_router_frequency_unknown_total")).sum::<f64>() >= 10.0);
    // Without a user id nothing is counted, and everything is served.
    let mut nobody = http::request(20);
    nobody.as_object_mut().expect("an object").remove("user_id");
    let (status, body) = cluster.ask(0, &nobody).expect("an answer");
    assert!(status == 200 && !says_unknown(&body) && !campaigns(&body).is_empty(), "{body}");

    // Both come back with what is on their disks.
    for address in [&owner, &replica] {
        cluster.nodes.iter_mut().find(|node| node.grpc == *address).expect("a node").start();
    }
    // Until every router knows that they are back: the two that held the user meanwhile had not seen anything of it.
    let epoch = wait_for("both nodes", MOVED, || {
        let status = cluster.status().ok()?;
        let nodes = status["members"].as_array()?.iter().filter(|m| m["role"] == "node");
        let back = nodes.filter(|m| m["alive"] == true && !before.contains(&m["incarnation"].as_u64()));
        (back.count() == 2).then(|| status["map_epoch"].as_u64())
    });
    for router in 0..2 {
        wait_for("the View with both", MOVED, || {
            let (_, body) = cluster.ask(router, &http::request_of("somebody", 1))?;
            (body["epoch"]["map_epoch"].as_u64() >= epoch).then_some(())
        });
    }
    wait_known(&cluster, &user);
    see(&cluster, &user, 30..40, &mut seen);
}

/// Impressions of an advertiser after which its counted campaigns stop.
const OF_ADVERTISER: usize = 2;

/// What a campaign's rule of one hour is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Advertiser,
    Ad,
    Nothing,
}

/// By the department, so that an advertiser has campaigns of each kind: ids end with its two digits.
fn counted(campaign: u64) -> Counted {
    [Counted::Advertiser, Counted::Nothing, Counted::Ad, Counted::Nothing][campaign as usize % 4]
}

fn start_counting_by_the_hour() -> Cluster {
    let change = |campaign: &mut Value| {
        let (scope, max) = match counted(campaign["campaign_id"].as_u64().expect("an id")) {
            Counted::Advertiser => ("advertiser", OF_ADVERTISER),
            Counted::Ad => ("ad", 1),
            Counted::Nothing => return,
        };
        campaign["frequency"] = json!([{"scope": scope, "window": "1h", "max": max}]);
    };
    Cluster::start_of(REFERENCE, &[], Logging::Clearings, |folder| corpus::with_campaigns(NTH_ITEM, folder, change))
}

/// An ad on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    ad: u64,
    campaign: u64,
    advertiser: u64,
}

fn shown(body: &Value) -> Vec<Shown> {
    let one = |entry: &Value| {
        let id = |of: &str| entry[of].as_u64();
        Some(Shown { ad: id("ad")?, campaign: id("campaign")?, advertiser: id("advertiser")? })
    };
    body["slate"].as_array().expect("a slate").iter().filter_map(one).collect()
}

/// Asks for a user over both routers in turn: no rule lets an ad through too often.
fn see_by_the_hour(cluster: &Cluster, user: &str, seeds: std::ops::Range<u64>, seen: &mut Vec<Shown>) {
    for seed in seeds {
        let body = ask(cluster, seed as usize % 2, user, seed);
        let page = shown(&body);
        assert!(!page.is_empty(), "{body}");
        for one in page {
            let before = |of: fn(&Shown) -> u64| seen.iter().filter(|earlier| of(earlier) == of(&one)).count();
            let is_too_often = match counted(one.campaign) {
                // Impressions of all its campaigns count, also of those that go on.
                Counted::Advertiser => before(|shown| shown.advertiser) >= OF_ADVERTISER,
                Counted::Ad => before(|shown| shown.ad) >= 1,
                Counted::Nothing => false,
            };
            assert!(!is_too_often, "{one:?} after {seen:?}");
            seen.push(one);
        }
    }
}

/// Campaigns and their advertisers in the catalogue.
fn catalogue(cluster: &Cluster) -> Vec<(u64, u64)> {
    let ids = |campaign: &Value| {
        let id = |of: &str| campaign[of].as_u64().expect("an id");
        (id("campaign_id"), id("advertiser_id"))
    };
    corpus::documents(&cluster.folder().join("catalogue/campaigns.jsonl.zst")).iter().map(ids).collect()
}

/// A campaign that the user has not seen and that counts its advertiser, of which the user has seen enough. It now bids
/// so much that everybody else sees it.
fn unseen_of_a_full_advertiser(cluster: &Cluster, seen: &[Shown]) -> u64 {
    let is_unseen = |(campaign, advertiser): &(u64, u64)| {
        counted(*campaign) == Counted::Advertiser
            && seen.iter().all(|one| one.campaign != *campaign)
            && seen.iter().filter(|one| one.advertiser == *advertiser).count() >= OF_ADVERTISER
    };
    let wins = |(campaign, _): &(u64, u64)| {
        cluster.change(*campaign, &format!("raise {campaign}"), json!({"bid_micros": 100_000_000}));
        let friend = format!("friend of {campaign}");
        (0..2).all(|router| campaigns(&ask(cluster, router, &friend, 10)).contains(campaign))
    };
    let found = catalogue(cluster).into_iter().filter(is_unseen).find(wins);
    found.expect("a campaign that wins for whoever has seen nothing of its advertiser").0
}

#[test]
fn ads_and_advertisers_are_seen_so_often_in_an_hour() {
    let mut cluster = start_counting_by_the_hour();
    wait_known(&cluster, "somebody");
    let mut seen = Vec::new();
    see_by_the_hour(&cluster, "anna", 10..40, &mut seen);
    // Whoever has seen nothing gets the page that she got first, with ads that she never gets again.
    let first = shown(&ask(&cluster, 0, "bert", 10));
    assert_eq!(first, seen[..first.len()]);
    assert!(first.iter().any(|one| counted(one.campaign) == Counted::Ad), "{first:?}");
    // Each ad is counted by itself: another one of its campaign came after it.
    let is_another = |(at, one): (usize, &Shown)| seen[..at].iter().any(|earlier| earlier.campaign == one.campaign);
    let mut of_ads = seen.iter().enumerate().filter(|(_, one)| counted(one.campaign) == Counted::Ad);
    assert!(of_ads.any(is_another), "{seen:?}");

    // All campaigns of an advertiser are counted together: one that would win is not even a candidate.
    let other = unseen_of_a_full_advertiser(&cluster, &seen);
    see_by_the_hour(&cluster, "anna", 40..50, &mut seen);
    for router in 0..2 {
        assert!(!candidates(&explained(&cluster, router, "anna")).contains(&other), "{other} sets a price");
    }

    // kill -9 of the owner: the other node has these counts, too.
    let [owner, _] = owners_of(&members(&cluster), "anna");
    kill(&mut cluster, &owner);
    see_by_the_hour(&cluster, "anna", 50..60, &mut seen);
    let is_missed = || members(&cluster).values().any(|(_, alive)| !alive).then_some(());
    wait_for("the View without the owner", MOVED, is_missed);
    wait_known(&cluster, "anna");
    see_by_the_hour(&cluster, "anna", 60..70, &mut seen);
    assert!(seen.iter().all(|one| one.campaign != other), "{other}");

    // A rule binds its own campaign: under one that does not bind yet it goes on, however much of its advertiser was
    // seen. An empty list would bring back the catalogue's rule.
    cluster.change(other, "free", json!({"frequency": [{"scope": "campaign", "window_hours": 1, "max": 255}]}));
    assert!(campaigns(&ask(&cluster, 0, "anna", 70)).contains(&other));
}
