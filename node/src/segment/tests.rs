//! Does a sealed folder give back what went in, and refuse every other byte?

use super::{
    container::{Container, Storage},
    content::{ContentManifest, FILES},
    folder::read_manifest,
    testing::{BUNDLE, DIMENSION, KEY, Random, STORE, activations, ads, clustered, item, sealed_content, sealed_model},
    *,
};
use gavel_proto::ids::{AdId, CampaignId, ItemId};
use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

#[test]
fn what_is_sealed_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), 3_000, 2);
    assert_eq!((content.items(), content.ads()), (3_000, 6_000));
    for n in [0u32, 1, 2, 3, 4, 7, 1_500, 2_999] {
        let doc = item(u64::from(n));
        assert_eq!(content.item_id(n), doc.item);
        assert_eq!(content.find_item(doc.item), Some(n));
        assert_eq!(content.advertiser(n), doc.advertiser);
        assert_eq!(content.categories(n), doc.categories);
        assert_eq!(content.creative(n).unwrap(), doc.creative);
        let expected = ads(u64::from(n), 2);
        for (ad, doc) in content.ads_of(n).zip(&expected) {
            assert_eq!((content.ad_id(ad), content.campaign(ad), content.item_of(ad)), (doc.ad, doc.campaign, n));
            assert!(content.ads_of_campaign(content.campaign_place(ad)).contains(&ad));
            assert_eq!(content.line(content.line_place(ad)), (doc.campaign.0, doc.ad_group));
        }
        let feature = |name| doc.features.iter().find(|(n, _)| n == name).map(|(_, f)| f.clone());
        let brand = content.category_column("brand").unwrap()[n as usize];
        assert_eq!(DocFeature::Category(brand), feature("brand").unwrap_or(DocFeature::Category(0)));
        let price = content.dense_column("price").unwrap()[n as usize];
        match feature("price") {
            Some(expected) => assert_eq!(DocFeature::Dense(price), expected),
            None => assert!(price.is_nan()),
        }
        let (values, weights) = content.set_column("colours").unwrap().of(n);
        let set = values.iter().copied().zip(weights.iter().copied()).collect();
        assert_eq!(DocFeature::Set(set), feature("colours").unwrap_or(DocFeature::Set(vec![])));
    }
    // What does not exist is a default, not a panic.
    assert_eq!(content.find_item(ItemId(11)), None);
    assert_eq!(content.item_id(3_000), ItemId(0));
    assert_eq!(content.ads_of(3_000).len(), 0);
    assert!(content.creative(3_000).is_err());
    assert!(content.category_column("price").is_none());
    content.prefault();
    let residency = content.residency();
    assert!(residency.mapped > 0 && residency.resident == residency.mapped, "{residency:?}");
}

#[test]
fn documents_out_of_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = ContentBuilder::new(&dir.path().join("c"), KEY).unwrap();
    builder.push_item(item(1)).unwrap();
    assert!(builder.push_item(item(1)).is_err());
    assert!(builder.push_item(item(0)).is_err());
    let ad = DocAd { ad: AdId(5), item: ItemId(99), campaign: CampaignId(1), ..DocAd::default() };
    builder.push_ad(&ad).unwrap();
    assert!(builder.push_ad(&ad).is_err());
    assert!(matches!(builder.seal(), Err(SegmentError::Refused(_))));
    assert!(!dir.path().join("c").exists());
    // What was interrupted is in nobody's way, what is sealed is never replaced.
    ContentBuilder::new(&dir.path().join("c"), KEY).unwrap().seal().unwrap();
    assert!(matches!(ContentBuilder::new(&dir.path().join("c"), KEY), Err(SegmentError::Exists(_))));
    let empty = Content::open(&dir.path().join("c"), KEY).unwrap();
    assert_eq!(empty.eligible(&TargetingQuery::default()).count, 0);
}

