//! What became of the ads that were scored?
//!
//! `gavel log join` reads the logs of routers, what was scored and what happened, and writes the table that
//! `bench/train/train.py` trains the next bundle from: an impression a row, with its labels, its sampling weight and the
//! features that it was scored with.
//!
//! * `labels`: which event belongs to which ad, a kernel;
//! * `read`: the lines of a folder, in either form;
//! * `table`: the tables, and which rows are in them.
//!
//! The scored log is read twice, once for the ids and once for the rows, so that features never have to fit into memory.

mod labels;
mod read;
mod table;

use gavel_router::logged::{EventLine, ScoredLine};
use serde::Serialize;
use std::path::PathBuf;

use labels::{Counts, Exposure, Windows, join};
use read::Lines;
use table::{Names, Plan, Rule, Tables};

/// Which ads become rows?
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rows {
    /// Those that somebody saw: with an impression, a click or a conversion.
    Shown,
    /// Every ad on a page, for sites that report no impressions.
    Placed,
}

/// What about ads whose events may still come?
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Open {
    /// They are left out: a click that has not come yet would count as none.
    Drop,
    /// They are taken as they are.
    Keep,
}

/// What to join.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// Folders or files of the log of what was scored: DIR,DIR,...
    #[arg(long, value_name = "DIR", value_delimiter = ',', required = true)]
    pub scored: Vec<PathBuf>,
    /// Folders or files of the log of events.
    #[arg(long, value_name = "DIR", value_delimiter = ',', required = true)]
    pub events: Vec<PathBuf>,
    /// Folder for the tables.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// An impression counts so long after its ad was served.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration_ms)]
    pub impression_window: u64,
    /// So long a click: 90s, 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration_ms)]
    pub click_window: u64,
    /// So long a conversion.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration_ms)]
    pub conversion_window: u64,
    /// Until when events are known, Unix milliseconds; by default the newest time of both logs.
    #[arg(long, value_name = "MS")]
    pub as_of: Option<u64>,
    /// What about ads whose windows were open then.
    #[arg(long, value_enum, default_value_t = Open::Drop)]
    pub open: Open,
    /// Which ads become rows.
    #[arg(long, value_enum, default_value_t = Rows::Shown)]
    pub rows: Rows,
    /// Length of the periods that training and validation are parted by.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = duration_ms)]
    pub period: u64,
    /// Periods of the validation: the last ones.
    #[arg(long, default_value_t = 2)]
    pub valid_periods: u64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// A time as people write it, in milliseconds.
fn duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|ms| *ms > 0);
    ms.ok_or_else(|| format!("{text:?} is no time: give a number with ms, s, m, h or d, as 24h"))
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nothing to read, or a log that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The table cannot be written.
    #[error("the table cannot be written: {0}")]
    Csv(#[from] csv::Error),
}

/// What was joined.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Requests of the scored log, and lines of both logs that could not be read.
    pub requests: u64,
    /// Lines that are none of ours, or cut off.
    pub unreadable: u64,
    /// Candidates that were logged, and those of them on a page.
    pub candidates: u64,
    /// On a page.
    pub placed: u64,
    /// On a page, and no token went out with them: nothing can be known of them.
    pub without_token: u64,
    /// Read more than once: the first stands.
    pub repeated: u64,
    /// Events that might still have come: left out unless they are kept.
    pub open: u64,
    /// Nobody is known to have seen them: left out unless every placed ad is a row.
    pub unseen: u64,
    /// What became of the events.
    pub events: Counts,
    /// Rows of the training table.
    pub train_rows: u64,
    /// Rows of the validation table.
    pub valid_rows: u64,
    /// Of both.
    pub clicks: u64,
    /// Of both.
    pub conversions: u64,
    /// Sum of the rows' weights: how many impressions they stand for.
    pub weight: f64,
    /// Periods that have rows.
    pub periods: u64,
}

