//! Does the light head see what the towers put out for it, item by item?

use super::testing::{ITEM_TOWER, SCHEMA as TOML, SMALL, TestBundle, USER_TOWER, passing_row};
use super::tests::{SCHEMA, items, sample, user};
use super::*;
use crate::onnx::testing::{Onnx, light_head, tower_with};
use crate::onnx::wire::element;
use proptest::prelude::*;
use serde_json::{Value, json};

const HEAD: &str = "light.onnx";

/// The test bundle with a head, after a change of the head.
fn changed(change: impl FnOnce(&mut Onnx)) -> TestBundle {
    let mut head = light_head();
    change(&mut head);
    sample()
        .with(TOML, SCHEMA.replacen("{ scale = 1.0, offset = -3.0 }", "{ head = \"light.onnx\" }", 1))
        .with(USER_TOWER, tower_with(1, true, SMALL, (16, 6)))
        .with(ITEM_TOWER, tower_with(2, false, SMALL, (16, 4)))
        .with(HEAD, head.bytes())
}

fn shared() -> &'static Bundle {
    static SHARED: std::sync::OnceLock<Bundle> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| changed(|_| {}).open().unwrap())
}

/// What the towers put out, and similarities.
fn request(n: usize, seed: u64) -> (UserOutput, ItemOutput, Vec<f32>) {
    let mut scratch = Scratch::default();
    let of_user = shared().run_user(&mut scratch, &user(seed)).unwrap();
    let of_items = shared().run_items(&mut scratch, &items(n, seed)).unwrap();
    let dot = |vector: &[f32]| vector.iter().zip(&of_user.query).map(|(a, b)| a * b).sum::<f32>();
    let similarities = of_items.vectors.chunks_exact(16).map(dot).collect();
    (of_user, of_items, similarities)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A logit is bit-identical whatever its block and neighbours, and the rest of the bundle is as without a head.
    #[test]
    fn an_item_is_alone_with_the_user(n in 1usize..80, seed in 1u64..500) {
        let (bundle, mut scratch) = (shared(), Scratch::default());
        let (of_user, of_items, similarities) = request(n, seed);
        let mut all = LightLogits::default();
        bundle.light(&mut scratch, &of_user.part, &of_items.lights, &similarities, &mut all).unwrap();
        prop_assert_eq!((all.clicks.len(), all.conversions.len()), (n, n));
        for i in 0..n {
            let (mut one, row) = (LightLogits::default(), &of_items.lights[i * 4..(i + 1) * 4]);
            bundle.light(&mut scratch, &of_user.part, row, &similarities[i..=i], &mut one).unwrap();
            prop_assert_eq!(one.clicks[0].to_bits(), all.clicks[i].to_bits());
            prop_assert_eq!(one.conversions[0].to_bits(), all.conversions[i].to_bits());
        }
        let plain = super::tests::shared();
        let of_plain = plain.run_user(&mut scratch, &user(seed)).unwrap();
        prop_assert_eq!(&of_plain.query, &of_user.query);
        prop_assert_eq!(&of_user.part[..of_plain.part.len()], &of_plain.part[..]);
        prop_assert_eq!(of_user.part.len(), of_plain.part.len() + 6);
        let cross: Vec<f32> = items(n, seed).iter().flat_map(|i| bundle.cross(&user(seed), i)).collect();
        let (mut with, mut without) = (Vec::new(), Vec::new());
        bundle.rank(&mut scratch, &of_user.part, &of_items.activations, &cross, n, &mut with).unwrap();
        plain.rank(&mut scratch, &of_plain.part, &of_items.activations, &cross, n, &mut without).unwrap();
        prop_assert_eq!(with, without);
    }
}

