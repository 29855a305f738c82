//! How long does it take to know which ads a request may see?
//!
//! `cargo run --release -p gavel-node --example targeting_figures -- [ADS | FOLDER]` evaluates requests against ADS
//! synthetic ads (by default a million) that target by nine dimensions, ranges and schedules, or against the ads and
//! requests of a corpus folder that `gavel bench corpus` wrote. Times are CPU time of the one thread that evaluates.

use gavel_node::pipeline::thread::cpu_us;
use gavel_node::segment::{
    Content, ContentBuilder, DocAd, DocItem, DocRule, DocSchedule, DocZone, SegmentError, ShardKey, TargetingQuery,
    Term,
};
use gavel_proto::hash::{mix64, value_hash};
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use gavel_proto::targeting::{Bound, Hours, Interval, order};
use std::{collections::BTreeSet, error::Error, io::BufRead, path::Path};

const KEY: ShardKey = ShardKey { generation: 1, shard: 0 };
const REQUESTS: usize = 2_000;
/// Evaluations of each request; their mean is its time, because the clock of a thread counts microseconds.
const REPEATS: u64 = 20;

/// What a request brings.
#[derive(Default)]
struct Request {
    terms: Vec<Term>,
    unix_s: i64,
    advertisers: Vec<u64>,
    categories: Vec<u64>,
    campaigns: Vec<u64>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.0) % n
    }

    /// So many of the values of a dimension.
    fn some(&mut self, count: u64, of: u64) -> Vec<u64> {
        (0..count).map(|_| 1 + self.below(of)).collect()
    }
}

/// Dimension, per cent of the ads that target by it, values of an ad, values there are, values of a request.
const SETS: [(u64, u64, u64, u64, u64); 7] = [
    (1, 60, 4, 400, 1),    // store
    (2, 30, 5, 200, 2),    // geo
    (3, 20, 1, 4, 1),      // device
    (4, 40, 1, 12, 1),     // language
    (5, 30, 3, 2_000, 20), // segment
    (6, 30, 3, 500, 10),   // interest
    (7, 10, 2, 6, 1),      // placement
];
const QUERY: u64 = 8;
const AGE: u64 = 9;

fn synthetic_ad(random: &mut Random, n: u64) -> DocAd {
    let mut targeting = Vec::new();
    for (dimension, percent, count, of, _) in SETS {
        if random.below(100) < percent {
            targeting.push(DocRule { dimension, any_of: random.some(count, of), ..DocRule::default() });
        }
    }
    if random.below(100) < 20 {
        targeting.push(DocRule { dimension: QUERY, none_of: random.some(3, 5_000), ..DocRule::default() });
    }
    if random.below(100) < 30 {
        let low = 15 + 5 * random.below(10);
        let ends = (Bound::At(low as f64), Bound::Beyond((low + 10 + random.below(30)) as f64));
        let ranges = Interval::between(ends.0, ends.1).into_iter().collect();
        targeting.push(DocRule { dimension: AGE, ranges, ..DocRule::default() });
    }
    let schedule = (random.below(100) < 20).then(|| {
        let (from, length) = (random.below(12) as u32, 8 + random.below(8) as u32);
        let mut hours = Hours::default();
        (0..168).filter(|hour| (from..from + length).contains(&(hour % 24))).for_each(|hour| hours.insert(hour));
        DocSchedule { zone: ["a", "b", "c"][random.below(3) as usize].to_owned(), hours }
    });
    let campaign = CampaignId(random.below(5_000));
    DocAd { ad: AdId(n), item: ItemId(n), campaign, ad_group: 0, targeting, schedule }
}

fn synthetic(folder: &Path, ads: u64) -> Result<Vec<Request>, SegmentError> {
    let mut builder = ContentBuilder::new(folder, KEY)?;
    for (name, offset) in [("a", 0), ("b", 3_600), ("c", 19_800)] {
        builder.push_zone(DocZone { name: name.to_owned(), offsets: vec![(0, offset)] })?;
    }
    let mut random = Random(7);
    for n in 1..=ads {
        let categories = vec![random.below(30), 100 + random.below(300)];
        let advertiser = AdvertiserId(random.below(1_000));
        builder.push_item(DocItem { item: ItemId(n), advertiser, categories, ..DocItem::default() })?;
        builder.push_ad(&synthetic_ad(&mut random, n))?;
    }
    builder.seal()?;
    let request = |n: usize| {
        let mut random = Random(1 << 40 | n as u64);
        let mut terms: Vec<Term> = SETS
            .iter()
            .map(|(dimension, _, _, of, count)| Term {
                dimension: *dimension,
                values: random.some(*count, *of),
                number: None,
            })
            .collect();
        terms.push(Term { dimension: QUERY, values: random.some(5, 5_000), number: None });
        terms.push(Term { dimension: AGE, values: vec![], number: order((15 + random.below(60)) as f64) });
        Request {
            terms,
            // Requests of one hour, as serving has them.
            unix_s: 1_774_000_000,
            advertisers: random.some(3, 1_000),
            categories: random.some(3, 29),
            campaigns: random.some(20, 5_000),
        }
    };
    Ok((0..REQUESTS).map(request).collect())
}

