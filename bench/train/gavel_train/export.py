"""The two towers and the ranker as ONNX graphs (opset 17), node by node.

Embedding tables of the ranker are float16 with a Cast behind them, those of the towers int8: fewer bytes, and the
servers widen them once. A category is int64 [B,1], a number float32 [B,1], a set int64 [B,L] with float32 [B,L] weights.
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

    def small_table(self, name: str, value: np.ndarray) -> str:
        """A table of the towers: int8 stored, steps of its columns left to the projection behind it."""
        wide = f"table.{name}.f32"
        if f"table.{name}" not in self.initialisers:
            self.constant(f"table.{name}", quantised(value)[0])
            self.node("Cast", f"table.{name}", output=wide, to=TensorProto.FLOAT)
        return wide

    def projected(self, name: str, table: np.ndarray, projection: np.ndarray, x: str) -> str:
        """Rows of a small table, or sums of them, projected."""
        return self.node("MatMul", x, self.constant(name, quantised(table)[1][:, None] * projection))

    def column(self, x: str, place: int) -> str:
        """One column, [B, 1]."""
        bounds = [self.constant(f"at_{k}", np.array([k], np.int64)) for k in (place, place + 1)]
        return self.node("Slice", x, *bounds, self.axes(1))

    def embed(self, table: str, feature: str) -> str:
        """The row of a category: [B, width]."""
        rows = self.node("Gather", table, self.input(feature, 1, TensorProto.INT64), axis=0)
        return self.node("Squeeze", rows, self.axes(1))

    def weighted_sum(self, table: str, feature: dict) -> tuple[str, str]:
        """The log1p-weighted sum of a set's rows [B, width], and the weights [B, L]."""
        rows = self.input(feature["name"], feature["max_len"], TensorProto.INT64)
        weight = self.input(feature["name"] + ".weight", feature["max_len"])
        w = self.node("Log", self.node("Add", weight, self.one()))
        scaled = self.node("Mul", self.node("Gather", table, rows, axis=0), self.node("Unsqueeze", w, self.axes(2)))
        return self.node("ReduceSum", scaled, self.axes(1), keepdims=0), w

    def one(self) -> str:
        """The number 1."""
        return self.constant("one", np.array([1.0], np.float32))

    def sum_plus_one(self, x: str) -> str:
        """The sum over the last of two dimensions, plus 1: [B, 1]."""
        return self.node("Add", self.node("ReduceSum", x, self.axes(1), keepdims=1), self.one())

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


def user_tower(p: dict, names: dict, light: dict | None = None) -> onnx.ModelProto:
    """Output `query`, and `user_light` for a light head."""
    g = Graph("user_tower")
    parts = [g.embed(g.table("table." + f["name"], p["tables"]["user:" + f["name"]]), f["name"]) for f in names["user_categories"]]
    parts += [g.input(f["name"]) for f in names["user_dense"]]
    hidden = g.node("Relu", g.linear("hidden", p["user_hidden"], g.node("Concat", *parts, axis=1)))
    out = g.linear("out", p["user_out"], hidden)
    for f in names["sets"]:
        if f["name"] in p["user"]:
            total, w = g.weighted_sum(g.small_table(f["of"], p["tables"][f["of"]]), f)
            scaled = g.node("Div", total, g.node("Sqrt", g.sum_plus_one(g.node("Mul", w, w))))
            out = g.node("Add", out, g.projected("project." + f["name"], p["tables"][f["of"]], p["user"][f["name"]], scaled))
    norm = g.node("Sqrt", g.sum_plus_one(g.node("Mul", out, out)))
    # norm / norm: a 1 for each row.
    whole = g.node("Concat", g.node("Div", out, norm), g.node("Div", norm, norm), axis=1)
    g.node("Mul", whole, g.constant("scale", np.exp(np.float32([p["log_scale"]]))), output="query")
    return g.model({"query": names["dimension"]} | second(g, "user_light", light, (whole, hidden)))


def second(g: Graph, name: str, layer: dict | None, read: tuple[str, ...]) -> dict[str, int]:
    """The second output of a tower, where there is a light head to read it."""
    if layer is None:
        return {}
    g.node("Identity", g.linear("light", layer, g.node("Concat", *read, axis=1)), output=name)
    return {name: len(layer["b"])}


