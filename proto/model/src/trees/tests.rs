//! Does every way to score give LightGBM's bits, and is a damaged file refused?
//!
//! `testdata` holds files that LightGBM wrote and the scores that it gave (`bench/compare/trees/fixtures.py`), with
//! rows full of NaN, infinities, tiny numbers and categories that do not exist.

use super::ensemble::{Child, Ensemble, Missing, Objective, Rule, Split, Tree};
use super::kernel::{self, Planes, ROWS};
use super::*;
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The bits of each row's score, and its values.
fn rows(name: &str) -> Vec<(u64, Vec<f32>)> {
    let text = String::from_utf8(fixture(name)).unwrap();
    let row = |line: &str| {
        let (score, values) = line.split_once(' ').unwrap();
        let values = values.split(' ').map(|v| f32::from_bits(u32::from_str_radix(v, 16).unwrap()));
        (u64::from_str_radix(score, 16).unwrap(), values.collect())
    };
    text.lines().map(row).collect()
}

fn check(name: &str) {
    let ensemble = Ensemble::read(&fixture(&format!("{name}.txt"))).unwrap();
    let forest = Forest::new(&ensemble).unwrap();
    let rows = rows(&format!("{name}.rows"));
    let flat: Vec<f32> = rows.iter().flat_map(|(_, v)| v.clone()).collect();
    let (mut scorer, mut out) = (Scorer::default(), Vec::new());
    forest.score(&mut scorer, &flat, &mut out);
    assert_eq!(out.len(), rows.len());
    for (row, ((expected, values), found)) in rows.iter().zip(&out).enumerate() {
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        assert_eq!(ensemble.raw(&values).to_bits(), *expected, "{name}, plain, row {row}: {values:?}");
        assert_eq!(found.to_bits(), *expected, "{name}, fast, row {row}: {values:?}");
    }
}

#[test]
fn missing_numbers_and_categories_score_as_in_lightgbm() {
    check("plain");
}

#[test]
fn zeros_that_are_missing_score_as_in_lightgbm() {
    check("zeros");
}

#[test]
fn a_random_forest_sums_as_in_lightgbm() {
    check("forest");
    assert!(Ensemble::read(&fixture("forest.txt")).unwrap().averaged);
}

#[test]
fn trees_of_hundreds_of_leaves_score_as_in_lightgbm() {
    check("deep");
}

/// A model trained by LightGBM came with `inf` among its thresholds and was refused.
#[test]
fn what_is_missing_is_parted_from_all_that_is_not() {
    assert!(String::from_utf8(fixture("missing.txt")).unwrap().contains("threshold=inf"));
    check("missing");
}

#[test]
fn a_table_of_pandas_brings_its_categories() {
    check("pandas");
    let ensemble = Ensemble::read(&fixture("pandas.txt")).unwrap();
    let lists = ensemble.categories().unwrap();
    assert_eq!((lists.len(), lists[0].len(), lists[0][7].as_str()), (1, 40, "kind 7"));
    assert_eq!(ensemble.objective, Objective::Sigmoid(1.0));
    assert_eq!(Ensemble::read(&fixture("zeros.txt")).unwrap().objective, Objective::Identity);
}

