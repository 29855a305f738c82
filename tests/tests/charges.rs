//! Is every event charged once while processes die?
//!
//! The benchmark, small: a cluster of real processes, every event sent 1 to 5 times over both routers, leaders,
//! routers and nodes ended by kill -9; the ledger must be what the oracle says, on every voter, and its journals must
//! say so too, by the id of every token. What was served and is not charged is more than nothing, and within what
//! leases held.
//!
//! Beside it charges are held against the auctions that made them: each voter is killed in turn, and a node and a
//! router; then the audit finds every acknowledged charge in the journal of every voter, with the price of its auction
//! in the routers' logs, which are complete.

use gavel_tests::calls::{SOON, Sold};
use gavel_tests::cluster::{Cluster, Process, SMALL, binary, wait_for};
use gavel_tests::http;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
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

/// Users who take turns.
const USERS: u64 = 40;
/// Ids of the auctions of this test are from here on.
const FIRST_AUCTION: u64 = 2_000_000;
/// Requests between two kills, and during each.
const REQUESTS: u64 = 24;

/// What was sold, reported and acknowledged.
#[derive(Default)]
struct Books {
    requests: u64,
    /// Campaigns with a budget.
    budgets: BTreeSet<u64>,
    acknowledged: BTreeMap<String, Sold>,
}

impl Books {
    /// A large budget for every campaign that these users see.
    fn open(cluster: &Cluster) -> Self {
        cluster.wait_tokens();
        let seen = (0..2 * USERS).filter_map(|turn| cluster.sell((turn % 2) as usize, &request(turn, turn))).flatten();
        let payers: BTreeSet<(u64, u64)> = seen.map(|ad| (ad.campaign, ad.advertiser)).collect();
        payers.iter().for_each(|payer| cluster.budget(*payer, "lifetime", 1_000_000_000_000));
        Self { budgets: payers.into_iter().map(|(campaign, _)| campaign).collect(), ..Self::default() }
    }

    /// Asks these routers for ads and reports what each ad is billed for to all of them in turn, twice.
    fn trade(&mut self, cluster: &Cluster, routers: &[usize]) -> usize {
        let mut sold: Vec<Sold> = Vec::new();
        for turn in self.requests..self.requests + REQUESTS {
            let router = routers[turn as usize % routers.len()];
            // A request may be late on two shared cores: it sold nothing then.
            sold.extend(cluster.sell(router, &request(turn, FIRST_AUCTION + turn)).unwrap_or_default());
        }
        self.requests += REQUESTS;
        sold.retain(|ad| self.budgets.contains(&ad.campaign));
        let first = settle(cluster, routers[0], &sold);
        let second = settle(cluster, routers[routers.len() - 1], &sold);
        for ((ad, first), second) in sold.iter().zip(&first).zip(&second) {
            // An answer that was lost comes as a duplicate.
            assert!(
                ["charged", "duplicate"].contains(&first.as_str()) && second == "duplicate",
                "{first}, {second}: {ad:?}"
            );
            self.acknowledged.insert(ad.token.clone(), ad.clone());
        }
        sold.len()
    }

    /// Returns once the logs have every auction of which something was charged: a router that is killed then has lost
    /// nothing of them.
    fn wait_logged(&self, cluster: &Cluster) {
        wait_for("the auctions of all charges in the logs", SOON, || {
            let logged: BTreeSet<u64> = cluster.clearings().iter().map(|c| c.inputs.auction_id.0).collect();
            self.acknowledged.values().all(|ad| logged.contains(&ad.auction)).then_some(())
        });
    }
}

fn request(user: u64, auction: u64) -> Value {
    http::request_of(&(40 * (1 + user % USERS)).to_string(), auction)
}

/// Reports until every event has a final answer.
fn settle(cluster: &Cluster, router: usize, sold: &[Sold]) -> Vec<String> {
    let mut words = vec!["unavailable".to_owned(); sold.len()];
    wait_for("final answers", 3 * SOON, || {
        let open: Vec<usize> = (0..words.len()).filter(|at| words[*at] == "unavailable").collect();
        let events: Vec<Value> = open.iter().map(|at| sold[*at].event()).collect();
        open.iter().zip(cluster.report(router, &events)).for_each(|(at, word)| words[*at] = word);
        words.iter().all(|word| word != "unavailable").then_some(())
    });
    words
}

