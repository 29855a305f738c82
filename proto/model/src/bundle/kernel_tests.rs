//! Does ranking take no memory once its buffers are there?

use super::tests::{request, shared};
use super::*;
use crate::allocations;

#[test]
fn a_warm_request_takes_no_memory() {
    let bundle = shared();
    let r = request(bundle, 300, 5);
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let mut rank = |scratch: &mut Scratch, n: usize| {
        let width = bundle.activation_width();
        let (activations, cross) = (&r.activations[..n * width], &r.cross[..n]);
        bundle.rank(scratch, &r.part, activations, cross, n, &mut out).unwrap();
    };
    assert!(allocations::during(|| rank(&mut scratch, 300)) > 0, "the counter counts");
    for n in [300, 1, 77] {
        assert_eq!(allocations::during(|| rank(&mut scratch, n)), 0, "{n} candidates");
    }
}
