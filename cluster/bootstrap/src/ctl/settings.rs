//! Where may ads stand, and by which rules are they sold?

use super::failed;
use crate::cli::{MechanismChoice, NeighboursChoice, PlacementCommand, RulesArgs};
use crate::failure::Failure;
use crate::output;
use gavel_client::AdminClient;
use gavel_member::random;
use gavel_proto::limits::SLOTS_MAX;
use gavel_proto::money::{Micros, PPM};
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{
    AuctionConfig, Mechanism, Neighbours, Placement, QualityRule, SetAuction, SetPlacement, SetTieKey,
};

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
pub async fn rules(admin: &mut AdminClient, mut args: RulesArgs) -> Result<(), Failure> {
    let view = admin.status().await.map_err(failed)?.view.unwrap_or_default();
    let held = view.auction.unwrap_or_default();
    if args == RulesArgs::default() {
        println!("{:#}", output::auction(&held));
        return Ok(());
    }
    let tie_key = if std::mem::take(&mut args.new_tie_key) { Some(new_tie_key(&held)?) } else { None };
    if args != RulesArgs::default() {
        let auction = Some(changed(held, &args)?);
        admin.propose(Body::SetAuction(SetAuction { auction })).await.map_err(failed)?;
    }
    if let Some(tie_key) = tie_key {
        admin.propose(Body::SetTieKey(tie_key)).await.map_err(failed)?;
    }
    Ok(())
}

/// A random key in place of the one in force.
fn new_tie_key(held: &AuctionConfig) -> Result<SetTieKey, Failure> {
    let replaces = output::tie_key_id(held);
    let replaces = replaces.ok_or_else(|| Failure::other("the tie key in force has not 32 bytes"))?;
    let secret = random::secret::<32>().map_err(|e| Failure::io(format!("no random source for a tie key: {e}")))?;
    Ok(SetTieKey { tie_key: secret.to_vec(), replaces })
}

/// The rules with what was given.
fn changed(held: AuctionConfig, args: &RulesArgs) -> Result<AuctionConfig, Failure> {
    let mechanism = args.mechanism.map_or(held.mechanism, |m| {
        i32::from(match m {
            MechanismChoice::Gsp => Mechanism::Gsp,
            MechanismChoice::Vcg => Mechanism::Vcg,
            MechanismChoice::FirstPrice => Mechanism::FirstPrice,
        })
    });
    Ok(AuctionConfig {
        // A key travels with the command that says what it replaces.
        tie_key: Vec::new(),
        tie_key_id: 0,
        mechanism,
        per_advertiser: args.per_advertiser.unwrap_or(held.per_advertiser),
        per_category: args.per_category.unwrap_or(held.per_category),
        ranked_total: args.ranked.unwrap_or(held.ranked_total),
        retrieved_total: args.retrieved.unwrap_or(held.retrieved_total),
        position_factors_ppm: match &args.position_factors {
            Some(factors) => position_factors(factors)?,
            None => held.position_factors_ppm.clone(),
        },
        reserve_cpm_micros: args.reserve_cpm.as_deref().map_or(Ok(held.reserve_cpm_micros), amount)?,
        page_threshold_cpm_micros: match args.page_threshold_cpm.as_deref() {
            Some(threshold) => amount(threshold)?,
            None => held.page_threshold_cpm_micros,
        },
        neighbours: args.neighbours.map_or(held.neighbours, |n| {
            i32::from(match n {
                NeighboursChoice::Any => Neighbours::Any,
                NeighboursChoice::Apart => Neighbours::Apart,
            })
        }),
        quality: Some(quality(args, held.quality.unwrap_or_default())?),
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
    })
}

