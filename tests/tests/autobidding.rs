//! Do bids of strategies follow their targets and budgets, and is nobody charged more than the bid in force?
//!
//! Real processes with a part of the demo. One campaign has a target cost of a conversion. Where the next in line sets
//! the price, a conversion costs it a tenth of the target, and its bid rises; then the rules change to first prices, a
//! conversion costs what is bid, which is above the target, and the bid falls. What the controller reads is what
//! routers expect of what they serve; conversions are reported of all of it with the genuine tokens, so that what is
//! charged says the same. Another campaign wants the most conversions within its budget: ahead of its day it bids
//! less, and with a larger budget as much as before. Limits are rounds of the pacer, which are counted; time has
//! generous ones.

use gavel_proto::money::Micros;
use gavel_router::clearing::ClearingRecord;
use gavel_tests::calls::{SOON, Sold, json_of};
use gavel_tests::cluster::{Cluster, Size, wait_for};
use gavel_tests::http;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

const SIZE: Size = Size { controls: 1, nodes: 2, routers: 2, shards: 2, replicas: 1 };
/// A bid of so many times its own wins wherever a campaign may.
const RAISED: u64 = 50;
/// Of the price of a conversion at such a bid.
const TARGET_PRICES: u64 = 10;
/// Rounds within which a bid must have moved. A round reads what was reported up to two seconds before it, the first
/// one publishes where the bid begins, the second begins to count, and from then on a bid moves by a tenth or more in
/// each.
const ROUNDS_MAX: f64 = 12.0;
/// A day's budget that nothing here comes near to: what five seconds bring is less than their share of it.
const AMPLE_MICROS: u64 = 900_000_000_000_000;

/// A campaign that bids for conversions.
struct Bidder {
    id: u64,
    advertiser: u64,
    /// A user who sees its ads.
    user: String,
    /// What it bids by the catalogue.
    own_micros: u64,
    /// The highest price of a conversion with a raised bid.
    price_micros: u64,
}

/// The market: every request is an auction of its own.
struct Market<'a> {
    cluster: &'a Cluster,
    next: Cell<u64>,
    /// Ads of which a conversion was charged.
    charged: RefCell<Vec<Sold>>,
}

impl Market<'_> {
    /// One request of this user to each router: the bidder's ads; `None` unless both are answered.
    fn ask(&self, bidder: &Bidder) -> Option<Vec<Sold>> {
        let sell = |router: usize| {
            let auction = self.next.replace(self.next.get() + 1);
            self.cluster.sell(router, &http::request_of(&bidder.user, auction))
        };
        let sold = [sell(0)?, sell(1)?].concat();
        Some(sold.into_iter().filter(|ad| ad.campaign == bidder.id).collect())
    }

    /// Reports a conversion of each, to the first router; how much was charged.
    fn convert(&self, sold: &[Sold]) -> u64 {
        if sold.is_empty() {
            return 0;
        }
        let events: Vec<Value> = sold.iter().map(Sold::event).collect();
        let words = self.cluster.report(0, &events);
        assert!(words.iter().all(|word| word == "charged"), "{words:?}");
        self.charged.borrow_mut().extend_from_slice(sold);
        sold.iter().map(|ad| ad.price_micros).sum()
    }

    fn rounds(&self) -> f64 {
        self.cluster.controls[0].metric("gavel_pacing_round_us_count")
    }

    /// Goes on until something has come, within so many rounds of the pacer.
    fn until<T>(&self, what: &str, mut come: impl FnMut() -> Option<T>) -> T {
        let first = self.rounds();
        let (found, rounds) = wait_for(what, 6 * SOON, || {
            let (found, rounds) = (come(), self.rounds() - first);
            assert!(found.is_some() || rounds <= ROUNDS_MAX, "no {what} within {rounds} rounds");
            found.map(|found| (found, rounds))
        });
        println!("{what} within {rounds} rounds");
        found
    }
}

/// Two campaigns that bid for conversions and win, of two advertisers and before two users.
fn bidders(cluster: &Cluster) -> [Bidder; 2] {
    cluster.wait_tokens();
    let found = wait_for("two campaigns that bid for conversions", SOON, || {
        let mut found: BTreeMap<u64, Bidder> = BTreeMap::new();
        for user in (1..60).map(|number| (number * 40).to_string()) {
            let of_user = cluster.sell(0, &http::request_of(&user, 1)).unwrap_or_default();
            let is_new = |ad: &&Sold| ad.bid_type == "cpa" && !found.contains_key(&ad.advertiser);
            if let Some(ad) = of_user.iter().find(is_new) {
                let (id, advertiser, own_micros) = (ad.campaign, ad.advertiser, ad.bid_micros);
                found.insert(advertiser, Bidder { id, advertiser, user, own_micros, price_micros: 0 });
            }
        }
        (found.len() >= 2).then_some(found)
    });
    let mut two = found.into_values();
    [two.next().expect("one"), two.next().expect("another")]
}

