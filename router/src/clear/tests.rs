//! Published auctions, bad files, and the two ways of clearing against each other.

use gavel_proto::hash::mix64;
use num_bigint::{BigInt, BigUint};
use num_traits::One;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use crate::auction::Mechanism;

const VECTORS: &str = include_str!("../../tests/data/auction_vectors.json");

#[derive(Deserialize)]
struct Expected {
    id: String,
    price_kind: String,
    expect_order: Vec<usize>,
    expect_prices: Vec<Box<RawValue>>,
    position_factors: Vec<u64>,
}

#[test]
fn every_published_vector() {
    let expected: Vec<Expected> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let cleared = clear_file(VECTORS).expect("the vectors clear");
    assert_eq!(cleared.len(), expected.len());
    for (got, want) in cleared.iter().zip(&expected) {
        assert_eq!((&got.id, &got.order), (&want.id, &want.expect_order));
        let micros = |(slot, raw): (usize, &RawValue)| {
            let amount = number::read(raw).expect("a number") * BigInt::from(1_000_000);
            let per_event = match want.price_kind.as_str() {
                "total" => amount / BigInt::from(want.position_factors[slot]),
                _ => amount,
            };
            u64::try_from(per_event.floor().to_integer()).expect("fits")
        };
        let prices: Vec<u64> = want.expect_prices.iter().map(AsRef::as_ref).enumerate().map(micros).collect();
        assert_eq!(got.price_micros, prices, "{}", want.id);
    }
}

#[test]
fn the_form_of_the_file_is_the_form_of_the_answer() {
    let one = r#"{"id": "a", "mechanism": "gsp", "bids": ["1/2", 0.25], "position_factors": [1]}"#;
    let answer = r#"{"id":"a","order":[0],"price_micros":[250000]}"#;
    assert_eq!(clear_file_json(one).as_deref(), Ok(answer));
    assert_eq!(clear_file_json(&format!("[{one}]")), Ok(format!("[{answer}]")));
    assert_eq!(clear_file_json("[]").as_deref(), Ok("[]"));
    assert_eq!(clear_file_text(one).as_deref(), Ok("a\n  slot 0  bid 0  pays 0.250000 per event\n"));
}

#[test]
fn ties_go_by_index_and_are_won() {
    let file = r#"{"mechanism": "gsp", "bids": [10, 10, 9], "weights": [3, 3, 3], "position_factors": [2, 1]}"#;
    let cleared = clear_file(file).expect("clears");
    assert_eq!(
        (cleared[0].id.as_str(), &cleared[0].order, &cleared[0].price_micros),
        ("0", &vec![0, 1], &vec![10_000_000, 9_000_000])
    );
}

/// The reserve filter comes first: with a reserve of 2 bidder 1 neither wins nor sets a price.
#[test]
fn first_price_and_reserve() {
    let file =
        r#"{"mechanism": "first_price", "bids": [3, 1.9, 2], "position_factors": [3, 2, 1], "reserve_per_click": 2}"#;
    let cleared = clear_file(file).expect("clears");
    assert_eq!((&cleared[0].order, &cleared[0].price_micros), (&vec![0, 2], &vec![3_000_000, 2_000_000]));
}

