//! What would a day on this market look like?
//!
//! `gavel sim market` plays a day (or the whole panel of recorded visits) in virtual time: visits arrive, candidates
//! are drawn, and the production kernels decide: the auction clears, the page is allocated, the pacer moves the multipliers,
//! routers hold leases, the ledger charges. Users click and convert by rates of held-out weeks, while the platform predicts
//! with those of the weeks before, as it would have had to.
//!
//! * `world`: campaigns, ads, users and rates from the public shopping records;
//! * `arrivals`: who comes when;
//! * `day`, `terms`: the loop in virtual time, with the events that come late; its auctions' and pages' rules;
//! * `accounts`: budgets, and what is charged to them, by the ledger;
//! * `routers`: the leases that they hold, and what is lost with one that is killed;
//! * `controls`: what the pacer says of each campaign;
//! * `demand`: what a campaign would have spent at full bids, others as they were;
//! * `flights`: what was served and may still be charged;
//! * `judged`, `targets`, `costs`: on whom pacing is judged, how it did, and how it should have;
//! * `report`, `plot`: figures, JSON and SVG;
//! * `held`: users who behave as a trainer's predictions for held-out weeks say, instead of by rates;
//! * `closed_form`: controllers in markets whose answer is known, without any records.
//!
//! It is a simulator: there is no retrieval and no cluster in it, and its money is nobody's. Equal arguments give equal
//! figures.

mod accounts;
mod arrivals;
mod candidates;
mod closed_form;
mod controls;
mod costs;
mod day;
mod demand;
mod flights;
mod held;
mod judged;
mod plot;
mod report;
mod routers;
mod targets;
mod terms;
#[cfg(test)]
mod tests;
mod world;

use crate::clock::now;
use crate::corpus::CorpusError;
use gavel_control::ledger::check::Violation;
use gavel_router::auction::{Mechanism, RuleError};
use std::path::PathBuf;

use report::Report;

/// Routers at most, as many as the ledger has leases for.
const ROUTERS_MAX: usize = 64;
/// Kills at most: one in nine seconds of a day.
const CRASHES_MAX: u64 = 10_000;

/// How budgets are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PacingChoice {
    /// The cluster's: a bid multiplier on the forecast's curve.
    Multiplier,
    /// The cluster's: full bids in a share of the auctions, on the forecast's curve.
    Throttle,
    /// The same with the published controller (Agarwal et al., KDD 2014).
    Linkedin,
    /// Full bids until the budget is gone.
    None,
}

/// How winners pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MechanismChoice {
    /// Generalised second price.
    Gsp,
    /// Vickrey, Clarke, Groves.
    Vcg,
    /// The paced bid.
    FirstPrice,
}

impl From<MechanismChoice> for Mechanism {
    fn from(choice: MechanismChoice) -> Self {
        match choice {
            MechanismChoice::Gsp => Self::Gsp,
            MechanismChoice::Vcg => Self::Vcg,
            MechanismChoice::FirstPrice => Self::FirstPrice,
        }
    }
}

/// Which visits are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Days {
    /// One day of `--arrivals` visits, drawn from the recorded ones along their hourly curve.
    Market,
    /// Every recorded visit on its own day, with the weekly budgets of the records, in whole weeks.
    Panel,
}

/// By what campaigns are the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Largest {
    /// By what they may spend. It is known before anything is played.
    Budget,
    /// By what they spend unpaced: those that do well for their budgets, which makes all budgets larger.
    Spend,
}

/// What to play.
#[derive(Clone, Debug, clap::Args)]
pub struct MarketArgs {
    /// Which visits are played.
    #[arg(long, value_enum, default_value_t = Days::Market)]
    pub days: Days,
    /// Visits of the market day; the panel's days have those that were recorded.
    #[arg(long, default_value_t = 2_000_000)]
    pub arrivals: u64,
    /// How winners pay.
    #[arg(long, value_enum, default_value_t = MechanismChoice::Gsp)]
    pub mechanism: MechanismChoice,
    /// How budgets are paced.
    #[arg(long, value_enum, default_value_t = PacingChoice::Multiplier)]
    pub pacing: PacingChoice,
    /// All budgets are scaled by one factor, such that the 200 largest campaigns would spend twice theirs unpaced.
    #[arg(long, value_enum, default_value_t = Largest::Budget)]
    pub largest: Largest,
    /// Routers that hold leases of what is billed at the impression; 0 has budgets themselves held, as on the panel's
    /// days, whose visits are farther apart than a lease lasts.
    #[arg(long, default_value_t = 4)]
    pub routers: usize,
    /// How often in the whole run a router is killed, 10,000 at most; it is back ten seconds later, without its leases.
    #[arg(long, default_value_t = 24)]
    pub crashes: u64,
    /// Share, 0 to 1, of the campaigns billed by conversions for which a conversion is to cost the bid on average, instead of at most.
    #[arg(long, default_value_t = 0.0)]
    pub target_cpa_share: f64,
    /// Candidates drawn for one auction, 4 to 200.
    #[arg(long, default_value_t = 48)]
    pub candidates: usize,
    /// What one unit of engagement with the feed is worth, in millionths of the currency.
    #[arg(long, default_value_t = 20.0)]
    pub shadow_bid: f64,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 20_170_101)]
    pub seed: u64,
    /// Folder that holds `cj-ads/`.
    #[arg(long, value_name = "DIR", env = "GAVEL_DATA", default_value = "../shared/data")]
    pub data: PathBuf,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write plots as SVG into this folder.
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// End with 1 when fewer campaigns than this can be judged. Of the panel's days, where nobody is, it is not asked.
    #[arg(long, default_value_t = 50)]
    pub min_qualifying: usize,
    /// End with 1 when a target is missed, too; without it a missed target is printed as such, and nothing else.
    #[arg(long)]
    pub require_targets: bool,
    /// Users behave as these predictions say: the table that `bench/train/train.py --held` writes.
    #[arg(long, value_name = "FILE")]
    pub held: Option<PathBuf>,
    /// Play the markets with a known answer instead, and fail when the controllers miss it.
    #[arg(long)]
    pub closed_form: bool,
}

