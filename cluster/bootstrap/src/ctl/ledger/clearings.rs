//! Was every charge billed at the price of its auction?
//!
//! A token says its auction and its ad, and both stand with its charge in the journal. The clearing logs of routers say
//! what each ad on a page costs there. Logs may be a sample, and their old files go: of a charge whose auction is not in them
//! nothing can be said, and that is no error unless the logs are said to be complete. When they have none of the auctions,
//! they are another cluster's or of another time, and nothing was looked at.

use crate::failure::Failure;
use crate::replay::each_line;
use gavel_control::ledger::types::{Charge, EventKind, Origin};
use gavel_proto::ids::{AdId, AuctionId, CampaignId};
use gavel_proto::money::{BidType, Micros};
use gavel_router::clearing::FORMAT;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;

/// Differences that are told one by one.
const DIFFERENCES_MAX: usize = 100;

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    inputs: Inputs,
    placed: Vec<Place>,
}

#[derive(Deserialize)]
struct Inputs {
    format: u32,
    auction_id: AuctionId,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    ad: AdId,
    campaign: CampaignId,
    bid_type: BidType,
}

#[derive(Deserialize)]
struct Place {
    ad: Option<AdId>,
    billed_micros: Option<Micros>,
}

/// An ad on a page: who pays how much for which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Billed {
    ad: AdId,
    campaign: CampaignId,
    kind: EventKind,
    nanos: i64,
}

impl Billed {
    fn is_of(&self, charge: &Charge) -> bool {
        (self.campaign, self.kind, self.nanos) == (charge.campaign, charge.id.kind, charge.price.0)
    }
}

/// Whether logs have every auction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logged {
    /// A sample, or what is left of it.
    #[default]
    Sample,
    /// All of them, as whoever asks says.
    Whole,
}

/// The pages of logs.
#[derive(Debug, Default)]
pub struct Clearings {
    logged: Logged,
    /// An auction that was asked for again is there more than once; what was served is one of them.
    pages: HashMap<AuctionId, Vec<Billed>>,
    read: u64,
    /// Lines that are no clearing of this version; a router that was killed leaves its last one cut off.
    unreadable: u64,
}

/// How charges compare with pages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    matched: u64,
    /// Charges whose auctions are not in the logs.
    unmatched: u64,
    /// Of those, the ones that say their auction: all but those of earlier versions' entries.
    unlogged: u64,
    different: u64,
    unreadable: u64,
    logged: Logged,
    differences: Vec<String>,
}

impl Clearings {
    /// Reads folders of logs, or files of them.
    pub fn read(places: &[PathBuf], logged: Logged) -> Result<Self, Failure> {
        let mut this = Self { logged, ..Self::default() };
        for place in places {
            let before = this.read;
            each_line(place, |_, line| this.take(line))?;
            if this.read == before {
                let what = "no clearing of this version in it: name what routers have as --clearing-log";
                return Err(Failure::usage(format!("{}: {what}", place.display())));
            }
        }
        Ok(this)
    }

    fn take(&mut self, line: &[u8]) {
        let read = serde_json::from_slice::<Line>(line).ok().filter(|line| line.inputs.format == FORMAT);
        match read.as_ref().and_then(page) {
            Some((auction, page)) => {
                self.read += 1;
                self.pages.entry(auction).or_default().extend(page);
            }
            None => self.unreadable += 1,
        }
    }

    /// Holds every charge against the page of its auction.
    pub fn compare(&self, charges: &[Charge]) -> Compared {
        let (unreadable, logged) = (self.unreadable, self.logged);
        let mut compared = Compared { unreadable, logged, ..Compared::default() };
        for charge in charges {
            let Some(page) = self.pages.get(&charge.origin.auction) else {
                compared.miss(charge);
                continue;
            };
            let ad = charge.origin.ad;
            let of_ad = || page.iter().filter(move |billed| billed.ad == ad);
            if of_ad().any(|billed| billed.is_of(charge)) {
                compared.matched += 1;
                continue;
            }
            compared.different += 1;
            compared.tell(|| difference(charge, of_ad().next()));
        }
        compared
    }
}

