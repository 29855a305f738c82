//! Does the auditor say the right thing of tokens, leases and books that begin late?

use gavel_proto::ids::{AdId, AuctionId};

use super::*;
use crate::audit::{LeaseRest, Outcome};
use crate::ledger::types::TokenKey;

#[test]
fn a_book_goes_on_from_a_checkpoint() {
    let mut both = Both::begin(lifetime(10_000), Zone::default());
    both.one(Event::Charge(charge(1, 300, MORNING_MS, Source::Budget)));
    both.one(wish(50, Heir::Other));
    both.book = Book::from_checkpoint(&both.ledger);
    assert_eq!(both.one(Event::Charge(charge(1, 300, MORNING_MS, Source::Budget))), Verdict::Duplicate);
    assert_eq!(both.one(Event::Charge(charge(2, 20, MORNING_MS, Source::Lease(1)))), Verdict::Done);
    both.entry(80_000, MORNING_MS, Vec::new());
    assert_eq!(both.book.differences(&both.ledger), Vec::<String>::new());
}

/// One lease is never reported, as if its router had died; of the other one 300 were issued and 200 came.
#[test]
fn no_more_is_served_free_than_leases_held_in_the_end() {
    let mut both = Both::begin(lifetime(10_000), Zone::default());
    both.one(wish(100, Heir::Other));
    both.one(wish(1_000, Heir::Other));
    let on = |lease, sequence, price| Event::Charge(charge(sequence, price, MORNING_MS, Source::Lease(lease)));
    assert_eq!(both.one(on(1, 1, 60)), Verdict::Done);
    assert_eq!(both.one(Event::CloseLease { issuer: 1, lease: 2, issued: Nanos(300) }), Verdict::Done);
    assert_eq!(both.one(on(2, 2, 200)), Verdict::Done);
    let rest = |both: &Both| both.book.lease_rests().remove(&1).unwrap_or_default();
    assert_eq!(rest(&both), LeaseRest { open_nanos: 140, ..LeaseRest::default() });
    both.entry(80_000, MORNING_MS, Vec::new());
    let over = LeaseRest { unreported: 1, unreported_nanos: 40, uncharged_nanos: 100, open_nanos: 0 };
    assert_eq!((rest(&both), over.bound()), (over, 140));
    assert_eq!(both.one(on(2, 3, 100)), Verdict::Refused(Refusal::LeaseClosed), "served free");
    assert_eq!(rest(&both), over);
    // What is charged without a lease is held by none.
    assert_eq!(both.one(click(4, 500, MORNING_MS)), Verdict::Done);
    assert_eq!(both.book.lease_rests().len(), 1);
}

#[test]
fn a_token_is_found_by_its_id_and_hour() {
    let mut both = Both::begin(lifetime(1_000), Zone::default());
    both.one(click(1, 600, MORNING_MS));
    both.one(click(2, 401, MORNING_MS));
    both.one(click(3, 400, MORNING_MS));
    let refund = Event::Refund { charge: charge(3, 400, MORNING_MS, Source::Budget), amount: Nanos(400) };
    assert_eq!(both.one(refund), Verdict::Done);
    let of = |sequence, issued_ms| {
        let id = ChargeId { issuer: 1, sequence, kind: EventKind::Click };
        both.book.outcome(id, issued_ms)
    };
    let found = [1, 2, 3, 4].map(|sequence| of(sequence, MORNING_MS));
    assert_eq!(found, [Outcome::Charged, Outcome::Free, Outcome::Refunded, Outcome::Unknown]);
    assert_eq!(of(1, MORNING_MS - HOUR_MS), Outcome::Unknown, "another hour's token");
    assert_eq!(both.book.charged().iter().map(|charge| charge.id.sequence).collect::<Vec<_>>(), [1, 3]);
}

