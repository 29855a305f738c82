"""Training: in-batch softmax with logQ correction for the towers, weighted multi-task losses for the ranker."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import svds

from . import models
from .dataset import Dataset, Split, features
from .inputs import Batches

VISITS, ROWS = 160, 4_096
# The positives of a visit weigh 1 / sqrt(their number) each: recall is a mean over visits.
VISIT_POWER = -0.5
# Decay of the ranker's tables: a row that is seldom seen falls back to nothing rather than learn its few rows by heart.
TABLE_DECAY = 2.0


def device(batch: dict) -> dict:
    """Only what the compiled step reads."""
    return {k: v for k, v in batch.items() if k not in ("rows", "place")}


def positives_of_visit(batch: dict) -> np.ndarray:
    """For each visit, which candidates are items it bought: they are nobody's negatives there."""
    items, place = np.unique(batch["place"], return_inverse=True)
    bought = np.zeros((VISITS, len(items)), bool)
    wanted = (batch["labels"]["positive"] > 0) & (batch["alive"] > 0)
    bought[batch["owner"][wanted], place[wanted]] = True
    return bought[:, place]


def begin_from_histories(data: Dataset, split: Split, params: dict) -> dict:
    """Tables that begin as unit factors of who did what: a truncated SVD of log counts at each user's last visit.

    The sum of a history's rows times an item's row then nearly is the SVD's own prediction, a start that random
    tables take many epochs to reach. Factors grow with popularity; made units, that is left to the items' appeal.
    """
    if not len(data.history_items):
        return params
    users = data.visits[data.schema["columns"]["user"]].to_numpy()
    visits = np.unique(split.visit)
    visits = visits[np.argsort(data.history_spans[visits, 1], kind="stable")]
    histories = [data.history_items[slice(*data.history_spans[v])] for v in pd.Series(visits).groupby(users[visits]).last()]
    cells = (np.repeat(np.arange(len(histories)), [len(h) for h in histories]), np.concatenate(histories))
    counts = coo_matrix((np.ones(len(cells[0])), cells), shape=(len(histories), len(data.items))).tocsr()
    counts.data = np.log1p(counts.data)
    for f in features(data.schema, ("item",), "category"):
        if not f.get("factors"):
            continue
        table = params["tables"][f["name"]]
        width = min(table.shape[1], data.schema["dimension"] - 1, min(counts.shape) - 1)
        factors = svds(counts, k=width, random_state=0)[2][::-1].T
        sums = np.zeros((len(table), width), np.float32)
        np.add.at(sums, data.item_rows[f["name"]], factors.astype(np.float32))
        table[:, :width] += sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return params


