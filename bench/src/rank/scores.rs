//! What does the ranker put out for each row of a file?
//!
//! One JSON object a line, in the order of the rows: `raw` and `predictions`, each by head. Rows of one user that
//! follow each other are one request. A number that is not finite is written as null.

use super::rows::rows;
use super::{RankError, Split};
use gavel_model::{Bundle, Example, FeatureRow, Scratch};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Most candidates of one request.
const GROUP_MAX: usize = 1_024;

#[derive(Serialize)]
struct Scores<'a> {
    raw: BTreeMap<&'a str, f32>,
    predictions: BTreeMap<&'a str, f32>,
}

/// Scores every row and says how many there were.
pub fn write(bundle: &Bundle, from: Option<&Path>, to: &Path, split: Split) -> Result<usize, RankError> {
    let io = |source| RankError::Io { path: to.to_path_buf(), source };
    let mut writer = Writer {
        bundle,
        split,
        scratch: Scratch::default(),
        out: BufWriter::new(std::fs::File::create(to).map_err(io)?),
    };
    let mut group: Vec<Example> = Vec::new();
    let mut count = 0;
    for row in rows(bundle, from)? {
        let row = row?;
        if group.len() == GROUP_MAX || group.first().is_some_and(|first| first.user != row.user) {
            writer.group(&group, io)?;
            group.clear();
        }
        group.push(row);
        count += 1;
    }
    if !group.is_empty() {
        writer.group(&group, io)?;
    }
    writer.out.flush().map_err(io)?;
    Ok(count)
}

struct Writer<'a> {
    bundle: &'a Bundle,
    split: Split,
    scratch: Scratch,
    out: BufWriter<std::fs::File>,
}

impl Writer<'_> {
    fn group(&mut self, group: &[Example], io: impl Fn(std::io::Error) -> RankError) -> Result<(), RankError> {
        let Some(first) = group.first() else { return Ok(()) };
        let (bundle, scratch) = (self.bundle, &mut self.scratch);
        let items: Vec<FeatureRow> = group.iter().map(|e| e.item.clone()).collect();
        let cross: Vec<f32> = items.iter().flat_map(|item| bundle.cross(&first.user, item)).collect();
        let mut raw = Vec::new();
        match self.split {
            Split::On => {
                let part = bundle.run_user(scratch, &first.user)?.part;
                let activations = bundle.run_items(scratch, &items)?.activations;
                bundle.rank_raw(scratch, &part, &activations, &cross, items.len(), &mut raw)?;
            }
            Split::Off => {
                let request = bundle.encode_request(scratch, &first.user, &items, &cross)?;
                bundle.rank_unsplit(scratch, &request, &mut raw)?;
            }
        }
        let mut predictions = raw.clone();
        bundle.calibrate(&mut predictions);
        let heads = &bundle.schema().heads;
        let named = |row: &[f32]| heads.iter().map(|h| h.name.as_str()).zip(row.iter().copied()).collect();
        for (raw, predictions) in raw.chunks_exact(heads.len()).zip(predictions.chunks_exact(heads.len())) {
            let scores = Scores { raw: named(raw), predictions: named(predictions) };
            serde_json::to_writer(&mut self.out, &scores).map_err(|e| io(e.into()))?;
            self.out.write_all(b"\n").map_err(&io)?;
        }
        Ok(())
    }
}
