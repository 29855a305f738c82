//! Does every wrong call get the documented error?

use super::*;
use crate::pipeline::Gate;
use crate::staging::Staging;
use crate::transport::{Nodes, Transport};
use gavel_member::pool::CpuPool;
use gavel_model::Scratch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A router that has nothing loaded, behind a real socket.
async fn start() -> (SocketAddr, Shutdown) {
    let transport = Transport::new(Arc::new(Nodes::default()));
    let pool = CpuPool::new("test", 1, 8, Scratch::default).expect("threads");
    let pipeline = Pipeline::new(
        Staging::new(),
        transport,
        pool,
        Gate::new(8),
        crate::pipeline::Logs::off(),
        crate::ledger::Bank::off(),
        1,
    );
    let shutdown = Shutdown::new();
    let (address, _) = serve("127.0.0.1:0", routes(Arc::new(pipeline)), shutdown.clone()).await.expect("listens");
    (address, shutdown)
}

async fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

#[tokio::test]
async fn errors_are_json_with_a_code_and_a_remedy() {
    let (address, shutdown) = start().await;
    let cases = [
        ("POST", "/v1/ads", "{", 400, "invalid_argument", "the body is not a request"),
        ("POST", "/v1/ads", "null", 400, "invalid_argument", "the body is not a request"),
        ("POST", "/v1/ads", r#"{"plcement": "feed"}"#, 400, "invalid_argument", "unknown field `plcement`"),
        ("POST", "/v1/ads", "{}", 400, "invalid_argument", "placement is empty"),
        ("POST", "/v1/ads", r#"{"placement": "feed", "slots": 99}"#, 400, "invalid_argument", "at most 16"),
        ("POST", "/v1/ads", r#"{"placement": "feed", "deadline_ms": 1}"#, 400, "invalid_argument", "10 to 500"),
        ("POST", "/v1/explain", r#"{"placement": "feed", "context": {"x": [1]}}"#, 400, "invalid_argument", "feature"),
        ("POST", "/v1/ads", r#"{"placement": "feed"}"#, 503, "unavailable", "no catalogue generation and model"),
        ("GET", "/readyz", "", 503, "unavailable", "no catalogue generation and model"),
        ("GET", "/v2/ads", "", 404, "not_found", "no such path"),
    ];
    for (method, path, body, status, code, message) in cases {
        let (found, answer) = call(address, method, path, body).await;
        assert_eq!(found, status, "{body}: {answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["error"]["code"], code, "{body}");
        let text = answer["error"]["message"].as_str().expect("a message");
        assert!(text.contains(message), "{body}: {text}");
    }
    assert_eq!(call(address, "GET", "/healthz", "").await, (200, "ok\n".to_owned()));
    assert_eq!(call(address, "GET", "/v1/ads", "").await.0, 405);
    shutdown.trigger();
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let (address, shutdown) = start().await;
    let large = format!(r#"{{"placement": "{}"}}"#, "x".repeat(AD_REQUEST_BYTES_MAX));
    let (status, answer) = call(address, "POST", "/v1/ads", &large).await;
    assert_eq!(status, 400, "{answer}");
    shutdown.trigger();
}

#[tokio::test]
async fn a_head_that_does_not_end_and_a_call_that_outlives_a_stop_are_cut() {
    let transport = Transport::new(Arc::new(Nodes::default()));
    let pool = CpuPool::new("test", 1, 8, Scratch::default).expect("threads");
    let routes = routes(Arc::new(Pipeline::new(
        Staging::new(),
        transport,
        pool,
        Gate::new(8),
        crate::pipeline::Logs::off(),
        crate::ledger::Bank::off(),
        1,
    )));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("bound");
    let (patience, shutdown) = (Duration::from_millis(20), Shutdown::new());
    let patience = Patience { head: patience, drain: patience };
    let serving = tokio::spawn(accept(listener, routes, patience, shutdown.clone()));

    let mut head = tokio::net::TcpStream::connect(address).await.expect("connected");
    head.write_all(b"POST /v1/ads HTTP/1.1\r\nHost: x\r\n").await.expect("sent");
    let mut answer = String::new();
    head.read_to_string(&mut answer).await.expect("closed");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");

    let mut body = tokio::net::TcpStream::connect(address).await.expect("connected");
    body.write_all(b"POST /v1/ads HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").await.expect("sent");
    shutdown.trigger();
    tokio::time::timeout(BODY_PATIENCE, serving).await.expect("before the body's patience ends").expect("ended");
}
