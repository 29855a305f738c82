//! Does the code still have the shape that the documents promise?
//!
//! Crate edges, module edges, kernel bans, sizes, module docs, unsafe code, supply-chain floors and the names in the
//! documents. Every rule has an empty list of exceptions: a rule that does not fit is changed here, with its reason.

use gavel_tests::repository::{files, root};
use gavel_tests::source::{code_only, crate_names, functions, production};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Longest production part of a file.
const FILE_LINES_MAX: usize = 500;
/// Longest function.
const FUNCTION_LINES_MAX: usize = 70;
/// Longest module documentation.
const MODULE_DOC_LINES_MAX: usize = 40;

/// Crate → what it may depend on. `gavel-tests` sees everything.
const CRATE_EDGES: &[(&str, &str, &[&str])] = &[
    ("proto", "gavel-proto", &[]),
    ("proto/model", "gavel-model", &["gavel-proto"]),
    ("cluster/member", "gavel-member", &["gavel-proto"]),
    ("cluster", "gavel-control", &["gavel-proto", "gavel-member"]),
    ("node", "gavel-node", &["gavel-proto", "gavel-model", "gavel-member"]),
    ("router", "gavel-router", &["gavel-proto", "gavel-model", "gavel-member"]),
    ("router/client", "gavel-client", &["gavel-proto"]),
    ("bench", "gavel-bench", &["gavel-proto", "gavel-model", "gavel-client", "gavel-router", "gavel-control"]),
    (
        "cluster/bootstrap",
        "gavel",
        &[
            "gavel-proto",
            "gavel-model",
            "gavel-member",
            "gavel-control",
            "gavel-node",
            "gavel-router",
            "gavel-client",
            "gavel-bench",
        ],
    ),
];

/// Per crate, its modules from the bottom up; modules of one row do not import each other.
const MODULE_ORDER: &[(&str, &[&[&str]])] = &[
    (
        "node/src",
        &[
            &["config", "segment", "frequency"],
            &["shard"],
            &["retrieval", "features"],
            &["ranking"],
            &["staging"],
            &["pipeline"],
            &["rpc", "figures"],
        ],
    ),
    (
        "router/src",
        &[
            &["config", "topology", "quota", "merge", "logged", "line_log"],
            &["fanout", "auction", "parquet_log"],
            &["allocation", "clear", "packing"],
            &["clearing"],
            &["clearing_log", "request"],
            &["convert"],
            &["users"],
            &["features"],
            &["transport"],
            &["ledger", "campaigns"],
            &["staging", "respond"],
            &["scored_log"],
            &["pipeline"],
            &["rpc", "http"],
            &["server"],
        ],
    ),
    (
        "cluster/src",
        &[
            &["placement"],
            &["state", "ledger"],
            &["audit"],
            &["guards", "pacing"],
            &["publish", "reconcile", "consensus", "blobs"],
            &["catalogue"],
            &["convert"],
            &["raft", "transport"],
            &["error", "rpc"],
            &["formation", "lead", "pace"],
            &["run"],
        ],
    ),
];

/// Modules that decide: no runtime, no wire library, no log, no random source, no clock, no files.
const KERNELS: &[&str] = &[
    "proto/src",
    "router/src/topology",
    "router/src/fanout",
    "router/src/quota",
    "router/src/merge",
    "router/src/auction",
    "router/src/allocation",
    "router/src/clear",
    "router/src/clearing",
    "router/src/logged",
    "node/src/ranking",
    "node/src/features",
    "node/src/frequency/kernel",
    "cluster/src/state",
    "cluster/src/ledger",
    "cluster/src/audit",
    "router/src/ledger/purse",
    "router/src/ledger/served",
    "cluster/src/pacing",
    "cluster/src/guards",
    "cluster/src/placement",
    "cluster/src/reconcile",
    "cluster/src/publish",
];

/// What a kernel may not name.
const KERNEL_BANS: &[&str] =
    &["tokio::", "tonic::transport", "tracing::", "rand::", "Instant::now", "SystemTime", "std::fs", "gavel_member"];

/// Where `unsafe` may stand: mappings, the graph library, numeric kernels and what measures them, and the process's
/// edge.
const UNSAFE_HOMES: &[&str] = &[
    "node/src/segment",
    "node/src/retrieval",
    "proto/model/src",
    "proto/model/examples",
    "cluster/member/src",
    "cluster/bootstrap/src",
    "node/src/pipeline",
    "router/src/pipeline",
    "bench/src",
];

/// Major, minor, patch.
type Version = (u64, u64, u64);

