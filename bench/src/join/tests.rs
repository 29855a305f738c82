//! Does the join equal a search of every ad for every event, and is the table what the logs say?

use super::labels::{Counts, Exposure, Labels, Windows, join};
use super::{JoinArgs, Open, Report, Rows, duration_ms, joined};
use crate::workload::Seeded;
use flate2::read::GzDecoder;
use gavel_proto::epoch::Epoch;
use gavel_proto::money::BidType;
use gavel_router::logged::{
    EventLine, EventWord, FORMAT, Features, Hashed, LoggedValue, ScoredCandidate, ScoredLine, ScoredReason, TokenId,
};
use std::io::Read;
use std::path::Path;

const WINDOWS: Windows = Windows { impression_ms: 10_000, click_ms: 20_000, conversion_ms: 40_000 };
const KINDS: [EventWord; 4] = [EventWord::Impression, EventWord::Click, EventWord::Conversion, EventWord::Win];

fn event(token: TokenId, kind: EventWord, issued_ms: u64, time_ms: u64) -> EventLine {
    EventLine {
        format: FORMAT,
        kind,
        answer: "not_billed".to_owned(),
        time_ms,
        issued_ms,
        token,
        auction_id: 1,
        request: 2,
        ad: token.sequence,
        campaign: 3,
        slot: 0,
        billed: EventWord::Click,
        price_nanos: 4,
    }
}

/// Nested loops, and the rules in the order in which the document has them.
fn twin(exposures: &[Exposure], events: &[EventLine]) -> (Vec<Option<Labels>>, Counts) {
    let mut labels: Vec<Option<Labels>> = Vec::new();
    for (at, exposure) in exposures.iter().enumerate() {
        let before = exposures[..at].iter().any(|other| other.token == exposure.token);
        labels.push(if before { None } else { Some(Labels::default()) });
    }
    let mut counts = Counts { events: events.len() as u64, ..Counts::default() };
    for event in events {
        let Some(at) = exposures.iter().position(|exposure| exposure.token == event.token) else {
            counts.unmatched += 1;
            continue;
        };
        let ad = &exposures[at];
        let window = match event.kind {
            EventWord::Click => 20_000,
            EventWord::Conversion => 40_000,
            EventWord::Impression | EventWord::Win => 10_000,
        };
        if event.ad != ad.ad || event.slot != ad.slot || event.auction_id != ad.auction {
            counts.contradicting += 1;
        } else if event.time_ms + 5_000 < event.issued_ms {
            counts.early += 1;
        } else if event.time_ms > event.issued_ms + window {
            counts.late += 1;
        } else {
            let label = labels[at].as_mut().unwrap();
            let flag = match event.kind {
                EventWord::Impression => &mut label.impression,
                EventWord::Click => &mut label.click,
                EventWord::Conversion => &mut label.conversion,
                EventWord::Win => &mut label.win,
            };
            *(if *flag { &mut counts.duplicate } else { &mut counts.joined }) += 1;
            *flag = true;
        }
    }
    (labels, counts)
}

#[test]
fn equals_nested_loops_whatever_comes_and_in_whatever_order() {
    let mut seen = Counts::default();
    for seed in 0..300 {
        let mut random = Seeded::new(seed);
        let mut below = |limit: u64| random.next_u64() % limit;
        let token = |number: u64| TokenId { issuer: number % 2, sequence: number / 2 };
        let exposures: Vec<Exposure> = (0..below(12))
            .map(|_| {
                let token = token(below(16));
                Exposure { token, auction: 1, ad: token.sequence, slot: below(8) as u32 / 7, served_ms: 100_000 }
            })
            .collect();
        let mut events: Vec<EventLine> = (0..below(60))
            .map(|_| {
                let time_ms = 90_000 + below(60_000);
                event(token(below(18)), KINDS[below(4) as usize], 100_000, time_ms)
            })
            .collect();
        let found = join(&exposures, &events, WINDOWS);
        assert_eq!(found, twin(&exposures, &events), "seed {seed}");
        events.reverse();
        assert_eq!(found, join(&exposures, &events, WINDOWS), "seed {seed}: the order changes nothing");
        let once = found.1;
        assert_eq!(
            once.events,
            once.joined + once.duplicate + once.late + once.early + once.unmatched + once.contradicting
        );
        seen.joined += once.joined;
        seen.duplicate += once.duplicate;
        seen.late += once.late;
        seen.early += once.early;
        seen.unmatched += once.unmatched;
        seen.contradicting += once.contradicting;
    }
    let all = [seen.joined, seen.duplicate, seen.late, seen.early, seen.unmatched, seen.contradicting];
    assert!(all.iter().all(|count| *count > 50), "every fate is tried: {seen:?}");
}

