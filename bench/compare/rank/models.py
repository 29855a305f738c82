"""Which rankers are compared?

Seeded random weights, scaled as He et al. (2015) do, so that activations neither vanish nor grow: what is measured is
arithmetic, and no arithmetic here depends on what was learnt. The same weights go into every form of a graph.
"""

import dataclasses

import numpy

from graph import CANDIDATE, USER, Graph, Joined

HEADS = ("click", "conversion", "hide", "long_click")
# Added to every logit of a model that is kept in fewer bits, a rate of 5 %: around 0, where random weights leave it, a
# relative difference says nothing, and a bundle's tolerance is one. Models of f32 are compared without it.
RARE = -3.0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is; the defaults are the reference."""

    user: int = 64
    item: int = 40
    width: int = 16
    buckets: int = 10_000
    sets: int = 4
    cross: int = 32
    experts: int = 4
    expert: tuple = (512, 256, 64)
    rank: int = 32
    dcn: int = 64
    tower: tuple = (64, 32)
    mlp: tuple = (512, 256, 64)
    actions: int = 100
    model: int = 64
    attention_heads: int = 4
    inner: int = 256
    layers: int = 2
    sequence_mlp: tuple = (256, 64)
    sequence_user: int = 8
    sequence_item: int = 8


SMALL = Sizes(
    user=5, item=4, width=4, buckets=50, sets=2, cross=6, experts=2, expert=(16, 8, 8), rank=4, dcn=8, tower=(8, 4),
    mlp=(16, 8), actions=7, model=8, attention_heads=2, inner=16, layers=1, sequence_mlp=(16, 8), sequence_user=2, sequence_item=3,
)  # fmt: skip


class Weights:
    """Random weights that depend on their name alone."""

    def __init__(self, seed, base=0.0):
        self.seed, self.base = seed, base

    def normal(self, name, shape, deviation):
        digits = int.from_bytes(name.encode(), "little")
        generator = numpy.random.default_rng([self.seed, digits])
        return (generator.standard_normal(shape) * deviation).astype(numpy.float32)

    def dense(self, name, rows, columns, gain=2.0):
        """Weights and bias of a layer: He for a rectified one (gain 2), Glorot's for a linear one (gain 1)."""
        bias = self.normal(f"{name}.bias", columns, 0.05)
        return self.normal(name, (rows, columns), (gain / rows) ** 0.5), bias

    def head(self, name, rows):
        """Weights and bias of a head's last layer."""
        weights, bias = self.dense(name, rows, 1, gain=1.0)
        return weights, (bias + self.base).astype(numpy.float32)

    def table(self, name, sizes, width):
        table = self.normal(name, (sizes.buckets + 1, width), 0.5)
        table[0] = 0
        return table


def features(sizes):
    """The schema of all models but the sequence's, as rows of bundle.toml."""
    context = sizes.user // 4
    rows = [
        {"name": f"user_{i}", "side": "context" if i < context else "user", "kind": "category", "buckets": sizes.buckets}
        for i in range(sizes.user)
    ]
    # The sets reach the ranker only through the cross features.
    rows += [{"name": f"set_{i}", "side": "user", "kind": "set", "buckets": sizes.buckets, "max_len": 32} for i in range(sizes.sets)]
    rows += [{"name": f"item_{i}", "side": "item", "kind": "category", "buckets": sizes.buckets} for i in range(sizes.item)]
    return rows


def crosses(sizes):
    """Every set meets several item features."""
    return [
        {"name": f"cross_{i}", "user": f"set_{i % sizes.sets}", "item": f"item_{i // sizes.sets % sizes.item}",
         "transform": "log1p", "mean": 0.2, "std": 0.5}
        for i in range(sizes.cross)
    ]  # fmt: skip


def sequence_features(sizes):
    """The schema of the sequence model."""
    rows = [{"name": "actions", "side": "user", "kind": "sequence", "buckets": sizes.buckets, "max_len": sizes.actions}]
    rows += [{"name": f"user_{i}", "side": "user", "kind": "category", "buckets": sizes.buckets} for i in range(sizes.sequence_user)]
    rows += [{"name": f"item_{i}", "side": "item", "kind": "category", "buckets": sizes.buckets} for i in range(sizes.sequence_item)]
    return rows


def joined(g, w, s):
    """Embeddings of all categories and the cross features: [user, item, cross]."""
    user = [g.embedded(f"user_{i}", USER, w.table(f"user_{i}", s, s.width)) for i in range(s.user)]
    item = [g.embedded(f"item_{i}", CANDIDATE, w.table(f"item_{i}", s, s.width)) for i in range(s.item)]
    item += [g.input(f"cross_{i}", CANDIDATE) for i in range(s.cross)]
    user, item = g.node("Concat", *user, axis=1), g.node("Concat", *item, axis=1)
    return Joined(g, user, s.user * s.width, item, s.item * s.width + s.cross)