impl Compared {
    /// A charge of an auction that is not in the logs.
    fn miss(&mut self, charge: &Charge) {
        self.unmatched += 1;
        if charge.origin == Origin::default() {
            return;
        }
        self.unlogged += 1;
        if self.logged == Logged::Whole {
            let (id, Origin { auction, ad }) = (charge.id, charge.origin);
            self.tell(|| format!("M5: {id:?} is charged for ad {ad}, and auction {auction} is in no log"));
        }
    }

    fn tell(&mut self, difference: impl FnOnce() -> String) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference());
        }
    }

    /// Nothing is charged that its auction does not say.
    pub const fn is_clean(&self) -> bool {
        let is_whole = match self.logged {
            Logged::Sample => true,
            Logged::Whole => self.unlogged == 0,
        };
        self.different == 0 && is_whole
    }

    /// No charge could be held against a page, though some say their auctions.
    pub const fn is_of_others(&self) -> bool {
        self.unlogged > 0 && self.matched + self.different == 0
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "matched": self.matched,
            "unmatched": self.unmatched,
            "unlogged": self.unlogged,
            "different": self.different,
            "of_others": self.is_of_others(),
            "unreadable": self.unreadable,
            "differences": self.differences,
        })
    }
}

/// The ads on a page, by their prices there; `None` when the line contradicts itself.
fn page(line: &Line) -> Option<(AuctionId, Vec<Billed>)> {
    let billed = |(ad, price): (AdId, Micros)| {
        let candidate = line.inputs.candidates.iter().find(|candidate| candidate.ad == ad)?;
        // A price per mille in micros is one impression's in nanos.
        let (kind, factor) = match candidate.bid_type {
            BidType::Cpm | BidType::Ocpm => (EventKind::Impression, 1),
            BidType::Cpc | BidType::Ocpc => (EventKind::Click, 1_000),
            BidType::Cpa => (EventKind::Conversion, 1_000),
        };
        let nanos = i64::try_from(price.0).unwrap_or(i64::MAX).saturating_mul(factor);
        Some(Billed { ad, campaign: candidate.campaign, kind, nanos })
    };
    let ads = line.placed.iter().filter_map(|place| place.ad.zip(place.billed_micros));
    Some((line.inputs.auction_id, ads.map(billed).collect::<Option<_>>()?))
}