/// Why a market could not be played.
#[derive(Debug, thiserror::Error)]
pub enum MarketError {
    /// The records cannot be read.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The auction cannot be run.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// An option has a value that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The ledger has found itself wrong: a defect.
    #[error("the ledger stopped: {0}")]
    Ledger(#[from] Violation),
    /// More was charged than budgets hold: a defect.
    #[error("{0} micros were charged beyond budgets")]
    Overspent(i64),
    /// The pacing of too few campaigns can be judged.
    #[error(
        "only {found} campaigns can be judged, {wanted} are asked for: each needs 400 expected charge events and demand for nine tenths of its budget; use more arrivals, or lower --min-qualifying"
    )]
    FewQualify {
        /// Campaigns that can be judged.
        found: usize,
        /// Campaigns asked for.
        wanted: usize,
    },
    /// Targets were missed, and all were required.
    #[error("{0} targets are missed: see the report")]
    TargetsMissed(usize),
    /// The controllers miss what can be computed by hand, or was published.
    #[error("{0} figures are outside of their tolerance")]
    Missed(usize),
    /// The report cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Plays the market and prints its table.
///
/// # Errors
/// When it cannot be played, too few campaigns can be judged, more than a budget was charged, a target was missed though all
/// were required, or the report cannot be written; the report is written first.
pub fn run(args: &MarketArgs) -> Result<(), MarketError> {
    check(args)?;
    if args.closed_form {
        return known(args);
    }
    let started = now();
    let mut report = report(args, world::World::read(args)?)?;
    report.seconds = started.elapsed().as_secs_f64();
    print!("{}", report.table());
    write_json(args, &report)?;
    if let Some(folder) = &args.svg {
        plot::write(folder, &report).map_err(|source| MarketError::Write { path: folder.clone(), source })?;
    }
    verdict(args, &report)
}

/// Whether the report stands: a wrong ledger is worse than figures about too few, and those than figures that fall short.
fn verdict(args: &MarketArgs, report: &Report) -> Result<(), MarketError> {
    let overspend_micros = report.overspend_micros();
    if overspend_micros > 0 {
        return Err(MarketError::Overspent(overspend_micros));
    }
    let (found, wanted) = (report.campaigns_judged, report.campaigns_judged_min);
    if found < wanted {
        return Err(MarketError::FewQualify { found, wanted });
    }
    match report.targets_missed() {
        missed if missed > 0 && args.require_targets => Err(MarketError::TargetsMissed(missed)),
        _ => Ok(()),
    }
}

/// Options that make sense.
fn check(args: &MarketArgs) -> Result<(), MarketError> {
    let wrong = |what: &str| Err(MarketError::Usage(what.to_owned()));
    if !(4..=200).contains(&args.candidates) || args.arrivals == 0 {
        return wrong("--candidates is 4 to 200, --arrivals at least 1");
    }
    if args.routers > ROUTERS_MAX || args.crashes > CRASHES_MAX {
        return wrong(&format!("--routers is at most {ROUTERS_MAX}, --crashes at most {CRASHES_MAX}"));
    }
    if !(0.0..=1.0).contains(&args.target_cpa_share) {
        return wrong("--target-cpa-share is a share, 0 to 1");
    }
    Ok(())
}

/// Plays a world twice.
fn report(args: &MarketArgs, mut world: world::World) -> Result<Report, MarketError> {
    let arrivals = arrivals::Arrivals::draw(args, &world);
    // Without budgets first: what campaigns would spend is what their budgets are scaled by.
    let nobody = demand::Demand::of_nobody(world.campaigns.len());
    let free = day::play(args, &world, &arrivals, day::Budgets::Unlimited, nobody)?;
    let factor = world.scale_budgets(&free, arrivals.periods, args.largest);
    let events_min = match args.days {
        Days::Market => judged::EVENTS_MIN,
        // Nobody has as many: figures are said of those who have most.
        Days::Panel => 0.0,
    };
    let able = demand::Demand::of_the_able(&world, &free.accounts.total, events_min);
    let paced = day::play(args, &world, &arrivals, day::Budgets::Kept, able)?;
    Ok(Report::of(args, &world, &arrivals, factor, (&free, &paced)))
}

/// The markets whose answer is known.
fn known(args: &MarketArgs) -> Result<(), MarketError> {
    let checks = closed_form::all(args.seed);
    print!("{}", closed_form::table(&checks));
    write_json(args, &checks)?;
    match checks.iter().filter(|check| !check.holds).count() {
        0 => Ok(()),
        missed => Err(MarketError::Missed(missed)),
    }
}

fn write_json(args: &MarketArgs, report: &impl serde::Serialize) -> Result<(), MarketError> {
    let Some(path) = &args.json else { return Ok(()) };
    let json = serde_json::to_vec_pretty(report).map_err(|e| MarketError::Usage(e.to_string()))?;
    std::fs::write(path, json).map_err(|source| MarketError::Write { path: path.clone(), source })
}
