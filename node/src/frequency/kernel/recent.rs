//! Which reservations were granted a moment ago?
//!
//! A request that is asked again (at the replica, after the owner did not answer in time) must get the same answer and
//! count once; what is given back must be taken from where it was counted. Both come within a second. A record is
//! kept for [`RECENT_MS`], or less when there are too many: then a repetition counts twice and a return is not
//! taken, which holds ads back and never shows one too often.

use super::table::AdToCount;
use std::collections::{HashMap, VecDeque};

/// How long: far above the longest deadline of a request, and above what a copy is tried again for.
pub const RECENT_MS: u64 = 30_000;
/// Records of one table. Ours: with 256 tables some 8,000 reservations a second for half a minute.
const RECORDS_MAX: usize = 1_024;
/// Bytes of a record and of each of its ads, beside its counters: keys, lists, and the room that maps leave.
const RECORD_BYTES: usize = 112;
const AD_BYTES: usize = 56;

/// A granted ad of a reservation.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What was asked.
    pub ad: AdToCount,
    /// When it was counted.
    pub at_ms: u64,
    /// Given back since.
    pub released: bool,
}

/// The latest reservations of one table.
#[derive(Debug, Default)]
pub struct Recent {
    records: HashMap<(u64, u64), Vec<Decided>>,
    order: VecDeque<(u64, (u64, u64))>,
    bytes: usize,
}

impl Recent {
    /// What was decided of an ad.
    pub fn get_mut(&mut self, user: u64, reservation: u64, ad: u64) -> Option<&mut Decided> {
        self.records.get_mut(&(user, reservation))?.iter_mut().find(|decided| decided.ad.ad == ad)
    }

    /// Keeps what was decided.
    pub fn push(&mut self, user: u64, reservation: u64, decided: Decided, now_ms: u64) {
        let key = (user, reservation);
        self.bytes += decided_bytes(&decided);
        let record = self.records.entry(key).or_default();
        if record.is_empty() {
            self.order.push_back((now_ms, key));
            self.bytes += RECORD_BYTES;
        }
        record.push(decided);
        while self.order.len() > RECORDS_MAX || self.order.front().is_some_and(|(at, _)| at + RECENT_MS < now_ms) {
            self.forget_oldest();
        }
    }

    /// Forgets what is old.
    pub fn expire(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|(at, _)| at + RECENT_MS < now_ms) {
            self.forget_oldest();
        }
    }

    /// Memory that the records take.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        let record = self.records.remove(&key).unwrap_or_default();
        let freed = RECORD_BYTES + record.iter().map(decided_bytes).sum::<usize>();
        self.bytes = self.bytes.saturating_sub(freed);
    }
}

fn decided_bytes(decided: &Decided) -> usize {
    AD_BYTES + size_of_val(decided.ad.counters.as_slice())
}
