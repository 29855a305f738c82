//! Lines that come out the same, lines that were altered, and lines that are none.

use gavel_proto::cut::Neighbours;
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::{TieKey, mix64};
use gavel_proto::ids::{AdId, AdvertiserId, AuctionId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros};

use super::*;
use crate::allocation::{AllocationRule, Engagement, ShadowBid};
use crate::auction::{AuctionTerms, Mechanism, TiePrice, UserModel};

fn inputs(seed: u64) -> ClearingInputs {
    let mut state = mix64(seed + 1);
    let mut roll = |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(state) % below
    };
    let cascade = seed.is_multiple_of(5);
    let candidate = |ad: u64, roll: &mut dyn FnMut(u64) -> u64| LoggedCandidate {
        ad: AdId(ad),
        item: ItemId(ad + 100),
        campaign: CampaignId(roll(9)),
        advertiser: AdvertiserId(roll(9)),
        category: roll(4),
        bid_type: BidType::ALL[roll(5) as usize],
        bid_micros: Micros(roll(5_000_000)),
        weight: 1 + roll(100_000_000_000_000),
        event_weight: 1 + roll(100_000_000_000_000),
        click_weight: 100_000_000_000_000,
        continuation_ppm: roll(1_000_000) as u32,
        value: i128::from(roll(100)) * -1_000_000_000_000_000_000,
        reserve_micros: Micros(roll(50_000)),
        tie: mix64(roll(u64::MAX)),
        engagement: Engagement::from_units(roll(900) as f64 / 1e3).expect("finite"),
        shard: ShardId(roll(4) as u32),
        row: roll(50) as u32,
    };
    let mechanism = match roll(3) {
        0 if !cascade => Mechanism::Gsp,
        0 | 1 => Mechanism::Vcg,
        _ => Mechanism::FirstPrice,
    };
    ClearingInputs {
        format: FORMAT,
        request_id: format!("request \"{seed}\""),
        auction_id: AuctionId(mix64(seed)),
        tie_key_id: TieKey::from_number(7).id(),
        epoch: Epoch { map: 3, generation: 2, model: 5, delivery: 1_000 + seed },
        terms: AuctionTerms {
            mechanism,
            slots: roll(6) as usize,
            per_advertiser: 1,
            per_category: if cascade { None } else { [None, Some(1), Some(2)][roll(3) as usize] },
            position_factors_ppm: vec![1_000_000, 600_000, 360_000],
            tie_price: TiePrice::Keyed,
            neighbours: if cascade { Neighbours::Any } else { [Neighbours::Any, Neighbours::Apart][roll(2) as usize] },
            users: if cascade { UserModel::Cascade } else { UserModel::Separable },
            page_threshold: if cascade { 0 } else { i128::from(roll(3) * roll(4)) * 10_000_000_000_000_000_000 },
        },
        page: AllocationRule {
            positions: 16,
            first_position: roll(2) as usize,
            min_gap: roll(3) as usize,
            max_ads: 4,
            max_load_ppm: 500_000,
            shadow_bid: ShadowBid::from_micros(roll(3_000) as f64).expect("a bid"),
            gap_effect_ppm: vec![800_000],
            category_spacing: roll(3) as usize,
        },
        organic: (0..roll(12)).map(|_| Engagement::from_units(roll(3_000) as f64 / 1e3).expect("finite")).collect(),
        failed: (0..roll(3)).map(|_| AdId(roll(30))).collect(),
        candidates: (0..roll(40)).map(|ad| candidate(ad, &mut roll)).collect(),
    }
}

#[test]
fn a_line_comes_out_the_same_byte_for_byte() {
    let (mut won, mut lost, mut unworthy) = (0, 0, 0);
    for seed in 0..2_000 {
        let record = clear(inputs(seed)).expect("clears");
        (won, lost) = (won + record.winners.len(), lost + record.others.len());
        assert_eq!(
            record.winners.len() + record.others.len(),
            record.inputs.candidates.len(),
            "every ad has an outcome"
        );
        let line = serde_json::to_string(&record).expect("JSON");
        assert!(!line.contains('\n'));
        // Lines from before there were page thresholds have none, and are read as they were.
        assert_eq!(line.contains("page_threshold\":"), record.inputs.terms.page_threshold > 0, "seed {seed}");
        unworthy += line.matches("below_page_threshold").count();
        assert_eq!(replay(&line).expect("replays"), line, "seed {seed}");
    }
    assert!(won > 2_500 && lost > 20_000 && unworthy > 250, "{won} winners, {lost} and {unworthy} losers say little");
}

/// A clearing with winners, losers and a feed.
fn case() -> ClearingRecord {
    let records = (0..).map(|seed| clear(inputs(seed)).expect("clears"));
    let mut full = records.filter(|r| r.winners.len() > 1 && !r.others.is_empty() && r.inputs.organic.len() > 2);
    full.find(|r| r.inputs.terms.mechanism == Mechanism::Gsp).expect("some seed has one")
}

/// Whatever number of an outcome or an input is altered, the replay shows it.
#[test]
fn an_altered_line_is_found() {
    let record = case();
    let line = |change: &dyn Fn(&mut ClearingRecord)| {
        let mut changed = record.clone();
        change(&mut changed);
        serde_json::to_string(&changed).expect("JSON")
    };
    let changes: [&dyn Fn(&mut ClearingRecord); 5] = [
        &|r| r.winners[0].price_micros.0 += 1,
        &|r| r.winners.swap(0, 1),
        &|r| r.inputs.candidates.swap(0, 1),
        &|r| r.inputs.candidates.truncate(1),
        &|r| r.others.clear(),
    ];
    for change in changes {
        let altered = line(change);
        assert_ne!(replay(&altered).expect("it is a clearing"), altered);
    }
}

#[test]
fn what_is_no_clearing_is_told_so() {
    let line = serde_json::to_string(&case()).expect("JSON");
    let check = |line: &str, message: &str| match replay(line) {
        Err(error) => assert!(error.to_string().contains(message), "{error}"),
        Ok(_) => panic!("{line} was cleared"),
    };
    check("", "not a clearing");
    check("{}", "missing field");
    check(&line.replace("\"format\":1", "\"format\":2"), "this version reads format 1");
    check(&line.replace("\"positions\":16", "\"positions\":1000000"), "positions: more than");
    check(&line.replace("\"shadow_bid\":", "\"shadow_bid\":99999999999999"), "out of bounds");
    check(&line.replace("\"per_advertiser\":1", "\"per_advertiser\":0"), "allow at least one ad");
    check(&line.replace("\"organic\":[", "\"organic\":[99999999999999999,"), "out of bounds");
    let twice = |mut inputs: ClearingInputs| {
        inputs.candidates.extend(inputs.candidates.first().cloned());
        clear(inputs)
    };
    assert!(matches!(twice(case().inputs), Err(ReplayError::Merge(_))));
}
