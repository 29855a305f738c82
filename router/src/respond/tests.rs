//! Do the reasons sum to the catalogue, and does the JSON look as documented?

use super::*;
use crate::allocation::{AllocationRule, Engagement, ShadowBid};
use crate::auction::{AuctionRule, AuctionTerms, Mechanism, clear, reclear_without};
use crate::merge::{Candidate, Offer, ShardList, merge};
use crate::request::Organic;
use crate::topology::{RouteTable, ShardRoute};
use crate::transport::{Funnel, Predictions, ShardBody};
use expect_test::{Expect, expect};
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, MemberId, ShardId};
use gavel_proto::money::{BidType, Micros};
use std::collections::HashMap;

fn offer(shard: u32, row: u32, bid: u64, advertiser: u64) -> Candidate {
    let id = u64::from(shard) * 100 + u64::from(row);
    Candidate::new(Offer {
        item: ItemId(id + 1_000),
        campaign: CampaignId(7),
        advertiser: AdvertiserId(advertiser),
        shard: ShardId(shard),
        row,
        ..Offer::plain(AdId(id), BidType::Cpc, Micros(bid), 1_000_000_000_000)
    })
    .expect("valid")
}

fn body(shard: u32, bids: &[(u64, u64)], reasons: &[(&str, u64)]) -> ShardBody {
    let candidates = (0..).zip(bids).map(|(row, (bid, advertiser))| offer(shard, row, *bid, *advertiser)).collect();
    ShardBody {
        node: MemberId(3),
        list: ShardList { shard: ShardId(shard), epoch: Epoch::default(), candidates },
        predictions: Predictions { heads: vec!["click".into()], values: vec![0.25; bids.len()] },
        funnel: Funnel::default(),
        timing: ShardTiming { shard, node_id: 3, plan: "exact".into(), ..ShardTiming::default() },
        explained: Vec::new(),
        reasons: reasons.iter().map(|(reason, ads)| ((*reason).to_owned(), *ads)).collect(),
        retrieved: Vec::new(),
        features: None,
    }
}

struct Case {
    table: RouteTable,
    bodies: HashMap<ShardId, ShardBody>,
    rule: AuctionRule,
    decided: Decided,
    organic: Vec<Organic>,
}

/// Shard 0 answered, shard 1 holds more ads than its map says, shard 2 is silent.
fn case() -> Case {
    let bodies = [
        body(0, &[(900, 1), (800, 1), (10, 2)], &[("returned", 3), ("not_retrieved", 40), ("cut_light", 7)]),
        body(1, &[(850, 3)], &[("returned", 1), ("not_eligible_targeting", 30)]),
    ];
    let bodies: HashMap<ShardId, ShardBody> = bodies.into_iter().map(|b| (b.list.shard, b)).collect();
    let route = |shard, ads| ShardRoute { shard: ShardId(shard), items: ads, ads, serving: Vec::new() };
    let table = RouteTable { shards: vec![route(0, 50), route(1, 20), route(2, 30)], ..RouteTable::default() };
    let rule = AuctionRule::new(AuctionTerms::plain(Mechanism::Gsp, 2)).expect("holds together");
    let ranking = merge(Epoch::default(), bodies.values().map(|body| &body.list)).expect("merges");
    let clearing = clear(&ranking, &rule);
    let organic = vec![Organic { id: "post".into(), engagement: Engagement::default() }];
    let page = AllocationRule {
        positions: 3,
        first_position: 1,
        min_gap: 1,
        max_ads: 2,
        max_load_ppm: 1_000_000,
        shadow_bid: ShadowBid::default(),
        gap_effect_ppm: Vec::new(),
        category_spacing: 0,
    };
    let decided = Decided::place(ranking, clearing, &organic, &page, &bodies);
    Case { table, bodies, rule, decided, organic }
}

#[test]
fn every_ad_of_the_map_has_one_reason() {
    let case = case();
    let (ads, reasons) = reasons(&case.table, (&case.decided, &[]), &case.rule, &case.bodies);
    assert_eq!(reasons.iter().map(|r| r.ads).sum::<u64>(), case.table.ads());
    let of = |reason: &str| reasons.iter().find(|r| r.reason == reason).map_or(0, |r| r.ads);
    assert_eq!((of("won"), of("no_slot"), of("limit_advertiser"), of("lost_auction")), (1, 1, 1, 1));
    assert_eq!((of("shard_unanswered"), of("not_retrieved"), of("cut_light")), (30, 40, 7));
    assert_eq!(of("not_eligible_targeting"), 19, "shard 1 accounts for one ad more than the map has");
    let words: Vec<&str> = ads.iter().map(|ad| ad.reason.as_str()).collect();
    assert_eq!(words, ["won", "no_slot", "lost_auction", "limit_advertiser"]);
    assert_eq!(ads[0].predictions[0].head, "click");
}

/// A winner that is taken out after the auction has the reason for which it was.
#[test]
fn a_winner_that_is_taken_out_says_why() {
    let mut case = case();
    let out = case.decided.ranking[case.decided.clearing.winners[0].candidate].offer().ad;
    case.decided.clearing = reclear_without(&case.decided.ranking, &case.rule, &[out]);
    let reason = |refused: &[AdId]| {
        let (ads, _) = reasons(&case.table, (&case.decided, refused), &case.rule, &case.bodies);
        ads.into_iter().find(|ad| ad.ad_id == out.0).map(|ad| ad.reason)
    };
    assert_eq!(reason(&[out]).as_deref(), Some("not_eligible_frequency"));
    assert_eq!(reason(&[]).as_deref(), Some("not_eligible_budget"));
}

fn check(json: &impl Serialize, expected: Expect) {
    expected.assert_eq(&serde_json::to_string_pretty(json).expect("JSON"));
}

#[test]
fn the_json_is_as_documented() {
    let case = case();
    let slate = slate(&case.decided, &case.organic, &case.bodies, &HashMap::new());
    check(
        &slate,
        expect![[r#"
            [
              {
                "position": 0,
                "organic_id": "post"
              },
              {
                "position": 1,
                "ad": 0,
                "item": 1000,
                "campaign": 7,
                "advertiser": 1,
                "slot": 0,
                "bid_type": "cpc",
                "price_micros": 850,
                "bid_micros": 900,
                "predictions": [
                  {
                    "head": "click",
                    "value": 0.25
                  }
                ],
                "creative": null
              }
            ]"#]],
    );
    let coverage =
        CoverageReport { fraction: 0.75, shards_total: 4, degraded_reasons: 129, ..CoverageReport::default() };
    check(
        &coverage,
        expect![[r#"
            {
              "fraction": 0.75,
              "shards_total": 4,
              "shards_ok": 0,
              "shards_timed_out": 0,
              "shards_failed": 0,
              "shards_version_unavailable": 0,
              "degraded_reasons": [
                "timeout",
                "no_budget_authority"
              ]
            }"#]],
    );
}
