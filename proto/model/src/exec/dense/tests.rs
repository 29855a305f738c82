//! Is a product the same whatever computes it, and wherever its rows stand?

use super::*;
use proptest::prelude::*;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let bits = |i: usize| gavel_proto::hash::combine(seed, i as u64) >> 40;
    (0..count).map(|i| bits(i) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// The product, a value at a time, each step rounded once.
fn twin(m: usize, k: usize, n: usize, a: &[f32], b: &[f32]) -> Vec<f32> {
    let value = |i: usize| (0..k).fold(0f32, |s, j| a[i / n * k + j].mul_add(b[j * n + i % n], s));
    (0..m * n).map(value).collect()
}

fn run(isa: Isa, (m, k, n): (usize, usize, usize), a: &[f32], right: Right<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * n];
    let mut seen = vec![0; m * n];
    product_on(
        isa,
        (Size { m, k, n, stride: n }, Rows { values: a, stride: k }, right),
        &[],
        &mut out,
        |_, (rows, columns)| {
            rows.for_each(|r| columns.clone().for_each(|c| seen[r * n + c] += 1));
        },
    );
    assert!(seen.iter().all(|s| *s == 1), "each result is finished once");
    out
}

fn close(a: &[f32], b: &[f32], k: usize) -> bool {
    a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-6 * k.max(1) as f32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_kernel_gives_the_product(m in 0usize..40, k in 0usize..600, n in 1usize..70, seed: u64) {
        let (a, b) = (numbers(m * k, seed), numbers(k * n, !seed));
        let expected = twin(m, k, n, &a, &b);
        let panels: Panels = Panels::new(k, n, &b);
        for right in [Right::Panels(&panels), Right::Rows(&b)] {
            let best = run(Isa::detected(), (m, k, n), &a, right);
            prop_assert!(close(&run(Isa::Portable, (m, k, n), &a, right), &expected, k));
            // With FMA the bits are those of the twin; the loop for few columns has none.
            let exact = Isa::detected() > Isa::Portable && (n >= PANEL || matches!(right, Right::Panels(_)));
            let equal = if exact { best == expected } else { close(&best, &expected, k) };
            prop_assert!(equal);
        }
    }

    #[test]
    fn half_weights_are_the_product_with_rounded_ones(m in 0usize..20, k in 0usize..300, n in 1usize..50, seed: u64) {
        let (a, b) = (numbers(m * k, seed), numbers(k * n, !seed));
        let rounded: Vec<f32> = b.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        let panels = Panels::new(k, n, &b);
        let (exact, right) = (Panels::new(k, n, &rounded), Right::Half(&panels));
        for isa in [Isa::Portable, Isa::detected()] {
            let expected = run(isa, (m, k, n), &a, Right::Panels(&exact));
            prop_assert_eq!(run(isa, (m, k, n), &a, right), expected);
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours(m in 1usize..40, k in 1usize..300, n in 1usize..40, seed: u64) {
        let (a, b) = (numbers(m * k, seed), numbers(k * n, !seed));
        let panels: Panels = Panels::new(k, n, &b);
        for right in [Right::Panels(&panels), Right::Rows(&b)] {
            for isa in [Isa::Portable, Isa::detected()] {
                let together = run(isa, (m, k, n), &a, right);
                for (row, result) in a.chunks_exact(k).zip(together.chunks_exact(n)) {
                    prop_assert_eq!(run(isa, (1, k, n), row, right), result);
                }
            }
        }
    }
}

fn rounded(isa: Isa, (m, k): (usize, usize), a: &[f32], right: &Int8, n: usize) -> Vec<f32> {
    let (mut out, mut words) = (vec![f32::NAN; m * n], vec![7; right.words(m)]);
    right.run_on(isa, m, Rows { values: a, stride: k }, &mut words, &mut out, |_, _| {});
    out
}

/// Steps with operands of one row and of all.
fn steps<'a>(n: usize, operands: &'a [f32], choice: u64) -> Vec<Finish<'a>> {
    let change = |i: u64| [Change::Add, Change::Multiply, Change::Relu][(choice >> (2 * i) & 3).min(2) as usize];
    let stride = |i: u64| if choice >> (16 + i) & 1 == 0 { 0 } else { n };
    let count = choice >> 32 & 7;
    (0..count.min(STEPS_MAX as u64))
        .map(|i| Finish { change: change(i), values: &operands[i as usize..], stride: stride(i) })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn steps_in_registers_are_steps_on_the_result(
        m in 1usize..30, k in 0usize..300, n in 1usize..70, seed: u64, choice: u64,
    ) {
        let (mut a, b, operands) = (numbers(m * k, seed), numbers(k * n, !seed), numbers(m * n + 8, seed ^ 9));
        if let Some(x) = a.first_mut().filter(|_| seed.is_multiple_of(3)) {
            *x = f32::NAN;
        }
        let (panels, steps): (Panels, _) = (Panels::new(k, n, &b), steps(n, &operands, choice));
        for right in [Right::Panels(&panels), Right::Rows(&b)] {
            for isa in [Isa::Portable, Isa::detected()] {
                let mut expected = run(isa, (m, k, n), &a, right);
                for (row, values) in expected.chunks_exact_mut(n).enumerate() {
                    steps.iter().for_each(|s| s.apply(row, 0..n, values));
                }
                let mut found = vec![0.0; m * n];
                let size = Size { m, k, n, stride: n };
                product_on(isa, (size, Rows { values: &a, stride: k }, right), &steps, &mut found, |_, _| {});
                let same = |x: &f32, y: &f32| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
                prop_assert!(found.iter().zip(&expected).all(|(x, y)| same(x, y)));
            }
        }
    }

    #[test]
    fn rounded_products_are_exact_sums_and_near(m in 1usize..20, k in 1usize..300, n in 1usize..50, seed: u64) {
        let (mut a, b) = (numbers(m * k, seed), numbers(k * n, !seed));
        if seed.is_multiple_of(2) {
            a.iter_mut().for_each(|x| *x = x.abs());
        }
        let (low, high) = a.iter().fold((0f32, 0f32), |(l, h), x| (l.min(*x), h.max(*x)));
        let right = Int8::new(k, n, &b, Scale::of(low, high));
        let found = rounded(Isa::detected(), (m, k), &a, &right, n);
        // Whole numbers: not one bit differs between instruction sets, nor with the neighbours.
        prop_assert_eq!(&rounded(Isa::Portable, (m, k), &a, &right, n), &found);
        for (row, result) in a.chunks_exact(k).zip(found.chunks_exact(n)) {
            prop_assert_eq!(rounded(Isa::detected(), (1, k), row, &right, n), result);
        }
        for (x, y) in found.iter().zip(twin(m, k, n, &a, &b)) {
            // Each factor is off by half a step of 1/127 at most.
            prop_assert!((x - y).abs() <= 0.009 * k as f32, "{} {}", x, y);
        }
    }
}

