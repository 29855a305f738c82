//! How is the router asked over HTTP and JSON?
//!
//! The same request and answer as over gRPC, with the field names of the messages, on a port of its own:
//! `POST /v1/ads`, `POST /v1/explain`, `POST /v1/events` and the beacon `GET /v1/events/KIND/TOKEN`, `GET /healthz` (the process lives) and `GET /readyz` (requests are answered).
//! An error is `{"error": {"code", "message"}}` with the HTTP status of its code.
//!
//! The port is open to anybody: connections are capped, a head must come in time, and a stop waits a while for calls
//! that run. HTTP/1 alone: whoever speaks HTTP/2 has the gRPC port.

pub mod campaigns;

use crate::ledger::{AdEvent, EVENTS_MAX};
use crate::pipeline::Pipeline;
use crate::request::{Arrival, Draft, RequestError};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gavel_member::Shutdown;
use gavel_member::clock::now_us;
use gavel_proto::limits::{AD_REQUEST_BYTES_MAX, CONNECTIONS_MAX, DEADLINE_MS_MAX};
use gavel_proto::wire::EventKind;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// For how long is whom waited?
#[derive(Clone, Copy)]
struct Patience {
    /// The head of a request must be complete by then, from the accept or the answer before.
    head: Duration,
    /// What running calls get after a stop.
    drain: Duration,
}

const PATIENCE: Patience = Patience { head: Duration::from_secs(5), drain: Duration::from_secs(3) };
/// After an accept error: it is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A body must be complete by then: the longest deadline and a second.
const BODY_PATIENCE: Duration = Duration::from_millis(DEADLINE_MS_MAX + 1_000);

#[derive(Serialize)]
struct ErrorBody {
    error: ErrorReport,
}

#[derive(Serialize)]
struct ErrorReport {
    code: &'static str,
    message: String,
}

/// Serves until the shutdown; returns where it listens.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(listen: &str, routes: Router, shutdown: Shutdown) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    Ok((address, tokio::spawn(accept(listener, routes, PATIENCE, shutdown))))
}

async fn accept(listener: TcpListener, routes: Router, patience: Patience, shutdown: Shutdown) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience.head);
    let service = TowerToHyperService::new(routes);
    let (room, open) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), GracefulShutdown::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            metrics::counter!("gavel_connections_refused_total").increment(1);
            continue;
        };
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(patience.drain, open.shutdown()).await.is_err() {
        tracing::debug!("calls still ran when the drain ended");
    }
}

/// The routes.
pub fn routes(pipeline: Arc<Pipeline>) -> Router {
    Router::new()
        .route("/v1/ads", post(ads))
        .route("/v1/explain", post(explain))
        .route("/v1/events", post(events))
        .route("/v1/events/{kind}/{token}", get(beacon))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async || failure(StatusCode::NOT_FOUND, "not_found", "no such path: see docs/api.md".to_owned()))
        .layer(DefaultBodyLimit::max(AD_REQUEST_BYTES_MAX))
        .with_state(pipeline)
}

async fn ads(State(pipeline): State<Arc<Pipeline>>, body: Body) -> Response {
    let arrival = Arrival { at: now_us(), patience_us: None };
    match draft(body).await {
        Ok(draft) => answered(pipeline.serve(draft, arrival).await),
        Err(refused) => refused,
    }
}

async fn explain(State(pipeline): State<Arc<Pipeline>>, body: Body) -> Response {
    let arrival = Arrival { at: now_us(), patience_us: None };
    match draft(body).await {
        Ok(draft) => answered(pipeline.explain(draft, arrival).await),
        Err(refused) => refused,
    }
}

/// Events as they are written in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsDraft {
    events: Vec<EventDraft>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventDraft {
    kind: String,
    token: String,
}

#[derive(Serialize)]
struct EventsAnswer {
    answers: Vec<String>,
}

#[derive(Serialize)]
struct BeaconAnswer {
    answer: String,
}

async fn events(State(pipeline): State<Arc<Pipeline>>, body: Body) -> Response {
    let bytes = match bytes(body).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let draft: EventsDraft = match serde_json::from_slice(&bytes) {
        Ok(draft) => draft,
        Err(e) => return error(&RequestError::Invalid(format!("the body is no list of events: {e}"))),
    };
    if draft.events.len() > EVENTS_MAX {
        return error(&RequestError::Invalid(format!("more than {EVENTS_MAX} events: send them in parts")));
    }
    let event = |event: EventDraft| AdEvent { kind: event_kind(&event.kind), token: event.token };
    let answers = pipeline.report(draft.events.into_iter().map(event).collect()).await;
    json(StatusCode::OK, &EventsAnswer { answers })
}

async fn beacon(State(pipeline): State<Arc<Pipeline>>, Path((kind, token)): Path<(String, String)>) -> Response {
    let mut answers = pipeline.report(vec![AdEvent { kind: event_kind(&kind), token }]).await;
    let answer = answers.pop().unwrap_or_default();
    let status = if answer == "unavailable" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json(status, &BeaconAnswer { answer })
}

fn event_kind(word: &str) -> EventKind {
    match word {
        "impression" => EventKind::EventImpression,
        "click" => EventKind::EventClick,
        "conversion" => EventKind::EventConversion,
        "win" => EventKind::EventWin,
        _ => EventKind::Unspecified,
    }
}

async fn ready(State(pipeline): State<Arc<Pipeline>>) -> Response {
    if pipeline.is_ready() {
        return "ready\n".into_response();
    }
    error(&RequestError::NotReady)
}

async fn bytes(body: Body) -> Result<axum::body::Bytes, Response> {
    match tokio::time::timeout(BODY_PATIENCE, axum::body::to_bytes(body, AD_REQUEST_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let text = format!("the body is cut off or has more than {AD_REQUEST_BYTES_MAX} bytes: send a smaller one");
            Err(error(&RequestError::Invalid(text)))
        }
        Err(_) => Err(error(&RequestError::Late("the body"))),
    }
}

async fn draft(body: Body) -> Result<Draft, Response> {
    let bytes = bytes(body).await?;
    serde_json::from_slice(&bytes).map_err(|e| {
        error(&RequestError::Invalid(format!("the body is not a request: {e}: see docs/api.md for the fields")))
    })
}

fn answered(answer: Result<impl Serialize, RequestError>) -> Response {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(e) => error(&e),
    }
}

fn error(error: &RequestError) -> Response {
    let code = error.code();
    let status = StatusCode::from_u16(code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    failure(status, code.name(), error.to_string())
}

fn failure(status: StatusCode, code: &'static str, message: String) -> Response {
    json(status, &ErrorBody { error: ErrorReport { code, message } })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests;