fn lines(folder: &Path, name: &str) -> Result<impl Iterator<Item = serde_json::Value>, Box<dyn Error>> {
    let file = std::fs::File::open(folder.join(format!("{name}.jsonl.zst")))?;
    let lines = std::io::BufReader::new(zstd::Decoder::new(file)?).lines();
    Ok(lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()))
}

fn hashes(values: &serde_json::Value) -> Vec<u64> {
    values.as_array().into_iter().flatten().filter_map(|v| v.as_str()).map(value_hash).collect()
}

fn dimension(line: &serde_json::Value) -> u64 {
    line["dimension"].as_str().map_or(0, value_hash)
}

fn corpus(folder: &Path, target: &Path) -> Result<Vec<Request>, Box<dyn Error>> {
    let mut ads = Vec::new();
    for line in lines(folder, "ads")? {
        let id = |name: &str| line[name].as_u64().unwrap_or(0);
        let rules = line["targeting"].as_array().into_iter().flatten().map(|rule| DocRule {
            dimension: dimension(rule),
            any_of: hashes(&rule["any_of"]),
            none_of: hashes(&rule["none_of"]),
            ranges: vec![],
        });
        ads.push(DocAd {
            ad: AdId(id("ad_id")),
            item: ItemId(id("item_id")),
            campaign: CampaignId(id("campaign_id")),
            targeting: rules.collect(),
            ..DocAd::default()
        });
    }
    ads.sort_by_key(|ad| (ad.item, ad.ad));
    let mut builder = ContentBuilder::new(target, KEY)?;
    for item in ads.iter().map(|ad| ad.item).collect::<BTreeSet<_>>() {
        builder.push_item(DocItem { item, ..DocItem::default() })?;
    }
    ads.iter().try_for_each(|ad| builder.push_ad(ad))?;
    builder.seal()?;
    let request = |line: serde_json::Value| {
        let terms = line["terms"].as_array().into_iter().flatten();
        let term = |t| Term { dimension: dimension(t), values: hashes(&t["values"]), number: None };
        Request { terms: terms.map(term).collect(), ..Request::default() }
    };
    Ok(lines(folder, "requests")?.take(REQUESTS).map(request).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("gavel-targeting-figures-{}", std::process::id()));
    let folder = dir.join("content");
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "1000000".to_owned());
    let requests = match wanted.parse() {
        Ok(ads) => synthetic(&folder, ads)?,
        Err(_) => corpus(Path::new(&wanted), &folder)?,
    };
    let content = Content::open(&folder, KEY)?;
    content.prefault();
    let postings = std::fs::metadata(folder.join("postings"))?.len();
    println!(
        "{} ads, {} items, postings {:.1} bytes an ad",
        content.ads(),
        content.items(),
        postings as f64 / f64::from(content.ads())
    );
    let (mut times, mut share, mut sum) = (Vec::new(), 0.0, 0u64);
    for request in &requests {
        let query = TargetingQuery {
            terms: &request.terms,
            unix_s: request.unix_s,
            blocked_advertisers: &request.advertisers,
            blocked_categories: &request.categories,
            blocked_campaigns: &request.campaigns,
            ..TargetingQuery::default()
        };
        let eligible = content.eligible(&query);
        let start = cpu_us();
        for _ in 0..REPEATS {
            std::hint::black_box(content.eligible(std::hint::black_box(&query)));
        }
        times.push((cpu_us() - start) as f64 / REPEATS as f64);
        share += f64::from(eligible.count) / f64::from(content.ads());
        let words = eligible.ads.words().iter();
        sum = words.fold(sum, |sum, word| mix64(sum ^ word));
    }
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    println!(
        "{} requests, {:.2} % eligible on average, result {sum:016x}",
        requests.len(),
        100.0 * share / requests.len() as f64
    );
    println!("evaluation: p50 {:.1} us, p90 {:.1}, p99 {:.1}, max {:.1}", at(0.5), at(0.9), at(0.99), at(1.0));
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
