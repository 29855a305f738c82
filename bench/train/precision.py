"""What do layers of fewer bits cost in AUC, as the servers themselves compute them?

    python bench/train/precision.py --bundle DIR [--bundle DIR ...] --schema FILE --data ../shared/data --json FOLDER

Scores impressions of the validation weeks by `gavel bench rank`, with each bundle as it is and with
`[ranker_options] precision` set to bf16 and int8, at the largest tolerance that a bundle may have, and judges the
probability heads by their labels and weights. A bundle that servers refuse at that precision is said to be refused,
with their reason. Trees are exact and have no precision.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zstandard
from blake3 import blake3
from sklearn.metrics import roc_auc_score

from gavel_train import bundle, dataset
from parity import ours

KINDS = ("f32", "bf16", "int8")
TOLERANCE = 0.05  # RankerOptions::TOLERANCE_MAX of the servers


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="trained with --schema; may be given again")
    parser.add_argument("--schema", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="the trainer's cache, for its tables")
    parser.add_argument("--gavel", type=Path, default=Path("target/release/gavel"))
    parser.add_argument("--rows", type=int, default=0, help="impressions of whole visits, at least; 0 = all of the validation weeks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="folder to write NAME.json to")
    return parser.parse_args()


def kept_as(source: Path, folder: Path, kind: str) -> Path:
    """A copy of a bundle that keeps its layers as `kind`."""
    out = folder / kind
    shutil.copytree(source, out)
    text = re.sub(r"\n\[ranker_options\]\n[^\[]*", "\n", (out / "bundle.toml").read_text())
    if kind != "f32":
        text += f'\n[ranker_options]\nprecision = "{kind}"\ntolerance = {TOLERANCE}\n'
    (out / "bundle.toml").write_text(text)
    files = sorted(p for p in out.iterdir() if p.name != "BLAKE3SUMS")
    (out / "BLAKE3SUMS").write_text("".join(f"{blake3(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files))
    return out


def refusal(gavel: Path, folder: Path) -> str | None:
    """Why servers refuse a bundle."""
    found = subprocess.run([str(gavel), "model", "check", str(folder), "--format", "json"], capture_output=True, text=True)
    return "; ".join(json.loads(found.stdout)["errors"]) or None


def auc(data: dataset.Dataset, rows: np.ndarray, scores: list[dict]) -> dict[str, float]:
    """Weighted AUC by probability head, on the rows where its label is defined."""
    out, split = {}, data.valid
    for head in data.schema["head"]:
        if head["kind"] == "probability":
            given = split.given[head["name"]][rows].astype(bool)
            p = np.array([s["predictions"][head["name"]] for s in scores])[given]
            out[head["name"]] = float(roc_auc_score(split.labels[head["name"]][rows][given], p, sample_weight=split.weight[rows][given]))
    return out


def main() -> None:
    """Write the rows once, score them by each bundle and precision."""
    args = arguments()
    data = dataset.opened(args.cache, args.schema, args.data)
    order = np.random.default_rng(args.seed).permutation(np.unique(data.valid.visit))
    counts = np.bincount(data.valid.visit)[order]
    visits = order[: np.searchsorted(np.cumsum(counts), args.rows) + 1] if args.rows else order
    rows = np.flatnonzero(np.isin(data.valid.visit, visits))
    with tempfile.TemporaryDirectory() as place:
        file, texts = Path(place) / "rows.jsonl.zst", {}
        with zstandard.ZstdCompressor().stream_writer(file.open("wb")) as out:
            for row in rows:
                visit = data.valid.visit[row]
                text = texts.get(visit) or texts.setdefault(visit, json.dumps(bundle.raw_user(data, visit)))
                out.write(f'{{"user":{text},"item":{json.dumps(bundle.raw_item(data, data.valid, row))}}}\n'.encode())
        for source in args.bundle:
            found = {"bundle": source.name, "rows": len(rows), "tolerance": TOLERANCE, "auc": {}, "refused": {}}
            with tempfile.TemporaryDirectory() as folder:
                for kind in KINDS:
                    copy = kept_as(source, Path(folder), kind)
                    if reason := refusal(args.gavel, copy):
                        found["refused"][kind] = reason
                    else:
                        found["auc"][kind] = auc(data, rows, ours(args.gavel, copy, file, "on", Path(place) / "scores"))
            print(json.dumps(found), flush=True)
            if args.json:
                args.json.mkdir(parents=True, exist_ok=True)
                (args.json / f"{source.name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
