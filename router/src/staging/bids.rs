//! Which bids do requests pin right now?
//!
//! What the member has heard, what nodes are said to hold, and the rule of `topology` put together. Before anything was
//! heard of campaigns nothing is pinned: a campaign might be paused. Frequency rules are compared here, on the router, so
//! those that are said count from the moment they are heard.

use super::picture::Picture;
use super::rules::Said;
use crate::topology::{Held, Pin, Versions};
use gavel_member::delivery::{Acknowledged, DeliveryFeed};
use gavel_proto::deadline::Instant;
use gavel_proto::delivery::Book;
use gavel_proto::ids::MemberId;
use std::sync::Arc;

/// The longest wait without news.
const IDLE_US: u64 = 60_000_000;

/// The bids of the requests that start now.
pub(super) struct Bids {
    /// The frequency rules that are said.
    pub rules: Arc<Said>,
    /// The version, and what is left out on top.
    pub pin: Pin,
    /// What nodes hold of the generation.
    pub held: Held,
}

/// Follows the versions.
#[derive(Default)]
pub(super) struct Pinning {
    versions: Versions,
    formation: u64,
    /// The frequency rules of a version of the book.
    rules: (u64, Arc<Said>),
    pinned: u64,
    wakes_at: Option<Instant>,
}

impl Pinning {
    /// What requests under this picture pin; `None` while nothing is active or heard.
    pub(super) fn bids(&mut self, picture: &Picture, feed: &DeliveryFeed, now: Instant) -> Option<Bids> {
        let (active, book) = (picture.active.as_ref()?, feed.current()?);
        if book.formation != self.formation {
            // Another control plane counts its versions from the beginning.
            *self = Self { formation: book.formation, ..Self::default() };
        }
        let generation = active.table.epoch.generation;
        let of = |held: Vec<(u64, Vec<u64>)>| {
            held.into_iter().find(|(of, _)| *of == generation).map(|(_, versions)| versions)
        };
        let members = feed.members().into_iter();
        let held: Held = members.filter_map(|(id, holds)| Some((MemberId(id), of(holds)?))).collect();
        let pin = self.versions.pin(&active.table.shards, &held, &book, now);
        self.wakes_at = pin.wakes_at;
        self.pinned = pin.version;
        metrics::gauge!("gavel_router_excluded_count")
            .set((pin.excluded.silent.len() + pin.excluded.timed.len()) as f64);
        metrics::gauge!("gavel_router_pinned_delivery_version").set(pin.version as f64);
        if self.rules.0 != book.version {
            let (of, said) = &self.rules;
            let rules = if touches_rules(&book, *of, said) { Arc::new(rules(&book)) } else { Arc::clone(said) };
            self.rules = (book.version, rules);
        }
        Some(Bids { rules: Arc::clone(&self.rules.1), pin, held })
    }

    /// Tells the leader what requests pin.
    pub(super) fn acknowledge(&self, feed: &DeliveryFeed) {
        feed.acknowledge(|| Acknowledged { held: Vec::new(), pinned: self.pinned });
    }

    /// How long nothing newer can be pinned without news.
    pub(super) fn rest_us(&self, now: Instant) -> u64 {
        self.wakes_at.map_or(IDLE_US, |at| at.0.saturating_sub(now.0).max(1_000))
    }
}

/// Whether a book may say other rules than the one of version `of`, which said these: most versions are bids and budgets.
fn touches_rules(book: &Book, of: u64, said: &Said) -> bool {
    let has_rules = |campaign: &u64| {
        said.binary_search_by_key(campaign, |(id, _)| *id).is_ok()
            || book.get(*campaign).is_some_and(|said| !said.frequency.is_empty())
    };
    book.changed_since(of).is_none_or(|changed| changed.iter().any(has_rules))
}

/// The frequency rules that a book says, ascending by campaign.
fn rules(book: &Book) -> Said {
    let said = book.rows().iter().filter(|(_, said)| !said.frequency.is_empty());
    said.map(|(campaign, said)| (*campaign, said.frequency.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::delivery::{News, Override, Read, Status};
    use gavel_proto::frequency::{FrequencyRule, FrequencyScope, FrequencyWindow};

    #[test]
    fn the_rules_of_a_book_are_those_that_it_says() {
        let rule = FrequencyRule { scope: FrequencyScope::Ad, window: FrequencyWindow::MONTH, max: 2 };
        let ruled = Override { frequency: vec![rule], ..Override::default() };
        let paused = Override { status: Some(Status::Paused), ..Override::default() };
        let book = Book::new(1, 7, vec![(9, ruled.clone()), (3, paused.clone()), (2, ruled.clone())]);
        assert_eq!(rules(&book), [(2, vec![rule]), (9, vec![rule])]);
        assert!(touches_rules(&book, 6, &Said::new()), "nobody knows what was before");
        let next = |rows| match book.read(News { formation: 1, version: 8, since: 7, rows }) {
            Read::Book(next) => next,
            refused @ (Read::Old | Read::Gap) => panic!("{refused:?}"),
        };
        let said = rules(&book);
        assert!(!touches_rules(&next(vec![(3, Override::default()), (4, paused.clone())]), 7, &said));
        for row in [(4, ruled), (9, paused)] {
            assert!(touches_rules(&next(vec![row]), 7, &said));
        }
    }
}
