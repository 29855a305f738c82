"""The trainer on a table small enough to read: hashes, histories without leaks, calibration, a bundle end to end."""

import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pandas as pd
import zstandard

from gavel_train import bundle, dataset, export, fit, hashing, inputs, metrics, models

SCHEMA = """
name = "tiny"
dimension = 8
metric = "ip"
[tables]
train = "train.csv"
valid = "valid.csv"
items = "items.csv"
users = "users.csv"
events = "events.csv"
[columns]
visit = "visit"
time = "ts"
period = "week"
user = "user"
item = "item"
weight = "weight"
bias = ["slot"]
place = "store"
[event_columns]
user = "user"
item = "item"
time = "ts"
period = "week"
session = "basket"
[[feature]]
name = "kind"
side = "item"
kind = "category"
buckets = 16
source = "kind"
rank = 4
tower = 4
factors = true
[[feature]]
name = "popularity"
side = "item"
kind = "dense"
transform = "log1p"
source = "popularity"
[[feature]]
name = "share"
side = "item"
kind = "dense"
source = "share"
of = "kind"
[[feature]]
name = "age"
side = "user"
kind = "category"
buckets = 16
source = "age"
rank = 2
[[feature]]
name = "visits"
side = "user"
kind = "dense"
source = "sessions"
[[feature]]
name = "bought"
side = "user"
kind = "set"
max_len = 4
source = "set"
of = "kind"
[[cross]]
name = "match"
user = "bought"
item = "kind"
transform = "log1p"
[[head]]
name = "click"
kind = "probability"
role = "click"
label = "click"
[[head]]
name = "amount"
kind = "value"
label = "value"
given = "click"
"""


def tables(folder: Path) -> None:
    """Two users, three items, visits in weeks 1 to 3, the last for validation."""
    (folder / "schema.toml").write_text(SCHEMA)
    pd.DataFrame({"item": [1, 2, 3], "kind": ["milk", "salt", "milk"]}).to_csv(folder / "items.csv", index=False)
    pd.DataFrame({"user": [7, 8], "age": ["65+", ""]}).to_csv(folder / "users.csv", index=False)
    events = [(7, 1, 100, 1, 1), (7, 2, 100, 1, 1), (7, 3, 200, 2, 2), (7, 1, 300, 3, 3), (8, 2, 250, 2, 4)]
    pd.DataFrame(events, columns=["user", "item", "ts", "week", "basket"]).to_csv(folder / "events.csv", index=False)
    rows = [
        (visit, ts, week, user, item, "a" if item == 1 else "b", 5, int((visit + item) % 2), float(item), 2.0)
        for visit, ts, week, user in [(0, 100, 1, 7), (1, 200, 2, 7), (2, 250, 2, 8), (3, 300, 3, 7), (4, 301, 3, 8)]
        for item in (1, 2, 3)
    ]
    names = ["visit", "ts", "week", "user", "item", "slot", "store", "click", "value", "weight"]
    frame = pd.DataFrame(rows, columns=names)
    frame[frame.week < 3].to_csv(folder / "train.csv", index=False)
    frame[frame.week >= 3].to_csv(folder / "valid.csv", index=False)


class Hashes(unittest.TestCase):
    def test_the_servers_vectors(self):
        hashing.check()
        self.assertEqual(hashing.row("GROCERY", 4096), 1 + 13_918_692_429_262_488_608 % 4096)


class Metrics(unittest.TestCase):
    def test_platt_finds_the_true_line_with_weights(self):
        rng = np.random.default_rng(1)
        logit = rng.normal(size=40_000)
        y = (rng.random(40_000) < metrics.sigmoid(0.5 * logit - 1)).astype(float)
        rule = metrics.fit_platt(logit, y, np.ones(40_000))
        self.assertAlmostEqual(rule["scale"], 0.5, delta=0.05)
        self.assertAlmostEqual(rule["offset"], -1.0, delta=0.05)
        doubled = metrics.fit_platt(np.r_[logit, logit[y == 1]], np.r_[y, y[y == 1]], np.ones(40_000 + int(y.sum())))
        weighted = metrics.fit_platt(logit, y, 1 + y)
        self.assertAlmostEqual(doubled["offset"], weighted["offset"], places=3)