/// Three requests a second apart, each with an ad on the page and one beside it.
fn scored(second: u64) -> ScoredLine {
    let candidate = |position: Option<u32>| ScoredCandidate {
        ad: 10 + second,
        item: 20 + second,
        campaign: 3,
        advertiser: 4,
        reason: if position.is_some() { ScoredReason::Won } else { ScoredReason::LostAuction },
        slot: position,
        position,
        price_micros: position.map(|_| 900),
        bid_type: BidType::Cpc,
        bid_micros: 1_000,
        weight: 5,
        sampling_weight: 2.0,
        token: position.map(|_| TokenId { issuer: 7, sequence: second }),
        predictions: [("click".to_owned(), 0.25f32)].into(),
        features: Features::from([("kind".to_owned(), LoggedValue::Category(Hashed(0xab)))]),
        matches: [("match".to_owned(), 1.5f32)].into(),
    };
    ScoredLine {
        format: FORMAT,
        request_id: format!("r{second}"),
        auction_id: 100 + second,
        time_ms: 1_000_000 + second * 1_000,
        user_id: Some("u, 1".to_owned()),
        placement: "home".to_owned(),
        epoch: Epoch::default(),
        model: "00".to_owned(),
        user: Features::from([
            ("age".to_owned(), LoggedValue::Number(41.5)),
            ("bought".to_owned(), LoggedValue::Set(vec![(Hashed(1), 2.0), (Hashed(2), 0.5)])),
        ]),
        candidates: vec![candidate(Some(0)), candidate(None)],
    }
}

fn click(second: u64, after_ms: u64) -> EventLine {
    let token = TokenId { issuer: 7, sequence: second };
    let issued_ms = 1_000_000 + second * 1_000;
    EventLine {
        auction_id: 100 + second,
        ad: 10 + second,
        ..event(token, EventWord::Click, issued_ms, issued_ms + after_ms)
    }
}

fn lines<T: serde::Serialize>(lines: &[T]) -> String {
    lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
}

fn args(folder: &Path) -> JoinArgs {
    JoinArgs {
        scored: vec![folder.join("scored")],
        events: vec![folder.join("events")],
        out: folder.join("out"),
        impression_window: 1_000,
        click_window: 1_000,
        conversion_window: 1_000,
        as_of: None,
        open: Open::Drop,
        rows: Rows::Shown,
        period: 1_000,
        valid_periods: 1,
        json: None,
    }
}

