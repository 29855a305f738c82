//! Does a table of a million rows stay in its file, is it read right there, and do two processes share its pages?
//!
//! In a process of its own, because the memory of a process is what is measured. The second process is this program
//! again, told by [`FOLDER`] which bundle to open.

use gavel_model::{Bundle, FeatureRow, FeatureValue, Scratch, table_row};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

const BUCKETS: u32 = 999_999;
const WIDTH: usize = 16;
/// Private memory that opening a bundle may take: a sixth of the table's 64 MB.
const PRIVATE_KB_MAX: u64 = 10 * 1024;

/// The environment's name of the folder that the second process opens; the first has none.
const FOLDER: &str = "GAVEL_TEST_TABLES_FOLDER";
/// What the second process says when it has read its table.
const READY: &str = "the table was read";
/// Bytes of a page.
const PAGE: usize = 4096;

const SCHEMA: &str = r#"
format = 1
name = "tables"
dimension = 16
metric = "ip"
light = { scale = 1.0, offset = 0.0 }
files = { user_tower = "user.onnx", item_tower = "item.onnx", ranker = "ranker.onnx", golden = "golden.jsonl.zst" }
[[feature]]
name = "id"
side = "user"
kind = "category"
buckets = 999999
[[feature]]
name = "price"
side = "item"
kind = "dense"
[[head]]
name = "click"
kind = "probability"
"#;

/// Protobuf by hand: the messages of an ONNX file.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, tag: u64, value: u64) -> Self {
        self.varint(tag << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, tag: u64, value: &[u8]) -> Self {
        self.varint(tag << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn text(self, tag: u64, value: &str) -> Self {
        self.bytes(tag, value.as_bytes())
    }

    fn message(self, tag: u64, value: Self) -> Self {
        self.bytes(tag, &value.0)
    }
}

fn floats(name: &str, dims: &[u64], values: impl Iterator<Item = f32>) -> Message {
    let raw: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let shaped = dims.iter().fold(Message::default(), |m, d| m.number(1, *d));
    shaped.number(2, 1).text(8, name).bytes(9, &raw)
}

fn node(op: &str, inputs: &[&str], output: &str) -> Message {
    inputs.iter().fold(Message::default(), |m, i| m.text(1, i)).text(2, output).text(4, op)
}

/// An input `[B, 1]` of an element type.
fn input(name: &str, element: u64) -> Message {
    let batch = Message::default().text(2, "B");
    let shape = Message::default().message(1, batch).message(1, Message::default().number(1, 1));
    let tensor = Message::default().number(1, element).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

fn file(graph: Message) -> Vec<u8> {
    let set = Message::default().text(1, "").number(2, 17);
    Message::default().number(1, 8).message(7, graph).message(8, set).0
}

/// The embedding of the user, through `[16, columns]`, as `output`.
fn embedded(columns: u64, output: &str) -> Message {
    let rows = u64::from(BUCKETS) + 1;
    Message::default()
        .message(1, node("Gather", &["table", "id"], "rows"))
        .message(1, node("Flatten", &["rows"], "flat"))
        .message(1, node("MatMul", &["flat", "weights"], output))
        .message(5, floats("table", &[rows, WIDTH as u64], (0..rows as usize * WIDTH).map(value)))
        .message(5, floats("weights", &[WIDTH as u64, columns], (0..WIDTH * columns as usize).map(value)))
        .message(11, input("id", 7))
}

fn value(at: usize) -> f32 {
    ((at * 7_919) % 2_001) as f32 / 1_000.0 - 1.0
}

fn write(folder: &Path) {
    let output = |m: Message, name: &str| m.message(12, Message::default().text(1, name));
    let ranker =
        embedded(1, "liked").message(1, node("Add", &["liked", "price"], "click")).message(11, input("price", 1));
    let item = Message::default()
        .message(1, node("MatMul", &["price", "weights"], "vector"))
        .message(5, floats("weights", &[1, WIDTH as u64], (0..WIDTH).map(value)))
        .message(11, input("price", 1));
    let files = [
        ("bundle.toml", SCHEMA.as_bytes().to_vec()),
        ("user.onnx", file(output(embedded(16, "query"), "query"))),
        ("item.onnx", file(output(item, "vector"))),
        ("ranker.onnx", file(output(ranker, "click"))),
        ("golden.jsonl.zst", Vec::new()),
    ];
    let files = files.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
    gavel_model::bundle::pack::write_folder(folder, files).expect("the files of the bundle");
}

/// Memory of this process that it shares with nobody, in kB.
fn private_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells what a process holds");
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("a line of RssAnon");
    line.trim().trim_end_matches(" kB").parse().expect("kB")
}

/// Looks up a row of every page of the user tower's and the ranker's table.
fn read_every_page(bundle: &Bundle) {
    let mut scratch = Scratch::default();
    for row in (0..u64::from(BUCKETS)).step_by(PAGE / (WIDTH * size_of::<f32>())) {
        let user = FeatureRow { values: vec![FeatureValue::Category(row + u64::from(BUCKETS))] };
        bundle.run_user(&mut scratch, &user).expect("the user part");
    }
}

/// What a process has in memory of a folder's mapped files, and its share of it when a page counts for each process
/// that maps it by an equal part (`Rss` and `Pss` of proc_pid_smaps(5)), in kB.
fn mapped_kb(process: u32, folder: &Path) -> (u64, u64) {
    let smaps = fs::read_to_string(format!("/proc/{process}/smaps")).expect("Linux tells what a process maps");
    let (mut resident, mut share, mut is_of_folder) = (0, 0, false);
    for line in smaps.lines() {
        let kb = |name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
        if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            is_of_folder = line.ends_with(".onnx") && line.contains(&folder.display().to_string());
        } else if is_of_folder {
            resident += kb("Rss:").unwrap_or(0);
            share += kb("Pss:").unwrap_or(0);
        }
    }
    (resident, share)
}