/// Bids of 10, 6 and 5 on slots of 200 and 100 clicks: 600 asks for bids of 3 and 6, 800 for 4 and 8; then the second slot
/// stays empty, and what it asks for is no reserve of the first. Units of weights and factors do not matter.
#[test]
fn a_page_threshold() {
    let cleared = |mechanism: &str, bids: &str, weights: &str, threshold: &str| {
        let file = format!(
            r#"{{"mechanism": "{mechanism}", "bids": [{bids}], "weights": [{weights}], "position_factors": [200, 100],
                "page_threshold": {threshold}}}"#
        );
        let cleared = clear_file(&file).expect("clears").remove(0);
        (cleared.order, cleared.price_micros)
    };
    let three = |mechanism: &str, threshold: &str| cleared(mechanism, "10, 6, 5", "1, 1, 1", threshold);
    let both = (vec![0, 1], vec![6_000_000, 6_000_000]);
    assert_eq!(three("gsp", "600"), both);
    assert_eq!(three("gsp", "800"), (vec![0], vec![6_000_000]));
    assert_eq!(three("gsp", "1300"), (vec![0], vec![6_500_000]));
    assert_eq!(three("gsp", "2000.000001"), (vec![], vec![]));
    assert_eq!(three("gsp", "null"), (vec![0, 1], vec![6_000_000, 5_000_000]));
    assert_eq!(three("vcg", "600"), both);
    // At 400 the third bid may stand in the second slot, and is what its winners keep out of it.
    assert_eq!(three("vcg", "400"), (vec![0, 1], vec![5_500_000, 5_000_000]));
    assert_eq!(three("first_price", "600"), (vec![0, 1], vec![10_000_000, 6_000_000]));
    // Thrice the weight, a third of the bid; a third of every weight; and a least bid that is no whole number of micros.
    assert_eq!(cleared("gsp", "10, 2, 5", "1, 3, 1", "600").1, [6_000_000, 2_000_000]);
    assert_eq!(cleared("gsp", "10, 6, 5", r#""1/3", "1/3", "1/3""#, "200"), both);
    assert_eq!(cleared("gsp", "10", "1", r#""200/3""#), (vec![0], vec![333_334]));
}

#[test]
fn a_bad_file_is_told_what_to_change() {
    let check = |file: &str, message: &str| match clear_file(file) {
        Err(error) => assert!(error.to_string().contains(message), "{file}: {error}"),
        Ok(cleared) => panic!("{file} was cleared: {cleared:?}"),
    };
    let with = |field: &str| {
        format!(r#"{{"id": "x", "mechanism": "gsp", "position_factors": [2, 1], "bids": [1, 2], {field}}}"#)
    };
    check("", "neither an object nor an array");
    check("3", "neither an object nor an array");
    check("[1", "Write one JSON object");
    check("[3]", "auction 0 of the file cannot be read");
    check(r#"{"mechanism": "gsp", "bids": []}"#, "`position_factors` is missing");
    check(r#"{"mechanism": "gsp", "position_factors": [1]}"#, "`bids` is missing");
    check(r#"{"bids": [1], "position_factors": [1]}"#, "`mechanism` is missing");
    check(r#"{"mechanism": "gfp", "bids": [1], "position_factors": [1]}"#, "use gsp, vcg or first_price");
    check(
        r#"{"mechanism": "gsp", "bids": [1, "1/3"], "position_factors": [1]}"#,
        "bids[1]: \"1/3\" is not a whole number of micros",
    );
    check(r#"{"mechanism": "gsp", "bids": [1e30], "position_factors": [1]}"#, "too large");
    check(r#"{"mechanism": "gsp", "bids": [-1], "position_factors": [1]}"#, "negative");
    check(r#"{"mechanism": "gsp", "bids": [1], "position_factors": [0]}"#, "position_factors[0] is 0");
    check(r#"{"mechanism": "gsp", "bids": [1], "position_factors": [1, 2]}"#, "most to least seen");
    check(&with(r#""weights": [1]"#), "2 bids but 1 weights");
    check(&with(r#""weights": [1, 0]"#), "weights[1] is 0");
    check(&with(r#""weights": [1, null]"#), "weights[1]: null is not a number");
    check(&with(r#""reserve_per_click": "x""#), "reserve_per_click: x is not a number");
    check(&with(r#""page_threshold": -1"#), "page_threshold: -1 is negative");
    let many = vec!["1"; 10_001].join(",");
    check(
        &format!(r#"{{"mechanism": "gsp", "bids": [{many}], "position_factors": [1]}}"#),
        "10001 bids, at most 10000",
    );
}

/// Weights of coprime denominators outgrow 64 bits together, and are cleared all the same: 8 against
/// 10 * 97 / 100 per unit of weight 1/97 and 1/89.
#[test]
fn numbers_without_end_are_cleared_exactly() {
    let primes = [9973, 9967, 9949, 9941, 9931, 9929, 9923, 9907];
    let weights: Vec<String> = primes.iter().map(|p| format!("\"1/{p}\"")).collect();
    for mechanism in ["gsp", "vcg"] {
        let file = format!(
            r#"{{"mechanism": "{mechanism}", "bids": [1,1,1,1,1,1,1,1], "weights": [{}], "position_factors": [1]}}"#,
            weights.join(",")
        );
        let cleared = clear_file(&file).expect("clears");
        assert_eq!(cleared[0].order, [7]);
        // 9907 / 9923 of a currency unit, up for the second price and down for VCG.
        assert_eq!(cleared[0].price_micros, [if mechanism == "gsp" { 998_388 } else { 998_387 }]);
    }
}

/// The serving auction and its exact twin agree wherever both can clear.
#[test]
fn integers_and_their_twin_agree() {
    for seed in 0..6_000u64 {
        let mut state = mix64(seed + 1);
        let mut next = |below: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix64(state) % below
        };
        let bids: Vec<u64> = (0..next(9)).map(|_| next(12)).collect();
        // A threshold comes with weights of a million times their size.
        let (weight, threshold) = [(1, 0), (1_000_000, next(60))][next(2) as usize];
        let weights = bids.iter().map(|_| BigUint::from((1 + next(5)) * weight)).collect();
        let mut factors: Vec<BigUint> = (0..1 + next(5)).map(|_| BigUint::from(1 + next(6))).collect();
        factors.sort_by(|a, b| b.cmp(a));
        let mechanism = [Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice][seed as usize % 3];
        let page_threshold = BigUint::from(threshold);
        let auction =
            StatedAuction { id: String::new(), mechanism, bids, weights, factors, reserve: next(6), page_threshold };
        assert_eq!(clear_in_integers(&auction), Some(exact::clear(&auction)), "seed {seed}: {auction:?}");
    }
}

/// R(2, 1/2) = 5/12: the revenue of a second price with the reserve of Myerson over bids from U[0, 1] (A16).
#[test]
fn revenue_with_the_optimal_reserve() {
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(state) % 1_000_000
    };
    let auctions = 400_000u64;
    let mut revenue = 0;
    for _ in 0..auctions {
        let auction = StatedAuction {
            id: String::new(),
            mechanism: Mechanism::Gsp,
            bids: vec![draw(), draw()],
            weights: vec![BigUint::one(), BigUint::one()],
            factors: vec![BigUint::one()],
            reserve: 500_000,
            page_threshold: BigUint::default(),
        };
        revenue += clear_in_integers(&auction).expect("fits").price_micros.iter().sum::<u64>();
    }
    let mean = revenue as f64 / auctions as f64 / 1e6;
    assert!((mean - 5.0 / 12.0).abs() < 0.002, "{mean}");
}
