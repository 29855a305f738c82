//! Which random auctions are compared with their twin, and what does the serving code make of each?
//!
//! Few distinct amounts, so that ties, full limits and empty slots are common; one case in sixteen has real ones. An ad
//! may bid below its reserve, and is then worth more than a winner in many a case. Three cases in four go the way of a
//! request: ads live on shards, which apply reserves and send what their cut leaves, and the lists are merged. In every
//! other case winners cannot be served, and the auction is cleared anew.
//!
//! In one of eight users cascade. Those who go on are then counted in eighths, and scores are multiples of a power of 8:
//! no product is rounded where the slate is found, so that it must be one of the best to the unit.

use crate::truth::cascade::{self, Reader};
use crate::truth::oracle;
use crate::workload::Seeded;
use gavel_proto::cut::{Neighbours, SPARE, cut};
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::TieKey;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros, PPM};
use gavel_router::auction::{
    AuctionRule, AuctionTerms, Clearing, Mechanism, TiePrice, UserModel, clear, reclear_without,
};
use gavel_router::merge::{Candidate, Offer, Ranking, ShardList, merge};

/// Parts in which users are counted who go on past an ad.
const PARTS: u32 = 8;
/// What scores are multiples of where users cascade: whole behind three ads, and slates that differ in worth do so by 8
/// units at least, more than the one a slot that the twin allows for rounding.
const CASCADE_STEP: u64 = 8 * 8 * 8 * 8;

/// One auction.
#[derive(Debug)]
pub struct Case {
    /// Its rule.
    pub rule: oracle::Rule,
    /// How users read the slate.
    pub users: UserModel,
    /// Who takes part.
    pub ads: Vec<CaseAd>,
    /// Shards over which the ads are spread; 0 = one list that nobody cut.
    pub shards: u32,
    /// Winners that turn out not to be servable, one after the other, each the best of those that are left.
    pub failures: usize,
}

/// An ad with what the twin of the separable auction does not ask.
#[derive(Debug)]
pub struct CaseAd {
    /// What it bids.
    pub ad: oracle::Ad,
    /// Of a million users so many go on past it.
    pub goes_on_ppm: u32,
    /// The shard that holds it.
    pub shard: u32,
}

/// (ad, billed) by slot.
pub type Sold = Vec<(u64, u64)>;

/// What the serving code made of a case.
#[derive(Debug)]
pub struct Served {
    /// The slate.
    pub sold: Sold,
    /// Winners that were taken out.
    pub failed: Vec<u64>,
    /// Ads at or above their reserve that no shard sent.
    pub cut: u64,
    /// Whether a limit kept a better ad out of a slot.
    pub limited: bool,
    /// Whether the page threshold left a slot empty that an ad could have had.
    pub emptied: bool,
    /// Whether an ad that is worth more than a winner bids below its reserve.
    pub filtered: bool,
}

/// How large the amounts of a case are.
struct Scale {
    bids: u64,
    weights: u64,
    /// What every score is a multiple of.
    step: u64,
    /// Probabilities of events are so many of these, of 1e15.
    events: (u64, u64),
    values: bool,
}

struct Dice<'a>(&'a mut Seeded);

