//! A shard of a few hundred items, staged with the demo bundle as a node stages it, for tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use gavel_member::clock;
use gavel_member::member::Voters;
use gavel_model::{Bundle, FeatureKind, FeatureRow, FeatureValue, Scratch};
use gavel_proto::cut::{CutRule, Neighbours, SPARE};
use gavel_proto::deadline::{Deadline, Instant};
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::{TieKey, value_hash};
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use gavel_proto::money::{BidType, Micros};
use gavel_proto::targeting::{Bound, Hours, Interval};

use super::search::{Blocked, Features, Reasons, Search};
use crate::features::UserSets;
use crate::ranking::auction::AuctionTerms;
use crate::ranking::delivery::{CampaignStatus, Counting, Delivery, DeliveryRow};
use crate::retrieval::Mode;
use crate::segment::{
    ContentBuilder, Creative, DocAd, DocFeature, DocItem, DocRule, DocSchedule, DocZone, ShardKey, Term,
};
use crate::staging::holdings::{SharedHoldings, Target};
use crate::staging::plan::{Blob, Step};
use crate::staging::{DataFolder, MemoryBudget, Steps};

pub const GENERATION: u64 = 4;
pub const SHARD: u32 = 1;
pub const ITEMS: u64 = 400;
pub const EPOCH: Epoch = Epoch { map: 9, generation: GENERATION, model: 2, delivery: 7 };

/// A data folder with a loaded shard in it.
pub struct Staged {
    pub holdings: Arc<SharedHoldings>,
    pub hash: [u8; 32],
}

/// Staged once for all tests: the golden rows and the item tower take longer than the tests. The folder is gone
/// once it is open; the maps stay.
pub static STAGED: LazyLock<Staged> = LazyLock::new(|| {
    let stage = || Staged::new(tempfile::tempdir().unwrap().path());
    // On a thread of its own: staging waits for its runtime, which a thread of a runtime may not.
    std::thread::spawn(stage).join().unwrap()
});

pub fn demo_bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/bootstrap/demo/bundle")
}

impl Staged {
    pub fn new(folder: &Path) -> Self {
        Self::with(folder, &demo_bundle())
    }

