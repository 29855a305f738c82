//! What can be done with a model bundle before a cluster sees it?

mod check;
mod gate;
mod pack;

use crate::cli::ModelCommand;
use crate::failure::Failure;

/// `gavel model`.
pub fn run(command: &ModelCommand) -> Result<(), Failure> {
    match command {
        ModelCommand::Pack(args) => pack::run(args),
        ModelCommand::Check(args) => check::run(args),
    }
}