/// Joins the logs, writes the tables and prints the report.
///
/// # Errors
/// When a log cannot be read, no row comes of it, or a table cannot be written.
pub fn run(args: &JoinArgs) -> Result<(), JoinError> {
    let report = joined(args)?;
    let events = &report.events;
    println!(
        "{} requests, {} candidates, {} on a page ({} without a token, {} repeated, {} still open, {} unseen); {} lines unreadable",
        report.requests,
        report.candidates,
        report.placed,
        report.without_token,
        report.repeated,
        report.open,
        report.unseen,
        report.unreadable
    );
    println!(
        "{} events: {} joined, {} duplicate, {} late, {} early, {} unmatched, {} contradicting",
        events.events,
        events.joined,
        events.duplicate,
        events.late,
        events.early,
        events.unmatched,
        events.contradicting
    );
    println!(
        "{} training rows and {} validation rows stand for {:.0} impressions; {} clicks, {} conversions",
        report.train_rows, report.valid_rows, report.weight, report.clicks, report.conversions
    );
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&report).map_err(|e| JoinError::Usage(e.to_string()))?;
        std::fs::write(path, json).map_err(|source| JoinError::Io { path: path.clone(), source })?;
    }
    if report.train_rows == 0 || report.valid_rows == 0 {
        return Err(JoinError::Usage(empty(args, &report)));
    }
    Ok(())
}

/// What to do about a table without rows.
fn empty(args: &JoinArgs, report: &Report) -> String {
    if report.periods > 0 && report.periods <= args.valid_periods {
        let (found, valid) = (report.periods, args.valid_periods);
        return format!("rows of {found} periods, and {valid} are for validation: give a shorter --period");
    }
    if report.open > 0 {
        return "every ad may still have events: wait, give shorter windows, or --open keep".to_owned();
    }
    if report.unseen > 0 {
        return "nobody reported an impression: --rows placed takes every ad on a page".to_owned();
    }
    "no ad on a page with a token in the log: see docs/logs.md".to_owned()
}

/// Joins the logs and writes the tables.
///
/// # Errors
/// When a log cannot be read, or a table not written.
pub fn joined(args: &JoinArgs) -> Result<Report, JoinError> {
    let (scored, happened) = (Lines::of("scored", &args.scored)?, Lines::of("events", &args.events)?);
    let mut report = Report::default();
    let (mut exposures, mut events, mut names) = (Vec::new(), Vec::new(), Names::default());
    let (mut newest, mut oldest) = (0, u64::MAX);
    report.unreadable += scored.each(|line: ScoredLine| {
        report.requests += 1;
        report.candidates += line.candidates.len() as u64;
        names.add(&line);
        (newest, oldest) = (newest.max(line.time_ms), oldest.min(line.time_ms));
        for candidate in line.candidates.iter().filter(|c| c.position.is_some()) {
            report.placed += 1;
            report.without_token += u64::from(candidate.token.is_none());
            exposures.extend(Exposure::of(&line, candidate));
        }
        Ok(())
    })?;
    report.unreadable += happened.each(|event: EventLine| {
        newest = newest.max(event.time_ms);
        events.push(event);
        Ok(())
    })?;
    let windows = Windows {
        impression_ms: args.impression_window,
        click_ms: args.click_window,
        conversion_ms: args.conversion_window,
    };
    let (labels, counts) = join(&exposures, &events, windows);
    report.events = counts;
    drop(events);
    let closed_until = match args.open {
        Open::Drop => args.as_of.unwrap_or(newest).saturating_sub(windows.longest_ms()),
        Open::Keep => u64::MAX,
    };
    let period = |time_ms: u64| time_ms.saturating_sub(oldest) / args.period;
    let rule = Rule { rows: args.rows, closed_until, period: &period };
    let plan = Plan::of(&exposures, &labels, &rule, args.valid_periods, &mut report);
    let mut tables = Tables::create(&args.out, names)?;
    let mut place = 0;
    scored.each(|line: ScoredLine| tables.add(&line, &exposures, &plan, &mut place))?;
    tables.finish(&mut report)?;
    Ok(report)
}

#[cfg(test)]
mod tests;
