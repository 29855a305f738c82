//! A search through the whole funnel against one that does everything for every ad.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gavel_member::clock;
use gavel_model::{FeatureRow, FeatureValue, Scratch};
use gavel_proto::deadline::{Deadline, Instant};
use gavel_proto::hash::{tie_key, value_hash};
use gavel_proto::money::Leased;
use gavel_proto::score;

use super::altered_demo::{self, Break};
use super::fixture::{GENERATION, ITEMS, SHARD, STAGED, Staged, has_groups, user};
use super::search::{Counted, Outcome, Reasons, Search, ShardAnswer};
use super::{SearchFault, SearchScratch, search_shard};
use crate::ranking::explain::Reason;
use crate::ranking::light::LightChance;
use crate::retrieval::Mode;
use crate::segment::Term;
use crate::staging::MemoryBudget;
use crate::staging::holdings::{SharedHoldings, Target};
use crate::staging::plan::{Blob, Step};

/// Scores every ad that may take part, one by one, and keeps each item's best: (-score, tie, ad).
fn everything(target: &Target, search: &Search) -> Vec<(i128, u64, u64)> {
    let (shard, loaded) = (&target.loaded.shard, &target.loaded.bundle);
    let (bundle, content) = (&loaded.bundle, shard.content());
    let mut best: BTreeMap<u32, (i128, u64, u64)> = BTreeMap::new();
    let eligible = shard.eligible(&super::targeting(target, search)).ads;
    for ad in 0..shard.ads() {
        let item = shard.item_of(ad);
        let row = target.delivery.row(shard, ad);
        let blocked = search.blocked.advertisers.contains(&shard.advertiser(item).0);
        assert!(!(eligible.contains(ad) && (blocked || !row.bids())));
        if !eligible.contains(ad) {
            continue;
        }
        let values = bundle.schema().item.iter().map(|spec| match content.category_column(&spec.name) {
            Some(column) => FeatureValue::Category(column[item as usize]),
            None => FeatureValue::Missing,
        });
        let cross = bundle.cross(&user(bundle), &FeatureRow { values: values.collect() });
        let mut predicted = Vec::new();
        let mut activations = Vec::new();
        super::light::append_behind(bundle, shard, item, &mut activations);
        bundle.rank(&mut Scratch::default(), &search.user_part, &activations, &cross, 1, &mut predicted).unwrap();
        if predicted.iter().any(|p| !p.is_finite()) {
            continue;
        }
        let roles = loaded.roles;
        let conversion = roles.conversion.map_or(roles.prior_conversion, |head| predicted[head]);
        let Some(weight) = score::weight(row.bid_type, predicted[roles.click].into(), conversion.into()) else {
            continue;
        };
        if row.paced().0 < score::reserve_from_cpm(search.auction.reserve_cpm_micros, weight) {
            continue;
        }
        let id = shard.ad_id(ad).0;
        let total = score::score(row.paced(), weight, 0).unwrap();
        let entry = (-total, tie_key(search.auction.tie_key, search.auction.auction_id, id), id);
        best.entry(item).and_modify(|b| *b = (*b).min(entry)).or_insert(entry);
    }
    let mut order: Vec<_> = best.into_values().collect();
    order.sort_unstable();
    order
}

fn run(target: &Target, search: &Search) -> super::search::ShardAnswer {
    search_shard(&mut SearchScratch::default(), target, search, clock::now_us).unwrap()
}

