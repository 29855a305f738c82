//! Is the served slate the best for users who read from the top, and what does each of its ads owe?
//!
//! With `e` the score of an ad and `c` the share of the users who go on past it, a slate is worth
//! `e_1 + c_1 * (e_2 + c_2 * (...))`; a price is what the others could have without the ad's advertiser, less what they
//! have, per event of the ad as often as users get to it. The twin knows nothing of the order in which a best slate
//! stands: of few ads and slots it tries every slate; of more it tries slates ad by ad, and leaves a beginning alone only
//! when the best scores that are left, seen by as many users as ever go on, could not make it better than one that was
//! found.
//!
//! All sums are integers, over the smallest denominator that the shares of the ads have. Where users go on alike it is
//! small, and 128 bits hold every sum; shares that have nothing in common may need more, and get as many as they need.

use super::oracle::{self, Ad, Mechanism, Rule};
use gavel_proto::money::PPM;
use num_bigint::BigInt;
use std::fmt::Display;
use std::ops::{Add, Div, Mul, Sub};

/// Of so few ads every slate is tried.
const TRIED_MAX: usize = 10;
/// In so few slots: ten ads stand in ten slots in millions of orders.
const TRIED_SLOTS_MAX: usize = 4;

/// How users look at a slate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// At each slot as often as its factor says, whatever stands in it.
    Separable,
    /// From the top, and past each ad as it lets them.
    Cascade,
}

/// An ad as users read it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// What it bids.
    pub ad: &'a Ad,
    /// Of a million users so many go on past it.
    pub goes_on_ppm: u32,
}

/// What slates are worth is counted in: 128 bits are fast, and not always enough.
trait Whole:
    Clone
    + Ord
    + Display
    + From<i128>
    + TryInto<u64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
}

impl Whole for i128 {}
impl Whole for BigInt {}

/// An ad that may stand.
#[derive(Clone, Copy)]
struct Entrant<'a> {
    ad: &'a Ad,
    score: i128,
    /// Of the parts of a [`Scale`] so many go on.
    goes_on: i128,
}

/// What users are counted in: the smallest scale in which nobody is parted.
struct Scale<N> {
    /// A share of users is so many of these.
    parts: i128,
    /// As many as can be parted at each slot but the last without a rest.
    everybody: N,
}

