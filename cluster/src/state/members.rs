//! Who belongs to the cluster, and who of them answers?
//!
//! A member's id is the log index of its first join, so an id is never given twice. A process that comes
//! back with its key keeps its id and gets a new incarnation, which clears what it was ready for. A voter
//! is the exception: its key comes back with another incarnation only when its disk was wiped, and a voter
//! that forgot its log must not vote under its old name.
//!
//! A node that dies keeps its replicas, because it mostly comes back; one that is removed loses them to others. A
//! node that joins or comes back takes those that nobody had room for.

use std::collections::BTreeMap;

use gavel_proto::limits::MEMBERS_MAX;

use super::command::{Liveness, RegisterMember, SetAlive};
use super::types::{Member, Ready, Role};
use super::{State, Verdict, check_text};
use crate::placement;

/// The word for a voter that came back without its log.
pub const VOTER_WIPED: &str = "voter_wiped";

/// A process joins or comes back.
pub fn register(state: &mut State, index: u64, wish: &RegisterMember) -> Verdict {
    check_text("member_key", &wish.key)?;
    check_text("address", &wish.address)?;
    if wish.name.len() > gavel_proto::limits::STRING_BYTES_MAX {
        return Err("invalid_argument: name is too long".to_owned());
    }
    let Some(known) = state.members.values_mut().find(|m| m.key == wish.key) else {
        if state.members.len() >= MEMBERS_MAX {
            return Err("resource_exhausted: too many members".to_owned());
        }
        let member = Member {
            id: index,
            key: wish.key.clone(),
            role: wish.role,
            address: wish.address.clone(),
            name: wish.name.clone(),
            incarnation: wish.incarnation,
            alive: true,
            draining: false,
            ready: Ready::default(),
        };
        state.members.insert(index, member);
        fill(state);
        state.map_epoch += 1;
        return Ok(index);
    };
    if known.role != wish.role {
        return Err("failed_precondition: the key belongs to another role".to_owned());
    }
    if known.role == Role::Control && known.incarnation != wish.incarnation {
        return Err(VOTER_WIPED.to_owned());
    }
    let restarted = known.incarnation != wish.incarnation;
    let moved = known.address != wish.address || known.name != wish.name;
    let id = known.id;
    if restarted {
        known.ready = Ready::default();
    }
    if restarted || moved || !known.alive {
        known.address.clone_from(&wish.address);
        known.name.clone_from(&wish.name);
        known.incarnation = wish.incarnation;
        known.alive = true;
        known.draining = false;
        fill(state);
        state.map_epoch += 1;
    }
    Ok(id)
}

/// The leader saw a member die, return or drain.
pub fn set_alive(state: &mut State, wish: SetAlive) -> Verdict {
    let known = state.members.get_mut(&wish.member).ok_or("unknown_member")?;
    if known.incarnation != wish.incarnation {
        return Err("stale_incarnation".to_owned());
    }
    let (alive, draining) = match wish.liveness {
        Liveness::Dead => (false, known.draining),
        Liveness::Serving => (true, false),
        Liveness::Draining => (true, true),
    };
    if (known.alive, known.draining) != (alive, draining) {
        (known.alive, known.draining) = (alive, draining);
        fill(state);
        state.map_epoch += 1;
    }
    Ok(wish.member)
}

/// A dead member is forgotten, and its replicas go to others.
pub fn remove(state: &mut State, member: u64) -> Verdict {
    let known = state.members.get(&member).ok_or("unknown_member")?;
    if known.alive {
        return Err("failed_precondition: the member is alive".to_owned());
    }
    if known.role == Role::Control {
        return Err("failed_precondition: a voter cannot be removed".to_owned());
    }
    state.members.remove(&member);
    for generation in state.generations.values_mut() {
        generation.replicas.iter_mut().for_each(|placed| placed.retain(|id| *id != member));
    }
    fill(state);
    state.map_epoch += 1;
    Ok(member)
}

/// Gives shards that lack replicas to the least loaded nodes that do not hold them, as far as there are any.
fn fill(state: &mut State) {
    let nodes: Vec<u64> = state.alive_in(Role::Node).filter(|m| !m.draining).map(|m| m.id).collect();
    for generation in state.generations.values_mut() {
        let mut held: BTreeMap<u64, u32> = nodes.iter().map(|node| (*node, 0)).collect();
        for id in generation.replicas.iter().flatten() {
            held.entry(*id).and_modify(|n| *n += 1);
        }
        for (shard, placed) in (0u32..).zip(generation.replicas.iter_mut()) {
            while placed.len() < generation.copies as usize {
                let free = held.iter().filter(|(id, _)| !placed.contains(id)).map(|(id, n)| (*id, *n)).collect();
                let Some(next) = placement::successor(generation.number, shard, &free) else { break };
                placed.push(next);
                placed.sort_unstable();
                held.entry(next).and_modify(|n| *n += 1);
            }
        }
    }
}
