//! What does the wire say of counts, and how are they said there and on disk?
//!
//! Every list has its limit here, and every scope and window is one that there is.

use super::kernel::{AdToCount, Counted, Counter, Op, Series, Verdict};
use super::moves::LiveNode;
use gavel_proto::frequency::{CounterLimit, FrequencyScope, FrequencyWindow, SeenCount};
use gavel_proto::ids::MemberId;
use gavel_proto::limits::{FREQUENCY_COPIES_MAX, FREQUENCY_COUNTERS_MAX, FREQUENCY_COUNTERS_PER_AD_MAX, SLOTS_MAX};
use gavel_proto::wire;

/// What one node tells another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyMessage {
    /// Who tells.
    pub from: MemberId,
    /// What was counted, in order.
    pub ops: Vec<Op>,
    /// What is held of users.
    pub users: Vec<(u64, Vec<Counter>)>,
    /// The round that everything was sent for; 0: not yet.
    pub settled: u64,
}

/// The ads of a reservation.
pub fn ads(ads: Vec<wire::ReserveAd>) -> Result<Vec<AdToCount>, String> {
    at_most("ads", ads.len(), SLOTS_MAX as usize)?;
    let ad =
        |ad: wire::ReserveAd| Ok(AdToCount { ad: ad.ad_id, campaign: ad.campaign_id, counters: limits(&ad.counters)? });
    ads.into_iter().map(ad).collect()
}

/// The ads of a reservation that are given back.
pub fn released(ads: Vec<u64>) -> Result<Vec<u64>, String> {
    at_most("ads", ads.len(), SLOTS_MAX as usize)?;
    Ok(ads)
}

fn limits(limits: &[wire::CounterLimit]) -> Result<Vec<CounterLimit>, String> {
    at_most("counters of an ad", limits.len(), FREQUENCY_COUNTERS_PER_AD_MAX)?;
    let limit = |limit: &wire::CounterLimit| {
        let (scope, window) = kind(limit.scope, limit.window_hours)?;
        let max = u8::try_from(limit.max).map_err(|_| format!("a bound of {}", limit.max))?;
        Ok(CounterLimit { scope, id: limit.id, window, max })
    };
    limits.iter().map(limit).collect()
}

fn kind(scope: i32, hours: u32) -> Result<(FrequencyScope, FrequencyWindow), String> {
    let scope = FrequencyScope::from_number(scope).ok_or_else(|| format!("scope {scope}"))?;
    let window = FrequencyWindow::of_hours(hours).ok_or_else(|| format!("a window of {hours} hours"))?;
    Ok((scope, window))
}

fn at_most(what: &str, count: usize, max: usize) -> Result<(), String> {
    if count > max { Err(format!("{count} {what} are more than {max}")) } else { Ok(()) }
}

/// A verdict on the wire.
pub const fn verdict(verdict: Verdict) -> wire::ReserveVerdict {
    match verdict {
        Verdict::Granted => wire::ReserveVerdict::ReserveGranted,
        Verdict::Capped => wire::ReserveVerdict::ReserveCapped,
        Verdict::Full => wire::ReserveVerdict::ReserveFull,
    }
}

/// What was seen, on the wire.
pub fn seen(seen: SeenCount) -> wire::SeenCount {
    wire::SeenCount {
        scope: seen.scope.number(),
        id: seen.id,
        campaign_id: seen.campaign,
        window_hours: seen.window.hours().into(),
        count: seen.count.into(),
    }
}

/// An op on the wire.
pub fn op_to_wire(op: &Op) -> wire::CountedOp {
    let counter = |limit: &CounterLimit| wire::CounterLimit {
        scope: limit.scope.number(),
        id: limit.id,
        window_hours: limit.window.hours().into(),
        max: limit.max.into(),
    };
    wire::CountedOp {
        user: op.user,
        reservation_id: op.reservation,
        at_ms: op.at_ms,
        released: op.counted == Counted::Released,
        ad_id: op.ad.ad,
        campaign_id: op.ad.campaign,
        counters: op.ad.counters.iter().map(counter).collect(),
    }
}

/// An op from the wire.
pub fn op(op: &wire::CountedOp) -> Result<Op, String> {
    Ok(Op {
        user: op.user,
        reservation: op.reservation_id,
        at_ms: op.at_ms,
        counted: if op.released { Counted::Released } else { Counted::Impression },
        ad: AdToCount { ad: op.ad_id, campaign: op.campaign_id, counters: limits(&op.counters)? },
    })
}

/// A user's counters on the wire.
pub fn user_to_wire((user, counters): &(u64, Vec<Counter>)) -> wire::UserCounts {
    let counter = |counter: &Counter| {
        let (newest, buckets) = counter.series.parts();
        wire::CounterState {
            scope: counter.series.scope().number(),
            id: counter.id,
            campaign_id: counter.campaign,
            window_hours: counter.series.window().hours().into(),
            newest,
            buckets: buckets.to_vec(),
        }
    };
    wire::UserCounts { user: *user, counters: counters.iter().map(counter).collect() }
}

/// A user's counters from the wire.
pub fn user(user: &wire::UserCounts) -> Result<(u64, Vec<Counter>), String> {
    at_most("counters of a user", user.counters.len(), 2 * FREQUENCY_COUNTERS_MAX)?;
    let counter = |counter: &wire::CounterState| {
        let (scope, window) = kind(counter.scope, counter.window_hours)?;
        let series = Series::of_parts(scope, window, counter.newest, &counter.buckets);
        Ok(Counter { id: counter.id, campaign: counter.campaign_id, series })
    };
    Ok((user.user, user.counters.iter().map(counter).collect::<Result<_, String>>()?))
}

/// A message to another node.
pub fn copy_to_wire(message: &CopyMessage) -> wire::CopyRequest {
    wire::CopyRequest {
        from: message.from.0,
        ops: message.ops.iter().map(op_to_wire).collect(),
        users: message.users.iter().map(user_to_wire).collect(),
        settled: message.settled,
    }
}

/// A message of another node.
pub fn copy(message: &wire::CopyRequest) -> Result<CopyMessage, String> {
    at_most("ops", message.ops.len(), FREQUENCY_COPIES_MAX)?;
    at_most("users", message.users.len(), FREQUENCY_COPIES_MAX)?;
    Ok(CopyMessage {
        from: MemberId(message.from),
        ops: message.ops.iter().map(op).collect::<Result<_, _>>()?,
        users: message.users.iter().map(user).collect::<Result<_, _>>()?,
        settled: message.settled,
    })
}

/// The nodes of a View that count: they live and do not leave.
pub(super) fn live_nodes(view: &wire::View) -> Vec<LiveNode> {
    let counts =
        |m: &&wire::MemberView| m.role() == wire::Role::Node && m.alive && !m.draining && !m.address.is_empty();
    let node = |m: &wire::MemberView| LiveNode {
        id: MemberId(m.member_id),
        incarnation: m.incarnation,
        address: m.address.clone(),
    };
    view.members.iter().filter(counts).map(node).collect()
}
