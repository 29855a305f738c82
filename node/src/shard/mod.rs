//! What does a reader of this shard see right now?
//!
//! One immutable snapshot: sealed content and its model folder, an exact delta of recent documents, and
//! tombstones over the sealed ads. A change makes a new snapshot that shares everything it did not touch;
//! whoever holds the old one keeps it. Ordinals run over the sealed items first and the delta's after them,
//! and likewise for ads; [`Shard::item`] and [`Shard::ad`] say whose they are.
//!
//! In this version the catalogue changes by generations only, so no RPC feeds the delta; it is exact and
//! tested for the day when a document log does.

mod delta;

pub use delta::{DeltaDocument, DeltaSpec};

use crate::segment::{Bitset, Content, EligibleAds, ModelFolder, Refusal, Residency, SegmentError, TargetingQuery};
use delta::Delta;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use std::{ops::Range, sync::Arc};

/// An immutable picture of a shard.
#[derive(Clone)]
pub struct Shard {
    content: Arc<Content>,
    model: Arc<ModelFolder>,
    delta: Arc<Delta>,
    /// Sealed ads that are gone or stand in the delta anew.
    tombstones: Arc<Bitset>,
}

impl Shard {
    /// A shard without changes; refused when the two were not made for each other.
    pub fn sealed(content: Arc<Content>, model: Arc<ModelFolder>) -> Result<Self, SegmentError> {
        if model.content() != content.hash() {
            return Err(SegmentError::Refused("a model folder of other content".into()));
        }
        let delta = Arc::new(Delta::empty(content.key(), DeltaSpec::of(&model), content.zones())?);
        let tombstones = Arc::new(Bitset::empty(content.ads()));
        Ok(Self { content, model, delta, tombstones })
    }

    /// The snapshot after these changes; a deletion of what is not there changes nothing.
    pub fn apply(&self, upserts: Vec<DeltaDocument>, deletions: &[ItemId]) -> Result<Self, SegmentError> {
        let mut tombstones = Bitset::clone(&self.tombstones);
        let changed = upserts.iter().map(|document| document.item.item).chain(deletions.iter().copied());
        for item in changed.filter_map(|id| self.content.find_item(id)) {
            self.content.ads_of(item).for_each(|ad| tombstones.insert(ad));
        }
        let delta = Arc::new(self.delta.with(upserts, deletions)?);
        Ok(Self { delta, tombstones: Arc::new(tombstones), ..self.clone() })
    }

    /// The sealed content.
    #[must_use]
    pub const fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// The sealed model folder.
    #[must_use]
    pub const fn model(&self) -> &Arc<ModelFolder> {
        &self.model
    }

    /// The delta's vectors.
    pub(crate) fn delta_rows(&self) -> &[u8] {
        self.delta.rows()
    }

    /// The same of the second column.
    pub(crate) fn delta_full_rows(&self) -> &[u8] {
        self.delta.full_rows()
    }

    /// Items, sealed and in the delta; sealed items whose ads are all gone count until the next seal.
    #[must_use]
    pub fn items(&self) -> u32 {
        self.content.items() + self.delta.content().items()
    }

    /// Ads, likewise.
    #[must_use]
    pub fn ads(&self) -> u32 {
        self.content.ads() + self.delta.content().ads()
    }

    /// Whose item this is: the content that holds it and its ordinal there.
    #[inline]
    #[must_use]
    pub fn item(&self, item: u32) -> (&Content, u32) {
        match item.checked_sub(self.content.items()) {
            None => (&self.content, item),
            Some(local) => (self.delta.content(), local),
        }
    }

    /// Whose ad this is: the content that holds it and its ordinal there.
    #[inline]
    #[must_use]
    pub fn ad(&self, ad: u32) -> (&Content, u32) {
        match ad.checked_sub(self.content.ads()) {
            None => (&self.content, ad),
            Some(local) => (self.delta.content(), local),
        }
    }

    /// The id of an item.
    #[must_use]
    pub fn item_id(&self, item: u32) -> ItemId {
        let (content, local) = self.item(item);
        content.item_id(local)
    }

    /// The ordinal of an item, the delta's first: it is the newer one.
    #[must_use]
    pub fn find_item(&self, item: ItemId) -> Option<u32> {
        let newer = self.delta.content().find_item(item).map(|local| local + self.content.items());
        newer.or_else(|| self.content.find_item(item))
    }

    /// Who pays for an item's ads.
    #[must_use]
    pub fn advertiser(&self, item: u32) -> AdvertiserId {
        let (content, local) = self.item(item);
        content.advertiser(local)
    }

    /// The hash of the category that an item's ads are limited by; 0 = none.
    #[must_use]
    pub fn limit_category(&self, item: u32) -> u64 {
        let (content, local) = self.item(item);
        content.limit_category(local)
    }

    /// The ads of an item, eligible or not.
    #[must_use]
    pub fn ads_of(&self, item: u32) -> Range<u32> {
        let (content, local) = self.item(item);
        let offset = if item < self.content.items() { 0 } else { self.content.ads() };
        let ads = content.ads_of(local);
        ads.start + offset..ads.end + offset
    }

