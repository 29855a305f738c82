//! How good is the search over the vectors in these files? (`gavel bench ann`)
//!
//! Reads the files, has the node's own code seal and search them, and prints what came of it. The command stands
//! here and not with the other benchmarks because those see servers from outside only, and this one needs the
//! node's segments.

use crate::failure::Failure;
use gavel_bench::arrays::{read_ids, read_vectors};
use gavel_node::figures::{AnnReport, AnnSetup, Dataset, FilteredRow, Point, WayFigures, measure};
use gavel_node::segment::{Metric, VectorFormat};
use std::path::{Path, PathBuf};

/// What to search, for what, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct AnnArgs {
    /// Vectors to search: .npy or IDX, also .gz; FILE@FROM:TO takes a range of rows.
    #[arg(long)]
    base: String,
    /// Vectors to search for, likewise.
    #[arg(long)]
    queries: String,
    /// Rows of the base that are nearest to each query, nearest first: .npy of i4 or i8.
    #[arg(long)]
    truth: String,
    /// What near means: euclidean distance, cosine or inner product.
    #[arg(long, value_enum)]
    metric: MetricArg,
    /// How vectors are stored for the search.
    #[arg(long, value_enum, default_value_t = FormatArg::I8)]
    format: FormatArg,
    /// Whether the best are compared again, with a second column.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    rescore: Switch,
    /// The format of that column; a node keeps f32.
    #[arg(long, value_enum, default_value_t = FormatArg::F32)]
    rescore_format: FormatArg,
    /// Lengths of the list, one point of the curve each.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024])]
    ef: Vec<usize>,
    /// Percent of the vectors that pass a filter; without it there is no filtered table.
    #[arg(long, value_delimiter = ',')]
    filter_selectivity: Vec<f64>,
    /// Queries under each filter.
    #[arg(long, default_value_t = 100)]
    filtered_queries: usize,
    /// Formats in which the bare library is measured beside ours.
    #[arg(long, value_enum, value_delimiter = ',')]
    bare: Vec<FormatArg>,
    /// Threads of the batch.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// CPU seconds of a point of the curve, at least.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Keep what is sealed in this folder, and take it from there if it is there already: a graph takes long to build.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Write everything as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MetricArg {
    L2,
    Cos,
    Ip,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FormatArg {
    F32,
    Bf16,
    F16,
    I8,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

impl From<FormatArg> for VectorFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::F32 => Self::F32,
            FormatArg::Bf16 => Self::Bf16,
            FormatArg::F16 => Self::F16,
            FormatArg::I8 => Self::I8,
        }
    }
}

/// `gavel bench ann`.
pub fn run(args: &AnnArgs) -> Result<(), Failure> {
    let setup = setup(args)?;
    let base = read_vectors(&args.base).map_err(Failure::usage)?;
    let mut queries = read_vectors(&args.queries).map_err(Failure::usage)?;
    let truth = read_ids(&args.truth).map_err(Failure::usage)?;
    if base.width != queries.width {
        return Err(Failure::usage(format!("vectors of {} and queries of {} dimensions", base.width, queries.width)));
    }
    // A truth over the first of the queries is a truth.
    let known = truth.values.len() / truth.width;
    queries.values.truncate(known * queries.width);
    let metric = match args.metric {
        MetricArg::L2 => Metric::L2,
        MetricArg::Cos => Metric::Cos,
        MetricArg::Ip => Metric::Ip,
    };
    let data = Dataset {
        base: &base.values,
        queries: &queries.values,
        truth: &truth.values,
        depth: truth.width,
        dimension: base.width,
        metric,
    };
    let passing = Passing(std::env::temp_dir().join(format!("gavel-bench-ann-{}", std::process::id())));
    let folder = args.keep.as_ref().unwrap_or(&passing.0);
    let say = |what: &str| eprintln!("{what}");
    let report = measure(data, &setup, folder, &say).map_err(Failure::usage)?;
    print(&report);
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    Ok(())
}

fn setup(args: &AnnArgs) -> Result<AnnSetup, Failure> {
    if args.ef.contains(&0) || args.ef.is_empty() || args.threads == 0 || args.threads > 256 {
        return Err(Failure::usage("--ef takes numbers from 1, --threads from 1 to 256"));
    }
    let selectivities: Vec<f64> = args.filter_selectivity.iter().map(|percent| percent / 100.0).collect();
    if !selectivities.iter().all(|share| *share > 0.0 && *share <= 1.0) {
        return Err(Failure::usage("--filter-selectivity takes percents above 0, to 100"));
    }
    let rescore = match args.rescore {
        Switch::On => Some(args.rescore_format.into()),
        Switch::Off => None,
    };
    Ok(AnnSetup {
        format: args.format.into(),
        rescore,
        lists: args.ef.clone(),
        selectivities,
        filtered_queries: args.filtered_queries.max(1),
        bare: args.bare.iter().map(|format| (*format).into()).collect(),
        threads: args.threads,
        seconds: args.seconds.clamp(0.0, 600.0),
    })
}

/// A folder that goes with the run.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        // Nothing was ever sealed there, or it is of no use any more.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write_json(path: &Path, report: &AnnReport) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report).map_err(Failure::other)?;
    std::fs::write(path, text + "\n").map_err(|e| Failure::io(format!("{}: {e}", path.display())))
}

fn print(report: &AnnReport) {
    let build = &report.build;
    println!(
        "{} vectors x {}: built in {:.1} CPU s; bytes a vector: {} + {:.1} of links + {:.1} for rescoring; opened in {:.0} ms",
        build.rows,
        build.dimension,
        build.build_s,
        build.vector_bytes,
        build.link_bytes,
        build.rescore_bytes,
        build.open_ms
    );
    println!("\nours: ef | recall@10 | QPS a core");
    report.curve.iter().for_each(print_point);
    for bare in &report.bare {
        println!(
            "\nusearch {}: built in {:.1} CPU s, {:.1} bytes a vector; ef | recall@10 | QPS a core",
            bare.format, bare.build_s, bare.bytes
        );
        bare.curve.iter().for_each(print_point);
    }
    let batch = &report.batch;
    println!(
        "\n{} threads, ef {}: {:.0} QPS against {:.0} of one ({:.2} x); {:.0} QPS a core",
        batch.threads,
        batch.list,
        batch.qps_of_all,
        batch.qps_of_one,
        batch.qps_of_all / batch.qps_of_one,
        batch.qps_per_cpu_of_all
    );
    if !report.filtered.is_empty() {
        println!(
            "\nfilter: % | kind | us/recall@100 of scan | filtered walk | walk, then filter | planner | choices | expected us | x best"
        );
    }
    report.filtered.iter().for_each(print_row);
}

fn print_point(point: &Point) {
    println!("{:>6} | {:.4} | {:.0}", point.list, point.recall, point.qps);
}

fn print_row(row: &FilteredRow) {
    let way = |way: &WayFigures| format!("{:.0}/{:.3}", way.us, way.recall);
    println!(
        "{} | {} | {} | {} | {} | {} | {}/{}/{} | {:.0} | {}",
        row.share * 100.0,
        row.kind,
        way(&row.scan),
        way(&row.filtered),
        row.plain.as_ref().map_or_else(|| "-".to_owned(), way),
        way(&row.planned),
        row.choices[0],
        row.choices[1],
        row.choices[2],
        row.estimate_us,
        row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
    );
}
