//! Which ads does this request get?

use crate::transport::{self, ClientError};
use gavel_proto::limits::INTERNAL_MESSAGE_BYTES_MAX;
use gavel_proto::wire::ad_service_client::AdServiceClient;
use gavel_proto::wire::{AdRequest, AdResponse, ExplainResponse};
use std::time::Duration;
use tonic::transport::Channel;

/// Added to the request's own deadline, for the way there and back.
const WAY: Duration = Duration::from_secs(1);
/// Deadline of a request that names none.
const DEADLINE_DEFAULT: Duration = Duration::from_millis(100);

/// Asks one router.
#[derive(Clone, Debug)]
pub struct AdsClient {
    inner: AdServiceClient<Channel>,
}

impl AdsClient {
    /// A client of the router at `host:port`; it connects with the first request.
    ///
    /// # Errors
    /// When it is no address.
    pub fn connect(address: &str) -> Result<Self, ClientError> {
        let inner = AdServiceClient::new(transport::channel(address)?);
        Ok(Self { inner: inner.max_decoding_message_size(INTERNAL_MESSAGE_BYTES_MAX) })
    }

    /// The slate for one request.
    ///
    /// # Errors
    /// The router's status, as documented with the endpoint.
    pub async fn ads(&mut self, request: AdRequest) -> Result<AdResponse, ClientError> {
        let mut timed = tonic::Request::new(request);
        let own = Duration::from_millis(timed.get_ref().deadline_ms.into());
        timed.set_timeout(if own.is_zero() { DEADLINE_DEFAULT } else { own } + WAY);
        Ok(self.inner.get_ads(timed).await?.into_inner())
    }

    /// The same with the reasons of every stage.
    ///
    /// # Errors
    /// The router's status, as documented with the endpoint.
    pub async fn explain(&mut self, request: AdRequest) -> Result<ExplainResponse, ClientError> {
        Ok(self.inner.explain(request).await?.into_inner())
    }
}