    /// The item of an ad.
    #[must_use]
    pub fn item_of(&self, ad: u32) -> u32 {
        let (content, local) = self.ad(ad);
        let offset = if ad < self.content.ads() { 0 } else { self.content.items() };
        content.item_of(local) + offset
    }

    /// The id of an ad.
    #[must_use]
    pub fn ad_id(&self, ad: u32) -> AdId {
        let (content, local) = self.ad(ad);
        content.ad_id(local)
    }

    /// The campaign of an ad.
    #[must_use]
    pub fn campaign(&self, ad: u32) -> CampaignId {
        let (content, local) = self.ad(ad);
        content.campaign(local)
    }

    /// The line of an ad: its campaign and ad group.
    #[must_use]
    pub fn line(&self, ad: u32) -> (u64, u64) {
        let (content, local) = self.ad(ad);
        content.line(content.line_place(local))
    }

    /// The ads of the line at a place in the sealed content, ascending.
    pub fn ads_of_line(&self, place: u32) -> impl Iterator<Item = u32> + '_ {
        let (offset, delta) = (self.content.ads(), self.delta.content());
        let newer: &[u32] = delta.find_line(self.content.line(place)).map_or(&[], |place| delta.ads_of_line(place));
        self.content.ads_of_line(place).iter().copied().chain(newer.iter().map(move |ad| ad + offset))
    }

    /// Appends these columns of an item's activations; nothing when there is no such item, or no such column.
    #[inline]
    pub fn append_activations(&self, item: u32, columns: Range<usize>, out: &mut Vec<f32>) {
        match item.checked_sub(self.content.items()) {
            None => self.model.append_activations(item, columns, out),
            Some(local) => out.extend_from_slice(self.delta.activations_row(local).get(columns).unwrap_or(&[])),
        }
    }

    /// The ads that a request may see, exactly; `excluded` is over this shard's ads.
    #[must_use]
    pub fn eligible(&self, query: &TargetingQuery<'_>) -> EligibleAds {
        let mut sealed = self.content.eligible(query);
        sealed.ads.subtract(&self.tombstones);
        let mut ads = sealed.ads.extended(self.ads());
        let offset = self.content.ads();
        let newer = TargetingQuery { excluded: None, counted: None, leased: None, ..*query };
        let newer = self.delta.content().eligible(&newer);
        let is_out = |ad| query.taken_out().any(|out| out.contains(ad));
        for ad in newer.ads.iter().map(|ad| ad + offset) {
            if !is_out(ad) {
                ads.insert(ad);
            }
        }
        let count = ads.count();
        EligibleAds { ads, count }
    }

    /// The ads whose targeting alone admits the request; what [`Self::refusal`] wants to know.
    #[must_use]
    pub fn admitted(&self, query: &TargetingQuery<'_>) -> Bitset {
        let mut ads = self.content.admitted(query).extended(self.ads());
        let offset = self.content.ads();
        self.delta.content().admitted(query).iter().for_each(|ad| ads.insert(ad + offset));
        ads
    }

    /// Why an ad is not eligible; `None` when it is. A tombstone counts as excluded. `admitted` is
    /// [`Self::admitted`] of the same query: an explanation asks for every ad, and makes it once.
    #[must_use]
    pub fn refusal(&self, ad: u32, query: &TargetingQuery<'_>, admitted: &Bitset) -> Option<Refusal> {
        if !admitted.contains(ad) {
            return Some(Refusal::Targeting);
        }
        let (content, local) = self.ad(ad);
        let is_in = |set: Option<&Bitset>| set.is_some_and(|set| set.contains(ad));
        let gone = self.tombstones.contains(ad) || is_in(query.excluded);
        let counted = || is_in(query.counted).then_some(Refusal::Capped);
        match content.blocked(local, query) {
            // What its campaign does says more than what this user has seen.
            Some(Refusal::Capped) | None if gone => Some(Refusal::Excluded),
            Some(Refusal::Capped) | None if is_in(query.leased) => Some(Refusal::Unleased),
            blocked => blocked.or_else(counted),
        }
    }

    /// What the targeting of an ad does not admit in the request, in words; `None` when it admits it.
    #[must_use]
    pub fn unmet(&self, ad: u32, query: &TargetingQuery<'_>) -> Option<String> {
        let (content, local) = self.ad(ad);
        content.unmet(local, query)
    }

    /// The sealed and the delta's items that have one of these ads, each by its own ordinals.
    pub(crate) fn items_of(&self, ads: &Bitset) -> (Bitset, Bitset) {
        let (sealed_ads, delta_ads) = (self.content.ads(), self.delta.content().ads());
        let mut newer = Bitset::empty(delta_ads);
        (0..delta_ads).filter(|ad| ads.contains(ad + sealed_ads)).for_each(|ad| newer.insert(ad));
        (self.content.items_of(&ads.truncated(sealed_ads)), self.delta.content().items_of(&newer))
    }

    /// How much memory the recent documents take.
    #[must_use]
    pub fn delta_residency(&self) -> Residency {
        self.delta.residency()
    }

    /// How much of it is in memory.
    #[must_use]
    pub fn residency(&self) -> Residency {
        self.content.residency().plus(self.model.residency()).plus(self.delta.residency())
    }

    /// Reads every page, so that the first request does not wait for the disk.
    pub fn prefault(&self) {
        self.content.prefault();
        self.model.prefault();
    }
}