/// How often each slot is seen, read exactly.
fn position_factors(texts: &[String]) -> Result<Vec<u32>, Failure> {
    if texts.len() > SLOTS_MAX as usize {
        return Err(Failure::usage(format!(
            "--position-factors has {} factors: no placement has more than {SLOTS_MAX} slots, and slots beyond the list \
             are seen as often as its last",
            texts.len()
        )));
    }
    let factors = texts.iter().map(|text| factor(text)).collect::<Result<Vec<u32>, Failure>>()?;
    match factors.windows(2).zip(texts.windows(2)).find(|(pair, _)| pair[0] < pair[1]) {
        Some((_, pair)) => Err(Failure::usage(format!(
            "--position-factors: {} stands behind {}: give them from the slot seen most to the one seen least",
            pair[1], pair[0]
        ))),
        None => Ok(factors),
    }
}

fn factor(text: &str) -> Result<u32, Failure> {
    let ppm = Micros::parse(text).map_err(|e| Failure::usage(format!("--position-factors: {text:?}: {e}")))?;
    let within = u32::try_from(ppm.0).ok().filter(|ppm| (1..=PPM).contains(ppm));
    within.ok_or_else(|| Failure::usage(format!("--position-factors: {text:?} is not above 0 and at most 1")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::hash::TieKey;

    fn read(list: &str) -> Result<Vec<u32>, String> {
        let texts: Vec<String> = list.split(',').map(str::to_owned).collect();
        position_factors(&texts).map_err(|failure| failure.to_string())
    }

    #[test]
    fn position_factors_are_read_to_the_millionth() {
        assert_eq!(read("1,0.6,0.4"), Ok(vec![1_000_000, 600_000, 400_000]));
        assert_eq!(read("0.333333, .333333,0.000001"), Ok(vec![333_333, 333_333, 1]));
        assert_eq!(read(&["0.5"; 16].join(",")), Ok(vec![500_000; 16]));
    }

    #[test]
    fn wrong_position_factors_are_told_so() {
        let many = ["1"; 17].join(",");
        for (list, reason) in [
            ("", "not a decimal"),
            ("1,", "not a decimal"),
            ("1,-0.5", "not a decimal"),
            ("1,5e-1", "not a decimal"),
            ("1,0.1234567", "more than six"),
            ("1.000001", "at most 1"),
            ("4295", "at most 1"),
            ("1,0", "above 0"),
            ("0.5,0.6", "0.6 stands behind 0.5"),
            (many.as_str(), "no placement has more than 16 slots"),
        ] {
            let told = read(list).expect_err(list);
            assert!(told.contains(reason), "{list}: {told}");
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let held = AuctionConfig {
            position_factors_ppm: vec![9, 8],
            per_advertiser: 3,
            tie_key_id: TieKey::from_bytes([7; 32]).id(),
            shadow_bid: 0.5,
            page_threshold_cpm_micros: 7,
            quality: Some(QualityRule { quality_ppm: 4, ..QualityRule::default() }),
            ..AuctionConfig::default()
        };
        let factors = ["1", "0.5"].map(str::to_owned).to_vec();
        let args = RulesArgs { position_factors: Some(factors), ..RulesArgs::default() };
        let sent = AuctionConfig { tie_key_id: 0, ..held.clone() };
        let expected = AuctionConfig { position_factors_ppm: vec![1_000_000, 500_000], ..sent.clone() };
        assert_eq!(changed(held.clone(), &args).expect("legal"), expected);
        let args = RulesArgs { page_threshold_cpm: Some("0.25".to_owned()), ..RulesArgs::default() };
        let expected = AuctionConfig { page_threshold_cpm_micros: 250_000, ..sent.clone() };
        assert_eq!(changed(held.clone(), &args).expect("legal"), expected);
        let keyed = AuctionConfig { tie_key: vec![7; 32], ..held.clone() };
        assert_eq!(changed(keyed, &RulesArgs::default()).expect("legal"), sent, "no key is sent back");
        let new = new_tie_key(&held).expect("a key");
        assert_eq!(new.replaces, held.tie_key_id);
        assert!(new.tie_key.len() == 32 && new.tie_key != [7; 32]);
        let public = AuctionConfig { public_tie_key: 5, ..AuctionConfig::default() };
        assert_eq!(new_tie_key(&public).expect("a key").replaces, TieKey::from_number(5).id());
    }
}
