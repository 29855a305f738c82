//! Does a request pass every stage, with the demo's model and a node that answers as told?

use super::*;
use crate::respond::Entry;
use crate::rpc::AdRpc;
use crate::staging::Surroundings;
use crate::transport::Nodes;
use gavel_member::delivery::DeliveryFeed;
use gavel_member::member::Voters;
use gavel_member::serve::{self, Exposure};
use gavel_member::view::ViewFeed;
use gavel_member::{ReadyState, Shutdown};
use gavel_model::{Bundle, bundle};
use gavel_proto::code::Code;
use gavel_proto::delivery::Book;
use gavel_proto::wire;
use gavel_proto::wire::ad_service_client::AdServiceClient;
use gavel_proto::wire::ad_service_server::AdServiceServer;
use gavel_proto::wire::shard_service_server::{ShardService, ShardServiceServer};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const GENERATION: u64 = 4;
const ADS: u64 = 30;

/// Answers three CPM bids a shard, and checks what it is asked.
struct Node {
    user_part_bytes: usize,
    /// Searches without a cut end in time by their deadline.
    hurried: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl ShardService for Node {
    async fn search(&self, request: Request<wire::SearchRequest>) -> Result<Response<wire::SearchResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.query_vector.len(), 4 * 64);
        assert_eq!(request.user_part.len(), self.user_part_bytes);
        let cut_short = request.return_all_scored && self.hurried.load(Ordering::Relaxed);
        let status = if cut_short { wire::AnswerStatus::AnswerTimedOut } else { wire::AnswerStatus::AnswerOk };
        let answer = |shard: &u32| {
            let ids: Vec<u64> = (0..3).map(|row| u64::from(*shard) * 10 + row).collect();
            let reason = |reason: &str, ads| wire::ReasonCount { reason: reason.into(), ads };
            let reasons = vec![reason("not_retrieved", ADS - 3), reason("returned", 3)];
            wire::ShardAnswer {
                shard: *shard,
                status: status.into(),
                epoch: request.epoch,
                items_seen: ADS,
                reasons: if request.explain { reasons } else { Vec::new() },
                candidates: Some(wire::Candidates {
                    item_id: ids.iter().map(|id| id + 100).collect(),
                    campaign_id: ids.clone(),
                    advertiser_id: ids.clone(),
                    limit_category: vec![0; 3],
                    bid_type: vec![1; 3],
                    bid_micros: ids.iter().map(|id| 5_000_000 - id * 1_000).collect(),
                    weight: vec![gavel_proto::score::CPM_WEIGHT; 3],
                    event_weight: vec![gavel_proto::score::CPM_WEIGHT; 3],
                    value_high: vec![0; 3],
                    value_low: vec![0; 3],
                    reserve_micros: vec![0; 3],
                    heads: vec!["click".into()],
                    predictions: vec![0.1; 3],
                    ad_id: ids,
                }),
                ..wire::ShardAnswer::default()
            }
        };
        let answers = request.shards.iter().map(answer).collect();
        Ok(Response::new(wire::SearchResponse { answers, ..wire::SearchResponse::default() }))
    }

    async fn hydrate(&self, request: Request<wire::HydrateRequest>) -> Result<Response<wire::HydrateResponse>, Status> {
        let creative = |key: &wire::HydrateKey| wire::HydratedItem {
            item_id: key.item_id,
            creative: Some(wire::Creative { title: format!("item {}", key.item_id), ..wire::Creative::default() }),
        };
        let items = request.into_inner().keys.iter().map(creative).collect();
        Ok(Response::new(wire::HydrateResponse { items }))
    }
}

