//! How does one bundle become another that is as good, or known to be worse?
//!
//! For tests and measurements of rollouts: a bundle with another embedding space answers as well as the first one, and
//! a user tower of the one against an item tower of the other finds nothing; a bundle whose calibration is off passes
//! staging and must be noticed online. Both follow from the first bundle and a seed alone.
//!
//! The space is turned by a permutation of the dimensions with signs: orthogonal, so that inner products stay what they
//! are, and exact in floating point, so that the golden rows of the first bundle are turned the same way and stay exact.

use super::{Files, Refusal, seal};
use crate::bundle::{Bundle, pack};
use crate::onnx::wire::{Model, NodeProto, TensorProto, element};
use gavel_proto::hash::mix64;
use prost::Message;
use serde_json::Value;
use std::path::Path;

/// What is to be another way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Variation {
    /// Queries and vectors lie in another space of the same shape.
    Space {
        /// Which one.
        seed: u64,
    },
    /// Every calibrated probability has its odds multiplied.
    Odds {
        /// By this.
        factor: f64,
    },
}

/// Writes a variation of the bundle in `from` to the folder `to`, which must not exist, and verifies it.
///
/// # Errors
/// When the bundle cannot be read or written, or has a form that cannot be varied.
pub fn vary(from: &Path, to: &Path, variation: Variation) -> Result<[u8; 32], Refusal> {
    if to.exists() {
        return Err(Refusal::Folder(format!("{} is there already", to.display())));
    }
    let refused = |e: crate::BundleError| Refusal::Folder(format!("{}: {e}", from.display()));
    let bundle = Bundle::open(from).map_err(refused)?;
    let files = pack::read_contents(from).map_err(refused)?;
    let mut files: Files = files.into_iter().map(|(name, content)| (name, content.to_vec())).collect();
    let changed = match variation {
        Variation::Space { seed } => turn(&mut files, &Turn::new(bundle.schema().dimension, seed)),
        Variation::Odds { factor } => shift(&mut files, factor),
    };
    changed.map_err(|reason| Refusal::Folder(format!("{}: {reason}", from.display())))?;
    seal(&files, to)?;
    let varied = Bundle::open(to).map_err(refused)?;
    varied.verify_golden().map_err(refused)?;
    Ok(varied.hash())
}

/// A signed permutation: output `at[i]` is input `i` times `sign[i]`.
struct Turn {
    at: Vec<usize>,
    sign: Vec<f32>,
}

impl Turn {
    fn new(dimension: usize, seed: u64) -> Self {
        let draw = |i: usize, salt: u64| mix64(seed ^ mix64(i as u64 ^ salt));
        let mut at: Vec<usize> = (0..dimension).collect();
        at.sort_by_key(|i| draw(*i, 0x7065_726d));
        let sign = (0..dimension).map(|i| if draw(i, 0x7369_676e) & 1 == 0 { 1.0 } else { -1.0 }).collect();
        Self { at, sign }
    }

    /// Row-major, for a product with a row vector from the left.
    fn matrix(&self) -> Vec<f32> {
        let n = self.at.len();
        let mut matrix = vec![0.0; n * n];
        for (row, (column, sign)) in self.at.iter().zip(&self.sign).enumerate() {
            matrix[row * n + column] = *sign;
        }
        matrix
    }

    fn numbers(&self, row: &Value) -> Result<Value, String> {
        let numbers: Option<Vec<f64>> = row.as_array().and_then(|r| r.iter().map(Value::as_f64).collect());
        let numbers = numbers.filter(|n| n.len() == self.at.len()).ok_or("a golden vector has another dimension")?;
        let mut turned = vec![0.0; numbers.len()];
        for ((number, to), sign) in numbers.iter().zip(&self.at).zip(&self.sign) {
            turned[*to] = number * f64::from(*sign);
        }
        Ok(turned.into())
    }
}

fn turn(files: &mut Files, turn: &Turn) -> Result<(), String> {
    for (name, output) in [("user_tower.onnx", "query"), ("item_tower.onnx", "vector")] {
        let bytes = files.get_mut(name).ok_or_else(|| format!("it has no file {name}"))?;
        *bytes = turned(bytes, output, turn).ok_or_else(|| format!("{name} has no graph with the output {output}"))?;
    }
    golden(files, |row| {
        for name in ["query", "vector"] {
            let given = row.get_mut(name).ok_or("a golden row has no vectors")?;
            *given = turn.numbers(given)?;
        }
        Ok(())
    })
}

