//! How much CPU time did each role spend?
//!
//! Every process counts its own CPU time on its metrics page (gRPC port + 1000); two readings around a run give what
//! the run cost. A process that cannot be read is left out and said so.

use crate::transport::Member;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Offset of the metrics page from the gRPC port.
const METRICS_PORT_OFFSET: u16 = 1_000;
/// The counter, in microseconds of user and system time.
const COUNTER: &str = "gavel_process_cpu_us_total";
/// Longest wait for one page.
const TIMEOUT: Duration = Duration::from_secs(2);

/// CPU microseconds by (role, address).
pub type Sample = BTreeMap<(&'static str, String), u64>;

/// Reads the counter of every member.
pub async fn sample(members: &[Member]) -> Sample {
    let mut sample = Sample::new();
    for member in members {
        let read = tokio::time::timeout(TIMEOUT, page(&member.address)).await;
        if let Some(us) = read.ok().flatten().as_deref().and_then(counter) {
            sample.insert((member.role, member.address.clone()), us);
        }
    }
    sample
}

/// Microseconds by role between two readings; a process that restarted in between counts from zero.
#[must_use]
pub fn spent(before: &Sample, after: &Sample) -> BTreeMap<&'static str, u64> {
    let mut by_role = BTreeMap::new();
    for (key, us) in after {
        let earlier = before.get(key).copied().filter(|e| e <= us).unwrap_or(0);
        *by_role.entry(key.0).or_insert(0) += us - earlier;
    }
    by_role
}

async fn page(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(METRICS_PORT_OFFSET)?;
    let mut stream = tokio::net::TcpStream::connect((host, port)).await.ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn counter(page: &str) -> Option<u64> {
    page.lines().find_map(|line| {
        let rest = line.strip_prefix(COUNTER)?;
        let value: f64 = rest.rsplit(' ').next()?.parse().ok()?;
        Some(value as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_with_and_without_labels() {
        assert_eq!(counter("# TYPE x\ngavel_process_cpu_us_total 12\n"), Some(12));
        assert_eq!(counter("gavel_process_cpu_us_total{role=\"node\"} 7\n"), Some(7));
        assert_eq!(counter("other 1\n"), None);
    }

    #[test]
    fn a_restart_counts_from_zero() {
        let key = ("node", "a:1".to_owned());
        let before = Sample::from([(key.clone(), 100)]);
        assert_eq!(spent(&before, &Sample::from([(key.clone(), 130)])).get("node"), Some(&30));
        assert_eq!(spent(&before, &Sample::from([(key, 40)])).get("node"), Some(&40));
    }
}