def layers(g, w, name, x, sizes):
    """Rectified layers; `x` is a tensor with its width."""
    x, width = x
    for n, size in enumerate(sizes):
        x, width = g.relu(g.linear(f"{name}.{n}", x, *w.dense(f"{name}.{n}", width, size))), size
    return x, width


def first(g, w, name, x, size):
    """A rectified layer over what is joined."""
    return g.relu(x.linear(name, *w.dense(name, x.width, size))), size


def heads(g, w, s, x):
    """A tower for each head."""
    for name in HEADS:
        hidden, width = layers(g, w, f"{name}.tower", x(name), s.tower)
        g.output(name, g.linear(f"{name}.out", hidden, *w.head(f"{name}.out", width)))


def reference(g, w, s):
    """MMoE with a gate for each task, beside a shared low-rank DCN-v2 branch."""
    x = joined(g, w, s)
    experts = []
    for e in range(s.experts):
        hidden = first(g, w, f"expert{e}.first", x, s.expert[0])
        out, width = layers(g, w, f"expert{e}", hidden, s.expert[1:])
        experts.append(g.node("Unsqueeze", out, g.integers(1)))
    experts = g.node("Concat", *experts, axis=1)
    branch = low_rank(g, w, s, x)
    branch = g.linear("dcn.project", branch, *w.dense("dcn.project", x.width, s.dcn, gain=1.0))

    def mixed(head):
        gate = g.node("Softmax", x.linear(f"{head}.gate", *w.dense(f"{head}.gate", x.width, s.experts, gain=1.0)), axis=1)
        shares = g.node("Unsqueeze", gate, g.integers(2))
        sum_ = g.node("ReduceSum", g.node("Mul", experts, shares), g.integers(1), keepdims=0)
        return g.node("Concat", sum_, branch, axis=1), width + s.dcn

    heads(g, w, s, mixed)


def low_rank(g, w, s, x):
    """x0 * (U V x + b) + x, twice (Wang et al., 2021)."""
    whole = x.concat()
    now = whole
    for n in range(2):
        down = w.normal(f"dcn{n}.v", (x.width, s.rank), x.width**-0.5)
        narrow = x.linear(f"dcn{n}.v", down) if n == 0 else g.linear(f"dcn{n}.v", now, down)
        up = w.normal(f"dcn{n}.u", (s.rank, x.width), s.rank**-0.5)
        wide = g.linear(f"dcn{n}.u", narrow, up, w.normal(f"dcn{n}.b", x.width, 0.05))
        now = g.node("Add", g.node("Mul", whole, wide), now)
    return now


def dcn(g, w, s):
    """Two full-rank cross layers, then a network, shared by all heads."""
    x = joined(g, w, s)
    whole = x.concat()
    now = whole
    for n in range(2):
        weights, bias = w.dense(f"cross{n}", x.width, x.width, gain=1.0)
        wide = x.linear(f"cross{n}", weights, bias) if n == 0 else g.linear(f"cross{n}", now, weights, bias)
        now = g.node("Add", g.node("Mul", whole, wide), now)
    shared = layers(g, w, "deep", (now, x.width), s.mlp)
    heads(g, w, s, lambda head: shared)


def mlp(g, w, s):
    """One network, shared by all heads."""
    shared = layers(g, w, "deep", first(g, w, "deep.first", joined(g, w, s), s.mlp[0]), s.mlp[1:])
    heads(g, w, s, lambda head: shared)


def sequence(g, w, s):
    """An encoder over the user's last actions; the candidate's item attends to what it puts out."""
    encoded, mask = encoder(g, w, s)
    item = [g.embedded(f"item_{i}", CANDIDATE, w.table(f"item_{i}", s, s.width)) for i in range(s.sequence_item)]
    item, item_width = g.node("Concat", *item, axis=1), s.sequence_item * s.width
    query = g.linear("target.query", item, *w.dense("target.query", item_width, s.model, gain=1.0))
    found = target(g, w, s, query, encoded, mask)
    user = [g.embedded(f"user_{i}", USER, w.table(f"user_{i}", s, s.width)) for i in range(s.sequence_user)]
    user = g.node("Concat", *user, axis=1) if len(user) > 1 else user[0]
    rest = g.node("Concat", item, found, axis=1)
    x = Joined(g, user, s.sequence_user * s.width, rest, item_width + s.model)
    shared = layers(g, w, "deep", first(g, w, "deep.first", x, s.sequence_mlp[0]), s.sequence_mlp[1:])
    for name in HEADS:
        g.output(name, g.linear(f"{name}.out", shared[0], *w.head(f"{name}.out", shared[1])))


