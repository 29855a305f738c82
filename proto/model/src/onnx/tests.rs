//! Are the files that exporters write read as ONNX Runtime reads them, and the rest refused by name?
//!
//! `testdata/onnx` has files of torch's two exporters and of jax2onnx, with the outputs of ONNX Runtime beside them;
//! its README says how they were made.

use super::testing::Onnx;
use super::wire::element;
use crate::bundle::testing::{ITEM_TOWER, RANKER, TestBundle, USER_TOWER};
use crate::{Bundle, FeatureRow, FeatureValue, Scratch};
use proptest::prelude::*;
use std::collections::BTreeMap;

const FIXTURES: [&str; 11] = [
    "torch_mlp_script",
    "torch_mlp_dynamo",
    "torch_mmoe_script",
    "torch_mmoe_dynamo",
    "torch_sequence_script",
    "torch_sequence_dynamo",
    "torch_encoder_script",
    "torch_encoder_dynamo",
    "torch_flat_script",
    "jax_model",
    "jax_sequence",
];

const SCHEMA: &str = r#"
format = 1
name = "exported"
dimension = 4
metric = "ip"
light = { scale = 1.0, offset = -3.0 }
files = { user_tower = "user.onnx", item_tower = "item.onnx", ranker = "ranker.onnx", golden = "golden.jsonl.zst" }
feature = [
    { name = "segment", side = "user", kind = "category", buckets = 10 },
    { name = "history", side = "user", kind = "set", buckets = 20, max_len = 6 },
    { name = "age", side = "context", kind = "dense" },
    { name = "kind", side = "item", kind = "category", buckets = 20 },
    { name = "price", side = "item", kind = "dense" },
]
cross = [{ name = "match", user = "history", item = "kind" }]
head = [{ name = "click", kind = "probability", role = "click" }, { name = "conv", kind = "probability" }]
"#;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/onnx/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn tower(input: &str, output: &str) -> Vec<u8> {
    let mut m = Onnx::new(1);
    let x = m.input(input, element::FLOAT, 1);
    let w = m.weights(&[1, 4]);
    m.node_as("MatMul", &[&x, &w], &[], output);
    m.output(output);
    m.bytes()
}

fn open(ranker: Vec<u8>) -> Result<Bundle, crate::BundleError> {
    let towers = [(USER_TOWER, tower("age", "query")), (ITEM_TOWER, tower("price", "vector"))];
    let bundle = TestBundle::new(SCHEMA).with(RANKER, ranker);
    towers.into_iter().fold(bundle, |bundle, (name, tower)| bundle.with(name, tower)).open()
}

type Columns = BTreeMap<String, serde_json::Value>;

fn number(columns: &Columns, name: &str, row: usize) -> f64 {
    let value = &columns[name][row];
    value.as_f64().or_else(|| value[0].as_f64()).unwrap()
}

/// A value whose row in a table of `buckets + 1` rows is this one.
fn category(row: f64, buckets: u64) -> FeatureValue {
    if row == 0.0 { FeatureValue::Missing } else { FeatureValue::Category(row as u64 - 1 + buckets) }
}

fn user(columns: &Columns, row: usize) -> FeatureRow {
    let at = |name: &str, i: usize| columns[name][row][i].as_f64().unwrap();
    let set = (0..6).filter(|i| at("history", *i) > 0.0);
    let set = set.map(|i| (at("history", i) as u64 - 1 + 20, at("history.weight", i) as f32)).collect();
    let age = FeatureValue::Dense(number(columns, "age", row) as f32);
    FeatureRow { values: vec![category(number(columns, "segment", row), 10), FeatureValue::Set(set), age] }
}

fn item(columns: &Columns, row: usize) -> FeatureRow {
    let price = FeatureValue::Dense(number(columns, "price", row) as f32);
    FeatureRow { values: vec![category(number(columns, "kind", row), 20), price] }
}

