"""Family `sequence`: a transformer over what the user did last, attention by the item over it, then a network.

A place of the sequence is the sum of the projected rows of its aligned features: what was done, and how long ago in
buckets (the position signal: a catalogue of users need not be written anew each hour). Everything up to the keys
and values is user-only. Encoder layers normalise before attention and network (Xiong et al. 2020); the item's query
comes from the item's features alone, as in target attention (Zhou et al. 2018), with a softmax.
"""

from __future__ import annotations

import numpy as np

from ..models import dense_layer, matrix
from . import shared

OPTIONS = {"width": 64, "attention": 2, "inner": 128, "encoders": 2, "key": 32, "layers": [256, 64]}


def table_of(f: dict) -> str:
    """A sequence made of an item feature shares its table."""
    return f["of"] if f["of"] != "age" else f["name"]


def norm(width: int) -> dict:
    """A layer norm that changes nothing yet."""
    return {"w": np.ones(width, np.float32), "b": np.zeros(width, np.float32)}


def encoder_layer(rng, width: int, inner: int) -> dict:
    """One layer of the encoder."""
    return {
        "norm1": norm(width), "query": dense_layer(rng, width, width), "key": dense_layer(rng, width, width),
        "value": dense_layer(rng, width, width), "mix": dense_layer(rng, width, width),
        "norm2": norm(width), "up": dense_layer(rng, width, inner), "down": dense_layer(rng, inner, width),
    }


def init(names: dict, options: dict, rng) -> dict:
    """Parameters."""
    joined, item = shared.widths(names)
    width, key = options["width"], options["key"]
    tables = shared.embeddings(names, rng)
    for f in names["sequences"]:
        if table_of(f) not in tables:
            tables[f["name"]] = matrix(rng, f["buckets"] + 1, f["rank"], 0.3)
    read = sum(tables[table_of(f)].shape[1] for f in names["sequences"])
    return {
        "tables": tables,
        "place": dense_layer(rng, read, width),
        "encoder": [encoder_layer(rng, width, options["inner"]) for _ in range(options["encoders"])],
        "last": norm(width),
        "target": {"query": dense_layer(rng, item, key), "key": dense_layer(rng, width, key), "value": dense_layer(rng, width, key)},
        "layers": shared.stack(rng, joined + key, options["layers"]),
        **shared.init_heads(names, rng, options["layers"][-1]),
    }


def encode(o, name: str, p: dict, x, empty, length: int, options: dict):
    """One layer: self-attention, then a network, each added to what came in."""
    heads, width = options["attention"], options["width"] // options["attention"]
    normed = o.layer_norm(f"{name}.norm1", p["norm1"], x)
    query = o.to_heads(o.linear(f"{name}.query", p["query"], normed), length, heads, width)
    keys = o.to_heads_swapped(o.linear(f"{name}.key", p["key"], normed), length, heads, width)
    values = o.to_heads(o.linear(f"{name}.value", p["value"], normed), length, heads, width)
    scores = o.mul(o.matmul(query, keys), o.constant(f"scale_{width}", np.array([width**-0.5], np.float32)))
    shares = o.softmax(o.add(scores, o.unsqueeze(o.unsqueeze(empty, 1), 1)))
    found = o.from_heads(o.matmul(shares, values), length, heads, width)
    x = o.add(x, o.linear(f"{name}.mix", p["mix"], found))
    normed = o.layer_norm(f"{name}.norm2", p["norm2"], x)
    return o.add(x, o.linear(f"{name}.down", p["down"], o.relu(o.linear(f"{name}.up", p["up"], normed))))


def outputs(o, p: dict, names: dict, options: dict) -> dict:
    """Raw output of every head."""
    sequences = names["sequences"]
    length, key = sequences[0]["max_len"], options["key"]
    empty = o.empty(sequences[0])
    x = o.linear("place", p["place"], o.concat(*[o.places(f, table_of(f)) for f in sequences]))
    for n, layer in enumerate(p["encoder"]):
        x = encode(o, f"encoder{n}", layer, x, empty, length, options)
    x = o.layer_norm("last", p["last"], x)
    keys = o.meet(o.swap(o.linear("target.key", p["target"]["key"], x)))
    values = o.meet(o.linear("target.value", p["target"]["value"], x))
    x0, item = shared.joined(o, names)
    query = o.unsqueeze(o.linear("target.query", p["target"]["query"], item), 1)
    scores = o.mul(o.matmul(query, keys), o.constant(f"scale_{key}", np.array([key**-0.5], np.float32)))
    shares = o.softmax(o.add(scores, o.unsqueeze(o.meet(empty), 1)))
    found = o.squeeze(o.matmul(shares, values), 1)
    hidden = shared.dense(o, "layer", p["layers"], o.concat(x0, found))
    return shared.outputs(o, p, names, {h["name"]: hidden for h in names["heads"]})
