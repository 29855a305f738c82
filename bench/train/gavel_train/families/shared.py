"""What do the graph families have in common? Embeddings, the joined input, the piecewise linear part, the heads."""

from __future__ import annotations

import numpy as np

from ..models import dense_layer, matrix, numbers


def embeddings(names: dict, rng: np.random.Generator) -> dict:
    """A table per category; sets and sequences read those of the item feature that they are made of."""
    return {f["name"]: matrix(rng, f["buckets"] + 1, f["rank"], 0.05) for f in names["item_categories"] + names["user_categories"]}


def widths(names: dict) -> tuple[int, int]:
    """Columns of the joined input, and how many of them are the item's."""
    rank = {f["name"]: f["rank"] for f in names["item_categories"]}
    item = sum(rank.values()) + len(names["item_dense"])
    user = sum(f["rank"] for f in names["user_categories"]) + len(names["user_dense"])
    met = sum(rank[f["of"]] for f in names["sets"])
    return user + item + 2 * met + len(names["cross"]), item


def joined(o, names: dict) -> tuple:
    """The joined input [B, widths(names)[0]] and the item's part of it [B, widths(names)[1]].

    The user's features, the means of the user's sets, the item's features, the products of each mean with the
    item's own row, the cross features. One concatenation: what is user-only or item-only stays apart for the split.
    """
    user = [o.category(f, f["name"]) for f in names["user_categories"]] + [o.number(f) for f in names["user_dense"]]
    pooled = [o.pooled(f, f["of"]) for f in names["sets"]]
    rows = {f["name"]: o.category(f, f["name"]) for f in names["item_categories"]}
    item = o.concat(*rows.values(), *[o.number(f) for f in names["item_dense"]])
    parts = [o.meet(o.concat(*user, *pooled)), item]
    if pooled:
        parts.append(o.mul(o.meet(o.concat(*pooled)), o.concat(*[rows[f["of"]] for f in names["sets"]])))
    return o.concat(*parts, *[o.number(c) for c in names["cross"]]), item


def stack(rng: np.random.Generator, width: int, layers: list[int]) -> list[dict]:
    """Dense layers of these widths."""
    return [dense_layer(rng, a, b) for a, b in zip([width, *layers], layers)]


def dense(o, name: str, layers: list[dict], x):
    """relu(x W + b), layer after layer."""
    for n, layer in enumerate(layers):
        x = o.relu(o.linear(f"{name}{n}", layer, x))
    return x


def init_heads(names: dict, rng: np.random.Generator, width: int) -> dict:
    """A linear output per head over `width` columns, and the piecewise linear part."""
    pieces = sum(1 + len(f["knots"]) for f in numbers(names))
    return {
        "heads": {h["name"]: dense_layer(rng, width, 1) for h in names["heads"]},
        "wide": np.zeros((pieces, len(names["heads"])), np.float32),
    }


def outputs(o, p: dict, names: dict, hidden: dict) -> dict:
    """Raw output of every head: linear over its hidden layer [B, width], and piecewise linear over all numbers."""
    pieces = []
    users = [f["name"] for f in names["user_dense"]]
    for f in numbers(names):
        x = o.number(f)
        bent = o.relu(o.sub(x, o.constant(f"{f['name']}.knots", np.array([f["knots"]], np.float32))))
        pieces += [o.meet(o.concat(x, bent))] if f["name"] in users else [o.concat(x, bent)]
    wide = o.matmul(o.concat(*pieces), o.constant("wide", p["wide"]))
    out = {}
    for n, head in enumerate(names["heads"]):
        name = head["name"]
        out[name] = o.add(o.linear(f"{name}.out", p["heads"][name], hidden[name]), o.column(wide, n))
    return out