class Recipe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        tables(root)
        cls.data = dataset.load(dataset.read_schema(root / "schema.toml"), root)
        inputs.fit_scales(cls.data)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_a_history_ends_strictly_before_its_visit(self):
        words = self.data.vocabulary["bought"]
        sets = []
        for visit in range(5):
            places = self.data.set_values["bought"][visit]
            weights = self.data.set_weights["bought"][visit]
            sets.append({words[p]: w for p, w in zip(places, weights) if p >= 0})
        self.assertEqual(sets[0], {})
        self.assertEqual(sets[1], {"milk": 1.0, "salt": 1.0})
        self.assertEqual(sets[2], {})
        self.assertEqual(sets[3], {"milk": 2.0, "salt": 1.0})
        self.assertEqual(sets[4], {"salt": 1.0})
        self.assertEqual(self.data.user_dense["visits"].tolist(), [0, 1, 0, 2, 1])

    def test_cross_features_are_the_weight_in_the_set(self):
        # Rows of visit 1: milk, salt, milk.
        self.assertEqual(self.data.train.cross[3:6, 0].tolist(), [1.0, 1.0, 1.0])
        self.assertEqual(self.data.valid.cross[:, 0].tolist(), [2.0, 1.0, 2.0, 0.0, 1.0, 0.0])

    def test_popularity_is_of_earlier_periods(self):
        popularity = self.data.train.item_dense["popularity"]
        self.assertTrue(np.isnan(popularity[:3]).all())
        self.assertEqual(popularity[3:6].tolist(), [100.0, 100.0, 0.0])
        self.assertEqual(self.data.valid.item_dense["share"][:3].tolist(), [5_000.0, 10_000.0, 5_000.0])

    def test_tables_begin_as_unit_factors_of_the_histories(self):
        params = models.init_towers(self.data.schema, np.random.default_rng(1))
        before = params["tables"]["kind"].copy()
        after = fit.begin_from_histories(self.data, self.data.valid, params)["tables"]["kind"]
        moved = np.linalg.norm(after - before, axis=1)
        rows = np.unique(self.data.item_rows["kind"])
        self.assertTrue(np.allclose(moved[rows], 1.0, atol=1e-4), moved[rows])
        self.assertEqual(np.count_nonzero(moved), len(rows))

    def test_small_tables_lose_at_most_half_a_step(self):
        table = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
        values, step = export.quantised(table)
        self.assertEqual(values.dtype, np.int8)
        self.assertTrue((np.abs(values * step - table) <= step * 0.501).all())

    def test_a_bundle_is_whole_and_both_frameworks_agree(self):
        rng = np.random.default_rng(1)
        towers, rank = models.init_towers(self.data.schema, rng), models.init_ranker(self.data.schema, rng)
        bundle.GOLDEN_VISITS, bundle.GOLDEN_ROWS = 2, 6
        out = Path(self.folder.name) / "bundle"
        calibration = {"click": {"kind": "platt", "scale": 1.0, "offset": 0.0}, "amount": {"kind": "scale", "factor": 1.0}}
        written = bundle.write(out, self.data, towers, rank, calibration, {"scale": 1.0, "offset": 0.0}, 0.5, 1)
        self.assertLess(max(written["parity"].values()), 1e-4)
        names = {p.name for p in out.iterdir()}
        self.assertEqual(len((out / "BLAKE3SUMS").read_text().splitlines()), len(names) - 1)
        packed = (out / "golden.jsonl.zst").read_bytes()
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(packed).decode().splitlines()
        self.assertEqual(len(lines), 6)
        self.assertEqual(len(json.loads(lines[2])["query"]), 8)
        norms = [float(np.linalg.norm(json.loads(line)["vector"])) for line in lines]
        self.assertTrue(all(0.9 < n < 1.1 for n in norms), norms)
        self.assertNotIn("bias", [i.name for i in export.ranker(rank, models.layout(self.data.schema)).graph.initializer])


if __name__ == "__main__":
    unittest.main()
