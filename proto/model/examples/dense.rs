//! How close to the processor's peak does a dense layer come, beside the `gemm` crate?
//!
//! `cargo run --release -p gavel-model --example dense -- [ROWS..]`
//!
//! Shapes are those of the reference ranker: its first layers whole (1,696 inputs to four experts of 512) and split
//! (the 32 cross features), the experts' second and third layers, low-rank cross layers, towers. The ways run in turn
//! within each round, in processor time, and the median of the rounds counts. The peak is measured, by fused
//! operations that touch no memory.

use gavel_model::{DenseLayer, Isa, Precision};
use std::hint::black_box;

/// Inputs and outputs of the layers.
const LAYERS: [(usize, usize); 10] = [
    (1696, 2048),
    (1696, 512),
    (1696, 32),
    (32, 1696),
    (32, 2048),
    (512, 256),
    (256, 64),
    (128, 64),
    (64, 32),
    (32, 1),
];
const ROUNDS: usize = 15;
/// Each measurement runs for about as many operations.
const FLOPS: usize = 40_000_000;

/// Processor time that `work` took: the machine may be shared.
fn seconds(work: impl FnOnce()) -> f64 {
    let start = process_seconds();
    work();
    process_seconds() - start
}

fn process_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn main() {
    let rows: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let rows = if rows.is_empty() { vec![1, 32, 128, 500] } else { rows };
    let peak = median((0..ROUNDS).map(|_| peak()).collect());
    println!("{:?}; peak {peak:.1} GFLOP/s; GFLOP/s and share of the f32 peak", Isa::detected());
    println!("{:>5} {:>6} {:>6} {:>13} {:>13} {:>13} {:>13}", "rows", "k", "n", "gemm crate", "f32", "bf16", "int8");
    for m in rows {
        for (k, n) in LAYERS {
            compare(m, k, n, peak);
        }
    }
}

fn compare(m: usize, k: usize, n: usize, peak: f64) {
    let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
    let make = |precision| DenseLayer::new(precision, k, n, &b, &bias);
    let layers = [Precision::F32, Precision::Bf16, Precision::Int8].map(make);
    let [Some(mut f32), Some(mut bf16), Some(mut int8)] = layers else { return };
    let (mut own, mut other) = (vec![0.0; m * n], vec![0.0; m * n]);
    let repeats = (FLOPS / (2 * m * k * n)).max(1);
    let flops = (2 * m * k * n * repeats) as f64 / 1e9;
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let mut rate = |i: usize, work: &mut dyn FnMut()| {
            rates[i].push(flops / seconds(|| (0..repeats).for_each(|_| work())));
        };
        rate(0, &mut || library(m, k, n, black_box(&a), &b, &bias, black_box(&mut other)));
        rate(1, &mut || f32.run(black_box(&a), black_box(&mut own)));
        let scale = (k as f32).sqrt();
        assert!(own.iter().zip(&other).all(|(x, y)| (x - y).abs() < 1e-4 * scale), "the results differ");
        rate(2, &mut || bf16.run(black_box(&a), black_box(&mut own)));
        rate(3, &mut || int8.run(black_box(&a), black_box(&mut own)));
    }
    print!("{m:>5} {k:>6} {n:>6}");
    for rate in rates.map(median) {
        print!(" {rate:>8.1} {:>3.0}%", 100.0 * rate / peak);
    }
    println!();
}

/// The same layer with the `gemm` crate: a product, then a pass for bias and activation.
fn library(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], bias: &[f32], out: &mut [f32]) {
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n, "the dimensions");
    let (width, inner) = (n as isize, k as isize);
    // SAFETY: the slices have exactly the lengths that the dimensions and the strides reach, as asserted above, and
    // `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            width,
            false,
            a.as_ptr(),
            1,
            inner,
            b.as_ptr(),
            1,
            width,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    for row in out.chunks_exact_mut(n) {
        row.iter_mut().zip(bias).for_each(|(o, b)| *o = (*o + b).max(0.0));
    }
}

/// What fused operations reach without memory.
fn peak() -> f64 {
    const STEPS: usize = 2_000_000;
    let mut flops = 0;
    let time = seconds(|| flops = fused(STEPS));
    flops as f64 / time / 1e9
}

/// Ten chains of fused operations, as wide as the kernels' registers; their number.
#[cfg(target_arch = "x86_64")]
fn fused(steps: usize) -> usize {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    #[target_feature(enable = "avx2,fma")]
    fn chains(steps: usize) {
        let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        let mut sums = [x; 10];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }
    if Isa::detected() < Isa::Avx2 {
        return portable(steps);
    }
    // SAFETY: the processor has AVX2 and FMA.
    unsafe { chains(steps) };
    steps * 10 * 8 * 2
}

#[cfg(not(target_arch = "x86_64"))]
fn fused(steps: usize) -> usize {
    portable(steps)
}

fn portable(steps: usize) -> usize {
    let (x, y) = (black_box(0.999f32), black_box(0.001f32));
    let mut sums = [x; 40];
    for _ in 0..steps {
        sums.iter_mut().for_each(|s| *s = *s * x + y);
    }
    black_box(sums);
    steps * 40 * 2
}

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let number = |i: usize| (gavel_proto::hash::combine(seed, i as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    (0..count).map(number).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
