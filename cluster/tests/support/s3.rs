//! How does a store answer that speaks S3?
//!
//! Objects in memory behind real HTTP. It knows what a voter asks of a store: put, ranged get, head, delete, list, and
//! uploads in parts. It wants a signature on every request, without verifying it, and can be told to fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::task::JoinHandle;

/// The bucket that exists.
pub const BUCKET: &str = "ads";
/// A moment in 2026, in the form of a header and of a list.
const LONG_AGO: (&str, &str) = ("Fri, 02 Jan 2026 03:04:05 GMT", "2026-01-02T03:04:05.000Z");
/// One in 2100: nothing is old yet.
const NEW: (&str, &str) = ("Fri, 01 Jan 2100 00:00:00 GMT", "2100-01-01T00:00:00.000Z");

/// What it holds and how it behaves.
#[derive(Default)]
pub struct Content {
    /// By key.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Keys of objects that were put long ago.
    pub old: Vec<String>,
    /// Answers 503 to everything.
    pub away: bool,
    /// Alters what it is given.
    pub alters: bool,
    /// Deletes nothing.
    pub keeps: bool,
    /// Lengths that it lists in place of the true ones.
    pub claims: BTreeMap<String, u64>,
    /// Requests by method, uploads in parts apart.
    pub asked: BTreeMap<&'static str, usize>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
}

/// A server that runs.
pub struct Server {
    /// `http://HOST:PORT`.
    pub endpoint: String,
    /// What it holds.
    pub content: Arc<Mutex<Content>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let routes = Router::new().route("/{bucket}", axum::routing::any(bucket)).fallback(object);
        let routes = routes.with_state(Arc::clone(&content)).layer(axum::extract::DefaultBodyLimit::disable());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Self { endpoint, content, task }
    }

    /// What it holds, to look at and to change.
    pub fn hold<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        change(&mut self.content.lock().expect("no panic"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = State<Arc<Mutex<Content>>>;
type Query1 = Query<BTreeMap<String, String>>;

fn refuse(content: &Content, headers: &HeaderMap, bucket: &str) -> Option<Response> {
    let signed =
        headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS4-HMAC-SHA256"));
    if content.away {
        Some((StatusCode::SERVICE_UNAVAILABLE, "<Error><Code>SlowDown</Code></Error>").into_response())
    } else if !signed {
        Some((StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>").into_response())
    } else if bucket != BUCKET {
        Some((StatusCode::NOT_FOUND, "<Error><Code>NoSuchBucket</Code></Error>").into_response())
    } else {
        None
    }
}

/// Lists.
async fn bucket(
    State(content): Shared,
    Path(bucket): Path<String>,
    Query(query): Query1,
    headers: HeaderMap,
) -> Response {
    let mut content = content.lock().expect("no panic");
    *content.asked.entry("list").or_default() += 1;
    if let Some(refused) = refuse(&content, &headers, &bucket) {
        return refused;
    }
    let prefix = query.get("prefix").cloned().unwrap_or_default();
    let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for (key, bytes) in content.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let (_, put) = if content.old.contains(key) { LONG_AGO } else { NEW };
        let length = content.claims.get(key).copied().unwrap_or(bytes.len() as u64);
        let _ = write!(
            xml,
            "<Contents><Key>{key}</Key><LastModified>{put}</LastModified><ETag>&quot;x&quot;</ETag><Size>{length}</Size></Contents>"
        );
    }
    (StatusCode::OK, xml + "</ListBucketResult>").into_response()
}

async fn object(
    State(content): Shared,
    method: Method,
    uri: axum::http::Uri,
    Query(query): Query1,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut content = content.lock().expect("no panic");
    let path = uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let name = match (&method, query.contains_key("uploads"), query.contains_key("uploadId")) {
        (&Method::POST, true, _) => "begin",
        (&Method::PUT, _, true) => "part",
        (&Method::POST, _, true) => "complete",
        (&Method::DELETE, _, true) => "abort",
        (&Method::PUT, ..) => "put",
        (&Method::GET, ..) => "get",
        (&Method::HEAD, ..) => "head",
        (&Method::DELETE, ..) => "delete",
        _ => "other",
    };
    *content.asked.entry(name).or_default() += 1;
    if let Some(refused) = refuse(&content, &headers, bucket) {
        return refused;
    }
    let etag = [(header::ETAG, "\"x\"")];
    let upload = query.get("uploadId").cloned().unwrap_or_default();
    match name {
        "begin" => {
            let id = format!("upload-{}", content.uploads.len() + 1);
            content.uploads.insert(id.clone(), BTreeMap::new());
            let xml =
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
            (StatusCode::OK, xml).into_response()
        }
        "part" => {
            let number = query["partNumber"].parse().expect("a number");
            content.uploads.get_mut(&upload).expect("begun").insert(number, body.to_vec());
            (StatusCode::OK, etag).into_response()
        }
        "complete" => {
            let parts = content.uploads.remove(&upload).expect("begun");
            content.put(key, parts.into_values().flatten().collect());
            let xml = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>";
            (StatusCode::OK, xml).into_response()
        }
        "abort" => {
            content.uploads.remove(&upload);
            StatusCode::NO_CONTENT.into_response()
        }
        "put" => {
            content.put(key, body.to_vec());
            (StatusCode::OK, etag).into_response()
        }
        "get" | "head" => content.get(key, &headers),
        "delete" if content.keeps => {
            (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>").into_response()
        }
        _ => {
            content.objects.remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

impl Content {
    /// Requests of one kind.
    pub fn asked(&self, kind: &str) -> usize {
        self.asked.get(kind).copied().unwrap_or(0)
    }

    /// Uploads in parts that have neither been completed nor aborted.
    pub fn unfinished(&self) -> usize {
        self.uploads.len()
    }

    fn put(&mut self, key: &str, mut bytes: Vec<u8>) {
        if self.alters {
            bytes[0] ^= 1;
        }
        self.old.retain(|old| old != key);
        self.objects.insert(key.to_owned(), bytes);
    }

    fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some(bytes) = self.objects.get(key) else { return StatusCode::NOT_FOUND.into_response() };
        let (put, _) = if self.old.iter().any(|old| old == key) { LONG_AGO } else { NEW };
        let about = [(header::ETAG, "\"x\"".to_owned()), (header::LAST_MODIFIED, put.to_owned())];
        let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
        let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
            return (StatusCode::OK, about, bytes.clone()).into_response();
        };
        let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
        let to = to.min(bytes.len().saturating_sub(1));
        if from > to {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let range = [(header::CONTENT_RANGE, format!("bytes {from}-{to}/{}", bytes.len()))];
        (StatusCode::PARTIAL_CONTENT, about, range, bytes[from..=to].to_vec()).into_response()
    }
}
