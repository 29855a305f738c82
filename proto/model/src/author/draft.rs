//! What does the author's schema say, and which `bundle.toml` does it become?
//!
//! The author writes what a person must decide: features, heads, a name. What packing knows (`format`, `[files]`) and
//! what has a sound default (`metric`, `light`, `dimension` of made towers) may be left out. Two keys are for packing
//! alone and do not reach the bundle: `[[input]]`, a graph's input that holds several features side by side, and a
//! head's `output`, the name (and column) that the graph's output has.

use super::{GOLDEN, ITEM_TOWER, LIGHT, Problem, RANKER, Ranker, Source, Towers, USER_TOWER};
use crate::bundle::read_schema;
use crate::schema::Schema;
use std::fmt::Write as _;
use toml::{Table, Value};

/// Dimensions of towers that packing makes.
const MADE_DIMENSION: i64 = 8;
/// Scale and offset of the light order without a trained one: all alike.
const ALL_ALIKE: (f64, f64) = (0.0, -3.0);

/// A graph's input that holds several features side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub name: String,
    pub features: Vec<String>,
}

/// Where a head stands in the exported graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Output {
    pub head: String,
    pub name: String,
    /// Its column, when the output holds several heads.
    pub column: Option<i64>,
}

/// A schema that was read.
#[derive(Debug)]
pub(super) struct Draft {
    /// `bundle.toml`.
    pub text: String,
    pub schema: Schema,
    pub packed: Vec<Packed>,
    pub outputs: Vec<Output>,
}

impl Draft {
    pub fn read(source: &Source) -> Result<Self, Problem> {
        let Source { schema: text, ranker, towers, .. } = source;
        let wrong = |what: String| Problem::new(what, "mend the schema; gavel model pack --template prints one");
        let mut table: Table = text.parse().map_err(|e| wrong(format!("the schema: {e}")))?;
        let packed = packed(&mut table).map_err(wrong)?;
        let outputs = outputs(&mut table).map_err(wrong)?;
        table.entry("format").or_insert(Value::Integer(1));
        table.entry("metric").or_insert_with(|| "ip".into());
        if matches!(towers, Towers::Constant | Towers::Missing) {
            table.entry("dimension").or_insert(Value::Integer(MADE_DIMENSION));
        }
        light(&mut table, source.light.as_deref())?;
        table.insert("files".to_owned(), Value::Table(files(ranker, &outputs).map_err(wrong)?));
        let text = written(&table);
        let schema = read_schema(&text).map_err(|e| wrong(e.to_string()))?;
        Ok(Self { text, schema, packed, outputs })
    }
}

/// `[light]` as the files have it: the head that is packed, what the schema says, or nothing that tells items apart.
fn light(table: &mut Table, head: Option<&[u8]>) -> Result<(), Problem> {
    let named = |pairs: Vec<(&str, Value)>| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Table>();
    let said = table.get("light").and_then(Value::as_table);
    let is_head_said = said.is_some_and(|light| light.contains_key("head"));
    if is_head_said && head.is_none() {
        return Err(Problem::new("[light] names a head and no file is given", "give --light FILE.onnx"));
    }
    if head.is_some() && said.is_some_and(|light| light.contains_key("scale") || light.contains_key("offset")) {
        let what = "[light] has a scale and an offset, and --light gives a head";
        return Err(Problem::new(what, "leave [light] out of the schema, or --light out of the command"));
    }
    let made = if head.is_some() {
        named(vec![("head", LIGHT.into())])
    } else {
        named(vec![("scale", ALL_ALIKE.0.into()), ("offset", ALL_ALIKE.1.into())])
    };
    if head.is_some() || said.is_none() {
        table.insert("light".to_owned(), Value::Table(made));
    }
    Ok(())
}

fn files(ranker: &Ranker, outputs: &[Output]) -> Result<Table, String> {
    let mut files = Table::new();
    let mut add = |key: &str, name: &str| files.insert(key.to_owned(), name.into());
    add("user_tower", USER_TOWER);
    add("item_tower", ITEM_TOWER);
    add("golden", GOLDEN);
    match ranker {
        Ranker::Graph(_) => {
            add("ranker", RANKER);
        }
        Ranker::Trees(models) => {
            let mut trees = Table::new();
            for (head, file) in tree_files(models.keys().map(String::as_str), outputs)? {
                trees.insert(head, file.into());
            }
            files.insert("trees".to_owned(), Value::Table(trees));
        }
    }
    Ok(files)
}

