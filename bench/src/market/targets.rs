//! What should the figures be, and are they?
//!
//! A line for each bid type and target. By itself a missed target fails nothing, as a market with other bids may miss one
//! with the best of pacers; `--require-targets` makes it a failure. Money that is charged beyond a budget always is one.

use super::judged::{Judged, UTILISATION_MIN};
use serde::Serialize;
use std::fmt::Write as _;

/// Share of the campaigns that are to stay within the band. Ours.
const WITHIN_BAND_MIN: f64 = 0.9;
/// Share of the campaigns whose impressions that were delivered for nothing are to stay within the stated bound.
const WITHIN_BOUND_MIN: f64 = 1.0;
/// What may be delivered for nothing of what is billed by a later event, clicks and conversions alike, as a share of the
/// budgets. The ledger caps what they are charged, and nothing is held for them, so this is a rate and no bound.
const LATER_OVER_MAX: f64 = 0.01;

/// On which side of the target is a figure to be?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    AtLeast,
    AtMost,
}

/// One figure beside its target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    pub what: &'static str,
    pub bid_type: &'static str,
    pub value: f64,
    pub side: Side,
    pub target: f64,
    pub met: bool,
}

impl Target {
    /// Those of one bid type. Where nobody is judged nothing but the charges is said.
    pub fn of(judged: &Judged) -> Vec<Self> {
        let least = |what, value: f64, target: f64| Self {
            what,
            bid_type: judged.bid_type,
            value,
            side: Side::AtLeast,
            target,
            met: value >= target,
        };
        let most = |what, value: f64, target: f64| Self {
            side: Side::AtMost,
            met: value <= target,
            ..least(what, value, target)
        };
        let (band, utilisation) = (&judged.band, &judged.utilisation);
        let mut targets = Vec::new();
        if band.campaigns > 0 {
            targets.push(least(
                "within a tenth of the curve, share of campaigns",
                band.within_band_share,
                WITHIN_BAND_MIN,
            ));
        }
        if utilisation.campaigns > 0 {
            targets.push(least("utilisation, mean", utilisation.mean, UTILISATION_MIN));
            targets.push(least("utilisation, least", utilisation.min, UTILISATION_MIN));
        }
        if let Some(bounded) = &judged.bounded {
            let what = "over-delivery within bound, share of campaigns";
            targets.push(least(what, bounded.within_share, WITHIN_BOUND_MIN));
        } else if judged.is_billed_later {
            if band.campaigns > 0 {
                targets.push(most("over-delivery, share of judged budgets", band.over_delivery, LATER_OVER_MAX));
            }
            // Of conversions few are judged: small budgets, which buy few of them, say more.
            if judged.spent > 0 {
                let what = "over-delivery, share of all spent budgets";
                targets.push(most(what, judged.over_delivery_all, LATER_OVER_MAX));
            }
        }
        targets.push(most("charged beyond budgets, micros", judged.overspend_micros as f64, 0.0));
        targets
    }
}

/// For people.
pub fn table(targets: &[Target]) -> String {
    let mut out = String::new();
    for target in targets {
        let side = match target.side {
            Side::AtLeast => "at least",
            Side::AtMost => "at most",
        };
        let _ = writeln!(
            out,
            "target {:<4} {:<48} {:>9.5}, {side} {:.5}: {}",
            target.bid_type,
            target.what,
            target.value,
            target.target,
            if target.met { "met" } else { "missed" }
        );
    }
    out
}
