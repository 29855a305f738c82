//! Does packing make a bundle of what exporters write, and say everything that is in the way?

use super::*;
use crate::bundle::testing::SMALL;
use crate::onnx::testing::{Onnx, light_head, tower_with};
use crate::onnx::wire::element;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

const SCHEMA: &str = r#"
name = "mine"
feature = [
    { name = "segment", side = "user", kind = "category", buckets = 10 },
    { name = "history", side = "user", kind = "set", buckets = 20, max_len = 6 },
    { name = "age", side = "context", kind = "dense" },
    { name = "kind", side = "item", kind = "category", buckets = 20 },
    { name = "price", side = "item", kind = "dense" },
]
cross = [{ name = "match", user = "history", item = "kind" }]
[[head]]
name = "click"
kind = "probability"
role = "click"
negative_rate = 0.5
[[head]]
name = "conv"
kind = "probability"
"#;

const ROWS: &str = r#"{"user":{"segment":"gold","age":0.5,"history":{"values":["tea","milk"],"weights":[2.0,1.0]}},"item":{"kind":"tea","price":-1.5}}
{"user":{},"item":{}}
"#;

fn source(schema: &str, ranker: Ranker) -> Source {
    let golden = Some(Golden::Inputs(ROWS.to_owned()));
    Source { schema: schema.to_owned(), ranker, towers: Towers::Constant, light: None, golden }
}

fn nothing(_: &str) -> Option<Vec<u8>> {
    None
}

fn problems(source: &Source) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    match write(source, &out, &nothing) {
        Err(Refusal::Problems(all)) => {
            assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left behind");
            all.iter().map(|p| format!("{p}\n")).collect()
        }
        Err(Refusal::Folder(text)) => panic!("{text}"),
        Ok(_) => String::new(),
    }
}

