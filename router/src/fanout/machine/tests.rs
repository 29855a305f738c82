//! Does every request end, within its extra calls, and without claiming more than was searched?

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const ENDS_AT: Instant = Instant(90_000);
const HEDGE_US: u64 = 10_000;

fn choices(replicas: &[&[u64]]) -> Vec<Choice> {
    let choice = |(shard, nodes): (usize, &&[u64])| Choice {
        shard: ShardId(shard as u32),
        items: 100,
        replicas: nodes.iter().copied().map(MemberId).collect(),
    };
    replicas.iter().enumerate().map(choice).collect()
}

/// A bucket that has saved up everything.
fn rich() -> ExtraCalls {
    let mut extra = ExtraCalls::new(Instant(0));
    for _ in 0..1_000 {
        extra.sent();
    }
    extra
}

fn start(replicas: &[&[u64]], extra: &mut ExtraCalls) -> (Fanout, Vec<NodeCall>) {
    Fanout::start(choices(replicas), |_| HEDGE_US, Hedging::On, Instant(0), ENDS_AT, extra)
}

fn reply(shard: u32, status: ReplyStatus, seen: u64) -> ShardReply {
    ShardReply { shard: ShardId(shard), status, seen }
}

#[test]
fn one_call_per_node_carries_its_shards() {
    let (mut fanout, sends) = start(&[&[1, 2], &[2, 1], &[1, 2]], &mut rich());
    assert_eq!(sends.len(), 2);
    assert_eq!(sends[0].shards, [ShardId(0), ShardId(2)]);
    assert!(sends.iter().all(|s| s.budget_us < 90_000 && s.reason == SendReason::First));
    let whole = [reply(0, ReplyStatus::Finished, 100), reply(2, ReplyStatus::Finished, 100)];
    assert!(fanout.step(Instant(5), Input::Answered(CallId(0), &whole), &mut rich()).is_empty());
    assert_eq!(fanout.ends(), None);
    fanout.step(Instant(6), Input::Answered(CallId(1), &[reply(1, ReplyStatus::Finished, 100)]), &mut rich());
    let ends = fanout.ends().expect("all ended");
    assert!(ends.iter().all(|e| e.seen.outcome == ShardOutcome::Finished));
    assert_eq!(ends[1].call, Some(CallId(1)));
}

#[test]
fn a_late_shard_is_hedged_once_and_the_first_whole_answer_counts() {
    let mut extra = rich();
    let (mut fanout, _) = start(&[&[1, 2, 3]], &mut extra);
    assert_eq!(fanout.wake_at(), Instant(HEDGE_US));
    let hedge = fanout.step(Instant(HEDGE_US), Input::Tick, &mut extra);
    assert_eq!((hedge[0].node, hedge[0].reason), (MemberId(2), SendReason::Hedge));
    assert_eq!(fanout.wake_at(), ENDS_AT);
    assert!(fanout.step(Instant(50_000), Input::Tick, &mut extra).is_empty());
    let partial = [reply(0, ReplyStatus::Partial, 60)];
    fanout.step(Instant(51_000), Input::Answered(CallId(0), &partial), &mut extra);
    assert_eq!(fanout.ends(), None);
    let whole = [reply(0, ReplyStatus::Finished, 100)];
    fanout.step(Instant(52_000), Input::Answered(CallId(1), &whole), &mut extra);
    let end = fanout.ends().expect("ended")[0];
    assert_eq!((end.call, end.seen.seen), (Some(CallId(1)), 100));
}

#[test]
fn without_tokens_or_with_hedging_off_nothing_is_hedged() {
    let mut poor = ExtraCalls::new(Instant(0));
    let (mut fanout, _) = start(&[&[1, 2]], &mut poor);
    assert!(fanout.step(Instant(HEDGE_US), Input::Tick, &mut poor).is_empty());
    let (fanout, _) = Fanout::start(choices(&[&[1, 2]]), |_| HEDGE_US, Hedging::Off, Instant(0), ENDS_AT, &mut rich());
    assert_eq!(fanout.wake_at(), ENDS_AT);
}

