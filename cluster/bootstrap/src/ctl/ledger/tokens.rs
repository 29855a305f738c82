//! What does a token say, and what became of it?

use crate::failure::Failure;
use gavel_control::audit::Book;
use gavel_control::convert::ledger::{key_to_wire, kind};
use gavel_control::ledger::types::{ChargeId, EventKind};
use gavel_member::token::{self, Token};
use gavel_proto::wire::TokenKey;
use std::path::Path;

/// The tokens of a file, one a line, each with its place; blank lines are passed over.
pub fn of_file(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let wrong = |e| Failure::usage(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(wrong)?;
    let lines = text.lines().zip(1u64..).map(|(line, number)| (format!("{}:{number}", path.display()), line.trim()));
    Ok(lines.filter(|(_, line)| !line.is_empty()).map(|(place, line)| (place, line.to_owned())).collect())
}

/// What a book says of tokens.
pub struct Teller<'a> {
    book: &'a Book,
    keys: Vec<TokenKey>,
}

impl<'a> Teller<'a> {
    /// With the keys of the book.
    pub fn new(book: &'a Book) -> Self {
        Self { book, keys: book.keys().iter().map(key_to_wire).collect() }
    }

    /// A line: issuer, sequence, kind, campaign, price, lease, and what became of it; `unknown_key` of what was sealed with
    /// a key that is not in the journal, as before the checkpoint that it begins with, and `forged` of what no key opens.
    pub fn line(&self, text: &str) -> String {
        let bytes = token::of_text(text).unwrap_or_default();
        if Token::names_another_key(&bytes, &self.keys) {
            return "unknown_key".to_owned();
        }
        let opened = Token::open(&bytes, &self.keys).ok();
        let known = opened.and_then(|token| Some((token, kind(token.billed.into()).ok()?)));
        let Some((token, kind)) = known else { return "forged".to_owned() };
        let id = ChargeId { issuer: token.issuer, sequence: token.sequence, kind };
        let outcome = self.book.outcome(id, token.issued_ms).word();
        let number = number(kind);
        let Token { issuer, sequence, campaign, price_nanos, lease, .. } = token;
        format!("{issuer} {sequence} {number} {campaign} {price_nanos} {lease} {outcome}")
    }
}

/// As kinds of events are numbered in files.
pub const fn number(kind: EventKind) -> u8 {
    match kind {
        EventKind::Impression => 1,
        EventKind::Click => 2,
        EventKind::Conversion => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_control::audit::{Findings, read};
    use gavel_control::ledger::command::{Batch, Event};
    use gavel_control::ledger::types::{TokenKey as Key, Verdict};
    use gavel_proto::wire::EventKind as Billed;

    #[test]
    fn a_token_is_opened_with_the_keys_of_the_journal() {
        let key = Key { id: 1, secret: [7; 32], since_ms: 0 };
        let (mut book, batch) =
            (Book::new(), Batch { elapsed_ms: 0, wall_ms: 5_000, events: vec![Event::AddKey(key)] });
        read(&mut book, &mut Findings::default(), 1, &batch, &[Verdict::Done]);
        let token = Token {
            issuer: 3,
            sequence: 9,
            billed: Billed::EventClick,
            campaign: 44,
            ad: 55,
            slot: 0,
            auction: 66,
            request: 7,
            issued_ms: 5_000,
            expires_ms: 6_000,
            period_ms: 5_000,
            price_nanos: 1_200,
            bid_nanos: 1_300,
            lease: 0,
            model: 1,
            trial: 0,
        };
        let sealed = |key: &Key| token::to_text(&token.seal(&key_to_wire(key)).expect("sealed"));
        let text = sealed(&key);
        let teller = Teller::new(&book);
        assert_eq!(teller.line(&text), "3 9 2 44 1200 0 unknown");
        assert_eq!([teller.line("no token"), teller.line(&text[1..])], ["forged", "forged"]);
        assert_eq!(teller.line(&sealed(&Key { secret: [8; 32], ..key })), "forged", "the name of a key of ours");
        assert_eq!(teller.line(&sealed(&Key { id: 2, ..key })), "unknown_key");
    }

    #[test]
    fn a_file_has_a_token_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        std::fs::write(&path, "one\n\n two \n").expect("written");
        let found = of_file(&path).expect("read");
        assert_eq!(found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert!(found[1].0.ends_with("tokens:3"), "{}", found[1].0);
        let missing = of_file(&folder.path().join("none")).expect_err("no file");
        assert!(missing.to_string().contains("none: "), "{missing}");
    }
}
