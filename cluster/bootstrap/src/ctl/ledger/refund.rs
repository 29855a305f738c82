//! How is a charge given back?
//!
//! By the token of its event, which whoever reported it has. A refund is an entry of the ledger like any other, so the same
//! again changes nothing, and what was not answered is sent again as it was. Only who reaches the voters' endpoint can
//! ask for it: routers do not.

use super::super::failed;
use super::{nanos, tokens, units};
use crate::cli::RefundArgs;
use crate::failure::Failure;
use gavel_client::LedgerClient;
use gavel_client::ledger::Tries;
use gavel_member::token;
use gavel_proto::limits::LEDGER_EVENTS_MAX;
use gavel_proto::wire::{LedgerAnswer, LedgerVerdict, SealedRefund};
use serde_json::{Value, json};

/// Characters of a token that tell it from others: its beginning is the same for all of a day.
const SHOWN: usize = 10;

/// A token, and what is asked for it.
pub struct Wanted {
    text: String,
    refund: SealedRefund,
}

/// What is asked for; nothing is sent before all of it can be read.
pub fn read(args: &RefundArgs) -> Result<Vec<Wanted>, Failure> {
    let amount_nanos = args.amount.as_deref().map(nanos).transpose()?;
    if amount_nanos == Some(0) {
        return Err(Failure::usage("--amount 0 gives nothing back: leave it out to give back each charge whole"));
    }
    let mut texts: Vec<(String, String)> = args.tokens.iter().map(|text| (format!("{text:?}"), text.clone())).collect();
    if let Some(file) = &args.file {
        texts.extend(tokens::of_file(file)?);
    }
    if texts.is_empty() {
        return Err(Failure::usage("give the tokens of the charges, or --file FILE with one a line"));
    }
    let wanted = |(place, text): (String, String)| {
        let token = token::of_text(&text).filter(|bytes| bytes.len() == token::TOKEN_BYTES);
        let refund = |token| SealedRefund { token, amount_nanos: amount_nanos.unwrap_or(0) };
        let wrong = || Failure::usage(format!("{place} is no token: give it whole, as it came with its ad"));
        token.map(|token| Wanted { text, refund: refund(token) }).ok_or_else(wrong)
    };
    texts.into_iter().map(wanted).collect()
}

/// Asks, and says what came of each; an error when something was refused.
pub async fn run(ledger: &mut LedgerClient, wanted: &[Wanted], as_json: bool) -> Result<(), Failure> {
    let mut told = Told::default();
    let asked = ask(ledger, wanted, &mut told, as_json).await;
    // Also when the ledger was lost on the way: what was given back is given back.
    let unanswered = wanted.len() - told.tokens.len();
    if as_json {
        println!("{:#}", told.json(unanswered));
    } else {
        println!("{}", told.summary(unanswered));
    }
    asked?;
    match told.refused {
        0 => Ok(()),
        1 => Err(Failure::other("a refund was refused")),
        refused => Err(Failure::other(format!("{refused} refunds were refused"))),
    }
}

/// Asks in parts, as many as are answered.
async fn ask(ledger: &mut LedgerClient, wanted: &[Wanted], told: &mut Told, as_json: bool) -> Result<(), Failure> {
    for part in wanted.chunks(LEDGER_EVENTS_MAX) {
        let refunds = part.iter().map(|wanted| wanted.refund.clone()).collect();
        let (verdicts, tries) = ledger.refund(refunds).await.map_err(failed)?;
        for (wanted, verdict) in part.iter().zip(&verdicts) {
            let line = told.take(&wanted.text, verdict, tries);
            if !as_json {
                println!("{line}");
            }
        }
    }
    Ok(())
}

/// What came of refunds.
#[derive(Debug, Default)]
struct Told {
    refunded: u64,
    before: u64,
    /// A try was not answered: given back by it, or before.
    now_or_before: u64,
    refused: u64,
    nanos: i64,
    tokens: Vec<Value>,
}

impl Told {
    /// Counts an answer; the line of it.
    fn take(&mut self, text: &str, verdict: &LedgerVerdict, tries: Tries) -> String {
        let (answer, words) = match verdict.answer() {
            LedgerAnswer::LedgerDone => {
                self.refunded += 1;
                self.nanos = self.nanos.saturating_add(verdict.amount_nanos);
                ("refunded", format!("{} given back", units(verdict.amount_nanos)))
            }
            LedgerAnswer::LedgerDuplicate if tries == Tries::Unanswered => {
                self.now_or_before += 1;
                let words =
                    "given back now or before: the first answer was lost; `gavel ctl ledger balances` has the sums";
                ("now_or_before", words.to_owned())
            }
            LedgerAnswer::LedgerDuplicate => {
                self.before += 1;
                let words = "given back before: a charge is given back once, whatever the amount; nothing has changed";
                ("duplicate", words.to_owned())
            }
            LedgerAnswer::LedgerRefused
            | LedgerAnswer::LedgerIssuer
            | LedgerAnswer::LedgerLease
            | LedgerAnswer::Unspecified => {
                self.refused += 1;
                (verdict.reason.as_str(), format!("refused: {}", why(&verdict.reason)))
            }
        };
        let amount_nanos = verdict.amount_nanos;
        self.tokens.push(json!({ "token": text, "answer": answer, "amount_nanos": amount_nanos }));
        format!("...{}: {words}", end(text))
    }