fn set(cluster: &Cluster, bidder: &Bidder, options: &[&str]) {
    let said = cluster.ctl(&[&["campaign", "set", &bidder.id.to_string()], options].concat()).expect("taken");
    assert_eq!(json_of(&said).expect("JSON")["effective"], true, "{said}");
}

/// The highest price that its ads have over some requests.
fn price(market: &Market, bidder: &Bidder) -> u64 {
    let looks = (0..8).map(|_| {
        let ads = wait_for("its ads", SOON, || market.ask(bidder).filter(|own| !own.is_empty()));
        ads.iter().map(|ad| ad.price_micros).max().expect("an ad")
    });
    looks.max().expect("looks").max(1)
}

/// The highest bid of its ads in one request to each router.
fn bid(market: &Market, bidder: &Bidder) -> Option<u64> {
    let sold = market.ask(bidder)?;
    market.convert(&sold);
    sold.iter().map(|ad| ad.bid_micros).max()
}

#[test]
fn bids_follow_targets_and_budgets() {
    let cluster = Cluster::start_with(SIZE, &[], 10);
    let market = Market { cluster: &cluster, next: Cell::new(1_000_000), charged: RefCell::default() };
    let [mut target, mut most] = bidders(&cluster);
    for bidder in [&target, &most] {
        cluster.budget((bidder.id, bidder.advertiser), "daily", AMPLE_MICROS);
        set(&cluster, bidder, &["--bid", &Micros(bidder.own_micros * RAISED).to_string()]);
    }
    for bidder in [&mut target, &mut most] {
        bidder.price_micros = price(&market, bidder);
    }
    set(&cluster, &most, &["--strategy", "most-conversions"]);
    assert_eq!(cluster.campaign(most.id)["strategy"]["kind"], "most_conversions");
    let cost = (target.price_micros * TARGET_PRICES).max(target.own_micros);
    let (own, shown) = (Micros(target.own_micros).to_string(), Micros(cost).to_string());
    set(&cluster, &target, &["--bid", &own, "--strategy", "target-cpa", "--target", &shown]);

    rises_and_falls(&market, &target, &most, cost);
    falls_and_comes_back(&market, &target, &most, cost);
    what_was_logged(&market, &target, &most, cost);
}

/// Below the target the bid rises. Meanwhile the other one spends a fifth of its day at once, and bids less.
fn rises_and_falls(market: &Market, target: &Bidder, most: &Bidder, cost: u64) {
    market.cluster.budget((most.id, most.advertiser), "daily", most.price_micros * 300);
    // Once a round has seen the budget.
    let seen = market.rounds() + 2.0;
    let (full, mut spent, mut lower) = (most.own_micros * RAISED, 0, None);
    let (risen, lower) = market.until("a higher bid below the target cost, and a lower one ahead of the day", || {
        let risen = bid(market, target).filter(|bid| (cost * 12 / 5..=cost * 4).contains(bid));
        if market.rounds() >= seen && lower.is_none() {
            let sold = market.ask(most)?;
            lower = sold.iter().map(|ad| ad.bid_micros).max().filter(|bid| *bid < full * 9 / 10);
            if spent < most.price_micros * 60 {
                spent += market.convert(&sold);
            }
        }
        risen.zip(lower)
    });
    println!("for a target of {cost} micros {risen} are bid; within its budget {lower} instead of {full}");
    in_force(market, target);
}

/// Above the target it falls, and the budget of the other one grows.
fn falls_and_comes_back(market: &Market, target: &Bidder, most: &Bidder, cost: u64) {
    let cluster = market.cluster;
    cluster.budget((most.id, most.advertiser), "daily", AMPLE_MICROS);
    let before = wait_for("its bid", SOON, || bid(market, target));
    cluster.ctl(&["rules", "--mechanism", "first-price"]).expect("the rules are taken");
    let full = most.own_micros * RAISED;
    let back = market.until("the whole bid with a larger budget", || {
        bid(market, target);
        market.ask(most)?.iter().map(|ad| ad.bid_micros).max().filter(|bid| *bid == full)
    });
    let fallen =
        market.until("a lower bid above the target cost", || bid(market, target).filter(|bid| *bid < before * 4 / 5));
    assert!(fallen >= cost / 10, "a tenth of the target is the least: {fallen}");
    println!("at first prices {before} micros became {fallen}; with a larger budget {back} are bid again");
    in_force(market, target);
    in_force(market, most);
}

