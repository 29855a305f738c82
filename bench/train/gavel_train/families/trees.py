"""Family `trees`: gradient-boosted trees by LightGBM, one model and one text file a head.

Trees see numbers as they come, categories as the rows that the servers' hash gives them (a categorical split), and
cross features unscaled; what is missing is NaN. Tables of many thousand rows are left out: their split sets would
be as long as the table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import hashing
from ..dataset import Dataset, Split, features

OPTIONS = {"trees": 150, "leaves": 48, "min_rows": 200, "rate": 0.08, "buckets_max": 4096}


class Trees:
    """Models of every head, as LightGBM's text."""

    name, raw_cross = "trees", True

    def __init__(self, schema: dict):
        self.options = OPTIONS | {k: v for k, v in schema.get("ranker", {}).items() if k in OPTIONS}

    def columns(self, schema: dict) -> list[tuple[str, str, dict]]:
        """Side, kind and rule of every column, in the order of the models."""
        out = []
        for side in (("user", "context"), ("item",)):
            out += [(side[0], "dense", f) for f in features(schema, side, "dense")]
            out += [(side[0], "category", f) for f in features(schema, side, "category") if f["buckets"] <= self.options["buckets_max"]]
        return out + [("cross", "cross", c) for c in schema["cross"]]

    def matrix(self, data: Dataset, split: Split) -> np.ndarray:
        """All columns of a split."""
        out = []
        for side, kind, f in self.columns(data.schema):
            if side == "cross":
                out.append(split.cross[:, data.schema["cross"].index(f)])
            elif kind == "dense":
                out.append(split.item_dense[f["name"]] if side == "item" else data.user_dense[f["name"]][split.visit])
            else:
                rows = data.item_rows[f["name"]][split.item] if side == "item" else data.user_rows[f["name"]][split.visit]
                out.append(np.where(rows > 0, rows, np.nan))
        return np.stack(out, axis=1).astype(np.float32)

    def train(self, data: Dataset, split: Split, settings, log=print) -> dict[str, str]:
        """A model per head: weighted, on the rows where its condition holds."""
        import lightgbm

        x, columns, out = self.matrix(data, split), self.columns(data.schema), {}
        names = [f["name"] for _, _, f in columns]
        categories = [f["name"] for _, kind, f in columns if kind == "category"]
        for head in data.schema["head"]:
            rows = np.flatnonzero(split.given[head["name"]])
            y = split.labels[head["name"]][rows]
            value = head["kind"] == "value"
            weight = split.weight[rows] / split.weight[rows].mean()
            table = lightgbm.Dataset(x[rows], np.log1p(y) if value else y, weight=weight, feature_name=names, categorical_feature=categories)
            rules = {
                "objective": "regression" if value else "binary", "learning_rate": self.options["rate"], "num_leaves": self.options["leaves"],
                "min_data_in_leaf": self.options["min_rows"], "num_threads": 1, "seed": settings.seed, "deterministic": True,
                "force_col_wise": True, "cat_smooth": 50.0, "cat_l2": 50.0, "verbose": -1,
            }
            out[head["name"]] = lightgbm.train(rules, table, self.options["trees"]).model_to_string()
            log(f"trees of {head['name']}: {len(rows):,} rows, {len(out[head['name']]):,} bytes")
        return out

    def scored(self, models: dict[str, str], x: np.ndarray) -> dict[str, np.ndarray]:
        """Raw scores by LightGBM, float64."""
        import lightgbm

        return {name: lightgbm.Booster(model_str=text).predict(x, raw_score=True, num_threads=1) for name, text in models.items()}

    def predict(self, data: Dataset, split: Split, p: dict) -> dict[str, np.ndarray]:
        """Raw outputs of every head for every row of a split."""
        return self.scored(p, self.matrix(data, split))

    def files(self, p: dict, schema: dict) -> tuple[dict[str, bytes], dict]:
        """Files of the bundle by name, and what `[files]` says of them."""
        return {f"{name}.txt": text.encode() for name, text in p.items()}, {"trees": {name: f"{name}.txt" for name in p}}

    def reference(self, folder: Path, schema: dict, users: list[dict], items: list[dict]) -> dict[str, np.ndarray]:
        """Raw scores by LightGBM on the written files, from raw features alone: columns are those that the files name."""
        import lightgbm

        texts = {h["name"]: (folder / f"{h['name']}.txt").read_text() for h in schema["head"]}
        rules = {f["name"]: f for f in schema["feature"] + schema["cross"]}
        columns = lightgbm.Booster(model_str=next(iter(texts.values()))).feature_name()
        x = np.full((len(users), len(columns)), np.nan, np.float32)
        for n, f in enumerate(rules[name] for name in columns):
            for k, (user, item) in enumerate(zip(users, items)):
                if "side" not in f:
                    have = user.get(f["user"], {"values": [], "weights": []})
                    x[k, n] = dict(zip(have["values"], have["weights"])).get(item.get(f["item"]), 0.0)
                elif (value := (item if f["side"] == "item" else user).get(f["name"])) is not None:
                    x[k, n] = value if f["kind"] == "dense" else hashing.row(value, f["buckets"])
        return self.scored(texts, x)

    def parameters(self, p: dict) -> dict[str, int]:
        """Trees and leaves of all heads."""
        import lightgbm

        trees = [t for text in p.values() for t in lightgbm.Booster(model_str=text).dump_model()["tree_info"]]
        return {"trees": len(trees), "leaves": sum(t["num_leaves"] for t in trees)}
