//! The pacer against an obvious twin, which keeps every round and computes everything anew from all of them.

use proptest::prelude::*;

use super::*;
use crate::ledger::Account;
use crate::ledger::calendar::Span;
use gavel_proto::money::Nanos;
use gavel_proto::pacing::CurvePacing;

const C: CampaignId = CampaignId(3);
const DAY_MS: u64 = 86_400_000;

/// One round as it is made up.
#[derive(Clone, Copy, Debug)]
struct Round {
    day: u64,
    share: f64,
    budget: i64,
    posted: i64,
    pending: i64,
    in_flight: i64,
    leased: i64,
    price: i64,
}

fn books(round: &Round, spans: &[Span]) -> Books {
    let committed = round.posted + round.pending;
    let account = Account {
        deposited: Nanos(round.budget),
        available: Nanos(round.budget - committed),
        pending: Nanos(round.pending),
        posted: Nanos(round.posted),
        refunded: Nanos(0),
    };
    let paying = spans.iter().map(|span| Paying {
        period: crate::ledger::calendar::Period { span: *span, number: round.day as i64 },
        account,
        span_ms: (*span != Span::Lifetime).then_some((round.day * DAY_MS, DAY_MS)),
    });
    Books { campaign: C, paying: paying.collect(), leased: Nanos(round.leased) }
}

fn look<'a>(books: &'a Books, round: &Round, standing: Option<Decision>) -> Look<'a> {
    Look {
        books,
        now: books.paying.iter().map(|_| (round.in_flight, round.share)).collect(),
        sold: Some(Sold { spend_nanos: 0, events_nano: 0, price_nanos: round.price }),
        standing,
        means: Means::Bid,
        goal: Goal::Bid,
    }
}

/// Gone when what is neither charged, nor in flight, nor with routers that have served it pays for no further event.
fn gone(round: &Round) -> bool {
    let served_pending = i128::from(round.pending) - i128::from(round.leased);
    let used = i128::from(round.posted) + served_pending + i128::from(round.in_flight);
    i128::from(round.budget) - used < i128::from(round.price)
}

/// The multiplier after rounds that all could spend, each with the multiplier that the twin of the time had.
fn twin(rounds: &[Round]) -> f64 {
    let mut multiplier = 1.0;
    let mut begin = 0;
    while begin < rounds.len() {
        let first = rounds[begin];
        let same = |round: &&Round| round.day == first.day && round.budget == first.budget;
        let stretch: Vec<Round> = rounds[begin..].iter().take_while(same).copied().collect();
        // A day that follows another begins at its beginning, at the mean of the day before.
        let is_new_day = begin > 0 && rounds[begin - 1].day != first.day;
        let (share, spent) = if begin == 0 || !is_new_day {
            (first.share, (first.posted + first.pending + first.in_flight).min(first.budget) as f64)
        } else {
            (0.0, 0.0)
        };
        if is_new_day {
            let before = rounds[..begin]
                .iter()
                .rposition(|r| r.day != rounds[begin - 1].day || r.budget != rounds[begin - 1].budget);
            let start = before.map_or(0, |at| at + 1);
            let of_rounds: Vec<f64> = (start..begin).map(|at| twin(&rounds[..=at])).collect();
            multiplier = of_rounds.iter().sum::<f64>() / of_rounds.len() as f64;
        } else if begin > 0 && multiplier < 1.0 {
            let rest = |r: &Round| ((r.budget - r.posted - r.pending - r.in_flight) as f64).max(1.0);
            let ratio = rest(&first) / rest(&rounds[begin - 1]);
            multiplier = f64::min(1.0, multiplier * ratio.powf(2.0 / 3.0));
        }
        let mut pacing = CurvePacing::new(multiplier);
        for round in &stretch {
            let now = (round.posted + round.pending + round.in_flight) as f64;
            let part = (round.share - share) / (1.0 - share).max(1e-6);
            pacing.observe(round.budget as f64 - spent, now - spent, part);
        }
        multiplier = pacing.multiplier();
        begin += stretch.len();
    }
    multiplier
}

