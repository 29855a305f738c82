"""Do the servers rank as ONNX Runtime and LightGBM do, on rows that the model has never seen?

    python bench/train/parity.py --bundle DIR --schema FILE --data ../shared/data --gavel target/release/gavel

Takes at least `--rows` impressions of the validation weeks with their raw features, spoils some (features left out,
values that nobody knows, a user or an item without any feature), has them scored by ONNX Runtime on the exported
ranker (LightGBM on the text files for trees) and by `gavel bench rank`, with the graph split and whole, and prints
the largest relative difference of each head, of the raw output |a - b| / max(|b|, 0.1) and of the calibrated
prediction |a - b| / max(|b|, 0.001), as golden rows are compared; and how many raw scores have other bits than the
reference (of LightGBM, rounded to f32). Ends with 1 unless all of them are within the bound and a tree's bits equal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import zstandard

from gavel_train import bundle, calibrate, dataset, families

BOUND, FLOOR, FLOOR_PREDICTION, CHUNK = 1e-4, 0.1, 1e-3, 1_024
ERRORS = ("max_rel_error", "prediction_max_rel_error")
SPOILT = 0.05  # chance that a feature is left out, and that a category is a word that nobody knows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--schema", type=Path, required=True, help="the schema that it was trained with")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="the trainer's cache, for its tables")
    parser.add_argument("--gavel", type=Path, default=Path("target/release/gavel"))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args()


def spoilt(features: dict, rng: np.random.Generator) -> dict:
    """These features, some left out or of an unknown value."""
    out = {}
    for name, value in features.items():
        luck = rng.random()
        if luck >= SPOILT:
            out[name] = f"nobody knows {int(luck * 1e6)}" if luck < 2 * SPOILT and isinstance(value, str) else value
    return out


def examples(data: dataset.Dataset, count: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Users and items of whole validation visits, at least `count` rows; the rows of a visit share the user object."""
    rng, split = np.random.default_rng(seed), data.valid
    users, items = [], []
    for visit in rng.permutation(np.unique(split.visit)):
        if len(users) >= count:
            break
        user = {} if rng.random() < 0.02 else spoilt(bundle.raw_user(data, visit), rng)
        for row in np.flatnonzero(split.visit == visit):
            users.append(user)
            items.append({} if rng.random() < 0.02 else spoilt(bundle.raw_item(data, split, row), rng))
    return users, items


def ours(gavel: Path, folder: Path, rows: Path, split: str, scores: Path) -> list[dict]:
    """What the servers' executor says of the rows."""
    command = [gavel, "bench", "rank", "--bundle", folder, "--rows", rows, "--scores", scores, "--split", split, "--seconds", "0"]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in scores.read_text().splitlines()]


def differences(theirs: dict[str, np.ndarray], found: list[dict], heads: list[dict]) -> dict[str, dict]:
    """Largest relative difference and number of other bits by head."""
    out = {}
    for head in heads:
        name, wanted = head["name"], theirs[head["name"]]
        assert len(found) == len(wanted), f"{len(found)} scores for {len(wanted)} rows"
        got, priced = (np.array([row[kind][name] for row in found], np.float64) for kind in ("raw", "predictions"))
        relative = np.abs(got - wanted) / np.maximum(np.abs(wanted), FLOOR)
        due = calibrate.apply(head["calibration"] | {k: head[k] for k in ("negative_rate",) if k in head}, wanted)
        of_price = np.abs(priced - due) / np.maximum(np.abs(due), FLOOR_PREDICTION)
        out[name] = {
            "max_rel_error": float(f"{relative.max():.3g}"), "prediction_max_rel_error": float(f"{of_price.max():.3g}"),
            "other_bits": int((np.float32(got) != np.float32(wanted)).sum()),
        }
    return out


def is_equal(by_split: dict, trees: bool) -> bool:
    """Every error within the bound, which one that is not a number is not; trees to the bit."""
    found = [d for heads in by_split.values() for d in heads.values()]
    return all(d[kind] <= BOUND for d in found for kind in ERRORS) and not (trees and any(d["other_bits"] for d in found))


def main() -> int:
    """Score twice, compare, say."""
    args = arguments()
    data = dataset.opened(args.cache, args.schema, args.data)
    schema = tomllib.loads((args.bundle / "bundle.toml").read_text())  # scales and calibration are the bundle's own
    trees = not (args.bundle / "ranker.onnx").exists()
    judge = families.family("trees" if trees else families.DEFAULT, schema)
    users, items = examples(data, args.rows, args.seed)
    parts = [slice(k, k + CHUNK) for k in range(0, len(users), CHUNK)]
    scored = [judge.reference(args.bundle, schema, users[p], items[p]) for p in parts]
    theirs = {name: np.concatenate([s[name] for s in scored]).astype(np.float64) for name in scored[0]}
    with tempfile.TemporaryDirectory() as folder:
        rows, texts = Path(folder) / "rows.jsonl.zst", {}
        with zstandard.ZstdCompressor().stream_writer(rows.open("wb")) as out:
            for user, item in zip(users, items):
                text = texts.setdefault(id(user), json.dumps(user))
                out.write(f'{{"user":{text},"item":{json.dumps(item)}}}\n'.encode())
        by_split = {s: differences(theirs, ours(args.gavel, args.bundle, rows, s, Path(folder) / "scores"), schema["head"]) for s in ("on", "off")}
    result = {
        "bundle": args.bundle.name, "rows": len(users), "reference": "lightgbm" if trees else "onnxruntime",
        "split": by_split, "max_rel_error": float(np.max([d[kind] for heads in by_split.values() for d in heads.values() for kind in ERRORS])),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if is_equal(by_split, trees) else 1


if __name__ == "__main__":
    sys.exit(main())
