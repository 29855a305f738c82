//! What do routers and other nodes hear of counts?

use std::sync::Arc;

use gavel_member::clock::now_us;
use gavel_proto::wire;
use gavel_proto::wire::frequency_service_server::FrequencyService;
use tonic::{Request, Response, Status};

use crate::frequency::{Store, convert};

/// The service of counts.
pub struct FrequencyRpc(pub Arc<Store>);

#[tonic::async_trait]
impl FrequencyService for FrequencyRpc {
    async fn counts(&self, request: Request<wire::CountsRequest>) -> Result<Response<wire::CountsReply>, Status> {
        let began = now_us().0;
        let seen = self.0.counts(request.into_inner().user).map_err(elsewhere)?;
        took("counts", began);
        Ok(Response::new(wire::CountsReply { seen: seen.into_iter().map(convert::seen).collect() }))
    }

    async fn reserve(&self, request: Request<wire::ReserveRequest>) -> Result<Response<wire::ReserveReply>, Status> {
        let (began, request) = (now_us().0, request.into_inner());
        let ads = convert::ads(request.ads).map_err(Status::invalid_argument)?;
        if request.looks {
            let verdicts = self.0.look(request.user, ads).map_err(elsewhere)?;
            took("look", began);
            return Ok(Response::new(reply(verdicts.into_iter().map(convert::verdict))));
        }
        let verdicts = self.0.reserve(request.user, request.reservation_id, ads).map_err(elsewhere)?;
        let verdicts: Vec<wire::ReserveVerdict> = verdicts.into_iter().map(convert::verdict).collect();
        for verdict in &verdicts {
            let word = match verdict {
                wire::ReserveVerdict::ReserveGranted => "granted",
                wire::ReserveVerdict::ReserveFull => "full",
                wire::ReserveVerdict::ReserveCapped | wire::ReserveVerdict::Unspecified => "capped",
            };
            metrics::counter!("gavel_frequency_reserved_total", "verdict" => word).increment(1);
        }
        took("reserve", began);
        Ok(Response::new(reply(verdicts.into_iter())))
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Result<Response<wire::ReleaseReply>, Status> {
        let request = request.into_inner();
        let ads = convert::released(request.ad_ids).map_err(Status::invalid_argument)?;
        self.0.release(request.user, request.reservation_id, &ads);
        Ok(Response::new(wire::ReleaseReply {}))
    }

    async fn copy(&self, request: Request<wire::CopyRequest>) -> Result<Response<wire::CopyReply>, Status> {
        let (began, request) = (now_us().0, request.into_inner());
        self.0.take(convert::copy(&request).map_err(Status::invalid_argument)?);
        took("copy", began);
        Ok(Response::new(wire::CopyReply {}))
    }

    async fn held(&self, _: Request<wire::HeldRequest>) -> Result<Response<wire::HeldReply>, Status> {
        let held = self.0.held();
        Ok(Response::new(wire::HeldReply {
            users: held.users,
            counters: held.counters,
            bytes: held.bytes,
            bytes_max: self.0.bytes_max(),
            settled: self.0.placement().is_settled(),
            copies_waiting: self.0.copies().waiting(),
        }))
    }
}

fn reply(verdicts: impl Iterator<Item = wire::ReserveVerdict>) -> wire::ReserveReply {
    wire::ReserveReply { verdicts: verdicts.map(Into::into).collect() }
}

/// The other node of the user may say.
fn elsewhere(error: impl std::error::Error) -> Status {
    metrics::counter!("gavel_frequency_elsewhere_total").increment(1);
    Status::failed_precondition(error.to_string())
}

fn took(call: &'static str, began: u64) {
    metrics::histogram!("gavel_frequency_us", "call" => call).record(now_us().0.saturating_sub(began) as f64);
}
