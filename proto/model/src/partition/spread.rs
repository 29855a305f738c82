//! Rule: an operation on a concatenation is done to its groups, wherever that is the same.
//!
//! `[u, a, x] W = u Wu + a Wa + x Wx`, `relu([u, a]) = [relu(u), relu(a)]`, `[u, a] + [c, d] = [u + c, a + d]`; a
//! sum over fields is the sum of the sums over the fields of each side; rows of tokens of each side are multiplied,
//! normalised and looked up by themselves; a slice of a concatenation is a slice of what it was made of; flattening
//! `[fields, d]` flattens each side. All of it is exact but for the order of additions. What mixes entries along the
//! axis of the groups (a softmax, a normalisation, a maximum of norms) needs the whole and gets it.
//!
//! It pays because what falls into the user's and the item's group leaves the request path. An operand that depends
//! on both and has no groups (`x0 * (W x0 + b)`) may be cut to fit or not: [`Operand`] says so, and the cheaper of
//! the two graphs is kept.

use super::Label;
use super::draft::Rebuild;
use super::groups::{Apart, Group, Groups, Piece, aligned, entries, select};
use crate::graph::{Binary, Graph, Node, Op, Reduction, TensorId};
use std::ops::Range;

/// Whether an elementwise operation cuts an operand that depends on both, to fit the groups of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Cut,
    Whole,
}

/// What an operation on groups becomes.
enum Spread {
    Groups(Groups),
    /// One tensor that no longer has groups.
    Whole(TensorId),
}

/// The graph with its operations done to groups.
pub(super) fn apply(graph: &Graph, inputs: &[Label], operand: Operand) -> Result<Graph, String> {
    let mut s = Spreader { r: Rebuild::new(graph, inputs), groups: vec![None; graph.tensors.len()], operand };
    for node in &graph.nodes {
        let made = s.node(node)?;
        s.r.map[node.output] = match made {
            Some(Spread::Whole(whole)) => whole,
            Some(Spread::Groups(groups)) if groups.members.len() > 1 => {
                s.groups[node.output] = Some(groups);
                s.r.copy(node)?
            }
            // One group is the whole.
            Some(Spread::Groups(groups)) => groups.members.first().map_or_else(|| s.r.copy(node), |g| Ok(g.tensor))?,
            // Where a reader needs the whole, it is made as before; what nothing reads is left out at the end.
            None => s.r.copy(node)?,
        };
    }
    s.r.finish()
}

struct Spreader<'a> {
    r: Rebuild<'a>,
    /// By tensor of the old graph.
    groups: Vec<Option<Groups>>,
    operand: Operand,
}

