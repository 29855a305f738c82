"""Trains a two-tower model and a multi-task ranker on an impressions table and writes a Gavel bundle.

    python bench/train/train.py --schema bench/train/schemas/cj-ads.toml --data ../shared/data --out BUNDLE_DIR
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from pathlib import Path
from typing import Callable

import numpy as np

from gavel_train import bundle, dataset, export, fit, hashing, inputs, metrics, models, report, retrieval


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schema", type=Path, required=True, help="which column plays which role")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that the schema's tables are relative to")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write; emptied first")
    parser.add_argument("--report", type=Path, help="Markdown page to write, with a .json beside it")
    parser.add_argument("--cache", type=Path, help="folder for the loaded tables, the trained parameters and the figures of the heads: what is there is not made again")
    parser.add_argument("--only", choices=["towers", "ranker"], help="train this part into the cache and stop; two runs use two cores")
    parser.add_argument("--tower-epochs", type=int, default=3)
    parser.add_argument("--ranker-epochs", type=int, default=2)
    parser.add_argument("--tower-rate", type=float, default=1e-3)
    parser.add_argument("--ranker-rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.02, help="weight decay of the ranker's layers")
    parser.add_argument("--seed", type=int, default=20_170_101)
    parser.add_argument("--retrieval-label", default="conversion", help="head whose positives the towers learn to bring")
    return parser.parse_args()


def kept(cache: Path | None, name: str, make: Callable):
    """What the cache holds under this name, or else what `make` gives, put there."""
    file = cache / f"{name}.pickle" if cache else None
    if file and file.exists():
        return pickle.loads(file.read_bytes())
    value = make()
    if file:
        cache.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(value, protocol=5))
    return value


def command() -> str:
    """How this run was called; the cache changes nothing of what comes out."""
    words = sys.argv.copy()
    if "--cache" in words:
        at = words.index("--cache")
        del words[at : at + 2]
    return "python " + " ".join(words)


def light_of(data: dataset.Dataset, towers: dict, head: str) -> dict:
    """The click rate that the towers alone predict: a logistic fit on the inner product."""
    names, valid = models.layout(data.schema), data.valid
    dots = np.zeros(len(valid.visit), np.float32)
    for batch in inputs.Batches(data, valid, fit.VISITS, fit.ROWS):
        query, vector = models.user_tower(towers, names, batch["user"]), models.item_tower(towers, names, batch["item"])
        dot = np.asarray((query[batch["owner"]] * vector).sum(axis=1))
        dots[batch["rows"]] = dot[: len(batch["rows"])]
    rule = metrics.fit_platt(dots, valid.labels[head].astype(np.float64), valid.weight.astype(np.float64))
    return {"scale": rule["scale"], "offset": rule["offset"]}


def main() -> None:
    """Load, train, judge, write."""
    args = arguments()
    hashing.check()
    begin = time.time()

    def say(what: str) -> None:
        print(f"[{time.time() - begin:6.0f} s] {what}", flush=True)

    schema = dataset.read_schema(args.schema)
    data = kept(args.cache, "tables", lambda: dataset.load(schema, args.data))
    data.schema = schema
    inputs.fit_scales(data)
    say(f"{len(data.train.visit):,} training and {len(data.valid.visit):,} validation impressions")
    if args.only != "ranker":
        towers = kept(args.cache, "towers", lambda: fit.fit_towers(data, data.train, args.retrieval_label, args.tower_epochs, args.seed, args.tower_rate, say))
    if args.only != "towers":
        rank = kept(args.cache, "ranker", lambda: fit.fit_ranker(data, data.train, args.ranker_epochs, args.seed, args.ranker_rate, args.decay, say))
    if args.only:
        return
    found = retrieval.report(data, args.data, export.stored_towers(towers), args.retrieval_label)
    say(json.dumps(found["methods"]))
    figures, calibration = kept(args.cache, "heads", lambda: report.heads(data, fit.predict(data, data.valid, export.stored_ranker(rank))))
    say(json.dumps({n: [f.get("crossfitted", f), f.get("logistic_regression")] for n, f in figures.items()}))
    roles = {h.get("role"): h["name"] for h in schema["head"]}
    train = data.train
    given = train.given[roles["conversion_given_click"]]
    prior = float(np.average(train.labels[roles["conversion_given_click"]][given], weights=train.weight[given]))
    light = light_of(data, export.stored_towers(towers), roles["click"])
    written = bundle.write(args.out, data, towers, rank, calibration, light, round(prior, 6), args.seed)
    say(json.dumps(written))
    result = {
        "name": schema["name"], "command": command(), "train_rows": len(train.visit), "valid_rows": len(data.valid.visit),
        "seconds": round(time.time() - begin), "heads": figures, "calibration": calibration, "light": light, "retrieval": found, "bundle": written,
    }
    if args.report:
        args.report.write_text(report.page(result))
        args.report.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
