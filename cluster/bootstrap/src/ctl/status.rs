//! Who is there, and what is served?

use super::failed;
use crate::cli::Format;
use crate::failure::Failure;
use crate::output;
use gavel_client::AdminClient;
use gavel_proto::wire::{MemberHealth, MemberView, ModelView, ShardMemory, ShardView, StatusResponse};
use std::fmt::Write as _;

const MIB: u64 = 1024 * 1024;

/// `gavel ctl status`.
pub async fn run(admin: &AdminClient, format: Format) -> Result<(), Failure> {
    let status = admin.status().await.map_err(failed)?;
    match format {
        Format::Json => println!("{:#}", output::status(&status)),
        Format::Text => print!("{}", table(&status)),
    }
    Ok(())
}

/// For people.
fn table(status: &StatusResponse) -> String {
    let view = status.view.clone().unwrap_or_default();
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "cluster {}  map epoch {}  leader {}  term {}  log {}",
        view.cluster_id, view.map_epoch, status.leader_id, status.term, status.applied_index
    );
    let models = [&view.active_model, &view.previous_model, &view.pending_model].map(|m| model(m.as_ref()));
    let _ = writeln!(out, "model {}  previous {}  pending {}", models[0], models[1], models[2]);
    let generation = |g: Option<u64>| g.map_or("none".to_owned(), |g| g.to_string());
    let _ = writeln!(
        out,
        "generation {}  pending {}  delivery {}",
        generation(view.active_generation.as_ref().map(|g| g.generation)),
        generation(view.pending_generation.as_ref().map(|g| g.generation)),
        view.delivery_version
    );
    let _ = writeln!(out, "\nmember  role    address               alive   beat ms       MiB  ready");
    for m in &view.members {
        member(&mut out, m, status.health.iter().find(|h| h.member_id == m.member_id));
    }
    shards(&mut out, "shard", &view.shards);
    shards(&mut out, "pending shard", &view.pending_shards);
    out
}

fn model(model: Option<&ModelView>) -> String {
    let short = |m: &ModelView| output::hex(&m.hash).chars().take(12).collect::<String>();
    model.map_or("none".to_owned(), |m| format!("{} ({}, {})", m.version, m.name, short(m)))
}

fn member(out: &mut String, m: &MemberView, health: Option<&MemberHealth>) {
    let (age, resident) = health.map_or((0, 0), |h| (h.heartbeat_age_ms, h.resident_bytes / MIB));
    let ready = health.map_or(String::new(), |h| {
        let counts = (h.ready_shards.len(), h.ready_models.len(), h.ready_generations.len());
        format!("{} shards, {} models, {} generations", counts.0, counts.1, counts.2)
    });
    let role = m.role().as_str_name().trim_start_matches("ROLE_").to_ascii_lowercase();
    let alive = match (m.alive, m.draining) {
        (false, _) => "NO",
        (true, true) => "drains",
        (true, false) => "yes",
    };
    let _ = writeln!(out, "{:>6}  {role:<8}{:<22}{alive:<7}{age:>8}{resident:>10}  {ready}", m.member_id, m.address);
    if let Some(memory) = health.and_then(|h| h.memory.as_ref()) {
        let sum = |bytes: fn(&ShardMemory) -> u64| memory.shards.iter().map(bytes).sum::<u64>() / MIB;
        let (mapped, resident, owned) = (sum(|s| s.mapped_bytes), sum(|s| s.resident_bytes), sum(|s| s.owned_bytes));
        let limit = memory.limit_bytes / MIB;
        let _ = writeln!(
            out,
            "        shards: {mapped} MiB mapped, {resident} resident, {owned} owned, of {limit} allowed"
        );
        for s in &memory.shards {
            let (mapped, resident, owned) = (s.mapped_bytes / MIB, s.resident_bytes / MIB, s.owned_bytes / MIB);
            let (shard, generation) = (s.shard, s.generation);
            let _ = writeln!(
                out,
                "        shard {shard} of generation {generation}: {mapped} MiB mapped, {resident} resident, {owned} owned"
            );
        }
    }
    for refusal in health.iter().flat_map(|h| &h.refusals) {
        let standing = if refusal.rests { "tries again" } else { "refused" };
        let _ = writeln!(out, "        {standing} {}: {}", output::hex(&refusal.subject), refusal.reason);
    }
}

fn shards(out: &mut String, title: &str, shards: &[ShardView]) {
    if shards.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title:>13}{:>12}{:>12}  replicas (serving)", "items", "ads");
    for s in shards {
        let _ = writeln!(out, "{:>13}{:>12}{:>12}  {:?} ({:?})", s.shard, s.items, s.ads, s.replicas, s.serving);
    }
}
