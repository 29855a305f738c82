//! Is every event charged once while processes die?
//!
//! The benchmark, small: a cluster of real processes, every event sent 1 to 5 times over both routers, leaders, routers
//! and nodes ended by kill -9; the ledger must be what the oracle says, on every voter, and its journals must say so too.

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
    for nothing in ["double", "lost_acknowledged", "unacknowledged", "overspend_micros", "contradictory"] {
        assert_eq!(report[nothing], 0, "{nothing}: {report:#}");
    }
    for holds in ["oracle_equal", "voters_equal", "audit_clean"] {
        assert_eq!(report[holds], true, "{holds}: {report:#}");
    }
    assert!(report["fates"]["charged"].as_u64() > Some(2_000), "{report:#}");
    assert!(report["answers"]["duplicate"].as_u64() > Some(100), "{report:#}");
    assert!(report["kills"].as_object().is_some_and(|kills| !kills.is_empty()), "{report:#}");
}
