//! How does a node tell another one what it counted?

use super::convert::{self, CopyMessage};
use gavel_member::transport::MESSAGE_BYTES_MAX;
use gavel_proto::wire::frequency_service_client::FrequencyServiceClient;
use std::time::Duration;
use tonic::transport::Channel;

/// Longest wait: a message is applied in a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends a message; it has been applied when this returns well.
///
/// # Errors
/// What the connection or the node said, in words.
pub async fn send(channel: Channel, message: &CopyMessage) -> Result<(), String> {
    let mut client = FrequencyServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut request = tonic::Request::new(convert::copy_to_wire(message));
    request.set_timeout(PATIENCE);
    match tokio::time::timeout(PATIENCE, client.copy(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
