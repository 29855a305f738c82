"""What does a model see? Rows, scaled numbers and log-weights, as the exported graphs will be fed them."""

from __future__ import annotations

import numpy as np

from .dataset import Dataset, Split, features

KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)


def transformed(feature: dict, values: np.ndarray) -> np.ndarray:
    """The transform of a dense or cross feature."""
    return np.log1p(np.maximum(values, 0)) if feature.get("transform") == "log1p" else values


def fit_scales(data: Dataset) -> None:
    """Writes mean, std and default of every dense and cross feature into the schema, from the training rows."""
    train = data.train
    for f in features(data.schema, ("user", "context", "item"), "dense"):
        raw = train.item_dense[f["name"]] if f["side"] == "item" else data.user_dense[f["name"]][train.visit]
        known = raw[np.isfinite(raw)]
        if not len(known):
            # Nobody has it: what the model sees is the default, whatever that is.
            known = np.zeros(1, np.float32)
        scaled = transformed(f, known)
        f["mean"], f["std"] = round(float(scaled.mean()), 6), round(float(scaled.std()) or 1.0, 6)
        f["default"] = round(float(np.median(known)), 6)
        f["knots"] = knots(encode(f, known))
    for place, f in enumerate(data.schema["cross"]):
        scaled = transformed(f, train.cross[:, place])
        f["mean"], f["std"] = round(float(scaled.mean()), 6), round(float(scaled.std()) or 1.0, 6)
        f["knots"] = knots(encode(f, train.cross[:, place]))


def knots(encoded: np.ndarray) -> list[float]:
    """Where the ranker's piecewise linear part may bend: quantiles of what lies above the lowest value."""
    above = encoded[encoded > encoded.min() + 1e-6]
    places = np.quantile(above, KNOTS) if len(above) else [0.0]
    return np.unique(np.float32(places)).tolist()


def encode(feature: dict, raw: np.ndarray) -> np.ndarray:
    """Raw numbers to model inputs; a missing one takes the default."""
    filled = np.where(np.isfinite(raw), raw, feature.get("default", 0.0))
    return ((transformed(feature, filled) - feature["mean"]) / feature["std"]).astype(np.float32)


def user_inputs(data: Dataset, visits: np.ndarray) -> dict[str, np.ndarray]:
    """Model inputs of these visits, named as in the graphs."""
    out = {}
    for f in features(data.schema, ("user", "context"), "category"):
        out[f["name"]] = data.user_rows[f["name"]][visits]
    for f in features(data.schema, ("user", "context"), "dense"):
        out[f["name"]] = encode(f, data.user_dense[f["name"]][visits])
    for f in features(data.schema, ("user", "context"), "set"):
        out[f["name"]] = data.set_rows[f["name"]][visits]
        out[f["name"] + ".weight"] = data.set_weights[f["name"]][visits]
    for f in features(data.schema, ("user", "context"), "sequence"):
        out[f["name"]] = data.sequence_rows[f["name"]][visits]
    return out


def item_inputs(data: Dataset, items: np.ndarray, dense: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Model inputs of these items with these raw numbers."""
    out = {f["name"]: data.item_rows[f["name"]][items] for f in features(data.schema, ("item",), "category")}
    for f in features(data.schema, ("item",), "dense"):
        out[f["name"]] = encode(f, dense[f["name"]])
    return out


def cross_inputs(data: Dataset, raw: np.ndarray) -> np.ndarray:
    """Cross features as one matrix, in the order of the schema."""
    return np.stack([encode(f, raw[:, n]) for n, f in enumerate(data.schema["cross"])], axis=1)


class Batches:
    """Batches of visits with a fixed shape, so that a compiled step is used for all of them.

    A visit stays whole unless it has more rows than a batch: then each part of it counts as a visit.
    """

    def __init__(self, data: Dataset, split: Split, visits: int, rows: int):
        self.data, self.split, self.visits, self.rows = data, split, visits, rows
        first = np.flatnonzero(np.r_[True, split.visit[1:] != split.visit[:-1]])
        sizes = np.diff(np.r_[first, len(split.visit)])
        self.starts = np.concatenate([np.arange(start, start + size, rows) for start, size in zip(first, sizes)])
        self.ends = np.r_[self.starts[1:], len(split.visit)]
        dense = {f["name"]: encode(f, split.item_dense[f["name"]]) for f in features(data.schema, ("item",), "dense")}
        self.dense, self.cross = dense, cross_inputs(data, split.cross)

    def __iter__(self):
        yield from self.epoch(np.arange(len(self.starts)))

    def shuffled(self, rng: np.random.Generator):
        """One epoch in random order."""
        yield from self.epoch(rng.permutation(len(self.starts)))

    def epoch(self, order: np.ndarray):
        """Batches over the visits in this order."""
        sizes = (self.ends - self.starts)[order]
        begin = 0
        while begin < len(order):
            total = np.cumsum(sizes[begin : begin + self.visits])
            count = max(1, int(np.searchsorted(total, self.rows, "right")))
            yield self.batch(order[begin : begin + count])
            begin += count

    def batch(self, groups: np.ndarray) -> dict:
        """Inputs of these visits, padded; padding rows have weight 0 and point at the last visit."""
        s = self.split
        rows = np.concatenate([np.arange(self.starts[g], self.ends[g]) for g in groups])
        groups_of_rows = np.repeat(np.arange(len(groups)), (self.ends - self.starts)[groups])
        pad = self.rows - len(rows)
        index = np.r_[rows, np.zeros(pad, rows.dtype)]
        visits = s.visit[self.starts[groups]]
        visits = np.r_[visits, np.repeat(visits[-1:], self.visits - len(visits))]
        alive = np.r_[np.ones(len(rows), np.float32), np.zeros(pad, np.float32)]
        item = {f["name"]: self.data.item_rows[f["name"]][s.item[index]] for f in features(self.data.schema, ("item",), "category")}
        item.update({name: column[index] for name, column in self.dense.items()})
        return {
            "user": user_inputs(self.data, visits),
            "item": item,
            "cross": self.cross[index],
            "owner": np.r_[groups_of_rows, np.full(pad, self.visits - 1)].astype(np.int32),
            "bias": s.bias[index],
            "weight": s.weight[index] * alive,
            "alive": alive,
            "labels": {h: s.labels[h][index] for h in s.labels},
            "given": {h: s.given[h][index] * alive for h in s.given},
            "place": s.item[index],
            "rows": rows,
        }