fn difference(charge: &Charge, logged: Option<&Billed>) -> String {
    let (id, origin, campaign) = (charge.id, charge.origin, charge.campaign);
    let (ad, auction, nanos) = (origin.ad, origin.auction, charge.price.0);
    match logged {
        None => format!("M5: {id:?} is charged for ad {ad}, which is not on the page of auction {auction}"),
        Some(logged) => {
            format!("M8: {id:?} cost campaign {campaign} {nanos} nanos; in auction {auction} it is {logged:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_control::ledger::types::{ChargeId, Source};
    use gavel_proto::money::Nanos;

    fn line(auction: u64, placed: &[(u64, u64)]) -> String {
        let candidates = json!([
            {"ad": 6, "campaign": 1, "bid_type": "cpc", "weight": 5},
            {"ad": 7, "campaign": 2, "bid_type": "ocpm"},
        ]);
        let place = |(ad, micros): &(u64, u64)| json!({"position": 0, "ad": ad, "billed_micros": micros});
        let mut places: Vec<Value> = placed.iter().map(place).collect();
        places.push(json!({"position": 3, "ad": null, "organic": 0, "billed_micros": null}));
        json!({
            "inputs": {"format": FORMAT, "auction_id": auction, "candidates": candidates},
            "placed": places,
            "winners": [],
        })
        .to_string()
    }

    fn charge(auction: u64, ad: u64, (campaign, kind, nanos): (u64, EventKind, i64)) -> Charge {
        Charge {
            id: ChargeId { issuer: 1, sequence: 2, kind },
            campaign: CampaignId(campaign),
            issued_ms: 0,
            expires_ms: 0,
            period_ms: 0,
            price: Nanos(nanos),
            bid: Nanos(nanos),
            source: Source::Budget,
            origin: Origin { auction: AuctionId(auction), ad: AdId(ad) },
        }
    }

    #[test]
    fn a_charge_is_what_the_page_of_its_auction_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = [line(5, &[(6, 20), (7, 900)]), line(8, &[]), "{\"inputs\":".to_owned()];
        std::fs::write(folder.path().join("clearings-00000001.jsonl"), lines.join("\n")).expect("written");
        let read = |logged| Clearings::read(&[folder.path().to_path_buf()], logged).expect("read");
        let clearings = read(Logged::Sample);
        let of = |charges: &[Charge]| {
            let compared = clearings.compare(charges);
            (compared.matched, compared.unmatched, compared.different)
        };
        let (click, impression) = ((1, EventKind::Click, 20_000), (2, EventKind::Impression, 900));
        assert_eq!(of(&[charge(5, 6, click), charge(5, 7, impression)]), (2, 0, 0));
        assert_eq!(of(&[charge(4, 6, click), charge(0, 6, click)]), (0, 2, 0), "not in the logs");
        let wrong = [
            charge(5, 6, (1, EventKind::Click, 20_001)),
            charge(5, 6, (1, EventKind::Conversion, 20_000)),
            charge(5, 6, (3, EventKind::Click, 20_000)),
            charge(5, 9, click),
            charge(8, 6, click),
        ];
        assert_eq!(of(&wrong), (0, 0, 5));
        let compared = clearings.compare(&wrong);
        assert!(!compared.is_clean() && compared.unreadable == 1);
        assert!(compared.differences[0].starts_with("M8") && compared.differences[3].starts_with("M5"));
        // A charge of an auction that never was, one of an entry that does not say its auction, and one that is right.
        let odd = [charge(4, 6, click), charge(0, 0, click), charge(5, 6, click)];
        let compared = clearings.compare(&odd);
        assert!(compared.is_clean() && !compared.is_of_others() && compared.unlogged == 1);
        assert!(clearings.compare(&odd[..2]).is_of_others() && !clearings.compare(&odd[1..2]).is_of_others());
        let compared = read(Logged::Whole).compare(&odd);
        assert!(!compared.is_clean() && compared.differences.len() == 1, "{:?}", compared.differences);
        assert!(compared.differences[0].starts_with("M5"), "{:?}", compared.differences);
        assert!(read(Logged::Whole).compare(&odd[1..]).is_clean());
    }

    /// A request that is asked again has the auction's name, and may be served otherwise.
    #[test]
    fn an_auction_that_was_asked_for_again_has_two_pages() {
        let mut clearings = Clearings::default();
        clearings.take(line(5, &[(6, 20)]).as_bytes());
        clearings.take(line(5, &[(6, 30)]).as_bytes());
        let of = |nanos| clearings.compare(&[charge(5, 6, (1, EventKind::Click, nanos))]).matched;
        assert_eq!([of(20_000), of(30_000), of(40_000)], [1, 1, 0]);
        clearings.take(line(9, &[(99, 20)]).as_bytes());
        assert_eq!(clearings.unreadable, 1, "an ad on the page that is no candidate");
    }

    /// A process that was killed amid a character left a line that is no text, and nothing behind it was read.
    #[test]
    fn a_cut_off_character_is_one_unreadable_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bytes = "{\"inputs\":\"é".as_bytes().to_vec();
        bytes.pop();
        std::fs::write(folder.path().join("clearings-00000001.jsonl"), &bytes).expect("written");
        std::fs::write(folder.path().join("clearings-00000002.jsonl"), line(5, &[(6, 20)])).expect("written");
        let clearings = Clearings::read(&[folder.path().to_path_buf()], Logged::Sample).expect("read");
        assert_eq!((clearings.read, clearings.unreadable), (1, 1));
    }

    #[test]
    fn a_folder_without_clearings_is_a_mistake() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = Clearings::read(&[folder.path().to_path_buf()], Logged::Sample).expect_err("empty").to_string();
        assert!(told.contains("--clearing-log"), "{told}");
    }
}
