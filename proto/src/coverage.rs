//! How much of the catalogue stands behind this answer?
//!
//! Coverage is the share of items that were searched, weighted by the item counts of the pinned map
//! (decision 6). It is floored, and it is 1 only when every shard finished: what is reported is never
//! more than what is true (RQ4).

/// How one shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardOutcome {
    /// Searched whole.
    Finished,
    /// Searched in part, or no answer in time.
    TimedOut,
    /// No replica could be reached, or the call failed.
    Failed,
    /// No replica has the pinned versions.
    VersionUnavailable,
    /// The replica had no room.
    Shed,
    /// The replica's segment is quarantined.
    Corrupt,
}

/// What is known of one shard: its items in the pinned map, the items its replica searched, how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSeen {
    /// Items of the shard in the View of the pinned map epoch.
    pub items: u64,
    /// Items that the answer stands for; counted up to `items`.
    pub seen: u64,
    /// How it ended.
    pub outcome: ShardOutcome,
}

/// The coverage of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Coverage {
    /// The fraction in ten-thousandths, floored: 10,000 only if every shard finished.
    pub parts: u32,
    /// Shards of the map.
    pub total: u32,
    /// Finished.
    pub ok: u32,
    /// Not finished in time.
    pub timed_out: u32,
    /// Failed or shed or corrupt.
    pub failed: u32,
    /// Version not available.
    pub version_unavailable: u32,
    /// Bits of `wire::DegradedReason`.
    pub reasons: u32,
}

/// All parts of a whole coverage.
pub const WHOLE: u32 = 10_000;

impl Coverage {
    /// Sums up the shards of one request.
    #[must_use]
    pub fn of(shards: &[ShardSeen]) -> Self {
        let mut c = Self { total: u32::try_from(shards.len()).unwrap_or(u32::MAX), ..Self::default() };
        let (mut seen, mut items) = (0u128, 0u128);
        for shard in shards {
            items += u128::from(shard.items);
            seen += u128::from(shard.seen.min(shard.items));
            let (counter, reason) = match shard.outcome {
                ShardOutcome::Finished => (&mut c.ok, 0),
                ShardOutcome::TimedOut => (&mut c.timed_out, 1),
                ShardOutcome::Failed => (&mut c.failed, 4),
                ShardOutcome::Shed => (&mut c.failed, 8),
                ShardOutcome::VersionUnavailable => (&mut c.version_unavailable, 16),
                ShardOutcome::Corrupt => (&mut c.failed, 32),
            };
            *counter += 1;
            c.reasons |= reason;
        }
        let parts = (seen * u128::from(WHOLE)).checked_div(items).unwrap_or(u128::from(WHOLE));
        c.parts = u32::try_from(parts).unwrap_or(WHOLE);
        if c.ok < c.total {
            c.parts = c.parts.min(WHOLE - 1);
        }
        c
    }

    /// The fraction, for the wire.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.parts) / f64::from(WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_only_when_every_shard_finished() {
        let whole = ShardSeen { items: 10, seen: 10, outcome: ShardOutcome::Finished };
        let tiny = ShardSeen { items: 0, seen: 0, outcome: ShardOutcome::Failed };
        assert_eq!(Coverage::of(&[whole, whole]).parts, WHOLE);
        assert_eq!(Coverage::of(&[whole, tiny]).parts, WHOLE - 1);
        let over = ShardSeen { items: 10, seen: 99, outcome: ShardOutcome::TimedOut };
        assert_eq!(Coverage::of(&[whole, over]).parts, WHOLE - 1);
        let third = ShardSeen { items: 20, seen: 0, outcome: ShardOutcome::Failed };
        assert_eq!(Coverage::of(&[whole, third]).parts, 3_333);
    }
}
