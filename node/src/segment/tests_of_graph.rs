//! Are the known traps of a mapped graph closed?
//!
//! The library that builds it neither checks what it maps nor bounds the neighbours that it follows, refuses
//! searches beyond the contexts it has reserved, and has been seen to corrupt memory when a mapped index was
//! searched with a filter. We search by ourselves; each of these is asked of our own walk here.

use super::{
    calibrate::Calibration,
    container::{Container, FileKind, Storage},
    folder::read_manifest,
    kernel::Kernel,
    linker::{CONNECTIVITY_BASE, Links, NOBODY},
    model_folder::{ModelManifest, Searcher},
    testing::{DIMENSION, KEY, Random, clustered, sealed_content, sealed_model},
    vectors::{Encoding, prepare},
    walk::{Space, Through, WalkScratch, walk},
    *,
};
use std::{fs, path::Path, sync::Arc};

const ITEMS: usize = 600;

fn folder(dir: &Path) -> Arc<ModelFolder> {
    let content = sealed_content(&dir.join("content"), ITEMS as u64, 1);
    sealed_model(&dir.join("model"), &content, &clustered(ITEMS, DIMENSION, 2), (Metric::L2, VectorFormat::I8))
}

/// Bytes that somebody has sealed wrong, under a right checksum: refused, or walked without a panic and without
/// a read out of bounds.
#[test]
fn neighbours_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    drop(folder(dir.path()));
    let (manifest, _) = read_manifest::<ModelManifest>(&dir.path().join("model")).unwrap();
    let sound = fs::read(dir.path().join("model/graph")).unwrap();
    let open = |bytes: &[u8]| {
        let file = Container::new(Path::new("graph"), Storage::owned(bytes), FileKind::Graph, KEY)?;
        Searcher::open(&manifest, &file, None)
    };
    assert!(open(&sound).is_ok());
    let links_at = sound.len() - ITEMS * CONNECTIVITY_BASE * 4;
    let mut random = Random(6);
    let (mut opened, mut refused) = (0, 0);
    let all = Bitset::full(ITEMS as u32);
    for turn in 0..2_000 {
        let mut bytes = sound.clone();
        for _ in 0..=random.below(3) {
            let from = if turn % 3 == 0 { 0 } else { links_at.min(ITEMS * 32) };
            let at = from + random.below((bytes.len() - from) as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        let Ok(searcher) = open(&bytes) else {
            refused += 1;
            continue;
        };
        opened += 1;
        for through in [Through::All(&all), Through::Allowed(&all)] {
            let query = searcher.encode(&[0.1; DIMENSION]);
            let asked = model_folder::Asked { query: &query, allowed: &all, bonus: None, expired: &|| false };
            let mut top = TopK::default();
            top.reset(20);
            searcher.walk(asked, through, 64, &mut WalkScratch::default(), &mut top);
            assert!(top.sorted().iter().all(|(_, item)| (*item as usize) < ITEMS));
        }
    }
    assert!(opened > 50 && refused > 50, "{opened} opened, {refused} refused: the test would be empty");
}

#[test]
fn a_neighbour_that_is_not_there_is_refused() {
    let rows = 40u32;
    let encoding = Encoding::unscaled(8, Metric::L2, VectorFormat::F32);
    let open = |links: &Links| {
        let mut bytes = Vec::new();
        let matrix = vec![0; rows as usize * encoding.stride()];
        graph::sections(matrix, links)
            .write(FileKind::Graph, KEY, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        let file = Container::new(Path::new("graph"), Storage::owned(&bytes), FileKind::Graph, KEY).unwrap();
        graph::Graph::open(&file, rows, 8, VectorFormat::F32).map(drop)
    };
    let sound = || Links {
        base: vec![NOBODY; rows as usize * CONNECTIVITY_BASE],
        ends: vec![2, 3],
        items: vec![4, 9, 9],
        down: vec![4, 9, 1],
        upper: vec![NOBODY; 3 * 16],
    };
    assert!(open(&sound()).is_ok());
    type Break = fn(&mut Links);
    let broken: [(&str, Break); 8] = [
        ("a neighbour", |links| links.base[7] = 40),
        ("an upper neighbour", |links| links.upper[3] = 3),
        ("an upper neighbour of another level", |links| links.upper[0] = 2),
        ("an item", |links| links.items[0] = 40),
        ("a place below", |links| links.down[2] = 2),
        ("ends that fall", |links| links.ends = vec![3, 2]),
        ("ends that are not there", |links| links.ends = vec![2, 4]),
        ("too few neighbours", |links| links.base.truncate(7)),
    ];
    for (what, break_it) in broken {
        let mut links = sound();
        break_it(&mut links);
        assert!(open(&links).is_err(), "{what}");
    }
}

/// Far more threads than cores, all with filters, over one mapped folder: none is refused and all find what one finds.
#[test]
fn any_number_of_threads_searches_a_mapped_graph_with_filters() {
    let dir = tempfile::tempdir().unwrap();
    let model = folder(dir.path());
    let mut some = Bitset::empty(ITEMS as u32);
    (0..ITEMS as u32).filter(|item| item % 3 == 0).for_each(|item| some.insert(item));
    let find = |vector: &[f32]| {
        let query = model.prepare_query(vector).unwrap();
        let asked = model_folder::Asked { query: &query, allowed: &some, bonus: None, expired: &|| false };
        let mut top = TopK::default();
        top.reset(10);
        model.walk(asked, Through::Allowed(&some), 40, &mut WalkScratch::default(), &mut top);
        top.sorted().to_vec()
    };
    let queries = clustered(30, DIMENSION, 80);
    let alone: Vec<_> = queries.iter().map(|query| find(query)).collect();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for (query, expected) in queries.iter().zip(&alone) {
                    assert_eq!(&find(query), expected);
                }
            });
        }
    });
}

