//! What does a call of a router get?

use std::sync::Arc;

use gavel_member::clock;
use gavel_proto::epoch::{Epoch, fingerprint};
use gavel_proto::ids::ItemId;
use gavel_proto::wire;
use gavel_proto::wire::AnswerStatus;
use gavel_proto::wire::shard_service_server::ShardService;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status};

use super::convert::{self, Invalid};
use crate::config::OraclePolicy;
use crate::pipeline::SearchFault;
use crate::pipeline::executor::{PartFault, PartResult, SearchExecutor};
use crate::pipeline::search::{Outcome, Search};
use crate::segment::SegmentError;
use crate::staging::holdings::{Holdings, Lack, SharedHoldings, Target};

/// The service of a node.
pub struct ShardRpc {
    /// What is loaded.
    pub holdings: Arc<SharedHoldings>,
    /// The threads that search.
    pub executor: Arc<SearchExecutor>,
    /// This member's id, for the answer.
    pub member_id: watch::Receiver<u64>,
    /// Whether an oracle is answered.
    pub oracle: OraclePolicy,
}

/// One shard of a call on its way.
enum Part {
    /// Decided at once.
    Unanswered(AnswerStatus, String),
    /// On a thread or in the queue.
    Running(Target, oneshot::Receiver<PartResult>),
}

#[tonic::async_trait]
impl ShardService for ShardRpc {
    async fn search(&self, request: Request<wire::SearchRequest>) -> Result<Response<wire::SearchResponse>, Status> {
        let request = request.into_inner();
        let node_id = *self.member_id.borrow();
        let epoch: Epoch = request.epoch.map(Epoch::from).ok_or_else(|| Status::invalid_argument("no epoch"))?;
        let shards = convert::shards(&request).map_err(refuse)?;
        let hash = convert::model_hash(&request).map_err(refuse)?;
        let holdings = self.holdings.current();
        let Some(bundle) = holdings.bundles.get(&hash) else {
            let lack = Lack::Version { what: "model", version: epoch.model };
            return Ok(Response::new(all_unavailable(node_id, &shards, epoch, &lack.to_string())));
        };
        if request.partition_hash != bundle.bundle.partition_hash() {
            // The peer split the same bundle in another way, so its user part means something else: another
            // binary, which another replica may match.
            let why = "this node splits the ranker in another way";
            return Ok(Response::new(all_unavailable(node_id, &shards, epoch, why)));
        }
        let search = convert::search(request, bundle, self.oracle, clock::now_us()).map_err(refuse)?;
        let search = Arc::new(search);
        let parts: Vec<Part> = shards.iter().map(|shard| self.start(&holdings, *shard, &search)).collect();
        let is_held = holdings.has_version(epoch.generation, epoch.delivery);
        let held_deliveries = if is_held { Vec::new() } else { holdings.versions(epoch.generation) };
        let mut response = wire::SearchResponse { node_id, held_deliveries, ..wire::SearchResponse::default() };
        for (shard, part) in shards.into_iter().zip(parts) {
            let (answer, cpu_us) = finish((shard, search.auction.auction_id), node_id, epoch, part).await;
            response.answers.push(answer);
            response.cpu_us += cpu_us;
        }
        Ok(Response::new(response))
    }

    async fn hydrate(&self, request: Request<wire::HydrateRequest>) -> Result<Response<wire::HydrateResponse>, Status> {
        let request = request.into_inner();
        let epoch: Epoch = request.epoch.map(Epoch::from).ok_or_else(|| Status::invalid_argument("no epoch"))?;
        let (deadline, keys) = convert::hydrate(request, clock::now_us()).map_err(refuse)?;
        let holdings = self.holdings.current();
        // A page may have to come from disk, so not on this thread; nor behind searches, whose queue it has passed once.
        let creatives = tokio::task::spawn_blocking(move || {
            let in_time = keys.iter().take_while(|_| !deadline.passed(clock::now_us()));
            let items = in_time.filter_map(|key| hydrate(&holdings, epoch, key).transpose());
            items.collect::<Result<Vec<_>, SegmentError>>()
        });
        let items = creatives.await.map_err(|lost| Status::internal(lost.to_string()))?;
        let items = items.map_err(|error| Status::new(error.code().grpc(), error.to_string()))?;
        Ok(Response::new(wire::HydrateResponse { items }))
    }
}