#[test]
fn exported_files_score_as_onnx_runtime_scores_them() {
    for name in FIXTURES {
        let bundle = open(fixture(&format!("{name}.onnx"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        let columns: Columns = serde_json::from_slice(&fixture(&format!("{name}.json"))).unwrap();
        let mut scratch = Scratch::default();
        // Two users with four candidates each.
        for first in [0, 4] {
            let user = user(&columns, first);
            let items: Vec<FeatureRow> = (first..first + 4).map(|i| item(&columns, i)).collect();
            let cross: Vec<f32> = (first..first + 4).map(|i| number(&columns, "match", i) as f32).collect();
            let part = bundle.run_user(&mut scratch, &user).unwrap().part;
            let activations = bundle.run_items(&mut scratch, &items).unwrap().activations;
            let (mut split, mut whole) = (Vec::new(), Vec::new());
            bundle.rank_raw(&mut scratch, &part, &activations, &cross, 4, &mut split).unwrap();
            bundle.rank_whole(&mut scratch, &user, &items, &cross, &mut whole).unwrap();
            for (i, row) in (first..first + 4).enumerate() {
                for (head, column) in ["click", "conv"].iter().enumerate() {
                    let expected = columns[*column][row].as_f64().unwrap();
                    let (raw, p) = (f64::from(split[i * 2 + head]), f64::from(whole[i * 2 + head]));
                    assert!((raw - expected).abs() <= 1e-4 * expected.abs().max(0.1), "{name} {row}: {raw} {expected}");
                    let probability = 1.0 / (1.0 + (-expected).exp());
                    assert!((p - probability).abs() <= 1e-4 * probability, "{name} {row}: {p} {probability}");
                }
            }
        }
        let report = bundle.partition_report();
        assert!(report.user.flops > 0, "{name}: {report:?}");
    }
}

/// The encoder of torch moves the batch behind the sequence and merges it with the heads: it is the user's all the
/// same, and no candidate pays for it.
#[test]
fn a_moved_batch_is_split_too() {
    for name in ["torch_encoder_script", "torch_encoder_dynamo"] {
        let report = open(fixture(&format!("{name}.onnx"))).unwrap().partition_report();
        assert!(report.candidate.flops * 20 < report.whole.flops, "{name}: {report:?}");
    }
}

#[test]
fn an_operator_that_is_not_supported_is_named_with_its_node() {
    let operators = [
        "TopK",
        "NonZero",
        "If",
        "Loop",
        "Scan",
        "LSTM",
        "GRU",
        "RNN",
        "Conv",
        "MaxPool",
        "AveragePool",
        "ScatterND",
        "ScatterElements",
        "GatherND",
        "RandomNormalLike",
        "Bernoulli",
        "Multinomial",
        "QLinearMatMul",
        "MatMulInteger",
        "DynamicQuantizeLinear",
        "CumSum",
        "Unique",
        "ArgMax",
        "Compress",
        "Resize",
        "Einsum",
        "StringNormalizer",
        "TreeEnsembleRegressor",
        "GlobalAveragePool",
        "Attention",
        "Det",
        "NoSuchOperator",
    ];
    for operator in operators {
        let mut m = Onnx::new(1);
        let x = m.input("price", element::FLOAT, 1);
        let x = m.node("Relu", &[&x], &[]);
        m.node_as(operator, &[&x], &[], "click");
        m.output("click");
        let text = super::read(m.bytes().into()).unwrap_err().to_string();
        assert!(text.contains(operator) && text.contains(&format!("{operator}_1")), "{operator}: {text}");
    }
}

#[test]
fn what_mixes_rows_of_the_batch_is_refused() {
    let refused = |build: &dyn Fn(&mut Onnx, &str) -> String| {
        let mut m = Onnx::new(1);
        let x = m.input("price", element::FLOAT, 4);
        let y = build(&mut m, &x);
        m.node_as("Identity", &[&y], &[], "click");
        m.output("click");
        super::read(m.bytes().into()).err().map_or_else(String::new, |e| e.to_string())
    };
    let axes = |m: &mut Onnx, axis: i64| m.ints(&[axis]);
    let sum = |axis: i64| {
        move |m: &mut Onnx, x: &str| {
            let a = m.ints(&[axis]);
            m.node("ReduceSum", &[x, &a], &[("keepdims", 1)])
        }
    };
    assert_eq!(refused(&sum(1)), "");
    assert!(refused(&sum(0)).contains("batch dimension"));
    let reshape = |target: [i64; 2]| {
        move |m: &mut Onnx, x: &str| {
            let t = m.ints(&target);
            m.node("Reshape", &[x, &t], &[])
        }
    };
    assert_eq!(refused(&reshape([-1, 4])), "");
    // Merged with its neighbour, the batch is not a dimension that an output may have.
    assert!(refused(&reshape([-1, 2])).contains("not its first dimension"));
    assert!(refused(&reshape([-1, 3])).contains("do not take the dimensions"));
    assert!(refused(&reshape([2, 2])).contains("the batch has a number here"));
    let gram = |m: &mut Onnx, x: &str| {
        let t = m.node("Transpose", &[x], &[]);
        m.node("MatMul", &[&t, x], &[])
    };
    assert!(refused(&gram).contains("mix rows"));
    let softmax = |m: &mut Onnx, x: &str| m.node("Softmax", &[x], &[("axis", 0)]);
    assert!(refused(&softmax).contains("batch dimension"));
    let sliced = |m: &mut Onnx, x: &str| {
        let (from, to, a) = (m.ints(&[0]), m.ints(&[5]), axes(m, 0));
        m.node("Slice", &[x, &from, &to, &a], &[])
    };
    assert!(refused(&sliced).contains("batch dimension"));
    let counted = |m: &mut Onnx, x: &str| {
        let shape = m.node("Shape", &[x], &[]);
        let number = m.node("Cast", &[&shape], &[("to", 1)]);
        m.node("Add", &[x, &number], &[])
    };
    assert!(refused(&counted).contains("number of rows of the batch"));
}

/// Sums over all letters, entry by entry: the obvious twin of [`super::einsum`].
fn naive(equation: &str, a: (&[usize], &[f32]), b: (&[usize], &[f32])) -> Vec<f32> {
    let (left, out) = equation.split_once("->").unwrap();
    let (la, lb) = left.split_once(',').unwrap();
    let mut letters: Vec<char> = out.chars().collect();
    letters.extend(la.chars().chain(lb.chars()).filter(|c| !out.contains(*c)));
    letters.dedup();
    let mut seen = Vec::new();
    letters.retain(|c| {
        !seen.contains(c) && {
            seen.push(*c);
            true
        }
    });
    let size = |c: &char| {
        let of = |l: &str, d: &[usize]| l.chars().position(|x| x == *c).map(|i| d[i]);
        of(la, a.0).or_else(|| of(lb, b.0)).unwrap()
    };
    let sizes: Vec<usize> = letters.iter().map(size).collect();
    let offset = |l: &str, dims: &[usize], at: &[usize]| {
        l.chars().zip(dims).fold(0, |n, (c, d)| n * d + at[letters.iter().position(|x| *x == c).unwrap()])
    };
    let out_dims: Vec<usize> = out.chars().map(|c| size(&c)).collect();
    let mut result = vec![0.0; out_dims.iter().product()];
    for index in 0..sizes.iter().product::<usize>() {
        let mut rest = index;
        let mut at = vec![0; sizes.len()];
        for i in (0..sizes.len()).rev() {
            (at[i], rest) = (rest % sizes[i], rest / sizes[i]);
        }
        result[offset(out, &out_dims, &at)] += a.1[offset(la, a.0, &at)] * b.1[offset(lb, b.0, &at)];
    }
    result
}

#[test]
fn einstein_sums_equal_their_definition() {
    // Inputs of two rows; the batch is the letter b.
    let equations = [
        ("bi,eij->bej", vec![2, 3], vec![4, 3, 5]),
        ("be,bej->bj", vec![2, 3], vec![2, 3, 4]),
        ("bqd,bld->bql", vec![2, 3, 4], vec![2, 5, 4]),
        ("bql,bld->bqd", vec![2, 3, 4], vec![2, 4, 5]),
        ("bij,bik->bjk", vec![2, 3, 4], vec![2, 3, 5]),
        ("bi,bj->bij", vec![2, 3], vec![2, 4]),
        ("bi,bi->b", vec![2, 3], vec![2, 3]),
        ("eij,bi->bje", vec![4, 3, 5], vec![2, 3]),
        ("beij,bei->bej", vec![2, 3, 4, 5], vec![2, 3, 4]),
        ("bij,kj->bi", vec![2, 3, 4], vec![5, 4]),
        ("bij,bjk->kbi", vec![2, 3, 4], vec![2, 4, 5]),
    ];
    for (equation, da, db) in equations {
        let (bytes, inputs) = einsum_file(equation, &[da.clone(), db.clone()]);
        let read = super::read(bytes.into()).unwrap_or_else(|e| panic!("{equation}: {e}"));
        let program = crate::exec::Program::compile(&read.graph, &vec![2; read.graph.inputs.len()]).unwrap();
        let mut arena = crate::exec::Arena::default();
        program.prepare(&mut arena);
        let of_batch = equation.split(',').zip(&inputs).filter(|(letters, _)| letters.starts_with('b'));
        for (i, (_, values)) in of_batch.enumerate() {
            program.input(&mut arena, i).copy_from_slice(values);
        }
        program.run(&mut arena, 2);
        // The file puts the batch in front again.
        let front = equation.replace("kbi", "bki");
        let expected = naive(&front, (&da, &inputs[0]), (&db, &inputs[1]));
        let found = program.output(&arena, 0);
        assert_eq!(found.len(), expected.len(), "{equation}");
        assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-4), "{equation}: {found:?} {expected:?}");
    }
}

/// A file with one sum: inputs with the letter b in front are inputs of the graph, the others constants.
fn einsum_file(equation: &str, shapes: &[Vec<usize>; 2]) -> (Vec<u8>, Vec<Vec<f32>>) {
    use super::wire::Attribute;
    let mut m = Onnx::new(9);
    let (left, out) = equation.split_once("->").unwrap();
    let (mut inputs, mut names) = (Vec::new(), Vec::new());
    for (letters, dims) in left.split(',').zip(shapes) {
        let values: Vec<f32> = (0..dims.iter().product::<usize>()).map(|_| m.random()).collect();
        let wide: Vec<i64> = dims.iter().map(|d| *d as i64).collect();
        if letters.starts_with('b') {
            let name = m.input(&format!("x{}", inputs.len()), element::FLOAT, wide[1..].iter().product());
            let target = m.ints(&[&[-1], &wide[1..]].concat());
            names.push(m.node("Reshape", &[&name, &target], &[]));
        } else {
            names.push(m.floats(&wide, values.clone()));
        }
        inputs.push(values);
    }
    let mut sum = m.node("Einsum", &[&names[0], &names[1]], &[]);
    let text = Attribute { name: "equation".into(), s: equation.into(), r#type: 3, ..Attribute::default() };
    m.graph.node.last_mut().unwrap().attribute.push(text);
    if !out.starts_with('b') {
        sum = m.node("Transpose", &[&sum], &[]);
        let perm = Attribute { name: "perm".into(), ints: vec![1, 0, 2], r#type: 7, ..Attribute::default() };
        m.graph.node.last_mut().unwrap().attribute.push(perm);
    }
    m.node_as("Identity", &[&sum], &[], "y");
    m.output("y");
    (m.bytes(), inputs)
}

/// As torch exports `scaled_dot_product_attention`: masked by infinity, and 0 where everything is masked.
#[test]
fn a_mask_by_infinity_is_one() {
    let mut m = Onnx::new(1);
    let x = m.input("age", element::FLOAT, 3);
    let infinity = m.floats(&[], vec![f32::NEG_INFINITY]);
    let zero = m.floats(&[], vec![0.0]);
    let open = m.node("Greater", &[&x, &zero], &[]);
    let masked = m.node("Where", &[&open, &x, &infinity], &[]);
    let soft = m.node("Softmax", &[&masked], &[("axis", -1)]);
    let wrong = m.node("IsNaN", &[&soft], &[]);
    m.node_as("Where", &[&wrong, &zero, &soft], &[], "y");
    m.output("y");
    let read = super::read(m.bytes().into()).unwrap();
    let program = crate::exec::Program::compile(&read.graph, &[2]).unwrap();
    let mut arena = crate::exec::Arena::default();
    program.prepare(&mut arena);
    program.input(&mut arena, 0).copy_from_slice(&[1.0, -5.0, 1.0, -1.0, -2.0, -3.0]);
    program.run(&mut arena, 2);
    let found = program.output(&arena, 0);
    assert!(found.iter().zip([0.5, 0.0, 0.5, 0.0, 0.0, 0.0]).all(|(f, e)| (f - e).abs() < 1e-6), "{found:?}");
}

#[test]
fn a_small_file_does_not_become_a_large_one() {
    let mut m = Onnx::new(1);
    let shape = m.ints(&[1 << 12, 1 << 12]);
    for _ in 0..20 {
        m.node("ConstantOfShape", &[&shape], &[]);
    }
    assert!(super::read(m.bytes().into()).unwrap_err().to_string().contains("come of a small file"));
}

#[test]
fn a_batch_that_is_a_number_says_how_to_export() {
    let mut m = Onnx::new(1);
    let x = m.input("price", element::FLOAT, 4);
    m.node_as("Relu", &[&x], &[], "click");
    m.output("click");
    let dims = &mut m.graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape.as_mut().unwrap().dim;
    dims[0].dim_param = None;
    dims[0].dim_value = Some(1);
    let text = super::read(m.bytes().into()).unwrap_err().to_string();
    assert!(text.contains(r#"dynamic_axes={"price": {0: 'batch'}}"#), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happened to an exported file, reading it ends in a bundle or an error.
    #[test]
    fn damaged_exports_never_panic(
        which in 0usize..FIXTURES.len(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = fixture(&format!("{}.onnx", FIXTURES[which]));
        for (at, byte) in places {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(at) = cut {
            bytes.truncate(at.index(bytes.len()));
        }
        if let Ok(bundle) = open(bytes) {
            let mut scratch = Scratch::default();
            let (user, item) = (FeatureRow { values: vec![FeatureValue::Missing; 3] }, vec![FeatureRow { values: vec![FeatureValue::Missing; 2] }]);
            let _ = bundle.rank_whole(&mut scratch, &user, &item, &[0.5], &mut Vec::new());
        }
    }

    #[test]
    fn a_damaged_schema_never_panics(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut text: Vec<char> = SCHEMA.chars().collect();
        for (at, c) in places {
            let at = at.index(text.len());
            text[at] = c;
        }
        if let Some(at) = cut {
            text.truncate(at.index(text.len()));
        }
        let _ = crate::bundle::parse_schema(&text.into_iter().collect::<String>());
    }
}
