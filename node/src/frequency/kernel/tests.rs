//! Do the buckets count what timestamps would, by the documented rule, and do two nodes agree?
//!
//! The twin keeps every impression with its time and looks through all of them.

use super::*;
use gavel_proto::frequency::{CounterLimit, FrequencyScope, FrequencyWindow};
use proptest::prelude::*;

const ROOM: usize = 1 << 20;

/// An impression that was served: what it counts in, and when.
#[derive(Clone, Debug)]
struct Shown {
    user: u64,
    counters: Vec<CounterLimit>,
    at_ms: u64,
}

/// Every impression with its time.
#[derive(Debug, Default)]
struct Twin(Vec<Shown>);

impl Twin {
    /// Impressions of one counter later than `since_ms`.
    fn count(&self, user: u64, of: &CounterLimit, since_ms: i128) -> u64 {
        let same = |c: &CounterLimit| (c.scope, c.id, c.window) == (of.scope, of.id, of.window);
        let counted = self.0.iter().filter(|s| s.user == user && s.counters.iter().any(same));
        counted.filter(|s| i128::from(s.at_ms) > since_ms).count() as u64
    }

    /// By the documented rule: those in the buckets of the window, and in the one that its beginning cuts.
    fn by_buckets(&self, user: u64, of: &CounterLimit, now_ms: u64) -> u64 {
        let bucket_ms = of.window.ms() / u64::from(BUCKETS);
        let first = (now_ms / bucket_ms).saturating_sub(u64::from(BUCKETS)) * bucket_ms;
        self.count(user, of, i128::from(first) - 1)
    }
}

fn window(hours: u32) -> FrequencyWindow {
    FrequencyWindow::of_hours(hours).expect("a window")
}

fn limit(scope: FrequencyScope, id: u64, hours: u32, max: u8) -> CounterLimit {
    CounterLimit { scope, id, window: window(hours), max }
}

/// Ads of a small market: what each counts in is fixed by its number.
fn ad(n: u64) -> AdToCount {
    let (campaign, advertiser) = (100 + n / 2, 200 + n / 4);
    let counters = match n % 4 {
        0 => {
            vec![limit(FrequencyScope::Campaign, campaign, 1, 2), limit(FrequencyScope::Advertiser, advertiser, 24, 4)]
        }
        1 => vec![limit(FrequencyScope::Campaign, campaign, 1, 2), limit(FrequencyScope::Ad, n, 6, 1)],
        2 => vec![limit(FrequencyScope::Advertiser, advertiser, 24, 0)],
        _ => vec![limit(FrequencyScope::Ad, n, 168, 3), limit(FrequencyScope::Campaign, campaign, 720, 5)],
    };
    AdToCount { ad: n, campaign, counters }
}