fn refusal(text: &str) -> String {
    Ensemble::read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_refused_with_its_line() {
    let good = String::from_utf8(fixture("plain.txt")).unwrap();
    let line_of = |prefix: &str| 1 + good.lines().position(|l| l.starts_with(prefix)).unwrap();
    let wrong = [
        ("tree\n", "TREE\n", "line 1: a model file of LightGBM starts".to_owned()),
        ("version=v4", "version=v9", format!("line {}: version", line_of("version"))),
        ("num_class=1", "num_class=3", "line 3: num_class is 3".to_owned()),
        ("objective=binary", "objective=multiclass", format!("line {}: objective", line_of("objective"))),
        ("num_leaves=12", "num_leaves=13", format!("line {}: leaf_value has 12 values, 13", line_of("leaf_value"))),
        ("left_child=", "left_child=-99 ", format!("line {}: left_child has more than 11", line_of("left_child"))),
        ("split_feature=", "split_fever=", format!("line {}: split_feature is missing", line_of("Tree=0"))),
        ("threshold=", "threshold=x", format!("line {}: threshold: \"x", line_of("threshold"))),
        ("Tree=1\n", "Tree=2\n", format!("line {}: Tree=1 or \"end of trees\"", line_of("Tree=1"))),
        ("end of trees", "end of bees", "the file ends here".to_owned()),
        ("pandas_categorical:null", "pandas_categorical:[1]", "pandas_categorical".to_owned()),
        ("is_linear=0", "is_linear=1", "linear trees are not supported".to_owned()),
    ];
    for (from, to, reason) in wrong {
        let text = refusal(&good.replacen(from, to, 1));
        assert!(text.contains(&reason), "{to}: {text}");
    }
    let text = Ensemble::read(&fixture("linear.txt")).unwrap_err().to_string();
    assert!(text.contains("linear trees"), "{text}");
    assert!(refusal("").contains("line 1"));
}

/// A few kilobytes once named one large set at every split, each with a copy of its own.
#[test]
fn sets_of_categories_take_as_much_memory_as_their_file() {
    let file = |names: &str, words: usize| {
        let words = vec!["4294967295"; words].join(" ");
        format!(
            "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=0\nfeature_names=a\n\nTree=0\n\
             num_leaves=3\nnum_cat=2\nsplit_feature=0 0\nthreshold={names}\ndecision_type=1 1\nleft_child=1 -1\n\
             right_child=-3 -2\nleaf_value=1 2 3\ncat_boundaries=0 1 {n}\ncat_threshold={words}\n\nend of trees\n",
            n = words.split(' ').count(),
        )
    };
    assert!(Ensemble::read(file("0 1", 2).as_bytes()).is_ok());
    assert!(refusal(&file("1 1", 2)).contains("line 12: two splits name the set 1"));
    assert!(refusal(&file("0 2", 2)).contains("there is no set 2"));
    let many = refusal(&file("0 1", 2 + super::limits::CATEGORY_CODES_MAX / 32));
    assert!(many.contains("in the sets of all splits"), "{many}");
}

#[test]
fn what_hangs_twice_or_nowhere_is_no_tree() {
    let file = |left: &str, right: &str| {
        format!(
            "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=0\nfeature_names=a\n\nTree=0\n\
             num_leaves=3\nnum_cat=0\nsplit_feature=0 0\nthreshold=1 2\ndecision_type=2 2\nleft_child={left}\n\
             right_child={right}\nleaf_value=1 2 3\n\nend of trees\n"
        )
    };
    assert!(Ensemble::read(file("1 -1", "-3 -2").as_bytes()).is_ok());
    for (left, right, reason) in [
        ("1 -1", "1 -2", "two places"),
        ("-1 1", "-2 -3", "nowhere"),
        ("0 -1", "1 -2", "two"),
        ("7 -1", "1 -2", "no child 7"),
    ] {
        let text = refusal(&file(left, right));
        assert!(text.contains(reason), "{left} | {right}: {text}");
    }
}

/// A number out of few, so that values meet thresholds.
fn number() -> impl Strategy<Value = f32> {
    let odd = prop::sample::select(vec![
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-35,
        -1e-40,
        f32::MAX,
        f32::MIN,
        -1.0,
        -0.5,
        3.7,
        70.0,
        2_147_483_648.0,
    ]);
    let few = (-20i8..20).prop_map(|x| f32::from(x) * 0.25);
    prop_oneof![odd, few, (0u8..70).prop_map(f32::from), any::<i16>().prop_map(|x| f32::from(x) / 100.0)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let thresholds = prop_oneof![
        (-20i8..20).prop_map(|x| f64::from(x) * 0.25),
        prop::sample::select(vec![0.1, -0.1, 1e-35_f32 as f64, -1e300, 1e300, 0.0, 69.999_999_9, f64::INFINITY]),
        any::<f32>().prop_filter("finite", |x| x.is_finite()).prop_map(f64::from),
    ];
    let missing = prop::sample::select(vec![Missing::None, Missing::Zero, Missing::Nan]);
    let numbers = (thresholds, missing, any::<bool>()).prop_map(|(threshold, missing, default_left)| Rule::Number {
        threshold,
        missing,
        default_left,
    });
    let sets =
        prop::collection::btree_set(0u32..70, 0..6).prop_map(|s| Rule::Category { codes: s.into_iter().collect() });
    prop_oneof![4 => numbers, 1 => sets]
}

/// A tree grown by splitting leaves that are drawn.
fn tree(splits_max: usize) -> impl Strategy<Value = Tree> {
    let split = (0usize..3, rule(), any::<prop::sample::Index>());
    let grown = prop::collection::vec(split, 0..=splits_max);
    (grown, any::<u32>()).prop_map(|(grown, seed)| {
        let mut splits: Vec<Split> = Vec::new();
        // Where each leaf hangs: below a split, on the left or the right.
        let mut leaves: Vec<Option<(usize, bool)>> = vec![None];
        for (feature, rule, at) in grown {
            let (leaf, new) = (at.index(leaves.len()), splits.len());
            if let Some((above, left)) = leaves[leaf] {
                let side = if left { &mut splits[above].left } else { &mut splits[above].right };
                *side = Child::Split(new);
            }
            splits.push(Split { feature, rule, left: Child::Leaf(leaf), right: Child::Leaf(leaves.len()) });
            leaves[leaf] = Some((new, true));
            leaves.push(Some((new, false)));
        }
        let leaves = (0..leaves.len()).map(|i| f64::from(seed) * 1e-9 + (i as f64).sin() / 3.0).collect();
        Tree { splits, leaves }
    })
}

fn forest_of(trees: Vec<Tree>) -> Ensemble {
    let features = (0..3).map(|i| format!("f{i}")).collect();
    Ensemble { features, objective: Objective::Identity, averaged: false, categories: None, trees }
}

fn same(ensemble: &Ensemble, rows: &[[f32; 3]]) -> Result<(), TestCaseError> {
    let forest = Forest::new(ensemble).unwrap();
    let (mut scorer, mut fast) = (Scorer::default(), Vec::new());
    forest.score(&mut scorer, rows.as_flattened(), &mut fast);
    for (row, found) in rows.iter().zip(&fast) {
        prop_assert_eq!(found.to_bits(), ensemble.raw(&row.map(f64::from)).to_bits(), "{:?}", row);
    }
    // By codes, as a bundle ranks: the first input belongs to the user and is the same for all.
    let codes = |row: &[f32; 3]| -> Vec<f32> {
        forest.codes().enumerate().map(|(slot, input)| forest.code(slot, row[input])).collect()
    };
    let (user, width) = (forest.codes().take_while(|i| *i == 0).count(), forest.codes().len());
    let mut planes = Planes::default();
    let items: Vec<f32> = rows.iter().take(ROWS).flat_map(|r| codes(r)[user..].to_vec()).collect();
    forest.prepare(&mut planes);
    forest.fill(0..user, (&codes(&rows[0])[..user], 0), &mut planes);
    if width > user {
        forest.fill(user..width, (&items, width - user), &mut planes);
    }
    forest.run(&mut planes);
    for (row, found) in rows.iter().take(ROWS).zip(planes.sums[0]) {
        let row = [rows[0][0], row[1], row[2]];
        prop_assert_eq!(found.to_bits(), ensemble.raw(&row.map(f64::from)).to_bits(), "{:?}", row);
    }
    // The body as it is compiled for any processor.
    let mut sums = [0.0; ROWS];
    kernel::twin::run(forest.trees(), &mut planes, &mut sums);
    prop_assert_eq!(sums.map(f64::to_bits), planes.sums[0].map(f64::to_bits));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_fast_layout_equals_the_plain_walk(
        trees in prop::collection::vec(tree(40), 1..6), rows in prop::collection::vec([number(), number(), number()], 1..150),
    ) {
        same(&forest_of(trees), &rows)?;
    }

    /// More leaves than a byte names, and more thresholds than a column has ranks.
    #[test]
    fn so_do_large_trees(seed in 0u64..1000, rows in prop::collection::vec([number(), number(), number()], 1..70)) {
        let mut trees = Vec::new();
        for t in 0..2 {
            let random = |i: usize| gavel_proto::hash::combine(seed * 2 + t, i as u64);
            let count = 700;
            let splits = (0..count).map(|i| {
                let threshold = f64::from(random(i) as i16) / 100.0;
                let rule = Rule::Number { threshold, missing: Missing::Nan, default_left: random(i) & 1 << 40 != 0 };
                let child = |c: usize| if c < count { Child::Split(c) } else { Child::Leaf(c - count) };
                Split { feature: (random(i) >> 20) as usize % 3, rule, left: child(2 * i + 1), right: child(2 * i + 2) }
            });
            let splits: Vec<Split> = splits.collect();
            trees.push(Tree { splits, leaves: (0..=count).map(|i| i as f64 * 0.1).collect() });
        }
        same(&forest_of(trees), &rows)?;
    }

    /// Whatever a damaged file says, reading it ends in a model or an error.
    #[test]
    fn damaged_files_never_panic(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..4), digit in 0u8..10, cut in 0u8..4) {
        let mut file = fixture("plain.txt");
        let at = at.index(file.len());
        match cut {
            0 => file.truncate(at),
            1 => file.iter_mut().skip(at).zip(&bytes).for_each(|(b, x)| *b = *x),
            _ => if let Some(b) = file[at..].iter_mut().find(|b| b.is_ascii_digit()) { *b = b'0' + digit },
        }
        if let Ok(ensemble) = Ensemble::read(&file) && let Ok(forest) = Forest::new(&ensemble) {
            let mut out = Vec::new();
            forest.score(&mut Scorer::default(), &vec![0.5; ensemble.features.len()], &mut out);
        }
    }
}