/// Oldest versions without a known fault that concerns us, and crates that are not let in at all (floor `None`).
const FLOORS: &[(&str, Option<Version>)] = &[
    ("openraft", Some((0, 9, 25))),
    ("tonic", Some((0, 14, 9))),
    ("h2", Some((0, 4, 20))),
    ("memmap2", Some((0, 9, 12))),
    ("tokio", Some((1, 44, 2))),
    ("bytes", Some((1, 11, 1))),
    ("bincode", Some((2, 0, 1))),
    ("crossbeam-epoch", Some((0, 9, 20))),
    ("cxx", Some((1, 0, 195))),
    ("slab", Some((0, 4, 11))),
    ("tracing-subscriber", Some((0, 3, 20))),
    ("rustls", Some((0, 23, 45))),
    ("ring", Some((0, 17, 12))),
    ("rkyv", None),
    ("rustls-pemfile", None),
    ("tar", None),
    ("zip", None),
    ("rsa", None),
    ("protobuf", None),
    ("instant", None),
    ("backoff", None),
    ("fxhash", None),
    ("atty", None),
    ("serde_cbor", None),
    ("proc-macro1", None),
    ("proc-macro-en", None),
    ("append-only-vec", None),
    ("internment", None),
];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn sources() -> Vec<PathBuf> {
    files(&root(), ".rs")
}

fn none(problems: &str) {
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn crate_edges_point_one_way() {
    let mut problems = String::new();
    for (folder, name, allowed) in CRATE_EDGES {
        let manifest: toml::Table = read(&root().join(folder).join("Cargo.toml")).parse().expect("a manifest");
        assert_eq!(manifest["package"]["name"].as_str(), Some(*name));
        let dependencies = manifest["dependencies"].as_table().expect("dependencies");
        for dependency in dependencies.keys().filter(|d| d.starts_with("gavel")) {
            if !allowed.contains(&dependency.as_str()) {
                let _ = writeln!(problems, "{name} depends on {dependency}");
            }
        }
    }
    none(&problems);
}

#[test]
fn module_edges_point_one_way() {
    let mut problems = String::new();
    for (folder, rows) in MODULE_ORDER {
        let rank: BTreeMap<&str, usize> =
            rows.iter().enumerate().flat_map(|(r, names)| names.iter().map(move |n| (*n, r))).collect();
        for path in files(&root().join(folder), ".rs") {
            let Some(own) = module_of(&root().join(folder), &path) else { continue };
            // Test code may drive a module through what stands above it.
            let is_test = path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "tests.rs");
            if own == "lib" || is_test {
                continue;
            }
            let Some(own_rank) = rank.get(own.as_str()) else {
                let _ = writeln!(problems, "{}: {own} has no place in the order of modules", shown(&path));
                continue;
            };
            let code = code_only(&read(&path));
            for other in crate_names(production(&code)).iter().filter(|other| **other != own) {
                if rank.get(other.as_str()).is_some_and(|other_rank| other_rank >= own_rank) {
                    let _ = writeln!(problems, "{}: {own} imports {other}", shown(&path));
                }
            }
        }
    }
    none(&problems);
}

/// The top-level module that a file belongs to.
fn module_of(folder: &Path, path: &Path) -> Option<String> {
    let first = path.strip_prefix(folder).ok()?.components().next()?;
    Some(first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned())
}

#[test]
fn kernels_only_decide() {
    let mut problems = String::new();
    for kernel in KERNELS {
        let folder = root().join(kernel);
        let mut paths = files(&folder, ".rs");
        paths.extend(Some(folder.with_extension("rs")).filter(|p| p.is_file()));
        assert!(!paths.is_empty(), "{kernel} has gone: mend the list of kernels");
        for path in paths {
            let code = code_only(&read(&path));
            let code = production(&code);
            for ban in KERNEL_BANS.iter().filter(|ban| code.contains(**ban)) {
                let _ = writeln!(problems, "{}: a kernel names {ban}", shown(&path));
            }
        }
    }
    none(&problems);
}

#[test]
fn files_and_functions_end_in_time() {
    let mut problems = String::new();
    for path in sources() {
        let code = code_only(&read(&path));
        let production = production(&code);
        let lines = production.lines().count();
        if lines > FILE_LINES_MAX {
            let _ = writeln!(problems, "{}: {lines} production lines", shown(&path));
        }
        for f in functions(production).iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            let _ = writeln!(problems, "{}:{}: fn {} has {} lines", shown(&path), f.line, f.name, f.lines);
        }
    }
    none(&problems);
}

