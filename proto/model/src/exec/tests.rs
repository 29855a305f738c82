//! Does a program give what its operations give one after the other?

use super::*;
use crate::graph::{Binary, Reduction, Unary};
use proptest::prelude::*;

const WIDTH: usize = 20;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let bits = |i: usize| gavel_proto::hash::combine(seed, i as u64) >> 40;
    (0..count).map(|i| bits(i) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// A graph over a user's row and rows of candidates, each step of which `choices` names.
fn graph(choices: &[(u8, u8, u8)], seed: u64) -> Graph {
    let mut g = Graph::default();
    let row = |dims: &[usize]| Shape { batch: true, dims: dims.to_vec() };
    let user = g.input("user", row(&[WIDTH]));
    let first = g.input("first", row(&[WIDTH]));
    let second = g.input("second", row(&[WIDTH]));
    let mut values = vec![first, second];
    for (i, (op, left, right)) in choices.iter().enumerate() {
        let pick = |c: &u8| values[usize::from(*c) % values.len()];
        let (a, b) = (pick(left), pick(right));
        let constant = |g: &mut Graph, dims: &[usize]| {
            let count = dims.iter().product();
            let scaled: Vec<f32> = numbers(count, seed + i as u64).iter().map(|x| x * 0.4).collect();
            g.constant("c", dims.to_vec(), scaled.into())
        };
        let made = match op % 10 {
            0 => {
                let matrix = constant(&mut g, &[WIDTH, WIDTH]);
                g.push(Op::MatMul, &[a, matrix], "product")
            }
            1 => {
                let bias = constant(&mut g, &[WIDTH]);
                g.push(Op::Binary(Binary::Add), &[bias, a], "bias")
            }
            2 => g.push(Op::Unary(Unary::Relu), &[a], "relu"),
            3 => g.push(Op::Unary(Unary::Sigmoid), &[a], "sigmoid"),
            4 => g.push(Op::Binary(Binary::Mul), &[a, b], "cross"),
            5 => g.push(Op::Sum, &[user, a, b], "sum"),
            6 => g.push(Op::Binary(Binary::Sub), &[user, a], "against"),
            7 => {
                let kind = Reduction::Mean;
                let mean = g.push(Op::Reduce { kind, from: 0, to: 1 }, &[a], "mean").unwrap();
                let mean = g.push(Op::Reshape { dims: vec![1] }, &[mean], "view").unwrap();
                g.push(Op::Binary(Binary::Sub), &[a, mean], "centred")
            }
            8 => {
                // Queries of four heads against keys that are the user's alone.
                let keys = constant(&mut g, &[WIDTH, 4 * 5 * 18]);
                let keys = g.push(Op::MatMul, &[user, keys], "keys").unwrap();
                let keys = g.push(Op::Reshape { dims: vec![4, 5, 18] }, &[keys], "keys").unwrap();
                let queries = g.push(Op::Reshape { dims: vec![4, 1, 5] }, &[a], "queries").unwrap();
                let weights = g.push(Op::MatMul, &[queries, keys], "weights").unwrap();
                let weights = g.push(Op::Softmax { axis: 2 }, &[weights], "weights").unwrap();
                let values = g.push(Op::Permute { order: vec![0, 2, 1] }, &[keys], "values").unwrap();
                let mixed = g.push(Op::MatMul, &[weights, values], "mixed").unwrap();
                g.push(Op::Reshape { dims: vec![WIDTH] }, &[mixed], "mixed")
            }
            _ => g.push(Op::Unary(Unary::Tanh), &[a], "tanh"),
        };
        values.push(made.unwrap());
    }
    g.outputs =
        values.iter().skip(2).enumerate().filter(|(i, _)| i % 3 == 0).map(|(i, v)| (i.to_string(), *v)).collect();
    g.outputs.push(("last".to_owned(), values[values.len() - 1]));
    g
}

/// Every operation by itself, with nothing laid out, joined or shared.
fn one_by_one(g: &Graph, rows: &[usize], inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
    struct Given<'a>(Vec<&'a [f32]>);
    impl Inputs for Given<'_> {
        fn get(&self, i: usize) -> &[f32] {
            self.0[i]
        }
    }
    let mut all: Vec<(usize, Vec<f32>)> =
        g.tensors.iter().enumerate().map(|(id, _)| (0, g.values(id).map_or(vec![], |v| v.to_vec()))).collect();
    for ((id, rows), values) in g.inputs.iter().zip(rows).zip(inputs) {
        all[*id] = (*rows, values.clone());
    }
    for node in &g.nodes {
        let rows = node.inputs.iter().map(|i| all[*i].0).max().unwrap_or(0);
        let dims = |id: TensorId, rows: usize| -> Vec<usize> {
            let shape = &g.tensors[id].shape;
            shape.batch.then_some(rows).into_iter().chain(shape.dims.iter().copied()).collect()
        };
        let of_inputs: Vec<Vec<usize>> = node.inputs.iter().map(|i| dims(*i, all[*i].0)).collect();
        let of_inputs: Vec<&[usize]> = of_inputs.iter().map(Vec::as_slice).collect();
        let batch: Vec<bool> = node.inputs.iter().map(|i| g.tensors[*i].shape.batch).collect();
        let result = dims(node.output, rows);
        let kernel = Kernel::of(&node.op, &batch, &of_inputs, &result).unwrap();
        let mut out = vec![0.0; result.iter().product()];
        kernel.run(&Given(node.inputs.iter().map(|i| all[*i].1.as_slice()).collect()), &mut [], &mut out);
        all[node.output] = (rows, out);
    }
    g.outputs.iter().map(|(_, id)| all[*id].1.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn steps_that_were_joined_give_what_they_gave_apart(
        choices in prop::collection::vec(any::<(u8, u8, u8)>(), 1..12),
        rows in 1usize..70,
        seed in 0u64..1000,
    ) {
        let g = graph(&choices, seed);
        let counts = [1, BLOCK_ROWS, BLOCK_ROWS];
        let program = Program::compile(&g, &counts).unwrap();
        prop_assert_eq!(program.smaller.len(), 4, "each number of rows has its steps");
        let given = [1, rows, rows];
        let inputs: Vec<Vec<f32>> =
            given.iter().enumerate().map(|(i, r)| numbers(r * WIDTH, seed + 100 + i as u64)).collect();
        let mut arena = Arena::default();
        program.prepare(&mut arena);
        for (i, values) in inputs.iter().enumerate() {
            program.input(&mut arena, i)[..values.len()].copy_from_slice(values);
        }
        program.run(&mut arena, rows);
        for (i, expected) in one_by_one(&g, &given, &inputs).iter().enumerate() {
            let found = &program.output(&arena, i)[..expected.len()];
            for (x, y) in found.iter().zip(expected) {
                prop_assert!((x - y).abs() <= 1e-4 * y.abs().max(1.0), "output {i}: {x} {y}");
            }
        }
    }
}