#[test]
fn a_search_that_cuts_nothing_finds_what_a_full_pass_finds() {
    let folder = tempfile::tempdir().unwrap();
    let staged = Staged::new(folder.path());
    let (target, mut search) = (staged.target(), staged.search());
    (search.quota, search.light_keep, search.mode) = (ITEMS as u32, ITEMS as usize, Mode::Exact);
    search.auction.cut = None;
    let all = run(&target, &search);
    let order = everything(&target, &search);
    let got: Vec<_> = all.candidates.iter().map(|c| (-c.score, c.tie, c.ad_id)).collect();
    assert!(order.len() > 250, "{}", order.len());
    assert_eq!(got, order);
    assert_eq!(all.outcome, Outcome::Finished);
    assert_eq!((all.items_seen, all.items_total), (ITEMS, ITEMS));
    assert!(all.retrieved.is_sorted_by(|a, b| a.1 >= b.1));
    assert_eq!(all.predictions.len(), all.candidates.len() * target.loaded.bundle.roles.heads);

    // A restart opens the same folders, and the same search has the same answer.
    let again = Staged::open(folder.path(), staged.hash);
    assert_eq!(run(&again.target(), &search).candidates, all.candidates);
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let staged = Staged::new(folder.path());
    let steps = Staged::steps(folder.path(), MemoryBudget::of_bytes(50_000));
    let holdings = SharedHoldings::default();
    let content =
        Step::LoadContent { generation: GENERATION, shard: SHARD, blob: Blob { hash: staged.hash, bytes: 1 } };
    let refused = steps.carry_out(content, &holdings, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(refused.starts_with("memory: the content of shard 1 needs 1 MiB"), "{refused}");
    assert!(holdings.current().contents.is_empty());
    // What is loaded already counts.
    let taken = staged.holdings.current().contents.values().map(|c| c.content.residency().bytes()).sum::<u64>();
    let model = Step::LoadModel { generation: GENERATION, shard: SHARD, bundle: staged.hash };
    staged.holdings.change(|h| h.shards.clear());
    let steps = Staged::steps(folder.path(), MemoryBudget::of_bytes(taken + 50_000));
    let refused = steps.carry_out(model, &staged.holdings, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(refused.starts_with("memory: the model folder of shard 1"), "{refused}");
    Staged::steps(folder.path(), MemoryBudget::of_bytes(1 << 30))
        .carry_out(model, &staged.holdings, &mut |_, _| Ok(()))
        .unwrap();
    assert!(staged.target().loaded.shard.residency().is_warm(), "ready means warm");
}

#[test]
fn an_ad_outside_its_targeting_is_never_among_the_candidates() {
    let staged = &*STAGED;
    let (target, mut search) = (staged.target(), staged.search());
    (search.quota, search.light_keep, search.mode) = (ITEMS as u32, ITEMS as usize, Mode::Exact);
    search.auction.cut = None;
    for (age, unix_s) in [(Some(17.0), 0), (Some(30.0), 6 * 86_400), (None, 6 * 86_400 + 12 * 3_600)] {
        let number = age.and_then(gavel_proto::targeting::order);
        search.terms.truncate(1);
        search.terms.push(Term { dimension: value_hash("age"), values: vec![], number });
        search.unix_s = unix_s;
        let found = run(&target, &search);
        assert!(found.candidates.len() > 50);
        let mut seen = [0u32; 3];
        for candidate in &found.candidates {
            let (kind, admits) = super::fixture::admits(candidate.ad_id, age, unix_s);
            assert!(admits, "ad {} for age {age:?} at {unix_s}", candidate.ad_id);
            seen[kind] += 1;
        }
        let (is_adult, is_open) = (age.is_some_and(|age| age >= 18.0), unix_s % 86_400 != 0);
        assert_eq!((seen[1] > 0, seen[2] > 0), (is_adult, is_open), "{seen:?}");
    }
}

#[test]
fn every_ad_of_the_shard_has_one_reason() {
    let staged = &*STAGED;
    let (target, mut search) = (staged.target(), staged.search());
    search.blocked.campaigns = vec![20, 21];
    let plain = run(&target, &search);
    search.reasons = Reasons::Asked;
    let explained = run(&target, &search);
    assert_eq!(plain.candidates, explained.candidates, "asking changes nothing");
    assert!(plain.reasons.is_empty() && plain.explained.is_empty());
    let counts: HashMap<Reason, u64> = explained.reasons.iter().copied().collect();
    assert_eq!(counts.values().sum::<u64>(), explained.funnel.ads_total);
    assert_eq!(counts[&Reason::Returned], explained.candidates.len() as u64);
    assert_eq!(counts[&Reason::Returned], explained.funnel.returned);
    for reason in [
        Reason::NotEligibleTargeting,
        Reason::NotEligibleBlocked,
        Reason::NotEligibleStatus,
        Reason::NotEligiblePaused,
        Reason::NotRetrieved,
        Reason::CutLight,
        Reason::CutShard,
    ] {
        assert!(counts.get(&reason).is_some_and(|n| *n > 0), "{reason:?} of {counts:?}");
    }
    let refused = [
        Reason::NotEligibleTargeting,
        Reason::NotEligibleBlocked,
        Reason::NotEligibleStatus,
        Reason::NotEligiblePaused,
    ];
    let refused: u64 = refused.iter().map(|reason| counts[reason]).sum();
    assert_eq!(refused + explained.funnel.eligible_ads, explained.funnel.ads_total);
    let winners: Vec<u64> = explained.candidates.iter().map(|c| c.ad_id).collect();
    let nearest: Vec<u64> = explained.explained.iter().take(winners.len()).map(|e| e.ad_id).collect();
    assert_eq!(winners, nearest);
    assert_eq!(explained.explained.len(), 250);
}

/// A paused ad group says so, and one that its campaign does not have is like a campaign that nobody knows; the other ads
/// of the campaign take part.
#[test]
fn a_silent_ad_group_has_its_reason() {
    let (target, search) = (STAGED.target(), STAGED.search());
    let (shard, query) = (&target.loaded.shard, super::targeting(&target, &search));
    let admitted = shard.admitted(&query);
    let mut seen = BTreeSet::new();
    for ad in (0..shard.ads()).filter(|ad| admitted.contains(*ad) && has_groups(shard.campaign(*ad).0)) {
        let reason = super::table::barrier(&target, ad, &query, &admitted);
        let ad_group = shard.line(ad).1;
        let expected = match ad_group {
            3 => Some(Reason::NotEligiblePaused),
            4 => Some(Reason::NotEligibleStatus),
            _ => None,
        };
        if reason != Some(Reason::NotEligibleBlocked) {
            assert_eq!(reason, expected, "ad group {ad_group}");
            seen.insert(ad_group);
        }
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3, 4]));
}

