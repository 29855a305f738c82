//! Is the ledger of every voter what its journal says, and the journal what routers billed?

use super::super::failed;
use super::clearings::{Clearings, Compared, Logged};
use super::tokens::{self, Teller};
use super::{client, units};
use crate::cli::AuditArgs;
use crate::failure::Failure;
use gavel_client::{AdminClient, LedgerClient};
use gavel_control::audit::LeaseRest;
use gavel_control::convert::ledger_snapshot;
use gavel_control::raft::journal::{Audited, JournalError, audit};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What is asked beside the balances.
struct Asked<'a> {
    args: &'a AuditArgs,
    /// The pages that charges are held against.
    clearings: Option<Clearings>,
    /// Tokens of which is asked what became of them.
    tokens: Vec<String>,
}

/// `gavel ctl ledger audit`.
pub async fn run(admin: &AdminClient, cluster_id: &str, args: &AuditArgs) -> Result<(), Failure> {
    let logged = if args.clearings_complete { Logged::Whole } else { Logged::Sample };
    let clearings = if args.clearings.is_empty() { None } else { Some(Clearings::read(&args.clearings, logged)?) };
    let tokens = args.tokens.as_deref().map(tokens::of_file).transpose()?.unwrap_or_default();
    let asked = Asked { args, clearings, tokens: tokens.into_iter().map(|(_, text)| text).collect() };
    let mut reports = Vec::new();
    if let Some(folder) = &args.journal {
        let audited = audit(folder, cluster_id, None).map_err(|e| unreadable(&e))?;
        reports.push(asked.report(None, &audited, &[])?);
    } else {
        for address in admin.voters().await.map_err(failed)? {
            let ledger = client(admin, cluster_id).await?;
            let (audited, differences) = audit_voter(&ledger, cluster_id, &address).await?;
            reports.push(asked.report(Some(&address), &audited, &differences)?);
        }
    }
    conclude(&reports, args.json)
}

/// Copies a voter's journal, audits it up to the state that came with it, and compares the two.
async fn audit_voter(
    ledger: &LedgerClient,
    cluster_id: &str,
    address: &str,
) -> Result<(Audited, Vec<String>), Failure> {
    let folder = std::env::temp_dir().join(format!("gavel-audit-{}-{}", std::process::id(), address.replace(':', "-")));
    std::fs::create_dir_all(&folder).map_err(Failure::io)?;
    let copied = ledger.copy_journal(address, &folder).await;
    let audited = copied.map_err(failed).and_then(|state| {
        let index = ledger_snapshot::index_of(&state).map_err(Failure::damaged)?;
        let held = ledger_snapshot::decode(&state, cluster_id).map_err(Failure::damaged)?;
        let audited = audit(&folder, cluster_id, Some(index)).map_err(|e| unreadable(&e))?;
        let mut differences = audited.book.differences(&held);
        if audited.last.unwrap_or_default() != index {
            differences.push(format!("the journal ends at {:?}, the state is of {index}", audited.last));
        }
        Ok((audited, differences))
    });
    // A copy of what the voter has.
    let _ = std::fs::remove_dir_all(&folder);
    audited
}

fn unreadable(error: &JournalError) -> Failure {
    Failure::damaged(error)
}

impl Asked<'_> {
    /// Writes the files that were asked for, and says what was found; of a folder, when there is no voter.
    fn report(&self, voter: Option<&str>, audited: &Audited, differences: &[String]) -> Result<Value, Failure> {
        let charges = audited.book.charged();
        let rests = audited.book.lease_rests();
        let mut lines = String::new();
        for charge in &charges {
            let (id, campaign, nanos) = (charge.id, charge.campaign, charge.price.0);
            lines.push_str(&format!("{} {} {} {campaign} {nanos}\n", id.issuer, id.sequence, tokens::number(id.kind)));
        }
        write(self.args.charges.as_deref(), voter, &lines)?;
        let mut lines = String::new();
        for (campaign, LeaseRest { unreported_nanos, uncharged_nanos, open_nanos, .. }) in &rests {
            lines.push_str(&format!("{campaign} {unreported_nanos} {uncharged_nanos} {open_nanos}\n"));
        }
        write(self.args.leases.as_deref(), voter, &lines)?;
        let teller = Teller::new(&audited.book);
        let lines: String = self.tokens.iter().map(|text| teller.line(text) + "\n").collect();
        // Never over the file that they come from.
        write(self.args.tokens.as_deref(), Some(voter.unwrap_or("journal")), &lines)?;
        let compared = self.clearings.as_ref().map(|clearings| clearings.compare(&charges));
        let rest = rests.into_values().fold(LeaseRest::default(), LeaseRest::with);
        Ok(report(voter.unwrap_or("journal"), audited, differences, (rest, compared)))
    }
}

/// Writes lines to a file, or for one voter of several to one beside it: what they say may differ.
fn write(path: Option<&Path>, voter: Option<&str>, lines: &str) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let path = voter.map_or_else(|| path.to_path_buf(), |address| beside(path, address));
    std::fs::write(path, lines).map_err(Failure::io)
}

/// `charges.txt` of the voter at 10.0.0.1:7001 is `charges-10.0.0.1-7001.txt`.
fn beside(path: &Path, address: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{extension}", address.replace([':', '[', ']'], "-")))
}

