"""How much of the ranker's choice survives a cheaper ranking before it?

Light ranking orders what retrieval brought by light probability x bid, and passes on the best; the ranker never sees
the rest. An ad may bid on clicks or on conversions, so both chances are needed. Two kinds: a line through the inner
product of the towers for the click, with one conversion rate for all, and a small head on second outputs of the
towers (`user_light`, `item_light`) and the inner product (`similarity`), distilled from the ranker's click and
conversion at once.

For visits of the validation weeks the candidates are products with a live placement in that store, drawn evenly.
Survival at a width is the share of the ranker's 50 best among them that are also among the width's best of the light
ranking, mean over visits: with one kind of bid and equal bids, and in a market of three kinds (`market`).
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
# What a bid type pays for, and its share of the market; bids on impressions are ordered by the bid alone.
PAID_FOR = {"clicks": 0.35, "conversions": 0.5, "impressions": 0.15}
SPREAD = 0.5  # standard deviation of the log of what a conversion is worth to an ad of the market


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
        "hidden": models.dense_layer(rng, 3 * WIDTH, HIDDEN), "out": models.dense_layer(rng, HIDDEN + WIDTH + 1, 2),
    }


def head(p: dict, user, item, similarity):
    """Logits [..., 2] of a click, and of a conversion given one, of `user_light`, `item_light` and the inner product."""
    met = user * item
    hidden = jax.nn.relu(models.apply(p["hidden"], jnp.concatenate([user, item, met], axis=-1)))
    return models.apply(p["out"], jnp.concatenate([hidden, met, similarity * SIMILARITY_SCALE], axis=-1))


def scores(p: dict, of_user, of_item, similarity):
    """Light logits [visits, candidates, 2] of the towers' activations and inner products."""
    user = models.apply(p["user"], of_user)[:, None, :]
    item = models.apply(p["item"], of_item)
    return head(p, jnp.broadcast_to(user, item.shape), item, similarity[..., None])


def distil(of_user: np.ndarray, of_item: np.ndarray, dot: np.ndarray, teacher: tuple[np.ndarray, np.ndarray], seed: int, steps: int = 1_000, log=print) -> dict:
    """A head whose chances order a visit's candidates as the teacher's do, for either kind of bid, and are of their size.

    `teacher` holds the logits of a click, and of a click that brings a conversion. For each of the two,
    cross-entropy between the softmaxes over a visit's candidates cares for the top, where the cut is; a small squared
    error keeps the size, by which kinds of bids are compared.
    """
    rng = np.random.default_rng(seed)
    p = jax.tree.map(jnp.asarray, init(of_user.shape[1], of_item.shape[-1], rng))
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-3)
    state = optimizer.init(p)
    wanted = [np.asarray(jax.nn.log_sigmoid(t)) for t in teacher]

    def loss_of(p, u, i, d, *wanted):
        click, conversion = (jax.nn.log_sigmoid(x) for x in jnp.moveaxis(scores(p, u, i, d), -1, 0))
        total = 0.0
        for out, t in zip((click, click + conversion), wanted):
            listwise = -(jax.nn.softmax(t, axis=1) * jax.nn.log_softmax(out, axis=1)).sum(axis=1).mean()
            total += listwise + 0.05 * ((out - t) ** 2).mean()
        return total

    @jax.jit
    def step(p, s, *batch):
        loss, gradient = jax.value_and_grad(loss_of)(p, *batch)
        updates, s = optimizer.update(gradient, s, p)
        return optax.apply_updates(p, updates), s, loss

    for n in range(steps):
        rows = rng.choice(len(of_user), 16, replace=False)
        p, state, loss = step(p, state, of_user[rows], of_item[rows], dot[rows], *(t[rows] for t in wanted))
    log(f"light head: loss {float(loss):.4f} at the end")
    return jax.tree.map(np.asarray, p)


def best_of(wanted: np.ndarray) -> np.ndarray:
    """True at the BEST best of each row."""
    return np.argsort(np.argsort(-wanted, axis=1, kind="stable"), axis=1) < BEST


def survival(order: np.ndarray, best: np.ndarray) -> dict[str, float]:
    """Share of the marked candidates among each row's best by `order`, by width."""
    rank = np.argsort(np.argsort(-order, axis=1, kind="stable"), axis=1)
    return {str(width): round(float((rank[best] < width).mean()), 4) if best.any() else None for width in WIDTHS}