#[test]
fn an_exported_graph_becomes_a_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    let mine = source(SCHEMA, Ranker::Graph(fixture("onnx/torch_mmoe_script.onnx")));
    let written = write(&mine, &out, &nothing).unwrap();
    assert_eq!((written.golden.rows, written.name.as_str()), (2, "mine"));
    assert!(written.warnings.iter().any(|w| w.contains("constant")), "{:?}", written.warnings);
    assert!(written.warnings.iter().any(|w| w.contains("this build's own")), "{:?}", written.warnings);
    let bundle = Bundle::open(&out).unwrap();
    assert_eq!(bundle.hash(), written.hash);
    assert!(matches!(write(&mine, &out, &nothing), Err(Refusal::Folder(text)) if text.contains("already")));
    // The rows that were written are expected outputs to the next: with a wrong one they are refused.
    let golden = std::fs::read(out.join(GOLDEN)).unwrap();
    let golden = String::from_utf8(zstd::decode_all(golden.as_slice()).unwrap()).unwrap();
    let again = Source { golden: Some(Golden::Expected(golden.clone())), ..mine.clone() };
    assert_eq!(problems(&again), "");
    let mut row: serde_json::Value = serde_json::from_str(golden.lines().next().unwrap()).unwrap();
    row["heads"]["conv"] = serde_json::json!(7.5);
    row.as_object_mut().unwrap().remove("predictions");
    let wrong = Source { golden: Some(Golden::Expected(row.to_string())), ..mine.clone() };
    assert!(problems(&wrong).contains("conv is"), "{}", problems(&wrong));
    row["heads"].as_object_mut().unwrap().remove("conv");
    let lacks = Source { golden: Some(Golden::Expected(row.to_string())), ..mine };
    assert!(problems(&lacks).contains("heads has no conv"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let mut m = Onnx::new(1);
    let fixed = m.input("prise", element::FLOAT, 1);
    let ids = m.input("kind", element::INT64, 1);
    let age = m.input("age", element::INT64, 1);
    let many = m.input("dense", element::FLOAT, 3);
    let weights = m.input("history.weight", element::FLOAT, 4);
    let table = m.weights(&[30, 4]);
    let looked = m.node("Gather", &[&table, &ids], &[("axis", 0)]);
    let looked = m.node("Flatten", &[&looked], &[("axis", 1)]);
    let age = m.node("Cast", &[&age], &[("to", 1)]);
    let joined = m.node("Concat", &[&fixed, &looked, &age, &many, &weights], &[("axis", 1)]);
    let w = m.weights(&[13, 2]);
    m.node_as("MatMul", &[&joined, &w], &[], "clicks");
    m.output("clicks");
    m.node_as("Relu", &[&joined], &[], "spare");
    m.output("spare");
    let mut wrong = source(SCHEMA, Ranker::Graph(m.bytes()));
    wrong.golden = None;
    wrong.towers = Towers::Missing;
    let text = problems(&wrong);
    for part in [
        "input prise is no feature (did you mean price?)",
        "input age has the element type int64",
        "input dense is no feature",
        "features = [...]",
        "input history.weight is [batch, [4]], its feature is [batch, 6]",
        "its table has 30 rows",
        "head click has no output click in the graph (did you mean clicks?)",
        "head conv has no output conv",
        "--towers constant",
        "--golden ROWS.jsonl",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// As click models are often written: all ids in one tensor, all numbers in another, probabilities out.
#[test]
fn packed_inputs_and_probabilities_are_taken_apart() {
    let mut m = Onnx::new(1);
    let (sparse, dense) = (m.input("sparse", element::INT64, 2), m.input("dense", element::FLOAT, 2));
    let mut parts = vec![];
    for (column, rows) in [(0, 11), (1, 21)] {
        let at = m.ints(&[column]);
        let one = m.node("Gather", &[&sparse, &at], &[("axis", 1)]);
        parts.push(m.embedding(&one, rows, 16));
    }
    let joined = m.node("Concat", &[&parts[0], &parts[1], &dense], &[("axis", 1)]);
    // Narrower than the embeddings: what a side makes of them is then cheaper to keep than they are.
    let hidden = m.dense(&joined, 34, 8);
    let hidden = m.node("Relu", &[&hidden], &[]);
    let out = m.dense(&hidden, 8, 2);
    m.node_as("Sigmoid", &[&out], &[], "probs");
    m.output("probs");
    let schema = SCHEMA
        .replace("name = \"click\"", "name = \"click\"\noutput = \"probs[0]\"")
        .replace("name = \"conv\"", "name = \"conv\"\noutput = \"probs[1]\"")
        + "[[input]]\nname = \"sparse\"\nfeatures = [\"segment\", \"kind\"]\n\
           [[input]]\nname = \"dense\"\nfeatures = [\"age\", \"price\"]\n";
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    let mine = source(&schema, Ranker::Graph(m.bytes()));
    write(&mine, &out, &nothing).unwrap();
    let bundle = Bundle::open(&out).unwrap();
    let report = bundle.partition_report();
    // The features are apart again: the first layer is split between the sides.
    assert!(report.user.flops > 0 && report.item.flops > 0, "{report:?}");
    // A probability that the author's runtime gave is compared as the logit that it is.
    let golden = zstd::decode_all(std::fs::read(out.join(GOLDEN)).unwrap().as_slice()).unwrap();
    let golden = String::from_utf8(golden).unwrap();
    let rows = golden.lines().map(|line| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        for head in ["click", "conv"] {
            let logit = row["heads"][head].as_f64().unwrap();
            row["heads"][head] = serde_json::json!([1.0 / (1.0 + (-logit).exp())]);
        }
        row.as_object_mut().unwrap().remove("predictions");
        format!("{row}\n")
    });
    let again = Source { golden: Some(Golden::Expected(rows.collect())), ..mine };
    assert_eq!(problems(&again), "");
    let narrow = schema.replace("features = [\"age\", \"price\"]", "features = [\"age\"]");
    let text = problems(&Source { schema: narrow, ..again.clone() });
    assert!(text.contains("input dense is [batch, 2], its features are 1 wide"), "{text}");
    let text = problems(&Source { schema: schema.replace("\"age\", \"price\"]", "\"age\", \"prize\"]"), ..again });
    assert!(text.contains("prize, which the schema does not have (did you mean price?)"), "{text}");
}

/// Puts something behind two logits.
type Build = Box<dyn Fn(&mut Onnx, [String; 2])>;

/// Two linear heads over `age` and `price` with what `build` puts behind them; the outputs are `click` and `conv`.
fn heads_of(build: &dyn Fn(&mut Onnx, [String; 2])) -> Vec<u8> {
    let mut m = Onnx::new(3);
    let (age, price) = (m.input("age", element::FLOAT, 1), m.input("price", element::FLOAT, 1));
    let joined = m.node("Concat", &[&age, &price], &[("axis", 1)]);
    let logits = [0, 1].map(|_| m.dense(&joined, 2, 1));
    build(&mut m, logits);
    m.output("click");
    m.output("conv");
    m.bytes()
}

/// The raw outputs that a packed bundle gives for the rows, and what was said beside.
fn raws(ranker: Vec<u8>) -> (Vec<[f64; 2]>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let written = write(&source(SCHEMA, Ranker::Graph(ranker)), &dir.path().join("bundle"), &nothing).unwrap();
    let golden = std::fs::read(dir.path().join("bundle").join(GOLDEN)).unwrap();
    let golden = String::from_utf8(zstd::decode_all(golden.as_slice()).unwrap()).unwrap();
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        ["click", "conv"].map(|head| row["heads"][head].as_f64().unwrap())
    };
    (golden.lines().map(row).collect(), written.warnings)
}

/// Only a sigmoid that made the output itself was once seen: a bundle of the others served the sigmoid of a probability.
#[test]
fn a_sigmoid_is_found_behind_what_moves_its_results() {
    let expected = raws(heads_of(&|m, [click, conv]| {
        m.node_as("Identity", &[&click], &[], "click");
        m.node_as("Identity", &[&conv], &[], "conv");
    }))
    .0;
    let sigmoid = |m: &mut Onnx, x: &str| m.node("Sigmoid", &[x], &[]);
    let each = |op: &'static str, attributes: &'static [(&'static str, i64)], ints: &'static [&'static [i64]]| {
        move |m: &mut Onnx, logits: [String; 2]| {
            for (x, name) in logits.iter().zip(["click", "conv"]) {
                let p = sigmoid(m, x);
                let ints: Vec<String> = ints.iter().map(|values| m.ints(values)).collect();
                let inputs: Vec<&str> = std::iter::once(p.as_str()).chain(ints.iter().map(String::as_str)).collect();
                m.node_as(op, &inputs, attributes, name);
            }
        }
    };
    let joined = |m: &mut Onnx, logits: &[String; 2]| m.node("Concat", &[&logits[0], &logits[1]], &[("axis", 1)]);
    let split = move |m: &mut Onnx, logits: [String; 2]| {
        let all = joined(m, &logits);
        let p = sigmoid(m, &all);
        let lengths = m.ints(&[1, 1]);
        m.node_as("Split", &[&p, &lengths], &[("axis", 1)], "click");
        m.graph.node.last_mut().unwrap().output.push("conv".to_owned());
    };
    let sliced = move |m: &mut Onnx, logits: [String; 2]| {
        let parts = [sigmoid(m, &logits[0]), sigmoid(m, &logits[1])];
        let all = joined(m, &parts);
        for (column, name) in [(0, "click"), (1, "conv")] {
            let (from, to, axis) = (m.ints(&[column]), m.ints(&[column + 1]), m.ints(&[1]));
            let one = m.node("Slice", &[&all, &from, &to, &axis], &[]);
            let one = m.node("Squeeze", &[&one, &axis], &[]);
            m.node_as("Identity", &[&one], &[], name);
        }
    };
    let forms: [(&str, Build); 6] = [
        ("sigmoid", Box::new(each("Identity", &[], &[]))),
        ("squeeze", Box::new(each("Squeeze", &[], &[&[-1]]))),
        ("flatten", Box::new(each("Flatten", &[("axis", 1)], &[]))),
        ("slice", Box::new(each("Slice", &[], &[&[0], &[1], &[1]]))),
        ("split", Box::new(split)),
        ("concat, slice, squeeze and identity", Box::new(sliced)),
    ];
    for (form, build) in forms {
        let (found, warnings) = raws(heads_of(&*build));
        assert_eq!(found, expected, "{form}");
        assert!(warnings.iter().all(|w| !w.contains("as a probability does")), "{form}: {warnings:?}");
    }
}

#[test]
fn a_probability_without_a_logit_is_refused_and_one_that_looks_like_it_is_named() {
    let refused = |build: &dyn Fn(&mut Onnx, [String; 2])| {
        problems(&source(
            SCHEMA,
            Ranker::Graph(heads_of(&|m, logits| {
                m.node_as("Identity", &[&logits[1]], &[], "conv");
                build(m, logits);
            })),
        ))
    };
    let text = refused(&|m, [click, conv]| {
        let (a, b) = (m.node("Sigmoid", &[&click], &[]), m.node("Sigmoid", &[&conv], &[]));
        m.node_as("Mul", &[&a, &b], &[], "click");
    });
    assert!(text.contains("head click") && text.contains("a product of probabilities"), "{text}");
    let text = refused(&|m, [click, conv]| {
        let both = m.node("Concat", &[&click, &conv], &[("axis", 1)]);
        let soft = m.node("Softmax", &[&both], &[("axis", 1)]);
        let column = m.ints(&[1]);
        m.node_as("Gather", &[&soft, &column], &[("axis", 1)], "click");
    });
    assert!(text.contains("a share of a softmax") && text.contains("export each head"), "{text}");
    let text = refused(&|m, [click, conv]| {
        let p = m.node("Sigmoid", &[&click], &[]);
        let both = m.node("Concat", &[&p, &conv], &[("axis", 1)]);
        let column = m.ints(&[0]);
        m.node_as("Gather", &[&both, &column], &[("axis", 1)], "click");
    });
    assert!(text.contains("joined with values that are no probabilities"), "{text}");
    // A sigmoid by hand cannot be told from a logit by its graph; its rows give it away.
    let (_, warnings) = raws(heads_of(&|m, [click, conv]| {
        let negative = m.node("Neg", &[&click], &[]);
        let power = m.node("Exp", &[&negative], &[]);
        let one = m.floats(&[], vec![1.0]);
        let sum = m.node("Add", &[&power, &one], &[]);
        m.node_as("Div", &[&one, &sum], &[], "click");
        let ten = m.floats(&[], vec![10.0]);
        m.node_as("Sub", &[&conv, &ten], &[], "conv");
    }));
    let told: Vec<&String> = warnings.iter().filter(|w| w.contains("as a probability does")).collect();
    assert!(told.len() == 1 && told[0].contains("head click"), "{warnings:?}");
}

/// int8 takes its ranges from the golden rows, which packing once asked for before it had made them.
#[test]
fn a_bundle_of_fewer_bits_is_packed() {
    let rows: String = (0..40)
        .map(|i| {
            let age = f64::from(i) / 20.0 - 1.0;
            format!(
                "{{\"user\":{{\"segment\":\"s{}\",\"age\":{age}}},\"item\":{{\"kind\":\"k{i}\",\"price\":{}}}}}\n",
                i % 7,
                -age
            )
        })
        .collect();
    for precision in ["bf16", "int8"] {
        let schema = format!("{SCHEMA}[ranker_options]\nprecision = \"{precision}\"\ntolerance = 0.05\n");
        let mut mine = source(&schema, Ranker::Graph(fixture("onnx/torch_mmoe_script.onnx")));
        mine.golden = Some(Golden::Inputs(rows.clone()));
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("bundle");
        let written = write(&mine, &out, &nothing).unwrap_or_else(|e| panic!("{precision}: {e:?}"));
        assert_eq!(written.golden.rows, 40);
        let bundle = Bundle::open(&out).unwrap();
        assert_eq!(bundle.schema().options.precision.name(), precision);
        assert!(bundle.verify_golden().unwrap().worst <= 0.05, "{precision}");
    }
}

#[test]
fn more_golden_rows_than_a_bundle_may_have_are_not_dropped_in_silence() {
    let mut mine = source(SCHEMA, Ranker::Graph(fixture("onnx/torch_mlp_script.onnx")));
    mine.golden = Some(Golden::Inputs("{\"user\":{},\"item\":{}}\n".repeat(crate::limits::GOLDEN_ROWS_MAX + 1)));
    let text = problems(&mine);
    assert!(text.contains("there are 10001 golden rows, 10000 are possible"), "{text}");
}

#[test]
fn weights_beside_the_graph_come_into_it() {
    let mut m = Onnx::new(1);
    let x = m.input("price", element::FLOAT, 1);
    let age = m.input("age", element::FLOAT, 1);
    let joined = m.node("Concat", &[&x, &age], &[("axis", 1)]);
    let w = m.weights(&[2, 1]);
    for head in ["click", "conv"] {
        m.node_as("MatMul", &[&joined, &w], &[], head);
        m.output(head);
    }
    let entry = |key: &str, value: &str| {
        let mut bytes = vec![10, key.len() as u8];
        bytes.extend(key.bytes());
        bytes.extend([18, value.len() as u8]);
        bytes.extend(value.bytes());
        bytes
    };
    let mut data = vec![0; 16];
    data.extend(m.graph.initializer[0].raw_data.take().unwrap());
    m.graph.initializer[0].external_data =
        vec![entry("location", "ranker.onnx.data"), entry("offset", "16"), entry("length", "8")];
    m.graph.initializer[0].data_location = 1;
    let mine = source(SCHEMA, Ranker::Graph(m.bytes()));
    assert!(problems(&mine).contains("ranker.onnx.data is not beside it"));
    let dir = tempfile::tempdir().unwrap();
    let beside = |data: Vec<u8>| move |name: &str| (name == "ranker.onnx.data").then(|| data.clone());
    let short = write(&mine, &dir.path().join("bundle"), &beside(data[..20].to_vec()));
    assert!(matches!(short, Err(Refusal::Problems(p)) if p[0].what.contains("too short")));
    write(&mine, &dir.path().join("bundle"), &beside(data)).unwrap();
}

#[test]
fn lightgbm_files_become_a_bundle() {
    let model = String::from_utf8(fixture("plain.txt")).unwrap();
    let names = crate::trees::Ensemble::read(model.as_bytes()).unwrap().features;
    let features: String = names
        .iter()
        .enumerate()
        .map(|(i, n)| {
            let side = if i % 2 == 0 { "user" } else { "item" };
            format!("[[feature]]\nname = {n:?}\nside = \"{side}\"\nkind = \"dense\"\n")
        })
        .collect();
    let schema =
        format!("name = \"trees\"\n{features}[[head]]\nname = \"click\"\nkind = \"probability\"\nrole = \"click\"\n");
    let one = |name: &str| Ranker::Trees([(name.to_owned(), model.clone().into_bytes())].into());
    let mut mine = source(&schema, one(""));
    mine.golden = Some(Golden::Inputs("{\"user\":{},\"item\":{}}\n".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    write(&mine, &dir.path().join("a"), &nothing).unwrap();
    write(&Source { ranker: one("click"), ..mine.clone() }, &dir.path().join("b"), &nothing).unwrap();
    assert!(problems(&Source { ranker: one("clock"), ..mine.clone() }).contains("which the schema does not have"));
    let renamed = schema.replace(&format!("name = {:?}", names[0]), &format!("name = \"{}s\"", names[0]));
    let text = problems(&Source { schema: renamed, ..mine });
    assert!(text.contains(&format!("column {} (number 0)", names[0])) && text.contains("did you mean"), "{text}");
}

#[test]
fn a_template_is_a_schema_that_packs() {
    for ranker in [
        Ranker::Graph(fixture("onnx/torch_mlp_script.onnx")),
        Ranker::Graph(fixture("onnx/torch_sequence_script.onnx")),
        Ranker::Graph(fixture("onnx/jax_model.onnx")),
        Ranker::Trees([(String::new(), fixture("plain.txt"))].into()),
    ] {
        let text = template(&ranker).unwrap();
        // The author says which features are the item's.
        let mut edited = String::new();
        for block in text.split_inclusive("\n\n") {
            let of_item = ["\"kind\"", "\"price\"", "\"rank\""].iter().any(|n| block.contains(&format!("name = {n}")));
            edited.push_str(&if of_item {
                block.replace("side = \"user\"", "side = \"item\"")
            } else {
                block.to_owned()
            });
        }
        let mut mine = source(&edited, ranker);
        mine.golden = Some(Golden::Inputs("{\"user\":{},\"item\":{}}\n".to_owned()));
        assert_eq!(problems(&mine), "", "{edited}");
    }
}

/// Towers with second outputs and the head on them, over features that [`tower_with`] reads.
#[test]
fn a_light_head_is_packed_and_verified() {
    const FEATURES: &str = r#"
name = "mine"
dimension = 16
feature = [
    { name = "segment", side = "user", kind = "category", buckets = 50 },
    { name = "bought", side = "user", kind = "set", buckets = 100, max_len = 8 },
    { name = "age", side = "context", kind = "dense" },
    { name = "kind", side = "item", kind = "category", buckets = 100 },
    { name = "price", side = "item", kind = "dense" },
]
cross = [{ name = "match", user = "bought", item = "kind" }]
head = [
    { name = "click", kind = "probability", role = "click" }, { name = "conv", kind = "probability" },
    { name = "value", kind = "value" },
]
"#;
    let towers = |user: i64| Towers::Given {
        user: tower_with(1, true, SMALL, (16, user)),
        item: tower_with(2, false, SMALL, (16, 4)),
    };
    let mut mine = source(FEATURES, Ranker::Graph(crate::onnx::testing::ranker(3, SMALL)));
    mine.golden = Some(Golden::Inputs("{\"user\":{},\"item\":{\"kind\":\"tea\"}}\n".to_owned()));
    (mine.towers, mine.light) = (towers(6), Some(light_head().bytes()));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    let written = write(&mine, &out, &nothing).unwrap();
    assert_eq!((written.golden.rows, written.golden.light_rows), (1, 1));
    assert_eq!(Bundle::open(&out).unwrap().light_width(), 4);
    let golden = zstd::decode_all(std::fs::read(out.join(GOLDEN)).unwrap().as_slice()).unwrap();
    let mut row: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    row["light_conversion"] = (row["light_conversion"].as_f64().unwrap() + 0.1).into();
    let wrong = Source { golden: Some(Golden::Expected(row.to_string())), ..mine.clone() };
    assert!(problems(&wrong).contains("light_conversion is"), "{}", problems(&wrong));

    let mut head = light_head();
    head.input("similarty", element::FLOAT, 1);
    head.graph.output[0].name = "lights".to_owned();
    head.graph.output.pop();
    let said = FEATURES.replace("dimension = 16", "dimension = 16\nlight = { head = \"light.onnx\" }");
    let both = FEATURES.replace("dimension = 16", "dimension = 16\nlight = { scale = 1.0, offset = 0.0 }");
    let many = Source { light: Some(head.bytes()), towers: towers(0), ..mine.clone() };
    for (source, part) in [
        (many.clone(), "input similarty of the light head is none (did you mean similarity?)"),
        (many.clone(), "no output light (did you mean lights?)"),
        (many, "reads user_light, which the graph of --user-tower does not put out"),
        (Source { schema: both, ..mine.clone() }, "leave [light] out of the schema"),
        (Source { schema: said.clone(), light: None, ..mine.clone() }, "give --light FILE.onnx"),
        (Source { towers: Towers::Constant, ..mine.clone() }, "a light head reads what trained towers put out"),
    ] {
        let text = problems(&source);
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(problems(&Source { schema: said, ..mine }), "", "the schema may name the head, too");
}
