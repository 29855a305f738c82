//! What does a client carry from an ad to its event, without reading it?
//!
//! A token is everything that a charge needs: who issued it, for whom, at which price, until when. The router seals it
//! when the ad is served; whoever shows the ad sends it back with the event. It is encrypted and authenticated
//! (XChaCha20-Poly1305): a client sees neither price nor campaign, and a byte that was altered opens nothing. The nonce is
//! a keyed BLAKE3 of all that is sealed, in which the id never comes twice, so that it needs no random source.
//!
//! ```text
//! format u8 | key u32 | nonce 24 B | sealed: fields in their order, little-endian | tag 16 B
//! ```

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use gavel_proto::limits::TOKEN_BYTES_MAX;
use gavel_proto::wire::{EventKind, TokenKey};

const FORMAT: u8 = 2;
const NONCE_BYTES: usize = 24;
/// Format and key; authenticated, not encrypted.
const FRONT_BYTES: usize = 5;
const BODY_BYTES: usize = 14 * 8 + 2;
const TAG_BYTES: usize = 16;
/// Bytes of a sealed token.
pub const TOKEN_BYTES: usize = FRONT_BYTES + NONCE_BYTES + BODY_BYTES + TAG_BYTES;
/// Keys the nonces: BLAKE3's derivation asks for a context that nothing else uses.
const NONCE_CONTEXT: &str = "gavel 2026-11 nonces of event tokens";

const _: () = assert!(TOKEN_BYTES <= TOKEN_BYTES_MAX, "what is sealed is taken back");

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The router's incarnation, granted by the ledger.
    pub issuer: u64,
    /// Its count.
    pub sequence: u64,
    /// The event that is billed.
    pub billed: EventKind,
    /// Who pays.
    pub campaign: u64,
    /// The ad.
    pub ad: u64,
    /// Its slot.
    pub slot: u8,
    /// The auction.
    pub auction: u64,
    /// The request, by the hash of its id.
    pub request: u64,
    /// Replicated wall time of the issue.
    pub issued_ms: u64,
    /// The last moment at which the billed event counts.
    pub expires_ms: u64,
    /// The instant whose day and week pay.
    pub period_ms: u64,
    /// What the event costs.
    pub price_nanos: i64,
    /// What it may cost at most.
    pub bid_nanos: i64,
    /// The lease that holds the price; 0 = the budget.
    pub lease: u64,
    /// Version of the bundle that scored the ad.
    pub model: u64,
    /// The step of the rollout that ran; 0 = none did.
    pub trial: u64,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was not sealed by this cluster, or altered.
    #[error("forged")]
    Forged,
    /// The key is not there, or is none.
    #[error("no key")]
    NoKey,
}