/// A capped ad, an ad of a capped campaign, and every counted one when nobody can say what is capped, leave before the
/// shard's cut: they are no candidates, so they set no price.
#[test]
fn what_is_capped_leaves_before_the_cut() {
    let staged = &*STAGED;
    let (target, mut search) = (staged.target(), staged.search());
    search.reasons = Reasons::Asked;
    let capped = |explained: &ShardAnswer| {
        let counts: HashMap<Reason, u64> = explained.reasons.iter().copied().collect();
        assert_eq!(counts.values().sum::<u64>(), explained.funnel.ads_total);
        counts.get(&Reason::NotEligibleFrequency).copied().unwrap_or(0)
    };
    let before = run(&target, &search);
    assert_eq!(capped(&before), 0);
    let of = |at: usize| (target.loaded.shard.campaign(before.candidates[at].ad).0, before.candidates[at].ad_id);
    let ((campaign, _), single) = (of(0), of(1));
    assert_ne!(campaign, single.0);
    search.blocked.capped_campaigns = vec![campaign];
    search.blocked.capped_ads = vec![single];
    let after = run(&target, &search);
    let has = |answer: &ShardAnswer, ad: u64| answer.candidates.iter().any(|c| c.ad_id == ad);
    assert!(capped(&after) >= 2 && !has(&after, of(0).1) && !has(&after, single.1));
    assert!(after.candidates.iter().all(|c| target.loaded.shard.campaign(c.ad).0 != campaign));

    search.blocked.counted = Counted::Unknown;
    let unknown = run(&target, &search);
    assert!(capped(&unknown) > capped(&after) && !unknown.candidates.is_empty());
    assert!(unknown.candidates.iter().all(|c| target.loaded.shard.campaign(c.ad).0 % 10 != 7));
}

/// Six ads that pay for impressions above all others would fill the cut: where nothing can be charged for them they leave
/// before it, and the others are the candidates that they are without them.
#[test]
fn what_cannot_be_charged_leaves_before_the_cut() {
    let staged = &*STAGED;
    let (target, mut search) = (staged.target(), staged.search());
    (search.quota, search.light_keep, search.mode) = (ITEMS as u32, ITEMS as usize, Mode::Exact);
    let is_leased = |ad: u32| target.delivery.row(&target.loaded.shard, ad).is_leased();
    let before = run(&target, &search);
    assert!(before.candidates.iter().any(|c| is_leased(c.ad)));
    search.blocked.leased = Leased::Out;
    let after = run(&target, &search);
    assert!(!after.candidates.is_empty() && after.candidates.iter().all(|c| !is_leased(c.ad)));
    let mut others = search.clone();
    (others.blocked.leased, others.blocked.campaigns) =
        (Leased::Admitted, (0..60).filter(|c| matches!(c % 5, 0 | 3)).collect());
    let named = run(&target, &others);
    assert_eq!(after.candidates, named.candidates, "as if their campaigns were blocked one by one");
    search.reasons = Reasons::Asked;
    let explained = run(&target, &search);
    let counts: HashMap<Reason, u64> = explained.reasons.iter().copied().collect();
    assert_eq!(counts.values().sum::<u64>(), explained.funnel.ads_total);
    assert!(counts[&Reason::NotEligibleBudget] > 0);
}

