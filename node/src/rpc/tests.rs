//! What a router gets for right and for wrong calls.

use std::sync::Arc;

use gavel_proto::limits::{BLOCKED_MAX, EXCLUDED_CAMPAIGNS_MAX};
use gavel_proto::wire;
use gavel_proto::wire::AnswerStatus;
use gavel_proto::wire::shard_service_server::ShardService;
use tokio::sync::watch;
use tonic::{Code, Request};

use super::ShardRpc;
use crate::config::OraclePolicy;
use crate::pipeline::executor::SearchExecutor;
use crate::pipeline::fixture::{EPOCH, SHARD, STAGED, Staged};
use crate::pipeline::probe::{ProbeSpec, RecallProbe};

fn service(staged: &Staged) -> ShardRpc {
    let probe = RecallProbe::start(ProbeSpec { every: 1, alarm: 0.95 }).unwrap();
    ShardRpc {
        holdings: Arc::clone(&staged.holdings),
        executor: Arc::new(SearchExecutor::start(2, 16, probe).unwrap()),
        member_id: watch::channel(77).1,
        oracle: OraclePolicy::Refused,
    }
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn request(staged: &Staged) -> wire::SearchRequest {
    let (target, search) = (staged.target(), staged.search());
    let terms = search.terms.iter().map(|t| wire::HashedTerm {
        dimension: t.dimension,
        values: t.values.clone(),
        number: None,
    });
    wire::SearchRequest {
        auction_id: 5,
        epoch: Some(EPOCH.into()),
        shards: vec![SHARD],
        deadline_us: 400_000,
        model_hash: staged.hash.to_vec(),
        partition_hash: target.loaded.bundle.bundle.partition_hash().to_vec(),
        query_vector: bytes(&search.query),
        user_part: bytes(&search.user_part),
        terms: terms.collect(),
        quota: 100,
        light_keep: 50,
        auction: Some(wire::AuctionShape { slots: 4, per_advertiser: 1, tie_key: vec![6; 32], ..Default::default() }),
        ..Default::default()
    }
}

async fn status_of(service: &ShardRpc, request: wire::SearchRequest) -> AnswerStatus {
    let response = service.search(Request::new(request)).await.expect("answered").into_inner();
    response.answers[0].status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_call_is_answered_in_columns() {
    let staged = &*STAGED;
    let service = service(staged);
    let response = service.search(Request::new(request(staged))).await.expect("answered").into_inner();
    let answer = &response.answers[0];
    assert_eq!((response.node_id, answer.shard, answer.status()), (77, SHARD, AnswerStatus::AnswerOk), "{answer:?}");
    assert_eq!(answer.epoch, Some(EPOCH.into()));
    let candidates = answer.candidates.as_ref().unwrap();
    let rows = candidates.ad_id.len();
    assert!(rows >= 7, "{rows}");
    assert_eq!(candidates.weight.len(), rows);
    assert_eq!(candidates.value_high.len(), rows);
    assert_eq!(candidates.predictions.len(), rows * candidates.heads.len());
    let keys = candidates.item_id.iter().map(|item| wire::HydrateKey { shard: SHARD, item_id: *item });
    let hydrate = wire::HydrateRequest { epoch: Some(EPOCH.into()), deadline_us: 400_000, keys: keys.collect() };
    let items = service.hydrate(Request::new(hydrate)).await.expect("hydrated").into_inner().items;
    assert_eq!(items.len(), rows);
    assert!(items[0].creative.as_ref().unwrap().title.starts_with("item "));
    let keys = vec![wire::HydrateKey { shard: SHARD, item_id: 1_000 }; 17];
    let many = wire::HydrateRequest { epoch: Some(EPOCH.into()), deadline_us: 400_000, keys };
    assert_eq!(service.hydrate(Request::new(many)).await.expect_err("refused").code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_call_is_told_so() {
    let staged = &*STAGED;
    let (service, right) = (service(staged), request(staged));
    let unavailable = AnswerStatus::AnswerVersionUnavailable;
    let epoch = |change: fn(&mut wire::Epoch)| {
        let mut epoch = wire::Epoch::from(EPOCH);
        change(&mut epoch);
        wire::SearchRequest { epoch: Some(epoch), ..right.clone() }
    };
    assert_eq!(status_of(&service, epoch(|e| e.generation += 1)).await, unavailable);
    assert_eq!(status_of(&service, epoch(|e| e.delivery_version += 1)).await, unavailable);
    assert_eq!(status_of(&service, epoch(|e| e.map_epoch += 1)).await, AnswerStatus::AnswerOk);
    let other = wire::SearchRequest { model_hash: vec![1; 32], ..right.clone() };
    assert_eq!(status_of(&service, other).await, unavailable);
    let other = wire::SearchRequest { partition_hash: vec![1; 32], ..right.clone() };
    assert_eq!(status_of(&service, other).await, unavailable);
    let other = wire::SearchRequest { shards: vec![SHARD + 1], ..right.clone() };
    assert_eq!(status_of(&service, other).await, AnswerStatus::AnswerNotHeld);

    let shape = right.auction.clone().unwrap_or_default();
    let mut nan = right.clone();
    nan.query_vector[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let set = wire::UserSet { feature: "bought".to_owned(), values: vec![1], weights: vec![f32::INFINITY] };
    let wrong: Vec<wire::SearchRequest> = vec![
        nan,
        wire::SearchRequest { user_sets: vec![set], ..right.clone() },
        wire::SearchRequest { query_vector: vec![0; 12], ..right.clone() },
        wire::SearchRequest { user_part: vec![0; 3], ..right.clone() },
        wire::SearchRequest { model_hash: vec![0; 31], ..right.clone() },
        wire::SearchRequest { epoch: None, ..right.clone() },
        wire::SearchRequest { shards: vec![], ..right.clone() },
        wire::SearchRequest { shards: vec![1, 1], ..right.clone() },
        wire::SearchRequest { deadline_us: 0, ..right.clone() },
        wire::SearchRequest { quota: 0, ..right.clone() },
        wire::SearchRequest { quota: 1_001, ..right.clone() },
        wire::SearchRequest { light_keep: u32::MAX, ..right.clone() },
        wire::SearchRequest { auction: None, ..right.clone() },
        wire::SearchRequest { auction: Some(wire::AuctionShape { tie_key: vec![6; 31], ..shape }), ..right.clone() },
        wire::SearchRequest { mode: 9, ..right.clone() },
        wire::SearchRequest { blocked_campaigns: vec![1; BLOCKED_MAX + EXCLUDED_CAMPAIGNS_MAX + 1], ..right.clone() },
        wire::SearchRequest { return_all_scored: true, ..right.clone() },
    ];
    for (at, request) in wrong.into_iter().enumerate() {
        let status = service.search(Request::new(request)).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "call {at}");
    }
}