/// The second process. As a test of the first it has nothing to do.
#[test]
fn the_second_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let bundle = Bundle::open(Path::new(&folder)).unwrap();
    read_every_page(&bundle);
    println!("{READY}");
    // Until the first has looked.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// While two processes have read every page, each page is in memory once, and half of it counts for each.
fn two_processes_share(bundle: &Bundle, folder: &Path) {
    read_every_page(bundle);
    let (resident, alone) = mapped_kb(std::process::id(), folder);
    let tables = 2 * (u64::from(BUCKETS) + 1) * WIDTH as u64 * 4 / 1024;
    assert!(resident >= tables && alone >= tables, "{resident} kB resident, {alone} kB alone, {tables} kB of tables");
    let mut second = Command::new(std::env::current_exe().expect("this program"))
        .args(["the_second_process", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the second process");
    let mut lines = BufReader::new(second.stdout.take().expect("its output")).lines();
    assert!(lines.any(|line| line.is_ok_and(|l| l.ends_with(READY))), "the second process reads its table");
    let both = [std::process::id(), second.id()].map(|process| mapped_kb(process, folder));
    second.stdin.take().expect("its input").write_all(b"\n").expect("it still waits");
    assert!(second.wait().expect("its end").success());
    println!("kB of {tables} kB of tables: alone {resident} resident, share {alone}; both (resident, share) {both:?}");
    for (resident, share) in both {
        assert!(resident >= tables && share <= resident * 11 / 20, "{share} kB of {resident} kB count for one");
    }
}

#[test]
fn a_large_table_stays_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let before = private_kb();
    let first = Bundle::open(folder.path()).unwrap();
    let one = private_kb().saturating_sub(before);
    let second = Bundle::open(folder.path()).unwrap();
    let two = private_kb().saturating_sub(before);
    assert!(one <= PRIVATE_KB_MAX && two <= 2 * PRIVATE_KB_MAX, "{one} kB private after one open, {two} kB after two");
    drop(second);
    two_processes_share(&first, folder.path());
    let second = Bundle::open(folder.path()).unwrap();

    let (mut scratch, items) = (Scratch::default(), [FeatureRow { values: vec![FeatureValue::Dense(0.25)] }]);
    for bundle in [&first, &second] {
        let activations = bundle.run_items(&mut scratch, &items).unwrap().activations;
        for hash in (0..2_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let user = FeatureRow { values: vec![FeatureValue::Category(hash)] };
            let output = bundle.run_user(&mut scratch, &user).unwrap();
            let row = table_row(hash, BUCKETS) as usize;
            let term = |i: usize, column: usize| f64::from(value(row * WIDTH + i)) * f64::from(value(column));
            let liked: f64 = (0..WIDTH).map(|i| term(i, i)).sum();
            let mut raw = Vec::new();
            bundle.rank_raw(&mut scratch, &output.part, &activations, &[], 1, &mut raw).unwrap();
            assert!((f64::from(raw[0]) - liked - 0.25).abs() < 1e-4, "row {row}: {} {liked}", raw[0]);
            let query: f64 = (0..WIDTH).map(|i| term(i, i * WIDTH + 3)).sum();
            assert!((f64::from(output.query[3]) - query).abs() < 1e-4, "row {row}");
        }
    }
}