#[test]
fn a_deadline_costs_items_seen_and_never_more() {
    let staged = &*STAGED;
    let (target, mut search) = (staged.target(), staged.search());
    search.deadline = Deadline(Instant(0));
    let late = run(&target, &search);
    assert_eq!(late.outcome, Outcome::TimedOut);
    assert_eq!((late.funnel.ranked, late.candidates.len()), (0, 0));
    assert!(late.items_seen < ITEMS / 10, "only the items before the first eligible one were passed");
    search.reasons = Reasons::Asked;
    let explained = search_shard(&mut SearchScratch::default(), &target, &search, clock::now_us);
    assert!(matches!(explained, Err(SearchFault::Late)), "a part of the reasons would not add up");
}

/// RK1: the items without a finite prediction are dropped, counted and explained, and everybody else ranks as if they
/// were not there.
#[test]
fn what_the_model_cannot_score_never_wins() {
    for broken in [Break::NotANumber, Break::Infinite] {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        altered_demo::write_broken(&bundle, broken);
        let staged = Staged::with(&folder.path().join("data"), &bundle);
        let (target, mut search) = (staged.target(), staged.search());
        (search.quota, search.light_keep, search.mode) = (ITEMS as u32, ITEMS as usize, Mode::Exact);
        search.auction.cut = None;
        search.reasons = Reasons::Asked;
        let answer = run(&target, &search);
        let got: Vec<_> = answer.candidates.iter().map(|c| (-c.score, c.tie, c.ad_id)).collect();
        assert_eq!(got, everything(&target, &search), "{broken:?}");
        assert!(answer.predictions.iter().all(|p| p.is_finite()));
        assert!((40..350).contains(&answer.funnel.non_finite), "{broken:?}: {:?}", answer.funnel);
        assert!(!got.is_empty());
        let dropped = answer.reasons.iter().find(|(reason, _)| *reason == Reason::NonFinite).map_or(0, |(_, n)| *n);
        assert!(dropped >= answer.funnel.non_finite, "{broken:?}: {:?}", answer.reasons);
    }
}

/// The light head reads what staging stored in front of each item's activations, and its order decides the cut.
#[test]
fn a_light_head_decides_who_is_ranked() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    altered_demo::write_with_light_head(&bundle);
    let staged = Staged::with(&folder.path().join("data"), &bundle);
    let (target, mut search) = (staged.target(), staged.search());
    let (shard, loaded) = (&target.loaded.shard, &target.loaded.bundle);
    assert_eq!(loaded.bundle.light_width(), 1);
    (search.quota, search.light_keep, search.mode) = (ITEMS as u32, ITEMS as usize, Mode::Exact);
    search.auction.cut = None;
    let all = run(&target, &search);
    let query_max = search.query.iter().copied().fold(f32::MIN, f32::max);
    assert!((search.user_part.last().unwrap() - query_max).abs() < 1e-5);

    let row = |item: u32| {
        let mut row = Vec::new();
        shard.append_activations(item, 0..loaded.bundle.activation_width() + 1, &mut row);
        row
    };
    // By hand: the largest of the vector less the similarity says who clicks, its negative who then buys.
    let by_id: HashMap<u64, f32> = all.retrieved.iter().copied().collect();
    let eligible = shard.eligible(&super::targeting(&target, &search)).ads;
    let mut order: Vec<(f64, u32)> = Vec::new();
    for item in (0..shard.items()).filter(|item| by_id.contains_key(&shard.item_id(*item).0)) {
        let logit = row(item)[0] - by_id[&shard.item_id(item).0] + query_max;
        let probability = |logit: f32| 1.0 / (1.0 + (-f64::from(logit)).exp());
        let chance = LightChance { click: probability(logit), conversion: probability(-row(item)[0]) };
        let value = |ad: u32| chance.value(target.delivery.row(shard, ad));
        let ads = shard.ads_of(item).filter(|ad| eligible.contains(*ad));
        order.extend(ads.map(value).reduce(f64::max).map(|value| (value, item)));
    }
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let first: Vec<u64> = order.iter().take(70).map(|(_, item)| shard.item_id(*item).0).collect();

    search.light_keep = 70;
    let cut = run(&target, &search);
    assert!(cut.funnel.ranked == 70 && order.len() > 200, "{:?} {}", cut.funnel, order.len());
    // The answer says the similarity of the nearest alone; whoever of them is among the first of all is so among them.
    let strangers = cut.item_ids.iter().filter(|id| by_id.contains_key(*id) && !first.contains(id)).count();
    assert_eq!(strangers, 0, "{:?}", cut.funnel);
    assert!(cut.item_ids.iter().any(|id| by_id.contains_key(id)));
    assert!(!cut.item_ids.is_empty());
    assert_eq!(row(0).len(), loaded.bundle.activation_width() + 1);
}
