"""Family `mlp`: embeddings and a network that all heads share."""

from __future__ import annotations

from . import shared

OPTIONS = {"layers": [256, 128]}


def init(names: dict, options: dict, rng) -> dict:
    """Parameters."""
    width, _ = shared.widths(names)
    return {
        "tables": shared.embeddings(names, rng),
        "layers": shared.stack(rng, width, options["layers"]),
        **shared.init_heads(names, rng, options["layers"][-1]),
    }


def outputs(o, p: dict, names: dict, options: dict) -> dict:
    """Raw output of every head."""
    x, _ = shared.joined(o, names)
    hidden = shared.dense(o, "layer", p["layers"], x)
    return shared.outputs(o, p, names, {h["name"]: hidden for h in names["heads"]})
