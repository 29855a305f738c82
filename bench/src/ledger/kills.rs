//! Which process is killed next, and when may the load go on?
//!
//! In turn: the ledger's leader, a router, a node, the control state's leader. The load of the first round is parted by
//! its kills, so that a short run has every kind of them as a long one has: before each, only so many tokens are sold, and
//! the next part goes on the moment a process is killed.

use super::LedgerArgs;
use super::load::Load;
use crate::clock::monotonic_us;
use crate::fleet::{self, DOWN, Fleet, FleetError, RETRY, Role, WHOLE_MAX};
use gavel_client::{AdminClient, LedgerClient};
use gavel_proto::wire::StatusResponse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    LedgerLeader,
    Router,
    Node,
    ControlLeader,
}

/// A round.
const ROUND: [Victim; 4] = [Victim::LedgerLeader, Victim::Router, Victim::Node, Victim::ControlLeader];

impl Victim {
    /// The word of the report.
    const fn word(self) -> &'static str {
        match self {
            Self::LedgerLeader => "ledger leader",
            Self::Router => "router",
            Self::Node => "node",
            Self::ControlLeader => "control leader",
        }
    }
}

/// Of so many tokens, those that may be sold once so many processes were killed.
#[must_use]
pub fn allowed(charges: u64, kills: usize) -> u64 {
    let parts = ROUND.len() as u64 + 1;
    charges * parts.min(kills as u64 + 1) / parts
}

/// Kills and starts again until charging is over, and lets the load go on.
pub async fn kill(
    args: &LedgerArgs,
    fleet: &mut Fleet,
    clients: (&AdminClient, &LedgerClient),
    (load, is_over): (&Load, &AtomicBool),
) -> Result<BTreeMap<String, u64>, FleetError> {
    let killed = if args.kill { rounds(args, fleet, clients, (load, is_over)).await } else { Ok(BTreeMap::new()) };
    // Whatever came in between: nobody waits for a kill any more.
    load.allow(args.charges);
    killed
}

async fn rounds(
    args: &LedgerArgs,
    fleet: &mut Fleet,
    (admin, ledger): (&AdminClient, &LedgerClient),
    (load, is_over): (&Load, &AtomicBool),
) -> Result<BTreeMap<String, u64>, FleetError> {
    let (mut killed, mut kills) = (BTreeMap::new(), 0);
    loop {
        tokio::time::sleep(Duration::from_secs_f64(args.kill_every)).await;
        if is_over.load(Ordering::Acquire) {
            return Ok(killed);
        }
        let victim = ROUND[kills % ROUND.len()];
        let at = find(fleet, (admin, ledger), victim, kills / ROUND.len()).await?;
        eprintln!("kill -9 {} ({})", fleet.processes[at].name, victim.word());
        fleet.processes[at].kill();
        kills += 1;
        load.allow(allowed(args.charges, kills));
        *killed.entry(victim.word().to_owned()).or_default() += 1;
        tokio::time::sleep(DOWN).await;
        tokio::task::block_in_place(|| fleet.processes[at].start())?;
        whole(admin).await?;
    }
}

/// The process that is meant; a leader is waited for.
async fn find(
    fleet: &Fleet,
    clients: (&AdminClient, &LedgerClient),
    victim: Victim,
    round: usize,
) -> Result<usize, FleetError> {
    let from = monotonic_us();
    loop {
        if let Some(at) = look(fleet, clients, victim, round).await {
            return Ok(at);
        }
        if Duration::from_micros(monotonic_us() - from) > WHOLE_MAX {
            return Err(FleetError::Process(format!("there is no {} to kill", victim.word())));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn look(
    fleet: &Fleet,
    (admin, ledger): (&AdminClient, &LedgerClient),
    victim: Victim,
    round: usize,
) -> Option<usize> {
    let of = |role: Role| {
        let all: Vec<usize> = (0..fleet.processes.len()).filter(|i| fleet.processes[*i].role == role).collect();
        all.get(round % all.len().max(1)).copied()
    };
    let address = match victim {
        Victim::Router => return of(Role::Router),
        Victim::Node => return of(Role::Node),
        Victim::LedgerLeader => ledger_leader(ledger, &admin.status().await.ok()?).await,
        Victim::ControlLeader => {
            let status = admin.status().await.ok()?;
            status.voters.iter().find(|voter| voter.id == status.leader_id).map(|voter| voter.address.clone())
        }
    };
    let address = address?;
    fleet.processes.iter().position(|process| process.address == address)
}

/// The voter that says of itself that it leads the ledger: what others say may be of a moment ago.
async fn ledger_leader(ledger: &LedgerClient, status: &StatusResponse) -> Option<String> {
    for voter in &status.voters {
        if let Ok(reply) = ledger.balances_at(&voter.address, vec![0]).await
            && reply.leader_id == voter.id
        {
            return Some(voter.address.clone());
        }
    }
    None
}

/// Returns once every member lives and every shard is served by all of its replicas.
pub async fn whole(admin: &AdminClient) -> Result<(), FleetError> {
    let from = monotonic_us();
    loop {
        if let Ok(status) = admin.status().await
            && status.view.is_some_and(|view| fleet::is_served(&view))
        {
            return Ok(());
        }
        if Duration::from_micros(monotonic_us() - from) > WHOLE_MAX {
            return Err(FleetError::Process("the cluster does not become whole".to_owned()));
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_lasts_until_every_kind_was_killed() {
        let parts: Vec<u64> = (0..7).map(|kills| allowed(8_000, kills)).collect();
        assert_eq!(parts, [1_600, 3_200, 4_800, 6_400, 8_000, 8_000, 8_000]);
        assert_eq!(allowed(3, ROUND.len()), 3);
        assert!((0..ROUND.len()).all(|kills| allowed(3, kills) < 3));
    }
}
