//! Does the light head see what the towers put out for it, item by item?

use super::tests::{SCHEMA, SMALL, files, items, open, user};
use super::*;
use crate::onnx::testing::{Onnx, light_head, tower_with};
use crate::onnx::wire::element;
use proptest::prelude::*;

/// The test bundle with a head, after a change of the head.
fn changed(change: impl FnOnce(&mut Onnx)) -> Vec<(&'static str, Vec<u8>)> {
    let mut head = light_head();
    change(&mut head);
    let mut all = files(SMALL);
    all[0].1 = SCHEMA.replacen("{ scale = 1.0, offset = -3.0 }", "{ head = \"light.onnx\" }", 1).into_bytes();
    all[1].1 = tower_with(1, true, SMALL, (16, 6));
    all[2].1 = tower_with(2, false, SMALL, (16, 4));
    all.push(("light.onnx", head.bytes()));
    all
}

fn shared() -> &'static Bundle {
    static SHARED: std::sync::OnceLock<Bundle> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| open(&changed(|_| {})).unwrap())
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
        let mut all = Vec::new();
        bundle.light(&mut scratch, &of_user.part, &of_items.lights, &similarities, &mut all).unwrap();
        prop_assert_eq!(all.len(), n);
        for i in 0..n {
            let (mut one, row) = (Vec::new(), &of_items.lights[i * 4..(i + 1) * 4]);
            bundle.light(&mut scratch, &of_user.part, row, &similarities[i..=i], &mut one).unwrap();
            prop_assert_eq!(one[0].to_bits(), all[i].to_bits());
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
    let (mut scratch, mut logits, mut other) = (Scratch::default(), Vec::new(), Vec::new());
    let bundle = shared();
    assert_eq!((bundle.light_width(), of_items.lights.len()), (4, 12));
    bundle.light(&mut scratch, &of_user.part, &of_items.lights, &similarities, &mut logits).unwrap();
    let mut stranger = of_user.part.clone();
    stranger.iter_mut().rev().take(6).for_each(|x| *x += 1.0);
    bundle.light(&mut scratch, &stranger, &of_items.lights, &similarities, &mut other).unwrap();
    assert!(logits.iter().zip(&other).all(|(a, b)| a != b), "the user counts");
    bundle.light(&mut scratch, &of_user.part, &[0.5; 12], &similarities, &mut other).unwrap();
    assert!(logits.iter().zip(&other).all(|(a, b)| a != b), "the item counts");
    assert!(bundle.light(&mut scratch, &of_user.part, &[0.5; 11], &similarities, &mut other).is_err());
    assert!(bundle.light(&mut scratch, &of_user.part[1..], &of_items.lights, &similarities, &mut other).is_err());

    let (plain, part) = (super::tests::shared(), vec![0.0; super::tests::shared().user_part_width()]);
    plain.light(&mut scratch, &part, &[], &[2.0, -1.0], &mut other).unwrap();
    assert_eq!((plain.light_width(), other), (0, vec![-1.0, -4.0]));
}

#[test]
fn what_is_wrong_with_a_head_is_named() {
    let text = |all: Vec<(&str, Vec<u8>)>| open(&all).err().map_or_else(String::new, |e| e.to_string());
    assert!(text(changed(|m| drop(m.input("age", element::FLOAT, 1)))).contains("a light head reads user_light"));
    let missing = |file: usize, tower: Vec<u8>| {
        let mut all = changed(|_| {});
        all[file].1 = tower;
        text(all)
    };
    assert!(missing(1, tower_with(1, true, SMALL, (16, 0))).contains("the tower has no such output"));
    assert!(missing(2, tower_with(2, false, SMALL, (16, 5))).contains("[batch, 5]"));
    assert!(missing(1, tower_with(1, true, SMALL, (16, 257))).contains("1 to 256"));
    assert!(text(changed(|m| drop(m.graph.output.pop()))).contains("does not have it"));
    let mut all = changed(|_| {});
    all.pop();
    assert!(text(all).contains("light.onnx is missing"));
    let both = SCHEMA.replacen("{ scale = 1.0,", "{ head = \"light.onnx\", scale = 1.0,", 1);
    let mut all = changed(|_| {});
    all[0].1 = both.into_bytes();
    assert!(text(all).contains("either scale and offset, or a head"));
}

#[test]
fn golden_rows_may_hold_the_light_logit() {
    let (mut scratch, mut logit, mut raw) = (Scratch::default(), Vec::new(), Vec::new());
    let empty = FeatureRow { values: vec![FeatureValue::Missing; 3] };
    let item = FeatureRow { values: vec![FeatureValue::Missing; 2] };
    let of_user = shared().run_user(&mut scratch, &empty).unwrap();
    let of_item = shared().run_items(&mut scratch, std::slice::from_ref(&item)).unwrap();
    let similarity = of_user.query.iter().zip(&of_item.vectors).map(|(a, b)| a * b).sum::<f32>();
    shared().light(&mut scratch, &of_user.part, &of_item.lights, &[similarity], &mut logit).unwrap();
    let cross = shared().cross(&empty, &item);
    shared().rank_raw(&mut scratch, &of_user.part, &of_item.activations, &cross, 1, &mut raw).unwrap();
    let heads = &shared().schema().heads;
    let by_name = |of: &dyn Fn(usize) -> f32| -> std::collections::BTreeMap<String, f32> {
        heads.iter().enumerate().map(|(i, h)| (h.name.clone(), of(i))).collect()
    };
    let row = |light: f32| {
        let row = serde_json::json!({
            "user": {}, "item": {}, "query": of_user.query, "vector": of_item.vectors,
            "heads": by_name(&|i| raw[i]),
            "predictions": by_name(&|i| heads[i].predict(raw[i])),
            "light": light,
        });
        let mut all = changed(|_| {});
        all[4].1 = zstd::encode_all(row.to_string().as_bytes(), 1).unwrap();
        open(&all).unwrap().verify_golden().map(|report| report.rows).map_err(|e| e.to_string())
    };
    assert_eq!(row(logit[0]), Ok(1));
    assert!(row(logit[0] + 0.01).unwrap_err().contains("light"));
}