#[test]
fn a_dead_node_is_retried_elsewhere_and_a_full_one_is_not() {
    let mut extra = rich();
    let (mut fanout, _) = start(&[&[1, 2, 3]], &mut extra);
    let retry = fanout.step(Instant(1), Input::Failed(CallId(0), CallFailure::Unreachable), &mut extra);
    assert_eq!((retry[0].node, retry[0].reason), (MemberId(2), SendReason::Retry));
    assert!(fanout.step(Instant(2), Input::Failed(CallId(1), CallFailure::Unreachable), &mut extra).is_empty());
    assert_eq!(fanout.ends().expect("ended")[0].seen.outcome, ShardOutcome::Failed);

    let (mut fanout, _) = start(&[&[1, 2]], &mut extra);
    assert!(fanout.step(Instant(1), Input::Failed(CallId(0), CallFailure::Shed), &mut extra).is_empty());
    assert_eq!(fanout.ends().expect("ended")[0].seen.outcome, ShardOutcome::Shed);
}

#[test]
fn a_replica_without_the_versions_is_passed_over_once() {
    let mut extra = rich();
    let (mut fanout, _) = start(&[&[1, 2, 3]], &mut extra);
    let unavailable = [reply(0, ReplyStatus::VersionUnavailable, 0)];
    let other = fanout.step(Instant(1), Input::Answered(CallId(0), &unavailable), &mut extra);
    assert_eq!((other[0].node, other[0].reason), (MemberId(2), SendReason::OtherReplica));
    assert!(fanout.step(Instant(2), Input::Answered(CallId(1), &unavailable), &mut extra).is_empty());
    let end = fanout.ends().expect("ended")[0];
    assert_eq!((end.seen.outcome, end.seen.seen, end.call), (ShardOutcome::VersionUnavailable, 0, None));
}

#[test]
fn a_shard_that_nobody_serves_fails_at_once_and_silence_ends_on_time() {
    let (fanout, sends) = start(&[&[]], &mut rich());
    assert!(sends.is_empty());
    assert_eq!(fanout.ends().expect("ended")[0].seen.outcome, ShardOutcome::Failed);
    let (mut fanout, _) = start(&[&[1]], &mut rich());
    fanout.step(ENDS_AT, Input::Tick, &mut rich());
    assert_eq!(fanout.ends().expect("ended")[0].seen.outcome, ShardOutcome::TimedOut);
}

const STATUSES: [ReplyStatus; 6] = [
    ReplyStatus::Finished,
    ReplyStatus::Partial,
    ReplyStatus::VersionUnavailable,
    ReplyStatus::Shed,
    ReplyStatus::Corrupt,
    ReplyStatus::Fault,
];
const FAILURES: [CallFailure; 4] =
    [CallFailure::Unreachable, CallFailure::TimedOut, CallFailure::Shed, CallFailure::Fault];

/// What the world knows of a request: the calls that went out and what was truly searched by each.
#[derive(Clone, Default)]
struct World {
    open: Vec<NodeCall>,
    asked: HashMap<ShardId, Vec<(MemberId, SendReason)>>,
    truth: HashMap<(ShardId, CallId), (ReplyStatus, u64)>,
}

impl World {
    fn sent(&mut self, sends: Vec<NodeCall>, left: u64) {
        for send in sends {
            assert!(send.budget_us > 0 && send.budget_us < left, "RQ2");
            for shard in &send.shards {
                let asked = self.asked.entry(*shard).or_default();
                assert!(asked.iter().all(|(node, _)| *node != send.node), "no replica is asked twice");
                asked.push((send.node, send.reason));
                let of = |reason| asked.iter().filter(|(_, r)| *r == reason).count();
                assert!(of(SendReason::First) <= 1 && of(SendReason::Hedge) <= 1, "FO1");
                assert!(of(SendReason::Retry) <= 1 && of(SendReason::OtherReplica) <= 1);
            }
            self.open.push(send);
        }
    }

    fn check(&self, ends: &[ShardEnd]) {
        for end in ends {
            match end.call {
                Some(call) => {
                    let (status, seen) = self.truth[&(end.shard, call)];
                    assert!(end.seen.seen <= seen, "RQ4: {end:?}, true {seen}");
                    let whole = end.seen.outcome == ShardOutcome::Finished;
                    assert_eq!(whole, status == ReplyStatus::Finished);
                }
                None => assert_eq!(end.seen.seen, 0),
            }
            assert!(end.call.is_some() || end.seen.outcome != ShardOutcome::Finished);
        }
    }
}

