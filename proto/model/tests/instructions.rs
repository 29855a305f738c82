//! Do the kernels still take as many instructions as when they were last looked at?
//!
//! Time on a shared machine is noise; the number of instructions is not. Each case of `examples/count.rs` runs
//! under callgrind twice, and the difference is compared with `testdata/instructions.txt`. More by over a tenth is
//! a regression to explain or to mend, less by over a tenth is to be written down. With
//! `--nocapture` the counts are printed in the form of the file.
//!
//! Without valgrind, or on a processor without AVX2, nothing is compared, and the test says so.

use gavel_model::Isa;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Share by which a count may differ: compilers differ in how they schedule and unroll.
const TOLERANCE: f64 = 0.1;

#[test]
fn kernels_take_as_many_instructions_as_before() {
    if Isa::detected() != Isa::Avx2 {
        println!("this processor has no AVX2: instruction counts were not compared");
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: instruction counts were not compared");
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/instructions.txt");
    let text = std::fs::read_to_string(file).expect("the counts");
    let mut wrong = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (case, expected) = line.split_once(' ').expect("a case and its count");
        let expected: f64 = expected.parse().expect("a number");
        let found = (instructions(case, 3) - instructions(case, 1)) / 2;
        println!("{case} {found}");
        let ratio = found as f64 / expected;
        if (ratio - 1.0).abs() > TOLERANCE {
            wrong.push(format!("{case}: {found} instructions, {expected} before: {ratio:.2} times"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Instructions of a whole run.
fn instructions(case: &str, repeats: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(example())
        .args([case, &repeats.to_string()])
        .output()
        .expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|l| l.split_once("Collected :")).and_then(|(_, n)| n.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind collected nothing:\n{text}"))
}

/// Cargo builds examples before it runs tests, beside them.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a place");
    let example = test.ancestors().nth(2).expect("a profile's folder").join("examples/count");
    assert!(example.is_file(), "{} is missing: run `cargo test -p gavel-model`", example.display());
    example
}
