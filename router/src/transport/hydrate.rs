//! What do the winners look like?
//!
//! Creatives are fetched after the cut, from the nodes that answered, for the winners only. A creative that does not
//! come in time is left out of the slate entry; the ad and its price stand.

use super::search::Transport;
use gavel_proto::epoch::Epoch;
use gavel_proto::ids::{ItemId, MemberId, ShardId};
use gavel_proto::wire;
use gavel_proto::wire::shard_service_client::ShardServiceClient;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// What people see of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Creative {
    /// Headline.
    pub title: String,
    /// Landing page.
    pub url: String,
    /// Picture.
    pub image_url: String,
}

/// Where to ask for an item's creative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreativeKey {
    /// Who answered its shard.
    pub node: MemberId,
    /// Its shard.
    pub shard: ShardId,
    /// The item.
    pub item: ItemId,
}

impl Transport {
    /// The creatives that come within `budget_us`.
    pub async fn creatives(&self, keys: &[CreativeKey], epoch: Epoch, budget_us: u64) -> HashMap<ItemId, Creative> {
        let mut by_node: HashMap<MemberId, Vec<wire::HydrateKey>> = HashMap::new();
        for key in keys {
            let wanted = wire::HydrateKey { shard: key.shard.0, item_id: key.item.0 };
            by_node.entry(key.node).or_default().push(wanted);
        }
        let mut calls = JoinSet::new();
        for (node, keys) in by_node {
            let Some(channel) = self.channel(node) else { continue };
            // A tenth is kept for the way back (RQ2).
            let deadline_us = budget_us - budget_us / 10;
            let message = wire::HydrateRequest { epoch: Some(epoch.into()), deadline_us, keys };
            calls.spawn(async move {
                let mut client = ShardServiceClient::new(channel)
                    .max_decoding_message_size(gavel_member::transport::MESSAGE_BYTES_MAX);
                let mut request = tonic::Request::new(message);
                request.set_timeout(Duration::from_micros(deadline_us));
                client.hydrate(request).await
            });
        }
        let mut creatives = HashMap::new();
        let collect = async {
            while let Some(reply) = calls.join_next().await {
                match reply {
                    Ok(Ok(reply)) => creatives.extend(reply.into_inner().items.into_iter().filter_map(creative)),
                    Ok(Err(status)) => tracing::debug!(%status, "creatives did not come"),
                    Err(error) => tracing::error!(%error, "a call for creatives was lost"),
                }
            }
        };
        if tokio::time::timeout(Duration::from_micros(budget_us), collect).await.is_err() {
            tracing::debug!("creatives came too late");
        }
        creatives
    }
}

fn creative(item: wire::HydratedItem) -> Option<(ItemId, Creative)> {
    let creative = item.creative?;
    let creative = Creative { title: creative.title, url: creative.url, image_url: creative.image_url };
    Some((ItemId(item.item_id), creative))
}
