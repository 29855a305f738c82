//! Do the pacers of several campaigns find the published equilibria of a market together?
//!
//! Goods are sold over and over for a day, to campaigns with a budget of so much a sale of each. Multipliers are in
//! equilibrium when each good goes to the highest paced bid, nobody spends more than the budget, and whoever spends less
//! bids in full (Conitzer, Kroer, Panigrahi and others, "Pacing equilibrium in first price auction markets", 2019). With
//! first prices there is one such point. Nobody knows of the others here: each has a [`CurvePacing`] and its own spending.
//!
//! Of the same chapter nothing here computes the equilibrium as a program (Eisenberg and Gale's), bids by the share that was
//! spent (Mehta and others), or paces by layers of predicted response (Xu and others): the cluster does none of it.

use super::CurvePacing;

const WINDOWS: u32 = 1_440;
const EACH: u32 = 50;

#[derive(Clone, Copy)]
enum Prices {
    First,
    Second,
}

/// Of the second half of the day.
#[derive(Default)]
struct Outcome {
    multipliers: [f64; 2],
    /// Paid for a sale of each good.
    revenue: f64,
    /// How often the first campaign won the first good.
    share: f64,
    /// Of the budgets, over the day.
    spent: [f64; 2],
}

/// Sells goods that are worth `values[good][campaign]`, with `budgets` for a sale of each.
fn sell(values: &[[f64; 2]], budgets: [f64; 2], prices: Prices) -> Outcome {
    let sales = f64::from(WINDOWS * EACH);
    let budgets = budgets.map(|budget| budget * sales);
    let (mut pacing, mut spent, mut outcome) = ([CurvePacing::new(1.0); 2], [0.0; 2], Outcome::default());
    let half = f64::from(WINDOWS / 2);
    for window in 0..WINDOWS {
        let is_late = window >= WINDOWS / 2;
        for good in (0..EACH).flat_map(|_| 0..values.len()) {
            let bid = |campaign: usize| {
                let is_solvent = spent[campaign] < budgets[campaign];
                if is_solvent { values[good][campaign] * pacing[campaign].multiplier() } else { 0.0 }
            };
            let bids = [bid(0), bid(1)];
            let winner = usize::from(bids[1] > bids[0]);
            let price = match prices {
                Prices::First => bids[winner],
                Prices::Second => bids[1 - winner],
            };
            spent[winner] += price;
            if is_late {
                outcome.revenue += price / (sales / 2.0);
                outcome.share += if good == 0 && winner == 0 { 2.0 / sales } else { 0.0 };
            }
        }
        let time = f64::from(window + 1) / f64::from(WINDOWS);
        for (((pacing, budget), spent), sum) in pacing.iter_mut().zip(budgets).zip(spent).zip(&mut outcome.multipliers)
        {
            pacing.observe(budget, spent, time);
            *sum += if is_late { pacing.multiplier() / half } else { 0.0 };
        }
    }
    outcome.spent = [spent[0] / budgets[0], spent[1] / budgets[1]];
    outcome
}

#[test]
fn pacers_find_the_published_equilibria() {
    let one: &[[f64; 2]] = &[[10.0, 6.0]];
    let two: &[[f64; 2]] = &[[2.0, 1.0], [1.0, 2.0]];
    let cases = [
        // Worked out by hand from the definition; first prices.
        (one, [4.0, 3.0], Prices::First, [0.6, 1.0], 6.0, 2.0 / 3.0),
        (two, [1.0, 1.0], Prices::First, [0.5, 0.5], 2.0, 1.0),
        (two, [3.0, 3.0], Prices::First, [1.0, 1.0], 4.0, 1.0),
        // Second prices: there may be several, and this is where these pacers come to.
        (one, [4.0, 3.0], Prices::Second, [0.6, 1.0], 6.0, 2.0 / 3.0),
        (two, [0.4, 3.0], Prices::Second, [0.5, 1.0], 1.5, 0.4),
    ];
    for (values, budgets, prices, multipliers, revenue, share) in cases {
        let found = sell(values, budgets, prices);
        let story = format!(
            "{values:?} {budgets:?}: multipliers {:?}, revenue {}, share {}, spent {:?}",
            found.multipliers, found.revenue, found.share, found.spent
        );
        assert!((found.revenue - revenue).abs() < 0.02 * revenue, "{story}");
        assert!((found.share - share).abs() < 0.02, "{story}");
        for ((multiplier, wanted), spent) in found.multipliers.into_iter().zip(multipliers).zip(found.spent) {
            assert!((multiplier - wanted).abs() < 0.02, "{story}");
            // No unnecessary pacing.
            assert!(multiplier > 0.99 || spent > 0.98, "{story}");
            // At most one sale beyond.
            assert!(spent < 1.001, "{story}");
        }
    }
}