fn report(
    voter: &str,
    audited: &Audited,
    differences: &[String],
    (rest, compared): (LeaseRest, Option<Compared>),
) -> Value {
    let found = &audited.findings;
    let is_billed = compared.as_ref().is_none_or(Compared::is_clean);
    json!({
        "voter": voter,
        "began_at": audited.began_at,
        "last_index": audited.last,
        "entries": found.entries,
        "events": found.events,
        "charges": found.charges,
        "repeated": found.repeated,
        "free": found.free,
        "refunds": found.refunds,
        "double": found.double,
        "overspend_nanos": narrow(found.overspend),
        "leases": {
            "unreported": rest.unreported,
            "unreported_nanos": narrow(rest.unreported_nanos),
            "uncharged_nanos": narrow(rest.uncharged_nanos),
            "open_nanos": narrow(rest.open_nanos),
        },
        "clearings": compared.as_ref().map(Compared::json),
        "faults": found.faults,
        "differences": differences,
        "clean": found.is_clean() && differences.is_empty() && is_billed,
    })
}

fn narrow(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn conclude(reports: &[Value], as_json: bool) -> Result<(), Failure> {
    let is_clean = reports.iter().all(|report| report["clean"] == true);
    if as_json {
        println!("{:#}", json!({ "clean": is_clean, "voters": reports }));
    } else {
        reports.iter().for_each(print);
    }
    if !is_clean {
        return Err(Failure::damaged(wrong(reports)));
    }
    if reports.iter().any(|report| report["clearings"]["of_others"] == true) {
        let what =
            "no charge is of an auction in the logs: name what every router of this cluster has as --clearing-log";
        return Err(Failure::usage(what));
    }
    Ok(())
}

/// What is wrong in reports that are not clean.
fn wrong(reports: &[Value]) -> &'static str {
    let has = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let is_misbooked = reports.iter().any(|report| has(&report["faults"]) || has(&report["differences"]));
    let is_misbilled = reports.iter().any(|report| has(&report["clearings"]["differences"]));
    match (is_misbooked, is_misbilled) {
        (_, false) => "the ledger is not what its journal says",
        (false, true) => "a charge is not what its auction says",
        (true, true) => "the ledger is not what its journal says, and a charge is not what its auction says",
    }
}

/// For people.
fn print(report: &Value) {
    let word = if report["clean"] == true { "right" } else { "WRONG" };
    println!(
        "{}: {word}; {} entries, {} charges, {} again, {} free, {} refunds, {} double",
        report["voter"].as_str().unwrap_or_default(),
        report["entries"],
        report["charges"],
        report["repeated"],
        report["free"],
        report["refunds"],
        report["double"]
    );
    let leases = &report["leases"];
    let held = |what: &str| units(leases[what].as_i64().unwrap_or_default());
    println!(
        "  {} leases ended without a report and held {}; of others {} was issued and not charged; open ones hold {}",
        leases["unreported"],
        held("unreported_nanos"),
        held("uncharged_nanos"),
        held("open_nanos")
    );
    let clearings = &report["clearings"];
    if clearings.is_object() {
        println!(
            "  {} charges cost what their auctions say, {} do not; the auctions of {} are not in the logs",
            clearings["matched"], clearings["different"], clearings["unmatched"]
        );
        println!("  {} lines of the logs cannot be read", clearings["unreadable"]);
    }
    let lists = [&report["faults"], &report["differences"], &clearings["differences"]];
    for fault in lists.into_iter().filter_map(Value::as_array).flatten() {
        println!("  {}", fault.as_str().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file was written over by each voter, and only the last one was looked at.
    #[test]
    fn each_voter_has_a_file_of_charges() {
        let name = |path: &str, address: &str| beside(Path::new(path), address).display().to_string();
        assert_eq!(name("/tmp/charges.txt", "10.0.0.1:7001"), "/tmp/charges-10.0.0.1-7001.txt");
        assert_eq!(name("charges", "[::1]:7002"), "charges----1--7002");
        assert_ne!(name("charges", "a:1"), name("charges", "a:2"));
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let of = |fault: &[&str], difference: &[&str], billed: &[&str]| {
            let clearings = json!({ "differences": billed, "of_others": false });
            json!({ "faults": fault, "differences": difference, "clearings": clearings, "clean": false })
        };
        let (misbooked, misbilled) = ("not what its journal says", "not what its auction says");
        let clean = json!({ "faults": [], "differences": [], "clearings": null, "clean": true });
        for (report, words) in [
            (of(&["M1"], &[], &[]), [true, false]),
            (of(&[], &["a lease"], &[]), [true, false]),
            (of(&[], &[], &["M8"]), [false, true]),
            (of(&["M1"], &[], &["M8"]), [true, true]),
        ] {
            let told = wrong(&[clean.clone(), report]);
            assert_eq!([misbooked, misbilled].map(|what| told.contains(what)), words, "{told}");
        }
        let unlooked = json!({ "clearings": { "differences": [], "of_others": true }, "clean": true });
        let told = conclude(&[unlooked], true).expect_err("nothing was looked at").to_string();
        assert!(told.contains("--clearing-log") && conclude(&[clean], true).is_ok(), "{told}");
    }
}