impl Spreader<'_> {
    fn node(&mut self, node: &Node) -> Result<Option<Spread>, String> {
        if self.r.labels[node.output] != Label::Both {
            return Ok(None);
        }
        if let Op::Concat { axis } = node.op {
            return self.concat(axis, node);
        }
        let Some(first) = node.inputs.first().copied() else { return Ok(None) };
        match &node.op {
            Op::Unary(_) | Op::Binary(_) | Op::Sum | Op::Select => self.elementwise(node),
            Op::Gather { axis: 0 } if self.r.labels[first] == Label::Constant => self.lookup(node),
            op @ (Op::MatMul
            | Op::Gather { .. }
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::Softmax { .. }
            | Op::Normalise { .. }
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Slice { .. }
            | Op::Broadcast { .. }) => match self.groups[first].clone() {
                Some(groups) => self.of_first(op, &groups, node),
                None => Ok(None),
            },
        }
    }

    /// Operations on one tensor with groups, and constants.
    fn of_first(&mut self, op: &Op, groups: &Groups, node: &Node) -> Result<Option<Spread>, String> {
        let axis = groups.axis;
        match op {
            Op::MatMul => self.product(groups, node),
            Op::Reduce { kind, from, to } if (*from..*to).contains(&axis) => self.reduce(*kind, groups, node),
            Op::Reduce { from, to, .. } => {
                self.each(groups, if axis >= *to { axis + from - to } else { axis }, op, node)
            }
            Op::Softmax { axis: over } if *over != axis => self.each(groups, axis, op, node),
            Op::Normalise { from, .. } if axis < *from => self.each(groups, axis, op, node),
            Op::Permute { order } => match order.iter().position(|i| *i == axis) {
                Some(moved) => self.each(groups, moved, op, node),
                None => Ok(None),
            },
            Op::Slice { axis: along, .. } if *along != axis => self.each(groups, axis, op, node),
            Op::Slice { start, step: 1, count, .. } => self.slice(groups, *start..start + count).map(Some),
            Op::Reshape { dims } => self.reshape(groups, dims, node),
            Op::Broadcast { dims } if dims.get(axis) == self.r.old.dims(node.inputs[0]).get(axis) => {
                self.broadcast(groups, dims, node)
            }
            Op::Gather { .. }
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Sum
            | Op::Concat { .. }
            | Op::Softmax { .. }
            | Op::Normalise { .. }
            | Op::Slice { .. }
            | Op::Broadcast { .. }
            | Op::Select => Ok(None),
        }
    }

    fn name(&self, node: &Node) -> String {
        self.r.old.tensors[node.output].name.clone()
    }

    /// The operation on each group; the groups then lie along `axis`.
    fn each(&mut self, groups: &Groups, axis: usize, op: &Op, node: &Node) -> Result<Option<Spread>, String> {
        let name = self.name(node);
        groups.map(axis, |g| self.r.new.push(op.clone(), &[g.tensor], &name)).map(|g| Some(Spread::Groups(g)))
    }

    fn concat(&mut self, axis: usize, node: &Node) -> Result<Option<Spread>, String> {
        let name = self.name(node);
        // Groups along another axis, all alike: joined group by group.
        if let Some(first) = self.groups[node.inputs[0]].clone().filter(|g| g.axis != axis) {
            let of: Option<Vec<Groups>> = node.inputs.iter().map(|i| self.groups[*i].clone()).collect();
            let Some(of) = of.filter(|of| of.iter().all(|g| g.alike(&first))) else { return Ok(None) };
            let mut members = Vec::with_capacity(first.members.len());
            for (at, group) in first.members.iter().enumerate() {
                let tensors: Vec<TensorId> = of.iter().map(|g| g.members[at].tensor).collect();
                let tensor = self.r.new.push(Op::Concat { axis }, &tensors, &name)?;
                members.push(Group { tensor, places: group.places.clone() });
            }
            return Ok(Some(Spread::Groups(Groups { axis: first.axis, members })));
        }
        let rank = self.r.old.dims(node.output).len();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for input in &node.inputs {
            // A constant may have one dimension more in front.
            let Some(own) = (self.r.old.dims(*input).len() + axis).checked_sub(rank) else { return Ok(None) };
            let width = self.r.old.dims(*input)[own];
            match self.groups[*input].as_ref().filter(|g| g.axis == axis) {
                Some(groups) => pieces.extend(groups.members.iter().map(|g| Piece {
                    tensor: g.tensor,
                    places: g.places.iter().map(|p| p.start + from..p.end + from).collect(),
                    apart: Apart::Yes,
                })),
                None => {
                    let places = std::iter::once(from..from + width).collect();
                    pieces.push(Piece { tensor: self.r.map[*input], places, apart: Apart::No });
                }
            }
            from += width;
        }
        // Without a batch, a constant is no part of a group of its own.
        let constants = pieces.iter().any(|p| self.r.new.label(p.tensor) == Label::Constant);
        if constants && pieces.iter().all(|p| matches!(self.r.new.label(p.tensor), Label::Constant | Label::Both)) {
            return Ok(None);
        }
        Groups::collect(&mut self.r.new, axis, &pieces, &name).map(|g| Some(Spread::Groups(g)))
    }

    fn elementwise(&mut self, node: &Node) -> Result<Option<Spread>, String> {
        let dims = self.r.old.dims(node.output).to_vec();
        let fits = |s: &Self, i: TensorId, g: &Groups| {
            s.r.old.dims(i).len() == dims.len() && s.r.old.dims(i)[g.axis] == dims[g.axis]
        };
        let first = node.inputs.iter().find_map(|i| self.groups[*i].clone().filter(|g| fits(self, *i, g)));
        let Some(first) = first else { return Ok(None) };
        let alike = |s: &Self, i: TensorId| s.groups[i].as_ref().is_some_and(|g| g.alike(&first));
        let stays = |s: &Self, i: TensorId| {
            let own = (s.r.old.dims(i).len() + first.axis).checked_sub(dims.len());
            own.is_none_or(|at| s.r.old.dims(i)[at] == 1)
        };
        let uncut = |s: &Self, i: TensorId| s.r.labels[i] == Label::Both && !alike(s, i) && !stays(s, i);
        if self.operand == Operand::Whole && node.inputs.iter().any(|i| uncut(self, *i)) {
            return Ok(None);
        }
        let name = self.name(node);
        let mut members = Vec::with_capacity(first.members.len());
        for (at, group) in first.members.iter().enumerate() {
            let mut operands = Vec::with_capacity(node.inputs.len());
            for input in &node.inputs {
                operands.push(match self.groups[*input].as_ref().filter(|g| g.alike(&first)) {
                    Some(own) => own.members[at].tensor,
                    None => {
                        let whole = self.r.map[*input];
                        aligned(&mut self.r.new, whole, (first.axis, dims.len()), &group.places, 0)?
                    }
                });
            }
            let tensor = self.r.new.push(node.op.clone(), &operands, &name)?;
            members.push(Group { tensor, places: group.places.clone() });
        }
        Ok(Some(Spread::Groups(Groups { axis: first.axis, members })))
    }

    /// Rows of a constant table, at indices with groups.
    fn lookup(&mut self, node: &Node) -> Result<Option<Spread>, String> {
        let [table, at] = node.inputs[..] else { return Ok(None) };
        let Some(groups) = self.groups[at].clone() else { return Ok(None) };
        let (name, table) = (self.name(node), self.r.map[table]);
        let made = groups.map(groups.axis, |g| self.r.new.push(node.op.clone(), &[table, g.tensor], &name));
        made.map(|g| Some(Spread::Groups(g)))
    }

    /// A product with one constant matrix: the sum of the groups' products, or the product of each group's rows.
    fn product(&mut self, groups: &Groups, node: &Node) -> Result<Option<Spread>, String> {
        let [left, right] = node.inputs[..] else { return Ok(None) };
        if self.r.labels[right] != Label::Constant || self.r.old.dims(right).len() != 2 {
            return Ok(None);
        }
        let (name, matrix) = (self.name(node), self.r.map[right]);
        if groups.axis + 1 < self.r.old.dims(left).len() {
            let made = groups.map(groups.axis, |g| self.r.new.push(Op::MatMul, &[g.tensor, matrix], &name));
            return made.map(|g| Some(Spread::Groups(g)));
        }
        let mut terms = Vec::with_capacity(groups.members.len());
        for group in &groups.members {
            let rows = entries(&mut self.r.new, matrix, 0, &group.places, &name)?;
            terms.push(self.r.new.push(Op::MatMul, &[group.tensor, rows], &name)?);
        }
        self.r.new.push(Op::Sum, &terms, &name).map(|t| Some(Spread::Whole(t)))
    }

    /// A reduction over the axis of the groups.
    fn reduce(&mut self, kind: Reduction, groups: &Groups, node: &Node) -> Result<Option<Spread>, String> {
        let Op::Reduce { from, to, .. } = node.op else { return Ok(None) };
        let (each, joined) = match kind {
            Reduction::Sum | Reduction::Mean => (Reduction::Sum, None),
            Reduction::SumSquare => (Reduction::SumSquare, None),
            Reduction::Max => (Reduction::Max, Some(Binary::Max)),
            Reduction::Min => (Reduction::Min, Some(Binary::Min)),
            Reduction::L2 => return Ok(None),
        };
        let name = self.name(node);
        let made =
            groups.map(groups.axis, |g| self.r.new.push(Op::Reduce { kind: each, from, to }, &[g.tensor], &name))?;
        let terms: Vec<TensorId> = made.members.iter().map(|g| g.tensor).collect();
        let mut result = match joined {
            None => self.r.new.push(Op::Sum, &terms, &name)?,
            Some(binary) => {
                let mut result = terms[0];
                for term in &terms[1..] {
                    result = self.r.new.push(Op::Binary(binary), &[result, *term], &name)?;
                }
                result
            }
        };
        if kind == Reduction::Mean {
            let count: usize = self.r.old.dims(node.inputs[0])[from..to].iter().product();
            let factor = self.r.new.constant(&name, vec![1], [1.0 / count.max(1) as f32].into());
            result = self.r.new.push(Op::Binary(Binary::Mul), &[result, factor], &name)?;
        }
        Ok(Some(Spread::Whole(result)))
    }

    /// Entries side by side, along the axis of the groups.
    fn slice(&mut self, groups: &Groups, wanted: Range<usize>) -> Result<Spread, String> {
        let mut members = Vec::new();
        for group in &groups.members {
            let (mut local, mut places, mut from) = (Vec::new(), Vec::new(), 0);
            for place in &group.places {
                let cut = place.start.max(wanted.start)..place.end.min(wanted.end);
                if cut.start < cut.end {
                    local.push(from + cut.start - place.start..from + cut.end - place.start);
                    places.push(cut.start - wanted.start..cut.end - wanted.start);
                }
                from += place.len();
            }
            if !local.is_empty() {
                let tensor = select(&mut self.r.new, group.tensor, groups.axis, &local, 0)?;
                members.push(Group { tensor, places });
            }
        }
        Ok(Spread::Groups(Groups { axis: groups.axis, members }))
    }

    /// Other dimensions around the axis of the groups: what lies before it stays before it, and each place still
    /// begins and ends at an entry.
    fn reshape(&mut self, groups: &Groups, dims: &[usize], node: &Node) -> Result<Option<Spread>, String> {
        let source = self.r.old.dims(node.inputs[0]).to_vec();
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        let (before, inner) = (product(&source[..groups.axis]), product(&source[groups.axis + 1..]));
        let scaled = |after: usize| -> Option<Vec<Vec<Range<usize>>>> {
            let place = |p: &Range<usize>| {
                let (start, end) = (p.start * inner, p.end * inner);
                let whole = after > 0 && start.is_multiple_of(after) && end.is_multiple_of(after);
                whole.then(|| start / after..end / after)
            };
            groups.members.iter().map(|g| g.places.iter().map(place).collect()).collect()
        };
        // The last such axis, so that a vector stays one when dimensions of 1 are put around it.
        let found = (0..dims.len()).rev().find_map(|axis| {
            let fits = product(&dims[..axis]) == before && (dims[axis] > 1 || product(dims) <= 1);
            scaled(product(&dims[axis + 1..])).filter(|_| fits).map(|places| (axis, places))
        });
        let Some((axis, places)) = found else { return Ok(None) };
        let name = self.name(node);
        let mut members = Vec::with_capacity(places.len());
        for (group, places) in groups.members.iter().zip(places) {
            let mut own = dims.to_vec();
            own[axis] = places.iter().map(Range::len).sum();
            let tensor = self.r.new.push(Op::Reshape { dims: own }, &[group.tensor], &name)?;
            members.push(Group { tensor, places });
        }
        Ok(Some(Spread::Groups(Groups { axis, members })))
    }

    fn broadcast(&mut self, groups: &Groups, dims: &[usize], node: &Node) -> Result<Option<Spread>, String> {
        let name = self.name(node);
        let made = groups.map(groups.axis, |g| {
            let mut own = dims.to_vec();
            own[groups.axis] = g.places.iter().map(Range::len).sum();
            self.r.new.push(Op::Broadcast { dims: own }, &[g.tensor], &name)
        });
        made.map(|g| Some(Spread::Groups(g)))
    }
}
