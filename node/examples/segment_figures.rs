//! What do a segment's bytes, build and searches cost on this machine?
//!
//! `cargo run --release -p gavel-node --example segment_figures -- [items] [dimension]` seals synthetic,
//! clustered items, once with f32 and once with bf16 vectors, and prints sizes and times. Ten thousandths
//! of the items pass each filter; recall is against the exact scan.

use gavel_node::{
    retrieval::{Method, Mode, RetrievalQuery, RetrievalScratch, retrieve},
    segment::{
        Content, ContentBuilder, DocAd, DocItem, DocRule, Metric, ModelFolder, ModelFolderBuilder, ModelSpec,
        SegmentError, ShardKey, TargetingQuery, Term, VectorFormat,
    },
    shard::Shard,
};
use gavel_proto::{
    hash::mix64,
    ids::{AdId, AdvertiserId, CampaignId, ItemId},
};
use std::{collections::BTreeSet, path::Path, sync::Arc};

const KEY: ShardKey = ShardKey { generation: 1, shard: 0 };
const PASS: [u64; 6] = [10_000, 5_000, 2_000, 1_000, 300, 100];
const QUOTA: u32 = 78;
const QUERIES: u64 = 40;

fn now() -> u64 {
    gavel_member::clock::now_us().0
}

fn unit(seed: u64) -> f32 {
    (mix64(seed) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn vector(n: u64, dimension: u64) -> Vec<f32> {
    let cluster = mix64(n) % 1_000;
    let at = |d| unit(cluster * 4_096 + d + 1) + 0.5 * unit((n + 1) << 24 | d);
    (0..dimension).map(|d| at(d) / (dimension as f32).sqrt()).collect()
}

fn seal_content(folder: &Path, items: u64) -> Result<(), SegmentError> {
    let mut builder = ContentBuilder::new(folder, KEY)?;
    for n in 0..items {
        let item = ItemId(n + 1);
        builder.push_item(DocItem { item, advertiser: AdvertiserId(n % 999), ..DocItem::default() })?;
        let any_of = PASS.into_iter().filter(|pass| mix64(n ^ pass << 40) % 10_000 < *pass).collect();
        let targeting = vec![DocRule { dimension: 1, any_of, none_of: vec![], ..DocRule::default() }];
        builder.push_ad(&DocAd {
            ad: AdId(n + 1),
            item,
            campaign: CampaignId(n % 5_000),
            targeting,
            ..DocAd::default()
        })?;
    }
    let start = now();
    let summary = builder.seal()?;
    println!(
        "content: {:.1} bytes an item, sealed in {} ms",
        summary.bytes as f64 / items as f64,
        (now() - start) / 1_000
    );
    Ok(())
}

fn search(shard: &Shard, dimension: u64) -> Result<(), SegmentError> {
    let mut scratch = RetrievalScratch::default();
    println!("pass rate | eligible us | scan us | GB/s | walk us | recall | planner");
    for pass in PASS {
        let terms = [Term { dimension: 1, values: vec![pass], ..Term::default() }];
        let targeting = TargetingQuery { terms: &terms, ..TargetingQuery::default() };
        let (mut eligible_us, mut scan_us, mut walk_us, mut hits, mut wanted) = (0, 0, 0, 0, 0);
        let (mut planned, mut eligible) = (Method::Nothing, 0);
        for q in 0..QUERIES {
            let vector = vector(1 << 40 | q, dimension);
            let expired = || false;
            let mode = |mode| RetrievalQuery {
                vector: &vector,
                targeting,
                quota: QUOTA,
                mode,
                values: None,
                expired: &expired,
                cpu_us: &now,
            };
            let start = now();
            eligible = shard.eligible(&targeting).count;
            let (start, elapsed) = (now(), now() - start);
            eligible_us += elapsed;
            let exact = retrieve(shard, &mode(Mode::Exact), &mut scratch)?;
            scan_us += (now() - start).saturating_sub(elapsed);
            let start = now();
            let walked = retrieve(shard, &mode(Mode::Graph), &mut scratch)?;
            walk_us += (now() - start).saturating_sub(elapsed);
            planned = retrieve(shard, &mode(Mode::Auto), &mut scratch)?.plan.method;
            let truth: BTreeSet<u32> = exact.items.iter().map(|(item, _)| *item).collect();
            hits += walked.items.iter().filter(|(item, _)| truth.contains(item)).count();
            wanted += truth.len();
        }
        let bytes = f64::from(eligible) * dimension as f64 * shard.model().format().width() as f64;
        println!(
            "{:>7.1} % | {:>6} | {:>6} | {:.1} | {:>6} | {:.3} | {planned:?}",
            pass as f64 / 100.0,
            eligible_us / QUERIES,
            scan_us / QUERIES,
            bytes / (scan_us as f64 / QUERIES as f64) / 1_000.0,
            walk_us / QUERIES,
            f64::from(hits as u32) / wanted.max(1) as f64,
        );
    }
    Ok(())
}

fn main() -> Result<(), SegmentError> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().unwrap_or(0)).filter(|n| *n > 0);
    let (items, dimension) = (arguments.next().unwrap_or(50_000), arguments.next().unwrap_or(64));
    let dir = std::env::temp_dir().join(format!("gavel-segment-figures-{}", std::process::id()));
    seal_content(&dir.join("content"), items)?;
    let content = Arc::new(Content::open(&dir.join("content"), KEY)?);
    for format in [VectorFormat::F32, VectorFormat::Bf16] {
        let folder = dir.join(format!("{format:?}"));
        let spec = ModelSpec {
            bundle: [1; 32],
            dimension: dimension as usize,
            metric: Metric::Ip,
            format,
            rescore: None,
            activation_width: 0,
            activation_format: VectorFormat::F32,
        };
        let mut builder = ModelFolderBuilder::new(&folder, &content, spec)?;
        let start = now();
        for n in 0..items {
            builder.push(&vector(n, dimension), &[])?;
        }
        let summary = builder.seal(&now)?;
        let built = (now() - start) / 1_000;
        let start = now();
        let model = Arc::new(ModelFolder::open(&folder, &content, [1; 32])?);
        println!(
            "{format:?}: {:.1} bytes an item, built in {built} ms, verified and opened in {} ms, {:?}",
            summary.bytes as f64 / items as f64,
            (now() - start) / 1_000,
            summary.calibration
        );
        let shard = Shard::sealed(Arc::clone(&content), model)?;
        shard.prefault();
        println!("{:?}", shard.residency());
        search(&shard, dimension)?;
    }
    std::fs::remove_dir_all(&dir).map_err(|source| SegmentError::Io { path: dir, source })
}
