//! How does a program use a Gavel cluster?
//!
//! [`AdsClient`] asks for ads, [`AdminClient`] operates the cluster, and [`catalogue`] turns files of documents into
//! the blobs of a catalogue generation. The messages are those of the published `.proto` files: an SDK that hid them
//! behind its own types would have two of everything.

pub mod admin;
pub mod ads;
pub mod campaigns;
pub mod catalogue;
pub mod ledger;
pub mod transport;
pub mod upload;

pub use admin::AdminClient;
pub use ads::AdsClient;
pub use campaigns::CampaignClient;
pub use ledger::LedgerClient;
pub use transport::ClientError;
