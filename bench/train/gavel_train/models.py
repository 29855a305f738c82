"""The two towers and the ranker, as plain functions of parameters and named inputs.

Whatever is written here is written again as ONNX nodes in `export.py`; `bundle.py` compares the two.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .dataset import features

EXPERTS, EXPERT_WIDTH, TOWER_WIDTH, CROSS_LAYERS = 3, 64, 32, 2


def layout(schema: dict) -> dict:
    """Names by role, in one order for both frameworks."""
    return {
        "user_categories": features(schema, ("user", "context"), "category"),
        "user_dense": features(schema, ("user", "context"), "dense"),
        "sets": features(schema, ("user", "context"), "set"),
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
    """Parameters of the two towers. Tables are shared between an item feature and the user's set of it."""
    names, dim = layout(schema), schema["dimension"]
    tied = {f["of"] for f in names["sets"]}
    tables, item_side, user_side = {}, {}, {}
    used = [f for f in names["item_categories"] if f.get("tower", 0) > 0]
    # Groups begin in separate directions where they fit, so that each matches itself first.
    basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32)
    place = 0
    for f in used:
        width = f["tower"]
        tables[f["name"]] = matrix(rng, f["buckets"] + 1, width, 0.15 / width**0.5)
        projection = basis[np.arange(place, place + width) % dim]
        place += width
        item_side[f["name"]] = projection.copy()
        if f["name"] in tied:
            user_side[f["name"]] = projection.copy()
    user_width = sum(f["rank"] * 2 for f in names["user_categories"]) + len(names["user_dense"])
    for f in names["user_categories"]:
        tables["user:" + f["name"]] = matrix(rng, f["buckets"] + 1, f["rank"] * 2, 0.1)
    return {
        "tables": tables, "item": item_side, "user": user_side,
        "user_hidden": dense_layer(rng, user_width, 64), "user_out": dense_layer(rng, 64, dim),
        "item_hidden": dense_layer(rng, len(names["item_dense"]), 32), "item_out": dense_layer(rng, 32, dim),
    }


def apply(layer, x):
    """x W + b."""
    return x @ layer["w"] + layer["b"]


def user_tower(p: dict, names: dict, u: dict):
    """The query vector."""
    parts = [p["tables"]["user:" + f["name"]][u[f["name"]]] for f in names["user_categories"]]
    parts += [u[f["name"]][:, None] for f in names["user_dense"]]
    out = apply(p["user_out"], jax.nn.relu(apply(p["user_hidden"], jnp.concatenate(parts, axis=1))))
    for f in names["sets"]:
        if f["of"] in p["user"]:
            w = jnp.log1p(u[f["name"] + ".weight"])
            rows = p["tables"][f["of"]][u[f["name"]]]
            total = jnp.einsum("vl,vld->vd", w, rows)
            out = out + (total / jnp.sqrt(w.sum(axis=1, keepdims=True) + 1.0)) @ p["user"][f["of"]]
    return out


def item_tower(p: dict, names: dict, i: dict):
    """The item vector."""
    dense = jnp.stack([i[f["name"]] for f in names["item_dense"]], axis=1)
    out = apply(p["item_out"], jax.nn.relu(apply(p["item_hidden"], dense)))
    for name, projection in p["item"].items():
        out = out + p["tables"][name][i[name]] @ projection
    return out


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
    return {
        "tables": tables,
        "cross": [{"w": matrix(rng, width, width, 0.3 / width**0.5), "b": np.zeros(width, np.float32)} for _ in range(CROSS_LAYERS)],
        "experts": [dense_layer(rng, width, EXPERT_WIDTH) for _ in range(EXPERTS)],
        "heads": heads,
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
    out = {}
    for head in names["heads"]:
        h = p["heads"][head["name"]]
        gate = jax.nn.softmax(apply(h["gate"], x), axis=1)
        mixed = sum(gate[:, n : n + 1] * e for n, e in enumerate(experts))
        out[head["name"]] = apply(h["out"], jax.nn.relu(apply(h["hidden"], mixed)))[:, 0]
    return out
