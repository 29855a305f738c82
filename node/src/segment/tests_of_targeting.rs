//! Is an ad eligible exactly when its own conditions, read one by one, admit the request?

use super::{
    content_builder::content_in_memory,
    testing::{KEY, Random, ads_where, item},
    *,
};
use gavel_proto::ids::{AdId, CampaignId};
use gavel_proto::targeting::{Bound, Hours, Interval, hour_of_week, order};
use proptest::prelude::*;

/// A condition as a person would write it.
#[derive(Clone, Debug)]
struct Rule {
    dimension: u64,
    any_of: Vec<u64>,
    none_of: Vec<u64>,
    ranges: Vec<(Bound, Bound)>,
}

/// The conditions of one ad.
#[derive(Clone, Debug)]
struct Conditions {
    rules: Vec<Rule>,
    schedule: Option<(usize, Vec<u32>)>,
}

/// A request: terms, numbers by dimension, time, blocked ids.
#[derive(Clone, Debug)]
struct Request {
    terms: Vec<(u64, Vec<u64>, Option<f64>)>,
    unix_s: i64,
    blocked: Vec<u64>,
}

/// Two zones: one moves its clocks, the other is half an hour off.
fn zones() -> [DocZone; 2] {
    let zone = |name: &str, offsets: &[(i64, i32)]| DocZone { name: name.into(), offsets: offsets.to_vec() };
    [zone("moving", &[(0, 3_600), (400_000, 7_200), (800_000, 3_600)]), zone("half", &[(0, 19_800)])]
}

// === The obvious twin ===

fn inside(number: f64, (low, high): (Bound, Bound)) -> bool {
    let above = match low {
        Bound::Open => true,
        Bound::At(end) => number >= end,
        Bound::Beyond(end) => number > end,
    };
    above
        && match high {
            Bound::Open => true,
            Bound::At(end) => number <= end,
            Bound::Beyond(end) => number < end,
        }
}

fn admits(conditions: &Conditions, request: &Request) -> bool {
    let stated =
        |dimension, value| request.terms.iter().any(|(d, values, _)| *d == dimension && values.contains(value));
    let number = |dimension| request.terms.iter().filter(|(d, ..)| *d == dimension).find_map(|(_, _, n)| *n);
    let dimension_admits = |dimension: u64| {
        let of = || conditions.rules.iter().filter(move |rule| rule.dimension == dimension);
        let excluded = of().flat_map(|rule| &rule.none_of).any(|value| stated(dimension, value));
        let asks = of().any(|rule| !rule.any_of.is_empty() || !rule.ranges.is_empty());
        let any = of().flat_map(|rule| &rule.any_of).any(|value| stated(dimension, value));
        let within = |n| of().flat_map(|rule| &rule.ranges).any(|range| inside(n, *range));
        !excluded && (!asks || any || number(dimension).is_some_and(within))
    };
    let open = conditions.schedule.as_ref().is_none_or(|(zone, hours)| {
        let offsets = &zones()[*zone].offsets;
        let offset = offsets.iter().rfind(|(from, _)| *from <= request.unix_s).unwrap_or(&offsets[0]);
        hours.contains(&hour_of_week(request.unix_s, offset.1))
    });
    open && (1..5).all(dimension_admits)
}

// === Random expressions and requests, of small numbers, so that they meet ===

