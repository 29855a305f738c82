//! What does the journal say of a token?

use super::book::{Book, Fate};
use crate::ledger::HOUR_MS;
use crate::ledger::types::{Charge, ChargeId, TokenKey};

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Charged, and kept.
    Charged,
    /// Charged, and given back.
    Refunded,
    /// Its budget was gone.
    Free,
    /// Nothing of it came, or nothing that could be charged.
    Unknown,
}

impl Outcome {
    /// The word in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::Refunded => "refunded",
            Self::Free => "free",
            Self::Unknown => "unknown",
        }
    }
}

impl Book {
    /// Every charge that the journal holds itself, ascending by its id.
    #[must_use]
    pub fn charged(&self) -> Vec<Charge> {
        let payload = |fate: &Fate| match fate {
            Fate::Charged { payload, .. } => *payload,
            Fate::Free => None,
        };
        let mut charged: Vec<Charge> = self.fates.values().filter_map(payload).collect();
        charged.sort_unstable_by_key(|charge| charge.id);
        charged
    }

    /// What became of a token that was issued at a time.
    #[must_use]
    pub fn outcome(&self, id: ChargeId, issued_ms: u64) -> Outcome {
        match self.fates.get(&(id.issuer, id.sequence, id.kind, issued_ms / HOUR_MS)) {
            Some(Fate::Charged { refunded: false, .. }) => Outcome::Charged,
            Some(Fate::Charged { refunded: true, .. }) => Outcome::Refunded,
            Some(Fate::Free) => Outcome::Free,
            None => Outcome::Unknown,
        }
    }

    /// The keys that tokens are opened with, oldest first: those that the voters have dropped, too, as far as the journal
    /// goes back.
    #[must_use]
    pub fn keys(&self) -> Vec<TokenKey> {
        let all = self.dropped_keys.iter().chain(&self.keys);
        all.map(|(id, secret, since_ms)| TokenKey { id: *id, secret: *secret, since_ms: *since_ms }).collect()
    }
}
