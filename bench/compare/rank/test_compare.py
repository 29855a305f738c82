"""The comparison on models small enough to check by hand: forms agree, bundles open, the tool ends as it says.

`python -m unittest discover bench/compare/rank`; what needs the binary is left out when it is not built.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import bundles  # noqa: E402
import compare  # noqa: E402
import graph  # noqa: E402
import models  # noqa: E402
import numpy  # noqa: E402

SIZES = models.SMALL
BINARY = HERE.parents[2] / "target/release/gavel"


def scores(name, form, user, items):
    features, crosses = bundles.schema(name, SIZES)
    out = bundles.run(bundles.session(models.ranker(name, form, SIZES)), bundles.feeds(features, crosses, user, items, form))
    return numpy.concatenate([out[head] for head in models.HEADS], axis=1)


class Forms(unittest.TestCase):
    def test_all_forms_of_a_model_give_one_result(self):
        for name in models.MODELS:
            rows = bundles.rows(bundles.schema(name, SIZES)[0], 2, 9, seed=3)
            expected = scores(name, "tiled", rows[0]["user"], [row["item"] for row in rows])
            self.assertGreater(expected.std(axis=0).min(), 1e-3, "items differ")
            for form in graph.FORMS:
                found = scores(name, form, rows[0]["user"], [row["item"] for row in rows])
                numpy.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_weights_are_the_same_each_time_and_differ_by_name(self):
        w = models.Weights(1)
        numpy.testing.assert_array_equal(w.normal("a", 3, 1.0), models.Weights(1).normal("a", 3, 1.0))
        self.assertTrue((w.normal("a", 3, 1.0) != w.normal("b", 3, 1.0)).any())

    def test_a_cross_feature_is_the_weight_of_the_item_in_the_set(self):
        crosses = [{"name": "c", "user": "s", "item": "i", "transform": "log1p", "mean": 0.0, "std": 2.0}]
        user = {"s": {"values": ["a", "b"], "weights": [1.0, 3.0]}}
        found = bundles.cross_feeds(crosses, user, [{"i": "b"}, {"i": "c"}, {}])["c"]
        numpy.testing.assert_allclose(found[:, 0], [numpy.log(4) / 2, 0, 0], rtol=1e-6)


class Figures(unittest.TestCase):
    def test_the_ratio_is_of_medians(self):
        arguments = type("Arguments", (), {"precision": "f32", "candidates": 9, "rounds": 3})
        run = {"scores_hash": "one"} | dict.fromkeys(("user_us", "candidates_us", "gflops", "p50_us", "p99_us", "flops_per_candidate", "activation_width"), 1.0)
        reports = {"on": [run | {"request_us": us} for us in (10.0, 90.0, 20.0)], "off": [run | {"request_us": 40.0}]}
        other = {"i": [(80.0, 0), (10.0, 0), (100.0, 0)], "ii": [(60.0, 0)]}
        worst = {"on": {"i": 0.0, "ii": 2e-4}, "off": {"i": 1e-5, "ii": 2e-4}}
        made = compare.entries(arguments, "mlp", reports, other, worst)
        self.assertEqual([(e["split"], e["baseline"], e["ratio"]) for e in made], [("on", "i", 4.0), ("on", "ii", 3.0), ("off", "i", 2.0)])
        self.assertEqual([e["max_rel_error"] for e in made], [0.0, 2e-4, 1e-5], "each baseline has its own")
        reports["on"][1] = reports["on"][1] | {"scores_hash": "another"}
        with self.assertRaisesRegex(SystemExit, "rounds gave different scores"):
            compare.entries(arguments, "mlp", reports, other, worst)

    def test_the_largest_difference_is_of_one_pair(self):
        expected = [{head: numpy.full((3, 1), user + 1.0) for head in models.HEADS} for user in range(2)]
        found = [dict.fromkeys(models.HEADS, user + 1.0) for user in range(2) for _ in range(3)]
        self.assertEqual(compare.largest(expected, found), 0.0)
        found[4]["hide"] = 2.5
        self.assertEqual(compare.largest(expected, found), 0.25)

    @unittest.skipUnless(BINARY.is_file(), "target/release/gavel is not built")
    def test_small_models_are_compared_from_end_to_end(self):
        with tempfile.TemporaryDirectory() as folder:
            to = pathlib.Path(folder) / "found.json"
            command = [sys.executable, HERE / "compare.py", "--small", "--models", *models.MODELS, "--candidates", "40"]
            ended = subprocess.run([*command, "--rounds", "1", "--seconds", "0.02", "--json", to], capture_output=True, text=True)
            self.assertEqual(ended.returncode, 0, ended.stderr + ended.stdout)
            found = json.loads(to.read_text())
        self.assertEqual(len(found), 4 * len(models.MODELS))
        self.assertTrue(all(entry["max_rel_error"] <= 1e-4 and entry["ratio"] > 0 for entry in found))

    @unittest.skipUnless(BINARY.is_file(), "target/release/gavel is not built")
    def test_so_are_models_of_fewer_bits(self):
        for precision in ("bf16", "int8"):
            with tempfile.TemporaryDirectory() as folder:
                to = pathlib.Path(folder) / "found.json"
                command = [sys.executable, HERE / "compare.py", "--small", "--precision", precision, "--models", *models.MODELS]
                command += ["--candidates", "40", "--rounds", "2", "--seconds", "0.02", "--json", to]
                ended = subprocess.run(command, capture_output=True, text=True)
                self.assertEqual(ended.returncode, 0, ended.stderr + ended.stdout)
                found = json.loads(to.read_text())
            self.assertTrue(all(entry["precision"] == precision for entry in found))
            # int8 cuts what lies outside the ranges of the golden rows: what that costs is reported, and has no bound.
            bound = {"bf16": 0.05, "int8": float("inf")}[precision]
            for entry in found:
                self.assertLessEqual(entry["max_rel_error"], bound if entry["split"] == "on" else 1e-4, entry)


if __name__ == "__main__":
    unittest.main()
