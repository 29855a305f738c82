//! What happens to each shard of one request?
//!
//! See the parent module for the rules. A shard is open while a call for it is out; partial answers are held back
//! until no call is out any more, because another replica may still finish.

use super::extra::ExtraCalls;
use crate::topology::Choice;
use gavel_proto::coverage::{ShardOutcome, ShardSeen};
use gavel_proto::deadline::Instant;
use gavel_proto::ids::{MemberId, ShardId};

/// Share of the time left that a call does not get: the way there and back.
const MARGIN_PART: u64 = 20;
/// Least such share.
const MARGIN_US_MIN: u64 = 500;

/// Names one call of one request: its position in the order of sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u32);

/// Why a call goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendReason {
    /// The shard's first call.
    First,
    /// The first call is late.
    Hedge,
    /// The first node could not be reached.
    Retry,
    /// The first replica cannot answer at the pinned versions.
    OtherReplica,
}

/// One call to one node for some shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCall {
    /// Its name.
    pub call: CallId,
    /// Whom to ask.
    pub node: MemberId,
    /// For which shards.
    pub shards: Vec<ShardId>,
    /// Time the node gets; strictly less than what is left here (RQ2).
    pub budget_us: u64,
    /// Why.
    pub reason: SendReason,
}

/// What a replica says of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStatus {
    /// Searched whole.
    Finished,
    /// Searched in part within its time.
    Partial,
    /// Not at the pinned versions, or not held.
    VersionUnavailable,
    /// No room.
    Shed,
    /// Its segment is quarantined.
    Corrupt,
    /// A fault.
    Fault,
}

/// One shard's part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardReply {
    /// The shard.
    pub shard: ShardId,
    /// How it went.
    pub status: ReplyStatus,
    /// Items searched.
    pub seen: u64,
}

/// Why a whole call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The call did not reach the node, or the connection died under it. Searching changes nothing, so both may be repeated.
    Unreachable,
    /// Not within its time.
    TimedOut,
    /// The node had no room.
    Shed,
    /// Anything else.
    Fault,
}

/// What the shell reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A call was answered.
    Answered(CallId, &'a [ShardReply]),
    /// A call failed.
    Failed(CallId, CallFailure),
    /// Time has passed.
    Tick,
}

/// Whether late calls are hedged at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedging {
    /// Yes.
    On,
    /// No: the router is at its limit, and more calls would make it worse.
    Off,
}

/// How a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardEnd {
    /// The shard.
    pub shard: ShardId,
    /// For the coverage.
    pub seen: ShardSeen,
    /// The one call whose reply counts.
    pub call: Option<CallId>,
}

#[derive(Clone, Debug)]
struct Slot {
    shard: ShardId,
    items: u64,
    /// Replicas not asked yet, best last.
    untried: Vec<MemberId>,
    open_calls: u32,
    hedge_at: Option<Instant>,
    retried: bool,
    moved: bool,
    /// The best partial answer so far.
    partial: Option<(CallId, u64)>,
    /// How the last call without an answer ended.
    lost: ShardOutcome,
    end: Option<ShardEnd>,
}

/// The shards of a call that have not been answered yet.
#[derive(Clone, Debug)]
struct Owed {
    slots: Vec<usize>,
}

/// The shards and calls of one request.
#[derive(Clone, Debug)]
pub struct Fanout {
    slots: Vec<Slot>,
    calls: Vec<Owed>,
    ends_at: Instant,
}