    /// With a bundle of another folder.
    pub fn with(folder: &Path, bundle_folder: &Path) -> Self {
        let data = DataFolder::open(folder).unwrap();
        let bundle = Bundle::open(bundle_folder).unwrap();
        let hash = bundle.hash();
        let there = data.bundle(&hash);
        std::fs::create_dir_all(&there).unwrap();
        for file in std::fs::read_dir(bundle_folder).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), there.join(file.file_name())).unwrap();
        }
        write_content(&data, &bundle);
        Self::open(folder, hash)
    }

    /// Loads what lies in the folder, as after a restart.
    pub fn open(folder: &Path, hash: [u8; 32]) -> Self {
        let steps = Self::steps(folder, MemoryBudget::of_share(1.0));
        let holdings = Arc::new(SharedHoldings::default());
        let blob = Blob { hash, bytes: 1 };
        holdings.change(|h| h.add_delivery(GENERATION, Arc::new(Delivery::new(EPOCH.delivery, campaigns()))));
        steps.carry_out(Step::LoadBundle(blob), &holdings, &mut |_, _| Ok(())).unwrap();
        steps
            .carry_out(Step::LoadContent { generation: GENERATION, shard: SHARD, blob }, &holdings, &mut |_, _| Ok(()))
            .unwrap();
        let model = Step::LoadModel { generation: GENERATION, shard: SHARD, bundle: hash };
        steps.carry_out(model, &holdings, &mut |_, _| Ok(())).unwrap();
        Self { holdings, hash }
    }

    /// Steps over the folder; nothing is fetched, so the runtime that it would wait on may be gone.
    pub fn steps(folder: &Path, budget: MemoryBudget) -> Steps {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Steps {
            data: DataFolder::open(folder).unwrap(),
            voters: Arc::new(Voters::new(vec!["127.0.0.1:1".to_owned()]).unwrap()),
            runtime: runtime.handle().clone(),
            budget,
            cpu_us: super::thread::cpu_us,
        }
    }

    pub fn target(&self) -> Target {
        self.holdings.current().target(EPOCH, SHARD, &self.hash).unwrap()
    }

    /// A search as a router would send it.
    pub fn search(&self) -> Search {
        let target = self.target();
        let bundle = &target.loaded.bundle.bundle;
        let output = bundle.run_user(&mut Scratch::default(), &user(bundle)).unwrap();
        let mut user_sets = UserSets::default();
        for (spec, value) in bundle.schema().user.iter().zip(user(bundle).values) {
            if let FeatureValue::Set(pairs) = value {
                user_sets.insert(spec.name.clone(), pairs);
            }
        }
        let rule =
            CutRule { slots: 4, per_advertiser: 1, per_category: Some(2), neighbours: Neighbours::Any, spare: SPARE };
        Search {
            given: Vec::new(),
            epoch: EPOCH,
            model_hash: self.hash,
            deadline: Deadline(Instant(clock::now_us().0 + 60_000_000)),
            query: output.query,
            user_part: output.part,
            user_sets,
            terms: vec![Term {
                dimension: value_hash("store"),
                values: vec![value_hash("store-1")],
                ..Term::default()
            }],
            unix_s: 12 * 3_600,
            blocked: Blocked { advertisers: vec![3], ..Blocked::default() },
            quota: 120,
            light_keep: 70,
            auction: AuctionTerms {
                auction_id: 5,
                tie_key: TieKey::from_number(6),
                reserve_cpm_micros: 1_000,
                quality: gavel_proto::score::QualityRule::default(),
                cut: Some(rule),
            },
            mode: Mode::Auto,
            reasons: Reasons::Unasked,
            features: Features::Unasked,
        }
    }
}

fn value(name: &str, kind: &FeatureKind, n: u64) -> FeatureValue {
    let hash = |k: u64| value_hash(&format!("{name}-{k}"));
    match kind {
        FeatureKind::Category { .. } => FeatureValue::Category(hash(n % 17)),
        FeatureKind::Dense { .. } => FeatureValue::Dense((n % 23) as f32 / 4.0),
        FeatureKind::Set { .. } | FeatureKind::Sequence { .. } => {
            FeatureValue::Set((0..n % 5).map(|k| (hash(k), 1.0 + k as f32)).collect())
        }
    }
}

/// A user that has met what the items are made of.
pub fn user(bundle: &Bundle) -> FeatureRow {
    let schema = bundle.schema();
    let values = schema.user.iter().map(|spec| {
        let meeting = schema.cross.iter().find(|cross| cross.user == spec.name);
        let name = meeting.map_or(spec.name.as_str(), |cross| cross.item.as_str());
        value(name, &spec.kind, 4)
    });
    FeatureRow { values: values.collect() }
}

/// 0: as its store says; 1: of age too; 2: by day too.
fn kind_of(ad: u64) -> usize {
    [0, 0, 0, 1, 2][ad as usize / 10 % 5]
}

/// From 08:00 to 20:00, every day.
fn by_day() -> DocSchedule {
    let mut hours = Hours::default();
    (0..168).filter(|hour| (8..20).contains(&(hour % 24))).for_each(|hour| hours.insert(hour));
    DocSchedule { zone: "UTC".to_owned(), hours }
}

/// The kind of an ad, and whether that part of its targeting admits the request.
pub fn admits(ad: u64, age: Option<f64>, unix_s: i64) -> (usize, bool) {
    let kind = kind_of(ad);
    let admits = match kind {
        1 => age.is_some_and(|age| age >= 18.0),
        2 => (8..20).contains(&(unix_s / 3_600 % 24)),
        _ => true,
    };
    (kind, admits)
}

