//! What can an operator do?

pub mod ask;
mod campaign;
mod ledger;
pub mod load;
pub mod member;
pub mod model;
pub mod progress;
mod registry;
mod rollout;
pub mod settings;
mod signing;
mod skew;
pub mod status;

use crate::cli::{Ctl, CtlArgs, Format};
use crate::failure::Failure;
use gavel_client::{AdminClient, ClientError};

/// `gavel ctl`.
pub async fn run(args: CtlArgs, cluster_id: String) -> Result<(), Failure> {
    let mut admin = AdminClient::new(&cluster_id, args.control).map_err(Failure::usage)?;
    match args.command {
        Ctl::Status { json } => status::run(&admin, if json { Format::Json } else { Format::Text }).await,
        Ctl::Load(args) => load::run(&mut admin, &cluster_id, args).await,
        Ctl::Model(command) => model::run(&mut admin, command).await,
        Ctl::Member(command) => member::run(&mut admin, command).await,
        Ctl::Placement(command) => settings::placement(&mut admin, command).await,
        Ctl::Rules(args) => settings::rules(&mut admin, args).await,
        Ctl::Ledger(command) => ledger::run(&admin, &cluster_id, command).await,
        Ctl::Campaign(command) => campaign::run(&admin, &cluster_id, command).await,
        Ctl::Ad(args) => ask::ad(&admin, args).await,
        Ctl::Explain(args) => ask::explain(&admin, args).await,
    }
}

/// The exit code of what a client could not do.
pub fn failed(error: ClientError) -> Failure {
    match error {
        ClientError::Address(_) => Failure::usage(error),
        ClientError::File(..) => Failure::io(error),
        ClientError::Unreachable(_) | ClientError::Call(_) | ClientError::Refused(_) | ClientError::NotActive(_) => {
            Failure::other(error)
        }
    }
}