impl Fanout {
    /// Plans the first calls. `hedge_delay_us` answers per shard; `ends_at` is when shards stop counting.
    pub fn start(
        choices: Vec<Choice>,
        hedge_delay_us: impl Fn(ShardId) -> u64,
        hedging: Hedging,
        now: Instant,
        ends_at: Instant,
        extra: &mut ExtraCalls,
    ) -> (Self, Vec<NodeCall>) {
        let slot = |choice: Choice| Slot {
            hedge_at: match hedging {
                Hedging::On => Some(Instant(now.0.saturating_add(hedge_delay_us(choice.shard)))),
                Hedging::Off => None,
            },
            shard: choice.shard,
            items: choice.items,
            untried: choice.replicas.into_iter().rev().collect(),
            open_calls: 0,
            retried: false,
            moved: false,
            partial: None,
            lost: ShardOutcome::Failed,
            end: None,
        };
        let mut fanout = Self { slots: choices.into_iter().map(slot).collect(), calls: Vec::new(), ends_at };
        let wanted: Vec<(usize, SendReason)> = (0..fanout.slots.len()).map(|i| (i, SendReason::First)).collect();
        for _ in &wanted {
            extra.sent();
        }
        let sends = fanout.send(wanted, now);
        fanout.settle(now);
        (fanout, sends)
    }

    /// Takes one input in; answers the calls to send.
    pub fn step(&mut self, now: Instant, input: Input<'_>, extra: &mut ExtraCalls) -> Vec<NodeCall> {
        let mut wanted = Vec::new();
        match input {
            Input::Answered(call, replies) => self.answered(call, replies, extra, &mut wanted),
            Input::Failed(call, failure) => self.failed(call, failure, now, extra, &mut wanted),
            Input::Tick => {}
        }
        self.hedge(now, extra, &mut wanted);
        let sends = self.send(wanted, now);
        self.settle(now);
        sends
    }

