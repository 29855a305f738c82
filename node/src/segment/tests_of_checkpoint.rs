//! Is the work of an interrupted builder used when it is whole, and only then?

use super::checkpoint::{FORMAT, Progress};
use super::testing::{BUNDLE, DIMENSION, activations, clock, clustered, sealed_content};
use super::*;
use std::fs;
use std::path::Path;

const ITEMS: usize = 400;

fn spec(format: VectorFormat, rescore: Option<VectorFormat>) -> ModelSpec {
    ModelSpec {
        bundle: BUNDLE,
        dimension: DIMENSION,
        metric: Metric::Ip,
        format,
        rescore,
        activation_width: 3,
        activation_format: VectorFormat::F32,
    }
}

fn push(builder: &mut ModelFolderBuilder, vectors: &[Vec<f32>], rows: std::ops::Range<usize>) {
    let of_rows: Vec<f32> = rows.clone().flat_map(|row| activations(row as u64)).collect();
    builder.push(&vectors[rows].concat(), &of_rows).unwrap();
}

/// Makes 200 rows safe, adds 100 and goes away.
fn interrupted(folder: &Path, content: &Content, spec: ModelSpec, vectors: &[Vec<f32>]) {
    let mut builder = ModelFolderBuilder::new(folder, content, spec).unwrap();
    push(&mut builder, vectors, 0..200);
    builder.checkpoint().unwrap();
    push(&mut builder, vectors, 200..300);
}

fn building(folder: &Path) -> std::path::PathBuf {
    folder.with_file_name(format!("{}{BUILDING}", folder.file_name().unwrap().to_string_lossy()))
}

#[test]
fn what_was_safe_is_gone_on_with_and_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), ITEMS as u64, 1);
    let vectors = clustered(ITEMS, DIMENSION, 2);
    for format in [VectorFormat::I8, VectorFormat::Bf16] {
        let spec = spec(format, Some(VectorFormat::F32));
        let (one, two) = (dir.path().join(format!("one{format:?}")), dir.path().join(format!("two{format:?}")));
        let mut whole = ModelFolderBuilder::resume(&one, &content, spec).unwrap();
        assert_eq!(whole.rows(), 0, "nothing was there");
        push(&mut whole, &vectors, 0..ITEMS);
        whole.seal(&clock).unwrap();
        interrupted(&two, &content, spec, &vectors);
        let mut rest = ModelFolderBuilder::resume(&two, &content, spec).unwrap();
        assert_eq!(rest.rows(), 200, "what came after the checkpoint is not safe");
        push(&mut rest, &vectors, 200..ITEMS);
        rest.checkpoint().unwrap();
        // Interrupted while items are linked: no row is lost.
        let mut pauses = 0;
        let stopped = rest.seal_with(&clock, &mut |_| {
            pauses += 1;
            if pauses > 2 { Err(SegmentError::Interrupted) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(SegmentError::Interrupted)));
        let rest = ModelFolderBuilder::resume(&two, &content, spec).unwrap();
        assert_eq!(rest.rows() as usize, ITEMS);
        rest.seal(&clock).unwrap();
        for file in ["graph", "rescore", "activations"] {
            assert!(fs::read(one.join(file)).unwrap() == fs::read(two.join(file)).unwrap(), "{file} {format:?}");
        }
        assert!(!two.join("progress").exists() && !building(&two).exists());
        ModelFolder::open(&two, &content, BUNDLE).unwrap();
    }
}

/// The graph is written, its search is being timed, and the process is killed.
#[test]
fn a_kill_behind_the_linking_costs_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), ITEMS as u64, 1);
    let vectors = clustered(ITEMS, DIMENSION, 2);
    let spec = spec(VectorFormat::I8, Some(VectorFormat::F32));
    let folder = dir.path().join("model");
    let mut builder = ModelFolderBuilder::new(&folder, &content, spec).unwrap();
    push(&mut builder, &vectors, 0..ITEMS);
    builder.checkpoint().unwrap();
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.seal(&|| panic!("killed"))));
    assert!(killed.is_err() && building(&folder).join("graph").exists());
    let builder = ModelFolderBuilder::resume(&folder, &content, spec).unwrap();
    assert_eq!(builder.rows() as usize, ITEMS);
    builder.seal(&clock).unwrap();
    ModelFolder::open(&folder, &content, BUNDLE).unwrap();
}

/// Another build of the same version, which means something else by the same bytes.
#[test]
fn a_checkpoint_of_another_format_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), ITEMS as u64, 1);
    let spec = spec(VectorFormat::I8, Some(VectorFormat::F32));
    let folder = dir.path().join("model");
    interrupted(&folder, &content, spec, &clustered(ITEMS, DIMENSION, 2));
    let path = building(&folder).join("progress");
    let (found, _) = codec::decode::<Progress>(&path, &fs::read(&path).unwrap()).unwrap();
    found.in_format(FORMAT - 1).write(&path).unwrap();
    assert_eq!(ModelFolderBuilder::resume(&folder, &content, spec).unwrap().rows(), 0);
}

#[test]
fn what_is_not_as_it_was_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), ITEMS as u64, 1);
    let other = sealed_content(&dir.path().join("other"), ITEMS as u64, 2);
    let vectors = clustered(ITEMS, DIMENSION, 2);
    let exact = spec(VectorFormat::I8, Some(VectorFormat::F32));
    let folder = dir.path().join("model");
    let rows = |content: &Content, spec| ModelFolderBuilder::resume(&folder, content, spec).unwrap().rows();
    let left = || interrupted(&folder, &content, exact, &vectors);
    left();
    assert_eq!(rows(&content, exact), 200);
    left();
    assert_eq!(rows(&other, exact), 0, "other items");
    left();
    assert_eq!(rows(&content, ModelSpec { bundle: [9; 32], ..exact }), 0, "another bundle");
    left();
    assert_eq!(rows(&content, ModelSpec { activation_width: 4, ..exact }), 0, "another form");
    for name in ["rescore", "activations", "progress"] {
        left();
        let path = building(&folder).join(name);
        let mut bytes = fs::read(&path).unwrap();
        // Within what was safe: the last bytes of a file may be from after the checkpoint.
        let at = bytes.len() / 3;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(rows(&content, exact), 0, "a flipped bit in {name}");
        left();
        let path = building(&folder).join(name);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
        assert_eq!(rows(&content, exact), 0, "{name} ends early");
        left();
        fs::remove_file(building(&folder).join(name)).unwrap();
        assert_eq!(rows(&content, exact), 0, "{name} has gone");
    }
    // Vectors that are not kept as the tower made them cannot be scaled again.
    let rounded = spec(VectorFormat::I8, Some(VectorFormat::Bf16));
    fs::remove_dir_all(building(&folder)).unwrap();
    interrupted(&folder, &content, rounded, &vectors);
    assert_eq!(rows(&content, rounded), 0);
}
