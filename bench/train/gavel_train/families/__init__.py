"""Which ranker is trained? A family by its name; each has a file of its own here.

A graph family is a module with `OPTIONS` (what the schema's `[ranker]` table may change), `init` and `outputs`,
written once against the operations of `arrays.py` (training) and `nodes.py` (export). `wide-mmoe` is the ranker of
the demo bundle, whose two forms are in `models.py` and `export.py`. `trees` trains with LightGBM.
"""

from __future__ import annotations

import jax
import numpy as np

from .. import bundle, export, fit, models
from . import dcn, mlp, mmoe, sequence
from .arrays import Arrays
from .nodes import Nodes

GRAPHS = {
    "mlp": (mlp, mlp.OPTIONS), "dcn": (dcn, dcn.OPTIONS), "dcn-lowrank": (dcn, dcn.LOW_RANK),
    "mmoe": (mmoe, mmoe.OPTIONS), "sequence": (sequence, sequence.OPTIONS),
}
DEFAULT = "wide-mmoe"
NAMES = [DEFAULT, *GRAPHS, "trees"]


class GraphFamily:
    """A family whose bundle holds `ranker.onnx`; this class itself is `wide-mmoe`."""

    # The most visits and rows of a batch: the compiled step has one shape.
    visits, rows = fit.VISITS, fit.ROWS
    raw_cross = False  # cross features reach the model scaled
    name = DEFAULT

    def __init__(self):
        self.compiled = None

    def init(self, schema: dict, rng: np.random.Generator) -> dict:
        """Parameters to begin with."""
        return models.init_ranker(schema, rng)

    def raw(self, p: dict, names: dict, batch: dict) -> dict:
        """Raw outputs of every head [B], without the placement tower."""
        return models.ranker(p, names, batch["user"], batch["item"], batch["cross"], batch["owner"])

    def graph(self, p: dict, names: dict):
        """The ONNX model."""
        return export.ranker(p, names)

    def train(self, data, split, settings, log=print) -> dict:
        """Parameters after training."""
        return fit.fit_ranker(data, split, self, settings.ranker_epochs, settings.seed, settings.ranker_rate, settings.decay, log)

    def predict(self, data, split, p: dict) -> dict[str, np.ndarray]:
        """Raw outputs of every head for every row of a split, with the parameters as the bundle stores them."""
        names = models.layout(data.schema)
        if self.compiled is None:
            self.compiled = jax.jit(lambda p, b: self.raw(p, names, b))
        return fit.predict(data, split, export.stored_ranker(p), self.compiled, self)

    def files(self, p: dict, schema: dict) -> tuple[dict[str, bytes], dict]:
        """Files of the bundle by name, and what `[files]` says of them."""
        return {"ranker.onnx": self.graph(p, models.layout(schema)).SerializeToString()}, {"ranker": "ranker.onnx"}

    def reference(self, folder, schema: dict, users: list[dict], items: list[dict]) -> dict[str, np.ndarray]:
        """Raw outputs of the written graph on ONNX Runtime, from raw features alone."""
        return bundle.ranked(folder, schema, users, items)

    def parameters(self, p: dict) -> dict[str, int]:
        """How many numbers the tables and the rest hold; the placement tower is not served."""
        sizes = {name: sum(x.size for x in jax.tree.leaves(below)) for name, below in p.items() if name != "bias"}
        return {"tables": int(sizes.pop("tables")), "layers": int(sum(sizes.values()))}


class Written(GraphFamily):
    """A family of this folder."""

    def __init__(self, name: str, schema: dict):
        super().__init__()
        self.name = name
        self.module, options = GRAPHS[name]
        given = {k: v for k, v in schema.get("ranker", {}).items() if k in options}
        self.options = options | given
        if name == "sequence":
            # The keys and values of a visit are copied to each of its rows.
            self.visits, self.rows = 64, 1_536

    def init(self, schema: dict, rng: np.random.Generator) -> dict:
        """Parameters to begin with, the placement tower among them."""
        p = self.module.init(models.layout(schema), self.options, rng)
        return p | {"bias": np.zeros((256, len(schema["head"])), np.float32)}

    def raw(self, p: dict, names: dict, batch: dict) -> dict:
        """Raw outputs of every head [B]."""
        cross = {c["name"]: batch["cross"][:, n] for n, c in enumerate(names["cross"])}
        o = Arrays(p["tables"], batch["user"], batch["item"], cross, batch["owner"])
        return {name: x[:, 0] for name, x in self.module.outputs(o, p, names, self.options).items()}

    def graph(self, p: dict, names: dict):
        """The ONNX model; outputs take the names of the heads."""
        o = Nodes(p["tables"])
        for name, x in self.module.outputs(o, p, names, self.options).items():
            o.node("Identity", x, output=name)
        return o.model({head["name"]: 1 for head in names["heads"]})


def family(name: str, schema: dict):
    """The family of this name."""
    if name == DEFAULT:
        return GraphFamily()
    if name == "trees":
        from .trees import Trees

        return Trees(schema)
    if name not in GRAPHS:
        raise SystemExit(f"no ranker family {name!r}; there are {', '.join(NAMES)}")
    if name == "sequence" and not any(f["kind"] == "sequence" for f in schema["feature"]):
        raise SystemExit("family `sequence` needs features of kind \"sequence\": see bench/train/schemas/cj-ads-sequence.toml")
    return Written(name, schema)