#[test]
fn of_others_and_of_the_future() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("content");
    sealed_content(&folder, 20, 1);
    let other = ShardKey { shard: 2, ..KEY };
    assert!(matches!(Content::open(&folder, other), Err(SegmentError::Foreign { .. })));
    let manifest = folder.join("manifest");
    let bytes = writable(&manifest);
    let mut newer = bytes.clone();
    newer[8] = 9;
    fs::write(&manifest, &newer).unwrap();
    assert!(matches!(Content::open(&folder, KEY), Err(SegmentError::Newer { found: 9, .. })));
    let mut older = bytes.clone();
    older[8] = 1;
    fs::write(&manifest, &older).unwrap();
    let error = Content::open(&folder, KEY).err().unwrap();
    assert!(matches!(error, SegmentError::Older { found: 1, .. }) && error.is_damage(), "it is made again");
    let mut foreign = bytes.clone();
    foreign[..8].copy_from_slice(b"ELFELFEL");
    fs::write(&manifest, &foreign).unwrap();
    assert!(matches!(Content::open(&folder, KEY), Err(SegmentError::Foreign { .. })));
    fs::write(&manifest, &bytes).unwrap();
    Content::open(&folder, KEY).unwrap();
    // A sound container in the wrong place.
    let columns = fs::read(folder.join("columns")).unwrap();
    let wrong = Container::new(Path::new("x"), Storage::owned(&columns), FILES[0].1, KEY);
    assert!(matches!(wrong, Err(SegmentError::Foreign { .. })));
}

fn writable(path: &Path) -> Vec<u8> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::read(path).unwrap()
}

/// Every 4 KiB edge, 2,000 random bytes and 60 truncations over all files of a folder.
fn refuses_damage(folder: &Path, open: impl Fn() -> Result<(), SegmentError>) {
    open().unwrap();
    let mut random = Random(5);
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let total: u64 = files.iter().map(|f| fs::metadata(f).unwrap().len()).sum();
    for path in &files {
        let sound = writable(path);
        let length = sound.len();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let edges = (0..=length).step_by(4_096).flat_map(|edge| [edge.saturating_sub(1), edge]);
        let share = 2_000 * length as u64 / total + 1;
        let flips: Vec<usize> = edges.chain((0..share).map(|_| random.below(length as u64) as usize)).collect();
        for at in flips.into_iter().filter(|at| *at < length) {
            // In place: a file that is truncated and written anew waits for the disk each time.
            file.write_all_at(&[sound[at] ^ 1 << random.below(8)], at as u64).unwrap();
            assert!(open().is_err(), "{path:?} at {at}");
            file.write_all_at(&[sound[at]], at as u64).unwrap();
        }
        let cuts = [0, 1, 63, 64, length - 1].into_iter().chain((0..10).map(|_| random.below(length as u64) as usize));
        for cut in cuts {
            let cut = cut.min(length - 1);
            file.set_len(cut as u64).unwrap();
            assert!(open().is_err(), "{path:?} cut at {cut}");
            file.write_all_at(&sound[cut..], cut as u64).unwrap();
        }
        fs::remove_file(path).unwrap();
        assert!(open().is_err(), "{path:?} away");
        fs::write(path, &sound).unwrap();
    }
    open().unwrap();
}

#[test]
fn every_changed_byte_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("content");
    let content = sealed_content(&folder, 300, 2);
    refuses_damage(&folder, || Content::open(&folder, KEY).map(drop));
    let model = dir.path().join("model");
    drop(sealed_model(&model, &content, &clustered(300, DIMENSION, 2), (Metric::Ip, VectorFormat::Bf16)));
    refuses_damage(&model, || ModelFolder::open(&model, &content, BUNDLE).map(drop));
}

