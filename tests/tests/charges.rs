//! Is every event charged once while processes die?
//!
//! The benchmark, small: a cluster of real processes, every event sent 1 to 5 times over both routers, leaders, routers
//! and nodes ended by kill -9; the ledger must be what the oracle says, on every voter, and its journals must say so too, by
//! the id of every token. What was served and is not charged is more than nothing, and within what leases held.

use gavel_tests::cluster::binary;
use std::process::Command;

#[test]
fn charges_are_made_once_and_kept_while_processes_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (report, root) = (folder.path().join("report.json"), gavel_tests::repository::root());
    let output = Command::new(binary())
        .current_dir(root)
        .args(["bench", "ledger", "--charges", "8000", "--kill", "--kill-every", "2", "--json"])
        .arg(&report)
        .arg("--work-dir")
        .arg(folder.path().join("work"))
        .output()
        .expect("the binary starts");
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).expect("a report")).expect("JSON");
    assert_eq!(report["charges"], 8_000);
    let nothing =
        ["double", "lost_acknowledged", "unacknowledged", "overspend_micros", "contradictory", "beyond_leases"];
    for nothing in nothing {
        assert_eq!(report[nothing], 0, "{nothing}: {report:#}");
    }
    for holds in ["oracle_equal", "voters_equal", "audit_clean"] {
        assert_eq!(report[holds], true, "{holds}: {report:#}");
    }
    assert!(report["fates"]["charged"].as_u64() > Some(2_000), "{report:#}");
    assert!(report["answers"]["duplicate"].as_u64() > Some(100), "{report:#}");
    // One of a hundred impressions is never reported: it is served free, and leases held it.
    assert!(report["fates"]["withheld"].as_u64() >= Some(1), "{report:#}");
    let bound = report["lease_bound_micros"].as_u64().expect("a bound");
    assert!(report["over_delivered_micros"].as_u64().is_some_and(|over| over > 0 && over <= bound), "{report:#}");
    for killed in ["ledger leader", "router", "node", "control leader"] {
        assert!(report["kills"][killed].as_u64() >= Some(1), "no {killed} was killed: {report:#}");
    }
}
