//! Which version of bids does a request pin, and which campaigns does it leave out on top?
//!
//! The newest that every serving replica holds. A replica that lags holds the others back for a moment only: once a
//! version is held by some replica of every shard for [`LAG_US`], it is pinned, and who lacks it is not asked. A replica
//! of which nothing was heard is asked; it says itself what it holds.
//!
//! What this router has heard and replicas have not is put in force by leaving campaigns out: those that were paused, ran
//! out of budget or got a schedule after the pinned version are named in every search, so that a pause counts from the
//! moment it is heard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gavel_proto::deadline::Instant;
use gavel_proto::delivery::{Book, Schedule, Status};
use gavel_proto::ids::MemberId;
use gavel_proto::limits::EXCLUDED_CAMPAIGNS_MAX;

use super::table::{RouteTable, ShardRoute};

/// How long a replica that lags holds the others back: ten times what a version takes to reach it.
pub const LAG_US: u64 = 100_000;

/// Which versions of the generation nodes hold; one that is not here has not been heard.
pub type Held = HashMap<MemberId, Vec<u64>>;

/// Campaigns that a search leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// At every time.
    pub silent: Vec<u64>,
    /// At the times at which they do not run.
    pub timed: Vec<(u64, Schedule)>,
}

impl Excluded {
    /// Campaigns left out of a search at an instant.
    pub fn at(&self, unix_s: i64) -> impl Iterator<Item = u64> + '_ {
        let timed = self.timed.iter().filter(move |(_, schedule)| !schedule.runs_at(unix_s));
        self.silent.iter().copied().chain(timed.map(|(campaign, _)| *campaign))
    }

    /// What was heard after `version`; `None` when it is more than a search may name.
    fn after(book: &Book, version: u64) -> Option<Self> {
        let mut excluded = Self::default();
        let freed = book.freed_since(version);
        let mut note = |campaign: u64| match book.get(campaign) {
            Some(said) if said.status == Some(Status::Paused) || said.out_of_budget => excluded.silent.push(campaign),
            // As the catalogue says again, and it may say paused: only nodes know.
            None => excluded.silent.push(campaign),
            Some(said) if said.status.is_none() && freed.binary_search(&campaign).is_ok() => {
                excluded.silent.push(campaign)
            }
            Some(said) if !said.schedule.is_open() => excluded.timed.push((campaign, said.schedule)),
            Some(_) => {}
        };
        match book.changed_since(version) {
            Some(changed) => changed.into_iter().for_each(&mut note),
            None => book.rows().iter().for_each(|(campaign, _)| note(*campaign)),
        }
        (excluded.silent.len() + excluded.timed.len() <= EXCLUDED_CAMPAIGNS_MAX).then_some(excluded)
    }
}

/// What a request pins of bids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The version.
    pub version: u64,
    /// What it leaves out on top.
    pub excluded: Arc<Excluded>,
    /// When a newer version may be pinned without any news.
    pub wakes_at: Option<Instant>,
}

/// Chooses versions, one after the other.
#[derive(Debug, Default)]
pub struct Versions {
    /// Since when a version that is not everywhere is held for every shard.
    covered: BTreeMap<u64, Instant>,
}

impl Versions {
    /// What requests over these shards pin now.
    pub fn pin(&mut self, shards: &[ShardRoute], held: &Held, book: &Book, now: Instant) -> Pin {
        let (version, wakes_at) = self.newest(shards, held, book.version, now);
        match Excluded::after(book, version) {
            Some(excluded) => Pin { version, excluded: Arc::new(excluded), wakes_at },
            // A replica that lacks it says so, which costs coverage; a campaign that is paused would cost trust.
            None => Pin { version: book.version, excluded: Arc::default(), wakes_at },
        }
    }

    fn newest(&mut self, shards: &[ShardRoute], held: &Held, heard: u64, now: Instant) -> (u64, Option<Instant>) {
        let mut known: BTreeSet<u64> = held.values().flatten().copied().collect();
        known.insert(heard);
        self.covered.retain(|version, _| known.contains(version));
        let (mut wakes_at, mut fallback) = (None, None);
        for version in known.into_iter().rev() {
            let is_held = |node: &MemberId| holds(held, *node, version);
            if shards.iter().all(|shard| shard.serving.iter().all(is_held)) {
                return (version, wakes_at);
            }
            if shards.iter().all(|shard| shard.serving.is_empty() || shard.serving.iter().any(is_held)) {
                let since = self.covered.entry(version).or_insert(now);
                let until = Instant(since.0.saturating_add(LAG_US));
                if until <= now {
                    return (version, wakes_at);
                }
                wakes_at = Some(wakes_at.map_or(until, |at: Instant| at.min(until)));
                fallback = fallback.or(Some(version));
            }
        }
        (fallback.unwrap_or(heard), wakes_at)
    }
}

fn holds(held: &Held, node: MemberId, version: u64) -> bool {
    held.get(&node).is_none_or(|versions| versions.contains(&version))
}