/// Every sequence of outcomes of two shards on the same two replicas.
#[test]
fn every_short_history_ends_well() {
    let mut extra = rich();
    let (fanout, sends) = start(&[&[1, 2], &[2, 1]], &mut extra);
    let mut world = World::default();
    world.sent(sends, ENDS_AT.0);
    let mut histories = 0;
    explore(&fanout, &world, Instant(1), &mut histories);
    assert!(histories > 1_000, "{histories}");
}

fn explore(fanout: &Fanout, world: &World, now: Instant, histories: &mut usize) {
    if let Some(ends) = fanout.ends() {
        world.check(&ends);
        *histories += 1;
        return;
    }
    let left = ENDS_AT.0 - now.0;
    let mut branch = |input: Input<'_>, at: Instant, mut world: World| {
        let mut fanout = fanout.clone();
        let sends = fanout.step(at, input, &mut rich());
        world.sent(sends, left);
        assert!(fanout.ends().is_some() || at < ENDS_AT, "ends in time");
        explore(&fanout, &world, at.max(Instant(now.0 + 1)), histories);
    };
    for (position, send) in world.open.iter().enumerate() {
        for status in STATUSES {
            let mut world = world.clone();
            world.open.remove(position);
            let replies: Vec<ShardReply> = send.shards.iter().map(|s| reply(s.0, status, 40)).collect();
            for r in &replies {
                world.truth.insert((r.shard, send.call), (status, r.seen));
            }
            branch(Input::Answered(send.call, &replies), now, world);
        }
        for failure in [CallFailure::Unreachable, CallFailure::TimedOut] {
            let mut world = world.clone();
            world.open.remove(position);
            branch(Input::Failed(send.call, failure), now, world);
        }
    }
    branch(Input::Tick, fanout.wake_at(), world.clone());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn long_histories_end_in_time_and_claim_no_more_than_was_searched(
        replicas in proptest::collection::vec(proptest::collection::btree_set(1u64..6, 0..4), 1..7),
        script in proptest::collection::vec((any::<u8>(), any::<u8>(), 0u64..7_000, 0u64..150), 0..60),
        rotate: u8,
    ) {
        let lists: Vec<Vec<u64>> = replicas.iter().map(|set| {
            let mut list: Vec<u64> = set.iter().copied().collect();
            if !list.is_empty() {
                let by = usize::from(rotate) % list.len();
                list.rotate_left(by);
            }
            list
        }).collect();
        let borrowed: Vec<&[u64]> = lists.iter().map(Vec::as_slice).collect();
        let mut extra = ExtraCalls::new(Instant(0));
        let (mut fanout, sends) = start(&borrowed, &mut extra);
        let mut world = World::default();
        world.sent(sends, ENDS_AT.0);
        let mut now = Instant(0);
        for (pick, what, later, seen) in script {
            now = Instant(now.0 + later);
            let left = ENDS_AT.0.saturating_sub(now.0);
            let sends = if world.open.is_empty() || pick % 5 == 0 {
                fanout.step(now, Input::Tick, &mut extra)
            } else {
                let send = world.open.remove(usize::from(pick) % world.open.len());
                if what < 60 {
                    let failure = FAILURES[usize::from(what) % FAILURES.len()];
                    fanout.step(now, Input::Failed(send.call, failure), &mut extra)
                } else {
                    let status = STATUSES[usize::from(what) % STATUSES.len()];
                    // Sometimes a shard is left out, sometimes one is answered that nobody asked for.
                    let skip = usize::from(what % 7 == 0);
                    let mut replies: Vec<ShardReply> =
                        send.shards.iter().skip(skip).map(|s| reply(s.0, status, seen)).collect();
                    for r in &replies {
                        world.truth.insert((r.shard, send.call), (r.status, r.seen));
                    }
                    replies.push(reply(999, ReplyStatus::Finished, 1_000));
                    fanout.step(now, Input::Answered(send.call, &replies), &mut extra)
                }
            };
            world.sent(sends, left);
            prop_assert!(fanout.wake_at() <= ENDS_AT);
        }
        fanout.step(ENDS_AT.max(now), Input::Tick, &mut extra);
        let ends = fanout.ends();
        prop_assert!(ends.is_some());
        world.check(&ends.expect("checked"));
    }
}
