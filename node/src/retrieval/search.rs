//! How is a plan carried out over the sealed items?
//!
//! A walk can come back with less than was promised: one among the allowed when they have lost touch with each other,
//! one everywhere when the allowed are rarer around the query than over all. The first is then made good by
//! a scan, the second by a list twice as long, at most twice, and then by a scan. So recall does not hang
//! on the filter, only time does, and the time that it took is what the planner learns from.

use super::{Ask, Method, Mode, Plan, planner};
use crate::segment::{
    Bitset, ModelFolder, Searched, SegmentError, TopK,
    model_folder::Asked,
    observed,
    walk::{Through, WalkScratch},
};

/// Times that a list is doubled.
const LONGER: usize = 2;

/// What was found, and memory that is used again.
#[derive(Default)]
pub(crate) struct Found {
    top: TopK,
    best: TopK,
    walk: WalkScratch,
    items: Vec<u32>,
}

impl Found {
    /// Nearest first.
    pub(crate) fn items(&self) -> &[u32] {
        &self.items
    }
}

/// The plan of a search over sealed items.
pub(crate) fn plan(
    model: &ModelFolder,
    asked: Asked<'_>,
    (mode, ask): (Mode, Ask),
    scratch: &mut WalkScratch,
    top: &mut TopK,
) -> Plan {
    let costs = model.calibration();
    let density = planner::worth_a_look(mode, ask, costs).then(|| model.density(asked, scratch, top));
    planner::plan(mode, ask, density, costs, model.observed())
}

/// The nearest of the allowed sealed items by one method or by the planner's choice: what a request does once
/// targeting has said what is allowed.
pub(crate) fn nearest(
    model: &ModelFolder,
    vector: &[f32],
    allowed: &Bitset,
    (choice, ask): (Option<Method>, Ask),
    (found, cpu_us): (&mut Found, fn() -> u64),
) -> Result<Option<Plan>, SegmentError> {
    let query = model.prepare_query(vector)?;
    let asked = Asked { query: &query, allowed, bonus: None, expired: &|| false };
    let Found { top, best, walk, items } = found;
    let again = model.rescore_format().is_some();
    top.reset(if again { planner::rescored(ask.quota) } else { ask.quota } as usize);
    let plan = choice.is_none().then(|| plan(model, asked, (Mode::Auto, ask), walk, top));
    let method = choice.or(plan.map(|plan| plan.method)).unwrap_or(Method::Nothing);
    let calibrated_us = plan.map_or(0.0, |plan| plan.calibrated_us);
    let timed = observed::is_timed(calibrated_us);
    let start = if timed { cpu_us() } else { 0 };
    let searched = search_sealed(model, asked, (method, ask), walk, top);
    items.clear();
    if again {
        best.reset(ask.quota as usize);
        model.rescore(&query, top.sorted(), &[], best);
        items.extend(best.sorted().iter().map(|(_, item)| *item));
    } else {
        items.extend(top.sorted().iter().map(|(_, item)| *item));
    }
    if let (Some(way), true, true) = (method.way(), timed, searched.finished) {
        model.observe(way, calibrated_us, cpu_us().saturating_sub(start) as f32);
    }
    Ok(plan)
}

/// Searches by the method; finds go into `top`, which may hold others already.
pub(crate) fn search_sealed(
    model: &ModelFolder,
    asked: Asked<'_>,
    (method, ask): (Method, Ask),
    scratch: &mut WalkScratch,
    top: &mut TopK,
) -> Searched {
    match method {
        Method::Nothing => Searched { seen: ask.items, finished: true },
        Method::Scan => model.scan(asked, top),
        Method::Filtered { list } => {
            let walked = model.walk(asked, Through::Allowed(asked.allowed), list, scratch, top);
            // With no more items than the list is long, the walk may have met all of them: only a scan knows.
            if walked.filled || !walked.searched.finished { walked.searched } else { rescan(model, asked, top) }
        }
        Method::Plain { list } => {
            // The nearest allowed are in the list if it holds as many; a half more, as its end is not to be trusted.
            let enough = ((ask.quota + ask.quota / 2).min(ask.eligible) as usize).min(list);
            for turn in 0..=LONGER {
                top.forget(ask.items);
                let walked = model.walk(asked, Through::All(asked.allowed), list << turn, scratch, top);
                if walked.allowed >= enough || !walked.searched.finished {
                    return walked.searched;
                }
            }
            rescan(model, asked, top)
        }
    }
}

/// A scan after a walk: what the walk found is found again.
fn rescan(model: &ModelFolder, asked: Asked<'_>, top: &mut TopK) -> Searched {
    top.forget(model.items());
    model.scan(asked, top)
}