/// The file of each head's trees: a name without a head stands for the only one.
pub(super) fn tree_files<'a>(
    models: impl Iterator<Item = &'a str>,
    outputs: &[Output],
) -> Result<Vec<(String, String)>, String> {
    models
        .map(|head| match (head, outputs) {
            ("", [only]) => Ok((only.head.clone(), "ranker.txt".to_owned())),
            ("", _) => Err("there are several heads: give each its file with --ranker HEAD=FILE".to_owned()),
            (head, _) => match outputs.iter().position(|o| o.head == head) {
                Some(at) => Ok((head.to_owned(), format!("ranker_{at}.txt"))),
                None => Err(format!("--ranker names the head {head}, which the schema does not have")),
            },
        })
        .collect()
}

fn packed(table: &mut Table) -> Result<Vec<Packed>, String> {
    let Some(list) = table.remove("input") else { return Ok(vec![]) };
    let wrong = || "[[input]] has a name and a list of features".to_owned();
    let Value::Array(list) = list else { return Err(wrong()) };
    let one = |value: &Value| {
        let table = value.as_table()?;
        let names = table.get("features")?.as_array()?.iter().map(|v| v.as_str().map(str::to_owned));
        Some(Packed { name: table.get("name")?.as_str()?.to_owned(), features: names.collect::<Option<Vec<_>>>()? })
    };
    list.iter().map(|v| one(v).filter(|p| !p.features.is_empty()).ok_or_else(wrong)).collect()
}

fn outputs(table: &mut Table) -> Result<Vec<Output>, String> {
    let Some(Value::Array(heads)) = table.get_mut("head") else {
        return Err("there is no [[head]]: name each output of the ranker that is a prediction".to_owned());
    };
    let mut outputs = Vec::with_capacity(heads.len());
    for head in heads {
        let Some(head) = head.as_table_mut() else { return Err("[[head]] is a table".to_owned()) };
        let Some(name) = head.get("name").and_then(Value::as_str).map(str::to_owned) else {
            return Err("a [[head]] has no name".to_owned());
        };
        let output = match head.remove("output") {
            None => name.clone(),
            Some(Value::String(output)) => output,
            Some(_) => return Err(format!("the output of head {name} is text: \"logits\" or \"logits[1]\"")),
        };
        let cut = output.strip_suffix(']').and_then(|o| o.rsplit_once('['));
        outputs.push(match cut.and_then(|(of, column)| column.parse().ok().map(|c| (of, c))) {
            Some((of, column)) => Output { head: name, name: of.to_owned(), column: Some(column) },
            None => Output { head: name, name: output, column: None },
        });
    }
    Ok(outputs)
}

/// The table as text: plain values first, then the tables, then the lists of tables.
fn written(table: &Table) -> String {
    let is_list = |v: &Value| v.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(Value::is_table));
    let mut text = String::new();
    for (key, value) in table.iter().filter(|(_, v)| !v.is_table() && !is_list(v)) {
        let _ = writeln!(text, "{} = {}", quoted(key), inline(value));
    }
    for (key, value) in table {
        let tables =
            if is_list(value) { value.as_array().map_or(&[][..], Vec::as_slice) } else { std::slice::from_ref(value) };
        for inner in tables.iter().filter_map(Value::as_table) {
            let (open, close) = if is_list(value) { ("[[", "]]") } else { ("[", "]") };
            let _ = writeln!(text, "\n{open}{}{close}", quoted(key));
            for (key, value) in inner {
                let _ = writeln!(text, "{} = {}", quoted(key), inline(value));
            }
        }
    }
    text
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(s) => quoted_text(s),
        Value::Integer(i) => i.to_string(),
        // With a point or an exponent, so that it stays a float.
        Value::Float(x) => format!("{x:?}").replace("NaN", "nan"),
        Value::Boolean(b) => b.to_string(),
        Value::Datetime(d) => d.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let pairs: Vec<String> = table.iter().map(|(k, v)| format!("{} = {}", quoted(k), inline(v))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// A key: bare where TOML allows it.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { key.to_owned() } else { quoted_text(key) }
}

/// A basic string of TOML.
fn quoted_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was() {
        let text = "a = 1\nb = -2.5e-9\nc = \"x\\\"y\\\\ä\"\nd = [1.0, 2.0]\n\"strange key\" = true\n[e]\nf = { g = \"h\" }\n\
                    [[i]]\nname = \"one\"\nlist = [\"p\", \"q\"]\n[[i]]\nname = \"two\"\n";
        let table: Table = text.parse().unwrap();
        assert_eq!(written(&table).parse::<Table>().unwrap(), table, "{}", written(&table));
    }
}