fn rounds() -> impl proptest::strategy::Strategy<Value = Vec<Round>> {
    let one = (0u32..5, 0.0f64..0.2, prop_oneof![4 => Just(0i64), 1 => 1i64..500_000], 0i64..60_000, 0i64..20_000);
    proptest::collection::vec((one, 0i64..50_000, 0i64..2_000), 1..14).prop_map(|steps| {
        let (mut day, mut share, mut budget, mut posted) = (20_000, 0.0, 600_000, 0);
        let round = |((next, more, raise, spend, pending), in_flight, price): ((u32, f64, i64, i64, i64), i64, i64)| {
            if next == 0 {
                (day, share, posted) = (day + 1, 0.0, 0);
            }
            share = f64::min(share + more, 1.0);
            budget += raise;
            posted = (posted + spend).min(budget);
            let pending = pending.min(budget - posted);
            Round { day, share, budget, posted, pending, in_flight, leased: pending / 2, price: price.max(1) }
        };
        steps.into_iter().map(round).collect()
    })
}

proptest! {
    /// Whatever comes, the flag is the twin's, and the multiplier is that of the rounds in which it could spend.
    #[test]
    fn the_pacer_equals_its_twin(rounds in rounds()) {
        let (mut pacer, mut standing) = (Pacer::default(), Decision::default());
        let mut spendable: Vec<Round> = Vec::new();
        for round in &rounds {
            if !gone(round) {
                spendable.push(*round);
            }
            let books = books(round, &[Span::Day, Span::Lifetime]);
            if let Some(decision) = pacer.decide(&look(&books, round, Some(standing))) {
                prop_assert_ne!(decision, standing);
                standing = decision;
            }
            pacer.end_round();
            prop_assert_eq!(standing.budget == Budget::Gone, gone(round));
            let wanted = if spendable.is_empty() { 1.0 } else { twin(&spendable) };
            let found = f64::from(standing.multiplier_ppm) / f64::from(PPM);
            // What is not published differs by less than is noticeable; a millionth is cut off.
            prop_assert!((found / wanted).ln().abs() <= NOTICEABLE + 2e-3, "{found} for {wanted}");
        }
    }
}

fn at(posted: i64, in_flight: i64, price: i64) -> Round {
    Round { day: 20_000, share: 0.5, budget: 1_000, posted, pending: 0, in_flight, leased: 0, price }
}

fn flag(round: Round) -> Budget {
    let books = books(&round, &[Span::Day]);
    Pacer::default().decide(&look(&books, &round, None)).unwrap_or_default().budget
}

#[test]
fn what_does_not_pay_for_one_more_event_is_gone() {
    assert_eq!(flag(at(899, 0, 100)), Budget::Left);
    assert_eq!(flag(at(901, 0, 100)), Budget::Gone);
    assert_eq!(flag(at(801, 100, 100)), Budget::Gone, "what is in flight is not there any more");
    let leased = Round { pending: 400, leased: 300, ..at(500, 0, 100) };
    assert_eq!(flag(leased), Budget::Left, "a router may still serve it");
    assert_eq!(flag(Round { leased: 0, ..leased }), Budget::Left, "the rest is not leased");
    assert_eq!(flag(Round { pending: 500, leased: 0, ..leased }), Budget::Gone, "all of it was served");
    assert_eq!(flag(Round { pending: 500, leased: 500, ..leased }), Budget::Left);
}

