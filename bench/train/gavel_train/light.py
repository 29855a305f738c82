"""How much of the ranker's choice survives a cheaper ranking before it?

Light ranking orders what retrieval brought and passes on the best; the ranker never sees the rest. Two kinds: the
inner product of the towers, scaled and shifted, and a small head on second outputs of the towers (`user_light`,
`item_light`), distilled from the ranker. For visits of the validation weeks the candidates are products with a live
placement in that store, drawn evenly. The head reads the inner product too (`similarity`). Survival at a width is the share of the ranker's 50 best among them that are
also among the width's best of the light ranking, mean over visits.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from scipy.optimize import minimize

from . import dataset, export, metrics, models
from .dataset import Dataset, Split, features
from .inputs import item_inputs, user_inputs

BEST, WIDTHS = 50, (50, 100, 200, 400, 800)
CANDIDATES, TRAIN_CANDIDATES = 2_000, 400
WIDTH, HIDDEN = 32, 32
SIMILARITY_SCALE = np.float32(0.1)  # inner products reach the towers' scale of about ten
ORDERS = ("click", "click x conversion")  # by what the ranker may order: bids on clicks, bids on conversions


def live(data: Dataset, folder: Path) -> dict[int, pd.DataFrame]:
    """Placements by place."""
    pc = data.schema["placement_columns"]
    frame = pd.read_csv(folder / data.schema["tables"]["placements"], usecols=list(pc.values()))
    frame["at"] = data.items.index.get_indexer(frame[pc["item"]])
    return dict(list(frame[frame["at"] >= 0].groupby(pc["place"])))


def meetings(data: Dataset, placements: dict, visits: np.ndarray, count: int, rng: np.random.Generator) -> Split:
    """Each of these visits with `count` of its live candidates; visits with fewer are left out."""
    columns, pc, pairs = data.schema["columns"], data.schema["placement_columns"], []
    for visit in visits:
        near, period = placements.get(data.visits[columns["place"]].iloc[visit]), data.visits[columns["period"]].iloc[visit]
        if near is None:
            continue
        found = np.unique(near["at"][(near[pc["first"]] <= period) & (near[pc["last"]] >= period)])
        if len(found) >= count:
            pairs.append((visit, rng.choice(found, count, replace=False)))
    visit = np.repeat([v for v, _ in pairs], count).astype(np.int32)
    item = np.concatenate([i for _, i in pairs]).astype(np.int32)
    period = data.visits[columns["period"]].to_numpy()[visit]
    nothing = {h["name"]: np.zeros(len(visit), np.float32) for h in data.schema["head"]}
    return Split(
        visit=visit, item=item, weight=np.ones(len(visit), np.float32), bias=np.zeros(len(visit), np.int32), bias_names=[],
        labels=nothing, given=nothing, cross=dataset.crossed(data, dataset.codes(data), visit, item),
        item_dense={f["name"]: data.popularity.value(f, item, period) for f in features(data.schema, ("item",), "dense")},
    )


def activations(data: Dataset, towers: dict, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the towers say: query and user's light input per visit, vector and item's light input per row."""
    names = models.layout(data.schema)
    visits = split.visit[np.r_[True, split.visit[1:] != split.visit[:-1]]]
    towers = jax.tree.map(jnp.asarray, towers)
    user = jax.jit(lambda p, u: models.user_activations(p, names, u))
    item = jax.jit(lambda p, i: models.item_activations(p, names, i))
    query, of_user = user(towers, user_inputs(data, visits))
    parts = []
    for start in range(0, len(split.item), 50_000):
        rows = slice(start, start + 50_000)
        parts.append(item(towers, item_inputs(data, split.item[rows], {k: v[rows] for k, v in split.item_dense.items()})))
    return np.asarray(query), np.asarray(of_user), *(np.concatenate([np.asarray(p[n]) for p in parts]) for n in (0, 1))


def init(user: int, item: int, rng: np.random.Generator) -> dict:
    """A head and the projections before it."""
    return {
        "user": models.dense_layer(rng, user, WIDTH), "item": models.dense_layer(rng, item, WIDTH),
        "hidden": models.dense_layer(rng, 3 * WIDTH, HIDDEN), "out": models.dense_layer(rng, HIDDEN + WIDTH + 1, 1),
    }


def head(p: dict, user, item, similarity):
    """The light logit [..., 1] of `user_light`, `item_light` and the inner product [..., 1]."""
    met = user * item
    hidden = jax.nn.relu(models.apply(p["hidden"], jnp.concatenate([user, item, met], axis=-1)))
    return models.apply(p["out"], jnp.concatenate([hidden, met, similarity * SIMILARITY_SCALE], axis=-1))


def scores(p: dict, of_user, of_item, similarity):
    """Light logits [visits, candidates] of the towers' activations and inner products."""
    user = models.apply(p["user"], of_user)[:, None, :]
    item = models.apply(p["item"], of_item)
    return head(p, jnp.broadcast_to(user, item.shape), item, similarity[..., None])[..., 0]


