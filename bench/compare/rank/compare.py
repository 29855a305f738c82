"""How much faster than ONNX Runtime does gavel rank, with the same scores?

One model, one set of rows, one run: `gavel bench rank` and ONNX Runtime (one thread, one request after the other) take
turns, and the median of the rounds' medians of CPU time counts. Both are given encoded features; gavel's user part and
calibration are counted on its side, ONNX Runtime's inputs are bound once. The baselines:

    i    the graph as a trainer exports it: every input has the candidates' rows, the user's are repeated;
    ii   the user's inputs have one row, expanded just before they are joined with the candidates'; products whole;
    iii  split by hand: products of user and candidate values are two products, the user's of one row (no target).

With `--split off` gavel runs the unsplit graph, too, against (i). Exits with 1 when scores differ by more than 1e-4.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

ROOT = pathlib.Path(__file__).resolve().parents[3]
FORMS = {"i": "tiled", "ii": "expanded", "iii": "split"}
MODELS = ("reference", "sequence", "mlp", "dcn")
TOLERANCE = 1e-4
# A raw output near 0 is the difference of larger numbers: the golden rows of a bundle are compared in the same way.
RAW_SCALE = 0.1
USERS = 8


def need():
    """Says what is missing, and how to get it."""
    wanted = [line.strip() for line in (pathlib.Path(__file__).parent / "requirements.txt").read_text().splitlines()]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; pip install -r bench/compare/rank/requirements.txt")


def gavel(binary, *arguments):
    """`gavel bench rank`, which must end well."""
    ended = subprocess.run([binary, "bench", "rank", *map(str, arguments)], capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"gavel bench rank {' '.join(map(str, arguments))}\n{ended.stderr}")


class Runtime:
    """ONNX Runtime with requests whose inputs are bound once: each user with all items."""

    def __init__(self, model, requests):
        import bundles

        self.session = bundles.session(model)
        self.bindings = [self.bind(inputs) for inputs in requests]

    def bind(self, inputs):
        binding = self.session.io_binding()
        for wanted in self.session.get_inputs():
            binding.bind_cpu_input(wanted.name, inputs[wanted.name])
        for output in self.session.get_outputs():
            binding.bind_output(output.name)
        return binding

    def microseconds(self, seconds):
        """Medians of CPU time and time on the wall of a request."""
        cpu, wall, turn, end = [], [], 0, time.monotonic() + seconds
        while time.monotonic() < end or len(cpu) < 3:
            binding = self.bindings[turn % len(self.bindings)]
            started, before = time.perf_counter_ns(), time.thread_time_ns()
            self.session.run_with_iobinding(binding)
            cpu.append(time.thread_time_ns() - before)
            wall.append(time.perf_counter_ns() - started)
            turn += 1
        return statistics.median(cpu) / 1e3, statistics.median(wall) / 1e3

    def scores(self, turn):
        """One column a head, for one user and all items."""
        self.session.run_with_iobinding(self.bindings[turn])
        names = [o.name for o in self.session.get_outputs()]
        return dict(zip(names, self.bindings[turn].copy_outputs_to_cpu()))


def difference(expected, found):
    return abs(expected - found) / max(abs(expected), RAW_SCALE)


def parity(arguments, folder, rows, runtimes, split):
    """Largest relative difference of a raw output, over every user with every item, for each baseline."""
    pairs = [{"user": rows[u]["user"], "item": row["item"]} for u in range(min(USERS, len(rows))) for row in rows]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    scores = folder / "scores.jsonl"
    gavel(arguments.binary, "--bundle", folder / "bundle", "--rows", folder / "pairs.jsonl", "--scores", scores, "--split", split, "--seconds", 0)
    found = [json.loads(line)["raw"] for line in scores.read_text().splitlines()]
    assert len(found) == len(pairs)
    users = len(pairs) // len(rows)
    return {baseline: largest([runtime.scores(turn) for turn in range(users)], found) for baseline, runtime in runtimes.items()}


def largest(expected, found):
    """The largest difference: `expected` has a column a head for each user, `found` a row a pair, user by user."""
    import models

    count, worst = len(found) // len(expected), 0.0
    for turn, columns in enumerate(expected):
        for n in range(count):
            for head in models.HEADS:
                worst = max(worst, difference(float(columns[head][n, 0]), found[turn * count + n][head]))
    return worst


def one_hash(split, runs):
    """The hash of the scores, which every round has given."""
    hashes = sorted({run["scores_hash"] for run in runs})
    if len(hashes) != 1:
        sys.exit(f"split {split}: rounds gave different scores: {', '.join(hashes)}")
    return hashes[0]


def measure(arguments, folder, name, sizes):
    """All baselines of one model; one entry for each comparison."""
    import bundles
    import models

    features, crosses = bundles.write(folder / "bundle", name, sizes, arguments.precision)
    rows = bundles.rows(features, USERS, arguments.candidates, seed=11)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    users, items = [row["user"] for row in rows[:USERS]], [row["item"] for row in rows]
    runtimes = {}
    for baseline in arguments.baselines:
        form = FORMS[baseline]
        requests = [bundles.feeds(features, crosses, user, items, form) for user in users]
        runtimes[baseline] = Runtime(models.ranker(name, form, sizes, arguments.precision), requests)
    worst = {split: parity(arguments, folder, rows, runtimes, split) for split in arguments.splits}
    reports = {split: [] for split in arguments.splits}
    other = {baseline: [] for baseline in runtimes}
    for _ in range(arguments.rounds):
        for split in arguments.splits:
            to = folder / "report.json"
            gavel(arguments.binary, "--bundle", folder / "bundle", "--rows", folder / "rows.jsonl", "--candidates", arguments.candidates,
                  "--seconds", arguments.seconds, "--split", split, "--json", to)  # fmt: skip
            reports[split].append(json.loads(to.read_text()))
        for baseline, runtime in runtimes.items():
            other[baseline].append(runtime.microseconds(arguments.seconds))
    return entries(arguments, name, reports, other, worst)


def entries(arguments, name, reports, other, worst):
    made = []
    for split, runs in reports.items():
        scores_hash = one_hash(split, runs)
        middle = lambda key: statistics.median(run[key] for run in runs)  # noqa: E731
        for baseline, times in other.items():
            if split == "off" and baseline != "i":
                continue
            ort = statistics.median(cpu for cpu, _ in times)
            made.append({
                "model": name, "precision": arguments.precision, "split": split, "baseline": baseline, "candidates": arguments.candidates,
                "gavel_us": round(middle("request_us"), 1), "ort_us": round(ort, 1), "ratio": round(ort / middle("request_us"), 2),
                "max_rel_error": worst[split][baseline], "gavel_user_us": round(middle("user_us"), 1), "gavel_candidates_us": round(middle("candidates_us"), 1),
                "gavel_gflops": round(middle("gflops"), 1), "gavel_p50_us": round(middle("p50_us"), 1), "gavel_p99_us": round(middle("p99_us"), 1),
                "flops_per_candidate": runs[0]["flops_per_candidate"], "activation_width": runs[0]["activation_width"],
                "scores_hash": scores_hash, "rounds": arguments.rounds,
            })  # fmt: skip
    return made


def line(entry):
    return (
        f"{entry['model']:<10} {entry['precision']:<5} split {entry['split']:<3} ({entry['baseline']:<3}) gavel {entry['gavel_us']:>9.1f} us"
        f"  ort {entry['ort_us']:>9.1f} us  ratio {entry['ratio']:>6.2f}  worst {entry['max_rel_error']:.1e}"
    )


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["reference"])
    parser.add_argument("--baselines", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--splits", nargs="+", choices=["on", "off"], default=["on", "off"])
    parser.add_argument("--precision", choices=["f32", "bf16", "int8"], default="f32")
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--binary", default=str(ROOT / "target/release/gavel"))
    parser.add_argument("--folder", type=pathlib.Path, help="keep bundles and rows here")
    parser.add_argument("--small", action="store_true", help="small models: a check of this tool, no measurement")
    parser.add_argument("--json", type=pathlib.Path, help="write a list with an entry for each comparison")
    return parser.parse_args()


def main():
    need()
    import models

    arguments = parsed()
    if not pathlib.Path(arguments.binary).is_file():
        sys.exit(f"{arguments.binary} is not there: cargo build --release --locked, or name it with --binary")
    sizes = models.SMALL if arguments.small else models.Sizes()
    made = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models:
            folder = (arguments.folder or pathlib.Path(temporary)) / f"{name}-{arguments.precision}"
            for entry in measure(arguments, folder, name, sizes):
                print(line(entry), flush=True)
                made.append(entry)
    if arguments.json:
        arguments.json.write_text(json.dumps(made, indent=1) + "\n")
    # Lower precision has no bound here: what it may lose is a bundle's own tolerance.
    wrong = arguments.precision == "f32" and any(not entry["max_rel_error"] <= TOLERANCE for entry in made)
    sys.exit("scores differ by more than 1e-4" if wrong else 0)


if __name__ == "__main__":
    main()
