//! Does the measuring measure what is there?

use super::*;
use crate::segment::testing::clustered;

#[test]
fn a_small_set_is_measured_whole() {
    let dimension = 24;
    let (base, queries) = (clustered(3_000, dimension, 1).concat(), clustered(20, dimension, 2).concat());
    let mut data = Dataset { base: &base, queries: &queries, truth: &[], depth: 10, dimension, metric: Metric::L2 };
    let judge = sealed::Judge::new(data);
    let all = crate::segment::Bitset::full(3_000);
    let truth: Vec<i32> = queries
        .chunks(dimension)
        .flat_map(|query| judge.nearest(query, &all, CURVE_RESULTS))
        .map(|id| i32::try_from(id).unwrap())
        .collect();
    let setup = AnnSetup {
        format: VectorFormat::I8,
        rescore: Some(VectorFormat::F32),
        lists: vec![10, 200],
        selectivities: vec![0.3, 0.01],
        filtered_queries: 12,
        bare: vec![VectorFormat::F32],
        threads: 2,
        seconds: 0.0,
    };
    let dir = tempfile::tempdir().unwrap();
    assert!(measure(data, &setup, dir.path(), &|_| {}).is_err(), "no truth");
    data.truth = &truth;
    let report = measure(data, &setup, dir.path(), &|_| {}).unwrap();
    assert_eq!((report.build.rows, report.build.vector_bytes), (3_000, 32));
    assert!(report.build.link_bytes > 128.0 && report.build.link_bytes < 160.0, "{:?}", report.build);
    assert!(report.build.rescore_bytes >= 96.0 && report.build.rescore_bytes < 97.0, "{:?}", report.build);
    assert!(report.curve[1].recall > 0.98 && report.curve[0].recall <= report.curve[1].recall, "{:?}", report.curve);
    assert!(report.bare[0].curve[1].recall > 0.98);
    kept_is_what_is_asked_for(data, &setup, dir.path());
    assert_eq!(report.filtered.len(), 4);
    for row in &report.filtered {
        assert!(row.scan.recall >= 0.95 && row.planned.recall >= 0.95, "{row:?}");
        // Which way it takes depends on timing, how often it takes one does not.
        assert_eq!(row.choices.iter().sum::<usize>(), 12 * filtered::TURNS);
        assert!(row.ratio.is_some_and(|ratio| ratio >= 0.0), "{row:?}");
    }
}

/// A folder of an earlier run once served whatever was asked of the same size.
fn kept_is_what_is_asked_for(data: Dataset<'_>, setup: &AnnSetup, folder: &std::path::Path) {
    let refused = |data: Dataset<'_>, setup: &AnnSetup| {
        sealed::seal(data, setup, folder).err().map_or_else(String::new, |e| e.to_string())
    };
    assert_eq!(refused(data, setup), "");
    let other = AnnSetup { rescore: Some(VectorFormat::F16), ..setup.clone() };
    assert!(refused(data, &other).contains("rescoring is Some(\"f32\"), asked for is Some(\"f16\")"));
    let other = AnnSetup { rescore: None, ..setup.clone() };
    assert!(refused(data, &other).contains("asked for is None"));
    let mut moved = data.base.to_vec();
    moved[7] += 0.5;
    assert!(refused(Dataset { base: &moved, ..data }, setup).contains("hash of the vectors"));
    let note = folder.join("kept.json");
    let text = std::fs::read(&note).unwrap();
    std::fs::write(&note, &text[..9]).unwrap();
    assert!(refused(data, setup).contains("kept.json: "));
    std::fs::write(&note, text).unwrap();
    assert_eq!(refused(data, setup), "");
}

/// No way that finds too little is a way to compare with.
#[test]
fn a_ratio_to_nothing_is_none() {
    let way = |us, recall| Some(WayFigures { us, recall });
    assert_eq!(filtered::ratio(10.0, [way(5.0, 0.9), way(2.0, 0.94), None]), None);
    assert_eq!(filtered::ratio(10.0, [way(5.0, 0.99), way(2.0, 0.94), way(4.0, 0.95)]), Some(2.5));
}