/// The served slate, with what each of its ads is to be billed.
///
/// # Errors
/// When it is not one of the best slates of these ads.
pub fn bill(ads: &[Reader<'_>], rule: &Rule, slate: &[u64]) -> Result<Vec<(u64, u64)>, String> {
    if fits(ads, rule.slots) { bill_in::<i128>(ads, rule, slate) } else { bill_in::<BigInt>(ads, rule, slate) }
}

/// Whether 128 bits hold every sum over these ads.
fn fits(ads: &[Reader<'_>], slots: usize) -> bool {
    let parts = parts(ads);
    // A worth that is below 0 does not stand.
    let amounts = ads.iter().flat_map(|Reader { ad, .. }| {
        [oracle::worth(ad, ad.bid).max(0), ad.value.checked_abs().unwrap_or(i128::MAX), i128::from(ad.weight)]
    });
    let largest = amounts.fold(parts, i128::max);
    let everybody = u32::try_from(slots.saturating_sub(1)).ok().and_then(|steps| parts.checked_pow(steps));
    // Each sum is of two slates and a value at most.
    let sum = |everybody: i128| everybody.checked_mul(largest)?.checked_mul(2 * slots as i128 + 1);
    everybody.and_then(sum).is_some()
}

fn bill_in<N: Whole>(ads: &[Reader<'_>], rule: &Rule, slate: &[u64]) -> Result<Vec<(u64, u64)>, String> {
    let scale: Scale<N> = scale(ads, rule.slots);
    let field = field(ads, rule, scale.parts);
    let stands = |ad: &u64| field.iter().find(|one| one.ad.ad == *ad).copied();
    let chosen: Vec<Entrant<'_>> = slate.iter().filter_map(stands).collect();
    let repeats = (1..slate.len()).any(|at| slate[..at].contains(&slate[at]));
    if chosen.len() != slate.len() || repeats || slate.len() > rule.slots {
        return Err("an ad stands twice, may not stand, or stands for a better one of its advertiser".to_owned());
    }
    let mut reach = scale.everybody.clone();
    let mut shares: Vec<(Entrant<'_>, N, N)> = Vec::with_capacity(chosen.len());
    for one in chosen {
        shares.push((one, reach.clone() * N::from(one.score), reach.clone()));
        reach = scale.behind(&reach, one.goes_on);
    }
    let total = shares.iter().fold(N::from(0i128), |sum, (_, share, _)| sum + share.clone());
    let most = best(&field, &scale, rule.slots);
    // Serving rounds down at each slot, by less than a unit of score.
    let rounding = scale.everybody.clone() * N::from(rule.slots as i128);
    if total < most && total.clone() + rounding <= most {
        return Err(format!("it is worth {total}, and another slate {most}"));
    }
    let sold = |(one, share, reach): &(Entrant<'_>, N, N)| {
        let price = match rule.mechanism {
            Mechanism::FirstPrice => one.ad.bid,
            Mechanism::Vcg => {
                externality(&field, (&scale, rule), one.ad, (total.clone() - share.clone(), reach.clone()))
            }
            Mechanism::Gsp => return Err("cascading users have no second price".to_owned()),
        };
        Ok((one.ad.ad, oracle::billed(one.ad, price)))
    };
    shares.iter().map(sold).collect()
}

/// The price of an ad that `reach` users get to, the other ads of its slate being worth `others`; between reserve and bid.
fn externality<N: Whole>(
    field: &[Entrant<'_>],
    (scale, rule): (&Scale<N>, &Rule),
    ad: &Ad,
    (others, reach): (N, N),
) -> u64 {
    let nothing = N::from(0i128);
    if reach == nothing {
        // Never seen, and sold at the reserve.
        return ad.reserve;
    }
    let rivals: Vec<Entrant<'_>> = field.iter().filter(|one| one.ad.advertiser != ad.advertiser).copied().collect();
    let without = best(&rivals, scale, rule.slots);
    // What the ad is worth besides its bid is part of what it pays.
    let owed = (without - others - reach.clone() * N::from(ad.value)).max(nothing);
    // No ad without a weight is ranked.
    let per_micro = reach * N::from(i128::from(ad.weight.max(1)));
    let price: u64 = (owed / per_micro).try_into().unwrap_or(u64::MAX);
    price.clamp(ad.reserve, ad.bid)
}

/// A share of users is a whole number of so many parts, past each of these ads.
fn parts(ads: &[Reader<'_>]) -> i128 {
    i128::from(PPM / ads.iter().map(|one| one.goes_on_ppm).fold(PPM, greatest_common))
}

fn scale<N: Whole>(ads: &[Reader<'_>], slots: usize) -> Scale<N> {
    let parts = parts(ads);
    let everybody = (1..slots).fold(N::from(1i128), |users, _| users * N::from(parts));
    Scale { parts, everybody }
}

/// Euclid's.
fn greatest_common(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common(b, a % b) }
}

impl<N: Whole> Scale<N> {
    /// Of so many users, those that go on.
    fn behind(&self, reach: &N, goes_on: i128) -> N {
        reach.clone() * N::from(goes_on) / N::from(self.parts)
    }
}

/// Each advertiser's best ad at or above its reserve, the best first.
fn field<'a>(ads: &[Reader<'a>], rule: &Rule, parts: i128) -> Vec<Entrant<'a>> {
    let entrant = |one: &Reader<'a>| Entrant {
        ad: one.ad,
        score: oracle::worth(one.ad, one.ad.bid),
        goes_on: i128::from(one.goes_on_ppm) * parts / i128::from(PPM),
    };
    let may_stand = |one: &Entrant<'_>| one.ad.bid >= one.ad.reserve && one.score >= 0;
    let mut field: Vec<Entrant<'a>> = ads.iter().map(entrant).filter(may_stand).collect();
    field.sort_by_cached_key(|one| (one.ad.advertiser, -one.score, oracle::tie(one.ad, rule), one.ad.ad));
    field.dedup_by_key(|one| one.ad.advertiser);
    field.sort_by_key(|one| -one.score);
    field
}

/// What the best slate of the field is worth.
fn best<N: Whole>(field: &[Entrant<'_>], scale: &Scale<N>, slots: usize) -> N {
    let goes_on_max = field.iter().map(|one| one.goes_on).max().unwrap_or(0);
    let tries_all = field.len() <= TRIED_MAX && slots <= TRIED_SLOTS_MAX;
    let mut search = Search { field, scale, tries_all, goes_on_max, most: N::from(0i128), taken: Vec::new() };
    search.extend(&N::from(0i128), &scale.everybody, slots);
    search.most
}

struct Search<'a, N> {
    field: &'a [Entrant<'a>],
    scale: &'a Scale<N>,
    tries_all: bool,
    goes_on_max: i128,
    most: N,
    /// Places in the field.
    taken: Vec<usize>,
}

impl<N: Whole> Search<'_, N> {
    /// Tries every ad behind a beginning that is worth so much and leaves so many users for the next slot.
    fn extend(&mut self, worth: &N, reach: &N, slots: usize) {
        if *worth > self.most {
            self.most = worth.clone();
        }
        if slots == 0 {
            return;
        }
        for next in 0..self.field.len() {
            if self.taken.contains(&next) {
                continue;
            }
            let Entrant { score, goes_on, .. } = self.field[next];
            self.taken.push(next);
            let with = worth.clone() + reach.clone() * N::from(score);
            let could_be_better =
                self.tries_all || with.clone() + self.rest_at_most(reach.clone(), slots - 1) > self.most;
            if could_be_better {
                let behind = self.scale.behind(reach, goes_on);
                self.extend(&with, &behind, slots - 1);
            }
            self.taken.pop();
            if !could_be_better {
                // Nor with an ad of a lower score here.
                break;
            }
        }
    }

    /// What could still come if as many users as ever went on past each ad, the best first.
    fn rest_at_most(&self, mut reach: N, slots: usize) -> N {
        let free = self.field.iter().enumerate().filter(|(place, _)| !self.taken.contains(place));
        free.take(slots).fold(N::from(0i128), |sum, (_, one)| {
            reach = self.scale.behind(&reach, self.goes_on_max);
            sum + reach.clone() * N::from(one.score)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Seeded;
    use gavel_proto::hash::TieKey;
    use gavel_proto::money::BidType;

    fn ad(ad: u64, bid: u64) -> Ad {
        Ad {
            ad,
            advertiser: ad,
            category: 0,
            bid_type: BidType::Cpc,
            bid,
            weight: 1_000,
            event_weight: 1,
            click_weight: 0,
            value: 0,
            reserve: 0,
        }
    }

    fn rule(slots: usize) -> Rule {
        Rule {
            mechanism: Mechanism::Vcg,
            slots,
            per_advertiser: 1,
            per_category: 0,
            apart: oracle::Apart::No,
            factors: Vec::new(),
            tie_key: TieKey::from_number(0),
            auction_id: 0,
            page_threshold: 0,
        }
    }

    fn readers<'a>(ads: &'a [Ad], goes_on_ppm: &[u32]) -> Vec<Reader<'a>> {
        ads.iter().zip(goes_on_ppm).map(|(ad, goes_on_ppm)| Reader { ad, goes_on_ppm: *goes_on_ppm }).collect()
    }

    /// An ad of 100 after which nobody reads on, and one of 80 after which three in four do: the latter first is worth 155.
    /// It pays the 25 that the other loses by being second; the other, seen by three in four, the 18 that the third ad
    /// would bring to these, which is 24 a click.
    #[test]
    fn the_lower_bid_stands_first_where_users_read_on_past_it() {
        let ads = [ad(0, 100), ad(1, 80), ad(2, 24)];
        let readers = readers(&ads, &[0, 750_000, 0]);
        assert_eq!(bill(&readers, &rule(2), &[1, 0]), Ok(vec![(1, 25), (0, 24)]));
        assert!(bill(&readers, &rule(2), &[0, 1]).is_err_and(|error| error.contains("another slate")));
        for slate in [vec![1, 1], vec![1, 7], vec![1, 0, 2]] {
            assert!(bill(&readers, &rule(2), &slate).is_err_and(|error| error.contains("stands twice")), "{slate:?}");
        }
        let first = Rule { mechanism: Mechanism::FirstPrice, ..rule(2) };
        assert_eq!(bill(&readers, &first, &[1, 0]), Ok(vec![(1, 80), (0, 100)]));
    }

    /// Where users go on alike past every ad the slots are separable, and each is seen less often by that share.
    #[test]
    fn users_who_go_on_alike_see_slots_with_falling_factors() {
        let mut random = Seeded::new(5);
        for _ in 0..300 {
            let ads: Vec<Ad> = (0..12).map(|id| ad(id, random.next_u64() % 1_000_000)).collect();
            let separable = Rule { factors: vec![1_000, 700, 490, 343], ..rule(4) };
            let expected: Vec<(u64, u64)> =
                oracle::clear(&ads, &separable).into_iter().map(|(index, price)| (ads[index].ad, price)).collect();
            let slate: Vec<u64> = expected.iter().map(|(ad, _)| *ad).collect();
            assert_eq!(bill(&readers(&ads, &[700_000; 12]), &rule(4), &slate), Ok(expected));
        }
    }

    /// Every slate in every order, against the search that leaves some alone.
    #[test]
    fn no_better_slate_is_left_alone() {
        fn every(field: &[Entrant<'_>], parts: i128, taken: &mut Vec<usize>, reach: i128, slots: usize) -> i128 {
            let mut most = 0;
            for next in (0..field.len()).filter(|_| slots > 0) {
                if !taken.contains(&next) {
                    taken.push(next);
                    let behind = reach * field[next].goes_on / parts;
                    most = most.max(reach * field[next].score + every(field, parts, taken, behind, slots - 1));
                    taken.pop();
                }
            }
            most
        }
        let mut random = Seeded::new(6);
        for _ in 0..300 {
            let mut roll = |below: u64| random.next_u64() % below;
            // More ads than are all tried, as a rule.
            let (count, slots) = (roll(TRIED_MAX as u64 + 6) as usize, roll(4) as usize + 1);
            let ads: Vec<Ad> = (0..count as u64).map(|id| Ad { advertiser: roll(40), ..ad(id, roll(50)) }).collect();
            let goes_on: Vec<u32> = (0..count).map(|_| roll(1_000) as u32 * 1_000).collect();
            let readers = readers(&ads, &goes_on);
            assert!(fits(&readers, slots));
            let scale: Scale<i128> = scale(&readers, slots);
            let field = field(&readers, &rule(slots), scale.parts);
            let expected = every(&field, scale.parts, &mut Vec::new(), scale.everybody, slots);
            assert_eq!(best(&field, &scale, slots), expected, "{ads:?} {goes_on:?}");
        }
    }

    #[test]
    fn more_than_128_bits_say_what_128_do() {
        let mut random = Seeded::new(7);
        let mut best = 0;
        for _ in 0..200 {
            let mut roll = |below: u64| random.next_u64() % below;
            let ads: Vec<Ad> = (0..4).map(|id| Ad { value: i128::from(roll(9)) - 4, ..ad(id, roll(50)) }).collect();
            let goes_on: Vec<u32> = (0..4).map(|_| roll(8) as u32 * (PPM / 8)).collect();
            let readers = readers(&ads, &goes_on);
            assert!(fits(&readers, 2));
            for slate in (0..16u64).map(|pair| [pair / 4, pair % 4]) {
                let billed = bill_in::<i128>(&readers, &rule(2), &slate);
                assert_eq!(bill_in::<BigInt>(&readers, &rule(2), &slate), billed, "{ads:?} {goes_on:?}");
                best += u32::from(billed.is_ok());
            }
        }
        assert!(best >= 200, "one slate of each market is the best");
    }

    /// Nine slots past whose ads 700,001 of a million users go on need more than 128 bits. Whoever leaves lets each ad below it stand
    /// one slot higher, where the share that it lost there sees it.
    #[test]
    fn shares_that_have_nothing_in_common_are_compared() {
        const GOES_ON: f64 = 0.700_001;
        let ads: Vec<Ad> = (0..12).map(|id| ad(id, 1_000_000 - 80_000 * id)).collect();
        let slate: Vec<u64> = (0..9).collect();
        let readers = readers(&ads, &[700_001; 12]);
        assert!(!fits(&readers, 9));
        let billed = bill(&readers, &rule(9), &slate).expect("the best slate");
        let seen = |slot: usize| if slot < 9 { GOES_ON.powi(slot as i32) } else { 0.0 };
        for (slot, (id, price)) in billed.into_iter().enumerate() {
            let below = (slot + 1..10).map(|below| (seen(below - 1) - seen(below)) * ads[below].bid as f64);
            let owed = below.sum::<f64>() / seen(slot);
            assert!(id == slot as u64 && (owed - 1.0..owed + 1e-3).contains(&(price as f64)), "{id} {price} {owed}");
        }
        let swapped = [1, 0, 2, 3, 4, 5, 6, 7, 8];
        assert!(bill(&readers, &rule(9), &swapped).is_err_and(|error| error.contains("another slate")));
    }
}