fn write_content(data: &DataFolder, bundle: &Bundle) {
    let key = ShardKey { generation: GENERATION, shard: SHARD };
    let mut builder = ContentBuilder::new(&data.content(GENERATION, SHARD).unwrap(), key).unwrap();
    builder.push_zone(DocZone { name: "UTC".to_owned(), offsets: vec![(0, 0)] }).unwrap();
    for item in 0..ITEMS {
        let features = bundle.schema().item.iter().map(|spec| {
            let feature = match value(&spec.name, &spec.kind, item * 7 + spec.name.len() as u64) {
                FeatureValue::Category(hash) => DocFeature::Category(hash),
                FeatureValue::Dense(number) => DocFeature::Dense(number),
                FeatureValue::Set(pairs) => DocFeature::Set(pairs),
                FeatureValue::Missing => DocFeature::Dense(f32::NAN),
            };
            (spec.name.clone(), feature)
        });
        let creative =
            Creative { title: format!("item {item}"), url: "https://a.example".into(), ..Creative::default() };
        let doc = DocItem {
            item: ItemId(1_000 + item),
            advertiser: AdvertiserId(item % 40),
            categories: vec![value_hash(&format!("category-{}", item % 9))],
            features: features.collect(),
            creative,
        };
        builder.push_item(doc).unwrap();
        for n in 0..item % 3 + 1 {
            let store = format!("store-{}", (item + n) % 4);
            let rule = DocRule {
                dimension: value_hash("store"),
                any_of: vec![value_hash(&store)],
                none_of: vec![],
                ..DocRule::default()
            };
            let mut targeting = if n == 0 { vec![] } else { vec![rule] };
            let (kind, ad) = (kind_of(item * 10 + n), AdId(item * 10 + n));
            let campaign = CampaignId((item * 7 + n) % 60);
            let ad_group = if has_groups(campaign.0) { item / 60 % 5 } else { 0 };
            if kind == 1 {
                let ranges = vec![Interval::between(Bound::At(18.0), Bound::Open).unwrap()];
                targeting.push(DocRule { dimension: value_hash("age"), ranges, ..DocRule::default() });
            }
            let schedule = (kind == 2).then(by_day);
            builder
                .push_ad(&DocAd { ad, item: ItemId(1_000 + item), campaign, ad_group, targeting, schedule })
                .unwrap();
        }
    }
    builder.seal().unwrap();
}

/// A campaign of each bid type.
pub const fn has_groups(campaign: u64) -> bool {
    campaign % 12 == 6
}

/// Every bid type; campaigns 11 and 15 are paused, campaign 12 unknown, those that end with 7 are counted. Some have ad
/// groups: 1 with a bid of its own, 2 with the campaign's, 3 paused. Ads are also in group 4, which nobody knows.
pub fn campaigns() -> impl Iterator<Item = DeliveryRow> {
    (0..60).filter(|campaign| *campaign != 12).flat_map(|campaign| {
        let bid_type = BidType::ALL[campaign as usize % 5];
        let per_event = match bid_type {
            BidType::Cpm => 2_000_000,
            BidType::Cpc => 300_000,
            BidType::Cpa | BidType::Ocpm | BidType::Ocpc => 9_000_000,
        };
        let row = DeliveryRow {
            campaign,
            bid_type,
            bid: Micros(per_event + campaign * 10_000),
            multiplier_ppm: 900_000,
            status: if matches!(campaign, 11 | 15) { CampaignStatus::Paused } else { CampaignStatus::Active },
            counting: if campaign % 10 == 7 { Counting::Counted } else { Counting::Uncounted },
            ..DeliveryRow::UNKNOWN
        };
        let group = move |(ad_group, bid, status)| DeliveryRow { ad_group, bid: Micros(bid), status, ..row };
        let (active, paused) = (CampaignStatus::Active, CampaignStatus::Paused);
        let groups = [(1, per_event / 2, active), (2, 0, active), (3, per_event, paused)].map(group);
        std::iter::once(row).chain(groups.into_iter().filter(move |_| has_groups(campaign)))
    })
}