    /// For people; with how many were not answered at all.
    fn summary(&self, unanswered: usize) -> String {
        let (given, before, refused) = (units(self.nanos), self.before, self.refused);
        let mut text = format!("{} given back, {given} in all; {before} before, {refused} refused", self.refunded);
        if self.now_or_before > 0 {
            text.push_str(&format!("; {} now or before, which is not in the sum", self.now_or_before));
        }
        if unanswered > 0 {
            text.push_str(&format!("; {unanswered} not answered: send them again as they were"));
        }
        text
    }

    fn json(&self, unanswered: usize) -> Value {
        json!({
            "refunded": self.refunded,
            "before": self.before,
            "now_or_before": self.now_or_before,
            "refused": self.refused,
            "unanswered": unanswered,
            "refunded_nanos": self.nanos,
            "tokens": self.tokens,
        })
    }
}

/// The end of a token.
fn end(text: &str) -> &str {
    text.get(text.len().saturating_sub(SHOWN)..).unwrap_or(text)
}

/// Why there is nothing to give back, in words.
fn why(reason: &str) -> &str {
    match reason {
        "not_charged" => "nothing was charged by it: no billed event came, its budget was gone, or its days are closed",
        "exceeds_charge" => {
            "that is more than was charged, or the charge cost nothing: leave --amount out for the whole"
        }
        "late" => "it was issued so long ago that the ledger knows nothing of it any more",
        "forged" => "it was not sealed by this cluster, was altered, or its key is not kept any more",
        "early" => "it was issued in the future: look at the clocks of routers and voters",
        "unknown_issuer" => "its router is not known to the ledger, or not any more",
        "unknown_campaign" => "its campaign has no budget in the ledger",
        "" => "the ledger did not say why",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(tokens: &[&str], amount: Option<&str>) -> RefundArgs {
        let tokens = tokens.iter().map(|text| (*text).to_owned()).collect();
        RefundArgs { tokens, file: None, amount: amount.map(str::to_owned), json: false }
    }

    #[test]
    fn mistakes_are_told_before_anything_is_sent() {
        let good = token::to_text(&[1; token::TOKEN_BYTES]);
        let told = |args: &RefundArgs| read(args).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(told(&args(&[], None)).contains("--file"));
        assert!(told(&args(&[&good, "abc"], None)).contains("\"abc\" is no token"));
        assert!(told(&args(&[&good[..good.len() - 4]], None)).contains("give it whole"));
        assert!(told(&args(&[&good], Some("0"))).contains("leave it out"));
        assert!(!told(&args(&[&good], Some("a lot"))).is_empty());
        let read = read(&args(&[&good, &good], Some("0.25"))).expect("two");
        assert_eq!(read.iter().map(|wanted| wanted.refund.amount_nanos).collect::<Vec<_>>(), [250_000_000; 2]);
    }

    #[test]
    fn each_answer_has_its_words() {
        let of = |answer: LedgerAnswer, reason: &str, amount_nanos| LedgerVerdict {
            answer: answer.into(),
            reason: reason.to_owned(),
            amount_nanos,
            ..LedgerVerdict::default()
        };
        let mut told = Told::default();
        let text = "0123456789abcdefghij";
        let mut take = |verdict: &LedgerVerdict, tries| told.take(text, verdict, tries);
        let done = take(&of(LedgerAnswer::LedgerDone, "", 5_000_000), Tries::Answered);
        assert_eq!(done, "...abcdefghij: 0.005000000 given back");
        let again = of(LedgerAnswer::LedgerDuplicate, "", 0);
        assert!(take(&again, Tries::Answered).contains("given back before"));
        assert!(take(&again, Tries::Unanswered).contains("given back now or before"));
        let (uncharged, invalid) =
            (of(LedgerAnswer::LedgerRefused, "not_charged", 0), of(LedgerAnswer::LedgerRefused, "invalid", 0));
        assert!(take(&uncharged, Tries::Answered).contains("nothing was charged"));
        assert!(take(&invalid, Tries::Unanswered).ends_with("refused: invalid"));
        assert_eq!((told.refunded, told.before, told.now_or_before, told.refused), (1, 1, 1, 2));
        let json = told.json(3);
        assert_eq!(
            (&json["tokens"][2]["answer"], &json["tokens"][3]["answer"]),
            (&json!("now_or_before"), &json!("not_charged"))
        );
        assert_eq!((&json["refunded_nanos"], &json["unanswered"]), (&json!(5_000_000), &json!(3)));
        assert!(
            told.summary(3)
                .ends_with("; 1 now or before, which is not in the sum; 3 not answered: send them again as they were")
        );
        told.now_or_before = 0;
        assert_eq!(told.summary(0), "1 given back, 0.005000000 in all; 1 before, 2 refused");
    }
}