#[test]
fn every_module_says_what_it_answers() {
    let mut problems = String::new();
    for path in sources() {
        let text = read(&path);
        let doc = text.lines().take_while(|l| l.starts_with("//!")).count();
        if doc == 0 {
            let _ = writeln!(problems, "{}: no module documentation", shown(&path));
        }
        if doc > MODULE_DOC_LINES_MAX {
            let _ = writeln!(problems, "{}: {doc} lines of module documentation", shown(&path));
        }
    }
    none(&problems);
}

#[test]
fn unsafe_stays_at_home_and_no_test_is_switched_off() {
    let mut problems = String::new();
    for path in sources() {
        let code = code_only(&read(&path));
        let name = shown(&path);
        let words = || code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if words().any(|w| w == "unsafe") && !UNSAFE_HOMES.iter().any(|home| name.starts_with(home)) {
            let _ = writeln!(problems, "{name}: unsafe code");
        }
        for banned in ["#[ignore", "todo!(", "unimplemented!("] {
            if code.contains(banned) {
                let _ = writeln!(problems, "{name}: {banned}");
            }
        }
    }
    none(&problems);
}

#[test]
fn the_lock_file_keeps_the_floors() {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().expect("a lock file");
    let mut problems = String::new();
    for package in lock["package"].as_array().expect("packages") {
        let (name, version) = (package["name"].as_str().unwrap_or(""), package["version"].as_str().unwrap_or(""));
        let Some((_, floor)) = FLOORS.iter().find(|(n, _)| *n == name) else { continue };
        let numbers: Vec<u64> = version.split(['.', '-', '+']).take(3).filter_map(|n| n.parse().ok()).collect();
        let found = (numbers[0], numbers[1], numbers[2]);
        match floor {
            Some(floor) if found >= *floor => {}
            Some(floor) => {
                let _ = writeln!(problems, "{name} {version} is older than {floor:?}");
            }
            None => {
                let _ = writeln!(problems, "{name} is not let in");
            }
        }
    }
    none(&problems);
}

/// Names of metrics in the code equal those of the table in the operations guide.
#[test]
fn metrics_are_documented() {
    let mut in_code = BTreeSet::new();
    for path in sources().iter().filter(|p| !shown(p).starts_with("tests/")) {
        let text = read(path);
        for (at, _) in text.match_indices("\"gavel_") {
            let name: String = text[at + 1..].chars().take_while(|c| *c != '"').collect();
            let is_metric = name.ends_with("_total")
                || name.ends_with("_us")
                || name.ends_with("_bytes")
                || name.ends_with("_count");
            if is_metric && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                in_code.insert(name);
            }
        }
    }
    let guide = read(&root().join("docs/OPERATIONS.md"));
    let in_guide: BTreeSet<String> = guide
        .lines()
        .filter_map(|l| l.strip_prefix("| `gavel_"))
        .filter_map(|l| l.split('`').next())
        .map(|n| format!("gavel_{n}"))
        .collect();
    assert!(!in_code.is_empty(), "the servers count something");
    assert_eq!(in_code, in_guide, "left: in the code; right: in docs/OPERATIONS.md");
}

#[test]
fn documents_name_files_that_exist() {
    let mut problems = String::new();
    for path in files(&root(), ".md") {
        for word in read(&path).split('`').skip(1).step_by(2) {
            let is_path = word.contains('/')
                && [".rs", ".md", ".toml", ".proto", ".sh", ".py"].iter().any(|e| word.ends_with(e))
                && !word.contains([' ', '<', '*', '{', '$'])
                && !word.starts_with("../shared");
            let beside = path.parent().is_some_and(|p| p.join(word).exists());
            if is_path && !beside && !root().join(word).exists() {
                let _ = writeln!(problems, "{} names {word}", shown(&path));
            }
        }
    }
    none(&problems);
}

/// A place that was left for measured figures has them.
#[test]
fn documents_have_their_figures() {
    let mut problems = String::new();
    for path in files(&root(), ".md") {
        for (line, text) in (1..).zip(read(&path).lines()).filter(|(_, text)| text.contains("FIGURES-")) {
            let _ = writeln!(problems, "{}:{line}: {}", shown(&path), text.trim());
        }
    }
    none(&problems);
}

/// The top level holds what was agreed, and nothing else.
#[test]
fn the_top_level_is_as_agreed() {
    let agreed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "rust-toolchain.toml",
        "docs",
        "node",
        "router",
        "proto",
        "bench",
        "cluster",
        "tests",
        "target",
    ];
    for entry in std::fs::read_dir(root()).expect("the root").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || agreed.contains(&name.as_str()), "{name} is not agreed at the top level");
    }
}