fn bound() -> impl Strategy<Value = Bound> {
    prop_oneof![
        Just(Bound::Open),
        (-3i32..9).prop_map(|n| Bound::At(f64::from(n) / 2.0)),
        (-3i32..9).prop_map(|n| Bound::Beyond(f64::from(n) / 2.0)),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let values = || proptest::collection::vec(1u64..6, 0..4);
    let ranges = proptest::collection::vec((bound(), bound()), 0..3);
    (1u64..5, values(), values(), ranges).prop_map(|(dimension, any_of, none_of, ranges)| {
        let ranges = ranges.into_iter().filter(|(low, high)| Interval::between(*low, *high).is_some()).collect();
        // Number dimensions are apart from set dimensions, as the loader sees to; one may be both here.
        Rule { dimension, any_of, none_of: if dimension == 4 { vec![] } else { none_of }, ranges }
    })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let schedule = (0usize..2, proptest::collection::vec(0u32..168, 0..120));
    (proptest::collection::vec(rule(), 0..4), proptest::option::weighted(0.3, schedule))
        .prop_map(|(rules, schedule)| Conditions { rules, schedule })
}

fn request() -> impl Strategy<Value = Request> {
    let number = proptest::option::of((-5i32..12).prop_map(|n| f64::from(n) / 2.0));
    let term = (1u64..6, proptest::collection::vec(1u64..7, 0..4), number);
    (proptest::collection::vec(term, 0..5), 0i64..1_200_000, proptest::collection::vec(0u64..20, 0..3)).prop_map(
        |(mut terms, unix_s, blocked)| {
            terms.sort_by_key(|(dimension, ..)| *dimension);
            terms.dedup_by_key(|(dimension, ..)| *dimension);
            Request { terms, unix_s, blocked }
        },
    )
}

// === Into the segment's words ===

fn document(n: u64, conditions: &Conditions) -> DocAd {
    let rule = |rule: &Rule| DocRule {
        dimension: rule.dimension,
        any_of: rule.any_of.clone(),
        none_of: rule.none_of.clone(),
        ranges: rule.ranges.iter().filter_map(|(low, high)| Interval::between(*low, *high)).collect(),
    };
    let schedule = conditions.schedule.as_ref().map(|(zone, open)| {
        let mut hours = Hours::default();
        open.iter().for_each(|hour| hours.insert(*hour));
        DocSchedule { zone: zones()[*zone].name.clone(), hours }
    });
    DocAd {
        ad: AdId(n),
        item: item(n / 3).item,
        campaign: CampaignId(500 + n % 5),
        ad_group: n % 4,
        targeting: conditions.rules.iter().map(rule).collect(),
        schedule,
    }
}

fn content(ads: &[Conditions]) -> Content {
    let documents: Vec<DocAd> = (0u64..).zip(ads).map(|(n, conditions)| document(n, conditions)).collect();
    let items = (0..(ads.len() as u64).div_ceil(3)).map(item);
    content_in_memory(KEY, zones(), items, documents).unwrap()
}

fn terms(request: &Request) -> Vec<Term> {
    let term = |(dimension, values, number): &(u64, Vec<u64>, Option<f64>)| Term {
        dimension: *dimension,
        values: values.clone(),
        number: number.and_then(order),
    };
    request.terms.iter().map(term).collect()
}

fn check(ads: &[Conditions], content: &Content, request: &Request) {
    let terms = terms(request);
    let campaigns: Vec<u64> = request.blocked.iter().map(|n| 500 + n).collect();
    let categories: Vec<u64> = request.blocked.iter().map(|n| 100 + n).collect();
    let of_campaign = |campaign: u64| ads_where(content.ads(), |ad| content.campaign(ad).0 == campaign);
    let excluded = of_campaign(504);
    // By frequency: a campaign, one in three ads of another, and at times all that is counted.
    let capped_ads: Vec<(u64, u64)> = (0..ads.len() as u64).filter(|n| n % 15 == 1).map(|n| (501, n)).collect();
    let counted = (request.blocked.len() == 2).then(|| of_campaign(500));
    // Where nothing can be charged for impressions.
    let leased = (request.blocked.len() == 1).then(|| of_campaign(502));
    let capped_campaigns = if request.blocked.is_empty() { vec![503] } else { vec![] };
    let query = TargetingQuery {
        terms: &terms,
        unix_s: request.unix_s,
        blocked_advertisers: &request.blocked,
        blocked_categories: &categories,
        blocked_campaigns: &campaigns,
        capped_campaigns: &capped_campaigns,
        capped_ads: &capped_ads,
        counted: counted.as_ref(),
        leased: leased.as_ref(),
        excluded: Some(&excluded),
    };
    let (found, admitted) = (content.eligible(&query), content.admitted(&query));
    let mut count = 0;
    for (ad, conditions) in (0u32..).zip(ads) {
        let (n, item) = (u64::from(ad), item(u64::from(ad) / 3));
        let by_targeting = admits(conditions, request);
        let blocked = request.blocked.contains(&item.advertiser.0)
            || item.categories.iter().any(|c| categories.contains(c))
            || campaigns.contains(&(500 + n % 5));
        let capped = capped_campaigns.contains(&(500 + n % 5)) || n % 15 == 1;
        let uncounted = counted.is_none() || n % 5 != 0;
        let charged = leased.is_none() || n % 5 != 2;
        let expected = by_targeting && !blocked && !capped && uncounted && charged && n % 5 != 4;
        assert_eq!(admitted.contains(ad), by_targeting, "ad {ad}: {conditions:?} for {request:?}");
        assert_eq!(found.ads.contains(ad), expected, "ad {ad}: {conditions:?} for {request:?}");
        assert_eq!(content.unmet(ad, &query).is_none(), by_targeting);
        let refusal = content.blocked(ad, &query);
        assert_eq!(refusal.is_some(), blocked || capped);
        assert_eq!(refusal == Some(Refusal::Capped), capped && !blocked);
        count += u32::from(expected);
    }
    assert_eq!((found.count, found.ads.count()), (count, count));
    let items = content.items_of(&found.ads);
    for item in 0..content.items() {
        assert_eq!(items.contains(item), content.ads_of(item).any(|ad| found.ads.contains(ad)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn eligibility_is_that_of_the_documents(
        ads in proptest::collection::vec(conditions(), 1..80),
        requests in proptest::collection::vec(request(), 1..6),
    ) {
        let content = content(&ads);
        requests.iter().for_each(|request| check(&ads, &content, request));
    }
}

/// More than one chunk of the bitmaps, all forms of postings, and checkpoints of ranges.
#[test]
fn a_large_segment_agrees_in_every_chunk() {
    let mut random = Random(11);
    let many: Vec<Conditions> = (0..140_000u64)
        .map(|n| {
            let low = random.below(80) as f64;
            let mut rules = vec![Rule {
                dimension: 1,
                any_of: if n % 10 < 6 { vec![1 + random.below(2)] } else { vec![3 + random.below(900)] },
                none_of: if random.below(9) == 0 { vec![2] } else { vec![] },
                ranges: vec![],
            }];
            if random.below(2) == 0 {
                let ranges = vec![(Bound::At(low), Bound::Beyond(low + 20.0)), (Bound::Beyond(90.0), Bound::Open)];
                rules.push(Rule { dimension: 2, any_of: vec![], none_of: vec![], ranges });
            }
            let hours = (0..168).filter(|hour| !(hour + n as u32 % 7).is_multiple_of(3)).collect();
            Conditions { rules, schedule: (n % 4 == 0).then_some(((n % 2) as usize, hours)) }
        })
        .collect();
    let content = content(&many);
    for (values, number, unix_s) in [
        (vec![1], Some(30.0), 5_000),
        (vec![2, 7], Some(95.5), 500_000),
        (vec![905, 3], None, 900_000),
        (vec![], Some(0.0), 0),
    ] {
        let terms = vec![(1, values, None), (2, vec![], number)];
        check(&many, &content, &Request { terms, unix_s, blocked: vec![3, 5] });
    }
}

#[test]
fn an_explanation_names_the_condition() {
    let rule = |dimension, any_of: &[u64]| Rule { dimension, any_of: any_of.to_vec(), none_of: vec![], ranges: vec![] };
    let ads = [
        Conditions { rules: vec![rule(1, &[5])], schedule: None },
        Conditions { rules: vec![Rule { none_of: vec![2], ..rule(1, &[]) }], schedule: None },
        Conditions { rules: vec![], schedule: Some((1, vec![1])) },
    ];
    let content = content(&ads);
    let unmet = |terms: &[Term], ad| content.unmet(ad, &TargetingQuery { terms, ..TargetingQuery::default() });
    let two = [Term { dimension: 1, values: vec![2], number: None }];
    assert_eq!(unmet(&[], 0).unwrap(), "dimension 0x1: asked for, and the request states nothing");
    assert_eq!(unmet(&two, 0).unwrap(), "dimension 0x1: asks for other values than the request states");
    assert_eq!(unmet(&two, 1).unwrap(), "dimension 0x1: excludes a value that the request states");
    assert_eq!(unmet(&two, 2).unwrap(), "schedule: closed on thu at 05h in half");
    assert_eq!(unmet(&[], 1), None);
}
