//! What does the new cluster answer, and how does a person ask it?

use crate::failure::Failure;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Tries before the cluster is taken for broken: half a minute at least.
const TRIES_MAX: usize = 600;
/// Longest answer of one try.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

/// A request of nobody in particular, for catalogues that come without requests.
pub fn anybody() -> Value {
    json!({"user_id": "", "placement": "home", "slots": 4})
}

/// Asks until every shard answers.
pub async fn until_whole(http: SocketAddr, request: &Value) -> Result<Value, Failure> {
    let mut patient = request.clone();
    if let Some(fields) = patient.as_object_mut() {
        // The first request of a cold process pays for what later ones find warm.
        fields.insert("deadline_ms".to_owned(), json!(500));
    }
    let mut last = String::new();
    for _ in 0..TRIES_MAX {
        match tokio::time::timeout(TRY_TIMEOUT, post(http, &patient)).await {
            Ok(Ok((200, answer))) => {
                let parsed: Value = serde_json::from_str(&answer).map_err(Failure::other)?;
                if parsed["coverage"]["fraction"] == 1.0 {
                    return Ok(parsed);
                }
                last = parsed["coverage"].to_string();
            }
            Ok(Ok((status @ 400..=499, answer))) if status != 429 => return Err(Failure::other(answer)),
            Ok(Ok((_, answer))) => last = answer,
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = "no answer".to_owned(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::other(format!("the cluster does not answer whole: {last}")))
}

/// One request over HTTP/1.1, as curl would send it.
async fn post(http: SocketAddr, body: &Value) -> std::io::Result<(u16, String)> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(http).await?;
    let head = format!(
        "POST /v1/ads HTTP/1.1\r\nHost: {http}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    match (status, text.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(std::io::Error::other("no HTTP answer")),
    }
}

/// The request as a command to paste.
pub fn curl(http: SocketAddr, request: &Value) -> String {
    // A quote inside single quotes ends them, stands escaped, and begins them again.
    let body = request.to_string().replace('\'', "'\\''");
    format!("curl -s http://{http}/v1/ads -H 'content-type: application/json' -d '{body}'")
}

/// The answer for people.
pub fn table(answer: &Value) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{:>4}  {:<12}{:<12}{:<8}{:>14}  title", "slot", "ad", "advertiser", "bid", "price_micros");
    for ad in answer["slate"].as_array().into_iter().flatten().filter(|e| e.get("ad").is_some()) {
        let title = ad["creative"]["title"].as_str().unwrap_or("");
        let bid_type = ad["bid_type"].as_str().unwrap_or("");
        let number = |name: &str| ad[name].to_string();
        let _ = writeln!(
            out,
            "{:>4}  {:<12}{:<12}{bid_type:<8}{:>14}  {title}",
            number("slot"),
            number("ad"),
            number("advertiser"),
            number("price_micros")
        );
    }
    let _ = writeln!(out, "coverage {}  epoch {}", answer["coverage"]["fraction"], answer["epoch"]);
    let _ = writeln!(out, "funnel {}", answer["funnel"]);
    let _ = writeln!(out, "{} us", answer["timings"]["total_us"]);
    out
}