def fit_towers(data: Dataset, split: Split, label: str, epochs: int, seed: int, rate: float, log=print, each_epoch=None) -> dict:
    """Every row of a batch is a candidate of every visit in it; logQ is the log share of the item among all rows."""
    names = models.layout(data.schema)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(jnp.asarray, begin_from_histories(data, split, models.init_towers(data.schema, rng)))
    batches = Batches(data, split, VISITS, ROWS)
    share = np.bincount(split.item, minlength=len(data.items)).astype(np.float32) / len(split.item)
    log_q = np.log(np.maximum(share, 1e-9)).astype(np.float32)

    def loss_of(p, b):
        query = models.user_tower(p, names, b["user"])
        vector = models.item_tower(p, names, b["item"])
        scores = query @ vector.T
        corrected = scores - b["log_q"][None, :]
        masked = jnp.where(b["bought"] | (b["alive"][None, :] == 0), -1e9, corrected)
        others = jax.nn.logsumexp(masked, axis=1)[b["owner"]]
        own = corrected[b["owner"], jnp.arange(len(b["owner"]))]
        wanted = b["positive"]
        return (wanted * (jnp.logaddexp(others, own) - own)).sum() / jnp.maximum(wanted.sum(), 1.0)

    steps = epochs * (len(batches.starts) // VISITS + 1)
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(rate / 10, rate, min(100, steps // 2), steps, rate / 20))
    state = optimizer.init(params)

    @jax.jit
    def step(p, s, b):
        loss, gradient = jax.value_and_grad(loss_of)(p, b)
        updates, s = optimizer.update(gradient, s, p)
        return optax.apply_updates(p, updates), s, loss

    for epoch in range(epochs):
        begin, losses = time.time(), []
        for batch in batches.shuffled(rng):
            batch["labels"]["positive"] = batch["labels"][label]
            wanted = (batch["labels"][label] > 0) * batch["alive"]
            of_visit = np.bincount(batch["owner"], weights=wanted, minlength=VISITS)
            wanted = (wanted * np.maximum(of_visit, 1)[batch["owner"]] ** VISIT_POWER).astype(np.float32)
            b = device(batch) | {"bought": positives_of_visit(batch), "log_q": log_q[batch["place"]], "positive": wanted}
            params, state, loss = step(params, state, b)
            losses.append(loss)
        log(f"towers epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.time() - begin:.0f} s")
        if each_epoch:
            each_epoch(jax.tree.map(np.asarray, params))
    return jax.tree.map(np.asarray, params)


def head_losses(names: dict, p: dict, raw: dict, b: dict):
    """Weighted loss of every head over the rows where its condition holds."""
    total = 0.0
    for place, head in enumerate(names["heads"]):
        out = raw[head["name"]] + p["bias"][b["bias"], place]
        label = b["labels"][head["name"]]
        w = b["weight"] * b["given"][head["name"]]
        if head["kind"] == "value":
            each = optax.huber_loss(out, jnp.log1p(label))
        else:
            each = optax.sigmoid_binary_cross_entropy(out, label)
        total = total + head.get("loss", 1.0) * (w * each).sum() / jnp.maximum(w.sum(), 1.0)
    return total


def parts(params: dict, wanted: tuple) -> dict:
    """True for the arrays below these names."""
    return {name: jax.tree.map(lambda _: name in wanted, below) for name, below in params.items()}


def shape(split: Split, family) -> tuple[int, int]:
    """Visits and rows of a batch: where rows were left out of visits, more visits fill it."""
    mean = len(split.visit) / max(1, np.count_nonzero(np.diff(split.visit)) + 1)
    return max(family.visits, int(0.8 * family.rows / mean)), family.rows


def fit_ranker(data: Dataset, split: Split, family, epochs: int, seed: int, rate: float, decay: float, log=print, each_epoch=None) -> dict:
    """Trains all heads together; the placement table takes what display and mailer explain."""
    names = models.layout(data.schema)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(jnp.asarray, family.init(data.schema, rng))
    visits, rows = shape(split, family)
    batches = Batches(data, split, visits, rows)
    steps = epochs * (len(batches.starts) // visits + 1)
    layers = tuple(k for k in params if k not in ("tables", "wide", "bias"))
    schedule = optax.warmup_cosine_decay_schedule(rate / 10, rate, min(100, steps // 2), steps, rate / 30)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.scale_by_adam(),
        optax.add_decayed_weights(TABLE_DECAY, lambda p: parts(p, ("tables",))),
        optax.add_decayed_weights(decay, lambda p: parts(p, layers)),
        optax.scale_by_learning_rate(schedule),
    )
    state = optimizer.init(params)

    def loss_of(p, b):
        return head_losses(names, p, family.raw(p, names, b), b)

    @jax.jit
    def step(p, s, b):
        loss, gradient = jax.value_and_grad(loss_of)(p, b)
        updates, s = optimizer.update(gradient, s, p)
        return optax.apply_updates(p, updates), s, loss

    for epoch in range(epochs):
        begin, losses = time.time(), []
        for batch in batches.shuffled(rng):
            params, state, loss = step(params, state, device(batch))
            losses.append(loss)
        log(f"ranker epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.time() - begin:.0f} s")
        if each_epoch:
            each_epoch(jax.tree.map(np.asarray, params))
    return jax.tree.map(np.asarray, params)


def predict(data: Dataset, split: Split, params: dict, run, family) -> dict[str, np.ndarray]:
    """Raw outputs of every head for every row, without the placement tower; `run` is the compiled family."""
    out = {head["name"]: np.zeros(len(split.visit), np.float32) for head in data.schema["head"]}
    for batch in Batches(data, split, family.visits, family.rows):
        raw = run(params, {k: batch[k] for k in ("user", "item", "cross", "owner")})
        for name, values in raw.items():
            out[name][batch["rows"]] = np.asarray(values)[: len(batch["rows"])]
    return out