impl Token {
    /// Seals a token.
    ///
    /// # Errors
    /// When the key is none.
    pub fn seal(&self, key: &TokenKey) -> Result<Vec<u8>, TokenError> {
        let cipher = XChaCha20Poly1305::new_from_slice(&key.secret).map_err(|_| TokenError::NoKey)?;
        let mut out = vec![FORMAT];
        out.extend_from_slice(&key.id.to_le_bytes());
        let nonce = self.nonce(key);
        let body = self.body();
        let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: &body, aad: &out });
        let sealed = sealed.map_err(|_| TokenError::NoKey)?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens a token with one of the keys.
    ///
    /// # Errors
    /// When none of them sealed exactly these bytes.
    pub fn open(bytes: &[u8], keys: &[TokenKey]) -> Result<Self, TokenError> {
        let (front, rest) = bytes.split_at_checked(FRONT_BYTES).ok_or(TokenError::Forged)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(TokenError::Forged)?;
        if bytes.len() != TOKEN_BYTES || front[0] != FORMAT {
            return Err(TokenError::Forged);
        }
        let id = u32::from_le_bytes([front[1], front[2], front[3], front[4]]);
        let key = keys.iter().find(|key| key.id == id).ok_or(TokenError::Forged)?;
        let cipher = XChaCha20Poly1305::new_from_slice(&key.secret).map_err(|_| TokenError::NoKey)?;
        let body = cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: front });
        Self::of_body(&body.map_err(|_| TokenError::Forged)?).ok_or(TokenError::Forged)
    }

    /// Whether the key that a token names is none of these.
    #[must_use]
    pub fn names_another_key(bytes: &[u8], keys: &[TokenKey]) -> bool {
        let id = bytes.get(1..FRONT_BYTES).and_then(|id| id.try_into().ok()).map(u32::from_le_bytes);
        bytes.len() == TOKEN_BYTES && id.is_some_and(|id| keys.iter().all(|key| key.id != id))
    }

    fn nonce(&self, key: &TokenKey) -> [u8; NONCE_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key(NONCE_CONTEXT);
        hasher.update(&key.secret);
        // The whole body: should an id ever come twice, the nonce is another one unless the token is the same.
        hasher.update(&self.body());
        let mut nonce = [0; NONCE_BYTES];
        hasher.finalize_xof().fill(&mut nonce);
        nonce
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BODY_BYTES);
        out.push(self.billed as u8);
        out.push(self.slot);
        let words = [self.issuer, self.sequence, self.campaign, self.ad, self.auction, self.request];
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        let times = [self.issued_ms, self.expires_ms, self.period_ms, self.lease];
        times.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        [self.price_nanos, self.bid_nanos].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        [self.model, self.trial].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        out
    }

    fn of_body(body: &[u8]) -> Option<Self> {
        let (front, rest) = body.split_first_chunk::<2>()?;
        if body.len() != BODY_BYTES {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(rest.get(at * 8..at * 8 + 8)?.try_into().ok()?));
        Some(Self {
            billed: EventKind::try_from(i32::from(front[0])).ok().filter(|k| *k != EventKind::Unspecified)?,
            slot: front[1],
            issuer: word(0)?,
            sequence: word(1)?,
            campaign: word(2)?,
            ad: word(3)?,
            auction: word(4)?,
            request: word(5)?,
            issued_ms: word(6)?,
            expires_ms: word(7)?,
            period_ms: word(8)?,
            lease: word(9)?,
            price_nanos: word(10)?.cast_signed(),
            bid_nanos: word(11)?.cast_signed(),
            model: word(12)?,
            trial: word(13)?,
        })
    }
}

/// A token as text, for JSON and paths.
#[must_use]
pub fn to_text(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

/// The bytes of a text; `None` when it is no token's.
#[must_use]
pub fn of_text(text: &str) -> Option<Vec<u8>> {
    if text.len() > TOKEN_BYTES_MAX * 4 / 3 + 4 {
        return None;
    }
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> TokenKey {
        TokenKey { id, secret: vec![id as u8; 32], since_ms: 0 }
    }

    fn token(sequence: u64) -> Token {
        Token {
            issuer: 3,
            sequence,
            billed: EventKind::EventClick,
            campaign: 44,
            ad: 55,
            slot: 2,
            auction: u64::MAX,
            request: 7,
            issued_ms: 1_000,
            expires_ms: 2_000,
            period_ms: 900,
            price_nanos: 123_456_789,
            bid_nanos: i64::MAX,
            lease: 8,
            model: 4,
            trial: 5 << 32,
        }
    }

    #[test]
    fn a_token_comes_back_as_it_was_and_says_nothing_on_its_way() {
        let sealed = token(9).seal(&key(2)).expect("sealed");
        assert_eq!(sealed.len(), TOKEN_BYTES);
        assert_eq!(Token::open(&sealed, &[key(1), key(2)]), Ok(token(9)));
        assert_eq!(of_text(&to_text(&sealed)), Some(sealed.clone()));
        let price = token(9).price_nanos.to_le_bytes();
        assert!(!sealed.windows(8).any(|w| w == price), "the price is not readable");
        assert_ne!(sealed[5..29], token(10).seal(&key(2)).expect("sealed")[5..29], "nonces differ");
    }

    #[test]
    fn what_was_altered_cut_or_sealed_by_others_opens_nothing() {
        let sealed = token(9).seal(&key(2)).expect("sealed");
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Token::open(&altered, &[key(1), key(2)]), Err(TokenError::Forged), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert_eq!(Token::open(&sealed[..cut], &[key(2)]), Err(TokenError::Forged));
        }
        let other = TokenKey { secret: vec![9; 32], ..key(2) };
        assert_eq!(Token::open(&sealed, &[other]), Err(TokenError::Forged));
        assert_eq!(Token::open(&sealed, &[key(1)]), Err(TokenError::Forged));
        assert_eq!(of_text("no token!"), None);
    }
}