impl Dice<'_> {
    /// Uniform in `0..below`.
    fn roll(&mut self, below: u64) -> u64 {
        self.0.next_u64() % below
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }

    fn rule(&mut self, users: UserModel) -> oracle::Rule {
        use oracle::Mechanism::{FirstPrice, Gsp, Vcg};
        // Eighths, so that a page threshold is reached in some slots and not in others.
        let mut factors: Vec<u32> = (0..self.roll(5)).map(|_| (1 + self.roll(6) as u32) * (PPM / 8)).collect();
        factors.sort_unstable_by(|a, b| b.cmp(a));
        let limited = oracle::Rule {
            mechanism: self.pick(&[Gsp, Vcg, FirstPrice]),
            slots: self.roll(5) as usize,
            per_advertiser: 1 + (self.roll(4) / 3) as usize,
            per_category: self.pick(&[0, 0, 1, 1, 2]),
            apart: if self.roll(3) == 0 { oracle::Apart::Yes } else { oracle::Apart::No },
            factors,
            tie_key: TieKey::from_number(self.roll(4)),
            auction_id: self.roll(1_000),
            page_threshold: 0,
        };
        match users {
            UserModel::Separable => limited,
            UserModel::Cascade => oracle::Rule {
                mechanism: self.pick(&[Vcg, Vcg, FirstPrice]),
                per_advertiser: 1,
                per_category: 0,
                apart: oracle::Apart::No,
                ..limited
            },
        }
    }

    /// Up to half of what the best ad may be worth.
    fn page_threshold(&mut self, users: UserModel, scale: &Scale) -> i128 {
        match users {
            UserModel::Separable if self.roll(3) == 0 => {
                i128::from(self.roll(scale.bids + 1)) * i128::from(1 + self.roll(scale.weights)) / 2
            }
            UserModel::Separable | UserModel::Cascade => 0,
        }
    }

    fn scale(&mut self, users: UserModel) -> Scale {
        let step = match users {
            UserModel::Separable => 1,
            UserModel::Cascade => CASCADE_STEP,
        };
        let values = self.roll(3) == 0;
        if self.roll(16) == 0 {
            return Scale {
                bids: 5_000_000,
                weights: 40_000_000_000_000,
                step,
                events: (40_000_000_000_000, 1),
                values,
            };
        }
        // 0.1 to 4 per mille: a few micros per conversion are a few micros per mille of impressions.
        Scale { bids: 1 + self.roll(12), weights: 4, step, events: (40, 100_000_000_000), values }
    }

    fn ad(&mut self, ad: u64, advertisers: u64, categories: u64, scale: &Scale) -> oracle::Ad {
        let bid = self.roll(scale.bids + 1);
        let (events, event) = scale.events;
        let value = if scale.values { i128::from(self.roll(13)) - 6 } else { 0 };
        oracle::Ad {
            ad,
            advertiser: self.roll(advertisers),
            category: self.roll(categories),
            bid_type: self.pick(&BidType::ALL),
            bid,
            weight: (1 + self.roll(scale.weights)) * scale.step,
            event_weight: (1 + self.roll(events)) * event,
            // More clicks than conversions, as a rule: a weight that was rounded may say otherwise.
            click_weight: (1 + self.roll(2 * events)) * event,
            value: value * i128::from(scale.weights / 4 * scale.step),
            reserve: self.roll(2) * self.roll(bid + bid / 4 + 2),
        }
    }
}

impl Case {
    /// The next one.
    pub fn draw(random: &mut Seeded) -> Self {
        let mut dice = Dice(random);
        let users = if dice.roll(8) == 0 { UserModel::Cascade } else { UserModel::Separable };
        let (rule, scale) = (dice.rule(users), dice.scale(users));
        let page_threshold = dice.page_threshold(users, &scale);
        let (advertisers, categories) = (1 + dice.roll(9), 1 + dice.roll(4));
        // A cut leaves nothing out of a list that is hardly longer than the slate.
        let most = dice.pick(&[6, 10, 14, 24]);
        let count = dice.roll(most + 1);
        let shards = dice.roll(4) as u32;
        let failures = dice.pick(&[0, 0, 1, SPARE]);
        let ad = |ad: u64| CaseAd {
            ad: dice.ad(ad, advertisers, categories, &scale),
            goes_on_ppm: dice.roll(u64::from(PARTS)) as u32 * (PPM / PARTS),
            shard: if shards == 0 { 0 } else { dice.roll(u64::from(shards)) as u32 },
        };
        let ads = (0..count).map(ad).collect();
        Self { rule: oracle::Rule { page_threshold, ..rule }, users, ads, shards, failures }
    }

    /// What the twin says of the same market; of equal slates of cascading users, the one that was served.
    ///
    /// # Errors
    /// When the served slate of cascading users is not one of the best.
    pub fn expected(&self, served: &Served) -> Result<Sold, String> {
        let left = self.ads.iter().filter(|one| !served.failed.contains(&one.ad.ad));
        match self.users {
            UserModel::Separable => {
                let ads: Vec<oracle::Ad> = left.map(|one| one.ad.clone()).collect();
                let clearing = oracle::clear(&ads, &self.rule);
                Ok(clearing.into_iter().map(|(index, billed)| (ads[index].ad, billed)).collect())
            }
            UserModel::Cascade => {
                let readers: Vec<Reader<'_>> =
                    left.map(|one| Reader { ad: &one.ad, goes_on_ppm: one.goes_on_ppm }).collect();
                let slate: Vec<u64> = served.sold.iter().map(|(ad, _)| *ad).collect();
                cascade::bill(&readers, &self.rule, &slate)
            }
        }
    }