def encoder(g, w, s):
    """Encoder layers as Vaswani et al. (2017) have them, normalised first; and what hides empty places."""
    x = g.embedded("actions", USER, w.table("actions", s, s.model), s.actions)
    x = g.node("Add", x, g.constant("places", w.normal("places", (s.actions, s.model), 0.2)))
    known = g.node("Cast", g.node("Greater", "actions", g.integers(0)), to=1)
    # 0 where an action is, -10,000 where none is: [rows, 1, 1, actions].
    hidden = g.node("Mul", g.node("Sub", known, one(g)), g.constant("attention.hide", numpy.array([1e4], numpy.float32)))
    mask = g.node("Unsqueeze", hidden, g.integers(1, 2))
    for n in range(s.layers):
        x = g.node("Add", x, attention(g, w, s, f"layer{n}", normal(g, f"layer{n}.norm1", x, s.model), mask))
        inner = g.relu(g.linear(f"layer{n}.up", normal(g, f"layer{n}.norm2", x, s.model), *w.dense(f"layer{n}.up", s.model, s.inner)))
        x = g.node("Add", x, g.linear(f"layer{n}.down", inner, *w.dense(f"layer{n}.down", s.inner, s.model, gain=1.0)))
    return normal(g, "encoder.norm", x, s.model), mask


def one(g):
    return g.constant("one", numpy.array([1.0], numpy.float32))


def normal(g, name, x, width):
    scale, offset = g.constant(f"{name}.scale", numpy.ones(width, numpy.float32)), g.constant(f"{name}.offset", numpy.zeros(width, numpy.float32))
    return g.node("LayerNormalization", x, scale, offset, axis=-1, epsilon=1e-5)


def by_head(g, s, x, places, order):
    """[rows, places, model] as [rows, heads, places, model / heads], or as `order` says."""
    shaped = g.node("Reshape", x, g.integers(0, places, s.attention_heads, s.model // s.attention_heads))
    return g.node("Transpose", shaped, perm=order)


def attention(g, w, s, name, x, mask):
    """Attention of all actions to all."""
    q, k, v = (g.linear(f"{name}.{part}", x, *w.dense(f"{name}.{part}", s.model, s.model, gain=1.0)) for part in "qkv")
    q, k, v = by_head(g, s, q, s.actions, [0, 2, 1, 3]), by_head(g, s, k, s.actions, [0, 2, 3, 1]), by_head(g, s, v, s.actions, [0, 2, 1, 3])
    mixed = g.node("Transpose", g.node("MatMul", shares(g, s, q, k, mask), v), perm=[0, 2, 1, 3])
    mixed = g.node("Reshape", mixed, g.integers(0, s.actions, s.model))
    return g.linear(f"{name}.o", mixed, *w.dense(f"{name}.o", s.model, s.model, gain=1.0))


def shares(g, s, q, k, mask):
    """How much each query takes of each action."""
    scale = g.constant("attention.scale", numpy.array([(s.model // s.attention_heads) ** -0.5], numpy.float32))
    return g.node("Softmax", g.node("Add", g.node("Mul", g.node("MatMul", q, k), scale), mask), axis=-1)


def target(g, w, s, query, encoded, mask):
    """Attention of the candidate to the user's actions; keys and values are the user's alone."""
    k, v = (g.linear(f"target.{part}", encoded, *w.dense(f"target.{part}", s.model, s.model, gain=1.0)) for part in "kv")
    k, v = by_head(g, s, k, s.actions, [0, 2, 3, 1]), by_head(g, s, v, s.actions, [0, 2, 1, 3])
    if g.form == "split":
        # The candidates are the rows of one product for each head: [1, heads, batch, model / heads].
        q = g.node("Reshape", query, g.integers(1, -1, s.attention_heads, s.model // s.attention_heads))
        q = g.node("Transpose", q, perm=[0, 2, 1, 3])
        mixed = g.node("Transpose", g.node("MatMul", shares(g, s, q, k, mask), v), perm=[0, 2, 1, 3])
        mixed = g.node("Reshape", mixed, g.integers(-1, s.model))
    else:
        q = g.node("Reshape", query, g.integers(0, s.attention_heads, 1, s.model // s.attention_heads))
        mixed = g.node("Reshape", g.node("MatMul", shares(g, s, q, k, mask), v), g.integers(0, s.model))
    return g.linear("target.o", mixed, *w.dense("target.o", s.model, s.model, gain=1.0))


MODELS = {"reference": reference, "sequence": sequence, "mlp": mlp, "dcn": dcn}


def ranker(name, form, sizes, precision="f32", seed=1):
    """The ranker of this name in a form, for a bundle that keeps it in this precision."""
    g = Graph(name, form)
    MODELS[name](g, Weights(seed, 0.0 if precision == "f32" else RARE), sizes)
    return g.model()


def towers(sizes, seed=1, dimension=16):
    """Small towers: a bundle has them, the comparison does not run them."""
    w, made = Weights(seed), {}
    for file, feature, side, output in (("user_tower", "user_0", USER, "query"), ("item_tower", "item_0", CANDIDATE, "vector")):
        g = Graph(file, "tiled")
        row = g.embedded(feature, side, w.table(f"{file}.{feature}", sizes, sizes.width))
        g.vector(output, g.linear("out", row, *w.dense(f"{file}.out", sizes.width, dimension, gain=1.0)), dimension)
        made[file] = g.model()
    return made
