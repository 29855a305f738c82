//! Is a charge given back by the token of its event, once, and was it billed at the price of its auction?
//!
//! Real processes with a part of the demo. Three clicks on ads of different auctions are charged; one is given back
//! whole and one in part, over the operator's command; then the audit holds every charge against the routers' clearing
//! logs, and notices a log that says another price.

use gavel_tests::calls::{SOON, Sold, json_of};
use gavel_tests::cluster::{Cluster, SMALL, now, wait_for};
use gavel_tests::http;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Between two looks at balances.
const LOOK: Duration = Duration::from_millis(50);
/// Ids of the auctions of this test are from here on.
const FIRST_AUCTION: u64 = 70_000;

/// What a click on it costs.
fn nanos(sold: &Sold) -> i64 {
    i64::try_from(sold.price_micros * 1_000).expect("a price")
}

/// Ads that pay for clicks, one of each of three auctions.
fn sold(cluster: &Cluster) -> Vec<Sold> {
    let ask = |number: u64| {
        let request = http::request_of(&(number * 40).to_string(), FIRST_AUCTION + number);
        let sold = cluster.sell((number % 2) as usize, &request)?;
        sold.into_iter().find(|ad| ad.billed() == "click" && ad.price_micros > 1)
    };
    cluster.wait_tokens();
    wait_for("three ads that pay for clicks", SOON, || {
        let sold: Vec<Sold> = (1..60).filter_map(ask).take(3).collect();
        (sold.len() == 3).then_some(sold)
    })
}

/// Gives its campaign a budget, and clicks.
fn charge(cluster: &Cluster, sold: &Sold) {
    cluster.budget((sold.campaign, sold.advertiser), "lifetime", 1_000_000_000_000);
    wait_for("the charge", SOON, || {
        let words = cluster.report(0, &[sold.event()]);
        assert!(["charged", "duplicate", "unavailable"].contains(&words[0].as_str()), "{words:?}");
        (words[0] != "unavailable").then_some(())
    });
}

/// Waits until so much is charged and so much given back, over all accounts.
fn expect_totals(cluster: &Cluster, charged: i64, refunded: i64) {
    let mut last = Value::Null;
    let start = now();
    while start.elapsed() < SOON {
        let (_, said) = cluster.ledger(&["balances", "--json"]);
        last = json_of(&said).expect("JSON");
        let accounts: Vec<&Value> = last["campaigns"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["accounts"].as_array())
            .flatten()
            .collect();
        let sum = |name: &str| accounts.iter().filter_map(|account| account[name].as_i64()).sum::<i64>();
        let left = sum("available_nanos") + sum("pending_nanos");
        assert_eq!(sum("deposited_nanos"), left + sum("posted_nanos") + sum("refunded_nanos"), "{last:#}");
        if (sum("posted_nanos"), sum("refunded_nanos")) == (charged, refunded) {
            return;
        }
        std::thread::sleep(LOOK);
    }
    panic!("{charged} charged and {refunded} given back: {last:#}");
}

#[test]
fn a_charge_is_given_back_once_and_every_charge_is_its_auctions() {
    let cluster = Cluster::start_with(SMALL, &[], 10);
    let sold = sold(&cluster);
    sold.iter().for_each(|sold| charge(&cluster, sold));
    let charged: i64 = sold.iter().map(nanos).sum();
    expect_totals(&cluster, charged, 0);
    refunds(&cluster, &sold, charged);
    mistakes(&cluster, &sold);
    clearings(&cluster, &sold);
}

