//! Do faults of real servers over real sockets end as the kernel decides?

use super::*;
use crate::request::Blocked;
use crate::topology::ShardRoute;
use crate::transport::{AskedFor, FeatureAnswer, Shape};
use gavel_member::Shutdown;
use gavel_member::serve::{self, Exposure};
use gavel_proto::coverage::{Coverage, ShardOutcome, ShardSeen, WHOLE};
use gavel_proto::cut::Neighbours;
use gavel_proto::epoch::Epoch;
use gavel_proto::frequency::Screen;
use gavel_proto::hash::TieKey;
use gavel_proto::ids::AuctionId;
use gavel_proto::money::Leased;
use gavel_proto::score::QualityRule;
use gavel_proto::wire::AnswerStatus;
use gavel_proto::wire::shard_service_server::{ShardService, ShardServiceServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const EPOCH: Epoch = Epoch { map: 9, generation: 2, model: 3, delivery: 2 };
const ITEMS: u64 = 100;

/// What a server does with every search.
#[derive(Clone, Copy)]
enum Play {
    /// Answers for its shards.
    Answer(AnswerStatus, Epoch),
    /// One candidate whose columns do not fit together.
    Lopsided,
    /// Never answers.
    Silent,
    /// Refuses the call.
    Refuse(tonic::Code),
}

struct Server(Play);

#[tonic::async_trait]
impl ShardService for Server {
    async fn search(&self, request: Request<wire::SearchRequest>) -> Result<Response<wire::SearchResponse>, Status> {
        let request = request.into_inner();
        let candidates = match self.0 {
            Play::Silent => std::future::pending().await,
            Play::Refuse(code) => return Err(Status::new(code, "as told")),
            Play::Lopsided => wire::Candidates { ad_id: vec![1], ..wire::Candidates::default() },
            Play::Answer(..) => wire::Candidates::default(),
        };
        let (status, epoch) = match self.0 {
            Play::Answer(status, epoch) => (status, epoch),
            Play::Lopsided | Play::Silent | Play::Refuse(_) => (AnswerStatus::AnswerOk, EPOCH),
        };
        let answer = |shard: &u32| wire::ShardAnswer {
            shard: *shard,
            status: status.into(),
            epoch: Some(epoch.into()),
            items_seen: if status == AnswerStatus::AnswerOk { ITEMS } else { ITEMS / 2 },
            candidates: Some(candidates.clone()),
            ..wire::ShardAnswer::default()
        };
        let answers = request.shards.iter().map(answer).collect();
        Ok(Response::new(wire::SearchResponse { answers, cpu_us: 5, ..wire::SearchResponse::default() }))
    }

    async fn hydrate(&self, _: Request<wire::HydrateRequest>) -> Result<Response<wire::HydrateResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

/// A router's transport with one server a node, numbered from 1; `None` is a node that is not there.
async fn cluster(plays: &[Option<Play>], shutdown: &Shutdown) -> Arc<Transport> {
    let mut addresses = Vec::new();
    for (id, play) in (1..).zip(plays) {
        let bound = serve::bind("127.0.0.1:0").await.expect("bound");
        addresses.push((MemberId(id), bound.address.to_string()));
        match play {
            Some(play) => {
                let routes = Routes::default().add_service(ShardServiceServer::new(Server(*play)));
                bound.serve(routes, Exposure::Internal, shutdown.clone()).await.expect("serves");
            }
            None => drop(bound),
        }
    }
    let nodes = Arc::new(Nodes::default());
    nodes.follow(&addresses);
    Transport::new(nodes)
}

fn terms() -> Arc<SearchTerms> {
    Arc::new(SearchTerms {
        given: Vec::new(),
        auction_id: AuctionId(1),
        epoch: EPOCH,
        model_hash: [0; 32],
        partition_hash: [0; 32],
        query: vec![0.0; 4],
        user_part: Vec::new(),
        sets: Vec::new(),
        terms: Vec::new(),
        unix_s: 0,
        blocked: Blocked::default(),
        screen: Screen::default(),
        leased: Leased::Admitted,
        quota: 10,
        light_keep: 10,
        shape: Shape {
            slots: 2,
            per_advertiser: 1,
            per_category: 0,
            tie_key: TieKey::from_number(0),
            reserve_cpm_micros: 0,
            neighbours: Neighbours::Any,
            quality: QualityRule::default(),
            cascade: None,
        },
        click_head: None,
        asked_for: AskedFor::Candidates,
        features: FeatureAnswer::Unasked,
    })
}

/// Shards by the nodes that serve them.
fn table(serving: &[&[u64]]) -> RouteTable {
    let route = |(shard, nodes): (u32, &&[u64])| ShardRoute {
        shard: ShardId(shard),
        items: ITEMS,
        ads: ITEMS,
        serving: nodes.iter().copied().map(MemberId).collect(),
    };
    RouteTable { epoch: EPOCH, shards: (0..).zip(serving).map(route).collect() }
}

async fn search(transport: &Arc<Transport>, serving: &[&[u64]]) -> (Gathered, Coverage) {
    let ends_at = Instant(now_us().0 + 150_000);
    let gathered = transport.search(&table(serving), terms(), Hedging::On, ends_at, 7).await;
    assert!(now_us().0 < ends_at.0 + 100_000, "ends in time");
    let seen: Vec<ShardSeen> = gathered.ends.iter().map(|e| e.seen).collect();
    let coverage = Coverage::of(&seen);
    (gathered, coverage)
}

fn outcomes(gathered: &Gathered) -> Vec<ShardOutcome> {
    gathered.ends.iter().map(|e| e.seen.outcome).collect()
}

const WELL: Option<Play> = Some(Play::Answer(AnswerStatus::AnswerOk, EPOCH));

#[tokio::test]
async fn healthy_nodes_cover_everything() {
    let shutdown = Shutdown::new();
    let transport = cluster(&[WELL, WELL], &shutdown).await;
    let (gathered, coverage) = search(&transport, &[&[1, 2], &[2, 1], &[1]]).await;
    assert_eq!((coverage.parts, gathered.bodies.len()), (WHOLE, 3));
    assert!(gathered.node_cpu_us >= 5);
    shutdown.trigger();
}

#[tokio::test]
async fn a_dead_node_is_retried_elsewhere_or_costs_its_shards() {
    let shutdown = Shutdown::new();
    let transport = cluster(&[None, WELL], &shutdown).await;
    for _ in 0..8 {
        let (gathered, _) = search(&transport, &[&[1, 2], &[1]]).await;
        assert_eq!(outcomes(&gathered), [ShardOutcome::Finished, ShardOutcome::Failed]);
    }
    // By now it is ejected, and whoever has a choice does not ask it first.
    let learned = transport.learned().health.ejected_until(MemberId(1));
    assert!(learned > now_us());
    shutdown.trigger();
}

#[tokio::test]
async fn a_node_that_sheds_or_lacks_the_versions_does_not_look_fast() {
    for status in [AnswerStatus::AnswerShed, AnswerStatus::AnswerVersionUnavailable] {
        let shutdown = Shutdown::new();
        let transport = cluster(&[Some(Play::Answer(status, EPOCH)), WELL], &shutdown).await;
        let mut asked_first = 0;
        for _ in 0..20 {
            let (gathered, _) = search(&transport, &[&[1, 2]]).await;
            asked_first += u32::from(gathered.ends[0].call != Some(CallId(0)));
        }
        assert!(asked_first <= 2, "{status:?}: the node was asked first {asked_first} times");
        shutdown.trigger();
    }
}

#[tokio::test]
async fn another_epoch_is_refused_and_the_other_replica_is_asked() {
    let shutdown = Shutdown::new();
    let stale = Epoch { delivery: 1, ..EPOCH };
    let transport = cluster(&[Some(Play::Answer(AnswerStatus::AnswerOk, stale)), WELL], &shutdown).await;
    let (gathered, coverage) = search(&transport, &[&[1, 2], &[1]]).await;
    assert_eq!(outcomes(&gathered), [ShardOutcome::Finished, ShardOutcome::VersionUnavailable]);
    assert!(gathered.bodies.values().all(|b| b.node == MemberId(2)), "RQ3");
    assert_eq!((coverage.parts, coverage.version_unavailable), (5_000, 1));
    shutdown.trigger();
}

#[tokio::test]
async fn what_is_partial_silent_full_or_broken_is_lost_coverage() {
    let shutdown = Shutdown::new();
    let plays = [
        Some(Play::Answer(AnswerStatus::AnswerTimedOut, EPOCH)),
        Some(Play::Silent),
        Some(Play::Answer(AnswerStatus::AnswerShed, EPOCH)),
        Some(Play::Lopsided),
        Some(Play::Refuse(tonic::Code::InvalidArgument)),
        Some(Play::Answer(AnswerStatus::AnswerCorrupt, EPOCH)),
        WELL,
    ];
    let transport = cluster(&plays, &shutdown).await;
    let (gathered, coverage) = search(&transport, &[&[1], &[2], &[3], &[4], &[5], &[6], &[7], &[99]]).await;
    let expected = [
        ShardOutcome::TimedOut,
        ShardOutcome::TimedOut,
        ShardOutcome::Shed,
        ShardOutcome::Failed,
        ShardOutcome::Failed,
        ShardOutcome::Corrupt,
        ShardOutcome::Finished,
        ShardOutcome::Failed,
    ];
    assert_eq!(outcomes(&gathered), expected);
    // One whole shard and half of another, of eight.
    assert_eq!(coverage.parts, 1_875);
    shutdown.trigger();
}
