//! What does a member know of campaigns, and what has changed since a version?
//!
//! An immutable book, made anew from the one before and what has come. A change fits one version alone: a member that
//! holds another asks for the whole. The book remembers which campaigns the last versions changed, so that whoever
//! builds on it does no more work than the change asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Override;

/// Versions whose changes are remembered: as many as nodes keep, twice.
const RECENT_MAX: usize = 32;

/// Everything that is said of campaigns, as of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Of which control plane.
    pub formation: u64,
    /// The version.
    pub version: u64,
    /// Ascending by campaign; none is empty.
    rows: Vec<(u64, Arc<Override>)>,
    /// Oldest first, each beginning where the one before ends.
    recent: VecDeque<Step>,
}

/// What one version changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    before: u64,
    version: u64,
    /// Ascending or not.
    campaigns: Arc<[u64]>,
    /// Those of which a status was said before and is not any more.
    freed: Arc<[u64]>,
}

/// What has come from the control plane, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Of which control plane.
    pub formation: u64,
    /// What is held afterwards.
    pub version: u64,
    /// What must be held before; 0 for a picture.
    pub since: u64,
    /// By campaign; an empty one takes everything back.
    pub rows: Vec<(u64, Override)>,
}

/// What came of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next book.
    Book(Book),
    /// Nothing that is not known.
    Old,
    /// It is a change of a version that is not held: the whole is needed.
    Gap,
}

impl Book {
    /// A book from a whole picture.
    #[must_use]
    pub fn new(formation: u64, version: u64, rows: Vec<(u64, Override)>) -> Self {
        let mut rows: Vec<_> = rows.into_iter().filter(|(_, row)| !row.is_empty()).collect();
        rows.sort_by_key(|(id, _)| *id);
        rows.dedup_by_key(|(id, _)| *id);
        let rows = rows.into_iter().map(|(id, row)| (id, Arc::new(row))).collect();
        Self { formation, version, rows, recent: VecDeque::new() }
    }

    /// What is known after news.
    #[must_use]
    pub fn read(&self, news: News) -> Read {
        let News { formation, version, since, rows } = news;
        let is_known = formation == self.formation && version <= self.version;
        if is_known {
            return Read::Old;
        }
        if since == 0 {
            let mut next = Self::new(formation, version, rows);
            if formation == self.formation {
                next.remember(self, changed(&self.rows, &next.rows));
            }
            return Read::Book(next);
        }
        if formation != self.formation || since != self.version {
            return Read::Gap;
        }
        let campaigns: Vec<u64> = rows.iter().map(|(id, _)| *id).collect();
        let mut next = Self { version, rows: merged(&self.rows, rows), ..Self::default() };
        next.formation = formation;
        next.remember(self, campaigns);
        Read::Book(next)
    }