/// What is bid is what the control plane says: its bid in force, times its multiplier.
fn in_force(market: &Market, bidder: &Bidder) {
    wait_for("the bid in force", SOON, || {
        let says = |shown: &Value| {
            let multiplier = u32::try_from(shown["multiplier_ppm"].as_u64()?).ok()?;
            Some(Micros(shown["bid_micros"].as_u64()?).paced(multiplier).0)
        };
        let before = says(&market.cluster.campaign(bidder.id))?;
        let bids: BTreeSet<u64> = market.ask(bidder)?.iter().map(|ad| ad.bid_micros).collect();
        // A round may have ended meanwhile; then it is looked at again.
        (bids == BTreeSet::from([before])).then_some(())
    });
}

/// The bid of a campaign by delivery version, in the order of versions: one version has one bid, whoever asks.
fn trajectory(clearings: &[ClearingRecord], bidder: &Bidder) -> Vec<(u64, u64)> {
    let mut bids: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for clearing in clearings {
        let own = clearing.inputs.candidates.iter().filter(|c| c.campaign.0 == bidder.id);
        bids.entry(clearing.inputs.epoch.delivery).or_default().extend(own.map(|c| c.bid_micros.0));
    }
    bids.retain(|_, bids| !bids.is_empty());
    assert!(bids.values().all(|bids| bids.len() == 1), "one version, one bid: {bids:?}");
    bids.into_iter().filter_map(|(version, bids)| Some((version, *bids.first()?))).collect()
}

/// The logs say how bids went from version to version; the ledger's charges are those of their auctions, at no more
/// than the bids there, and cost on average less than the target and then more.
fn what_was_logged(market: &Market, target: &Bidder, most: &Bidder, cost: u64) {
    let charged = market.charged.borrow();
    let by_auction = wait_for("the clearings of all charges", SOON, || {
        let clearings = market.cluster.clearings();
        let known: BTreeSet<u64> = clearings.iter().map(|c| c.inputs.auction_id.0).collect();
        charged.iter().all(|ad| known.contains(&ad.auction)).then_some(clearings)
    });
    let bids = trajectory(&by_auction, target);
    println!("target cost {cost}: {bids:?}");
    // It begins with twice the target.
    let begun = bids.iter().position(|(_, bid)| *bid == cost * 2).expect("the bid that it begins with");
    let peak = (begun..bids.len()).max_by_key(|at| bids[*at].1).expect("bids");
    assert!(bids[begun..=peak].windows(2).all(|w| w[0].1 <= w[1].1), "it only rises: {bids:?}");
    assert!(bids[peak].1 >= cost * 12 / 5 && bids[peak].1 <= cost * 4, "{bids:?}");
    assert!(bids.last().expect("bids").1 < bids[peak].1 * 4 / 5, "{bids:?}");
    let of_most = trajectory(&by_auction, most);
    println!("most conversions: {of_most:?}");
    let (least, last) = (of_most.iter().map(|(_, bid)| *bid).min(), of_most.last().map(|(_, bid)| *bid));
    assert!(least < Some(most.own_micros * RAISED * 9 / 10) && last == Some(most.own_micros * RAISED), "{of_most:?}");

    let bid_at = |bids: &[(u64, u64)], version: u64| {
        bids.iter().find(|(of, _)| *of == version).map(|(_, bid)| *bid).expect("a bid of that version")
    };
    let (mut cheap, mut dear) = (Vec::new(), Vec::new());
    for ad in charged.iter() {
        let bids = if ad.campaign == target.id { &bids } else { &of_most };
        let bid = bid_at(bids, ad.delivery_version);
        assert!(ad.price_micros <= bid && ad.bid_micros == bid, "{ad:?} with {bid} in force");
        let is_first_price = ad.price_micros == bid;
        if ad.campaign == target.id {
            if is_first_price { dear.push(bid) } else { cheap.push(ad.price_micros) }
        }
    }
    let mean = |prices: &[u64]| prices.iter().sum::<u64>() / prices.len().max(1) as u64;
    println!("{} conversions cost {} each, {} then {}", cheap.len(), mean(&cheap), dear.len(), mean(&dear));
    assert!(!cheap.is_empty() && mean(&cheap) < cost && !dear.is_empty() && mean(&dear) > cost);

    let (code, report) = market.cluster.audit(&["--clearings", &market.cluster.clearing_folders()]).expect("a report");
    let voter = &report["voters"][0];
    assert!(code == Some(0) && report["clean"] == true, "{report:#}");
    assert_eq!((&voter["charges"], &voter["clearings"]["matched"]), (&charged.len().into(), &charged.len().into()));
}
