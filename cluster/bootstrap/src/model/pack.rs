//! Which bundle do these files make, and if none, why?
//!
//! Files are read here, within their limits; `gavel_model::author` makes the bundle. A sound bundle ends with the
//! command to run next. What is in the way goes to standard error, a line each (to standard output with
//! `--format json`), and the exit code is that of a file that is not what it should be.

use crate::cli::{Format, MadeTowers, PackArgs};
use crate::failure::Failure;
use crate::output;
use gavel_model::author::{self, Golden, Ranker, Refusal, Source, Towers, Written};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a file that is read: as many as a bundle's file may have.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a schema or of golden rows, unpacked.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// `gavel model pack`.
pub fn run(args: &PackArgs) -> Result<(), Failure> {
    let (ranker, folder) = ranker(&args.ranker)?;
    if args.template {
        print!("{}", author::template(&ranker).map_err(Failure::damaged)?);
        return Ok(());
    }
    let (Some(schema), Some(out)) = (&args.schema, &args.out) else {
        return Err(Failure::usage("--schema and --out are needed"));
    };
    if out.exists() {
        return Err(Failure::usage(format!("{} is there already: remove it or name another folder", out.display())));
    }
    let light = args.light.as_ref().map(|path| bytes(path)).transpose()?;
    let source = Source { schema: text(schema)?, ranker, towers: towers(args)?, light, golden: golden(args)? };
    // Exporters put large weights beside the graph: nothing outside its folder is read.
    let given = [&args.user_tower, &args.item_tower, &args.light].into_iter().flatten();
    let of_towers = given.filter_map(|p| p.parent().map(Path::to_path_buf));
    let folders: Vec<PathBuf> = folder.into_iter().chain(of_towers).collect();
    let beside = |name: &str| {
        let flat = !name.is_empty() && Path::new(name).file_name().is_some_and(|n| n == name);
        folders.iter().filter(|_| flat).find_map(|folder| bytes(&folder.join(name)).ok())
    };
    match author::write(&source, out, &beside) {
        Ok(written) => {
            done(&written, out, args.format);
            Ok(())
        }
        Err(Refusal::Folder(reason)) => Err(Failure::io(reason)),
        Err(Refusal::Problems(problems)) => {
            if args.format == Format::Json {
                let list: Vec<_> = problems.iter().map(|p| json!({"what": p.what, "fix": p.fix})).collect();
                println!("{}", json!({ "problems": list }));
            } else {
                problems.iter().for_each(|p| eprintln!("{}\n    {}", p.what, p.fix));
            }
            let count = problems.len();
            Err(Failure::damaged(format!("no bundle: {count} problem{}", if count == 1 { "" } else { "s" })))
        }
    }
}

fn done(written: &Written, out: &Path, format: Format) {
    let hash = output::hex(&written.hash);
    let next = format!("gavel ctl model publish {}", out.display());
    if format == Format::Json {
        let answer = json!({
            "name": written.name,
            "bundle": out.display().to_string(),
            "hash": hash,
            "golden_rows": written.golden.rows,
            "max_rel_error": written.golden.worst,
            "warnings": written.warnings,
            "next": next,
        });
        println!("{answer}");
        return;
    }
    written.warnings.iter().for_each(|w| eprintln!("note: {w}"));
    println!("bundle {} in {}", written.name, out.display());
    println!("hash {hash}");
    println!("{} golden rows, largest relative difference {:.1e}", written.golden.rows, written.golden.worst);
    println!("next: {next}");
}

/// The ranker, and the folder that its graph comes from.
fn ranker(given: &[String]) -> Result<(Ranker, Option<PathBuf>), Failure> {
    let mut models = BTreeMap::new();
    for text in given {
        // A path may have an equals sign in it: what is a file is a file.
        let (head, path) = match text.split_once('=') {
            Some((head, path)) if !Path::new(text).is_file() => (head, path),
            _ => ("", text.as_str()),
        };
        let path = Path::new(path);
        if path.extension().is_some_and(|e| e == "onnx") {
            if given.len() > 1 || !head.is_empty() {
                return Err(Failure::usage("an ONNX ranker is one file with an output for each head"));
            }
            return Ok((Ranker::Graph(bytes(path)?), path.parent().map(Path::to_path_buf)));
        }
        if models.insert(head.to_owned(), bytes(path)?).is_some() {
            return Err(Failure::usage("two models for one head: say --ranker HEAD=FILE for each"));
        }
    }
    Ok((Ranker::Trees(models), None))
}

fn towers(args: &PackArgs) -> Result<Towers, Failure> {
    match (&args.user_tower, &args.item_tower, args.towers) {
        (Some(user), Some(item), _) => Ok(Towers::Given { user: bytes(user)?, item: bytes(item)? }),
        (_, _, Some(MadeTowers::Constant)) => Ok(Towers::Constant),
        (_, _, None) => Ok(Towers::Missing),
    }
}

fn golden(args: &PackArgs) -> Result<Option<Golden>, Failure> {
    match (&args.golden, &args.golden_from) {
        (Some(path), _) => Ok(Some(Golden::Expected(text(path)?))),
        (None, Some(path)) => Ok(Some(Golden::Inputs(text(path)?))),
        (None, None) => Ok(None),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::damaged(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

fn text(path: &Path) -> Result<String, Failure> {
    let raw = bytes(path)?;
    let damaged = |e: &dyn std::fmt::Display| Failure::damaged(format!("{}: {e}", path.display()));
    let raw = if path.extension().is_some_and(|e| e == "zst") {
        let mut unpacked = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(raw.as_slice()).map_err(|e| damaged(&e))?;
        decoder.take(TEXT_BYTES_MAX + 1).read_to_end(&mut unpacked).map_err(|e| damaged(&e))?;
        unpacked
    } else {
        raw
    };
    if raw.len() as u64 > TEXT_BYTES_MAX {
        return Err(damaged(&format!("more than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(raw).map_err(|e| damaged(&e))
}