/// A graph whose output is turned after it was computed; whoever read it inside the graph reads it as it was.
fn turned(bytes: &[u8], output: &str, turn: &Turn) -> Option<Vec<u8>> {
    let mut model = Model::decode(bytes).ok()?;
    let graph = model.graph.as_mut()?;
    graph.output.iter().find(|o| o.name == output)?;
    let (before, matrix) = (format!("{output} before the turn"), format!("turn of {output}"));
    for port in graph.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output)) {
        if port == output {
            port.clone_from(&before);
        }
    }
    let n = turn.at.len() as i64;
    graph.initializer.push(TensorProto {
        name: matrix.clone(),
        dims: vec![n, n],
        data_type: element::FLOAT,
        float_data: turn.matrix(),
        ..TensorProto::default()
    });
    graph.node.push(NodeProto {
        input: vec![before, matrix],
        output: vec![output.to_owned()],
        name: format!("turn {output}"),
        op_type: "MatMul".to_owned(),
        ..NodeProto::default()
    });
    Some(model.encode_to_vec())
}

fn shift(files: &mut Files, factor: f64) -> Result<(), String> {
    let schema = files.get_mut("bundle.toml").ok_or("it has no bundle.toml")?;
    let text = std::str::from_utf8(schema).map_err(|e| e.to_string())?;
    let (mut out, mut heads, mut name) = (String::new(), Vec::new(), "");
    for line in text.lines() {
        name = line.strip_prefix("name = ").map_or(name, |n| n.trim_matches('"'));
        match line.split_once("offset = ").filter(|_| line.starts_with("calibration = { kind = \"platt\"")) {
            Some((before, rest)) => {
                let offset: f64 = rest.trim_end_matches([' ', '}']).parse().map_err(|e| format!("{line}: {e}"))?;
                out.push_str(&format!("{before}offset = {:.9} }}\n", offset + factor.ln()));
                heads.push(name.to_owned());
            }
            None => out.push_str(&format!("{line}\n")),
        }
    }
    if heads.is_empty() {
        return Err("no head has a Platt calibration on one line".to_owned());
    }
    *schema = out.into_bytes();
    golden(files, |row| {
        for head in &heads {
            let p = row.get_mut("predictions").and_then(|p| p.get_mut(head)).ok_or("a prediction is missing")?;
            let before = p.as_f64().ok_or("a prediction is no number")?;
            *p = (before * factor / (1.0 - before + before * factor)).into();
        }
        Ok(())
    })
}

/// Changes every golden row.
fn golden(files: &mut Files, change: impl Fn(&mut Value) -> Result<(), String>) -> Result<(), String> {
    let packed = files.get_mut(super::GOLDEN).ok_or("it has no golden rows")?;
    let text = zstd::decode_all(&packed[..]).map_err(|e| e.to_string())?;
    let mut out = String::new();
    for line in std::str::from_utf8(&text).map_err(|e| e.to_string())?.lines().filter(|l| !l.trim().is_empty()) {
        let mut row: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        change(&mut row)?;
        out.push_str(&format!("{row}\n"));
    }
    *packed = zstd::encode_all(out.as_bytes(), 0).map_err(|e| e.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Scratch;
    use crate::feature::{FeatureRow, FeatureValue};

    fn demo() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster/bootstrap/demo/bundle")
    }

    fn missing(n: usize) -> FeatureRow {
        FeatureRow { values: vec![FeatureValue::Missing; n] }
    }

    /// Inner products are the same to the bit within a bundle, and mean nothing across two.
    #[test]
    fn another_space_answers_alike_alone_and_not_at_all_mixed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let hash = vary(&demo(), &one, Variation::Space { seed: 1 }).expect("varied");
        assert_ne!(hash, vary(&demo(), &two, Variation::Space { seed: 2 }).expect("varied"));
        let again = dir.path().join("again");
        assert_eq!(hash, vary(&demo(), &again, Variation::Space { seed: 1 }).expect("varied"), "from the seed alone");
        let of = |dir: &Path| {
            let bundle = Bundle::open(dir).expect("opens");
            let (user, item) = (bundle.schema().user.len(), bundle.schema().item.len());
            let mut scratch = Scratch::default();
            let query = bundle.run_user(&mut scratch, &missing(user)).expect("runs").query;
            (query, bundle.run_items(&mut scratch, &[missing(item)]).expect("runs").vectors)
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        let (first, second) = (of(&demo()), of(&one));
        let (alone, turned) = (dot(&first.0, &first.1), dot(&second.0, &second.1));
        assert!((alone - turned).abs() < 1e-9 * alone.abs().max(1.0), "{alone} {turned}");
        assert!((alone - dot(&first.0, &second.1)).abs() > 0.1 * alone.abs(), "a mixed pair is told apart");
    }

    #[test]
    fn shifted_odds_pass_their_golden_rows() {
        let dir = tempfile::tempdir().expect("a folder");
        let to = dir.path().join("shifted");
        vary(&demo(), &to, Variation::Odds { factor: 2.0 }).expect("varied and verified");
        assert!(vary(&demo(), &to, Variation::Odds { factor: 2.0 }).is_err(), "it is there already");
    }
}