/// A router over the demo bundle, taken from disk as after a restart without a control plane.
struct Fixture {
    pipeline: Arc<Pipeline>,
    ready: Arc<ReadyState>,
    grpc: AdServiceClient<tonic::transport::Channel>,
    shutdown: Shutdown,
    hurried: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

async fn start() -> Fixture {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/bootstrap/demo/bundle");
    let packed = bundle::pack_folder(&demo).expect("packs");
    let model = Bundle::open(&demo).expect("opens");
    let folder = tempfile::tempdir().expect("a folder");
    let hash = blake3::hash(&packed);
    let home = folder.path().join("bundles");
    std::fs::create_dir_all(&home).expect("made");
    bundle::unpack(&packed, &home.join(hash.to_hex().as_str())).expect("unpacks");

    let shutdown = Shutdown::new();
    let hurried = Arc::new(AtomicBool::new(false));
    let node = Node { user_part_bytes: 4 * model.user_part_width(), hurried: Arc::clone(&hurried) };
    let bound = serve::bind("127.0.0.1:0").await.expect("bound");
    let address = bound.address.to_string();
    let routes = Routes::default().add_service(ShardServiceServer::new(node));
    bound.serve(routes, Exposure::Internal, shutdown.clone()).await.expect("serves");

    let feed = Arc::new(ViewFeed::default());
    // Routers serve once the cluster has a secret for its ties.
    let keyed = view(hash, address);
    feed.offer(wire::View { map_epoch: 8, auction: Some(wire::AuctionConfig::default()), ..keyed.clone() });
    let nodes = Arc::new(Nodes::default());
    let staging = Staging::new();
    let pool = CpuPool::new("test", 1, 8, Scratch::default).expect("threads");
    let transport = Transport::new(Arc::clone(&nodes));
    let pipeline = Arc::new(Pipeline::new(
        Arc::clone(&staging),
        transport,
        pool,
        Gate::new(8),
        crate::pipeline::Logs::off(),
        crate::ledger::Bank::off(),
        1,
    ));
    let bound = serve::bind("127.0.0.1:0").await.expect("bound");
    let channel = gavel_member::transport::data_channel(&bound.address.to_string()).expect("an address");
    let routes = Routes::default().add_service(AdServiceServer::new(AdRpc(Arc::clone(&pipeline))));
    let serving = bound.serve(routes, Exposure::External, shutdown.clone()).await.expect("serves");
    let ready = Arc::new(ReadyState::new());
    let said = Arc::new(DeliveryFeed::default());
    said.offer(Book::new(0, 4, Vec::new()));
    let surroundings = Surroundings {
        delivery: said,
        data_dir: folder.path().to_path_buf(),
        view: Arc::clone(&feed),
        ready: Arc::clone(&ready),
        voters: Arc::new(Voters::new(vec!["127.0.0.1:1".into()]).expect("one")),
        health: serving.health(),
        nodes,
        bank: crate::ledger::Bank::off(),
    };
    staging.follow(surroundings, shutdown.clone());
    let mut beat = tokio::time::interval(Duration::from_millis(5));
    let loaded = async {
        while ready.snapshot().models.is_empty() {
            beat.tick().await;
        }
        assert_eq!(pipeline.serve(draft(), now()).await.expect_err("no key for ties"), RequestError::NotReady);
        feed.offer(keyed);
        while !pipeline.is_ready() {
            beat.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), loaded).await.expect("loaded");
    Fixture { pipeline, ready, grpc: AdServiceClient::new(channel), shutdown, hurried, _folder: folder }
}

fn view(hash: blake3::Hash, address: String) -> wire::View {
    let shard = |shard| wire::ShardView { shard, items: ADS, ads: ADS, serving: vec![5], ..wire::ShardView::default() };
    wire::View {
        map_epoch: 9,
        members: vec![wire::MemberView {
            member_id: 5,
            role: wire::Role::Node.into(),
            address,
            alive: true,
            ..wire::MemberView::default()
        }],
        shards: vec![shard(0), shard(1)],
        active_generation: Some(wire::Generation { generation: GENERATION, shards: 2, ..wire::Generation::default() }),
        active_model: Some(wire::ModelView {
            version: 3,
            hash: hash.as_bytes().to_vec(),
            ..wire::ModelView::default()
        }),
        placements: vec![wire::Placement { name: "home".into(), slots: 2, ..wire::Placement::default() }],
        auction: Some(wire::AuctionConfig { tie_key: vec![7; 32], ..wire::AuctionConfig::default() }),
        ..wire::View::default()
    }
}

fn draft() -> Draft {
    serde_json::from_str(r#"{"user_id": "900", "placement": "home", "context": {"hour": "17"}, "deadline_ms": 500}"#)
        .expect("a draft")
}

fn now() -> Arrival {
    Arrival { at: now_us(), patience_us: None }
}

/// One test, because the golden rows of the bundle cost a core some seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_passes_every_stage_or_is_refused() {
    let mut fixture = start().await;
    passes_every_stage(&mut fixture).await;
    refuses_what_the_active_epoch_does_not_know(&mut fixture).await;
    compares_whole_answers_only(&fixture).await;
    fixture.shutdown.trigger();
}

async fn passes_every_stage(fixture: &mut Fixture) {
    assert_eq!(fixture.ready.snapshot().generations, [GENERATION]);
    assert_eq!(fixture.ready.snapshot().models.len(), 1);

    let answer = fixture.pipeline.serve(draft(), now()).await.expect("answered");
    let winners: Vec<_> = answer
        .slate
        .iter()
        .map(|entry| match &entry.entry {
            Entry::Ad(ad) => (ad.ad_id, ad.price_micros, ad.creative.as_ref().map(|c| c.title.clone())),
            Entry::Organic { .. } => panic!("no feed was given"),
        })
        .collect();
    assert_eq!(winners.iter().map(|w| w.0).collect::<Vec<_>>(), [0, 1]);
    // The bids below them, and one micro more where the tie would be lost.
    assert!((4_999_000..=4_999_001).contains(&winners[0].1), "{winners:?}");
    assert_eq!(winners[0].2.as_deref(), Some("item 100"));
    assert!((answer.coverage.fraction - 1.0).abs() < f64::EPSILON);
    let epoch = answer.epoch;
    assert_eq!((epoch.map_epoch, epoch.generation, epoch.model_version, epoch.delivery_version), (9, 4, 3, 4));

    let explanation = fixture.pipeline.explain(draft(), now()).await.expect("explained");
    assert_eq!(explanation.reasons.iter().map(|r| r.ads).sum::<u64>(), 2 * ADS);
    assert_eq!(explanation.ads.len(), 6);

    let request =
        wire::AdRequest { placement: "home".into(), slots: 1, deadline_ms: 500, ..wire::AdRequest::default() };
    let reply = fixture.grpc.get_ads(request).await.expect("answered").into_inner();
    assert_eq!(reply.slate.len(), 1);
}

async fn compares_whole_answers_only(fixture: &Fixture) {
    let seeded = || Draft { seed: 7, ..draft() };
    let probed = fixture.pipeline.probe(seeded(), now(), (10, Depth::Retrieval)).await.expect("compared");
    assert_eq!(probed.shards.len(), 2);
    fixture.hurried.store(true, Ordering::Relaxed);
    let refused =
        fixture.pipeline.probe(seeded(), now(), (10, Depth::Retrieval)).await.expect_err("a part cannot be compared");
    assert_eq!(refused, RequestError::Coverage { found: 9_999, wanted: 10_000 });
    fixture.hurried.store(false, Ordering::Relaxed);
}

async fn refuses_what_the_active_epoch_does_not_know(fixture: &mut Fixture) {
    let refused = async |change: &dyn Fn(&mut Draft)| {
        let mut draft = draft();
        change(&mut draft);
        fixture.pipeline.serve(draft, now()).await.expect_err("refused")
    };
    let unknown = refused(&|d| d.placement = "nowhere".into()).await;
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.to_string().contains("name one of [home]"), "{unknown}");
    assert!(refused(&|d| d.slots = 3).await.to_string().contains("placement home has 2"));
    let number = crate::request::DraftValue::Dense(17.0);
    let kind = refused(&|d| drop(d.context.insert("hour".into(), number.clone()))).await;
    assert!(kind.to_string().contains("give a string"), "{kind}");

    let mut late = Request::new(wire::AdRequest { placement: "home".into(), ..wire::AdRequest::default() });
    late.metadata_mut().insert("grpc-timeout", "2m".parse().expect("a value"));
    let status = fixture.grpc.get_ads(late).await.expect_err("too late");
    assert!(matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{status}");
}