#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Wait(u64),
    /// A reservation, which may be asked again, and of which a part may be given back.
    Reserve {
        user: u64,
        ads: Vec<u64>,
        again: bool,
        back: Option<usize>,
    },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![1u64..60_000, 60_000u64..7_200_000, 7_200_000u64..900_000_000];
    let reserve =
        (0u64..3, prop::collection::vec(0u64..8, 1..4), any::<bool>(), prop::option::weighted(0.3, 0usize..3));
    prop_oneof![
        4 => wait.prop_map(Step::Wait),
        9 => reserve.prop_map(|(user, ads, again, back)| Step::Reserve { user, ads, again, back }),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Never more than the bound within any rolling window; refused only when the window and one bucket hold as many.
    #[test]
    fn no_window_holds_more_than_its_bound(start in 0u64..3_000_000_000, steps in prop::collection::vec(step(), 1..120)) {
        let (mut table, mut twin, mut now_ms) = (Table::new(ROOM), Twin::default(), 1_700_000_000_000 + start);
        let (mut replica, mut reservation) = (Table::new(ROOM), 0);
        for step in steps {
            match step {
                Step::Wait(ms) => now_ms += ms,
                Step::Sweep => _ = table.sweep(now_ms),
                Step::Reserve { user, ads, again, back } => {
                    reservation += 1;
                    let ads: Vec<AdToCount> = ads.into_iter().map(ad).collect();
                    let looked = table.look(user, ads.clone(), now_ms);
                    let (verdicts, ops) = table.reserve(user, reservation, ads.clone(), now_ms);
                    prop_assert_eq!(looked, verdicts.clone(), "who looks is told what a reservation meets");
                    prop_assert!(ops.iter().all(|op| replica.apply(op, now_ms)));
                    let mut decided = std::collections::HashMap::new();
                    for (ad, verdict) in ads.iter().zip(&verdicts) {
                        // An ad that stands twice in a reservation is one impression.
                        if let Some(before) = decided.insert(ad.ad, *verdict) {
                            prop_assert_eq!(before, *verdict);
                            continue;
                        }
                        let full = |c: &&CounterLimit| {
                            let bucket_ms = i128::from(c.window.ms() / u64::from(BUCKETS));
                            let since = i128::from(now_ms) - i128::from(c.window.ms()) - bucket_ms;
                            c.max > 0 && twin.count(user, c, since) >= u64::from(c.max)
                        };
                        match verdict {
                            Verdict::Granted => {
                                twin.0.push(Shown { user, counters: ad.counters.clone(), at_ms: now_ms });
                                for c in ad.counters.iter().filter(|c| c.max > 0) {
                                    let since = i128::from(now_ms) - i128::from(c.window.ms());
                                    prop_assert!(twin.count(user, c, since) <= u64::from(c.max), "{:?}", c);
                                }
                            }
                            Verdict::Capped => prop_assert!(ad.counters.iter().any(|c| full(&c)), "{:?}", ad),
                            Verdict::Full => prop_assert!(false, "there is room"),
                        }
                    }
                    if again {
                        let (same, none) = table.reserve(user, reservation, ads.clone(), now_ms);
                        prop_assert_eq!(&same, &verdicts);
                        prop_assert!(none.is_empty());
                    }
                    if let Some(ad) = back.and_then(|at| ads.get(at)) {
                        let released = table.release(user, reservation, &[ad.ad]);
                        prop_assert_eq!(!released.is_empty(), decided[&ad.ad] == Verdict::Granted);
                        prop_assert!(table.release(user, reservation, &[ad.ad]).is_empty(), "once");
                        prop_assert!(released.iter().all(|op| replica.apply(op, now_ms)));
                        if !released.is_empty() {
                            let at = twin.0.iter().rposition(|s| s.user == user && s.counters == ad.counters);
                            twin.0.remove(at.expect("it was shown"));
                        }
                    }
                }
            }
            for user in 0..3 {
                let seen = table.seen(user, now_ms);
                for s in &seen {
                    let of = CounterLimit { scope: s.scope, id: s.id, window: s.window, max: 0 };
                    prop_assert_eq!(u64::from(s.count), twin.by_buckets(user, &of, now_ms), "{:?}", s);
                }
                let sorted = |table: &Table| {
                    let mut seen = table.seen(user, now_ms);
                    seen.sort_by_key(|s| (s.scope, s.id, s.window));
                    seen
                };
                prop_assert_eq!(sorted(&table), sorted(&replica), "the replica holds the same");
            }
        }
    }

    /// Two nodes that have counted apart hold the same once each has the other's ops, in any order and twice.
    #[test]
    fn copies_count_once_in_any_order(
        asked in prop::collection::vec((0u64..2, 0u64..8, any::<bool>()), 1..30), turns in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let now_ms = 1_700_000_000_000;
        let mut tables = [Table::new(ROOM), Table::new(ROOM)];
        let mut ops: [Vec<Op>; 2] = [Vec::new(), Vec::new()];
        for (reservation, (user, n, second)) in asked.into_iter().enumerate() {
            let at = usize::from(second);
            ops[at].extend(tables[at].reserve(user, reservation as u64, vec![ad(n)], now_ms).1);
        }
        for (to, from) in [(0, 1), (1, 0)] {
            let repeated: Vec<Op> = turns.iter().filter(|_| !ops[from].is_empty()).map(|t| t.get(&ops[from]).clone()).collect();
            repeated.iter().chain(&ops[from]).for_each(|op| _ = tables[to].apply(op, now_ms));
        }
        let all = ops.concat();
        for user in 0..2 {
            for table in &tables {
                for s in table.seen(user, now_ms) {
                    let of = |op: &&Op| op.user == user && op.ad.counters.iter().any(|c| {
                        (c.scope, c.id, c.window) == (s.scope, s.id, s.window)
                    });
                    prop_assert_eq!(usize::from(s.count), all.iter().filter(of).count());
                }
            }
        }
    }

    /// A state that is merged, once or twice, into an empty table is that state; merging loses nothing of either side.
    #[test]
    fn a_merge_is_of_each_bucket_the_larger(times in prop::collection::vec((0u64..2, 0u64..8, 0u64..800_000_000), 1..40)) {
        let start = 1_700_000_000_000;
        let (mut one, mut other, mut both) = (Table::new(ROOM), Table::new(ROOM), Table::new(ROOM));
        let mut latest = start;
        for (reservation, (user, n, after)) in times.into_iter().enumerate() {
            latest = latest.max(start + after);
            let counted = Counted::Impression;
            let op = Op { user, reservation: reservation as u64, at_ms: start + after, counted, ad: ad(n) };
            // Each knows of its own ads only.
            let own = if n % 2 == 0 { &mut one } else { &mut other };
            own.apply(&op, latest.max(op.at_ms));
            both.apply(&op, latest.max(op.at_ms));
        }
        let mut merged = Table::new(ROOM);
        for table in [&one, &other, &one] {
            for user in 0..2 {
                merged.merge(user, table.counters_of(user), latest);
            }
        }
        for user in 0..2 {
            for s in merged.seen(user, latest) {
                let of = |table: &Table| {
                    let same = |t: &gavel_proto::frequency::SeenCount| (t.scope, t.id, t.window) == (s.scope, s.id, s.window);
                    table.seen(user, latest).into_iter().find(same).map_or(0, |t| t.count)
                };
                prop_assert!(s.count >= of(&one).max(of(&other)) && s.count <= of(&both), "{:?}", s);
            }
        }
    }
}

