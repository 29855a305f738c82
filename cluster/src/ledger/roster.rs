//! Who may issue tokens, with which keys, and what is forgotten when?

use gavel_proto::ids::MemberId;
use gavel_proto::limits::{LEDGER_ISSUERS_MAX, LEDGER_KEYS_MAX};

use super::types::{EventKind, Issuer, Refusal, TokenKey, Verdict};
use super::{ATTRIBUTION_MS, HOUR_MS, Ledger, RETRY_MS};

/// An issuer issues for so long; a router asks for the next one in time.
pub const ISSUER_MS: u64 = 24 * HOUR_MS;
/// A router's idea of the ledger's time may be off by so much.
const SKEW_MS: u64 = HOUR_MS;

/// Grants an issuer; the same process gets the same one while it is fresh.
pub fn grant(ledger: &mut Ledger, member: MemberId, incarnation: u64) -> Result<Verdict, Refusal> {
    let now = ledger.wall_ms;
    let is_same = |i: &Issuer| i.member == member && i.incarnation == incarnation && now < i.granted_ms + ISSUER_MS / 2;
    if let Some((id, _)) = ledger.issuers.iter().rev().find(|(_, issuer)| is_same(issuer)) {
        return Ok(Verdict::Issuer(*id));
    }
    if ledger.issuers.len() >= LEDGER_ISSUERS_MAX {
        return Err(Refusal::Full);
    }
    let id = ledger.next_issuer;
    ledger.issuers.insert(id, Issuer { member, incarnation, granted_ms: now });
    ledger.next_issuer += 1;
    Ok(Verdict::Issuer(id))
}

/// Adds a key; the same one again changes nothing.
pub fn add_key(ledger: &mut Ledger, key: &TokenKey) -> Result<Verdict, Refusal> {
    match ledger.keys.iter().find(|held| held.id == key.id) {
        Some(held) if held.secret == key.secret => return Ok(Verdict::Duplicate),
        Some(_) => return Err(Refusal::Invalid),
        None => {}
    }
    if ledger.keys.last().is_some_and(|last| key.id <= last.id) {
        return Err(Refusal::Invalid);
    }
    if ledger.keys.len() >= LEDGER_KEYS_MAX {
        return Err(Refusal::Full);
    }
    ledger.keys.push(TokenKey { since_ms: ledger.wall_ms, ..*key });
    Ok(Verdict::Done)
}

/// Whether an issuer may have issued at that time.
pub fn check_issuer(ledger: &Ledger, id: u64, issued_ms: u64) -> Result<(), Refusal> {
    let issuer = ledger.issuers.get(&id).ok_or(Refusal::UnknownIssuer)?;
    let from = issuer.granted_ms.saturating_sub(SKEW_MS);
    let until = issuer.granted_ms.saturating_add(ISSUER_MS + SKEW_MS);
    if (from..=until).contains(&issued_ms) { Ok(()) } else { Err(Refusal::UnknownIssuer) }
}

/// Until when a token of that hour is known: its window and a day for repetitions.
const fn known_until(hour: u64, kind: EventKind) -> u64 {
    (hour + 1).saturating_mul(HOUR_MS).saturating_add(kind.window_ms() + RETRY_MS)
}

/// Whether nothing is known any more of tokens of this kind issued in that hour.
pub const fn is_forgotten(ledger: &Ledger, hour: u64, kind: EventKind) -> bool {
    known_until(hour, kind) <= ledger.wall_ms
}

/// Drops bitmaps, issuers and keys that nothing can refer to any more. Each kind's bitmaps go by its own window: those of
/// impressions, by far the most, after a day instead of eight.
pub fn forget(ledger: &mut Ledger) {
    // By whole hours, so that what is dropped does not depend on when an hour's first entry came.
    let now_ms = ledger.wall_ms / HOUR_MS * HOUR_MS;
    let counts = &mut ledger.counts;
    ledger.seen.retain(|(hour, _, kind), seen| {
        let kept = known_until(*hour, *kind) > now_ms;
        if !kept {
            counts.forgotten += seen.charged.count();
        }
        kept
    });
    let oldest = ledger.wall_ms.saturating_sub(ATTRIBUTION_MS + RETRY_MS + 2 * HOUR_MS);
    ledger.issuers.retain(|_, issuer| issuer.granted_ms + ISSUER_MS + SKEW_MS >= oldest);
    // A key is used until the next one comes.
    let replaced: Vec<u64> = ledger.keys.iter().skip(1).map(|next| next.since_ms).collect();
    let gone = replaced.iter().take_while(|since| **since < oldest).count();
    ledger.keys.drain(..gone);
}
