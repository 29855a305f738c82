//! What do the tests of segment, shard and retrieval build on?

use super::{
    Bitset, Content, ContentBuilder, Creative, DocAd, DocFeature, DocItem, DocRule, Metric, ModelFolder,
    ModelFolderBuilder, ModelSpec, ShardKey, VectorFormat,
};
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use std::{path::Path, sync::Arc};

/// Whose folders the tests write.
pub(crate) const KEY: ShardKey = ShardKey { generation: 3, shard: 1 };
pub(crate) const BUNDLE: [u8; 32] = [7; 32];
pub(crate) const DIMENSION: usize = 32;
/// The dimension that ads target.
pub(crate) const STORE: u64 = 900;
/// A value of it that half of the ads ask for, a value that a tenth asks for, ...
pub(crate) const PERCENTS: [u64; 6] = [50, 20, 10, 5, 2, 1];

/// Numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        gavel_proto::hash::mix64(self.0) % n
    }

    pub(crate) fn unit(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
    }

    /// Roughly normal.
    pub(crate) fn normal(&mut self) -> f32 {
        self.unit() + self.unit() + self.unit()
    }
}

/// Clustered vectors of unequal length, and queries near their clusters.
pub(crate) fn clustered(count: usize, dimension: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut centres = Random(1);
    let centres: Vec<Vec<f32>> = (0..50).map(|_| (0..dimension).map(|_| centres.normal()).collect()).collect();
    let mut random = Random(seed);
    let mut vector = || {
        let centre = &centres[random.below(50) as usize];
        centre.iter().map(|c| (c + 0.6 * random.normal()) / 6.0).collect()
    };
    (0..count).map(|_| vector()).collect()
}

/// Those of so many ads that this says.
pub(crate) fn ads_where(ads: u32, is_in: impl Fn(u32) -> bool) -> Bitset {
    let mut set = Bitset::empty(ads);
    (0..ads).filter(|ad| is_in(*ad)).for_each(|ad| set.insert(ad));
    set
}

/// The item with this number.
pub(crate) fn item(n: u64) -> DocItem {
    DocItem {
        item: ItemId(10 + 3 * n),
        advertiser: AdvertiserId(n % 17),
        categories: if n.is_multiple_of(5) { vec![] } else { vec![100 + n % 7, 200 + n % 3] },
        features: vec![
            ("brand".into(), DocFeature::Category(n % 11)),
            ("price".into(), DocFeature::Dense(n as f32 / 2.0)),
            ("colours".into(), DocFeature::Set((0..n % 4).map(|c| (c + 1, 0.5)).collect())),
        ]
        .into_iter()
        .skip((n % 4) as usize)
        .collect(),
        creative: Creative {
            title: format!("title {n}"),
            url: format!("https://example.com/{n}"),
            image_url: "é".into(),
        },
    }
}

/// The ads of the item with this number: each asks for a value of `STORE` as often as the value says.
pub(crate) fn ads(n: u64, per_item: u64) -> Vec<DocAd> {
    let ad = |k: u64| {
        let mut random = Random((n * 1_000 + k) << 8);
        let any_of = PERCENTS.into_iter().filter(|percent| random.below(100) < *percent).collect::<Vec<_>>();
        let any_of = if any_of.is_empty() { vec![1_000] } else { any_of };
        DocAd {
            ad: AdId(n * 1_000 + k),
            item: item(n).item,
            campaign: CampaignId(500 + n % 13),
            ad_group: (n + k) % 3,
            targeting: vec![DocRule { dimension: STORE, any_of, none_of: vec![], ..DocRule::default() }],
            schedule: None,
        }
    };
    (0..per_item).map(ad).collect()
}

/// Seals and opens content.
pub(crate) fn sealed_content(folder: &Path, items: u64, per_item: u64) -> Arc<Content> {
    let mut builder = ContentBuilder::new(folder, KEY).unwrap();
    for n in 0..items {
        builder.push_item(item(n)).unwrap();
        ads(n, per_item).iter().for_each(|ad| builder.push_ad(ad).unwrap());
    }
    builder.seal().unwrap();
    Arc::new(Content::open(folder, KEY).unwrap())
}

/// The row of activations of the item with this number.
pub(crate) fn activations(n: u64) -> Vec<f32> {
    vec![n as f32, -1.0, 0.5]
}

pub(crate) fn clock() -> u64 {
    gavel_member::clock::now_us().0
}

/// How vectors are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) metric: Metric,
    pub(crate) format: VectorFormat,
    pub(crate) rescore: Option<VectorFormat>,
}

impl From<(Metric, VectorFormat)> for Kind {
    fn from((metric, format): (Metric, VectorFormat)) -> Self {
        Self { metric, format, rescore: None }
    }
}

/// Seals and opens a model folder over it.
pub(crate) fn sealed_model(
    folder: &Path,
    content: &Content,
    vectors: &[Vec<f32>],
    kind: impl Into<Kind>,
) -> Arc<ModelFolder> {
    let Kind { metric, format, rescore } = kind.into();
    let activation_format = match format {
        VectorFormat::Bf16 => VectorFormat::Bf16,
        VectorFormat::F32 | VectorFormat::F16 | VectorFormat::I8 => VectorFormat::F32,
    };
    let spec = ModelSpec {
        bundle: BUNDLE,
        dimension: DIMENSION,
        metric,
        format,
        rescore,
        activation_width: 3,
        activation_format,
    };
    let mut builder = ModelFolderBuilder::new(folder, content, spec).unwrap();
    for (n, block) in vectors.chunks(100).enumerate() {
        let rows: Vec<f32> = (0..block.len()).flat_map(|row| activations((n * 100 + row) as u64)).collect();
        builder.push(&block.concat(), &rows).unwrap();
    }
    builder.seal(&clock).unwrap();
    Arc::new(ModelFolder::open(folder, content, BUNDLE).unwrap())
}
