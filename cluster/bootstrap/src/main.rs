//! Which role does this process play?
//!
//! One binary: a voter, a node, a router, the embedded cluster of all three, the operator's commands and the benchmarks.
//! Here are the allocator, the exit code and the choice; everything else is in the modules.

mod allocator;
mod ann;
mod clear;
mod cli;
mod ctl;
mod demo;
mod failure;
mod model;
mod output;
mod replay;
mod roles;
mod up;

use clap::Parser;
use cli::{Auction, Bench, Cli, Command, LogCommand, Sim};
use failure::Failure;
use gavel_bench::join::JoinError;
use gavel_bench::market::MarketError;
use gavel_bench::rank::RankError;
use std::process::ExitCode;

/// What is logged when nothing is said about it.
/// openraft logs every refused call of every retry; what a person must act on is logged by our side of it.
const LOG_OF_PROCESSES: &str = "warn,gavel=info,openraft=off";
const LOG_OF_UP: &str = "warn,openraft=off";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed the same way, and are no errors.
            let _ = error.print();
            return if error.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("gavel: {failure}");
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Auction(_)
        | Command::Model(_)
        | Command::Ctl(_)
        | Command::Bench(_)
        | Command::Sim(_)
        | Command::Logs(_) => {
            end_with_the_reader();
        }
        Command::Up(_) | Command::Control(_) | Command::Node(_) | Command::Router(_) => {}
    }
    match cli.command {
        Command::Auction(Auction::Clear { file, format }) => clear::run(&file, format),
        Command::Auction(Auction::Replay { file, format }) => replay::run(&file, format),
        Command::Model(command) => model::run(&command),
        Command::Sim(Sim::Market(args)) => gavel_bench::market::run(&args).map_err(of_market),
        Command::Logs(LogCommand::Join(args)) => gavel_bench::join::run(&args).map_err(of_join),
        Command::Up(_)
        | Command::Control(_)
        | Command::Node(_)
        | Command::Router(_)
        | Command::Ctl(_)
        | Command::Bench(_) => start(cli),
    }
}

/// What needs a log and a runtime.
fn start(cli: Cli) -> Result<(), Failure> {
    let usual = match &cli.command {
        // A person waits for one answer and not for a log.
        Command::Up(_) => LOG_OF_UP,
        Command::Control(_)
        | Command::Node(_)
        | Command::Router(_)
        | Command::Ctl(_)
        | Command::Auction(_)
        | Command::Model(_)
        | Command::Sim(_)
        | Command::Logs(_)
        | Command::Bench(_) => LOG_OF_PROCESSES,
    };
    let log = cli.log.as_deref().unwrap_or(usual);
    gavel_member::telemetry::abort_on_panic();
    gavel_member::telemetry::start_log(log, cli.log_format.into()).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::io)?;
    runtime.block_on(async move {
        match cli.command {
            Command::Up(args) => Box::pin(up::run(args, cli.cluster_id)).await,
            Command::Control(args) => Box::pin(roles::control(args, cli.cluster_id)).await,
            Command::Node(args) => Box::pin(roles::node(args, cli.cluster_id)).await,
            Command::Router(args) => Box::pin(roles::router(args, cli.cluster_id)).await,
            Command::Ctl(args) => Box::pin(ctl::run(args, cli.cluster_id)).await,
            Command::Bench(bench) => Box::pin(run_bench(bench)).await,
            Command::Auction(_) | Command::Model(_) | Command::Sim(_) | Command::Logs(_) => Ok(()),
        }
    })
}

/// A command whose reader has gone (`| head`) ends quietly; a server must not, so it keeps the runtime's setting.
fn end_with_the_reader() {
    // SAFETY: no other thread runs yet, and SIG_DFL is a legal disposition.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

fn of_market(error: MarketError) -> Failure {
    match error {
        MarketError::Usage(_) => Failure::usage(error),
        MarketError::Write { .. } => Failure::io(error),
        MarketError::Corpus(_)
        | MarketError::Rule(_)
        | MarketError::Ledger(_)
        | MarketError::Overspent(_)
        | MarketError::FewQualify { .. }
        | MarketError::TargetsMissed(_)
        | MarketError::Missed(_) => Failure::other(error),
    }
}

fn of_join(error: JoinError) -> Failure {
    match error {
        JoinError::Usage(_) => Failure::usage(error),
        JoinError::Io { .. } => Failure::io(error),
        JoinError::Csv(_) => Failure::other(error),
    }
}

fn of_rank(error: RankError) -> Failure {
    match error {
        RankError::Usage(_) => Failure::usage(error),
        RankError::Bundle { .. } | RankError::Row { .. } => Failure::damaged(error),
        RankError::Io { .. } => Failure::io(error),
        RankError::Model(_) => Failure::other(error),
    }
}

async fn run_bench(bench: Bench) -> Result<(), Failure> {
    match bench {
        Bench::Ann(args) => tokio::task::spawn_blocking(move || ann::run(&args)).await.map_err(Failure::other)?,
        Bench::Corpus(args) => {
            let built = tokio::task::spawn_blocking(move || gavel_bench::corpus::run(&args)).await;
            let summary = built.map_err(Failure::other)?.map_err(Failure::other)?;
            println!("{}", serde_json::to_string(&summary).map_err(Failure::other)?);
            Ok(())
        }
        Bench::Serve(args) => gavel_bench::serve::run(args).await.map_err(Failure::other),
        Bench::Rollout(args) => match gavel_bench::rollout::run(args).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::other("a promise was not kept: see the report")),
            Err(error) => Err(Failure::other(error)),
        },
        Bench::Ledger(args) => match gavel_bench::ledger::run(args).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::other("a promise was not kept: see the report")),
            Err(error) => Err(Failure::other(error)),
        },
        Bench::Frequency(args) => gavel_bench::frequency::run(args).await.map_err(Failure::other),
        Bench::Delivery(args) => match gavel_bench::delivery::run(args).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::other("a promise was not kept: see the report")),
            Err(error) => Err(Failure::other(error)),
        },
        Bench::Truth(args) => gavel_bench::truth::run(args).await.map_err(Failure::other),
        Bench::Auction(args) => {
            let ran = tokio::task::spawn_blocking(move || gavel_bench::auction::run(&args)).await;
            ran.map_err(Failure::other)?.map_err(Failure::other)
        }
        Bench::Rank(args) => {
            let ran = tokio::task::spawn_blocking(move || gavel_bench::rank::run(&args)).await;
            ran.map_err(Failure::other)?.map_err(of_rank)
        }
    }
}
