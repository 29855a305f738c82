//! May this user see this ad once more, and what does it count in?
//!
//! A table holds a part of the users, each with a list of counters. A reservation is granted when every bound allows
//! one impression more, and counts in all of its counters at once; refused, it counts in none. What was decided is an
//! [`Op`], which the journal keeps and the other node of the user applies without deciding again.
//!
//! Memory is bounded: a user has at most `FREQUENCY_COUNTERS_MAX` counters, and a table its share of the node's limit.
//! Users whose windows are empty leave; nobody else ever does, since a forgotten count would show an ad too often.
//! Without room a new counter is refused, and so is the ad.

use super::recent::{Decided, Recent};
use super::series::Series;
use gavel_proto::frequency::{CounterLimit, FrequencyScope, SeenCount};
use gavel_proto::limits::FREQUENCY_COUNTERS_MAX;
use std::collections::HashMap;

/// Bytes of a user beside its counters: the key, the list, and the room that the map leaves.
const USER_BYTES: usize = 48;

/// One counter of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The ad, campaign or advertiser.
    pub id: u64,
    /// The campaign of an ad; 0 for the others.
    pub campaign: u64,
    /// Its counts.
    pub series: Series,
}

/// An ad that wants an impression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdToCount {
    /// The ad.
    pub ad: u64,
    /// Its campaign.
    pub campaign: u64,
    /// What it counts in.
    pub counters: Vec<CounterLimit>,
}

/// What becomes of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Granted,
    /// A bound is reached.
    Capped,
    /// No room to count it in.
    Full,
}

/// What was counted, or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// An impression.
    Impression,
    /// One that was given back.
    Released,
}

/// Something that happened to a user's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Whose.
    pub user: u64,
    /// Of the request.
    pub reservation: u64,
    /// When, by the clock of whoever decided.
    pub at_ms: u64,
    /// What.
    pub counted: Counted,
    /// Of which ad, with its counters.
    pub ad: AdToCount,
}

/// A part of the users.
#[derive(Debug, Default)]
pub struct Table {
    users: HashMap<u64, Vec<Counter>>,
    recent: Recent,
    counters: usize,
    bytes_max: usize,
    /// When it was last searched for users to forget.
    swept_ms: u64,
}

