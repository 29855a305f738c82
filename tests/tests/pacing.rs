//! Does a campaign of clicks stop when its budget is gone, come back when it grows, and slow down when it is ahead?
//!
//! Real processes with a part of the demo. Clicks use up a small budget; within ten seconds the campaign is in no auction
//! any more, neither as a winner nor as what sets a price. The pacer's leader dies, and its successor goes on.

use gavel_tests::cluster::{Cluster, SMALL, now, wait_for};
use gavel_tests::http;
use serde_json::{Value, json};
use std::time::Duration;

/// What is promised, and the time of looking.
const SOON: Duration = Duration::from_secs(20);
/// Requests that a look at the slates takes.
const SEEDS: std::ops::Range<u64> = 1..25;

/// The campaign that the test is about.
struct Campaign {
    id: u64,
    advertiser: u64,
    /// A user who sees its ads.
    user: String,
    price_micros: u64,
}

/// The ads that routers answer a user with, over some requests; `None` unless all of them are answered: a router that
/// fails shows no ads either.
fn ads(cluster: &Cluster, user: &str) -> Option<Vec<Value>> {
    let slate = |seed: u64| -> Option<Vec<Value>> {
        let (status, body) = cluster.ask((seed % 2) as usize, &http::request_of(user, seed))?;
        body["slate"].as_array().filter(|_| status == 200).cloned()
    };
    let slates = SEEDS.map(slate).collect::<Option<Vec<_>>>()?;
    Some(slates.into_iter().flatten().filter(|ad| ad["campaign"].is_u64()).collect())
}

/// Its ads among those that its user is answered with; `None` unless all requests are answered.
fn of(cluster: &Cluster, campaign: &Campaign) -> Option<Vec<Value>> {
    Some(ads(cluster, &campaign.user)?.into_iter().filter(|ad| ad["campaign"] == campaign.id).collect())
}

/// The same once all requests are answered.
fn answered(cluster: &Cluster, campaign: &Campaign) -> Vec<Value> {
    wait_for("an answer to every request", SOON, || of(cluster, campaign))
}

/// A campaign of clicks that wins somewhere, with a bid that has it win wherever it may.
fn busy(cluster: &Cluster) -> Campaign {
    let users = || (1..60).map(|number| (number * 40).to_string());
    let (user, won) = wait_for("an ad that pays for clicks, with a token", 3 * SOON, || {
        users().find_map(|user| {
            let (_, body) = cluster.ask(0, &http::request_of(&user, 1))?;
            let is_it = |ad: &&Value| ad["bid_type"] == "cpc" && ad["token"].is_string();
            let won = body["slate"].as_array()?.iter().find(is_it)?.clone();
            Some((user, won))
        })
    });
    let number = |field: &str| won[field].as_u64().unwrap_or_else(|| panic!("no {field} in {won}"));
    let (id, advertiser, bid) = (number("campaign"), number("advertiser"), number("bid_micros") * 50);
    let bid = format!("{}.{:06}", bid / 1_000_000, bid % 1_000_000);
    cluster.ctl(&["campaign", "set", &id.to_string(), "--bid", &bid]).expect("the bid is taken");
    let campaign = Campaign { id, advertiser, user, price_micros: 0 };
    let own = wait_for("its ads", SOON, || of(cluster, &campaign).filter(|own| own.len() >= SEEDS.count()));
    let price = own.iter().filter_map(|ad| ad["price_micros"].as_u64()).max().expect("a price").max(1);
    Campaign { price_micros: price, ..campaign }
}

/// Sets its budget of the day to so many micros; the day is one that does not end soon.
fn budget(cluster: &Cluster, campaign: &Campaign, micros: u64) {
    let hour = gavel_member::clock::wall_ms() / 3_600_000 % 24;
    let zone = if (1..20).contains(&hour) { "UTC" } else { "Asia/Tokyo" };
    let (id, advertiser) = (campaign.id.to_string(), campaign.advertiser.to_string());
    let daily = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let arguments = ["ledger", "budget", &id, "--advertiser", &advertiser, "--daily", &daily, "--zone", zone];
    cluster.ctl(&arguments).expect("the budget is taken");
}

/// Clicks on an ad; the answer's word.
fn click(cluster: &Cluster, ad: &Value) -> String {
    let address = cluster.routers[0].http.as_deref().expect("an address");
    let body = json!({"events": [{"kind": "click", "token": ad["token"]}]}).to_string();
    let (status, text) = http::post(address, "/v1/events", &body).expect("an answer");
    assert_eq!(status, 200, "{text}");
    let answered: Value = serde_json::from_str(&text).expect("JSON");
    answered["answers"][0].as_str().expect("a word").to_owned()
}