/// kill -9, and what was sold and charged while it was away.
fn without(
    cluster: &mut Cluster,
    books: &mut Books,
    process: impl Fn(&mut Cluster) -> &mut Process,
    routers: &[usize],
) {
    process(cluster).kill();
    let sold = books.trade(cluster, routers);
    process(cluster).start();
    println!("{sold} charges without {}", process(cluster).name);
    assert!(sold as u64 > REQUESTS / 2, "{sold}");
}

#[test]
fn every_charge_is_in_every_journal_and_is_that_of_its_auction_after_kills() {
    let mut cluster = Cluster::start_with(SMALL, &[], 10);
    let mut books = Books::open(&cluster);
    // A router asks for leases in the background, and serves no ad that pays for impressions before it has one.
    wait_for("an ad that pays for impressions", SOON, || {
        let sold = (0..USERS).filter_map(|user| cluster.sell(0, &request(user, user))).flatten();
        sold.into_iter().any(|ad| ad.billed() == "impression" && books.budgets.contains(&ad.campaign)).then_some(())
    });
    books.trade(&cluster, &[0, 1]);
    for voter in 0..cluster.controls.len() {
        without(&mut cluster, &mut books, |cluster| &mut cluster.controls[voter], &[0, 1]);
    }
    without(&mut cluster, &mut books, |cluster| &mut cluster.nodes[0], &[0, 1]);
    books.wait_logged(&cluster);
    without(&mut cluster, &mut books, |cluster| &mut cluster.routers[1], &[0]);
    cluster.wait_whole(1);
    books.trade(&cluster, &[0, 1]);
    books.wait_logged(&cluster);
    let billed: BTreeSet<&str> = books.acknowledged.values().map(Sold::billed).collect();
    assert_eq!(billed, BTreeSet::from(["click", "conversion", "impression"]));
    audited(&cluster, &books);
}

/// What the audit says of every voter, and writes of it.
fn audited(cluster: &Cluster, books: &Books) {
    let folder = cluster.folder().join("audit");
    std::fs::create_dir(&folder).expect("a folder");
    let [charges, tokens] = ["charges.txt", "tokens.txt"].map(|name| folder.join(name).display().to_string());
    let lines: Vec<&str> = books.acknowledged.keys().map(String::as_str).collect();
    std::fs::write(&tokens, lines.join("\n")).expect("written");
    let logs = cluster.clearing_folders();
    let asked = ["--clearings", &logs, "--clearings-complete", "--charges", &charges, "--tokens", &tokens];
    let count = lines.len();
    wait_for("the charges on every voter", SOON, || {
        let (code, report) = cluster.audit(&asked)?;
        assert!(code == Some(0) && report["clean"] == true, "{code:?}: {report:#}");
        let voters = report["voters"].as_array().filter(|voters| voters.len() == 3)?;
        // No more than was acknowledged, however long it takes: a phantom would stay.
        assert!(voters.iter().all(|voter| voter["charges"].as_u64() <= Some(count as u64)), "{report:#}");
        voters.iter().all(|voter| voter["charges"] == count && voter["clearings"]["matched"] == count).then_some(())
    });
    let texts = |name: &str| -> Vec<String> {
        let of_voter = |voter: &Process| folder.join(format!("{name}-{}.txt", voter.grpc.replace(':', "-")));
        cluster.controls.iter().map(|voter| std::fs::read_to_string(of_voter(voter)).expect("written")).collect()
    };
    for name in ["charges", "tokens"] {
        let texts = texts(name);
        assert_eq!(texts[0].lines().count(), count, "{name}");
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "the voters do not say the same {name}");
    }
    // In the order in which they were asked for: issuer, sequence, kind, campaign, nanos, lease, fate.
    for (line, ad) in texts("tokens")[0].lines().zip(books.acknowledged.values()) {
        let words: Vec<&str> = line.split(' ').collect();
        let nanos = ad.price_micros * if ad.billed() == "impression" { 1 } else { 1_000 };
        assert_eq!(words[3..5], [ad.campaign.to_string(), nanos.to_string()], "{line}: {ad:?}");
        assert_eq!(words.last(), Some(&"charged"), "{line}: {ad:?}");
        // Never above the bid that was in force in its auction.
        assert!(ad.price_micros <= ad.bid_micros, "{ad:?}");
    }
    println!("{count} charges, each in the journals of three voters and at the price of its auction");
}
