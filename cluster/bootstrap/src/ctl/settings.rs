//! Where may ads stand, and by which rules are they sold?

use super::failed;
use crate::cli::{MechanismChoice, PlacementCommand, RulesArgs};
use crate::failure::Failure;
use crate::output;
use gavel_client::AdminClient;
use gavel_proto::money::{Micros, PPM};
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{AuctionConfig, Mechanism, Placement, SetAuction, SetPlacement};

/// `gavel ctl placement`.
pub async fn placement(admin: &mut AdminClient, command: PlacementCommand) -> Result<(), Failure> {
    let wish = match command {
        PlacementCommand::Set { name, slots, first_position, min_gap, max_load, reserve_cpm } => {
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
        ..held
    };
    admin.propose(Body::SetAuction(SetAuction { auction: Some(auction) })).await.map_err(failed)?;
    Ok(())
}

fn amount(text: &str) -> Result<u64, Failure> {
    Micros::parse(text).map(|m| m.0).map_err(|e| Failure::usage(format!("{text:?}: {e}")))
}