/// What the campaign bids in the auctions of some requests, whether it wins or not; `None` unless all are explained.
fn bids(cluster: &Cluster, campaign: &Campaign) -> Option<Vec<u64>> {
    let address = cluster.routers[1].http.as_deref().expect("an address");
    let explain = |seed: u64| -> Option<Vec<Value>> {
        let (status, text) = http::post(address, "/v1/explain", &http::request_of(&campaign.user, seed).to_string())?;
        let explained: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
        let clearing: Value = serde_json::from_str(explained["clearing"].as_str()?).ok()?;
        clearing["inputs"]["candidates"].as_array().cloned()
    };
    let candidates = SEEDS.map(explain).collect::<Option<Vec<_>>>()?.into_iter().flatten();
    Some(candidates.filter(|c| c["campaign"] == campaign.id).filter_map(|c| c["bid_micros"].as_u64()).collect())
}

fn leader(cluster: &Cluster) -> usize {
    wait_for("a leader", SOON, || cluster.controls.iter().position(|c| c.metric("gavel_control_leader") > 0.0))
}

/// Clicks on its ads until so much is charged, or until it has no ads any more; what was charged.
fn spend(cluster: &Cluster, campaign: &Campaign, micros: u64) -> u64 {
    let mut charged = 0;
    let start = now();
    while charged < micros {
        assert!(start.elapsed() < 4 * SOON, "{charged} of {micros} micros were charged, and it is still served");
        let own = answered(cluster, campaign);
        if own.is_empty() {
            break;
        }
        for ad in own {
            match click(cluster, &ad).as_str() {
                "charged" => charged += ad["price_micros"].as_u64().expect("a price"),
                // A router does not know yet that there are budgets.
                "over_budget" | "unknown_campaign" => {}
                other => panic!("a click was answered {other}"),
            }
            if charged >= micros {
                break;
            }
        }
    }
    charged
}

#[test]
fn clicks_end_with_their_budget_and_bids_fall_ahead_of_the_curve() {
    let mut cluster = Cluster::start_with(SMALL, &[], 8);
    let campaign = busy(&cluster);
    let everywhere = wait_for("every auction explained", SOON, || bids(&cluster, &campaign));
    let full = *everywhere.iter().max().expect("it bids");

    budget(&cluster, &campaign, campaign.price_micros * 3);
    let begun = now();
    let charged = spend(&cluster, &campaign, u64::MAX);
    assert!(charged > 0 && charged <= campaign.price_micros * 3, "{charged}");
    println!("{charged} micros were charged; the campaign left {:?} after its budget was set", begun.elapsed());
    wait_for("it to set no price either", SOON, || bids(&cluster, &campaign).filter(Vec::is_empty));
    let told = leader(&cluster);
    assert!(cluster.controls[told].metric("gavel_pacing_gone_count") >= 1.0);

    cluster.controls[told].kill();
    let next = wait_for("another leader", SOON, || Some(leader(&cluster)).filter(|next| *next != told));
    assert!(answered(&cluster, &campaign).is_empty(), "it stays out without the pacer");
    budget(&cluster, &campaign, 1_000_000_000);
    let raised = now();
    wait_for("the campaign to come back", 2 * SOON, || of(&cluster, &campaign).filter(|own| !own.is_empty()));
    println!("it came back after {:?} under another leader", raised.elapsed());
    assert!(cluster.controls[next].metric("gavel_pacing_campaigns_count") >= 1.0);
    wait_for("its whole bid", 3 * SOON, || bids(&cluster, &campaign).filter(|bids| bids.iter().max() == Some(&full)));

    // A fifth of what is left of the day at once, once a round of the pacer has seen the budget.
    budget(&cluster, &campaign, charged + campaign.price_micros * 300);
    let rounds = || cluster.controls[next].metric("gavel_pacing_round_us_count");
    let seen = rounds() + 2.0;
    wait_for("two rounds of the pacer", SOON, || (rounds() >= seen).then_some(()));
    spend(&cluster, &campaign, campaign.price_micros * 60);
    let lower = wait_for("a lower bid", 3 * SOON, || {
        bids(&cluster, &campaign)?.into_iter().max().filter(|bid| *bid < full * 9 / 10)
    });
    println!("a bid of {full} micros became {lower}");

    // The same held back by fewer auctions: it bids in full where it takes part, and takes part in some.
    cluster.ctl(&["campaign", "set", &campaign.id.to_string(), "--pacing", "throttle"]).expect("it is taken");
    let shares = wait_for("full bids in some of the auctions", 3 * SOON, || {
        let bids = bids(&cluster, &campaign)?;
        let all_full = bids.iter().all(|bid| *bid == full);
        (all_full && !bids.is_empty() && bids.len() < everywhere.len()).then_some(bids.len())
    });
    println!("it bid in full in {shares} auctions of {}", everywhere.len());
    cluster.controls[told].start();
}