#[test]
fn a_series_takes_half_a_cache_line_and_a_counter_less_than_one() {
    assert_eq!((size_of::<Series>(), size_of::<Counter>()), (32, 48));
}

#[test]
fn a_clock_that_is_ahead_or_goes_back_keeps_counts() {
    let now_ms = 1_700_000_000_000;
    let mut series = Series::new(FrequencyScope::Campaign, window(1));
    series.add(now_ms);
    assert_eq!(series.total(now_ms - 5_000_000), 1, "gone back");
    let mut table = Table::new(ROOM);
    let ahead = Op { user: 1, reservation: 1, at_ms: now_ms + 10_000_000_000, counted: Counted::Impression, ad: ad(0) };
    assert!(table.apply(&ahead, now_ms));
    assert_eq!(table.seen(1, now_ms).len(), 2);
    assert!(table.seen(1, now_ms + 2 * 86_400_000).is_empty(), "it is not counted for ever");
    let mut far = Series::new(FrequencyScope::Ad, window(1));
    far.add(now_ms + 10_000_000_000);
    table.merge(1, &[Counter { id: 1, campaign: 100, series: far }], now_ms);
    assert_eq!(table.seen(1, now_ms).len(), 3);
    assert!(table.seen(1, now_ms + 4_000_000).iter().all(|s| s.scope != FrequencyScope::Ad));
}

#[test]
fn memory_is_bounded_and_only_what_is_empty_makes_room() {
    let now_ms = 1_700_000_000_000;
    let mut table = Table::new(16 * 1024);
    let mut verdicts = Vec::new();
    for user in 0..1_000u64 {
        verdicts.extend(table.reserve(user, user, vec![ad(0)], now_ms).0);
        assert!(table.len() * 48 + table.counters() * size_of::<Counter>() <= 16 * 1024);
    }
    let granted = verdicts.iter().filter(|v| **v == Verdict::Granted).count();
    assert!(granted > 30 && verdicts[granted..].iter().all(|v| *v == Verdict::Full), "{granted}");
    assert_eq!(table.len(), granted);
    assert!(!table.seen(0, now_ms).is_empty(), "who was counted first still is");
    // Two days later nobody's windows hold anything.
    let later = now_ms + 2 * 86_400_000;
    assert_eq!(table.reserve(5_000, 5_000, vec![ad(0)], later).0, [Verdict::Granted]);
    assert_eq!((table.len(), table.counters()), (1, 2));
}

#[test]
fn a_user_has_so_many_counters_and_no_more() {
    let now_ms = 1_700_000_000_000;
    let mut table = Table::new(ROOM);
    let of = |n: u64| AdToCount { ad: n, campaign: n, counters: vec![limit(FrequencyScope::Ad, n, 24, 1)] };
    let most = gavel_proto::limits::FREQUENCY_COUNTERS_MAX as u64;
    for n in 0..most {
        assert_eq!(table.reserve(1, n, vec![of(n)], now_ms).0, [Verdict::Granted]);
    }
    assert_eq!(table.reserve(1, most, vec![of(most)], now_ms).0, [Verdict::Full]);
    assert_eq!(table.reserve(2, most + 1, vec![of(most)], now_ms).0, [Verdict::Granted], "another user");
}
