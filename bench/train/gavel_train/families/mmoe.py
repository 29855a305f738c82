"""Family `mmoe`: experts of low-rank DCN-v2, mixed for each head by a gate, a tower per head (Ma et al. 2018).

The first cross layer of every expert and the gates read the joined input itself, so that all of them split.
"""

from __future__ import annotations

from ..models import dense_layer
from . import shared
from .dcn import cross_layers, crossed

OPTIONS = {"experts": 3, "crosses": 2, "rank": 16, "expert_width": 64, "layers": [64, 32]}


def init(names: dict, options: dict, rng) -> dict:
    """Parameters."""
    width, _ = shared.widths(names)
    experts = [
        {"cross": cross_layers(rng, width, options["crosses"], options["rank"]), "out": dense_layer(rng, width, options["expert_width"])}
        for _ in range(options["experts"])
    ]
    heads = shared.init_heads(names, rng, options["layers"][-1])
    return {
        "tables": shared.embeddings(names, rng),
        "experts": experts,
        "gates": {h["name"]: dense_layer(rng, width, options["experts"]) for h in names["heads"]},
        "towers": {h["name"]: shared.stack(rng, options["expert_width"], options["layers"]) for h in names["heads"]},
        **heads,
    }


def outputs(o, p: dict, names: dict, options: dict) -> dict:
    """Raw output of every head."""
    x0, _ = shared.joined(o, names)
    experts = []
    for n, e in enumerate(p["experts"]):
        experts.append(o.relu(o.linear(f"expert{n}", e["out"], crossed(o, f"expert{n}.cross", e["cross"], x0))))
    hidden = {}
    for name, gate in p["gates"].items():
        shares = o.softmax(o.linear(f"{name}.gate", gate, x0))
        mixed = None
        for n, expert in enumerate(experts):
            part = o.mul(o.column(shares, n), expert)
            mixed = part if mixed is None else o.add(mixed, part)
        hidden[name] = shared.dense(o, f"{name}.tower", p["towers"][name], mixed)
    return shared.outputs(o, p, names, hidden)
