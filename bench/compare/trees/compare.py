"""Are the raw scores of trees equal to LightGBM's in every bit, and how fast are they?

One model (300 trees of 64 leaves over 100 features, or a file), one set of rows, one run: LightGBM, lleaves in its two
ways to compile if it is installed, and `gavel` (the example `trees` of the crate gavel-model, as a process that scores in memory) take turns,
one thread each, and the median of the turns' CPU time counts. A turn is some scorings in a row; the first turn of each
warms up and does not count. Exits with 1 when a bit differs.

`cargo build --release -p gavel-model --example trees` makes the example.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import lightgbm  # noqa: E402
import numpy  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Scorings of a turn of gavel: some 50 ms.
REPEATS = 40


def rows(generator, count, features, categories):
    """f32 rows with missing values, zeros and categories; a tenth of the columns each."""
    table = generator.normal(size=(count, features)).astype(numpy.float32)
    for column in range(0, features, 10):
        table[generator.random(count) < 0.2, column] = numpy.nan
    for column in range(1, features, 10):
        table[generator.random(count) < 0.5, column] = 0
    for column in categories:
        table[:, column] = generator.integers(0, 200, count)
    return table


def train(generator, arguments, categories):
    table = rows(generator, 50_000, arguments.features, categories)
    signal = numpy.nan_to_num(table) @ generator.normal(size=arguments.features)
    signal += 3 * numpy.nan_to_num(table[:, 0]) * numpy.nan_to_num(table[:, 1]) + 5 * numpy.sin(table[:, -1])
    label = (signal + generator.normal(size=len(signal)) * 5 > 0).astype(float)
    parameters = {
        "objective": "binary",
        "num_leaves": arguments.leaves,
        "learning_rate": 0.05,
        "num_threads": 1,
        "verbose": -1,
        "seed": 1,
        "deterministic": True,
        "zero_as_missing": arguments.zero_as_missing,
    }
    names = [f"f{i}" for i in range(arguments.features)]
    data = lightgbm.Dataset(table, label, feature_name=names, categorical_feature=categories or "auto")
    return lightgbm.train(parameters, data, arguments.trees)


class Gavel:
    """The example as a process that answers line by line."""

    def __init__(self, binary, model, table):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        table.astype("<f4").tofile(self.path / "rows.f32")
        command = [binary, str(model), str(self.path / "rows.f32")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def ask(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def scores(self):
        self.ask(f"scores {self.path / 'scores.f64'}")
        return numpy.fromfile(self.path / "scores.f64", "<f8")

    def scoring(self, repeats):
        """CPU nanoseconds of one scoring, of this process alone."""
        # The clock of another process's CPU time, as clock_getcpuclockid(3) makes it.
        clock = (~self.process.pid << 3) | 2
        before = time.clock_gettime_ns(clock)
        self.ask(f"time {repeats}")
        return (time.clock_gettime_ns(clock) - before) / repeats

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def scoring(function, repeats):
    """CPU nanoseconds of one call, all threads of this process."""
    before = time.process_time_ns()
    for _ in range(repeats):
        function()
    return (time.process_time_ns() - before) / repeats


def compiled(model, cache):
    """lleaves by name: every tree inlined into one function, its default, and a function for each tree.

    Inlining makes LLVM work for a quarter of an hour or more on 300 trees. With a folder to keep the objects in it is
    done once; without one it is left out.
    """
    try:
        import lleaves
    except ImportError:
        return {}
    made = {}
    for name, is_inlined in (("lleaves", True), ("lleaves_calls", False)):
        kept = cache / f"{name}.o" if cache else None
        if kept or not is_inlined:
            made[name] = lleaves.Model(model_file=str(model))
            made[name].compile(cache=str(kept) if kept else None, raw_score=True, finline=is_inlined)
    return made


def hostile(generator, table):
    """The same rows with values that no training saw: infinities, tiny numbers, unknown and broken categories."""
    table = table.copy()
    odd = numpy.array(
        [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 1e-35, -1e-35, 1e-40, 1e30, -1e30, -1, -0.5, 3.7, 2**31, 1e9],
        dtype=numpy.float32,
    )
    hit = generator.random(table.shape) < 0.1
    table[hit] = generator.choice(odd, hit.sum())
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, help="a model file; by default one is trained")
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--leaves", type=int, default=64)
    parser.add_argument("--features", type=int, default=100)
    parser.add_argument("--categories", type=int, default=0, help="how many features are categories")
    parser.add_argument("--zero-as-missing", action="store_true")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--parity-rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--binary", default=str(ROOT / "target/release/examples/trees"))
    parser.add_argument("--lleaves-cache", type=pathlib.Path, help="a folder for what lleaves compiles of --model")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    if not pathlib.Path(arguments.binary).is_file():
        sys.exit(f"{arguments.binary} is not there: cargo build --release -p gavel-model --example trees")
    if arguments.lleaves_cache and not arguments.model:
        sys.exit("--lleaves-cache keeps what was compiled of one model: name it with --model")
    generator = numpy.random.default_rng(1)
    categories = list(range(2, arguments.features, 3))[: arguments.categories]
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model
        if model is None:
            model = pathlib.Path(folder) / "model.txt"
            train(generator, arguments, categories).save_model(model)
        report = measure(generator, arguments, categories, model)
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report))
    sys.exit(report["different_rows"] != 0)


def measure(generator, arguments, categories, model):
    booster = lightgbm.Booster(model_file=str(model))
    features = booster.num_feature()
    many = hostile(generator, rows(generator, arguments.parity_rows, features, categories))
    gavel = Gavel(arguments.binary, model, many)
    expected = booster.predict(many, raw_score=True, num_threads=1)
    found = gavel.scores()
    different = int((expected.view(numpy.uint64) != found.view(numpy.uint64)).sum())
    gavel.close()

    table = rows(generator, arguments.rows, features, categories)
    as_double = table.astype(numpy.float64)
    gavel, others = Gavel(arguments.binary, model, table), compiled(model, arguments.lleaves_cache)
    turns = {
        "gavel": lambda: gavel.scoring(REPEATS),
        "lightgbm": lambda: scoring(lambda: booster.predict(table, raw_score=True, num_threads=1), REPEATS // 10),
    }
    for name, other in others.items():
        turns[name] = lambda other=other: scoring(lambda: other.predict(as_double, n_jobs=1), REPEATS // 2)
    times = {name: [] for name in turns}
    for _ in range(arguments.rounds + 1):
        for name, turn in turns.items():
            times[name].append(turn())
    gavel.close()
    middle = {name: statistics.median(values[1:]) / 1e3 for name, values in times.items()}
    report = {
        "model": f"{booster.num_trees()} trees, {features} features",
        "rows": arguments.rows,
        "parity_rows": len(many),
        "different_rows": different,
        **{f"{name}_us": round(value, 1) for name, value in middle.items()},
        **{f"ratio_{name}": round(value / middle["gavel"], 2) for name, value in middle.items() if name != "gavel"},
    }
    return report


if __name__ == "__main__":
    main()