    /// Clears it with the code that serves.
    ///
    /// # Errors
    /// When an ad, the rule or a list is refused.
    pub fn served(&self) -> Result<Served, String> {
        let rule = AuctionRule::new(self.terms()).map_err(|e| e.to_string())?;
        let ranking = self.ranking(&rule)?;
        let (clearing, failed) = self.cleared(&ranking, &rule);
        let held = self.ads.iter().filter(|one| one.ad.bid >= one.ad.reserve).count();
        let limited = clearing.winners.iter().any(|winner| {
            let better = ranking[..winner.candidate].iter();
            better.filter(|c| c.eligible() && !failed.contains(&c.offer().ad)).count() > winner.slot
        });
        let least = clearing.winners.iter().map(|w| ranking[w.candidate].score()).min();
        let filtered = |one: &CaseAd| one.ad.bid < one.ad.reserve && Some(oracle::worth(&one.ad, one.ad.bid)) > least;
        Ok(Served {
            filtered: least.is_some() && self.ads.iter().any(filtered),
            sold: clearing.winners.iter().map(|w| (ranking[w.candidate].offer().ad.0, w.billed.0)).collect(),
            failed: failed.iter().map(|ad| ad.0).collect(),
            cut: if self.shards == 0 { 0 } else { (held - ranking.len()) as u64 },
            limited: limited && self.users == UserModel::Separable,
            emptied: self.winners_without_threshold(&ranking, &failed)? > clearing.winners.len(),
        })
    }

    /// Clears the ranking, and anew after each winner that cannot be served.
    fn cleared(&self, ranking: &Ranking, rule: &AuctionRule) -> (Clearing, Vec<AdId>) {
        let (mut clearing, mut failed) = (clear(ranking, rule), Vec::new());
        for _ in 0..self.failures {
            let Some(first) = clearing.winners.first() else { break };
            failed.push(ranking[first.candidate].offer().ad);
            clearing = reclear_without(ranking, rule, &failed);
        }
        (clearing, failed)
    }

    /// How many ads would stand if showing them had to bring nothing.
    fn winners_without_threshold(&self, ranking: &Ranking, failed: &[AdId]) -> Result<usize, String> {
        let terms = AuctionTerms { page_threshold: 0, ..self.terms() };
        let rule = AuctionRule::new(terms).map_err(|e| e.to_string())?;
        Ok(reclear_without(ranking, &rule, failed).winners.len())
    }

    fn terms(&self) -> AuctionTerms {
        AuctionTerms {
            mechanism: match self.rule.mechanism {
                oracle::Mechanism::Gsp => Mechanism::Gsp,
                oracle::Mechanism::Vcg => Mechanism::Vcg,
                oracle::Mechanism::FirstPrice => Mechanism::FirstPrice,
            },
            slots: self.rule.slots,
            per_advertiser: self.rule.per_advertiser,
            per_category: Some(self.rule.per_category).filter(|limit| *limit > 0),
            position_factors_ppm: self.rule.factors.clone(),
            tie_price: TiePrice::Keyed,
            neighbours: match self.rule.apart {
                oracle::Apart::Yes => Neighbours::Apart,
                oracle::Apart::No => Neighbours::Any,
            },
            users: self.users,
            page_threshold: self.rule.page_threshold,
        }
    }

    fn ranking(&self, rule: &AuctionRule) -> Result<Ranking, String> {
        let candidates: Result<Vec<Candidate>, _> =
            self.ads.iter().map(|one| Candidate::new(self.offer(one))).collect();
        let candidates = candidates.map_err(|e| e.to_string())?;
        if self.shards == 0 {
            return Ranking::sorted(&candidates).map_err(|e| e.to_string());
        }
        let lists: Vec<ShardList> =
            (0..self.shards).map(|shard| self.answer(ShardId(shard), &candidates, rule)).collect();
        merge(Epoch::default(), &lists).map_err(|e| e.to_string())
    }

    /// What a shard sends: reserves come before the cut, and for cascading users nothing is cut.
    fn answer(&self, shard: ShardId, candidates: &[Candidate], rule: &AuctionRule) -> ShardList {
        let is_sent = |c: &&Candidate| c.offer().shard == shard && c.offer().bid >= c.offer().reserve;
        let mut held: Vec<Candidate> = candidates.iter().filter(is_sent).copied().collect();
        held.sort_by(Candidate::auction_order);
        if self.users == UserModel::Separable {
            let kept = cut(held.iter().map(|c| (c.offer().advertiser.0, c.offer().limit_category)), rule.cut_rule());
            held = kept.into_iter().map(|index| held[index]).collect();
        }
        ShardList { shard, epoch: Epoch::default(), candidates: held }
    }

    fn offer(&self, one: &CaseAd) -> Offer {
        let ad = &one.ad;
        Offer {
            ad: AdId(ad.ad),
            item: ItemId(ad.ad),
            campaign: CampaignId(ad.ad),
            advertiser: AdvertiserId(ad.advertiser),
            limit_category: ad.category,
            bid_type: ad.bid_type,
            bid: Micros(ad.bid),
            weight: ad.weight,
            event_weight: ad.event_weight,
            click_weight: ad.click_weight,
            continuation_ppm: one.goes_on_ppm,
            value: ad.value,
            reserve: Micros(ad.reserve),
            tie: oracle::tie(ad, &self.rule),
            shard: ShardId(one.shard),
            row: 0,
        }
    }
}
