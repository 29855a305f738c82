//! How does a test speak HTTP/JSON to a router?
//!
//! A dozen lines over a socket: the tests see the very bytes of the answer, and no client library stands between.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longest wait for a connection or an answer: an event that nobody takes is answered after eight seconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// POST of a body: status and text of the answer; `None` when there is none.
#[must_use]
pub fn post(address: &str, path: &str, body: &str) -> Option<(u16, String)> {
    exchange(
        address,
        &format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}", body.len()),
        body,
    )
}

/// GET: status and text of the answer; `None` when there is none.
#[must_use]
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    exchange(address, &format!("GET {path} HTTP/1.1"), "")
}

/// A request line with its headers, and a body: status and text of the answer; `None` when there is none.
#[must_use]
pub fn send(address: &str, head: &str, body: &str) -> Option<(u16, String)> {
    exchange(address, &format!("{head}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len()), body)
}

fn exchange(address: &str, head: &str, body: &str) -> Option<(u16, String)> {
    let address = address.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    write!(stream, "{head}\r\nHost: {address}\r\nConnection: close\r\n\r\n{body}").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?;
    Some((status, body))
}

/// A request like those of the demo: user 900 in store 330.
#[must_use]
pub fn request(seed: u64) -> serde_json::Value {
    request_of("900", seed)
}

/// The same of another user.
#[must_use]
pub fn request_of(user: &str, seed: u64) -> serde_json::Value {
    serde_json::json!({
        "user_id": user,
        "placement": "home",
        "terms": [{"dimension": "store", "values": ["330"]}],
        "context": {"hour": "17", "weekday": "3"},
        "slots": 4,
        "seed": seed,
        "deadline_ms": 500,
        "min_coverage": 0.0001,
    })
}
