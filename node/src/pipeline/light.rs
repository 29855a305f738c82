//! What does the bundle's light order say of the items that were found?
//!
//! An item's row begins with the few values that the light head reads, if the bundle has a head; what the ranker
//! reads stands behind them.

use gavel_model::{Bundle, LightLogits, ModelError, Scratch};

use crate::ranking::light::Retrieved;
use crate::shard::Shard;

/// Buffers of one thread.
#[derive(Default)]
pub struct LightBuffers {
    rows: Vec<f32>,
    similarities: Vec<f32>,
    logits: LightLogits,
}

/// The items that were found, each with its light logits.
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
            shard.append_activations(*item, 0..width, rows);
            rows.resize(end, f32::NAN);
        }
        similarities.push(*similarity);
    }
    bundle.light(scratch, user_part, rows, similarities, logits)?;
    let LightLogits { clicks, conversions } = logits;
    let found = found.iter().zip(clicks.iter()).enumerate();
    Ok(found.map(|(at, ((item, similarity), click))| Retrieved {
        item: *item,
        similarity: *similarity,
        click: *click,
        conversion: conversions.get(at).copied(),
    }))
}

/// Appends what the ranker reads of an item's row.
pub fn append_behind(bundle: &Bundle, shard: &Shard, item: u32, out: &mut Vec<f32>) {
    let light = bundle.light_width();
    shard.append_activations(item, light..light + bundle.activation_width(), out);
}
