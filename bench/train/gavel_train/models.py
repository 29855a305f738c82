"""The two towers and the ranker, as plain functions of parameters and named inputs.

Whatever is written here is written again as ONNX nodes in `export.py`; `bundle.py` compares the two.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .dataset import features

EXPERTS, EXPERT_WIDTH, TOWER_WIDTH, CROSS_LAYERS = 3, 64, 32, 2
# The towers: norms of items lie between 1 and sqrt(1 + APPEAL_MAX^2) = 1.1, as graphs of inner products want them.
APPEAL_MAX, NORM_FLOOR = 0.45, 1e-6
SCALE_START, TABLE_START = 12.0, 0.02


def layout(schema: dict) -> dict:
    """Names by role, in one order for both frameworks."""
    return {
        "user_categories": features(schema, ("user", "context"), "category"),
        "user_dense": features(schema, ("user", "context"), "dense"),
        "sets": features(schema, ("user", "context"), "set"),
        "sequences": features(schema, ("user", "context"), "sequence"),
        "item_categories": features(schema, ("item",), "category"),
        "item_dense": features(schema, ("item",), "dense"),
        "cross": schema["cross"],
        "heads": schema["head"],
        "dimension": schema["dimension"],
    }


def matrix(rng: np.random.Generator, rows: int, columns: int, scale: float | None = None) -> np.ndarray:
    """A random matrix with the variance that keeps activations of order one."""
    return rng.normal(0, scale if scale is not None else rows**-0.5, (rows, columns)).astype(np.float32)


def dense_layer(rng, rows, columns):
    """Weights and zero bias."""
    return {"w": matrix(rng, rows, columns), "b": np.zeros(columns, np.float32)}


def init_towers(schema: dict, rng: np.random.Generator) -> dict:
    """Parameters of the two towers. Tables are shared between an item feature and the user's set of it.

    The first `dimension` - 1 coordinates are a direction; the last is the item's own appeal.
    """
    names, dim = layout(schema), schema["dimension"]
    tables, item_side, user_side = {}, {}, {}
    used = [f for f in names["item_categories"] if f.get("tower", 0) > 0]
    for f in used:
        tables[f["name"]] = matrix(rng, f["buckets"] + 1, f["tower"], TABLE_START)
        item_side[f["name"]] = np.eye(f["tower"], dim, dtype=np.float32)
        item_side[f["name"]][:, dim - 1] = 0
    for f in names["sets"]:
        if f["of"] in tables:
            user_side[f["name"]] = item_side[f["of"]][:, : dim - 1].copy()
    user_width = sum(f["rank"] * 2 for f in names["user_categories"]) + len(names["user_dense"])
    for f in names["user_categories"]:
        tables["user:" + f["name"]] = matrix(rng, f["buckets"] + 1, f["rank"] * 2, 0.1)
    towers = {
        "tables": tables, "item": item_side, "user": user_side, "log_scale": np.float32(np.log(SCALE_START)),
        "user_hidden": dense_layer(rng, user_width, 64), "user_out": dense_layer(rng, 64, dim - 1),
        "item_hidden": dense_layer(rng, len(names["item_dense"]), 32), "item_out": dense_layer(rng, 32, dim),
    }
    # The networks begin quiet, so that the tables decide first.
    towers["user_out"]["w"] *= 0.1
    towers["item_out"]["w"] *= 0.1
    return towers


def apply(layer, x):
    """x W + b."""
    return x @ layer["w"] + layer["b"]


def user_activations(p: dict, names: dict, u: dict) -> tuple:
    """The query: scale x (a direction shorter than 1, and 1 for the item's appeal). And what light ranking may read."""
    parts = [p["tables"]["user:" + f["name"]][u[f["name"]]] for f in names["user_categories"]]
    parts += [u[f["name"]][:, None] for f in names["user_dense"]]
    hidden = jax.nn.relu(apply(p["user_hidden"], jnp.concatenate(parts, axis=1)))
    out = apply(p["user_out"], hidden)
    for f in names["sets"]:
        if f["name"] in p["user"]:
            w = jnp.log1p(u[f["name"] + ".weight"])
            total = jnp.einsum("vl,vld->vd", w, p["tables"][f["of"]][u[f["name"]]])
            out = out + (total / jnp.sqrt((w * w).sum(axis=1, keepdims=True) + 1.0)) @ p["user"][f["name"]]
    # A user of whom little is known has a short direction: the items' own appeal decides.
    norm = jnp.sqrt((out * out).sum(axis=1, keepdims=True) + 1.0)
    whole = jnp.concatenate([out / norm, norm / norm], axis=1)
    return jnp.exp(p["log_scale"]) * whole, jnp.concatenate([whole, hidden], axis=1)


def user_tower(p: dict, names: dict, u: dict):
    """The query alone."""
    return user_activations(p, names, u)[0]


def item_activations(p: dict, names: dict, i: dict) -> tuple:
    """The item vector: a unit direction and a bounded appeal, so that no norm is above sqrt(1 + APPEAL_MAX^2).

    And what light ranking may read.
    """
    dense = jnp.stack([i[f["name"]] for f in names["item_dense"]], axis=1)
    hidden = jax.nn.relu(apply(p["item_hidden"], dense))
    out = apply(p["item_out"], hidden)
    for name, projection in p["item"].items():
        out = out + p["tables"][name][i[name]] @ projection
    direction, appeal = out[:, :-1], out[:, -1:]
    norm = jnp.sqrt((direction * direction).sum(axis=1, keepdims=True) + NORM_FLOOR)
    vector = jnp.concatenate([direction / norm, APPEAL_MAX * jnp.tanh(appeal)], axis=1)
    return vector, jnp.concatenate([vector, hidden], axis=1)


def item_tower(p: dict, names: dict, i: dict):
    """The item vector alone."""
    return item_activations(p, names, i)[0]


def init_ranker(schema: dict, rng: np.random.Generator) -> dict:
    """Parameters of the ranker; the placement tower is a table of logits per head, dropped at export."""
    names = layout(schema)
    tables = {f["name"]: matrix(rng, f["buckets"] + 1, f["rank"], 0.05) for f in names["item_categories"]}
    tables |= {f["name"]: matrix(rng, f["buckets"] + 1, f["rank"], 0.05) for f in names["user_categories"]}
    width = sum(f["rank"] for f in names["item_categories"] + names["user_categories"])
    width += 2 * sum(tables[f["of"]].shape[1] for f in names["sets"])
    width += len(names["user_dense"]) + len(names["item_dense"]) + len(names["cross"])
    heads = {}
    for head in names["heads"]:
        heads[head["name"]] = {
            "gate": dense_layer(rng, width, EXPERTS),
            "hidden": dense_layer(rng, EXPERT_WIDTH, TOWER_WIDTH),
            "out": dense_layer(rng, TOWER_WIDTH, 1),
        }
    pieces = sum(1 + len(f["knots"]) for f in numbers(names))
    return {
        "tables": tables,
        "cross": [{"w": matrix(rng, width, width, 0.3 / width**0.5), "b": np.zeros(width, np.float32)} for _ in range(CROSS_LAYERS)],
        "experts": [dense_layer(rng, width, EXPERT_WIDTH) for _ in range(EXPERTS)],
        "heads": heads,
        "wide": np.zeros((pieces, len(heads)), np.float32),
        "bias": np.zeros((256, len(names["heads"])), np.float32),
    }


def ranker_user(p: dict, names: dict, u: dict) -> tuple:
    """What depends on the user alone: features, and the mean embedding of each set."""
    parts = [p["tables"][f["name"]][u[f["name"]]] for f in names["user_categories"]]
    parts += [u[f["name"]][:, None] for f in names["user_dense"]]
    pooled = []
    for f in names["sets"]:
        w = jnp.log1p(u[f["name"] + ".weight"])
        total = jnp.einsum("vl,vld->vd", w, p["tables"][f["of"]][u[f["name"]]])
        pooled.append(total / (w.sum(axis=1, keepdims=True) + 1.0))
    return jnp.concatenate(parts + pooled, axis=1), jnp.concatenate(pooled, axis=1)


def numbers(names: dict) -> list[dict]:
    """The features that the piecewise linear part reads, in its order."""
    return names["user_dense"] + names["item_dense"] + names["cross"]


def hinges(x, knots):
    """A number [B, 1] and how far it lies above each knot: any piecewise linear function is a product of these."""
    return jnp.concatenate([x, jax.nn.relu(x - jnp.asarray(knots, jnp.float32)[None, :])], axis=1)


def ranker(p: dict, names: dict, u: dict, i: dict, cross, owner) -> dict:
    """Raw outputs of every head, without the placement tower."""
    user, pooled = ranker_user(p, names, u)
    user, pooled = user[owner], pooled[owner]
    item_parts = {f["name"]: p["tables"][f["name"]][i[f["name"]]] for f in names["item_categories"]}
    met = pooled * jnp.concatenate([item_parts[f["of"]] for f in names["sets"]], axis=1)
    item = jnp.concatenate(list(item_parts.values()) + [i[f["name"]][:, None] for f in names["item_dense"]], axis=1)
    x0 = jnp.concatenate([user, item, met, cross], axis=1)
    x = x0
    for layer in p["cross"]:
        x = x0 * apply(layer, x) + x
    experts = [jax.nn.relu(apply(e, x)) for e in p["experts"]]
    known = {f["name"]: u[f["name"]][owner] for f in names["user_dense"]} | {f["name"]: i[f["name"]] for f in names["item_dense"]}
    known |= {c["name"]: cross[:, n] for n, c in enumerate(names["cross"])}
    wide = jnp.concatenate([hinges(known[f["name"]][:, None], f["knots"]) for f in numbers(names)], axis=1) @ p["wide"]
    out = {}
    for place, head in enumerate(names["heads"]):
        h = p["heads"][head["name"]]
        gate = jax.nn.softmax(apply(h["gate"], x), axis=1)
        mixed = sum(gate[:, n : n + 1] * e for n, e in enumerate(experts))
        out[head["name"]] = apply(h["out"], jax.nn.relu(apply(h["hidden"], mixed)))[:, 0] + wide[:, place]
    return out
