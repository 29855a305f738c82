//! Which documents came after the seal?
//!
//! A few thousand at most, scanned exactly. The documents themselves are kept and everything derived from
//! them is made anew for each change: simple, and a delta stays small by being sealed. Its content is the
//! same kind of content as a sealed one, in memory, so every reader works on both.

use crate::segment::{
    Content, DocAd, DocItem, DocZone, ModelFolder, Residency, SegmentError, ShardKey,
    content_builder::content_in_memory,
    vectors::{Encoding, prepare},
};
use gavel_proto::ids::ItemId;
use std::{collections::BTreeMap, sync::Arc};

/// An item with its ads and what the model says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaDocument {
    /// The item.
    pub item: DocItem,
    /// All of its ads.
    pub ads: Vec<DocAd>,
    /// Its vector.
    pub vector: Vec<f32>,
    /// Its activations.
    pub activations: Vec<f32>,
}

/// The shape that documents must have.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaSpec {
    encoding: Encoding,
    full: Option<Encoding>,
    activation_width: usize,
}

impl DeltaSpec {
    /// The shape of a model folder.
    #[must_use]
    pub fn of(model: &ModelFolder) -> Self {
        let (encoding, full) = model.encodings();
        Self { encoding: encoding.clone(), full: full.cloned(), activation_width: model.activation_width() }
    }
}

/// Recent documents, ready to be searched.
pub(crate) struct Delta {
    key: ShardKey,
    spec: DeltaSpec,
    /// Those of the sealed content.
    zones: Arc<Vec<DocZone>>,
    documents: BTreeMap<ItemId, Arc<DeltaDocument>>,
    content: Content,
    rows: Vec<u8>,
    full_rows: Vec<u8>,
    activations: Vec<f32>,
}

impl Delta {
    pub(crate) fn empty(key: ShardKey, spec: DeltaSpec, zones: Vec<DocZone>) -> Result<Self, SegmentError> {
        Self::of(key, spec, Arc::new(zones), BTreeMap::new())
    }

    /// The delta after these changes.
    pub(crate) fn with(&self, upserts: Vec<DeltaDocument>, deletions: &[ItemId]) -> Result<Self, SegmentError> {
        let mut documents = self.documents.clone();
        for item in deletions {
            documents.remove(item);
        }
        for mut document in upserts {
            document.ads.sort_by_key(|ad| ad.ad);
            if document.ads.iter().any(|ad| ad.item != document.item.item) {
                return Err(SegmentError::Refused(format!("an ad that is not of item {}", document.item.item)));
            }
            documents.insert(document.item.item, Arc::new(document));
        }
        Self::of(self.key, self.spec.clone(), Arc::clone(&self.zones), documents)
    }

    fn of(
        key: ShardKey,
        spec: DeltaSpec,
        zones: Arc<Vec<DocZone>>,
        documents: BTreeMap<ItemId, Arc<DeltaDocument>>,
    ) -> Result<Self, SegmentError> {
        let (mut rows, mut full_rows, mut activations) = (Vec::new(), Vec::new(), Vec::new());
        for document in documents.values() {
            let finite = document.activations.iter().all(|x| x.is_finite());
            if document.activations.len() != spec.activation_width || !finite {
                return Err(SegmentError::Refused(format!("activations of item {}", document.item.item)));
            }
            let vector = prepare(&document.vector, spec.encoding.dimension, spec.encoding.metric)?;
            spec.encoding.encode(&vector, &mut rows);
            if let Some(full) = &spec.full {
                full.encode(&vector, &mut full_rows);
            }
            activations.extend_from_slice(&document.activations);
        }
        let items = documents.values().map(|d| d.item.clone());
        let ads = documents.values().flat_map(|d| d.ads.iter().cloned());
        let content = content_in_memory(key, zones.iter().cloned(), items, ads)?;
        Ok(Self { key, spec, zones, documents, content, rows, full_rows, activations })
    }

    pub(crate) const fn content(&self) -> &Content {
        &self.content
    }

    /// The vectors, as a model folder of the same shape stores them.
    pub(crate) fn rows(&self) -> &[u8] {
        &self.rows
    }

    /// The same of its second column; empty when it has none.
    pub(crate) fn full_rows(&self) -> &[u8] {
        &self.full_rows
    }

    pub(crate) fn activations_row(&self, item: u32) -> &[f32] {
        let start = item as usize * self.spec.activation_width;
        self.activations.get(start..start + self.spec.activation_width).unwrap_or(&[])
    }

    pub(crate) fn residency(&self) -> Residency {
        let owned = (self.rows.len() + self.full_rows.len() + self.activations.len() * 4) as u64;
        self.content.residency().plus(Residency { owned, ..Residency::default() })
    }
}
