//! Which call ends where?

use super::convert;
use crate::ledger::{AdEvent, EVENTS_MAX};
use crate::pipeline::{Depth, Pipeline};
use crate::request::{Arrival, RequestError};
use gavel_member::clock::now_us;
use gavel_proto::wire;
use gavel_proto::wire::ad_service_server::AdService;
use gavel_proto::wire::event_service_server::EventService;
use gavel_proto::wire::probe_service_server::ProbeService;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The endpoint of feeds and sites.
pub struct AdRpc(pub Arc<Pipeline>);

/// The endpoint of `gavel bench truth`.
pub struct ProbeRpc(pub Arc<Pipeline>);

#[tonic::async_trait]
impl AdService for AdRpc {
    async fn get_ads(&self, request: Request<wire::AdRequest>) -> Result<Response<wire::AdResponse>, Status> {
        let arrival = arrival(&request)?;
        let draft = convert::draft(request.into_inner()).map_err(status)?;
        let answer = self.0.serve(draft, arrival).await.map_err(status)?;
        Ok(Response::new(convert::answer(answer)))
    }

    async fn explain(&self, request: Request<wire::AdRequest>) -> Result<Response<wire::ExplainResponse>, Status> {
        let arrival = arrival(&request)?;
        let draft = convert::draft(request.into_inner()).map_err(status)?;
        let explanation = self.0.explain(draft, arrival).await.map_err(status)?;
        Ok(Response::new(convert::explanation(explanation)))
    }
}

#[tonic::async_trait]
impl ProbeService for ProbeRpc {
    async fn probe(&self, request: Request<wire::ProbeRequest>) -> Result<Response<wire::ProbeResponse>, Status> {
        let arrival = arrival(&request)?;
        let probe = request.into_inner();
        let draft = convert::draft(probe.request.unwrap_or_default()).map_err(status)?;
        let depth = if probe.exhaustive { Depth::Everything } else { Depth::Retrieval };
        let probed = self.0.probe(draft, arrival, (probe.top, depth)).await.map_err(status)?;
        Ok(Response::new(convert::probed(probed)))
    }
}

/// The endpoint of whoever shows ads.
pub struct EventRpc(pub Arc<Pipeline>);

#[tonic::async_trait]
impl EventService for EventRpc {
    async fn report(&self, request: Request<wire::EventBatch>) -> Result<Response<wire::EventAnswers>, Status> {
        let batch = request.into_inner();
        if batch.events.len() > EVENTS_MAX {
            return Err(status(RequestError::Invalid(format!("more than {EVENTS_MAX} events: send them in parts"))));
        }
        let event = |event: wire::AdEvent| AdEvent { kind: event.kind(), token: event.token };
        let answers = self.0.report(batch.events.into_iter().map(event).collect()).await;
        Ok(Response::new(wire::EventAnswers { answers }))
    }
}

fn arrival<T>(request: &Request<T>) -> Result<Arrival, Status> {
    let patience_us = match request.metadata().get("grpc-timeout") {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(convert::timeout_us).ok_or_else(|| {
            status(RequestError::Invalid("grpc-timeout is not a timeout: give digits and a unit, as 100m".to_owned()))
        })?),
    };
    Ok(Arrival { at: now_us(), patience_us })
}

fn status(error: RequestError) -> Status {
    Status::new(error.code().grpc(), error.to_string())
}
