//! Asks a router for a probe and turns its answer into values.

use super::cascade::Users;
use super::oracle::{Ad, Apart, Mechanism, Rule};
use super::{Probed, ProbedShard, TruthArgs};
use crate::transport::{TransportError, ad_request, connect, members};
use crate::workload::TimedRequest;
use gavel_proto::cut::SPARE;
use gavel_proto::hash::TieKey;
use gavel_proto::limits::MEASURED_BYTES_MAX;
use gavel_proto::money::BidType;
use gavel_proto::score::CPM_WEIGHT;
use gavel_proto::wire;
use gavel_proto::wire::probe_service_client::ProbeServiceClient;
use tonic::transport::Channel;

/// Probes may scan a million items on one busy core.
const DEADLINE_MS: u32 = 500;

/// A connection to the router that is probed.
pub struct Prober {
    client: ProbeServiceClient<Channel>,
}

impl Prober {
    /// Connects to a live router that `control` knows; `None` when there is none.
    pub async fn connect(control: &str) -> Result<Option<Self>, TransportError> {
        let Some(router) = members(control).await?.into_iter().find(|m| m.role == "router") else { return Ok(None) };
        let client =
            ProbeServiceClient::new(connect(&router.address).await?).max_decoding_message_size(MEASURED_BYTES_MAX);
        Ok(Some(Self { client }))
    }

    /// Has one request answered twice; `None` when a shard did not answer in full or in time, or when more winners could
    /// not be served than lists have ads to spare: nothing can be compared.
    pub async fn probe(
        &mut self,
        request: &TimedRequest,
        seed: u64,
        args: &TruthArgs,
    ) -> Result<Option<Probed>, String> {
        let mut request = ad_request(request, 0, DEADLINE_MS, 1.0);
        request.seed = seed;
        let asked = wire::ProbeRequest { request: Some(request), top: args.top, exhaustive: args.exhaustive };
        match self.client.probe(asked).await {
            Ok(answer) if answer.get_ref().removed_ad.len() > SPARE => Ok(None),
            Ok(answer) => probed(answer.into_inner()).map(Some),
            Err(status) if is_incomplete(&status) => Ok(None),
            Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
        }
    }
}

/// A router's own word; a connection that is gone has a source.
fn is_incomplete(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded)
        && std::error::Error::source(status).is_none()
}

fn probed(answer: wire::ProbeResponse) -> Result<Probed, String> {
    let rule = answer.rule.ok_or("the answer has no rule")?;
    let response = answer.response.ok_or("the answer has no response")?;
    let tie_key = <[u8; 32]>::try_from(rule.tie_key.as_slice()).map_err(|_| "the rule has no tie key")?;
    let mechanism = match rule.mechanism {
        1 => Mechanism::Gsp,
        2 => Mechanism::Vcg,
        3 => Mechanism::FirstPrice,
        other => return Err(format!("mechanism {other} is not compared")),
    };
    let mut slate: Vec<(u32, u64, u64)> = Vec::new();
    for entry in response.slate {
        if let Some(wire::slate_entry::Entry::Ad(winner)) = entry.entry {
            slate.push((winner.slot, winner.ad_id, winner.price_micros));
        }
    }
    slate.sort_unstable();
    Ok(Probed {
        rule: Rule {
            mechanism,
            slots: rule.slots as usize,
            per_advertiser: rule.per_advertiser.max(1) as usize,
            per_category: rule.per_category as usize,
            apart: match rule.neighbours() {
                wire::Neighbours::Any => Apart::No,
                wire::Neighbours::Apart => Apart::Yes,
            },
            factors: rule.position_factors_ppm,
            tie_key: TieKey::from_bytes(tie_key),
            auction_id: rule.auction_id,
            page_threshold: i128::from(rule.page_threshold_cpm_micros) * i128::from(CPM_WEIGHT),
        },
        users: if rule.cascade_ppm == 0 { Users::Separable } else { Users::Cascade },
        removed: answer.removed_ad,
        slate: slate.into_iter().map(|(_, ad, price)| (ad, price)).collect(),
        shards: answer.shards.into_iter().map(shard).collect::<Result<_, _>>()?,
    })
}

fn shard(shard: wire::ProbeShard) -> Result<ProbedShard, String> {
    Ok(ProbedShard {
        plan: shard.plan,
        eligible_items: shard.eligible_items,
        served: shard.served_item,
        exact: shard.exact_item.into_iter().zip(shard.exact_similarity).collect(),
        goes_on_ppm: shard.scored.iter().map(|ad| ad.continuation_ppm).collect(),
        scored: shard.scored.into_iter().map(scored).collect::<Result<_, _>>()?,
        exhaustive: shard.exhaustive.into_iter().map(scored).collect::<Result<_, _>>()?,
    })
}

fn scored(ad: wire::ProbeAd) -> Result<Ad, String> {
    let bid_type = i32::try_from(ad.bid_type).ok().and_then(BidType::from_number);
    Ok(Ad {
        ad: ad.ad_id,
        advertiser: ad.advertiser_id,
        category: ad.limit_category,
        bid_type: bid_type.ok_or_else(|| format!("ad {}: bid type {} is unknown", ad.ad_id, ad.bid_type))?,
        bid: ad.bid_micros,
        weight: ad.weight,
        event_weight: ad.event_weight,
        click_weight: ad.click_weight,
        value: (i128::from(ad.value_high) << 64) | i128::from(ad.value_low),
        reserve: ad.reserve_micros,
    })
}