/// With a list as long as there are items a walk goes wherever it can, so it finds what a scan finds, with the same
/// similarity to the bit: the fast way and its obvious twin.
#[test]
fn a_long_walk_is_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let model = folder(dir.path());
    let mut scratch = WalkScratch::default();
    let (mut missed, mut turns) = (0, 0);
    for (turn, vector) in (1..).zip(&clustered(20, DIMENSION, 81)) {
        let mut some = Bitset::empty(ITEMS as u32);
        let mut random = Random(turn);
        (0..ITEMS as u32).filter(|_| random.below(4) != 0).for_each(|item| some.insert(item));
        let query = model.prepare_query(vector).unwrap();
        let asked = model_folder::Asked { query: &query, allowed: &some, bonus: None, expired: &|| false };
        let mut scanned = TopK::default();
        scanned.reset(25);
        model.scan(asked, &mut scanned);
        for through in [Through::All(&some), Through::Allowed(&some)] {
            let mut top = TopK::default();
            top.reset(25);
            let walked = model.walk(asked, through, ITEMS, &mut scratch, &mut top);
            assert!(walked.searched.finished && walked.allowed <= some.count() as usize);
            let found = top.sorted();
            let bits = |entry: &(f32, u32)| (entry.0.to_bits(), entry.1);
            let worst = found.last().unwrap().0;
            missed += scanned.sorted().iter().filter(|e| !found.iter().any(|f| bits(f) == bits(e))).count();
            // Whatever was not missed is the same; what stands in for what was missed is farther.
            assert!(worst <= scanned.sorted().last().unwrap().0 && found.iter().all(|(_, item)| some.contains(*item)));
            turns += 1;
        }
    }
    assert!(missed * 100 <= turns * 25, "{missed} missed in {turns} walks");
}

/// Whatever the calibration measured, it can be planned with.
#[test]
fn a_sealed_folder_knows_its_costs() {
    let dir = tempfile::tempdir().unwrap();
    let model = folder(dir.path());
    let Calibration { word_ns, scan_ns, plain_ns, filtered_ns, rescore_ns, list_per_result } = *model.calibration();
    let numbers = scan_ns.into_iter().chain(plain_ns).chain(filtered_ns.concat()).chain([word_ns]);
    assert!(numbers.into_iter().all(|ns| ns.is_finite() && ns >= 0.0));
    assert!(plain_ns[0] > 0.0 && plain_ns[3] > plain_ns[0], "{plain_ns:?}");
    assert_eq!(rescore_ns, 0.0);
    assert!((1.5..=6.0).contains(&list_per_result));
}

#[test]
fn an_empty_graph_is_walked() {
    let encoding = Encoding::unscaled(4, Metric::Ip, VectorFormat::F32);
    let mut bytes = Vec::new();
    graph::sections(Vec::new(), &Links::default())
        .write(FileKind::Graph, KEY, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
    let file = Container::new(Path::new("graph"), Storage::owned(&bytes), FileKind::Graph, KEY).unwrap();
    let graph = graph::Graph::open(&file, 0, 4, VectorFormat::F32).unwrap();
    let query = encoding.query(&prepare(&[1.0; 4], 4, Metric::Ip).unwrap());
    let kernel = Kernel::select(Metric::Ip, VectorFormat::F32);
    let space = Space { kernel, rows: graph.matrix(), query: &query, bonus: None };
    let none = Bitset::empty(0);
    let mut top = TopK::default();
    top.reset(5);
    let walked = walk(graph.view(), space, (Through::All(&none), 10), &|| false, &mut WalkScratch::default(), &mut top);
    assert!(walked.searched.finished && top.sorted().is_empty());
}
