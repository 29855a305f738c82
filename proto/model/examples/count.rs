//! Work whose instructions can be counted: the same on every run.
//!
//! `count CASE REPEATS` runs one case so many times. Two runs under callgrind that differ in their repeats give the
//! instructions of one, without start and end; `tests/instructions.rs` does so. No argument lists the cases.

use gavel_model::{DenseLayer, Precision};
use std::hint::black_box;

/// Name, precision, rows, inputs, outputs: layers of the reference ranker, and few rows.
const CASES: [(&str, Precision, usize, usize, usize); 6] = [
    ("f32-wide", Precision::F32, 128, 32, 2048),
    ("f32-expert", Precision::F32, 128, 512, 256),
    ("f32-tower", Precision::F32, 128, 64, 32),
    ("f32-few", Precision::F32, 3, 512, 256),
    ("bf16-expert", Precision::Bf16, 128, 512, 256),
    ("int8-expert", Precision::Int8, 128, 512, 256),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (case, repeats) = match arguments.as_slice() {
        [case, repeats] => (case.as_str(), repeats.parse().unwrap_or(1)),
        _ => return CASES.iter().for_each(|(name, ..)| println!("{name}")),
    };
    let Some((_, precision, m, k, n)) = CASES.iter().find(|(name, ..)| *name == case) else {
        eprintln!("there is no case {case}");
        std::process::exit(2);
    };
    let Some(mut layer) = DenseLayer::new(*precision, *k, *n, &numbers(k * n, 1), &numbers(*n, 2)) else { return };
    let (rows, mut out) = (numbers(m * k, 3), vec![0.0; m * n]);
    (0..repeats).for_each(|_: u32| layer.run(black_box(&rows), black_box(&mut out)));
    println!("{}", out.iter().map(|x| f64::from(*x)).sum::<f64>());
}

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let number = |i: usize| (gavel_proto::hash::combine(seed, i as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    (0..count).map(number).collect()
}
