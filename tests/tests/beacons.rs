//! Does the beacon give each answer that is documented?
//!
//! `GET /v1/events/KIND/TOKEN` on real processes, with the tokens of ads that were served: charged once, whichever
//! router hears it again; not billed, a notice of a win, no budget, a budget that was gone. What takes hours to come
//! about, or a router that breaks the rules, is sealed here with the cluster's own keys, as a router would. Then what
//! is no event at all, and an event while no voter lives, which counts when it is sent again.

use gavel_client::LedgerClient;
use gavel_member::token::{self, Token};
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{EventKind, GrantIssuer, LedgerAnswer, TokenKey};
use gavel_tests::calls::{SOON, Sold};
use gavel_tests::cluster::{Cluster, Size, wait_for};
use gavel_tests::http;
use serde_json::{Value, json};

const SIZE: Size = Size { controls: 1, nodes: 2, routers: 2, shards: 2, replicas: 1 };
const HOUR_MS: u64 = 3_600_000;

/// Fires a beacon: status and word.
fn beacon(cluster: &Cluster, router: usize, kind: &str, token: &str) -> (u16, String) {
    let (status, text) = http::get(cluster.http(router), &format!("/v1/events/{kind}/{token}")).expect("an answer");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(1), "{text}");
    (status, answer["answer"].as_str().expect("a word").to_owned())
}

/// An answer that is not worth a status of its own.
fn ok(word: &str) -> (u16, String) {
    (200, word.to_owned())
}

/// Ads of different campaigns: one that pays for impressions, two for clicks, one for conversions.
fn sold(cluster: &Cluster) -> Vec<Sold> {
    cluster.wait_tokens();
    wait_for("ads of every kind", SOON, || {
        let users = (1..60).map(|number| http::request_of(&(number * 40).to_string(), 80_000 + number));
        let all: Vec<Sold> = users.filter_map(|request| cluster.sell(0, &request)).flatten().collect();
        let mut found: Vec<Sold> = Vec::new();
        for bid_type in ["cpm", "cpc", "cpc", "cpa"] {
            let is_new = |ad: &&Sold| found.iter().all(|other| other.campaign != ad.campaign);
            let is_it = |ad: &&Sold| ad.bid_type == bid_type && ad.price_micros > 1 && is_new(ad);
            found.push(all.iter().find(is_it)?.clone());
        }
        Some(found)
    })
}

#[test]
fn a_beacon_gives_every_documented_answer() {
    let mut cluster = Cluster::start_with(SIZE, &[], 10);
    let sold = sold(&cluster);
    let [impression, click, poor, conversion] = &sold[..] else { panic!("four ads") };
    for ad in [impression, click, conversion] {
        billed_once(&cluster, ad);
    }
    beyond_the_budget(&cluster, poor);
    altered(&cluster, click);
    sealed_here(&cluster, click);
    no_events(&cluster, click);
    without_a_voter(&mut cluster, &sold);
}

fn billed_once(cluster: &Cluster, ad: &Sold) {
    let billed = ad.billed();
    assert_eq!(beacon(cluster, 0, billed, &ad.token), ok("unknown_campaign"), "{ad:?}");
    cluster.budget((ad.campaign, ad.advertiser), "lifetime", 1_000_000_000_000);
    for kind in ["impression", "click", "conversion"] {
        let first = if kind == billed { "charged" } else { "not_billed" };
        let second = if kind == billed { "duplicate" } else { "not_billed" };
        assert_eq!(beacon(cluster, 0, kind, &ad.token), ok(first), "{kind} of {ad:?}");
        assert_eq!(beacon(cluster, 1, kind, &ad.token), ok(second), "{kind} of {ad:?}");
    }
    assert_eq!([0, 1].map(|router| beacon(cluster, router, "win", &ad.token)), [ok("noted"), ok("noted")]);
    assert_eq!(beacon(cluster, 0, "hover", &ad.token), ok("invalid"));
}

/// What was free stays so.
fn beyond_the_budget(cluster: &Cluster, ad: &Sold) {
    for budget in [ad.price_micros - 1, 1_000_000_000_000] {
        cluster.budget((ad.campaign, ad.advertiser), "lifetime", budget);
        assert_eq!(beacon(cluster, 0, ad.billed(), &ad.token), ok("over_budget"), "{ad:?}");
    }
}

fn altered(cluster: &Cluster, ad: &Sold) {
    let other = if ad.token.ends_with('A') { 'B' } else { 'A' };
    let last = ad.token[..ad.token.len() - 1].to_owned() + &other.to_string();
    for forged in [last.as_str(), &ad.token[..40], &(ad.token.clone() + "A"), "token"] {
        for kind in ["impression", "click", "conversion", "win"] {
            assert_eq!(beacon(cluster, 1, kind, forged), ok("forged"), "{kind}/{forged}");
        }
    }
}

/// An issuer of our own, the ledger's time, and the key that seals.
fn issuer(cluster: &Cluster) -> (u64, u64, TokenKey) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let voters = cluster.controls.iter().map(|voter| voter.grpc.clone()).collect();
    let mut ledger = LedgerClient::new("gavel", voters).expect("addresses");
    let wish = Body::GrantIssuer(GrantIssuer { member_id: 9_999, incarnation: 1 });
    let mut reply = runtime.block_on(ledger.post(vec![wish])).expect("an answer");
    let granted = reply.verdicts.first().expect("a verdict");
    assert_eq!(granted.answer(), LedgerAnswer::LedgerIssuer, "{granted:?}");
    (granted.id, reply.wall_ms, reply.keys.pop().expect("a key"))
}

