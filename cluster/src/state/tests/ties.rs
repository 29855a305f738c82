//! Does each cluster break its ties by a key of its own?

use super::*;
use gavel_proto::hash::TieKey;

/// A key that somebody has drawn.
pub(super) fn made(byte: u8) -> TieKey {
    TieKey::from_bytes([byte; 32])
}

/// It takes the place of `replaces`.
pub(super) fn set_tie_key(key: TieKey, replaces: TieKey) -> Body {
    Body::SetTieKey { key, replaces: replaces.id() }
}

#[test]
fn a_key_replaces_the_one_that_its_maker_has_seen() {
    let mut log = Log::new();
    let public = log.state.auction.tie_key;
    assert!(public.public().is_some(), "a cluster begins without a key of its own");
    let epoch = log.state.map_epoch;
    log.done(&set_tie_key(made(1), public));
    assert_eq!(log.state.auction.tie_key, made(1));
    assert!(log.state.map_epoch > epoch, "members hear of it");
    assert!(
        log.refused(&set_tie_key(made(2), public)).starts_with("failed_precondition"),
        "another leader's, too late"
    );
    log.done(&set_tie_key(made(3), made(1)));
    let foreseeable = TieKey::from_number(u64::MAX);
    assert!(log.refused(&set_tie_key(foreseeable, made(3))).starts_with("invalid_argument"));
    assert_eq!(log.state.auction.tie_key, made(3));
}

/// Rules that were read before the key was made do not bring the old one back.
#[test]
fn new_rules_leave_a_made_key_alone() {
    let mut log = Log::new();
    let before = log.state.auction.clone();
    let told = Auction { tie_key: TieKey::from_number(5), ..before.clone() };
    log.done(&Body::SetAuction(told));
    assert_eq!(log.state.auction.tie_key, TieKey::from_number(5), "a public one is set as ever");
    log.done(&set_tie_key(made(1), TieKey::from_number(5)));
    let vcg = Auction { mechanism: Mechanism::Vcg, ..before };
    log.done(&Body::SetAuction(vcg.clone()));
    assert_eq!(log.state.auction, Auction { tie_key: made(1), ..vcg });
}

/// A key comes by the command that says what it replaces, and by no other.
#[test]
fn new_rules_bring_no_made_key() {
    let mut log = Log::new();
    let public = log.state.auction.tie_key;
    let foreign = Auction { tie_key: made(9), mechanism: Mechanism::Vcg, ..log.state.auction.clone() };
    for held in [public, made(1)] {
        if held == made(1) {
            log.done(&set_tie_key(held, public));
        }
        log.done(&Body::SetAuction(foreign.clone()));
        assert_eq!(log.state.auction, Auction { tie_key: held, ..foreign.clone() });
    }
}

/// A state of before reads as the key that every cluster had, and has the bytes that it had; a made key comes back, from
/// a place where a voter that would lose it does not look.
#[test]
fn the_key_outlives_a_snapshot() {
    let mut log = Log::new();
    let public = log.state.auction.tie_key;
    let written = |state: &State| {
        let bytes = encode(state, &Position::default());
        assert_eq!(&decode(&bytes, CLUSTER).expect("a state").0, state);
        wire::StateSnapshot::decode(bytes.as_slice()).expect("a snapshot")
    };
    let old = written(&log.state);
    assert_eq!(old.keyed_auction, None);
    let old = old.auction.expect("where it always was");
    assert_eq!((old.public_tie_key, old.tie_key.len()), (0x6761_7665_6c00_0001, 0));
    log.done(&set_tie_key(made(1), public));
    let new = written(&log.state);
    assert_eq!(new.auction, None, "a voter that knows of no made key refuses the snapshot");
    let keyed = new.keyed_auction.clone().expect("the rules with the key");
    assert_eq!((keyed.public_tie_key, keyed.tie_key), (0, vec![1; 32]));

    let read = |m: &wire::StateSnapshot| decode(&m.encode_to_vec(), CLUSTER).map(|(state, _)| state);
    let moved = wire::StateSnapshot { auction: new.keyed_auction.clone(), keyed_auction: None, ..new.clone() };
    assert_eq!(read(&moved).expect("either place is read"), log.state);
    assert!(read(&wire::StateSnapshot { keyed_auction: None, ..new }).is_err(), "rules have to be there");
}

/// Members get the key, operators its id.
#[test]
fn the_key_is_for_those_who_compute_ties() {
    let mut log = Log::new();
    let public = log.state.auction.tie_key;
    let shown = |state: &State| {
        let view = publish::view(state);
        let of = |view: wire::View| view.auction.map(|a| (a.public_tie_key, a.tie_key, a.tie_key_id));
        (of(convert::view::to_wire(&view)), of(convert::view::for_operators(&view)))
    };
    let before = Some((0x6761_7665_6c00_0001, Vec::<u8>::new(), 0));
    assert_eq!(shown(&log.state), (before.clone(), before));
    log.done(&set_tie_key(made(1), public));
    assert_eq!(shown(&log.state), (Some((0, vec![1; 32], 0)), Some((0, Vec::new(), made(1).id()))));

    let short = wire::SetTieKey { tie_key: vec![1; 31], replaces: public.id() };
    let short = wire::Command { body: Some(wire::command::Body::SetTieKey(short)), ..wire::Command::default() };
    assert!(convert::command::decode(&short.encode_to_vec()).is_err());
}
