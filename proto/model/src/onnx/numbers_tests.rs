//! Does a file that was read give the numbers that its operators stand for?
//!
//! Small files whose results are worked out beside them, by hand or the plain way.

use super::testing::Onnx;
use super::wire::element;

/// What a file gives for two rows of its one input; its output is `y`.
fn evaluate(m: &Onnx, input: &[f32]) -> Vec<f32> {
    let read = super::read(m.bytes().into()).unwrap();
    let program = crate::exec::Program::compile(&read.graph, &[2]).unwrap();
    let mut arena = crate::exec::Arena::default();
    program.prepare(&mut arena);
    program.input(&mut arena, 0).copy_from_slice(input);
    program.run(&mut arena, 2);
    program.output(&arena, 0).to_vec()
}

/// A constant for each row of the batch that `x` has, as `c.expand(x.shape[0], ...)` is exported.
fn expanded(m: &mut Onnx, constant: &str, x: &str, dims: &[i64]) -> String {
    let shape = m.node("Shape", &[x], &[]);
    let (first, end, dims) = (m.ints(&[0]), m.ints(&[1]), m.ints(dims));
    let rows = m.node("Slice", &[&shape, &first, &end], &[]);
    let shape = m.node("Concat", &[&rows, &dims], &[("axis", 0)]);
    m.node("Expand", &[constant, &shape], &[])
}

/// As a class token or a learned prefix stands before the tokens of a request: `cat([prefix.expand(B, k, d), tokens], 1)`,
/// of which one place or a few are taken. The prefix's width was once read off the place of the batch.
#[test]
fn what_is_cut_from_behind_a_constant_is_what_stands_there() {
    let (n, d) = (3, 2);
    let input: Vec<f32> = (0..2 * n * d).map(|i| 100.0 + i as f32).collect();
    for k in 1..4usize {
        let prefix: Vec<f32> = (0..k * d).map(|i| i as f32).collect();
        // The rows of the joined tensor, the plain way.
        let joined: Vec<Vec<f32>> = input.chunks(n * d).map(|row| [&prefix, row].concat()).collect();
        for from in 0..k + n {
            for count in 1..=k + n - from {
                let mut m = Onnx::new(1);
                let x = m.input("age", element::FLOAT, (n * d) as i64);
                let shape = m.ints(&[-1, n as i64, d as i64]);
                let tokens = m.node("Reshape", &[&x, &shape], &[]);
                let constant = m.floats(&[1, k as i64, d as i64], prefix.clone());
                let wide = expanded(&mut m, &constant, &x, &[k as i64, d as i64]);
                let all = m.node("Concat", &[&wide, &tokens], &[("axis", 1)]);
                let (first, end, axis) = (m.ints(&[from as i64]), m.ints(&[(from + count) as i64]), m.ints(&[1]));
                m.node_as("Slice", &[&all, &first, &end, &axis], &[], "y");
                m.output("y");
                let expected: Vec<f32> =
                    joined.iter().flat_map(|row| row[from * d..(from + count) * d].to_vec()).collect();
                assert_eq!(evaluate(&m, &input), expected, "{count} from {from} behind {k}");
            }
        }
    }
}

/// `cat([c.expand(B, 3), x, y], 1)[:, 3:5]` is `x`, whose columns are 3 and 4.
#[test]
fn columns_behind_a_constant_are_theirs() {
    for (from, to, expected) in [
        (3, 5, vec![1.0, 2.0, 11.0, 12.0]),
        (5, 7, vec![3.0, 4.0, 13.0, 14.0]),
        (4, 6, vec![2.0, 3.0, 12.0, 13.0]),
        (1, 4, vec![8.0, 9.0, 1.0, 8.0, 9.0, 11.0]),
    ] {
        let mut m = Onnx::new(1);
        let both = m.input("age", element::FLOAT, 4);
        let lengths = m.ints(&[2, 2]);
        m.node_as("Split", &[&both, &lengths], &[("axis", 1)], "x");
        m.graph.node.last_mut().unwrap().output.push("z".to_owned());
        let constant = m.floats(&[1, 3], vec![7.0, 8.0, 9.0]);
        let wide = expanded(&mut m, &constant, &both, &[3]);
        let all = m.node("Concat", &[&wide, "x", "z"], &[("axis", 1)]);
        let (first, end, axis) = (m.ints(&[from]), m.ints(&[to]), m.ints(&[1]));
        m.node_as("Slice", &[&all, &first, &end, &axis], &[], "y");
        m.output("y");
        assert_eq!(evaluate(&m, &[1.0, 2.0, 3.0, 4.0, 11.0, 12.0, 13.0, 14.0]), expected, "{from}..{to}");
    }
}

#[test]
fn nothing_is_larger_or_smaller_than_what_is_no_number() {
    for (op, expected) in [("GreaterOrEqual", [0.0, 1.0, 1.0, 0.0]), ("LessOrEqual", [0.0, 1.0, 0.0, 1.0])] {
        let mut m = Onnx::new(1);
        let x = m.input("age", element::FLOAT, 2);
        let one = m.floats(&[], vec![1.0]);
        let holds = m.node(op, &[&x, &one], &[]);
        m.node_as("Cast", &[&holds], &[("to", 1)], "y");
        m.output("y");
        assert_eq!(evaluate(&m, &[f32::NAN, 1.0, 2.0, 0.0]), expected, "{op}");
    }
}

/// A share below the smallest f32 once had the logarithm of 0.
#[test]
fn the_logarithm_of_a_small_share_is_finite() {
    for (axis, far) in [(-1, 200.0f32), (1, 0.5)] {
        let mut m = Onnx::new(1);
        let x = m.input("age", element::FLOAT, 3);
        m.node_as("LogSoftmax", &[&x], &[("axis", axis)], "y");
        m.output("y");
        let input = [far, 0.0, -far, 1.0, 2.0, 3.0];
        let plain: Vec<f64> = input
            .chunks(3)
            .flat_map(|row| {
                let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                row.iter().map(move |x| f64::from(*x) - sum.ln()).collect::<Vec<_>>()
            })
            .collect();
        let found = evaluate(&m, &input);
        let near = |(f, e): (&f32, &f64)| (f64::from(*f) - e).abs() <= 1e-5 * e.abs().max(1.0);
        assert!(found.iter().zip(&plain).all(near), "{found:?} {plain:?}");
    }
}
