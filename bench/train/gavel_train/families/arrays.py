"""What does a family compute? Its operations on JAX arrays, for training.

The twin of `nodes.py`: the same methods, there written as ONNX nodes. A family is written once against both, and
every export is compared with ONNX Runtime, so a method that differs between the two cannot pass.

User values have one row per visit until `meet` gives every impression its visit's row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

EMPTY = -1e9  # added to the score of an empty place before a softmax


class Arrays:
    """Operations on the arrays of one batch."""

    def __init__(self, tables: dict, user: dict, item: dict, cross: dict, owner):
        self.tables, self.owner = tables, owner
        self.values = {**user, **item, **cross}

    def meet(self, x):
        """A user value, once per impression."""
        return x[self.owner]

    def category(self, feature: dict, table: str):
        """Row of a table: [B, width]."""
        return self.tables[table][self.values[feature["name"]]]

    def number(self, feature: dict):
        """A scaled number: [B, 1]."""
        return self.values[feature["name"]][:, None]

    def pooled(self, feature: dict, table: str):
        """Mean of a set's rows, weighted by log1p: [B, width]."""
        w = jnp.log1p(self.values[feature["name"] + ".weight"])
        total = jnp.einsum("vl,vld->vd", w, self.tables[table][self.values[feature["name"]]])
        return total / (w.sum(axis=1, keepdims=True) + 1.0)

    def places(self, feature: dict, table: str):
        """Rows of a sequence: [B, length, width]."""
        return self.tables[table][self.values[feature["name"]]]

    def empty(self, feature: dict):
        """`EMPTY` at the empty places of a sequence, 0 elsewhere: [B, length]."""
        return jnp.where(self.values[feature["name"]] > 0, 0.0, EMPTY).astype(jnp.float32)

    def constant(self, name: str, value):
        """A fixed array."""
        return jnp.asarray(value)

    def concat(self, *xs):
        """Along the last axis."""
        return jnp.concatenate(xs, axis=-1)

    def add(self, x, y):
        """x + y."""
        return x + y

    def sub(self, x, y):
        """x - y."""
        return x - y

    def mul(self, x, y):
        """x y, element by element."""
        return x * y

    def relu(self, x):
        """max(x, 0)."""
        return jax.nn.relu(x)

    def softmax(self, x):
        """Over the last axis."""
        return jax.nn.softmax(x, axis=-1)

    def matmul(self, x, y):
        """Matrix product of the last two axes."""
        return x @ y

    def linear(self, name: str, layer: dict, x):
        """x W + b."""
        return x @ layer["w"] + layer["b"]

    def layer_norm(self, name: str, layer: dict, x):
        """Zero mean and unit variance over the last axis, then scale and shift."""
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = jnp.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)
        return centred / spread * layer["w"] + layer["b"]

    def column(self, x, place: int):
        """One column: [B, 1]."""
        return x[:, place : place + 1]

    def swap(self, x):
        """Transposes the last two of three axes."""
        return jnp.swapaxes(x, -1, -2)

    def unsqueeze(self, x, axis: int):
        """A new axis of length 1."""
        return jnp.expand_dims(x, axis)

    def squeeze(self, x, axis: int):
        """Without that axis of length 1."""
        return jnp.squeeze(x, axis)

    def to_heads(self, x, length: int, heads: int, width: int):
        """[B, length, heads x width] to [B, heads, length, width]."""
        return x.reshape(-1, length, heads, width).transpose(0, 2, 1, 3)

    def to_heads_swapped(self, x, length: int, heads: int, width: int):
        """[B, length, heads x width] to [B, heads, width, length]: keys, as scores want them."""
        return x.reshape(-1, length, heads, width).transpose(0, 2, 3, 1)

    def from_heads(self, x, length: int, heads: int, width: int):
        """The way back."""
        return x.transpose(0, 2, 1, 3).reshape(-1, length, heads * width)