#[test]
fn throttling_bids_in_full_and_a_life_is_not_paced() {
    let (first, round) = (at(0, 0, 1), at(500, 0, 1));
    let day = [books(&first, &[Span::Day]), books(&round, &[Span::Day])];
    let mut pacer = Pacer::default();
    assert_eq!(pacer.decide(&look(&day[0], &first, None)), None);
    let throttled = Look { means: Means::Participation, ..look(&day[1], &round, None) };
    let decision = pacer.decide(&throttled).expect("half of the budget at once");
    assert_eq!(decision.multiplier_ppm, PPM);
    assert!(decision.throttle_ppm < PPM / 2, "{decision:?}");
    let life = [books(&first, &[Span::Lifetime]), books(&round, &[Span::Lifetime])];
    let mut pacer = Pacer::default();
    assert_eq!(pacer.decide(&look(&life[0], &first, None)), None);
    assert_eq!(pacer.decide(&look(&life[1], &round, None)), None);
}

#[test]
fn another_leader_goes_on_from_what_stands() {
    let round = at(500, 100, 1);
    let books = books(&round, &[Span::Day]);
    let standing = Decision { multiplier_ppm: 300_000, ..Decision::default() };
    let mut pacer = Pacer::default();
    assert_eq!(pacer.decide(&look(&books, &round, Some(standing))), None, "it neither jumps nor forgets");
    let cost = Look { goal: Goal::Cost(2_000), ..look(&books, &round, Some(standing)) };
    assert_eq!(pacer.decide(&cost).map(|d| (d.multiplier_ppm, d.auto_bid_micros)), Some((300_000, 4_000)));
    let stands = Decision { auto_bid_micros: 2_500, ..standing };
    let cost = Look { standing: Some(stands), ..cost };
    assert_eq!(Pacer::default().decide(&cost), None);
    let back = Look { goal: Goal::Bid, ..cost };
    assert_eq!(pacer.decide(&back).map(|d| d.auto_bid_micros), Some(0), "nobody wants it to bid any more");
}

#[test]
fn a_campaign_that_is_not_looked_at_is_forgotten() {
    let round = at(0, 0, 1);
    let books = books(&round, &[Span::Day]);
    let mut pacer = Pacer::default();
    pacer.decide(&look(&books, &round, None));
    pacer.end_round();
    assert_eq!(pacer.followed(), 1);
    pacer.end_round();
    assert_eq!(pacer.followed(), 0);
}

/// The leader that knew the budget is gone: what stands waits, and counts again unless the budget has grown.
#[test]
fn a_campaign_that_comes_back_under_another_leader() {
    let standing = Decision { multiplier_ppm: 300_000, budget: Budget::Gone, ..Decision::default() };
    let decide = |pacer: &mut Pacer, round: Round| {
        let books = books(&round, &[Span::Day]);
        pacer.decide(&look(&books, &round, Some(standing)))
    };
    let mut pacer = Pacer::default();
    assert_eq!(decide(&mut pacer, at(1_000, 0, 10)), None);
    let back = decide(&mut pacer, at(970, 0, 10)).expect("something has aged");
    assert_eq!((back.multiplier_ppm, back.budget), (300_000, Budget::Left));
    let mut pacer = Pacer::default();
    assert_eq!(decide(&mut pacer, at(1_000, 0, 10)), None);
    let grown = decide(&mut pacer, at(500, 0, 10)).expect("it has grown");
    assert_eq!((grown.multiplier_ppm, grown.budget), (PPM, Budget::Left));
}

/// After a change of leaders no router may ever say again what an event of it costs: it serves nothing.
#[test]
fn what_was_gone_and_has_no_price_stays_out_until_more_than_a_rest_is_left() {
    let standing = Decision { budget: Budget::Gone, ..Decision::default() };
    let unsold = |posted: i64| {
        let round = at(posted, 0, 1);
        let books = books(&round, &[Span::Lifetime]);
        budget(&Look { sold: None, ..look(&books, &round, Some(standing)) })
    };
    assert_eq!([unsold(999), unsold(900), unsold(899)], [Budget::Gone, Budget::Gone, Budget::Left]);
    let round = at(999, 0, 1);
    let books = books(&round, &[Span::Lifetime]);
    let fresh = Look { sold: None, ..look(&books, &round, None) };
    assert_eq!(budget(&fresh), Budget::Left, "one that never served says what it costs by serving");
}
