//! Which raw scores does a LightGBM file give, and how long does it take?
//!
//! `cargo run --release -p gavel-model --example trees -- MODEL ROWS` reads rows of f32 (row-major, a value for each
//! feature), then answers each line of its input: `scores FILE` writes the raw scores as f64, `time N` scores N times
//! and prints the fastest in nanoseconds. `bench/compare/trees` drives it.

use gavel_model::trees::{Ensemble, Forest, Scorer};
use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "an example measures; nothing decides by it")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(rows)) = (arguments.next(), arguments.next()) else { return Err("trees MODEL ROWS".into()) };
    let ensemble = Ensemble::read(&std::fs::read(model)?)?;
    let forest = Forest::new(&ensemble)?;
    let rows = std::fs::read(rows)?;
    let rows: Vec<f32> = rows.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (mut scorer, mut out) = (Scorer::default(), Vec::new());
    println!(
        "{} trees, {} features, {} rows",
        ensemble.trees(),
        ensemble.features.len(),
        rows.len() / ensemble.features.len()
    );
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("scores", file)) => {
                forest.score(&mut scorer, &rows, &mut out);
                let bytes: Vec<u8> = out.iter().flat_map(|s| s.to_le_bytes()).collect();
                std::fs::write(file, bytes)?;
                println!("{}", out.len());
            }
            Some(("time", rounds)) => {
                let mut best = u128::MAX;
                for _ in 0..rounds.parse::<u32>()? {
                    let start = now();
                    forest.score(&mut scorer, &rows, &mut out);
                    best = best.min(start.elapsed().as_nanos());
                }
                println!("{best}");
            }
            Some(_) | None => return Err(format!("{line:?} is no order").into()),
        }
    }
    Ok(())
}
