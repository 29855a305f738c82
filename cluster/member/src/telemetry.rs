//! How is this process doing?
//!
//! Logs as text or JSON lines on stderr, filtered as in `RUST_LOG`; counters on a Prometheus page of its own port;
//! and a panic that is logged and then ends the process, because a half-dead server is worse than a dead one.

use crate::Shutdown;
use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Metrics that measure time end so and get these buckets, in microseconds: those of requests, and beyond a second
/// those of staging, which takes minutes.
const TIME_SUFFIX: &str = "_us";
const TIME_BUCKETS: [f64; 19] =
    [50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2e4, 3e4, 5e4, 7.5e4, 1e5, 2e5, 5e5, 1e6, 5e6, 3e7, 3e8];
/// How often old histogram samples are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("log filter {0:?}: {1}")]
    Filter(String, String),
    /// Something was installed before.
    #[error("already started: {0}")]
    Twice(String),
    /// The metrics page cannot listen.
    #[error("metrics page on {0}: {1}")]
    Page(SocketAddr, #[source] std::io::Error),
}

/// Installs the log.
///
/// # Errors
/// When the filter is wrong or a log is installed already.
pub fn start_log(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let parsed = EnvFilter::try_new(filter).map_err(|e| TelemetryError::Filter(filter.to_owned(), e.to_string()))?;
    let builder = fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|e| TelemetryError::Twice(e.to_string()))
}

/// Makes every panic a log line and the end of the process.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        metrics::counter!("gavel_panics_total").increment(1);
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(%panic, %backtrace, "panic: the process ends");
        eprintln!("{panic}");
        std::process::abort();
    }));
}

/// Installs the recorder; the handle renders the page.
///
/// # Errors
/// When a recorder is installed already.
pub fn start_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let twice = |e: metrics_exporter_prometheus::BuildError| TelemetryError::Twice(e.to_string());
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix(TIME_SUFFIX.to_owned()), &TIME_BUCKETS)
        .map_err(twice)?
        .install_recorder()
        .map_err(twice)
}

/// Serves `GET /metrics` until the shutdown; returns where it listens.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve_metrics(
    handle: PrometheusHandle,
    listen: SocketAddr,
    shutdown: Shutdown,
) -> Result<SocketAddr, TelemetryError> {
    let failed = |e| TelemetryError::Page(listen, e);
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let page = handle.clone();
    let routes = Router::new().route(
        "/metrics",
        get(move || {
            metrics::gauge!("gavel_resident_bytes").set(resident_bytes() as f64);
            metrics::counter!("gavel_process_cpu_us_total").absolute(process_cpu_us());
            std::future::ready(page.render())
        }),
    );
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let served = axum::serve(listener, routes).with_graceful_shutdown(async move { stop.wait().await }).await;
        if let Err(error) = served {
            tracing::warn!(%error, "the metrics page ended");
        }
    });
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                _ = beat.tick() => handle.run_upkeep(),
                () = shutdown.wait() => return,
            }
        }
    });
    Ok(address)
}

/// Resident memory of this process; 0 where it cannot be read.
#[must_use]
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    // SAFETY: sysconf takes no pointer and has no precondition.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page).unwrap_or(4_096)
}

/// User and system time of this process since its start, in microseconds.
#[must_use]
pub fn process_cpu_us() -> u64 {
    // SAFETY: rusage is plain data, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live rusage, and RUSAGE_SELF is a legal target.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0;
    let us = |t: libc::timeval| u64::try_from(t.tv_sec * 1_000_000 + t.tv_usec).unwrap_or(0);
    if failed { 0 } else { us(usage.ru_utime) + us(usage.ru_stime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory() {
        assert!(resident_bytes() > 100_000);
        let before = process_cpu_us();
        let mut mixed = 1;
        while process_cpu_us() < before + 1_000 {
            mixed = gavel_proto::hash::mix64(mixed);
        }
        assert_ne!(mixed, 0);
    }

    #[test]
    fn a_wrong_filter_is_named() {
        assert!(matches!(start_log("a=b=c", LogFormat::Text), Err(TelemetryError::Filter(..))));
    }
}
