"""The trainer on a table small enough to read: hashes, histories without leaks, calibration, a bundle end to end."""

import json
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import parity
import zstandard

from gavel_train import bundle, cache, calibrate, dataset, export, families, fit, hashing, inputs, light, metrics, missing, models, sampling, scored

SCHEMA = """
name = "tiny"
dimension = 8
metric = "ip"
golden = { visits = 2, rows = 6 }
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
[[feature]]
name = "last"
side = "user"
kind = "sequence"
max_len = 3
source = "sequence"
of = "kind"
[[feature]]
name = "ages"
side = "user"
kind = "sequence"
max_len = 3
buckets = 32
rank = 4
source = "sequence"
of = "age"
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
        cls.folder, cls.written = tempfile.TemporaryDirectory(), {}
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

    def test_a_sequence_is_newest_first_and_ends_before_its_visit(self):
        words, ages = self.data.vocabulary["last"], self.data.vocabulary["ages"]
        spelled = [[words[p] for p in row if p >= 0] for row in self.data.sequence_values["last"]]
        self.assertEqual(spelled, [[], ["salt", "milk"], [], ["milk", "salt", "milk"], ["salt"]])
        # Visit 4 is at 301, the event at 250: less than a day.
        self.assertEqual([ages[p] for p in self.data.sequence_values["ages"][4] if p >= 0], ["0"])
        self.assertEqual((self.data.sequence_rows["last"] > 0).tolist(), (self.data.sequence_rows["ages"] > 0).tolist())

    def test_negatives_go_and_weights_stay(self):
        train = self.data.train
        part = sampling.sampled(self.data, train, 1.0, 0.0, 1)
        self.assertEqual(len(part.visit), int(train.labels["click"].sum()))
        self.assertTrue((part.weight == 2.0).all())
        self.assertEqual(len(sampling.sampled(self.data, train, 1.0, 1.0, 1).visit), len(train.visit))

    def test_a_missing_group_is_what_a_server_takes_for_it(self):
        groups = missing.groups(self.data.schema)
        self.assertEqual(groups["history and cross"], ["bought", "match"])
        gone = missing.without(self.data, groups["history and cross"])
        self.assertEqual(float(gone.valid.cross.sum()), 0.0)
        self.assertEqual(int(gone.set_rows["bought"].sum()), 0)
        self.assertGreater(float(self.data.valid.cross.sum()), 0.0)

    def write(self, name):
        """A bundle of this family, trained for an epoch, in a folder of its name; made once."""
        if name not in self.written:
            self.written[name] = self.train(name)
        return self.written[name]

    def train(self, name):
        """Makes it."""
        settings = SimpleNamespace(ranker_epochs=1, seed=1, ranker_rate=1e-3, decay=0.01)
        schema = self.data.schema | {"ranker": {"layers": [8, 4], "width": 8, "inner": 8, "key": 4, "trees": 3, "leaves": 4, "min_rows": 1}}
        family = families.family(name, schema)
        towers = models.init_towers(self.data.schema, np.random.default_rng(1))
        rank = family.train(self.data, self.data.train, settings, lambda _: None)
        out = Path(self.folder.name) / name
        calibration = {"click": {"kind": "platt", "scale": 1.0, "offset": 0.0}, "amount": {"kind": "scale", "factor": 1.0}}
        raw = family.predict(self.data, self.data.valid, rank)
        written = bundle.write(out, self.data, towers, family, rank, raw, (calibration, {"scale": 1.0, "offset": 0.0}, 0.5), 1)
        packed = (out / "golden.jsonl.zst").read_bytes()
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(packed).decode().splitlines()
        return family, rank, written, out, [json.loads(line) for line in lines]

    def test_a_bundle_is_whole(self):
        family, rank, _, out, lines = self.write(families.DEFAULT)
        names = {p.name for p in out.iterdir()}
        self.assertEqual(len((out / "BLAKE3SUMS").read_text().splitlines()), len(names) - 1)
        self.assertEqual(len(lines), 6)
        self.assertEqual(len(lines[2]["query"]), 8)
        norms = [float(np.linalg.norm(line["vector"])) for line in lines]
        self.assertTrue(all(0.9 < n < 1.1 for n in norms), norms)
        self.assertNotIn("bias", [i.name for i in family.graph(rank, models.layout(self.data.schema)).graph.initializer])

    def test_every_family_exports_what_it_trained(self):
        for name in families.NAMES:
            with self.subTest(name):
                family, rank, written, out, lines = self.write(name)
                self.assertLess(max(written["parity"].values()), 1e-4)
                self.assertTrue(all(np.isfinite(list(line["heads"].values())).all() for line in lines))
                self.assertGreater(min(family.parameters(rank).values()), 0)
                if name == "trees":
                    self.assertIn('trees = { click = "click.txt", amount = "amount.txt" }', (out / "bundle.toml").read_text())
                else:
                    names = [i.name for i in family.graph(rank, models.layout(self.data.schema)).graph.input]
                    self.assertEqual("last" in names, name == "sequence")

    def test_a_visit_longer_than_a_batch_is_predicted_whole(self):
        family, rank, *_ = self.write("mlp")
        whole = family.predict(self.data, self.data.train, rank)
        sizes = np.unique(self.data.train.visit, return_counts=True)[1]
        self.assertGreater(sizes.max(), 1)
        family.visits, family.rows, family.compiled = 2, int(sizes.max()) - 1, None
        cut = family.predict(self.data, self.data.train, rank)
        for head, values in whole.items():
            self.assertTrue((values != 0).any())
            np.testing.assert_allclose(cut[head], values, rtol=1e-5, atol=1e-5)

    def test_a_light_head_is_what_its_files_say(self):
        rng, data = np.random.default_rng(1), self.data
        towers = models.init_towers(data.schema, rng)
        stored, names, split = export.stored_towers(towers), models.layout(data.schema), data.valid
        query, user = models.user_activations(stored, names, inputs.user_inputs(data, split.visit))
        vector, item = models.item_activations(stored, names, inputs.item_inputs(data, split.item, split.item_dense))
        near = np.asarray((query * vector).sum(axis=1, keepdims=True))
        head = light.init(user.shape[1], item.shape[1], rng)
        out = Path(self.folder.name) / "light"
        out.mkdir()
        for name, model in (export.towers(towers, data.schema, head) | {"light.onnx": light.graph(head)}).items():
            (out / name).write_bytes(model.SerializeToString())
        users = [bundle.raw_user(data, v) for v in split.visit]
        feeds = bundle.feeds(data.schema, users, [bundle.raw_item(data, split, n) for n in range(len(users))])
        sides = {k: v for f in ("user_tower.onnx", "item_tower.onnx") for k, v in bundle.run(out, f, feeds).items()}
        found = bundle.run(out, "light.onnx", sides | {"similarity": near})
        wanted = np.asarray(light.scores(head, user, np.asarray(item)[:, None, :], near))[:, 0]
        for place, name in enumerate(("light", "light_conversion")):
            self.assertLess(float(np.abs(found[name][:, 0] - wanted[:, place]).max()), 1e-4)

    def test_what_survives_a_cut(self):
        wanted = np.arange(2_000.0)[None, :]
        best = light.best_of(wanted)
        self.assertEqual(best.sum(), light.BEST)
        self.assertEqual(set(light.survival(wanted, best).values()), {1.0})
        half = wanted.copy()
        half[0, -25:] = -1
        self.assertEqual(light.survival(half, best)["800"], 0.5)

    def test_a_light_ranking_survives_itself_in_every_market(self):
        rng = np.random.default_rng(1)
        click = rng.random((3, 2_000))
        ranker = (click, click * rng.random((3, 2_000)))
        self.assertEqual({share for by in light.survivals(ranker, ranker, 1).values() for share in by.values()}, {1.0})
        # Without a conversion of its own, the light ranking loses bids on conversions, and keeps those on clicks.
        blind = light.survivals((click, click * 0.5), ranker, 1)
        self.assertEqual(blind["clicks alone"]["50"], 1.0)
        self.assertLess(blind["conversions alone"]["50"], 0.5)

    def test_a_distilled_head_keeps_both_orders(self):
        rng = np.random.default_rng(1)
        user, item = rng.normal(size=(20, 4)), rng.normal(size=(20, 200, 4))
        user, item = user.astype(np.float32), item.astype(np.float32)
        dot, click, both = (item * user[:, None]).sum(axis=2), item[..., 0] - 3, item[..., 0] + 2 * item[..., 1] - 6
        head = light.distil(user, item, dot, (click, both), 1, steps=300, log=lambda _: None)
        found = metrics.sigmoid(np.asarray(light.scores(head, user, item, dot), np.float64))
        for order, wanted in ((found[..., 0], click), (found.prod(axis=-1), both)):
            self.assertGreater(light.survival(order, light.best_of(wanted))["50"], 0.8)

    def test_trees_from_raw_features_score_bit_for_bit_as_in_training(self):
        family, rank, _, out, lines = self.write("trees")
        split = self.data.valid
        users = [bundle.raw_user(self.data, v) for v in split.visit]
        items = [bundle.raw_item(self.data, split, n) for n in range(len(split.visit))]
        here, there = family.predict(self.data, split, rank), family.reference(out, self.data.schema, users, items)
        for head in here:
            self.assertEqual(here[head].tolist(), there[head].tolist())


def logged(data, folder: Path) -> None:
    """The tables that `gavel log join` would write, had a cluster served this dataset: hashes, weights, labels."""
    spelled = lambda text: f"{hashing.value_hash(text):016x}" if text else ""  # noqa: E731
    number = lambda value: "" if np.isnan(value) else repr(float(value))  # noqa: E731
    visits = []
    for n, visit in enumerate(data.visits.itertuples()):
        row = {"visit": n, "ts": visit.ts, "period": visit.week, "user": visit.user, "placement": "home"}
        for f in dataset.features(data.schema, ("user", "context"), "category"):
            row[f"u.{f['name']}"] = spelled(data.texts[f["name"]].iloc[n])
        for f in dataset.features(data.schema, ("user", "context"), "dense"):
            row[f"u.{f['name']}"] = number(data.user_dense[f["name"]][n])
        for kind, places in (("set", data.set_values), ("sequence", data.sequence_values)):
            for f in dataset.features(data.schema, ("user", "context"), kind):
                weights = data.set_weights[f["name"]][n] if kind == "set" else np.ones(f["max_len"])
                found = zip(places[f["name"]][n], weights)
                row[f"u.{f['name']}"] = " ".join(f"{spelled(data.vocabulary[f['name']][p])}:{w:g}" for p, w in found if p >= 0)
        visits.append(row)
    pd.DataFrame(visits).to_csv(folder / "visits.csv.gz", index=False)
    for name in ("train", "valid"):
        split, rows = getattr(data, name), []
        for n, (visit, item) in enumerate(zip(split.visit, split.item)):
            row = {k: visits[visit][k] for k in ("visit", "ts", "period", "user", "placement")} | {"item": data.items.index[item], "slot": n % 2}
            row |= {"weight": split.weight[n], "click": int(split.labels["click"][n]), "value": float(split.labels["amount"][n])}
            row["i.kind"] = spelled(data.texts["kind"].iloc[item])
            row |= {f"i.{k}": number(v[n]) for k, v in split.item_dense.items()}
            row["m.match"] = float(split.cross[n, 0])
            rows.append(row)
        pd.DataFrame(rows).to_csv(folder / f"impressions_{name}.csv.gz", index=False)


class Scored(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        tables(root)
        cls.computed = dataset.load(dataset.read_schema(root / "schema.toml"), root)
        logged(cls.computed, root)
        (root / "scored.toml").write_text(
            'extends = "schema.toml"\nsource = "scored"\n[tables]\ntrain = "impressions_train.csv.gz"\nvalid = "impressions_valid.csv.gz"\n'
            'visits = "visits.csv.gz"\n[columns]\nvisit = "visit"\ntime = "ts"\nperiod = "period"\nuser = "user"\nitem = "item"\n'
            'weight = "weight"\nbias = ["placement", "slot"]\n'
        )
        cls.data = dataset.load(dataset.read_schema(root / "scored.toml"), root)

    def test_what_was_logged_is_what_the_model_saw(self):
        for data in (self.computed, self.data):
            inputs.fit_scales(data)
        for name in ("train", "valid"):
            one, other = getattr(self.computed, name), getattr(self.data, name)
            ours = inputs.user_inputs(self.data, other.visit) | inputs.item_inputs(self.data, other.item, other.item_dense)
            wanted = inputs.user_inputs(self.computed, one.visit) | inputs.item_inputs(self.computed, one.item, one.item_dense)
            self.assertEqual(sorted(ours), sorted(wanted))
            for column, values in wanted.items():
                np.testing.assert_array_equal(ours[column], values, err_msg=column)
            np.testing.assert_array_equal(inputs.cross_inputs(self.data, other.cross), inputs.cross_inputs(self.computed, one.cross))
            np.testing.assert_array_equal(one.weight, other.weight)
            for head in one.labels:
                np.testing.assert_array_equal(one.labels[head], other.labels[head])
                np.testing.assert_array_equal(one.given[head], other.given[head])

    def test_a_bundle_comes_of_it(self):
        settings = SimpleNamespace(ranker_epochs=1, seed=1, ranker_rate=1e-3, decay=0.01)
        data, family = self.data, families.family(families.DEFAULT, self.data.schema)
        inputs.fit_scales(data)
        towers = fit.fit_towers(data, data.train, "click", 1, 1, 1e-3, lambda _: None)
        rank = family.train(data, data.train, settings, lambda _: None)
        calibration = {"click": {"kind": "platt", "scale": 1.0, "offset": 0.0}, "amount": {"kind": "scale", "factor": 1.0}}
        raw = family.predict(data, data.valid, rank)
        out = Path(self.folder.name) / "bundle"
        written = bundle.write(out, data, towers, family, rank, raw, (calibration, {"scale": 1.0, "offset": 0.0}, 0.5), 1)
        self.assertLess(max(written["parity"].values()), 1e-4)

    def test_golden_rows_are_made_of_visits_whose_sets_are_whole(self):
        self.assertTrue(self.data.spellable.all())
        schema = dataset.read_schema(Path(self.folder.name) / "scored.toml")
        for f in schema["feature"]:
            f.update({"max_len": 1} if f["kind"] == "set" else {})
        short = dataset.load(schema, Path(self.folder.name))
        self.assertEqual(short.spellable.tolist(), [True, False, True, False, True])
        self.assertEqual((short.set_rows["bought"] > 0).sum(axis=1).tolist(), [0, 1, 0, 1, 1])

    def test_a_stand_in_falls_into_the_row_of_its_hash(self):
        for buckets in (16, 4096):
            texts, values = scored.StandIns(buckets), [hashing.value_hash(str(n)) for n in range(200)]
            found = [texts.of(v) for v in values]
            self.assertEqual([hashing.row(text, buckets) for text in found], [scored.row(v, buckets) for v in values])
            self.assertEqual(len(set(found)), len(values))
            self.assertEqual(found, [texts.of(v) for v in values])
            self.assertEqual(texts.of(0), "")

    def test_the_heaviest_of_a_set_as_the_servers_choose_them(self):
        self.assertEqual(scored.heaviest([(7, 1.0), (25, 2.0), (3, 1.0), (0, 9.0), (7, 8.0)], 3), [(25, 2.0), (3, 1.0), (7, 1.0)])


class Calibration(unittest.TestCase):
    def test_dropped_negatives_are_made_up_for(self):
        rng = np.random.default_rng(1)
        y = (rng.random(200_000) < 0.05).astype(float)
        kept = (y > 0) | (rng.random(len(y)) < 0.1)
        p = np.full(1, y[kept].mean())
        restored = metrics.sigmoid(calibrate.restored(np.log(p / (1 - p)), 0.1))
        self.assertAlmostEqual(float(restored[0]), p[0] / (p[0] + (1 - p[0]) / 0.1), places=9)
        self.assertAlmostEqual(float(restored[0]), float(y.mean()), delta=0.002)

    def test_the_map_that_fits_is_chosen(self):
        rng = np.random.default_rng(1)
        logit = rng.normal(size=40_000)
        half, w = rng.random(40_000) < 0.5, np.ones(40_000)
        straight = (rng.random(40_000) < metrics.sigmoid(0.7 * logit - 2)).astype(float)
        stairs = (rng.random(40_000) < np.where(logit > 0.5, 0.6, 0.05)).astype(float)
        self.assertEqual(calibrate.choose(logit, straight, w, half, 1.0)[0]["kind"], "platt")
        rule = calibrate.choose(logit, stairs, w, half, 1.0)[0]
        self.assertEqual(rule["kind"], "isotonic")
        self.assertLessEqual(len(rule["x"]), calibrate.POINTS_MAX)
        self.assertTrue((np.diff(np.float32(rule["x"])) > 0).all() and (np.diff(rule["y"]) >= 0).all())
        # No prediction hangs on the last bits of a score: its error reaches none of them more than twenty times over.
        at = np.linspace(-6, 4, 100_001)
        p = calibrate.apply(rule, at)
        self.assertLess((np.diff(p) / np.diff(at) / p[:-1].clip(1e-3)).max(), 20.0)

    def test_a_certain_score_gives_a_map_that_rises_all_the_same(self):
        logit = np.r_[np.full(50, 40.0), np.full(50, -120.0), np.linspace(-3, 3, 400)]
        y = (logit > np.where(np.arange(500) % 3 == 0, 1.0, -1.0)).astype(float)
        rule = calibrate.fit_isotonic(logit, y, np.ones(500))
        self.assertTrue((np.diff(np.float32(rule["x"])) > 0).all() and (np.diff(rule["y"]) >= 0).all())
        self.assertEqual([rule["x"][0], rule["x"][-1]], [0.0, 1.0])

    def test_deciles_hold_a_tenth_of_the_weight_each(self):
        rows = calibrate.deciles(np.linspace(0, 1, 1_000), np.ones(1_000), np.ones(1_000))
        self.assertEqual([r["positives"] for r in rows], [100] * 10)


class Parity(unittest.TestCase):
    def test_a_score_that_is_not_a_number_is_not_equal(self):
        heads = [{"name": "click", "calibration": {"kind": "platt", "scale": 1.0, "offset": 0.0}}]
        wanted = {"click": np.array([0.5, -2.0])}

        def verdict(raw, trees=False):
            found = [{"raw": {"click": r}, "predictions": {"click": None if r is None else float(metrics.sigmoid(np.float64(r)))}} for r in raw]
            return parity.is_equal({"on": parity.differences(wanted, found, heads)}, trees)

        self.assertTrue(verdict([0.5, -2.0]) and verdict([0.5, -2.0], trees=True))
        self.assertFalse(verdict([0.5, -2.1]))
        self.assertFalse(verdict([0.5, None]))
        self.assertFalse(verdict([0.5, -2.000001], trees=True))


class Cache(unittest.TestCase):
    def test_what_was_made_of_something_else_is_made_again(self):
        with tempfile.TemporaryDirectory() as place:
            folder, table = Path(place) / "cache", Path(place) / "table.csv"
            table.write_text("a")
            one = cache.key({"buckets": 8}, [table], 0.3)
            self.assertEqual(one, cache.key({"buckets": 8}, [table], 0.3))
            self.assertNotIn(one, (cache.key({"buckets": 9}, [table], 0.3), cache.key({"buckets": 8}, [table], 0.4)))
            table.write_text("ab")
            self.assertNotEqual(one, cache.key({"buckets": 8}, [table], 0.3))
            made = [cache.kept(folder, "x", made_of, lambda n=n: n) for n, made_of in enumerate([one, one, "other"])]
            self.assertEqual(made, [0, 0, 2])


class Schemas(unittest.TestCase):
    def test_a_schema_grows_out_of_another(self):
        folder = Path(__file__).parent / "schemas"
        base, longer = dataset.read_schema(folder / "cj-ads.toml"), dataset.read_schema(folder / "cj-ads-sequence.toml")
        self.assertEqual(len(longer["feature"]), len(base["feature"]) + 3)
        small = dataset.read_schema(folder / "cj-ads-small.toml")
        self.assertLessEqual(max(f.get("buckets", 0) for f in small["feature"]), 64)
        self.assertEqual([c["name"] for c in small["cross"]], ["match_type"])


if __name__ == "__main__":
    unittest.main()