def distil(of_user: np.ndarray, of_item: np.ndarray, dot: np.ndarray, teacher: np.ndarray, seed: int, steps: int = 500, log=print) -> dict:
    """A head that orders a visit's candidates as the teacher's logits do, and is of their size.

    Cross-entropy between the softmaxes over a visit's candidates cares for the top, where the cut is; a small
    squared error keeps the logit.
    """
    rng = np.random.default_rng(seed)
    p = jax.tree.map(jnp.asarray, init(of_user.shape[1], of_item.shape[-1], rng))
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-3)
    state = optimizer.init(p)

    def loss_of(p, u, i, d, t):
        out = scores(p, u, i, d)
        listwise = -(jax.nn.softmax(t, axis=1) * jax.nn.log_softmax(out, axis=1)).sum(axis=1).mean()
        return listwise + 0.05 * ((out - t) ** 2).mean()

    @jax.jit
    def step(p, s, *batch):
        loss, gradient = jax.value_and_grad(loss_of)(p, *batch)
        updates, s = optimizer.update(gradient, s, p)
        return optax.apply_updates(p, updates), s, loss

    for n in range(steps):
        rows = rng.choice(len(of_user), 16, replace=False)
        p, state, loss = step(p, state, of_user[rows], of_item[rows], dot[rows], teacher[rows])
    log(f"light head: loss {float(loss):.4f} at the end")
    return jax.tree.map(np.asarray, p)


def survival(order: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Share of each row's best by `wanted` among its best by `order`, by width."""
    best = np.argsort(-wanted, axis=1, kind="stable")[:, :BEST]
    rank = np.argsort(np.argsort(-order, axis=1, kind="stable"), axis=1)
    of_best = np.take_along_axis(rank, best, axis=1)
    return {str(width): round(float((of_best < width).mean()), 4) for width in WIDTHS}


def fitted(raw: np.ndarray, teacher: np.ndarray) -> dict:
    """scale and offset with which the sigmoid of `raw` has the least log loss against the teacher's probabilities."""
    raw, wanted = raw.ravel().astype(np.float64), metrics.sigmoid(teacher.ravel())
    mean, spread = raw.mean(), raw.std() or 1.0

    def loss(theta):
        p = metrics.sigmoid(theta[0] * (raw - mean) / spread + theta[1])
        g = (p - wanted) / len(raw)
        return metrics.cross_entropy(p, wanted, np.ones(len(raw))), np.array([(g * (raw - mean) / spread).sum(), g.sum()])

    scale, offset = minimize(loss, [1.0, -3.0], jac=True, method="BFGS").x
    return {"scale": float(f"{scale / spread:.6g}"), "offset": float(f"{offset - scale * mean / spread:.6g}")}


def study(data: Dataset, folder: Path, towers: dict, teach, seed: int, visits: tuple[int, int], log=print) -> tuple[dict, dict, dict]:
    """The table of survival, the rule of the inner product for clicks, and a head for each order of `ORDERS`.

    `teach` gives, for a split, the calibrated logits of a click, and of a click that brings a conversion.
    """
    rng, placements, towers = np.random.default_rng(seed), live(data, folder), export.stored_towers(towers)
    found = []
    for split, count, wanted in ((data.train, TRAIN_CANDIDATES, visits[0]), (data.valid, CANDIDATES, visits[1])):
        chosen = np.sort(rng.choice(np.unique(split.visit), min(wanted, len(np.unique(split.visit))), replace=False))
        pairs = meetings(data, placements, chosen, count, rng)
        query, of_user, vector, of_item = activations(data, towers, pairs)
        square = (len(query), count)
        logits = dict(zip(ORDERS, (x.reshape(square) for x in teach(pairs))))
        dot = np.einsum("vd,vcd->vc", query, vector.reshape(*square, -1))
        found.append((of_user, of_item.reshape(*square, -1), dot, logits))
    (user, item, dot, logits), (user_valid, item_valid, dot_valid, logits_valid) = found
    heads = {order: distil(user, item, dot, logit, seed, log=log) for order, logit in logits.items()}
    ranked = {"inner product": dot_valid}
    ranked |= {f"head, distilled from {order}": np.asarray(scores(p, user_valid, item_valid, dot_valid)) for order, p in heads.items()}
    table = {kind: {order: survival(light, wanted) for order, wanted in logits_valid.items()} for kind, light in ranked.items()}
    out = {"visits": len(dot_valid), "candidates": CANDIDATES, "best": BEST, "trained_on": list(dot.shape), "survival": table}
    return out, fitted(dot, logits["click"]), heads


def graph(p: dict):
    """The head as `light.onnx`: inputs `user_light`, `item_light` and `similarity`, output `light`."""
    g = export.Graph("light")
    user, item = g.input("user_light", WIDTH), g.input("item_light", WIDTH)
    met = g.node("Mul", user, item)
    hidden = g.node("Relu", g.linear("hidden", p["hidden"], g.node("Concat", user, item, met, axis=1)))
    near = g.node("Mul", g.input("similarity"), g.constant("similarity.scale", np.array([SIMILARITY_SCALE])))
    product = g.node("MatMul", g.node("Concat", hidden, met, near, axis=1), g.constant("out.w", p["out"]["w"]))
    g.node("Add", product, g.constant("out.b", p["out"]["b"]), output="light")
    return g.model({"light": 1})
