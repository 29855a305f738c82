//! How would users behave if a model of held-out weeks were right?
//!
//! `bench/train/train.py --held FILE` writes what it predicts for the validation's impressions, none of which it was
//! trained on: columns `user`, `item`, `weight`, `click` and `conversion` (of a click), calibrated. A household meets a
//! product type with the mean of its predictions for it, drawn where there are few towards what is expected of it: the
//! mean of the type, times how much more of it than others the household has bought. Without that factor, which
//! the platform's predictions have, most pairs, which those weeks did not see, would click far less than predicted.

use super::MarketError;
use super::world::CHANCE_MAX;
use flate2::read::MultiGzDecoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Predictions of what is expected that each pair of household and type begins with.
const SHRINKAGE: f64 = 3.0;

/// Sums of predictions.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    rows: f64,
    weight: f64,
    click: f64,
    /// Of clicks that bring one.
    conversion: f64,
}

impl Sums {
    fn add(&mut self, weight: f64, click: f64, conversion: f64) {
        self.rows += 1.0;
        self.weight += weight;
        self.click += weight * click;
        self.conversion += weight * click * conversion;
    }

    /// Mean chance of a click, and of a conversion after it.
    fn means(self) -> Option<(f64, f64)> {
        (self.click > 0.0).then(|| (self.click / self.weight, self.conversion / self.click))
    }
}

/// What the held-out weeks are predicted to be.
#[derive(Clone, Debug, Default)]
pub struct HeldPredictions {
    kinds: HashMap<u32, Sums>,
    pairs: HashMap<(u64, u32), Sums>,
}

impl HeldPredictions {
    /// Reads the table.
    pub fn read(path: &Path, kind_of: &HashMap<u64, u32>) -> Result<Self, MarketError> {
        let wrong = |reason: String| MarketError::Usage(format!("{}: {reason}", path.display()));
        let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
        let is_packed = path.extension().is_some_and(|e| e == "gz");
        let reader: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut table = csv::Reader::from_reader(reader);
        let header = table.headers().map_err(|e| wrong(e.to_string()))?.clone();
        let names = ["user", "item", "weight", "click", "conversion"];
        let places = names.map(|name| header.iter().position(|column| column == name));
        let [Some(user), Some(item), Some(weight), Some(click), Some(conversion)] = places else {
            return Err(wrong(format!("not the columns {}", names.join(", "))));
        };
        let mut out = Self::default();
        for (line, row) in (2u64..).zip(table.records()) {
            let row = row.map_err(|e| wrong(e.to_string()))?;
            let number = |at: usize| row.get(at).and_then(|text| text.parse::<f64>().ok()).filter(|x| x.is_finite());
            let id = |at: usize| row.get(at).and_then(|text| text.parse::<u64>().ok());
            let (Some(user), Some(item), Some(weight), Some(click), Some(conversion)) =
                (id(user), id(item), number(weight), number(click), number(conversion))
            else {
                return Err(wrong(format!("line {line} is no prediction")));
            };
            if let Some(kind) = kind_of.get(&item) {
                let (click, conversion) = (click.clamp(0.0, 1.0), conversion.clamp(0.0, 1.0));
                out.kinds.entry(*kind).or_default().add(weight, click, conversion);
                out.pairs.entry((user, *kind)).or_default().add(weight, click, conversion);
            }
        }
        Ok(out)
    }

    /// The chances of a click and of a conversion after it, of a household that likes the type `lift` times as much as
    /// others do; `None` for a type that nobody met in those weeks.
    pub fn chances(&self, household: u64, kind: u32, lift: f64) -> Option<(f64, f64)> {
        let (click, conversion) = self.kinds.get(&kind)?.means()?;
        let expected = (click * lift).min(CHANCE_MAX);
        let Some(pair) = self.pairs.get(&(household, kind)) else { return Some((expected, conversion)) };
        let own = pair.means().map_or(expected, |(own, _)| own);
        Some(((own * pair.rows + expected * SHRINKAGE) / (pair.rows + SHRINKAGE), conversion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_is_drawn_towards_its_type() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("held.csv");
        let rows = "item,user,weight,click,conversion\n1,7,1,0.4,0.5\n1,8,3,0.2,0.1\n9,7,1,1,1\n";
        std::fs::write(&path, rows).expect("written");
        let held = HeldPredictions::read(&path, &HashMap::from([(1, 5)])).expect("reads");
        let (mean, converts) = (0.25, (0.4 * 0.5 + 3.0 * 0.2 * 0.1) / 1.0);
        let near = |found: Option<(f64, f64)>, wanted: (f64, f64)| {
            let found = found.expect("known");
            assert!((found.0 - wanted.0).abs() < 1e-12 && (found.1 - wanted.1).abs() < 1e-12, "{found:?} {wanted:?}");
        };
        near(held.chances(7, 5, 1.0), ((0.4 + 3.0 * mean) / 4.0, converts));
        near(held.chances(99, 5, 1.0), (mean, converts));
        // What it likes twice as much it is expected to click twice as often, whether those weeks saw it or not.
        near(held.chances(99, 5, 2.0), (2.0 * mean, converts));
        near(held.chances(7, 5, 2.0), ((0.4 + 3.0 * 2.0 * mean) / 4.0, converts));
        near(held.chances(99, 5, 5.0), (CHANCE_MAX, converts));
        assert_eq!(held.chances(7, 6, 1.0), None);
        std::fs::write(&path, "user,item\n1,2\n").expect("written");
        assert!(HeldPredictions::read(&path, &HashMap::new()).is_err());
    }
}
