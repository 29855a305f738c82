//! How does a team's CI ask whether a bundle may follow another?

use crate::cli::{CheckArgs, Format};
use crate::failure::Failure;
use gavel_bench::gate::against::{Limits, compare};
use gavel_bench::gate::{GateError, skew as pair};
use std::path::Path;

/// `gavel model check --skew OLD NEW`.
pub fn skew(old: &Path, new: &Path, format: Format) -> Result<(), Failure> {
    let found = pair::measure(old, new).map_err(failed)?;
    match format {
        Format::Json => println!("{}", serde_json::to_string(&found).map_err(Failure::other)?),
        Format::Text => {
            println!("{} users, {} items, nearest {}", found.users, found.items, found.nearest);
            println!("recall between the versions, each matched   {:.4}", found.recall_between_versions);
            println!("recall of old users against new items       {:.4}", found.recall_old_users_new_items);
            println!("recall of new users against old items       {:.4}", found.recall_new_users_old_items);
            println!("recall by chance                            {:.4}", found.recall_by_chance);
            println!("same dimension {}, same split {}", found.same_dimension, found.same_partition);
        }
    }
    Ok(())
}

/// `gavel model check BUNDLE --against BUNDLE --data TABLE`.
pub fn against(bundle: &Path, other: &Path, data: &Path, args: &CheckArgs) -> Result<(), Failure> {
    let limits = Limits {
        log_loss_growth: args.log_loss_growth_max,
        auc_drop: args.auc_drop_max,
        calibration: args.calibration_max,
        prediction_ratio: args.prediction_ratio_max,
        psi: args.psi_max,
        latency_ratio: args.latency_ratio_max,
    };
    let verdict = compare(bundle, other, data, &limits).map_err(failed)?;
    match args.format {
        Format::Json => println!("{}", serde_json::to_string(&verdict).map_err(Failure::other)?),
        Format::Text => {
            println!("{} rows", verdict.rows);
            for check in &verdict.checks {
                println!("{:<4} {:<32} {}", if check.holds { "ok" } else { "NO" }, check.name, check.detail);
            }
        }
    }
    if verdict.passes { Ok(()) } else { Err(Failure::damaged(format!("{} may not follow", bundle.display()))) }
}

fn failed(error: GateError) -> Failure {
    match error {
        GateError::Bundle { .. } | GateError::Row { .. } | GateError::Empty(_) => Failure::damaged(error),
        GateError::Io { .. } => Failure::io(error),
        GateError::Model(_) => Failure::other(error),
    }
}