/// Behind the checksum stands the check of the structure: even bytes that somebody sealed with a right
/// checksum are refused or read without a panic.
#[test]
fn structure_is_checked_apart() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("content");
    drop(sealed_content(&folder, 200, 2));
    let (manifest, hash) = read_manifest::<ContentManifest>(&folder).unwrap();
    let sound = FILES.map(|(name, _)| fs::read(folder.join(name)).unwrap());
    let mut random = Random(8);
    let mut opened = 0;
    for _ in 0..1_500 {
        let mut files = sound.clone();
        let file = random.below(4) as usize;
        for _ in 0..=random.below(3) {
            // The tables of all files are in the first KiB.
            let length = if random.below(2) == 0 { files[file].len() as u64 } else { 1_024 };
            let at = random.below(length.min(files[file].len() as u64)) as usize;
            files[file][at] = random.below(256) as u8;
        }
        let containers = files
            .iter()
            .zip(FILES)
            .map(|(bytes, (name, kind))| Container::new(Path::new(name), Storage::owned(bytes), kind, KEY));
        let Ok(containers) = containers.collect::<Result<Vec<_>, _>>() else { continue };
        let Ok(containers) = <[Container; 4]>::try_from(containers) else { unreachable!("four files") };
        let Ok(content) = Content::assemble(&manifest, hash, containers) else { continue };
        opened += 1;
        let terms = [Term { dimension: STORE, values: vec![50, 20], ..Term::default() }];
        let eligible =
            content.eligible(&TargetingQuery { terms: &terms, blocked_categories: &[101], ..Default::default() });
        assert_eq!(content.items_of(&eligible.ads).len(), 200);
        let _ = (content.creative(0), content.creative(199));
        for n in 0..200 {
            let _ = (content.categories(n), content.set_column("colours").map(|c| c.of(n)));
            let (place, lines) = (content.line_place(n), content.campaign_lines(content.campaign_place(n)));
            assert!(lines.contains(&place) && content.ads_of_line(place).contains(&n), "checked when it was opened");
        }
    }
    assert!(opened > 50, "only {opened} got past the structure: the test would be empty");
}

fn activations_of(model: &ModelFolder, item: u32) -> Vec<f32> {
    let mut row = Vec::new();
    model.append_activations(item, 0..model.activation_width(), &mut row);
    row
}

#[test]
fn the_model_belongs_to_its_content_and_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("a"), 50, 1);
    let other = sealed_content(&dir.path().join("b"), 51, 1);
    let vectors = clustered(50, DIMENSION, 2);
    let folder = dir.path().join("model");
    let model = sealed_model(&folder, &content, &vectors, (Metric::Ip, VectorFormat::F32));
    let half = dir.path().join("halves");
    let halves = sealed_model(&half, &content, &vectors, (Metric::Ip, VectorFormat::Bf16));
    assert!(matches!(ModelFolder::open(&folder, &other, BUNDLE), Err(SegmentError::Foreign { .. })));
    assert!(matches!(ModelFolder::open(&folder, &content, [8; 32]), Err(SegmentError::Foreign { .. })));
    for n in 0..50 {
        assert_eq!(model.vector(n).as_ref(), Some(&vectors[n as usize]));
        assert_eq!(activations_of(&model, n), activations(u64::from(n)));
        // What a bundle rounds to bf16 is kept in half the bytes, and comes back the same.
        assert_eq!(activations_of(&halves, n), activations(u64::from(n)));
    }
    assert_eq!(activations_of(&model, 50), &[] as &[f32]);
    assert_eq!(activations_of(&halves, 50), &[] as &[f32]);
    let bytes = |folder: &std::path::Path| std::fs::metadata(folder.join("activations")).unwrap().len();
    assert!(bytes(&half) < bytes(&folder));
    assert!(model.prepare_query(&[f32::NAN; DIMENSION]).is_err());
    assert!(model.prepare_query(&[0.0; 3]).is_err());
    let spec = ModelSpec {
        bundle: BUNDLE,
        dimension: DIMENSION,
        metric: Metric::Ip,
        format: VectorFormat::F32,
        rescore: None,
        activation_width: 1,
        activation_format: VectorFormat::F32,
    };
    let mut builder = ModelFolderBuilder::new(&dir.path().join("nan"), &content, spec).unwrap();
    assert!(builder.push(&[f32::INFINITY; DIMENSION], &[0.0]).is_err());
    assert!(builder.push(&[0.0; DIMENSION], &[f32::NAN]).is_err());
    assert!(builder.push(&[0.0; DIMENSION], &[]).is_err());
    assert!(builder.seal(&|| 0).is_err());
}

#[test]
fn the_same_vectors_give_the_same_graph() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), 400, 1);
    let vectors = clustered(400, DIMENSION, 2);
    for format in [VectorFormat::F32, VectorFormat::Bf16, VectorFormat::F16, VectorFormat::I8] {
        let graph = |name: &str| {
            let folder = dir.path().join(format!("{name}{format:?}"));
            drop(sealed_model(&folder, &content, &vectors, (Metric::Cos, format)));
            fs::read(folder.join("graph")).unwrap()
        };
        assert_eq!(graph("one"), graph("two"));
    }
}
