//! What is on this node's disk of a shard, and is it what was sealed?
//!
//! A shard is two sealed folders. `content/` holds what does not depend on a model: ids, features,
//! targeting, creatives ([`ContentBuilder`], [`Content`]). `model/<bundle>/` holds what does: vectors with
//! their graph, and activations ([`ModelFolderBuilder`], [`ModelFolder`]); its manifest names the hash of
//! the content that it was made of. A folder is written once, checksummed whole, renamed into place, mapped
//! read-only and never written again (SE1).
//!
//! ```text
//! let key = ShardKey { generation, shard };
//! let mut builder = ContentBuilder::new(&dir.join("content"), key)?;      // items by id, ads by (item, ad)
//! builder.push_item(doc_item)?; builder.push_ad(&doc_ad)?; builder.seal()?;
//! let content = Arc::new(Content::open(&dir.join("content"), key)?);      // verifies every byte
//! let mut model = ModelFolderBuilder::new(&dir.join("model").join(hash), &content, spec)?;
//! model.push(&vectors, &activations)?;                                    // any number of items, in order
//! model.seal(&cpu_us)?;                                                   // calibrates the planner
//! let model = Arc::new(ModelFolder::open(&dir.join("model").join(hash), &content, bundle)?);
//! let shard = Shard::sealed(content, model)?;                             // crate::shard
//! shard.prefault();                                                       // before it reports ready
//! let found = retrieve(&shard, &query, &mut scratch)?;                    // crate::retrieval
//! ```
//!
//! Not here: wire types, clocks, async. The layout byte by byte is in `docs/segment-format.md`.

pub mod bitset;
pub mod calibrate;
pub mod columns;
pub mod container;
pub mod content;
pub mod content_builder;
pub mod document;
pub mod error;
pub mod model_builder;
pub mod model_folder;
pub mod observed;
pub mod postings;
pub mod residency;
pub mod scan;
pub mod schedules;
pub mod vectors;
pub mod walk;
pub mod yardstick;

mod activations;
mod checkpoint;
mod codec;
mod creatives;
mod folder;
mod graph;
mod kernel;
mod lines;
mod linkage;
mod linker;
mod lookup;
mod posting_table;
mod quantize;
mod ranges;
mod roaring_view;

pub use bitset::Bitset;
pub use calibrate::Calibration;
pub use columns::{ColumnKind, ColumnName, SetColumn};
pub use container::ShardKey;
pub use content::{Content, EligibleAds, Refusal, TargetingQuery};
pub use content_builder::{ContentBuilder, ContentSummary};
pub use document::{Creative, DocAd, DocFeature, DocItem, DocRule, DocSchedule};
pub use error::SegmentError;
pub use folder::BUILDING;
pub use model_builder::{ModelFolderBuilder, ModelSpec, ModelSummary};
pub use model_folder::ModelFolder;
pub use observed::{Observed, Way};
pub use postings::{Stated, Term, Unmet};
pub use residency::{Residency, folder_bytes};
pub use scan::{Searched, TopK};
pub use schedules::DocZone;
pub use vectors::{Metric, VectorFormat};
pub use walk::Density;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_checkpoint;
#[cfg(test)]
mod tests_of_graph;
#[cfg(test)]
mod tests_of_targeting;