impl RouteTable {
    /// The same shards under a version of bids; replicas that lack it are not asked, unless nobody has it.
    #[must_use]
    pub fn under(&self, version: u64, held: &Held) -> Self {
        let mut table = self.clone();
        table.epoch.delivery = version;
        for shard in &mut table.shards {
            if shard.serving.iter().any(|node| holds(held, *node, version)) {
                shard.serving.retain(|node| holds(held, *node, version));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use gavel_proto::delivery::{News, Override, Read};
    use gavel_proto::ids::ShardId;

    use super::*;

    fn shards(serving: &[&[u64]]) -> Vec<ShardRoute> {
        let route = |(shard, nodes): (u32, &&[u64])| ShardRoute {
            shard: ShardId(shard),
            items: 1,
            ads: 1,
            serving: nodes.iter().map(|id| MemberId(*id)).collect(),
        };
        (0..).zip(serving).map(route).collect()
    }

    fn held(nodes: &[(u64, &[u64])]) -> Held {
        nodes.iter().map(|(id, versions)| (MemberId(*id), versions.to_vec())).collect()
    }

    fn book(version: u64, rows: Vec<(u64, Override)>) -> Book {
        let before = Book::new(1, version - 1, Vec::new());
        match before.read(News { formation: 1, version, since: version - 1, rows }) {
            Read::Book(book) => book,
            refused @ (Read::Old | Read::Gap) => panic!("{refused:?}"),
        }
    }

    fn paused() -> Override {
        Override { status: Some(Status::Paused), ..Override::default() }
    }

    #[test]
    fn the_newest_that_all_hold_and_after_a_while_the_newest_that_is_enough() {
        let (mut versions, shards) = (Versions::default(), shards(&[&[1, 2], &[2, 3]]));
        let book = book(9, vec![(7, paused())]);
        let mut pin = |nodes: &[(u64, &[u64])], at: u64| versions.pin(&shards, &held(nodes), &book, Instant(at));
        let all = pin(&[(1, &[7, 8]), (2, &[8]), (3, &[7, 8])], 1_000);
        assert_eq!((all.version, &all.excluded.silent[..]), (8, &[7][..]), "heard, and not held yet");
        let some: &[(u64, &[u64])] = &[(1, &[8, 9]), (2, &[8, 9]), (3, &[8])];
        let waits = pin(some, 2_000);
        assert_eq!((waits.version, waits.wakes_at), (8, Some(Instant(2_000 + LAG_US))));
        let goes = pin(some, 2_000 + LAG_US);
        assert_eq!((goes.version, goes.excluded.silent.len()), (9, 0));
        let table = RouteTable { shards: shards.clone(), ..RouteTable::default() }.under(9, &held(some));
        assert_eq!(table.epoch.delivery, 9);
        assert_eq!(table.shards[1].serving, [MemberId(2)], "3 lacks it");
    }

    #[test]
    fn a_node_that_was_not_heard_is_asked_and_one_that_has_nothing_in_common_costs_only_its_shard() {
        let (mut versions, shards) = (Versions::default(), shards(&[&[1], &[2]]));
        let book = book(5, Vec::new());
        let mut pin = |nodes: &[(u64, &[u64])], at| versions.pin(&shards, &held(nodes), &book, Instant(at)).version;
        assert_eq!(pin(&[], 0), 5);
        assert_eq!(pin(&[(1, &[3, 4])], 0), 4);
        assert_eq!(pin(&[(1, &[4]), (2, &[3])], 0), 5);
    }

    #[test]
    fn what_was_heard_and_not_pinned_is_left_out() {
        let timed = Override { schedule: Schedule { starts_s: 10, ends_s: 20 }, ..Override::default() };
        let bid = Override { bid_micros: Some(4), ..Override::default() };
        let gone = Override { out_of_budget: true, schedule: timed.schedule, ..Override::default() };
        let book = book(5, vec![(1, paused()), (2, timed), (3, bid), (4, Override::default()), (5, gone)]);
        let excluded = Excluded::after(&book, 4).unwrap();
        assert_eq!(excluded.at(15).collect::<Vec<u64>>(), [1, 4, 5]);
        assert_eq!(excluded.at(20).collect::<Vec<u64>>(), [1, 4, 5, 2]);
        assert_eq!(Excluded::after(&book, 5).unwrap(), Excluded::default());
        assert_eq!(Excluded::after(&book, 3).unwrap().silent, [1, 5], "nobody knows what was before");
    }

    /// An operator let a campaign go that the catalogue pauses, the pacer has a multiplier for it, and the operator's word
    /// is taken back: until nodes know, it won.
    #[test]
    fn a_status_that_is_taken_back_leaves_the_campaign_out_though_more_is_said_of_it() {
        let said = |status| Override { status, multiplier_ppm: Some(700_000), ..Override::default() };
        let before = Book::new(1, 4, vec![(1, said(Some(Status::Active))), (2, said(None))]);
        let rows = vec![(1, said(None)), (2, Override { multiplier_ppm: Some(1), ..said(None) })];
        let Read::Book(book) = before.read(News { formation: 1, version: 5, since: 4, rows }) else { panic!("fits") };
        assert_eq!(Excluded::after(&book, 4).unwrap().silent, [1]);
        assert!(Excluded::after(&book, 5).unwrap().silent.is_empty());
    }

    #[test]
    fn more_than_a_search_may_name_is_pinned_at_once() {
        let shards = shards(&[&[1]]);
        let many = (1..=EXCLUDED_CAMPAIGNS_MAX as u64 + 1).map(|id| (id, paused())).collect();
        let pin = Versions::default().pin(&shards, &held(&[(1, &[4])]), &book(5, many), Instant(0));
        assert_eq!((pin.version, pin.excluded.silent.len()), (5, 0));
    }
}