    /// When a tick is due, at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        let hedges = self.slots.iter().filter(|s| s.may_hedge()).filter_map(|s| s.hedge_at);
        hedges.chain([self.ends_at]).min().unwrap_or(self.ends_at)
    }

    /// How every shard ended, in the order of the choices; `None` while one is open.
    #[must_use]
    pub fn ends(&self) -> Option<Vec<ShardEnd>> {
        self.slots.iter().map(|s| s.end).collect()
    }

    fn answered(
        &mut self,
        call: CallId,
        replies: &[ShardReply],
        extra: &mut ExtraCalls,
        wanted: &mut Vec<(usize, SendReason)>,
    ) {
        for index in self.close(call) {
            let slot = &mut self.slots[index];
            let reply = replies.iter().find(|r| r.shard == slot.shard);
            // A node that leaves out a shard it was asked for has failed there.
            let (status, seen) = reply.map_or((ReplyStatus::Fault, 0), |r| (r.status, r.seen.min(slot.items)));
            if status == ReplyStatus::Shed {
                extra.shed();
            } else {
                extra.answered();
            }
            match status {
                ReplyStatus::Finished => slot.finish(ShardOutcome::Finished, seen, Some(call)),
                ReplyStatus::Partial => slot.hold(call, seen),
                ReplyStatus::VersionUnavailable => slot.move_on(ShardOutcome::VersionUnavailable, index, wanted),
                ReplyStatus::Corrupt => slot.move_on(ShardOutcome::Corrupt, index, wanted),
                ReplyStatus::Shed => slot.lost = ShardOutcome::Shed,
                ReplyStatus::Fault => slot.lost = ShardOutcome::Failed,
            }
        }
    }

    fn failed(
        &mut self,
        call: CallId,
        failure: CallFailure,
        now: Instant,
        extra: &mut ExtraCalls,
        wanted: &mut Vec<(usize, SendReason)>,
    ) {
        for index in self.close(call) {
            let slot = &mut self.slots[index];
            slot.lost = match failure {
                CallFailure::Unreachable | CallFailure::Fault => ShardOutcome::Failed,
                CallFailure::TimedOut => ShardOutcome::TimedOut,
                CallFailure::Shed => ShardOutcome::Shed,
            };
            // With a hedge out already, the retry would be a third call for the same answer.
            let alone = slot.open_calls == 0 && slot.end.is_none() && !slot.untried.is_empty();
            if failure == CallFailure::Unreachable && alone && !slot.retried && extra.take_retry(now) {
                slot.retried = true;
                wanted.push((index, SendReason::Retry));
            }
        }
    }

    /// The slots that this call still owes an answer, which it owes no longer.
    fn close(&mut self, call: CallId) -> Vec<usize> {
        let slots = self.calls.get_mut(call.0 as usize).map(|c| std::mem::take(&mut c.slots)).unwrap_or_default();
        for index in &slots {
            self.slots[*index].open_calls -= 1;
        }
        slots.into_iter().filter(|index| self.slots[*index].end.is_none()).collect()
    }

    fn hedge(&mut self, now: Instant, extra: &mut ExtraCalls, wanted: &mut Vec<(usize, SendReason)>) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.may_hedge() && slot.hedge_at.is_some_and(|at| at <= now) {
                // Asked for once: a refusal is final too, otherwise every tick would ask again.
                slot.hedge_at = None;
                if now < self.ends_at && extra.take_hedge() {
                    wanted.push((index, SendReason::Hedge));
                }
            }
        }
    }

    /// Groups the wanted shards by node and reason into calls.
    fn send(&mut self, wanted: Vec<(usize, SendReason)>, now: Instant) -> Vec<NodeCall> {
        let left = self.ends_at.0.saturating_sub(now.0);
        let budget_us = left.saturating_sub((left / MARGIN_PART).max(MARGIN_US_MIN));
        let mut sends: Vec<NodeCall> = Vec::new();
        for (index, reason) in wanted {
            let slot = &mut self.slots[index];
            if budget_us == 0 {
                slot.lost = ShardOutcome::TimedOut;
                continue;
            }
            let Some(node) = slot.untried.pop() else { continue };
            slot.open_calls += 1;
            if let Some(send) = sends.iter_mut().find(|s| s.node == node && s.reason == reason) {
                send.shards.push(slot.shard);
                self.calls[send.call.0 as usize].slots.push(index);
            } else {
                // A request has at most four calls per shard and 1,024 shards.
                let call = CallId(self.calls.len() as u32);
                self.calls.push(Owed { slots: vec![index] });
                sends.push(NodeCall { call, node, shards: vec![slot.shard], budget_us, reason });
            }
        }
        sends
    }

    /// Ends the shards that nobody works on any more, and all of them once the time is over.
    fn settle(&mut self, now: Instant) {
        let over = now >= self.ends_at;
        for slot in self.slots.iter_mut().filter(|s| s.end.is_none()) {
            if slot.open_calls == 0 || over {
                match (slot.partial, slot.open_calls) {
                    (Some((call, seen)), _) => slot.finish(ShardOutcome::TimedOut, seen, Some(call)),
                    (None, 0) => slot.finish(slot.lost, 0, None),
                    (None, _) => slot.finish(ShardOutcome::TimedOut, 0, None),
                }
            }
        }
    }
}

impl Slot {
    fn may_hedge(&self) -> bool {
        self.end.is_none() && self.open_calls == 1 && !self.untried.is_empty() && self.hedge_at.is_some()
    }

    fn hold(&mut self, call: CallId, seen: u64) {
        if self.partial.is_none_or(|(_, best)| seen > best) {
            self.partial = Some((call, seen));
        }
    }

    fn move_on(&mut self, lost: ShardOutcome, index: usize, wanted: &mut Vec<(usize, SendReason)>) {
        self.lost = lost;
        if !self.moved && self.open_calls == 0 && !self.untried.is_empty() {
            self.moved = true;
            wanted.push((index, SendReason::OtherReplica));
        }
    }

    fn finish(&mut self, outcome: ShardOutcome, seen: u64, call: Option<CallId>) {
        let seen = ShardSeen { items: self.items, seen, outcome };
        self.end = Some(ShardEnd { shard: self.shard, seen, call });
    }
}

#[cfg(test)]
mod tests;
