//! Which object store do the voters share?

use clap::{Args, ValueEnum};
use gavel_control::blobs::{Addressing, StoreLocation};

/// Where bundles and catalogues are kept; credentials come from the environment (AWS_ACCESS_KEY_ID, ...).
#[derive(Clone, Debug, Args)]
pub struct BlobStoreArgs {
    /// Keep bundles and catalogues in s3://BUCKET/PREFIX, or in file:///PATH on a disk that all voters share.
    #[arg(long, env = "GAVEL_BLOB_STORE", value_name = "URL")]
    pub blob_store: Option<String>,
    /// Another server than Amazon's: http://HOST:PORT or https://HOST.
    #[arg(long, env = "GAVEL_BLOB_STORE_ENDPOINT", value_name = "URL", requires = "blob_store")]
    pub blob_store_endpoint: Option<String>,
    /// The region of the bucket.
    #[arg(long, env = "GAVEL_BLOB_STORE_REGION", value_name = "NAME", requires = "blob_store")]
    pub blob_store_region: Option<String>,
    /// Where a request names the bucket.
    #[arg(long, value_enum, default_value_t = BucketIn::Path, requires = "blob_store")]
    pub blob_store_addressing: BucketIn,
}

/// Where a request names the bucket.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BucketIn {
    /// In its path.
    Path,
    /// In the name of the host.
    Host,
}

impl BlobStoreArgs {
    /// The store, if there is one.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn location(&self) -> Result<Option<StoreLocation>, String> {
        let addressing = match self.blob_store_addressing {
            BucketIn::Path => Addressing::Path,
            BucketIn::Host => Addressing::Host,
        };
        let (endpoint, region) = (self.blob_store_endpoint.clone(), self.blob_store_region.clone());
        let parse = |url: &String| StoreLocation::parse(url, endpoint, region, addressing);
        self.blob_store.as_ref().map(parse).transpose()
    }
}
