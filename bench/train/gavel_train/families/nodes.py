"""What does a family compute? Its operations as ONNX nodes, for the bundle. The twin of `arrays.py`."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ..export import Graph
from .arrays import EMPTY


class Nodes(Graph):
    """A ranker being written: methods take and give names of tensors."""

    def __init__(self, tables: dict):
        super().__init__("ranker")
        self.tables = tables

    def stored(self, table: str) -> str:
        """A table, float16 in the file."""
        return self.table("table." + table, self.tables[table])

    def meet(self, x: str) -> str:
        """Every tensor of the graph has a row per impression already."""
        return x

    def category(self, feature: dict, table: str) -> str:
        """Row of a table: [B, width]."""
        return self.embed(self.stored(table), feature["name"])

    def number(self, feature: dict) -> str:
        """A scaled number: [B, 1]."""
        return self.input(feature["name"])

    def pooled(self, feature: dict, table: str) -> str:
        """Mean of a set's rows, weighted by log1p: [B, width]."""
        total, weights = self.weighted_sum(self.stored(table), feature)
        return self.node("Div", total, self.sum_plus_one(weights))

    def places(self, feature: dict, table: str) -> str:
        """Rows of a sequence: [B, length, width]."""
        rows = self.input(feature["name"], feature["max_len"], TensorProto.INT64)
        return self.node("Gather", self.stored(table), rows, axis=0)

    def empty(self, feature: dict) -> str:
        """`EMPTY` at the empty places of a sequence, 0 elsewhere: [B, length]."""
        rows = self.input(feature["name"], feature["max_len"], TensorProto.INT64)
        filled = self.node("Greater", rows, self.constant("no_row", np.array([0], np.int64)))
        there = self.node("Cast", filled, to=TensorProto.FLOAT)
        gone = self.node("Sub", self.one(), there)
        return self.node("Mul", gone, self.constant("empty", np.array([EMPTY], np.float32)))

    def concat(self, *xs: str) -> str:
        """Along the last axis."""
        return self.node("Concat", *xs, axis=-1)

    def add(self, x: str, y: str) -> str:
        """x + y."""
        return self.node("Add", x, y)

    def sub(self, x: str, y: str) -> str:
        """x - y."""
        return self.node("Sub", x, y)

    def mul(self, x: str, y: str) -> str:
        """x y, element by element."""
        return self.node("Mul", x, y)

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self.node("Relu", x)

    def softmax(self, x: str) -> str:
        """Over the last axis."""
        return self.node("Softmax", x, axis=-1)

    def matmul(self, x: str, y: str) -> str:
        """Matrix product of the last two axes."""
        return self.node("MatMul", x, y)

    def layer_norm(self, name: str, layer: dict, x: str) -> str:
        """Zero mean and unit variance over the last axis, then scale and shift."""
        w, b = (self.constant(f"{name}.{k}", np.asarray(layer[k], np.float32)) for k in ("w", "b"))
        return self.node("LayerNormalization", x, w, b, axis=-1, epsilon=1e-5)

    def swap(self, x: str) -> str:
        """Transposes the last two of three axes."""
        return self.node("Transpose", x, perm=[0, 2, 1])

    def unsqueeze(self, x: str, axis: int) -> str:
        """A new axis of length 1."""
        return self.node("Unsqueeze", x, self.axes(axis))

    def squeeze(self, x: str, axis: int) -> str:
        """Without that axis of length 1."""
        return self.node("Squeeze", x, self.axes(axis))

    def by_head(self, x: str, length: int, heads: int, width: int) -> str:
        """[B, length, heads, width]."""
        shape = self.constant(f"shape_{length}_{heads}_{width}", np.array([-1, length, heads, width], np.int64))
        return self.node("Reshape", x, shape)

    def to_heads(self, x: str, length: int, heads: int, width: int) -> str:
        """[B, length, heads x width] to [B, heads, length, width]."""
        return self.node("Transpose", self.by_head(x, length, heads, width), perm=[0, 2, 1, 3])

    def to_heads_swapped(self, x: str, length: int, heads: int, width: int) -> str:
        """[B, length, heads x width] to [B, heads, width, length]: keys, as scores want them."""
        return self.node("Transpose", self.by_head(x, length, heads, width), perm=[0, 2, 3, 1])

    def from_heads(self, x: str, length: int, heads: int, width: int) -> str:
        """The way back."""
        shape = self.constant(f"shape_{length}_{heads * width}", np.array([-1, length, heads * width], np.int64))
        return self.node("Reshape", self.node("Transpose", x, perm=[0, 2, 1, 3]), shape)
