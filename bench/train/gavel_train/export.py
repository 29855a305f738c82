"""The two towers and the ranker as ONNX graphs (opset 17), node by node.

Embedding tables are float16 with a Cast behind them: half the bytes, and the servers widen them once. A category
is int64 [B,1], a number float32 [B,1], a set int64 [B,L] with float32 [B,L] weights.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from . import models


class Graph:
    """A graph being written: every method adds nodes and gives the name of their output."""

    def __init__(self, name: str):
        self.name, self.nodes, self.initialisers, self.inputs, self.outputs = name, [], {}, {}, []
        self.count = 0

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes) -> str:
        """One node with one output."""
        self.count += 1
        output = output or f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        """A named constant; the same name is stored once."""
        if name not in self.initialisers:
            self.initialisers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def axes(self, *axes: int) -> str:
        """Axes as an input, as opset 13 and later want them."""
        return self.constant("axes_" + "_".join(map(str, axes)), np.array(axes, np.int64))

    def input(self, name: str, width: int = 1, kind: int = TensorProto.FLOAT) -> str:
        """A graph input [B, width]."""
        self.inputs.setdefault(name, helper.make_tensor_value_info(name, kind, ["B", width]))
        return name

    def table(self, name: str, value: np.ndarray) -> str:
        """An embedding table: float16 stored, float32 used."""
        wide = f"{name}.f32"
        if name not in self.initialisers:
            self.constant(name, value.astype(np.float16))
            self.node("Cast", name, output=wide, to=TensorProto.FLOAT)
        return wide

    def embed(self, table: str, feature: str) -> str:
        """The row of a category: [B, width]."""
        rows = self.node("Gather", table, self.input(feature, 1, TensorProto.INT64), axis=0)
        return self.node("Squeeze", rows, self.axes(1))

    def weighted_sum(self, table: str, feature: dict) -> tuple[str, str]:
        """The log1p-weighted sum of a set's rows [B, width], and the sum of those weights [B, 1]."""
        rows = self.input(feature["name"], feature["max_len"], TensorProto.INT64)
        weight = self.input(feature["name"] + ".weight", feature["max_len"])
        one = self.constant("one", np.array([1.0], np.float32))
        w = self.node("Log", self.node("Add", weight, one))
        scaled = self.node("Mul", self.node("Gather", table, rows, axis=0), self.node("Unsqueeze", w, self.axes(2)))
        return (
            self.node("ReduceSum", scaled, self.axes(1), keepdims=0),
            self.node("Add", self.node("ReduceSum", w, self.axes(1), keepdims=1), one),
        )

    def linear(self, name: str, layer: dict, x: str) -> str:
        """x W + b."""
        product = self.node("MatMul", x, self.constant(name + ".w", layer["w"].astype(np.float32)))
        return self.node("Add", product, self.constant(name + ".b", layer["b"].astype(np.float32)))

    def model(self, outputs: dict[str, int]) -> onnx.ModelProto:
        """The finished, checked model."""
        results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", w]) for n, w in outputs.items()]
        graph = helper.make_graph(self.nodes, self.name, list(self.inputs.values()), results, list(self.initialisers.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="gavel-train")
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def user_tower(p: dict, names: dict) -> onnx.ModelProto:
    """Output `query`."""
    g = Graph("user_tower")
    parts = [g.embed(g.table("table." + f["name"], p["tables"]["user:" + f["name"]]), f["name"]) for f in names["user_categories"]]
    parts += [g.input(f["name"]) for f in names["user_dense"]]
    hidden = g.node("Relu", g.linear("hidden", p["user_hidden"], g.node("Concat", *parts, axis=1)))
    out = g.linear("out", p["user_out"], hidden)
    for f in names["sets"]:
        if f["of"] in p["user"]:
            total, weight = g.weighted_sum(g.table("table." + f["of"], p["tables"][f["of"]]), f)
            scaled = g.node("Div", total, g.node("Sqrt", weight))
            projected = g.node("MatMul", scaled, g.constant("project." + f["of"], p["user"][f["of"]]))
            out = g.node("Add", out, projected)
    g.node("Identity", out, output="query")
    return g.model({"query": names["dimension"]})


def item_tower(p: dict, names: dict) -> onnx.ModelProto:
    """Output `vector`."""
    g = Graph("item_tower")
    dense = g.node("Concat", *[g.input(f["name"]) for f in names["item_dense"]], axis=1)
    out = g.linear("out", p["item_out"], g.node("Relu", g.linear("hidden", p["item_hidden"], dense)))
    for name, projection in p["item"].items():
        row = g.embed(g.table("table." + name, p["tables"][name]), name)
        out = g.node("Add", out, g.node("MatMul", row, g.constant("project." + name, projection)))
    g.node("Identity", out, output="vector")
    return g.model({"vector": names["dimension"]})


def ranker(p: dict, names: dict) -> onnx.ModelProto:
    """One output per head; the placement table is left out."""
    g = Graph("ranker")
    tables = {n: g.table("table." + n, t) for n, t in p["tables"].items()}
    user = [g.embed(tables[f["name"]], f["name"]) for f in names["user_categories"]]
    user += [g.input(f["name"]) for f in names["user_dense"]]
    pooled = [g.node("Div", *g.weighted_sum(tables[f["of"]], f)) for f in names["sets"]]
    rows = {f["name"]: g.embed(tables[f["name"]], f["name"]) for f in names["item_categories"]}
    met = g.node("Mul", g.node("Concat", *pooled, axis=1), g.node("Concat", *[rows[f["of"]] for f in names["sets"]], axis=1))
    user_part = g.node("Concat", *user, *pooled, axis=1)
    item_part = g.node("Concat", *rows.values(), *[g.input(f["name"]) for f in names["item_dense"]], axis=1)
    x0 = g.node("Concat", user_part, item_part, met, *[g.input(c["name"]) for c in names["cross"]], axis=1)
    x = x0
    for n, layer in enumerate(p["cross"]):
        x = g.node("Add", g.node("Mul", x0, g.linear(f"cross{n}", layer, x)), x)
    experts = [g.node("Relu", g.linear(f"expert{n}", e, x)) for n, e in enumerate(p["experts"])]
    for head in names["heads"]:
        name, h = head["name"], p["heads"][head["name"]]
        gate = g.node("Softmax", g.linear(f"{name}.gate", h["gate"], x), axis=1)
        mixed = ""
        for n, expert in enumerate(experts):
            bounds = [g.constant(f"at_{k}", np.array([k], np.int64)) for k in (n, n + 1)]
            share = g.node("Slice", gate, *bounds, g.axes(1))
            part = g.node("Mul", share, expert)
            mixed = g.node("Add", mixed, part) if mixed else part
        hidden = g.node("Relu", g.linear(f"{name}.hidden", h["hidden"], mixed))
        g.node("Identity", g.linear(f"{name}.out", h["out"], hidden), output=name)
    return g.model({head["name"]: 1 for head in names["heads"]})


def halved(p: dict) -> dict:
    """The parameters as the graphs will hold them: tables rounded to float16."""
    return p | {"tables": {n: t.astype(np.float16).astype(np.float32) for n, t in p["tables"].items()}}


def graphs(towers: dict, rank: dict, schema: dict) -> dict[str, onnx.ModelProto]:
    """The three graphs by file name."""
    names = models.layout(schema)
    return {"user_tower.onnx": user_tower(towers, names), "item_tower.onnx": item_tower(towers, names), "ranker.onnx": ranker(rank, names)}
