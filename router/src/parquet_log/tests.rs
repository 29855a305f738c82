//! Does what is written as columns come back as it was?

use super::{Columnar, LINE_BYTES_MAX, Lines, pack};
use crate::logged::{
    EventLine, EventWord, FORMAT, Features, Hashed, LoggedValue, ScoredCandidate, ScoredLine, ScoredReason, TokenId,
};
use gavel_proto::epoch::Epoch;
use gavel_proto::money::BidType;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{Seek, Write};

/// A scored line that has the very text of what depends on the bundle.
type Text = ScoredLine<Box<RawValue>, Box<RawValue>>;

fn written(text: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text).expect("written");
    file.rewind().expect("rewound");
    file
}

fn packed<L: Columnar>(text: &[u8]) -> std::io::Result<File> {
    let packed = tempfile::tempfile()?;
    pack::<L>(written(text), &packed)?;
    Ok(packed)
}

fn back<L: Columnar>(file: &File) -> Vec<L> {
    let lines = Lines::of(file.try_clone().expect("the same file")).expect("a Parquet file");
    lines.collect::<std::io::Result<_>>().expect("lines")
}

fn text<T: Serialize>(lines: &[T]) -> String {
    lines.iter().map(|line| serde_json::to_string(line).expect("JSON") + "\n").collect()
}

fn event() -> impl Strategy<Value = EventLine> {
    let words = [EventWord::Impression, EventWord::Click, EventWord::Conversion, EventWord::Win];
    let word = prop::sample::select(words.to_vec());
    (word.clone(), ".{0,8}", any::<[u64; 8]>(), any::<u32>(), word, any::<i64>()).prop_map(
        |(kind, answer, numbers, slot, billed, price_nanos)| {
            let [time_ms, issued_ms, issuer, sequence, auction_id, request, ad, campaign] = numbers;
            EventLine {
                format: FORMAT,
                kind,
                answer,
                time_ms,
                issued_ms,
                token: TokenId { issuer, sequence },
                auction_id,
                request,
                ad,
                campaign,
                slot,
                billed,
                price_nanos,
            }
        },
    )
}

fn features() -> impl Strategy<Value = Features> {
    let number = -1e6f32..1e6;
    let value = prop_oneof![
        any::<u64>().prop_map(|hash| LoggedValue::Category(Hashed(hash))),
        number.clone().prop_map(LoggedValue::Number),
        prop::collection::vec((any::<u64>().prop_map(Hashed), number), 0..4).prop_map(LoggedValue::Set),
    ];
    prop::collection::btree_map("[a-z\"é]{1,3}", value, 0..4)
}

fn candidate() -> impl Strategy<Value = ScoredCandidate> {
    let weights = || prop::collection::btree_map("[a-z]{1,3}", 0f32..1.0, 0..3);
    let reasons = [ScoredReason::Won, ScoredReason::LostAuction, ScoredReason::NotEligibleBudget];
    let place = (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u64>>(), any::<Option<[u64; 2]>>());
    let words = (prop::sample::select(reasons.to_vec()), prop::sample::select(BidType::ALL.to_vec()));
    (any::<[u64; 6]>(), place, words, 0u32..1_000, features(), weights(), weights()).prop_map(
        |(ids, (slot, position, price_micros, token), (reason, bid_type), eighths, features, predictions, matches)| {
            let [ad, item, campaign, advertiser, bid_micros, weight] = ids;
            ScoredCandidate {
                ad,
                item,
                campaign,
                advertiser,
                reason,
                slot,
                position,
                price_micros,
                bid_type,
                bid_micros,
                weight,
                // JSON has it exactly.
                sampling_weight: f64::from(eighths) / 8.0,
                token: token.map(|[issuer, sequence]| TokenId { issuer, sequence }),
                predictions,
                features,
                matches,
            }
        },
    )
}

fn scored() -> impl Strategy<Value = ScoredLine> {
    let who = (".{0,8}", prop::option::of(".{0,8}"), "[a-z]{0,8}");
    (who, any::<[u64; 6]>(), features(), prop::collection::vec(candidate(), 0..4)).prop_map(
        |((request_id, user_id, placement), ids, user, candidates)| {
            let [auction_id, time_ms, map, generation, model, delivery] = ids;
            ScoredLine {
                format: FORMAT,
                request_id,
                auction_id,
                time_ms,
                user_id,
                placement,
                epoch: Epoch { map, generation, model, delivery },
                model: "00ff".to_owned(),
                user,
                candidates,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn events_come_back_as_they_were(lines in prop::collection::vec(event(), 0..12)) {
        let file = packed::<EventLine>(text(&lines).as_bytes()).expect("packed");
        prop_assert_eq!(back::<EventLine>(&file), lines);
    }

    /// And so does the text of every line, to the byte.
    #[test]
    fn scored_requests_come_back_as_they_were(lines in prop::collection::vec(scored(), 0..8)) {
        let before = text(&lines);
        let file = packed::<ScoredLine>(before.as_bytes()).expect("packed");
        prop_assert_eq!(text(&back::<Text>(&file)), before);
        prop_assert_eq!(back::<ScoredLine>(&file), lines);
    }
}

/// One candidate, and a user of so many bytes.
fn sized(auction_id: u64, bytes: usize) -> String {
    let user = format!(r#"{{"f":"{}"}}"#, "a".repeat(bytes));
    format!(
        concat!(
            r#"{{"format":1,"request_id":"r","auction_id":{},"time_ms":1,"user_id":null,"placement":"home","#,
            r#""epoch":{{"map":1,"generation":2,"model":3,"delivery":4}},"model":"00","user":{},"candidates":[]}}"#,
            "\n"
        ),
        auction_id, user
    )
}

#[test]
fn lines_beyond_one_row_group_are_all_there() {
    let before: String = (0..20).map(|auction| sized(auction, 1 << 20)).collect();
    let file = packed::<ScoredLine>(before.as_bytes()).expect("packed");
    let lines = Lines::<Text>::of(file.try_clone().expect("the same file")).expect("a Parquet file");
    assert_eq!(lines.row_groups(), 2);
    assert_eq!(text(&back::<Text>(&file)), before);
}

#[test]
fn a_line_that_was_cut_off_is_left_out_and_another_that_is_none_is_an_error() {
    let whole = sized(1, 4);
    let cut = whole.clone() + &whole[..whole.len() / 2];
    assert_eq!(text(&back::<Text>(&packed::<ScoredLine>(cut.as_bytes()).expect("packed"))), whole);
    let foreign = format!("{whole}{{}}\n{whole}");
    assert!(packed::<ScoredLine>(foreign.as_bytes()).is_err_and(|e| e.to_string().contains("format")));
    let endless = vec![b' '; LINE_BYTES_MAX as usize + 1];
    assert!(packed::<ScoredLine>(&endless).is_err_and(|e| e.to_string().contains("too long")));
    assert!(back::<Text>(&packed::<ScoredLine>(b"").expect("packed")).is_empty());
}

#[test]
fn a_file_of_something_else_is_refused() {
    let refused = |file: File| Lines::<EventLine>::of(file).err().map(|e| e.to_string()).unwrap_or_default();
    let scored = packed::<ScoredLine>(sized(1, 4).as_bytes()).expect("packed");
    let message = refused(scored);
    assert!(message.contains("no column kind"), "{message}");
    assert!(!refused(written(b"no Parquet at all")).is_empty());
}
