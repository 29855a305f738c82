//! How does a graph become one whose user-only and item-only tensors are as many and as late as possible?
//!
//! By a few rules, each in a file of its own with its reason: [`super::fold`] puts factors into matrices,
//! [`super::spread`] does to the groups of a concatenation what can be done to them, [`super::narrow`] repeats late,
//! [`super::sum`] groups additions, [`super::product`] takes products apart. Equal subgraphs are shared on the way ([`super::draft`]). Then the
//! cheapest [`super::frontier`] is drawn.
//!
//! Whether a rule pays can depend on what another makes of its result, so a few orders of them are tried and the
//! graph whose candidate part has the smallest [`super::price`] is kept. A rule that breaks a limit drops the order it
//! stands in, never the bundle: the graph as it came is there when nothing else is.

use super::spread::Operand;
use super::{Label, fold, frontier, labels, narrow, price, product, spread, sum};
use crate::graph::{Graph, TensorId};
use crate::limits::{ACTIVATION_VALUES_MAX, USER_PART_VALUES_MAX};

/// A graph with its frontiers.
pub(super) struct Plan {
    pub graph: Graph,
    /// The user-only tensors that the candidate part reads.
    pub user: Vec<TensorId>,
    /// The item-only tensors that it reads.
    pub item: Vec<TensorId>,
    price: u64,
}

/// The plan with the smallest price, of equal ones the first; the graph as it came only when there is no other.
pub(super) fn cheapest(whole: &Graph, inputs: &[Label]) -> Result<Plan, String> {
    let [whole_operands, cut_operands, as_it_came] = plans(whole, inputs);
    match (whole_operands, cut_operands) {
        (Ok(a), Ok(b)) => Ok(if b.price < a.price { b } else { a }),
        (Ok(plan), Err(_)) | (Err(_), Ok(plan)) => Ok(plan),
        (Err(_), Err(_)) => as_it_came,
    }
}

/// The plans that are tried, the graph as it came last: its reason is the one that counts when there is no plan.
pub(super) fn plans(whole: &Graph, inputs: &[Label]) -> [Result<Plan, String>; 3] {
    let rewritten = |operand| Plan::new(separate(&fold::apply(whole, inputs)?, inputs, operand)?, inputs);
    let as_it_came = whole.extract(&whole.inputs, &whole.outputs).and_then(|graph| Plan::new(graph, inputs));
    [rewritten(Operand::Whole), rewritten(Operand::Cut), as_it_came]
}

/// The same function with its labels apart.
fn separate(base: &Graph, inputs: &[Label], operand: Operand) -> Result<Graph, String> {
    let spread = spread::apply(base, inputs, operand)?;
    let narrow = narrow::apply(&spread, inputs)?;
    let summed = sum::apply(&narrow, inputs)?;
    let apart = product::apply(&summed, inputs)?;
    sum::apply(&apart, inputs)
}

impl Plan {
    fn new(graph: Graph, inputs: &[Label]) -> Result<Self, String> {
        let labels = labels(&graph, inputs);
        let user = frontier::kept(&graph, &labels, Label::User, USER_PART_VALUES_MAX)?;
        let item = frontier::kept(&graph, &labels, Label::Ad, ACTIVATION_VALUES_MAX)?;
        let (users, items) = (frontier::width(&graph, &user), frontier::width(&graph, &item));
        let met: Vec<TensorId> = user.iter().chain(&item).copied().chain(graph.inputs.iter().copied()).collect();
        let mut seen = std::collections::BTreeSet::new();
        let met: Vec<TensorId> = met.into_iter().filter(|id| seen.insert(*id)).collect();
        let candidate = graph.extract(&met, &graph.outputs)?;
        let once = price::once_a_request(&graph, &labels);
        let of_met: Vec<Label> = met.iter().map(|i| labels[*i]).collect();
        let price =
            price::candidate(&candidate, &super::labels(&candidate, &of_met), (users as u64, items as u64)) + once;
        Ok(Self { graph, user, item, price })
    }
}
