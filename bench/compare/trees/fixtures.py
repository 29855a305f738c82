"""Writes the small models and scores that the tests of gavel-model hold the reader against.

`python bench/compare/trees/fixtures.py proto/model/testdata`: for each model NAME.txt, as LightGBM saves it, and
NAME.rows, one line a row: the bits of the raw score (f64) and of each value (f32), in hexadecimal.
"""

import pathlib
import sys

import lightgbm
import numpy
import pandas

NAMES = ["price", "age", "visits", "kind", "stock", "rank"]
ODD = [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 1e-35, 1e-40, 1e30, -1, -0.5, 3.7, 2.0**31, 45.0, 1e9]


def table(generator, count):
    rows = generator.normal(size=(count, len(NAMES))).astype(numpy.float32)
    rows[generator.random(count) < 0.2, 1] = numpy.nan
    rows[generator.random(count) < 0.5, 2] = 0
    rows[:, 3] = generator.integers(0, 40, count)
    return rows


def label(generator, rows):
    signal = rows[:, 0] + numpy.nan_to_num(rows[:, 1], nan=-1) * rows[:, 2] + numpy.sin(rows[:, 3] * 2) * 2
    return (signal + generator.normal(size=len(rows)) > 0).astype(float)


def save(folder, name, booster, rows):
    booster.save_model(folder / f"{name}.txt")
    scores = booster.predict(rows, raw_score=True)
    with open(folder / f"{name}.rows", "w") as out:
        for score, row in zip(scores, rows):
            bits = " ".join(f"{b:08x}" for b in row.astype(numpy.float32).view(numpy.uint32))
            out.write(f"{numpy.float64(score).view(numpy.uint64):016x} {bits}\n")


def main(folder):
    generator = numpy.random.default_rng(3)
    rows = table(generator, 3000)
    target = label(generator, rows)
    some = table(generator, 150)
    hit = generator.random(some.shape) < 0.15
    some[hit] = generator.choice(numpy.array(ODD, dtype=numpy.float32), hit.sum())
    usual = dict(objective="binary", num_leaves=12, verbose=-1, num_threads=1, seed=1, deterministic=True, max_cat_to_onehot=1)
    variants = {
        "plain": ({}, 12),
        "zeros": (dict(zero_as_missing=True, objective="regression"), 8),
        "forest": (dict(boosting="rf", bagging_freq=1, bagging_fraction=0.5), 6),
        "deep": (dict(num_leaves=400, min_data_in_leaf=2), 2),
    }
    for name, (changes, rounds) in variants.items():
        data = lightgbm.Dataset(rows, target, feature_name=NAMES, categorical_feature=[3])
        save(folder, name, lightgbm.train({**usual, **changes}, data, rounds), some)
    # Only whether the age is known tells anything: a split at infinity.
    known = ~numpy.isnan(rows[:, 1]) + generator.normal(size=len(rows)) / 4
    changes = dict(objective="regression", num_leaves=3)
    save(folder, "missing", lightgbm.train({**usual, **changes}, lightgbm.Dataset(rows, known, feature_name=NAMES), 3), some)
    data = lightgbm.Dataset(rows, target, feature_name=NAMES)
    lightgbm.train({**usual, "linear_tree": True, "objective": "regression"}, data, 1).save_model(folder / "linear.txt")

    frame = pandas.DataFrame(rows, columns=NAMES)
    frame["kind"] = pandas.Categorical.from_codes(rows[:, 3].astype(int), [f"kind {i}" for i in range(40)])
    booster = lightgbm.train(usual, lightgbm.Dataset(frame, target), 4)
    # Rows of a table of pandas are scored by their codes, which a Booster from the file takes as they are.
    booster.save_model(folder / "pandas.txt")
    with open(folder / "pandas.rows", "w") as out:
        for i, score in enumerate(booster.predict(frame[:40], raw_score=True)):
            values = " ".join(f"{v:08x}" for v in rows[i].view(numpy.uint32))
            out.write(f"{numpy.float64(score).view(numpy.uint64):016x} {values}\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