def item_tower(p: dict, names: dict, light: dict | None = None) -> onnx.ModelProto:
    """Output `vector`, and `item_light` for a light head."""
    g = Graph("item_tower")
    dense = g.node("Concat", *[g.input(f["name"]) for f in names["item_dense"]], axis=1)
    hidden = g.node("Relu", g.linear("hidden", p["item_hidden"], dense))
    out = g.linear("out", p["item_out"], hidden)
    for name, projection in p["item"].items():
        row = g.embed(g.small_table(name, p["tables"][name]), name)
        out = g.node("Add", out, g.projected("project." + name, p["tables"][name], projection, row))
    bounds = [g.constant(f"at_{k}", np.array([k], np.int64)) for k in (0, names["dimension"] - 1, names["dimension"])]
    direction = g.node("Slice", out, *bounds[:2], g.axes(1))
    squares = g.node("ReduceSum", g.node("Mul", direction, direction), g.axes(1), keepdims=1)
    norm = g.node("Sqrt", g.node("Add", squares, g.constant("floor", np.array([models.NORM_FLOOR], np.float32))))
    appeal = g.node("Tanh", g.node("Slice", out, *bounds[1:], g.axes(1)))
    bounded = g.node("Mul", appeal, g.constant("appeal_max", np.array([models.APPEAL_MAX], np.float32)))
    g.node("Concat", g.node("Div", direction, norm), bounded, axis=1, output="vector")
    return g.model({"vector": names["dimension"]} | second(g, "item_light", light, ("vector", hidden)))


def ranker(p: dict, names: dict) -> onnx.ModelProto:
    """One output per head; the placement table is left out."""
    g = Graph("ranker")
    tables = {n: g.table("table." + n, t) for n, t in p["tables"].items()}
    user = [g.embed(tables[f["name"]], f["name"]) for f in names["user_categories"]]
    user += [g.input(f["name"]) for f in names["user_dense"]]
    pooled = []
    for f in names["sets"]:
        total, weights = g.weighted_sum(tables[f["of"]], f)
        pooled.append(g.node("Div", total, g.sum_plus_one(weights)))
    rows = {f["name"]: g.embed(tables[f["name"]], f["name"]) for f in names["item_categories"]}
    met = g.node("Mul", g.node("Concat", *pooled, axis=1), g.node("Concat", *[rows[f["of"]] for f in names["sets"]], axis=1))
    user_part = g.node("Concat", *user, *pooled, axis=1)
    item_part = g.node("Concat", *rows.values(), *[g.input(f["name"]) for f in names["item_dense"]], axis=1)
    x0 = g.node("Concat", user_part, item_part, met, *[g.input(c["name"]) for c in names["cross"]], axis=1)
    x = x0
    for n, layer in enumerate(p["cross"]):
        x = g.node("Add", g.node("Mul", x0, g.linear(f"cross{n}", layer, x)), x)
    experts = [g.node("Relu", g.linear(f"expert{n}", e, x)) for n, e in enumerate(p["experts"])]
    pieces = []
    for f in models.numbers(names):
        knots = g.constant(f"{f['name']}.knots", np.array([f["knots"]], np.float32))
        pieces += [f["name"], g.node("Relu", g.node("Sub", f["name"], knots))]
    wide = g.node("MatMul", g.node("Concat", *pieces, axis=1), g.constant("wide", p["wide"]))
    for place, head in enumerate(names["heads"]):
        name, h = head["name"], p["heads"][head["name"]]
        gate = g.node("Softmax", g.linear(f"{name}.gate", h["gate"], x), axis=1)
        mixed = ""
        for n, expert in enumerate(experts):
            part = g.node("Mul", g.column(gate, n), expert)
            mixed = g.node("Add", mixed, part) if mixed else part
        hidden = g.node("Relu", g.linear(f"{name}.hidden", h["hidden"], mixed))
        g.node("Add", g.linear(f"{name}.out", h["out"], hidden), g.column(wide, place), output=name)
    return g.model({head["name"]: 1 for head in names["heads"]})


def quantised(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table as int8, and the step of each column."""
    step = np.maximum(np.abs(table).max(axis=0) / 127, 1e-12).astype(np.float32)
    return np.round(table / step).astype(np.int8), step


def stored_ranker(p: dict) -> dict:
    """The ranker's parameters as the graph will hold them: tables rounded to float16."""
    return p | {"tables": {n: t.astype(np.float16).astype(np.float32) for n, t in p["tables"].items()}}


def stored_towers(p: dict) -> dict:
    """The towers' parameters as the graphs will hold them: tables with a projection in int8, others in float16."""
    tables = stored_ranker(p)["tables"]
    for name in p["item"]:
        values, step = quantised(p["tables"][name])
        tables[name] = values.astype(np.float32) * step
    return p | {"tables": tables}


def towers(p: dict, schema: dict, light: dict | None = None) -> dict[str, onnx.ModelProto]:
    """The two towers by file name; with the projections of a light head they have a second output."""
    names, sides = models.layout(schema), light or {}
    return {"user_tower.onnx": user_tower(p, names, sides.get("user")), "item_tower.onnx": item_tower(p, names, sides.get("item"))}
