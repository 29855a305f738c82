//! The published trajectory, and the markets with a closed form (auction chapter, 3.4 and 3.5).

use super::published::{ECPC, PHI, REFERENCE};
use super::*;
use crate::hash::mix64;

/// Seeded numbers in [0, 1).
struct Uniform(u64);

impl Uniform {
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix64(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[test]
fn the_published_trajectory() {
    let gains = Gains { proportional: 0.0005, integral: 1e-6, derivative: 1e-4, low: -2.0, high: 5.0 };
    let mut actuator = Actuator::new(gains, REFERENCE);
    for (round, (x, phi)) in ECPC.iter().zip(PHI).enumerate() {
        // The costs are printed to four digits, phi too.
        assert!((actuator.phi() - phi).abs() <= 6e-5, "round {round}: {} for {phi}", actuator.phi());
        actuator.observe(*x);
    }
}

/// Of the published test run. Of the training run there are figures and no costs to compute them from, and the script that is
/// published with both holds other gains.
#[test]
fn the_published_convergence() {
    let found = convergence(&ECPC, REFERENCE);
    assert_eq!((found.rise, found.settling), (Some(2), Some(36)));
    for (value, published) in
        [(found.overshoot, 0.129_543_75), (found.rmse, 0.008_552_735_585), (found.deviation, 0.007_762_256_531)]
    {
        assert!((value - published).abs() < 1e-9, "{value} for {published}");
    }
    assert_eq!(convergence(&[], 1.0).rise, None);
    assert_eq!(convergence(&[2.0, 2.0], 1.0).settling, None);
}

/// Values and rivals' bids from U[0, 1], second price: a budget of 1/24 an auction wants mu = 1, and gains 1/8 an
/// auction. The loss shrinks with the root of the auctions.
#[test]
fn adaptive_pacing_finds_the_best_multiplier() {
    for (auctions, seed) in [(1_000u32, 1), (10_000, 2), (100_000, 3)] {
        let mut random = Uniform(seed);
        let mut pacing = AdaptivePacing::new(f64::from(auctions).powf(-0.5), 20.0);
        let (rate, mut left) = (1.0 / 24.0, f64::from(auctions) / 24.0);
        let (mut gain, mut mu_of_second_half) = (0.0, 0.0);
        for auction in 0..auctions {
            let (value, rival) = (random.draw(), random.draw());
            let wins = value * pacing.multiplier() > rival && left >= rival;
            let paid = if wins { rival } else { 0.0 };
            left -= paid;
            gain += if wins { value - paid } else { 0.0 };
            pacing.observe(rate, paid);
            mu_of_second_half += if auction >= auctions / 2 { pacing.mu() } else { 0.0 };
        }
        let lost = (1.0 / 8.0 - gain / f64::from(auctions)) * f64::from(auctions).sqrt();
        assert!(lost <= 4.0, "{auctions} auctions: {lost}");
        assert!(left <= 0.01 * rate * f64::from(auctions), "{auctions} auctions: {left} is left");
        let mu = mu_of_second_half / f64::from(auctions / 2);
        assert!(auctions < 100_000 || (mu - 1.0).abs() < 0.15, "{mu}");
    }
}

/// The same market throttled: one auction in four, a third of the gain.
#[test]
fn throttling_spends_the_same_and_gains_a_third() {
    let (windows, each) = (1_440u64, 200u64);
    let budget = (windows * each) as f64 / 24.0;
    let mut random = Uniform(9);
    let mut throttle = Throttle::default();
    let (mut spent, mut gain, mut worst) = (0.0, 0.0, 0.0f64);
    for window in 0..windows {
        for auction in 0..each {
            let (value, rival) = (random.draw(), random.draw());
            if participates(window * each + auction, 77, throttle.probability_ppm())
                && value > rival
                && spent + rival <= budget
            {
                spent += rival;
                gain += value - rival;
            }
        }
        let time = (window + 1) as f64 / windows as f64;
        worst = worst.max((spent / budget - time).abs());
        throttle.observe(spent, budget * time);
    }
    assert!((0.99..=1.0).contains(&(spent / budget)), "{}", spent / budget);
    assert!(worst <= 0.02, "{worst}");
    let gain = gain / (windows * each) as f64;
    assert!((gain - 1.0 / 24.0).abs() < 0.001, "{gain}");
}

/// Once a minute `p = min(1, 1.1 p)` while spending is not above the plan, and `0.9 p` above it (Agarwal et al., KDD 2014).
#[test]
fn the_published_step_of_throttling() {
    let mut throttle = Throttle::default();
    for (spent, ppm) in [(1.0, 110_000u32), (1.1, 99_000), (0.0, 108_900)] {
        throttle.observe(spent, 1.0);
        assert!(throttle.probability_ppm().abs_diff(ppm) <= 1, "{spent}: {}", throttle.probability_ppm());
    }
    (0..100).for_each(|_| throttle.observe(0.0, 1.0));
    assert_eq!(throttle.probability_ppm(), PPM);
}

#[test]
fn participation_is_a_fair_coin_that_falls_the_same_again() {
    let count = (0..100_000).filter(|auction| participates(*auction, 5, 250_000)).count();
    assert!((24_500..25_500).contains(&count), "{count}");
    assert!((0..1_000).all(|auction| participates(auction, 5, PPM)));
    assert!((0..1_000).all(|auction| participates(auction, 5, 0) == participates(auction, 6, 0)));
}

/// The closed form of bid multipliers under a forecast: a day whose traffic rises and falls, a budget of 1/24 an
/// auction. The curve stays with the traffic, and the multiplier is near 1/2.
#[test]
fn the_spend_curve_follows_the_traffic() {
    let traffic = |window: u64| 100 + 100 * (window % 720).min(720 - window % 720) / 360;
    let counts: Vec<u64> = (0..1_440).map(traffic).collect();
    let forecast = Forecast::new(&counts);
    let auctions = counts.iter().sum::<u64>() as f64;
    let budget = auctions / 24.0;
    let mut random = Uniform(4);
    let mut pacing = CurvePacing::new(1.0);
    let (mut spent, mut gain, mut worst) = (0.0, 0.0, 0.0f64);
    for (window, count) in counts.iter().enumerate() {
        for _ in 0..*count {
            let (value, rival) = (random.draw(), random.draw());
            if value * pacing.multiplier() > rival && spent + rival <= budget {
                spent += rival;
                gain += value - rival;
            }
        }
        let share = forecast.share((window + 1) as f64 / 1_440.0);
        pacing.observe(budget, spent, share);
        if window > 144 {
            worst = worst.max((spent / budget - share).abs());
        }
    }
    assert!(worst < 0.02, "{worst}");
    assert!(spent / budget > 0.97, "{}", spent / budget);
    // Three times what throttling gains: bids are scaled, not withheld.
    assert!((gain / auctions - 1.0 / 8.0).abs() < 0.005, "{}", gain / auctions);
}

#[test]
fn a_forecast_rises_from_nothing_to_all() {
    let forecast = Forecast::new(&[1, 0, 3]);
    assert!(forecast.share(0.0).abs() < 1e-12 && (forecast.share(1.0) - 1.0).abs() < 1e-12);
    assert!((forecast.share(1.0 / 3.0) - 0.25).abs() < 1e-5 && (forecast.share(2.0 / 3.0) - 0.25).abs() < 1e-5);
    assert!((forecast.share(5.0 / 6.0) - 0.625).abs() < 1e-5);
    assert!((Forecast::new(&[0, 0]).share(0.5) - 0.5).abs() < 1e-12);
    let saturated = Forecast::new(&[u64::MAX; 4]).share(0.5);
    assert!((saturated - 0.5).abs() < 1e-9, "counts of any size are shares: {saturated}");
    // A forecast of nothing holds nobody back: it passes as the clock does.
    let empty = Forecast::new(&[]);
    assert_eq!([0.0, 0.25, 1.0].map(|time| empty.share(time)), [0.0, 0.25, 1.0]);
}

/// Target cost: spend at most C = 1/4 for a unit of value. The best bid is 2C = 1/2 of the value, spends 1/24 an
/// auction and brings 1/6. The budget alone: 1/24 an auction wants 1/2, too.
#[test]
fn autobidding_finds_the_closed_form() {
    for (rate, target) in
        [(None, Some(0.25)), (Some(1.0 / 24.0), None), (Some(1.0 / 24.0), Some(0.4)), (Some(0.1), Some(0.25))]
    {
        let auctions = 400_000;
        let mut random = Uniform(6);
        let mut autobid = Autobid::new(rate, target, 0.01);
        let (mut spent, mut worth, mut bid) = (0.0, 0.0, 0.0);
        for auction in 0..auctions {
            let (value, rival) = (random.draw(), random.draw());
            let wins = value * autobid.bid_per_value() > rival;
            let (paid, won) = if wins { (rival, value) } else { (0.0, 0.0) };
            autobid.observe(paid, won);
            if auction >= auctions / 2 {
                (spent, worth, bid) = (spent + paid, worth + won, bid + autobid.bid_per_value());
            }
        }
        let mean = |sum: f64| sum / f64::from(auctions / 2);
        let story = format!("{rate:?} {target:?}: bid {} spend {} value {}", mean(bid), mean(spent), mean(worth));
        assert!((mean(spent) - 1.0 / 24.0).abs() < 0.03 / 24.0, "{story}");
        assert!((mean(worth) - 1.0 / 6.0).abs() < 0.02 / 6.0, "{story}");
        assert!((mean(bid) - 0.5).abs() < 0.03, "{story}");
    }
}
