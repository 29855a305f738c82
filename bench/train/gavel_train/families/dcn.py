"""Families `dcn` and `dcn-lowrank`: DCN-v2 cross layers, then a network that all heads share (Wang et al. 2021).

A cross layer is x0 * (x W + b) + x. At low rank W is a product V U of two narrow matrices, and nothing stands
between them (the paper's first form, without its gated variant).
"""

from __future__ import annotations

import numpy as np

from ..models import dense_layer, matrix
from . import shared

OPTIONS = {"crosses": 3, "layers": [128, 64]}
LOW_RANK = OPTIONS | {"rank": 32}
START = 0.3  # the cross layers begin quiet: their products would otherwise be of the order of x0 squared


def cross_layers(rng, width: int, count: int, rank: int) -> list[dict]:
    """Parameters of cross layers; rank 0 is full rank."""
    if not rank:
        return [{"w": matrix(rng, width, width, START / width**0.5), "b": np.zeros(width, np.float32)} for _ in range(count)]
    layers = [dense_layer(rng, rank, width) | {"v": matrix(rng, width, rank)} for _ in range(count)]
    for layer in layers:
        layer["w"] *= START
    return layers


def crossed(o, name: str, layers: list[dict], x0):
    """x0 through all cross layers."""
    x = x0
    for n, layer in enumerate(layers):
        inner = o.matmul(x, o.constant(f"{name}{n}.v", layer["v"])) if "v" in layer else x
        x = o.add(o.mul(x0, o.linear(f"{name}{n}", layer, inner)), x)
    return x


def init(names: dict, options: dict, rng) -> dict:
    """Parameters."""
    width, _ = shared.widths(names)
    return {
        "tables": shared.embeddings(names, rng),
        "cross": cross_layers(rng, width, options["crosses"], options.get("rank", 0)),
        "layers": shared.stack(rng, width, options["layers"]),
        **shared.init_heads(names, rng, options["layers"][-1]),
    }


def outputs(o, p: dict, names: dict, options: dict) -> dict:
    """Raw output of every head."""
    x0, _ = shared.joined(o, names)
    hidden = shared.dense(o, "layer", p["layers"], crossed(o, "cross", p["cross"], x0))
    return shared.outputs(o, p, names, {h["name"]: hidden for h in names["heads"]})