fn refunds(cluster: &Cluster, sold: &[Sold], charged: i64) {
    let (whole, part) = (&sold[0], &sold[1]);
    let (code, said) = cluster.ledger(&["refund", &whole.token]);
    assert!(code == Some(0) && said.contains("1 given back") && said.contains("0 before, 0 refused"), "{said}");
    expect_totals(cluster, charged - nanos(whole), nanos(whole));
    for again in [&["refund", &whole.token][..], &["refund", &whole.token, "--amount", "0.000001"]] {
        let (code, said) = cluster.ledger(again);
        assert!(code == Some(0) && said.contains("given back before") && said.contains("0 given back"), "{said}");
        expect_totals(cluster, charged - nanos(whole), nanos(whole));
    }
    let file = cluster.folder().join("refunds.txt");
    std::fs::write(&file, format!("{}\n\n{}\n", part.token, whole.token)).expect("written");
    let file = file.display().to_string();
    let (code, said) = cluster.ledger(&["refund", "--file", &file, "--amount", "0.000001", "--json"]);
    let said = json_of(&said).expect("JSON");
    assert_eq!((code, &said["refunded"], &said["before"]), (Some(0), &json!(1), &json!(1)), "{said:#}");
    assert_eq!(said["refunded_nanos"], 1_000, "{said:#}");
    let answers: Vec<&Value> = said["tokens"].as_array().expect("tokens").iter().map(|t| &t["answer"]).collect();
    assert_eq!(answers, ["refunded", "duplicate"]);
    expect_totals(cluster, charged - nanos(whole) - 1_000, nanos(whole) + 1_000);
}

/// Nothing of this changes a balance.
fn mistakes(cluster: &Cluster, sold: &[Sold]) {
    let token = &sold[2].token;
    let altered = if token.ends_with('A') { "B" } else { "A" };
    let altered = token[..token.len() - 1].to_owned() + altered;
    let (code, said) = cluster.ledger(&["refund", token, &altered, "--amount", "1000"]);
    assert_eq!(code, Some(1), "{said}");
    for told in ["more than was charged", "not sealed by this cluster", "2 refunds were refused"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let (code, said) = cluster.ledger(&["refund", &token[..40]]);
    assert!(code == Some(64) && said.contains("is no token"), "{said}");
    let (code, said) = cluster.ledger(&["refund"]);
    assert!(code == Some(64) && said.contains("--file"), "{said}");
}

fn clearings(cluster: &Cluster, sold: &[Sold]) {
    let logs = cluster.clearing_folders();
    let tokens = cluster.folder().join("tokens.txt");
    let lines: Vec<&str> = sold.iter().map(|sold| sold.token.as_str()).collect();
    std::fs::write(&tokens, lines.join("\n")).expect("written");
    let asked = tokens.display().to_string();
    wait_for("every auction in the logs, and every charge on all voters", SOON, || {
        let (code, report) = cluster.audit(&["--clearings", &logs, "--tokens", &asked])?;
        let voters = report["voters"].as_array().expect("voters");
        assert!(code == Some(0) && report["clean"] == true && voters.len() == 3, "{report:#}");
        let is_whole =
            |voter: &Value| voter["charges"] == 3 && voter["refunds"] == 2 && voter["clearings"]["matched"] == 3;
        voters.iter().all(is_whole).then_some(())
    });
    let voter = cluster.controls[0].grpc.replace(':', "-");
    let told = std::fs::read_to_string(tokens.with_file_name(format!("tokens-{voter}.txt"))).expect("the tokens");
    let fates: Vec<&str> = told.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(fates, ["refunded", "refunded", "charged"], "{told}");
    let campaign = sold[0].campaign.to_string();
    assert_eq!(told.lines().next().and_then(|line| line.split(' ').nth(3)), Some(campaign.as_str()), "{told}");

    let altered = cluster.folder().join("altered");
    alter(cluster, &sold[0], &altered);
    let (code, report) = cluster.audit(&["--clearings", &altered.display().to_string()]).expect("a report");
    let found = &report["voters"][0]["clearings"];
    assert_eq!((code, &report["clean"]), (Some(65), &json!(false)), "{report:#}");
    assert_eq!((&found["different"], &found["unmatched"]), (&json!(1), &json!(2)), "{report:#}");
}

/// A log with the auctions of an ad alone, in which its price is one more.
fn alter(cluster: &Cluster, sold: &Sold, folder: &Path) {
    let mut lines = String::new();
    for line in cluster.clearing_lines() {
        let mut clearing: Value = serde_json::from_str(&line).expect("a clearing");
        if clearing["inputs"]["auction_id"] != sold.auction {
            continue;
        }
        for place in clearing["placed"].as_array_mut().expect("a page") {
            if place["ad"] == sold.ad {
                place["billed_micros"] = json!(place["billed_micros"].as_u64().expect("a price") + 1);
            }
        }
        lines.push_str(&format!("{clearing}\n"));
    }
    std::fs::create_dir(folder).expect("a folder");
    std::fs::write(folder.join("clearings-00000001.jsonl"), lines).expect("written");
}
