//! What does the bundle's light order say of the items that were found?
//!
//! An item's row begins with the few values that the light head reads, if the bundle has a head; what the ranker
//! reads stands behind them.

use gavel_model::{Bundle, ModelError, Scratch};

use crate::ranking::light::Retrieved;
use crate::shard::Shard;

/// Buffers of one thread.
#[derive(Default)]
pub struct LightBuffers {
    rows: Vec<f32>,
    similarities: Vec<f32>,
    logits: Vec<f32>,
}

/// The items that were found, each with its light logit.
///
/// # Errors
/// When the user part has another width than the bundle says.
pub fn retrieved<'a>(
    bundle: &Bundle,
    shard: &Shard,
    found: &'a [(u32, f32)],
    user_part: &[f32],
    (scratch, buffers): (&mut Scratch, &'a mut LightBuffers),
) -> Result<impl Iterator<Item = Retrieved> + use<'a>, ModelError> {
    let LightBuffers { rows, similarities, logits } = buffers;
    rows.clear();
    similarities.clear();
    let width = bundle.light_width();
    for (item, similarity) in found {
        if width > 0 {
            // Not a number for an item without a row, so that it is dropped and counted.
            let end = rows.len() + width;
            shard.append_activations(*item, rows);
            rows.resize(end, f32::NAN);
        }
        similarities.push(*similarity);
    }
    bundle.light(scratch, user_part, rows, similarities, logits)?;
    let found = found.iter().zip(logits.iter());
    Ok(found.map(|((item, similarity), logit)| Retrieved { item: *item, similarity: *similarity, logit: *logit }))
}

/// Appends what the ranker reads of an item's row.
pub fn append_behind(bundle: &Bundle, shard: &Shard, item: u32, out: &mut Vec<f32>) {
    let (start, light) = (out.len(), bundle.light_width());
    shard.append_activations(item, out);
    if light > 0 {
        out.drain(start..(start + light).min(out.len()));
    }
}