#[test]
fn the_head_reads_the_towers_and_a_line_stands_in_without_one() {
    let (of_user, of_items, similarities) = request(3, 7);
    let (mut scratch, mut logits, mut other) = (Scratch::default(), LightLogits::default(), LightLogits::default());
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a != b);
    let bundle = shared();
    assert_eq!((bundle.light_width(), of_items.lights.len()), (4, 12));
    bundle.light(&mut scratch, &of_user.part, &of_items.lights, &similarities, &mut logits).unwrap();
    let mut stranger = of_user.part.clone();
    stranger.iter_mut().rev().take(6).for_each(|x| *x += 1.0);
    bundle.light(&mut scratch, &stranger, &of_items.lights, &similarities, &mut other).unwrap();
    assert!(differ(&logits.clicks, &other.clicks), "the user counts");
    bundle.light(&mut scratch, &of_user.part, &[0.5; 12], &similarities, &mut other).unwrap();
    assert!(
        differ(&logits.clicks, &other.clicks) && differ(&logits.conversions, &other.conversions),
        "the item counts"
    );
    assert!(differ(&logits.clicks, &logits.conversions), "each output is one of its own");
    assert!(bundle.light(&mut scratch, &of_user.part, &[0.5; 11], &similarities, &mut other).is_err());
    assert!(bundle.light(&mut scratch, &of_user.part[1..], &of_items.lights, &similarities, &mut other).is_err());

    let (plain, part) = (super::tests::shared(), vec![0.0; super::tests::shared().user_part_width()]);
    plain.light(&mut scratch, &part, &[], &[2.0, -1.0], &mut other).unwrap();
    let line = LightLogits { clicks: vec![-1.0, -4.0], conversions: vec![] };
    assert_eq!((plain.light_width(), &other), (0, &line));
    assert!(plain.light_cost().is_none());
    let cost = bundle.light_cost().unwrap();
    assert!(cost.operations > 3 && cost.flops >= 2 * (11 * 8 + 8) && cost.constant_bytes >= 4 * 11 * 8, "{cost:?}");

    // A head may say nothing of conversions.
    let click_only = changed(|m| drop(m.graph.output.pop())).open().unwrap();
    click_only.light(&mut scratch, &of_user.part, &of_items.lights, &similarities, &mut other).unwrap();
    assert_eq!((&other.clicks, other.conversions.len()), (&logits.clicks, 0));
}

#[test]
fn what_is_wrong_with_a_head_is_named() {
    let text = |bundle: TestBundle| bundle.refusal();
    let strange = changed(|m| drop(m.input("age", element::FLOAT, 1)));
    assert!(text(strange).contains("a light head reads user_light"));
    let tower = |file: &str, tower: Vec<u8>| text(changed(|_| {}).with(file, tower));
    assert!(tower(USER_TOWER, tower_with(1, true, SMALL, (16, 0))).contains("the tower has no such output"));
    assert!(tower(ITEM_TOWER, tower_with(2, false, SMALL, (16, 5))).contains("[batch, 5]"));
    assert!(tower(USER_TOWER, tower_with(1, true, SMALL, (16, 257))).contains("1 to 256"));
    assert!(text(changed(|m| drop(m.graph.output.remove(0)))).contains("does not have it"));
    assert!(text(changed(|_| {}).without(HEAD)).contains("light.onnx is missing"));
    let both = SCHEMA.replacen("{ scale = 1.0,", "{ head = \"light.onnx\", scale = 1.0,", 1);
    assert!(text(changed(|_| {}).with(TOML, both)).contains("either scale and offset, or a head"));
}

#[test]
fn golden_rows_verify_the_light_head() {
    let row = passing_row(shared(), &json!({"segment": "gold"}), &json!({"kind": "tea"}));
    let report = changed(|_| {}).row(&row).verify().unwrap();
    assert_eq!((report.rows, report.light_rows), (1, 1));
    for name in ["light", "light_conversion"] {
        let mut wrong = row.clone();
        wrong[name] = (wrong[name].as_f64().unwrap() + 0.01).into();
        assert!(changed(|_| {}).row(&wrong).verify().unwrap_err().contains(&format!("{name} is")));
    }
    for name in ["light", "light_conversion"] {
        let mut without = row.clone();
        without.as_object_mut().map(|row| row.remove(name));
        let refused = changed(|_| {}).row(&without).verify().unwrap_err();
        assert!(refused.contains(&format!("no row has `{name}`")), "{refused}");
    }
    let refused = changed(|m| drop(m.graph.output.pop())).row(&row).verify().unwrap_err();
    assert!(refused.contains("gives no light_conversion"), "{refused}");
}

/// A check says what the head costs, and every node of it that is not supported.
#[test]
fn a_check_knows_the_light_head() {
    let dir = tempfile::tempdir().unwrap();
    let row: Value = passing_row(shared(), &json!({}), &json!({}));
    changed(|_| {}).row(&row).write(dir.path());
    let found = check(dir.path());
    assert_eq!(found.errors, Vec::<String>::new());
    let light = found.light.unwrap();
    assert_eq!((light.user, light.item, Some(light.cost)), (6, 4, shared().light_cost()));
    assert_eq!(found.activations, 4 + shared().activation_width());
    assert_eq!(found.golden.map(|g| g.light_rows), Some(1));

    changed(|m| m.graph.node[0].op_type = "LSTM".into()).write(dir.path());
    let text = check(dir.path()).errors.join("\n");
    assert!(text.contains("light.onnx") && text.contains("LSTM"), "{text}");
}