/// The ledger gives back what the token says, of the campaign that it says: that the charge was another one is in the
/// journal alone.
#[test]
fn a_refund_of_another_payload_is_named() {
    for other in [Nanos(200), Nanos(400)] {
        let mut both = Both::begin(lifetime(10_000), Zone::default());
        let sold = charge(1, 300, MORNING_MS, Source::Budget);
        both.one(Event::Charge(sold));
        both.one(click(2, 500, MORNING_MS));
        let refund = Event::Refund { charge: Charge { price: other, ..sold }, amount: other };
        for verdict in [Verdict::Done, Verdict::Duplicate] {
            let batch = Batch { elapsed_ms: 0, wall_ms: MORNING_MS, events: vec![refund.clone()] };
            let verdicts = apply(&mut both.ledger, &batch).expect("the invariants hold");
            assert_eq!(verdicts, [verdict]);
            both.findings = Findings::default();
            read(&mut both.book, &mut both.findings, 99, &batch, &verdicts);
            let faults = &both.findings.faults;
            assert!(faults.len() == 1 && faults[0].starts_with("M3") && faults[0].contains("given back"), "{faults:?}");
        }
        assert_eq!(both.account(Span::Lifetime, 0)[3..], [800 - other.0, other.0]);
        assert_eq!(both.book.differences(&both.ledger), Vec::<String>::new());
    }
}

/// Voters drop keys after eight to nine days, and tokens of then are still looked up.
#[test]
fn an_old_key_opens_tokens_of_the_journal() {
    let mut both = Both::begin(lifetime(10_000), Zone::default());
    let key = |id| TokenKey { id, secret: [7; 32], since_ms: 0 };
    for (day, id) in [(0, 1), (1, 2), (20, 3)] {
        both.entry(0, MORNING_MS + day * DAY_MS, vec![Event::AddKey(key(id))]);
    }
    let ids = |keys: &[TokenKey]| keys.iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!((ids(&both.ledger.keys), ids(&both.book.keys())), (vec![2, 3], vec![1, 2, 3]));
    assert_eq!(both.book.differences(&both.ledger), Vec::<String>::new());
}

/// M3: the ledger knows a token by its bit, so that a charge of another payload under its id is a duplicate and changes
/// nothing; only a router that breaks the rules can seal one, and the audit names it. What an earlier version left out is no
/// difference, and is known once it came.
#[test]
fn another_payload_under_a_known_id_changes_nothing_and_is_named() {
    let mut both = Both::begin(lifetime(10_000), Zone::default());
    let silent = charge(1, 300, MORNING_MS, Source::Budget);
    let whole = Charge { origin: Origin { auction: AuctionId(5), ad: AdId(6) }, ..silent };
    assert_eq!(both.one(Event::Charge(silent)), Verdict::Done);
    assert_eq!(both.one(Event::Charge(whole)), Verdict::Duplicate);
    let sold = Charge { id: ChargeId { sequence: 2, ..whole.id }, ..whole };
    assert_eq!(both.one(Event::Charge(sold)), Verdict::Done);
    let others = [
        Charge { origin: Origin { auction: AuctionId(7), ad: AdId(6) }, ..silent },
        Charge { price: Nanos(299), ..sold },
        Charge { campaign: CampaignId(2), ..sold },
        Charge { origin: Origin { auction: AuctionId(7), ad: AdId(6) }, ..sold },
    ];
    for (known, other) in others.into_iter().enumerate() {
        let before = both.ledger.accounts.clone();
        let batch = Batch { elapsed_ms: 0, wall_ms: MORNING_MS, events: vec![Event::Charge(other)] };
        let verdicts = apply(&mut both.ledger, &batch).expect("the invariants hold");
        assert_eq!((verdicts.as_slice(), &both.ledger.accounts), (&[Verdict::Duplicate][..], &before));
        read(&mut both.book, &mut both.findings, 99, &batch, &verdicts);
        let faults = &both.findings.faults;
        assert!(faults.len() == known + 1 && faults[known].starts_with("M3"), "{other:?}: {faults:?}");
    }
}
