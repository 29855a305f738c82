//! Was this command answered before?
//!
//! A client that timed out does not know what came of its command and sends it again under the same id. The
//! answer is then the first one. Another command under the same id is a mistake of the client and is
//! refused. Receipts are bounded; the oldest go first, by log index, on every voter alike.

use gavel_proto::limits::RECEIPTS_MAX;

use super::State;
use super::command::Command;
use super::types::{Outcome, Receipt};

/// The word for another command under an id that is taken.
pub const EXISTS_DIFFERENT: &str = "exists_different";

/// The answer already given, if there is one.
pub fn answered(state: &State, command: &Command) -> Option<Outcome> {
    if command.id.is_empty() {
        return None;
    }
    let receipt = state.receipts.get(&command.id)?;
    if receipt.digest == command.digest {
        Some(receipt.outcome.clone())
    } else {
        Some(Outcome::refused(EXISTS_DIFFERENT))
    }
}

/// Keeps the answer.
pub fn remember(state: &mut State, index: u64, command: &Command, outcome: &Outcome) {
    if command.id.is_empty() {
        return;
    }
    let receipt = Receipt { digest: command.digest, index, outcome: outcome.clone() };
    state.receipts.insert(command.id.clone(), receipt);
    if state.receipts.len() > RECEIPTS_MAX {
        // One goes as one comes; a second map by index would have to be kept equal for 10,000 entries' scan.
        let oldest = state.receipts.iter().min_by_key(|(_, receipt)| receipt.index).map(|(id, _)| id.clone());
        if let Some(oldest) = oldest {
            state.receipts.remove(&oldest);
        }
    }
}