impl Table {
    /// An empty one that may take so much memory.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Users in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// True without users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Counters in it.
    #[must_use]
    pub const fn counters(&self) -> usize {
        self.counters
    }

    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.counted_bytes() + self.recent.bytes()
    }

    /// What is held to the limit: the counts, without the reservations of a moment.
    const fn counted_bytes_of(users: usize, counters: usize) -> usize {
        users * USER_BYTES + counters * size_of::<Counter>()
    }

    fn counted_bytes(&self) -> usize {
        Self::counted_bytes_of(self.users.len(), self.counters)
    }

    /// What a user has seen.
    #[must_use]
    pub fn seen(&self, user: u64, now_ms: u64) -> Vec<SeenCount> {
        let counters = self.users.get(&user).into_iter().flatten();
        let seen = counters.map(|counter| SeenCount {
            scope: counter.series.scope(),
            id: counter.id,
            campaign: counter.campaign,
            window: counter.series.window(),
            count: counter.series.total(now_ms),
        });
        seen.filter(|seen| seen.count > 0).collect()
    }

    /// Decides each ad of a reservation in turn; the ops are what is new.
    pub fn reserve(
        &mut self,
        user: u64,
        reservation: u64,
        ads: Vec<AdToCount>,
        now_ms: u64,
    ) -> (Vec<Verdict>, Vec<Op>) {
        let mut ops = Vec::new();
        let verdicts = ads.into_iter().map(|ad| {
            if self.recent.get_mut(user, reservation, ad.ad).is_some() {
                return Verdict::Granted;
            }
            let verdict = self.decide(user, &ad, now_ms);
            if verdict == Verdict::Granted {
                self.count(user, &ad, now_ms);
                let counted = Counted::Impression;
                ops.push(Op { user, reservation, at_ms: now_ms, counted, ad: ad.clone() });
                // What is refused changes nothing, so it may be decided again.
                self.recent.push(user, reservation, Decided { ad, at_ms: now_ms, released: false }, now_ms);
            }
            verdict
        });
        (verdicts.collect(), ops)
    }

    /// What a new reservation would meet: the same decisions on a copy of the user, so that nothing counts. Unlike one, it
    /// makes no room by forgetting users whose windows are empty.
    #[must_use]
    pub fn look(&self, user: u64, ads: Vec<AdToCount>, now_ms: u64) -> Vec<Verdict> {
        let users: HashMap<u64, Vec<Counter>> =
            self.users.get(&user).into_iter().map(|counters| (user, counters.clone())).collect();
        let counters = users.values().map(Vec::len).sum();
        let others = self.counted_bytes() - Self::counted_bytes_of(users.len(), counters);
        let bytes_max = self.bytes_max.saturating_sub(others);
        let mut copy = Self { users, counters, bytes_max, swept_ms: now_ms, ..Self::default() };
        copy.reserve(user, 0, ads, now_ms).0
    }

    /// Takes back what was reserved for these ads; the ops are what was.
    pub fn release(&mut self, user: u64, reservation: u64, ads: &[u64]) -> Vec<Op> {
        let released = ads.iter().filter_map(|ad| {
            let decided = self.recent.get_mut(user, reservation, *ad)?;
            if decided.released {
                return None;
            }
            decided.released = true;
            let (ad, at_ms) = (decided.ad.clone(), decided.at_ms);
            self.uncount(user, &ad, at_ms);
            Some(Op { user, reservation, at_ms, counted: Counted::Released, ad })
        });
        released.collect()
    }

    /// Counts what was decided elsewhere or before, once; true when it changed something. A time after `now_ms` is taken
    /// for now: a clock that is ahead must not make buckets that never empty.
    pub fn apply(&mut self, op: &Op, now_ms: u64) -> bool {
        let at_ms = op.at_ms.min(now_ms);
        match (op.counted, self.recent.get_mut(op.user, op.reservation, op.ad.ad)) {
            (Counted::Impression, None) => {
                self.count(op.user, &op.ad, at_ms);
                let decided = Decided { ad: op.ad.clone(), at_ms, released: false };
                self.recent.push(op.user, op.reservation, decided, now_ms);
                true
            }
            (Counted::Impression, Some(_)) | (Counted::Released, None) => false,
            (Counted::Released, Some(_)) => !self.release(op.user, op.reservation, &[op.ad.ad]).is_empty(),
        }
    }

    /// Takes over what another node holds of a user.
    pub fn merge(&mut self, user: u64, theirs: &[Counter], now_ms: u64) {
        for counter in theirs.iter().filter(|counter| counter.series.total(now_ms) > 0) {
            let own = self.entry(user, counter.id, counter.campaign, Series::new_like(&counter.series));
            own.series.merge(&counter.series.not_after(now_ms));
        }
    }

    /// Users in it, by their hash.
    pub fn users(&self) -> impl Iterator<Item = u64> {
        self.users.keys().copied()
    }

    /// The counters of a user.
    #[must_use]
    pub fn counters_of(&self, user: u64) -> &[Counter] {
        self.users.get(&user).map_or(&[], Vec::as_slice)
    }

    /// Forgets counters and users whose windows are empty, and old reservations; how many users went.
    pub fn sweep(&mut self, now_ms: u64) -> usize {
        self.swept_ms = now_ms;
        self.recent.expire(now_ms);
        let before = self.users.len();
        self.users.retain(|_, counters| {
            counters.retain(|counter| counter.series.total(now_ms) > 0);
            counters.shrink_to_fit();
            !counters.is_empty()
        });
        self.counters = self.users.values().map(Vec::len).sum();
        if self.users.capacity() > 4 * (self.users.len() + 16) {
            self.users.shrink_to_fit();
        }
        before - self.users.len()
    }

    fn decide(&mut self, user: u64, ad: &AdToCount, now_ms: u64) -> Verdict {
        let counters = self.counters_of(user);
        let find = |limit: &CounterLimit| counters.iter().find(|counter| is_of(counter, limit, ad.campaign));
        let is_full = |limit: &&CounterLimit| {
            limit.max > 0 && find(limit).is_some_and(|counter| counter.series.total(now_ms) >= limit.max)
        };
        if ad.counters.iter().any(|limit| is_full(&limit)) {
            return Verdict::Capped;
        }
        let new = ad.counters.iter().filter(|limit| find(limit).is_none()).count();
        if new == 0 || self.has_room(user, new) {
            return Verdict::Granted;
        }
        // What is empty may make room; not more often than once a second, since it looks at everybody.
        if now_ms.saturating_sub(self.swept_ms) > 1_000 {
            self.sweep(now_ms);
        }
        if self.has_room(user, new) { Verdict::Granted } else { Verdict::Full }
    }

    fn has_room(&self, user: u64, new: usize) -> bool {
        let bytes = self.counted_bytes() + Self::counted_bytes_of(1, new);
        self.counters_of(user).len() + new <= FREQUENCY_COUNTERS_MAX && bytes <= self.bytes_max
    }

    fn count(&mut self, user: u64, ad: &AdToCount, at_ms: u64) {
        for limit in &ad.counters {
            let campaign = campaign_of(limit, ad.campaign);
            self.entry(user, limit.id, campaign, Series::new(limit.scope, limit.window)).series.add(at_ms);
        }
    }

    fn uncount(&mut self, user: u64, ad: &AdToCount, at_ms: u64) {
        for limit in &ad.counters {
            let counters = self.users.get_mut(&user).into_iter().flatten();
            for counter in counters.filter(|counter| is_of(counter, limit, ad.campaign)) {
                counter.series.remove(at_ms);
            }
        }
    }

    /// The counter of a user, made when it is not there.
    fn entry(&mut self, user: u64, id: u64, campaign: u64, empty: Series) -> &mut Counter {
        let counters = self.users.entry(user).or_default();
        let is_it = |c: &Counter| {
            (c.id, c.campaign, c.series.scope(), c.series.window()) == (id, campaign, empty.scope(), empty.window())
        };
        let at = counters.iter().position(is_it).unwrap_or_else(|| {
            self.counters += 1;
            counters.reserve_exact(1);
            counters.push(Counter { id, campaign, series: empty });
            counters.len() - 1
        });
        &mut counters[at]
    }
}

/// Ads are told apart by their campaign too, so that a search finds them by it.
fn campaign_of(limit: &CounterLimit, campaign: u64) -> u64 {
    match limit.scope {
        FrequencyScope::Ad => campaign,
        FrequencyScope::Campaign | FrequencyScope::Advertiser => 0,
    }
}

fn is_of(counter: &Counter, limit: &CounterLimit, campaign: u64) -> bool {
    let wanted = (limit.scope, limit.id, limit.window, campaign_of(limit, campaign));
    (counter.series.scope(), counter.id, counter.series.window(), counter.campaign) == wanted
}
