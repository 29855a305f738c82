//! Where may ads stand, and by which rules are they sold?

use super::failed;
use crate::cli::{MechanismChoice, NeighboursChoice, PlacementCommand, RulesArgs};
use crate::failure::Failure;
use crate::output;
use gavel_client::AdminClient;
use gavel_proto::money::{Micros, PPM};
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{AuctionConfig, Mechanism, Neighbours, Placement, QualityRule, SetAuction, SetPlacement};

/// `gavel ctl placement`.
pub async fn placement(admin: &mut AdminClient, command: PlacementCommand) -> Result<(), Failure> {
    let wish = match command {
        PlacementCommand::Set { name, slots, first_position, min_gap, max_load, reserve_cpm, category_spacing } => {
            if !(0.0..=1.0).contains(&max_load) {
                return Err(Failure::usage("--max-load is not in 0..=1"));
            }
            let placement = Placement {
                name,
                slots,
                first_position,
                min_gap,
                max_load_ppm: (max_load * f64::from(PPM)).round() as u32,
                reserve_cpm_micros: amount(&reserve_cpm)?,
                category_spacing,
            };
            SetPlacement { placement: Some(placement), remove: false }
        }
        PlacementCommand::Remove { name } => {
            SetPlacement { placement: Some(Placement { name, ..Placement::default() }), remove: true }
        }
        PlacementCommand::List => {
            let view = admin.status().await.map_err(failed)?.view.unwrap_or_default();
            for placement in &view.placements {
                println!("{}", output::placement(placement));
            }
            return Ok(());
        }
    };
    admin.propose(Body::SetPlacement(wish)).await.map_err(failed)?;
    Ok(())
}

/// `gavel ctl rules`.
pub async fn rules(admin: &mut AdminClient, args: RulesArgs) -> Result<(), Failure> {
    let view = admin.status().await.map_err(failed)?.view.unwrap_or_default();
    let held = view.auction.unwrap_or_default();
    let mechanism = args.mechanism.map_or(held.mechanism, |m| {
        i32::from(match m {
            MechanismChoice::Gsp => Mechanism::Gsp,
            MechanismChoice::Vcg => Mechanism::Vcg,
            MechanismChoice::FirstPrice => Mechanism::FirstPrice,
        })
    });
    let auction = AuctionConfig {
        mechanism,
        per_advertiser: args.per_advertiser.unwrap_or(held.per_advertiser),
        per_category: args.per_category.unwrap_or(held.per_category),
        ranked_total: args.ranked.unwrap_or(held.ranked_total),
        retrieved_total: args.retrieved.unwrap_or(held.retrieved_total),
        reserve_cpm_micros: args.reserve_cpm.as_deref().map_or(Ok(held.reserve_cpm_micros), amount)?,
        neighbours: args.neighbours.map_or(held.neighbours, |n| {
            i32::from(match n {
                NeighboursChoice::Any => Neighbours::Any,
                NeighboursChoice::Apart => Neighbours::Apart,
            })
        }),
        quality: Some(quality(&args, held.quality.unwrap_or_default())?),
        cascade_ppm: ppm("--cascade", args.cascade, 1.0)?.unwrap_or(held.cascade_ppm),
        shadow_bid: args.shadow_bid.unwrap_or(held.shadow_bid),
        gap_effect_ppm: match &args.gap_effect {
            Some(effects) => {
                let one = |effect: &f64| Ok(ppm("--gap-effect", Some(*effect), 1.0)?.unwrap_or(PPM));
                effects.iter().map(one).collect::<Result<_, Failure>>()?
            }
            None => held.gap_effect_ppm.clone(),
        },
        ..held
    };
    admin.propose(Body::SetAuction(SetAuction { auction: Some(auction) })).await.map_err(failed)?;
    Ok(())
}

fn quality(args: &RulesArgs, held: QualityRule) -> Result<QualityRule, Failure> {
    let or = |text: &Option<String>, held: u64| text.as_deref().map_or(Ok(held), amount);
    Ok(QualityRule {
        squashing_ppm: ppm("--squashing", args.squashing, 1.0)?.unwrap_or(held.squashing_ppm),
        squashing_pivot_ppm: ppm("--squashing-pivot", args.squashing_pivot, 1.0)?.unwrap_or(held.squashing_pivot_ppm),
        quality_ppm: ppm("--quality", args.quality, 4.0)?.unwrap_or(held.quality_ppm),
        hide_cost_micros: or(&args.hide_cost, held.hide_cost_micros)?,
        user_value_micros: or(&args.user_value, held.user_value_micros)?,
        score_floor_cpm_micros: or(&args.score_floor_cpm, held.score_floor_cpm_micros)?,
    })
}

/// A share in parts per million.
fn ppm(option: &str, share: Option<f64>, most: f64) -> Result<Option<u32>, Failure> {
    match share {
        Some(share) if !(0.0..=most).contains(&share) => Err(Failure::usage(format!("{option} is not in 0..={most}"))),
        Some(share) => Ok(Some((share * f64::from(PPM)).round() as u32)),
        None => Ok(None),
    }
}

fn amount(text: &str) -> Result<u64, Failure> {
    Micros::parse(text).map(|m| m.0).map_err(|e| Failure::usage(format!("{text:?}: {e}")))
}
