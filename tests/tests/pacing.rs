//! Does a campaign of clicks stop when its budget is gone, come back when it grows, and slow down when it is ahead?
//!
//! Real processes with a part of the demo. Clicks use up a small budget; within ten seconds the campaign is in no
//! auction any more, neither as a winner nor as what sets a price. The pacer's leader dies, and its successor goes on.
//! Held back by fewer auctions, the campaign takes part in exactly those that the hash names.

use gavel_proto::money::Micros;
use gavel_proto::pacing::participates;
use gavel_tests::calls::{SOON, Sold, event};
use gavel_tests::cluster::{Cluster, SMALL, now, wait_for};
use gavel_tests::http;
use std::ops::Range;

/// Requests that a look at the slates takes.
const SEEDS: Range<u64> = 1..25;

/// The campaign that the test is about.
struct Campaign {
    id: u64,
    advertiser: u64,
    /// A user who sees its ads.
    user: String,
    price_micros: u64,
}

/// Its ads among those that its user is answered with, over some requests; `None` unless all of them are answered: a
/// router that fails shows no ads either.
fn of(cluster: &Cluster, campaign: &Campaign) -> Option<Vec<Sold>> {
    let sell = |seed: u64| cluster.sell((seed % 2) as usize, &http::request_of(&campaign.user, seed));
    let sold = SEEDS.map(sell).collect::<Option<Vec<_>>>()?;
    Some(sold.into_iter().flatten().filter(|ad| ad.campaign == campaign.id).collect())
}

/// The same once all requests are answered.
fn answered(cluster: &Cluster, campaign: &Campaign) -> Vec<Sold> {
    wait_for("an answer to every request", SOON, || of(cluster, campaign))
}

/// A campaign of clicks that wins somewhere, with a bid that has it win wherever it may.
fn busy(cluster: &Cluster) -> Campaign {
    let users = || (1..60).map(|number| (number * 40).to_string());
    let (user, won) = wait_for("an ad that pays for clicks, with a token", 3 * SOON, || {
        users().find_map(|user| {
            let sold = cluster.sell(0, &http::request_of(&user, 1))?;
            Some((user, sold.into_iter().find(|ad| ad.bid_type == "cpc")?))
        })
    });
    let bid = Micros(won.bid_micros * 50).to_string();
    cluster.ctl(&["campaign", "set", &won.campaign.to_string(), "--bid", &bid]).expect("the bid is taken");
    let campaign = Campaign { id: won.campaign, advertiser: won.advertiser, user, price_micros: 0 };
    let own = wait_for("its ads", SOON, || of(cluster, &campaign).filter(|own| own.len() >= SEEDS.count()));
    let price = own.iter().map(|ad| ad.price_micros).max().expect("a price").max(1);
    Campaign { price_micros: price, ..campaign }
}

/// Sets its budget of the day to so many micros.
fn budget(cluster: &Cluster, campaign: &Campaign, micros: u64) {
    cluster.budget((campaign.id, campaign.advertiser), "daily", micros);
}

/// What the campaign bids in the auctions of some requests, by their seeds, whether it wins or not; `None` unless all
/// are explained.
fn bids_of(cluster: &Cluster, router: usize, campaign: &Campaign, seeds: Range<u64>) -> Option<Vec<(u64, u64)>> {
    let explain = |seed: u64| {
        let explained = cluster.explain(router, &http::request_of(&campaign.user, seed))?;
        let own = explained.of(campaign.id);
        Some(own.iter().filter_map(|c| Some((seed, c["bid_micros"].as_u64()?))).collect::<Vec<_>>())
    };
    Some(seeds.map(explain).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The bids alone, on the second router.
fn bids(cluster: &Cluster, campaign: &Campaign) -> Option<Vec<u64>> {
    Some(bids_of(cluster, 1, campaign, SEEDS)?.into_iter().map(|(_, bid)| bid).collect())
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
            match cluster.report(0, &[event("click", &ad.token)])[0].as_str() {
                "charged" => charged += ad.price_micros,
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
    let told = cluster.leader();
    assert!(cluster.controls[told].metric("gavel_pacing_gone_count") >= 1.0);

    cluster.controls[told].kill();
    let next = wait_for("another leader", SOON, || Some(cluster.leader()).filter(|next| *next != told));
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
    takes_part_in_fewer_auctions(&cluster, &campaign, full);
    cluster.controls[told].start();
}

/// The same held back by fewer auctions: it bids in full where it takes part, which is where the share that is in force
/// and the hash of auction and campaign say, on both routers; elsewhere it sets no price.
fn takes_part_in_fewer_auctions(cluster: &Cluster, campaign: &Campaign, full: u64) {
    cluster.ctl(&["campaign", "set", &campaign.id.to_string(), "--pacing", "throttle"]).expect("it is taken");
    let share = || cluster.campaign(campaign.id)["throttle_ppm"].as_u64().and_then(|ppm| u32::try_from(ppm).ok());
    let (ppm, looked) = wait_for("one share of the auctions on both routers", 6 * SOON, || {
        let ppm = share().filter(|ppm| *ppm < 1_000_000)?;
        let is_in = |seed: &u64| participates(*seed, campaign.id, ppm);
        // Auctions of either kind, however small the share has become.
        let within: Vec<u64> = (100..).filter(is_in).take(8).collect();
        let without: Vec<u64> = (100..).filter(|seed| !is_in(seed)).take(8).collect();
        let (mut looked, mut is_told) = (0, true);
        for router in 0..2 {
            let of_seeds = |seeds: &[u64]| {
                let each = seeds.iter().map(|seed| bids_of(cluster, router, campaign, *seed..seed + 1));
                each.collect::<Option<Vec<_>>>()
            };
            let (bids, none) = (of_seeds(&within)?, of_seeds(&without)?);
            // Where it takes part it bids in full; what is pinned may be of a moment ago.
            let is_full = |bids: &Vec<(u64, u64)>| !bids.is_empty() && bids.iter().all(|(_, bid)| *bid == full);
            is_told &= bids.iter().all(is_full) && none.iter().all(Vec::is_empty);
            looked += within.len() + without.len();
        }
        let explained = cluster.explain(0, &http::request_of(&campaign.user, without[0]))?;
        (is_told && share() == Some(ppm) && explained.ads_for("not_eligible_budget") > 0).then_some((ppm, looked))
    });
    println!("with {ppm} millionths of the auctions it bids in full in exactly those, of {looked} that were looked at");
}