#[test]
fn rounding_cuts_what_it_never_saw_and_hides_nothing() {
    let right = Int8::new(2, 1, &[1.0, 1.0], Scale::of(0.0, 2.0));
    let run = |row: [f32; 2]| rounded(Isa::detected(), (1, 2), &row, &right, 1)[0];
    assert!((run([1.0, 2.0]) - 3.0).abs() < 0.02);
    assert!((run([9.0, -4.0]) - 2.0).abs() < 0.02);
    assert!(run([f32::NAN, 1.0]).is_nan() && run([1.0, f32::INFINITY]).is_nan());
}

#[test]
fn tiles_cover_the_rows() {
    for m in 0..60 {
        let mut next = 0;
        for (row, count) in tiles(m) {
            assert!(row == next && (1..=TILE).contains(&count), "{m}: {row} {count}");
            // A tile of one or two rows would wait for its own sums.
            assert!(count >= 3 || m < 3, "{m}: {count}");
            next = row + count;
        }
        assert_eq!(next, m);
    }
}

#[test]
fn strides_are_kept() {
    let (a, b) = (numbers(3 * 10, 1), numbers(4 * 20, 2));
    let panels: Panels = Panels::new(4, 20, &b);
    let mut out = vec![7.0; 3 * 25];
    let rows = Rows { values: &a, stride: 10 };
    product(Size { m: 3, k: 4, n: 20, stride: 25 }, rows, Right::Panels(&panels), &[], &mut out, |_, _| {});
    for row in 0..3 {
        let expected = run(Isa::detected(), (1, 4, 20), &a[row * 10..row * 10 + 4], Right::Panels(&panels));
        let (values, gap) = out[row * 25..row * 25 + 25].split_at(20);
        assert!(values == expected && gap.iter().all(|x| *x == 7.0));
    }
}