fn logs(folder: &Path) {
    for name in ["scored", "events"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let first = zstd::encode_all(lines(&[scored(0), scored(1)]).as_bytes(), 1).unwrap();
    std::fs::write(folder.join("scored/scored-00000001.jsonl.zst"), first).unwrap();
    // The second file ends in the middle of a line.
    let second = lines(&[scored(2), scored(3)]) + "{\"format\":1,\"requ";
    std::fs::write(folder.join("scored/scored-00000002.jsonl"), second).unwrap();
    let nobody = EventLine { token: TokenId { issuer: 7, sequence: 9 }, ..click(0, 100) };
    let events = [click(0, 500), click(0, 600), click(1, 1_001), click(2, 10), click(3, 900), nobody];
    std::fs::write(folder.join("events/events-00000001.jsonl"), lines(&events)).unwrap();
}

fn table(folder: &Path, name: &str) -> Vec<String> {
    let mut text = String::new();
    let file = std::fs::File::open(folder.join("out").join(name)).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_table_holds_what_the_logs_say() {
    let folder = tempfile::tempdir().unwrap();
    logs(folder.path());
    let report = joined(&args(folder.path())).unwrap();
    let events = Counts { events: 6, joined: 3, duplicate: 1, late: 1, unmatched: 1, ..Counts::default() };
    let expected = Report {
        requests: 4,
        unreadable: 1,
        candidates: 8,
        placed: 4,
        // The newest time is that of the click on the last ad, 900 ms after it.
        open: 1,
        unseen: 1,
        events,
        train_rows: 1,
        valid_rows: 1,
        clicks: 2,
        weight: 4.0,
        periods: 2,
        ..Report::default()
    };
    assert_eq!(report, expected);
    let train = table(folder.path(), "impressions_train.csv.gz");
    assert_eq!(
        train,
        [
            "visit,ts,period,user,placement,item,ad,campaign,advertiser,slot,position,bid_type,price_micros,weight,click,conv,win,i.kind,m.match,p.click",
            "0,1000,0,\"u, 1\",home,20,10,3,4,0,0,cpc,900,2,1,0,0,00000000000000ab,1.5,0.25",
        ]
    );
    assert_eq!(table(folder.path(), "impressions_valid.csv.gz").len(), 2);
    let visits = table(folder.path(), "visits.csv.gz");
    assert_eq!(visits[0], "visit,ts,period,user,placement,u.age,u.bought");
    assert_eq!(visits[1], "0,1000,0,\"u, 1\",home,41.5,0000000000000001:2 0000000000000002:0.5");
    assert_eq!(visits.len(), 3);
}

#[test]
fn rows_are_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    logs(folder.path());
    let kept = joined(&JoinArgs { open: Open::Keep, ..args(folder.path()) }).unwrap();
    assert_eq!((kept.open, kept.train_rows + kept.valid_rows), (0, 3));
    let placed = joined(&JoinArgs { open: Open::Keep, rows: Rows::Placed, ..args(folder.path()) }).unwrap();
    assert_eq!((placed.unseen, placed.train_rows + placed.valid_rows, placed.clicks), (0, 4, 3));
    let later = joined(&JoinArgs { as_of: Some(2_000_000), ..args(folder.path()) }).unwrap();
    assert_eq!((later.open, later.train_rows + later.valid_rows), (0, 3));
    let short = super::run(&JoinArgs { period: 1_000_000, ..args(folder.path()) }).unwrap_err().to_string();
    assert!(short.contains("--period"), "{short}");
    // The same file twice: every ad counts once.
    let twice = JoinArgs { scored: vec![folder.path().join("scored"); 2], open: Open::Keep, ..args(folder.path()) };
    let twice = joined(&twice).unwrap();
    assert_eq!((twice.repeated, twice.train_rows + twice.valid_rows), (4, 3));
}

#[test]
fn times_are_written_as_people_do() {
    assert_eq!(duration_ms("90s"), Ok(90_000));
    assert_eq!(duration_ms("7d"), Ok(604_800_000));
    for wrong in ["", "7", "d", "0s", "-1s", "99999999999999999999d", "1w"] {
        assert!(duration_ms(wrong).is_err(), "{wrong}");
    }
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(empty.path().join("scored")).unwrap();
    let message = joined(&args(empty.path())).unwrap_err().to_string();
    assert!(message.contains("no file scored-N.jsonl or"), "{message}");
}

/// The tables as bytes: compressed alike when they are alike.
#[cfg(feature = "parquet")]
fn tables(folder: &Path) -> Vec<Vec<u8>> {
    let names = ["visits.csv.gz", "impressions_train.csv.gz", "impressions_valid.csv.gz"];
    names.iter().map(|name| std::fs::read(folder.join("out").join(name)).unwrap()).collect()
}

#[cfg(feature = "parquet")]
#[test]
fn columns_join_to_the_very_table_that_lines_do() {
    use gavel_router::parquet_log::{Columnar, pack};
    use std::fs::File;

    /// Replaces a file of lines by one of columns.
    fn replaced<L: Columnar>(path: &Path) {
        let packed = File::create(path.with_extension("parquet")).unwrap();
        pack::<L>(File::open(path).unwrap(), &packed).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    let folder = tempfile::tempdir().unwrap();
    logs(folder.path());
    let args = JoinArgs { open: Open::Keep, rows: Rows::Placed, ..args(folder.path()) };
    let of_lines = (joined(&args).unwrap(), tables(folder.path()));
    assert!(of_lines.0.train_rows > 0 && of_lines.0.valid_rows > 0);
    // One of the files, so that both forms are beside each other, and then all.
    replaced::<ScoredLine>(&folder.path().join("scored/scored-00000002.jsonl"));
    let expected = (Report { unreadable: 0, ..of_lines.0 }, of_lines.1);
    assert_eq!((joined(&args).unwrap(), tables(folder.path())), expected);
    let compressed = folder.path().join("scored/scored-00000001.jsonl.zst");
    let plain = folder.path().join("scored/scored-00000001.jsonl");
    std::fs::write(&plain, zstd::decode_all(File::open(&compressed).unwrap()).unwrap()).unwrap();
    std::fs::remove_file(&compressed).unwrap();
    replaced::<ScoredLine>(&plain);
    replaced::<EventLine>(&folder.path().join("events/events-00000001.jsonl"));
    assert_eq!((joined(&args).unwrap(), tables(folder.path())), expected);

    std::fs::write(folder.path().join("scored/scored-00000003.parquet"), "cut off").unwrap();
    let message = joined(&args).unwrap_err().to_string();
    assert!(message.contains("scored-00000003.parquet"), "{message}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn columns_are_refused_and_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    logs(folder.path());
    std::fs::write(folder.path().join("scored/scored-00000003.parquet"), "columns").unwrap();
    let message = joined(&args(folder.path())).unwrap_err().to_string();
    assert!(message.contains("scored-00000003.parquet") && message.contains("--features parquet"), "{message}");
}