def market(chances: tuple[np.ndarray, np.ndarray], rates: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What an impression of each candidate is worth at its bid, and what it pays for (place in PAID_FOR).

    A conversion is worth a log-normal amount to an ad. Bids on clicks and impressions are that amount times the mean
    `rates` (a conversion's by click, a conversion's by impression), as an advertiser sets them who knows no more.
    """
    rng, (click, both) = np.random.default_rng(seed), chances
    amount = np.exp(rng.normal(0.0, SPREAD, click.shape))
    pays = rng.choice(len(PAID_FOR), click.shape, p=list(PAID_FOR.values()))
    return amount * np.choose(pays, [rates[0] * click, both, np.full(click.shape, rates[1])]), pays


def survivals(light: tuple[np.ndarray, np.ndarray], ranker: tuple[np.ndarray, np.ndarray], seed: int) -> dict[str, dict]:
    """Survival by what bids pay for. Chances of a click and of a conversion: of the light ranking and of the ranker."""
    rates = (float(ranker[1].mean() / ranker[0].mean()), float(ranker[1].mean()))
    (order, pays), (wanted, _) = market(light, rates, seed), market(ranker, rates, seed)
    best = best_of(wanted)
    out = {f"{what} alone": survival(l, best_of(r)) for what, l, r in zip(PAID_FOR, light, ranker)}
    out["market"] = survival(order, best)
    return out | {f"market: {what}": survival(order, best & (pays == place)) for place, what in enumerate(PAID_FOR)}


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


def study(data: Dataset, folder: Path, towers: dict, teach, seed: int, visits: tuple[int, int], prior: float, log=print) -> tuple[dict, dict, dict]:
    """The tables of survival, the rule of the inner product for clicks, and a head.

    `teach` gives, for a split, the calibrated logits of a click, and of a click that brings a conversion; `prior` is
    the share of conversions among clicks, which stands for all where no head says more.
    """
    rng, placements, towers = np.random.default_rng(seed), live(data, folder), export.stored_towers(towers)
    found = []
    for split, count, wanted in ((data.train, TRAIN_CANDIDATES, visits[0]), (data.valid, CANDIDATES, visits[1])):
        chosen = np.sort(rng.choice(np.unique(split.visit), min(wanted, len(np.unique(split.visit))), replace=False))
        pairs = meetings(data, placements, chosen, count, rng)
        query, of_user, vector, of_item = activations(data, towers, pairs)
        square = (len(query), count)
        logits = tuple(x.reshape(square) for x in teach(pairs))
        dot = np.einsum("vd,vcd->vc", query, vector.reshape(*square, -1))
        found.append((of_user, of_item.reshape(*square, -1), dot, logits))
    (user, item, dot, logits), (user_valid, item_valid, dot_valid, logits_valid) = found
    trained, rule = distil(user, item, dot, logits, seed, log=log), fitted(dot, logits[0])
    of_line = metrics.sigmoid(rule["scale"] * dot_valid + rule["offset"])
    of_head = metrics.sigmoid(np.asarray(scores(trained, user_valid, item_valid, dot_valid), np.float64))
    ranker = tuple(metrics.sigmoid(x.astype(np.float64)) for x in logits_valid)
    lights = {"inner product": (of_line, of_line * prior), "head": (of_head[..., 0], of_head[..., 0] * of_head[..., 1])}
    table = {kind: survivals(light, ranker, seed) for kind, light in lights.items()}
    out = {"visits": len(dot_valid), "candidates": CANDIDATES, "best": BEST, "trained_on": list(dot.shape), "survival": table}
    return out, rule, trained


def graph(p: dict):
    """The head as `light.onnx`: inputs `user_light`, `item_light`, `similarity`; outputs `light`, `light_conversion`."""
    g = export.Graph("light")
    user, item = g.input("user_light", WIDTH), g.input("item_light", WIDTH)
    met = g.node("Mul", user, item)
    hidden = g.node("Relu", g.linear("hidden", p["hidden"], g.node("Concat", user, item, met, axis=1)))
    near = g.node("Mul", g.input("similarity"), g.constant("similarity.scale", np.array([SIMILARITY_SCALE])))
    both = g.linear("out", p["out"], g.node("Concat", hidden, met, near, axis=1))
    for place, name in enumerate(("light", "light_conversion")):
        g.node("Identity", g.column(both, place), output=name)
    return g.model({"light": 1, "light_conversion": 1})


def section(found: dict) -> list[str]:
    """How the study was made, for a page."""
    shares = ", ".join(f"{share:.0%} {what}" for what, share in PAID_FOR.items())
    return [
        f"Share of the ranker's {found['best']} best among {found['candidates']:,} candidates that pass a cut of each width, mean over {found['visits']} visits of weeks 41-44; "
        "candidates are products with a live placement in the visit's store, drawn evenly. *Clicks alone* and *conversions alone*: every ad bids the same, on that. "
        f"*market*: an ad pays for one of three ({shares}); a conversion is worth a log-normal amount to it (deviation of the log {SPREAD}), and a bid on clicks or impressions is that "
        "times the mean rate; the lines below the market's are those of its best that pay for each. "
        f"The head is distilled from the ranker on {found['trained_on'][0]} training visits of {found['trained_on'][1]} candidates; match features are not among its inputs.", "",
    ]


COLUMNS = ["light ranking", "bids on", *(str(width) for width in WIDTHS)]


def rows(found: dict) -> list[list[str]]:
    """The survival tables, a row a list, under COLUMNS."""
    return [
        [kind, what, *("" if share is None else f"{share:.3f}" for share in shares.values())]
        for kind, by in found["survival"].items() for what, shares in by.items()
    ]