impl ShardRpc {
    fn start(&self, holdings: &Holdings, shard: u32, search: &Arc<Search>) -> Part {
        let target = match holdings.target(search.epoch, shard, &search.model_hash) {
            Ok(target) => target,
            Err(lack @ Lack::Shard(_)) => return Part::Unanswered(AnswerStatus::AnswerNotHeld, lack.to_string()),
            Err(lack @ Lack::Version { .. }) => {
                return Part::Unanswered(AnswerStatus::AnswerVersionUnavailable, lack.to_string());
            }
        };
        match self.executor.submit(target.clone(), Arc::clone(search)) {
            Ok(running) => Part::Running(target, running),
            Err(shed) => Part::Unanswered(AnswerStatus::AnswerShed, shed.to_string()),
        }
    }
}

/// Waits for a part.
async fn finish((shard, auction): (u32, u64), node_id: u64, epoch: Epoch, part: Part) -> (wire::ShardAnswer, u64) {
    let (target, running) = match part {
        Part::Unanswered(status, detail) => return (convert::unanswered(shard, epoch, status, detail), 0),
        Part::Running(target, running) => (target, running),
    };
    let (status, detail) = match running.await {
        Ok(Ok(answer)) => {
            let cpu_us = answer.timing.cpu_us;
            let status = match answer.outcome {
                Outcome::Finished => AnswerStatus::AnswerOk,
                Outcome::TimedOut => AnswerStatus::AnswerTimedOut,
            };
            // One line an answer, off by default: what the node did, independent of what routers make of it.
            tracing::debug!(
                target: "gavel_node::answers",
                auction,
                shard,
                model = epoch.model,
                bundle = fingerprint(&target.loaded.bundle.bundle.hash()),
                folder = fingerprint(&target.loaded.shard.model().bundle()),
                delivery = target.delivery.version(),
            );
            return (convert::answered(shard, node_id, epoch, status, &target, answer), cpu_us);
        }
        Ok(Err(late @ (PartFault::Late | PartFault::Search(SearchFault::Late)))) => {
            (AnswerStatus::AnswerTimedOut, late.to_string())
        }
        Ok(Err(fault @ PartFault::Search(_))) => {
            tracing::error!(%fault, shard, "a search failed");
            metrics::counter!("gavel_node_search_faults_total").increment(1);
            (AnswerStatus::AnswerInternal, fault.to_string())
        }
        Err(_) => (AnswerStatus::AnswerInternal, "the search threads have stopped".to_owned()),
    };
    (convert::unanswered(shard, epoch, status, detail), 0)
}

fn all_unavailable(node_id: u64, shards: &[u32], epoch: Epoch, why: &str) -> wire::SearchResponse {
    let status = AnswerStatus::AnswerVersionUnavailable;
    let answers = shards.iter().map(|shard| convert::unanswered(*shard, epoch, status, why.to_owned()));
    wire::SearchResponse { node_id, answers: answers.collect(), ..wire::SearchResponse::default() }
}

fn refuse(invalid: Invalid) -> Status {
    metrics::counter!("gavel_node_invalid_requests_total").increment(1);
    Status::invalid_argument(invalid.to_string())
}

/// The creative of one item; an item that is not here is left out.
fn hydrate(
    holdings: &Holdings,
    epoch: Epoch,
    key: &wire::HydrateKey,
) -> Result<Option<wire::HydratedItem>, SegmentError> {
    let Some(held) = holdings.contents.get(&(epoch.generation, key.shard)) else { return Ok(None) };
    let Some(item) = held.content.find_item(ItemId(key.item_id)) else { return Ok(None) };
    let creative = held.content.creative(item)?;
    let creative = wire::Creative { title: creative.title, url: creative.url, image_url: creative.image_url };
    Ok(Some(wire::HydratedItem { item_id: key.item_id, creative: Some(creative) }))
}
