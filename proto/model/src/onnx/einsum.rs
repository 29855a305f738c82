//! What is an Einstein sum, as transpositions and one matrix product?
//!
//! Letters are shared (in both operands and kept), contracted (in both and gone), or of one operand alone. With the
//! operands as `[shared, left, contracted]` and `[shared, contracted, right]` the sum is a batch of matrix products.
//! The batch's letter is no axis of the graph: it stays in front by itself. More than two operands are folded from
//! the left.

use super::Reader;
use super::node::{Call, Element};
use super::value::{Place, Value};
use crate::error::GraphError;
use crate::graph::{Op, Reduction, TensorId};

/// An operand and its letters, the batch's left out.
struct Term {
    id: TensorId,
    letters: Vec<u8>,
}

impl Reader {
    pub(super) fn einsum(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let equation: Vec<u8> =
            call.text("equation").unwrap_or(b"").iter().copied().filter(|c| !c.is_ascii_whitespace()).collect();
        let Ok(equation) = String::from_utf8(equation) else { return call.refuse("the equation is no text") };
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (equation.as_str(), None),
        };
        let sources: Vec<&[u8]> = left.split(',').map(str::as_bytes).collect();
        let output = right.map_or_else(|| once(left), |r| r.as_bytes().to_vec());
        let values = self.all_values(call)?;
        let letters_only = sources.iter().all(|s| s.iter().all(u8::is_ascii_alphabetic) && distinct(s));
        if sources.len() != values.len() || !letters_only || !distinct(&output) {
            return call.refuse(format!("the equation {equation} is not supported: one letter a dimension, each once"));
        }
        let mut batch = None;
        let mut terms = Vec::with_capacity(values.len());
        for (value, letters) in values.iter().zip(&sources) {
            if letters.len() != self.rank(*value) {
                return call.refuse(format!("{equation} has another number of dimensions than its inputs"));
            }
            let mut letters = letters.to_vec();
            if self.batched(*value) {
                if value.place.merged() != 0 {
                    return call.refuse("the batch is merged with another dimension");
                }
                let letter = letters.remove(value.place.at);
                if *batch.get_or_insert(letter) != letter {
                    return call.refuse("the batch dimension of one input would meet another dimension of the other");
                }
            }
            terms.push(Term { id: value.id, letters });
        }
        let place = batch.map(|b| output.iter().position(|c| *c == b));
        if place == Some(None) || terms.iter().any(|t| batch.is_some_and(|b| t.letters.contains(&b))) {
            return call.refuse("it would sum over the batch, or give it a number");
        }
        let wanted: Vec<u8> = output.iter().copied().filter(|c| Some(*c) != batch).collect();
        let id = self.contract(call, terms, &wanted)?;
        let place = Place { at: place.flatten().unwrap_or(0), ..Place::FIRST };
        Ok(Value { id, element: Element::Float, place })
    }

    fn contract(&mut self, call: &Call<'_>, terms: Vec<Term>, wanted: &[u8]) -> Result<TensorId, GraphError> {
        let mut rest = terms.into_iter();
        let Some(mut result) = rest.next() else { return call.refuse("has no inputs") };
        let mut rest: std::collections::VecDeque<Term> = rest.collect();
        while let Some(next) = rest.pop_front() {
            let needed = |c: u8| wanted.contains(&c) || rest.iter().any(|t| t.letters.contains(&c));
            let kept: Vec<u8> = result.letters.iter().chain(&next.letters).copied().filter(|c| needed(*c)).collect();
            result = self.pair(call, result, next, &kept)?;
        }
        let result = self.summed(call, result, |c| wanted.contains(&c))?;
        if wanted.iter().any(|c| !result.letters.contains(c)) {
            return call.refuse("the result has a letter that no input has");
        }
        self.ordered(call, &result, wanted)
    }

    /// The sum over the letters that nobody asks for.
    fn summed(&mut self, call: &Call<'_>, term: Term, kept: impl Fn(u8) -> bool) -> Result<Term, GraphError> {
        let Term { mut id, mut letters } = term;
        for axis in (0..letters.len()).rev() {
            if !kept(letters[axis]) {
                id = self.push(call, Op::Reduce { kind: Reduction::Sum, from: axis, to: axis + 1 }, &[id])?;
                letters.remove(axis);
            }
        }
        Ok(Term { id, letters })
    }

    fn ordered(&mut self, call: &Call<'_>, term: &Term, letters: &[u8]) -> Result<TensorId, GraphError> {
        let order = letters.iter().filter_map(|c| term.letters.iter().position(|x| x == c)).collect();
        self.push(call, Op::Permute { order }, &[term.id])
    }

    fn pair(&mut self, call: &Call<'_>, a: Term, b: Term, kept: &[u8]) -> Result<Term, GraphError> {
        // A constant is the right side: one product for all rows of the batch.
        let swap = !self.graph.tensors[a.id].shape.batch && self.graph.tensors[b.id].shape.batch;
        let (a, b) = if swap { (b, a) } else { (a, b) };
        let (a_all, b_all) = (a.letters.clone(), b.letters.clone());
        let a = self.summed(call, a, |c| kept.contains(&c) || b_all.contains(&c))?;
        let b = self.summed(call, b, |c| kept.contains(&c) || a_all.contains(&c))?;
        let pick = |from: &Term, other: &Term, both: bool, keep: bool| -> Vec<u8> {
            let of = |c: &u8| other.letters.contains(c) == both && (!both || kept.contains(c) == keep);
            from.letters.iter().copied().filter(of).collect()
        };
        let (shared, contracted) = (pick(&a, &b, true, true), pick(&a, &b, true, false));
        let (left, right) = (pick(&a, &b, false, true), pick(&b, &a, false, true));
        let size = |r: &Self, t: &Term, c: u8| {
            t.letters.iter().position(|x| *x == c).map_or(1, |axis| r.graph.dims(t.id)[axis])
        };
        let sizes = |r: &Self, t: &Term, of: &[u8]| of.iter().map(|c| size(r, t, *c)).collect::<Vec<_>>();
        if sizes(self, &a, &shared) != sizes(self, &b, &shared)
            || sizes(self, &a, &contracted) != sizes(self, &b, &contracted)
        {
            return call.refuse("one letter has two sizes");
        }
        let outer = sizes(self, &a, &shared);
        let (lefts, rights) = (sizes(self, &a, &left), sizes(self, &b, &right));
        let inner: usize = sizes(self, &a, &contracted).iter().product();
        let from = self.ordered(call, &a, &[&shared[..], &left, &contracted].concat())?;
        let to = self.ordered(call, &b, &[&shared[..], &contracted, &right].concat())?;
        // Without left letters a row is a vector, which meets one constant matrix as it is.
        let vector = left.is_empty() && shared.is_empty() && !self.graph.tensors[to].shape.batch;
        let mut dims = outer.clone();
        if !vector || !self.graph.tensors[from].shape.batch {
            dims.push(lefts.iter().product());
        }
        dims.push(inner);
        let from = self.push(call, Op::Reshape { dims }, &[from])?;
        let dims = outer.iter().copied().chain([inner, rights.iter().product()]).collect();
        let to = self.push(call, Op::Reshape { dims }, &[to])?;
        let product = self.push(call, Op::MatMul, &[from, to])?;
        let dims = outer.into_iter().chain(lefts).chain(rights).collect();
        let id = self.push(call, Op::Reshape { dims }, &[product])?;
        Ok(Term { id, letters: [&shared[..], &left, &right].concat() })
    }
}

fn distinct(letters: &[u8]) -> bool {
    letters.iter().enumerate().all(|(i, c)| !letters[..i].contains(c))
}

/// Without an arrow: the letters that appear once, in order.
fn once(left: &str) -> Vec<u8> {
    let mut letters: Vec<u8> = left.bytes().filter(u8::is_ascii_alphabetic).collect();
    letters.sort_unstable();
    let single = |c: &u8| left.bytes().filter(|x| x == c).count() == 1;
    letters.into_iter().filter(single).collect()
}