/// Tokens like those of the router but for one thing each.
fn sealed_here(cluster: &Cluster, ad: &Sold) {
    let (issuer, now_ms, key) = issuer(cluster);
    let genuine = Token {
        issuer,
        sequence: 1,
        billed: EventKind::EventClick,
        campaign: ad.campaign,
        ad: ad.ad,
        slot: 0,
        auction: ad.auction,
        request: 1,
        issued_ms: now_ms,
        expires_ms: now_ms + HOUR_MS,
        period_ms: now_ms,
        price_nanos: 1_000,
        bid_nanos: 1_000,
        lease: 0,
        model: 1,
        trial: 0,
    };
    let days_ago = now_ms - 10 * 24 * HOUR_MS;
    let later = now_ms + 2 * HOUR_MS;
    let cases = [
        ("charged", genuine),
        ("duplicate", genuine),
        ("expired", Token { sequence: 2, issued_ms: now_ms - 2_000, expires_ms: now_ms - 1_000, ..genuine }),
        ("late", Token { sequence: 3, issued_ms: days_ago, expires_ms: days_ago + HOUR_MS, ..genuine }),
        ("early", Token { sequence: 4, issued_ms: later, expires_ms: later + HOUR_MS, ..genuine }),
        ("price", Token { sequence: 5, price_nanos: 1_001, ..genuine }),
        ("unknown_issuer", Token { sequence: 6, issuer: issuer + 1_000, ..genuine }),
        ("lease_unknown", Token { sequence: 7, lease: 1 << 40, ..genuine }),
        ("unknown_campaign", Token { sequence: 8, campaign: u64::MAX, ..genuine }),
        ("invalid", Token { sequence: 9, expires_ms: now_ms + 30 * HOUR_MS, ..genuine }),
    ];
    for (word, token) in cases {
        let text = token::to_text(&token.seal(&key).expect("sealed"));
        assert_eq!(beacon(cluster, 0, "click", &text), ok(word), "{token:?}");
        let notice = if ["expired", "late"].contains(&word) { "expired" } else { "noted" };
        let notice = if word == "early" { "early" } else { notice };
        assert_eq!(beacon(cluster, 0, "win", &text), ok(notice), "{token:?}");
    }
    let stranger = TokenKey { secret: vec![7; key.secret.len()], ..key };
    let text = token::to_text(&genuine.seal(&stranger).expect("sealed"));
    assert_eq!(beacon(cluster, 0, "click", &text), ok("forged"));
}

/// Paths and bodies that are no events are refused with the reason, and charge nothing.
fn no_events(cluster: &Cluster, ad: &Sold) {
    let address = cluster.http(0);
    for path in ["/v1/events/click", "/v1/events/click/", &format!("/v1/events/click/{}/x", ad.token)] {
        let (status, text) = http::get(address, path).expect("an answer");
        let said: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((status, &said["error"]["code"]), (404, &json!("not_found")), "{path}: {text}");
    }
    let (status, _) = http::post(address, &format!("/v1/events/click/{}", ad.token), "").expect("an answer");
    assert_eq!(status, 405, "a beacon is got");
    let many = json!({"events": vec![ad.event(); 513]}).to_string();
    let odd = json!({"events": [{"kind": "click", "token": ad.token, "price": 1}]}).to_string();
    for body in ["click", "", "[]", r#"{"events": 1}"#, r#"{"events": [{"kind": "click"}]}"#, &odd, &many] {
        let (status, text) = http::post(address, "/v1/events", body).expect("an answer");
        let said: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((status, &said["error"]["code"]), (400, &json!("invalid_argument")), "{body}: {text}");
    }
    assert_eq!(cluster.report(0, &[]), Vec::<String>::new());
}

/// No voter: the event is not known to be committed, and is charged once when it is sent again.
fn without_a_voter(cluster: &mut Cluster, sold: &[Sold]) {
    let is_known = |ad: &Sold| sold.iter().any(|known| known.campaign == ad.campaign && known.bid_type == "cpc");
    let fresh = wait_for("another ad that pays for clicks", SOON, || {
        let users = (1..60).map(|number| http::request_of(&(number * 40).to_string(), 90_000 + number));
        users.filter_map(|request| cluster.sell(1, &request)).flatten().find(|ad| is_known(ad))
    });
    cluster.controls[0].kill();
    assert_eq!(beacon(cluster, 0, "click", &fresh.token), (503, "unavailable".to_owned()));
    // What needs no voter is answered.
    assert_eq!(beacon(cluster, 0, "win", &fresh.token), ok("noted"));
    assert_eq!(beacon(cluster, 0, "impression", &fresh.token), ok("not_billed"));
    cluster.controls[0].start();
    let word = wait_for("an answer of a voter", 3 * SOON, || {
        Some(beacon(cluster, 1, "click", &fresh.token)).filter(|(status, _)| *status == 200)
    });
    // The first try may have been waiting for the voter.
    assert!([ok("charged"), ok("duplicate")].contains(&word), "{word:?}");
    assert_eq!(beacon(cluster, 0, "click", &fresh.token), ok("duplicate"));
}