    fn remember(&mut self, before: &Self, campaigns: Vec<u64>) {
        let status = |book: &Self, id: u64| book.get(id).and_then(|row| row.status);
        let is_freed = |id: &u64| status(before, *id).is_some() && status(self, *id).is_none();
        let freed = campaigns.iter().copied().filter(is_freed).collect();
        let step = Step { before: before.version, version: self.version, campaigns: campaigns.into(), freed };
        self.recent.clone_from(&before.recent);
        self.recent.push_back(step);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// What is said of a campaign.
    #[must_use]
    pub fn get(&self, campaign: u64) -> Option<&Override> {
        let at = self.rows.binary_search_by_key(&campaign, |(id, _)| *id).ok()?;
        self.rows.get(at).map(|(_, row)| row.as_ref())
    }

    /// Every campaign of which something is said, ascending.
    #[must_use]
    pub fn rows(&self) -> &[(u64, Arc<Override>)] {
        &self.rows
    }

    /// The campaigns that may have changed after `version`, ascending; `None` when that is not known any more.
    #[must_use]
    pub fn changed_since(&self, version: u64) -> Option<Vec<u64>> {
        if version >= self.version {
            return Some(Vec::new());
        }
        // A member may have skipped versions: what it skipped to holds their changes, too.
        if version < self.recent.front()?.before {
            return None;
        }
        Some(ascending(self.after(version).flat_map(|step| step.campaigns.iter().copied())))
    }

    /// The campaigns whose status was taken back after `version`, as far as that is known, ascending: the catalogue's
    /// stands again, whatever it is.
    #[must_use]
    pub fn freed_since(&self, version: u64) -> Vec<u64> {
        ascending(self.after(version).flat_map(|step| step.freed.iter().copied()))
    }

    fn after(&self, version: u64) -> impl Iterator<Item = &Step> {
        self.recent.iter().filter(move |step| step.version > version)
    }
}

type Row = (u64, Arc<Override>);

fn ascending(campaigns: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut campaigns: Vec<u64> = campaigns.collect();
    campaigns.sort_unstable();
    campaigns.dedup();
    campaigns
}

/// Campaigns whose rows differ, ascending.
fn changed(before: &[Row], after: &[Row]) -> Vec<u64> {
    let (mut out, mut left, mut right) = (Vec::new(), before, after);
    loop {
        let (l, r) = (left.first(), right.first());
        let Some(id) = l.into_iter().chain(r).map(|(id, _)| *id).min() else { return out };
        let of = |row: Option<&Row>| row.filter(|(other, _)| *other == id).map(|(_, row)| Arc::clone(row));
        if of(l) != of(r) {
            out.push(id);
        }
        (left, right) = (without(left, id), without(right, id));
    }
}

/// Rows with those of a change in place of theirs.
fn merged(before: &[Row], mut rows: Vec<(u64, Override)>) -> Vec<Row> {
    // Stable, so that the last of equals stands.
    rows.sort_by_key(|(id, _)| *id);
    let mut out = Vec::with_capacity(before.len() + rows.len());
    let mut rest = before;
    for (id, row) in rows {
        let (smaller, others) = rest.split_at(rest.partition_point(|(other, _)| *other < id));
        out.extend_from_slice(smaller);
        rest = without(others, id);
        if out.last().is_some_and(|(last, _): &Row| *last == id) {
            out.pop();
        }
        if !row.is_empty() {
            out.push((id, Arc::new(row)));
        }
    }
    out.extend_from_slice(rest);
    out
}

/// Rows without the first where that is of the campaign.
fn without(rows: &[Row], campaign: u64) -> &[Row] {
    match rows.split_first() {
        Some(((id, _), others)) if *id == campaign => others,
        Some(_) | None => rows,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn row(bid: u64) -> Override {
        Override { bid_micros: Some(bid).filter(|b| *b > 0), ..Override::default() }
    }

    fn next(book: &Book, news: News) -> Book {
        match book.read(news) {
            Read::Book(book) => book,
            refused @ (Read::Old | Read::Gap) => panic!("{refused:?}"),
        }
    }

    proptest! {
        /// The twin is a map. Bid 0 takes back.
        #[test]
        fn changes_add_up(rounds in prop::collection::vec(prop::collection::vec((1u64..20, 0u64..4), 0..8), 1..50)) {
            let mut book = Book::new(5, 1, Vec::new());
            let mut twin: BTreeMap<u64, u64> = BTreeMap::new();
            let mut books = vec![book.clone()];
            for (at, round) in rounds.iter().enumerate() {
                for (id, bid) in round {
                    if *bid == 0 { twin.remove(id); } else { twin.insert(*id, *bid); }
                }
                let rows = round.iter().map(|(id, bid)| (*id, row(*bid))).collect();
                let whole = at % 5 == 4;
                let all = || twin.iter().map(|(id, bid)| (*id, row(*bid))).collect();
                let (since, rows) = if whole { (0, all()) } else { (book.version, rows) };
                book = next(&book, News { formation: 5, version: book.version + 2, since, rows });
                let held: BTreeMap<u64, u64> = book.rows().iter().map(|(id, r)| (*id, r.bid_micros.unwrap())).collect();
                prop_assert_eq!(&held, &twin);
                books.push(book.clone());
            }
            for before in &books {
                let Some(changed) = book.changed_since(before.version) else { continue };
                for id in 1..20 {
                    prop_assert!(changed.contains(&id) || before.get(id) == book.get(id), "{} changed unseen", id);
                }
            }
            let long_ago = books.len() > RECENT_MAX + 1;
            prop_assert_eq!(book.changed_since(1).is_none(), long_ago);
        }
    }

    #[test]
    fn a_change_of_another_version_is_a_gap_and_another_formation_begins_anew() {
        let book = Book::new(5, 9, vec![(1, row(4))]);
        let change = |formation, since, version| News { formation, version, since, rows: vec![(1, row(7))] };
        assert_eq!(book.read(change(5, 8, 10)), Read::Gap);
        assert_eq!(book.read(change(6, 9, 10)), Read::Gap);
        assert_eq!(book.read(change(5, 8, 9)), Read::Old);
        assert_eq!(book.read(change(5, 0, 9)), Read::Old);
        let anew = next(&book, change(6, 0, 2));
        assert_eq!((anew.version, anew.get(1), anew.changed_since(1)), (2, Some(&row(7)), None));
    }
}
