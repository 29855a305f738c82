"""Trains a two-tower model and a ranker of any family on an impressions table and writes a Gavel bundle.

    python bench/train/train.py --schema bench/train/schemas/cj-ads.toml --data ../shared/data --out BUNDLE_DIR
    python bench/train/train.py --family mmoe --schema ... --out BUNDLE_DIR --figures FILE.json

`--report` writes the whole report with the retrieval figures and the logistic regression; `--figures` writes what
`families.py` makes its page of: heads, calibration, missing groups, light ranking.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gavel_train import bundle, calibrate, dataset, export, families, fit, hashing, inputs, light, metrics, missing, models, report, retrieval, sampling
from gavel_train.cache import kept, key


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schema", type=Path, required=True, help="which column plays which role")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that the schema's tables are relative to")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write; emptied first")
    parser.add_argument("--report", type=Path, help="Markdown page to write, with a .json beside it")
    parser.add_argument("--family", choices=families.NAMES, help="ranker; without it the schema's `[ranker] family`, or wide-mmoe")
    parser.add_argument("--figures", type=Path, help="JSON to write for families.py")
    parser.add_argument("--held", type=Path, help="CSV to write with the calibrated predictions for the validation's impressions: users of `gavel sim market --held`")
    parser.add_argument("--light", choices=["product", "head"], help="light ranking of the bundle: a small head distilled from the ranker (default), or the inner product (default for logged impressions, which know no candidates to distil on)")
    parser.add_argument("--light-visits", type=int, default=400, help="training visits whose candidates the light head is distilled on; it is judged on a quarter as many")
    parser.add_argument("--visit-share", type=float, default=1.0, help="share of the training visits that the ranker is trained on")
    parser.add_argument("--negative-rate", type=float, default=1.0, help="share of the rows without a click that it is trained on; calibration corrects for it")
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


def command() -> str:
    """How this run was called. What the cache holds was made with the same schema, tables and options, so it is left out."""
    words = sys.argv.copy()
    if "--cache" in words:
        at = words.index("--cache")
        del words[at : at + 2]
    return "python " + " ".join(words)


def light_of(data: dataset.Dataset, towers: dict, head: str) -> dict:
    """The click rate that the towers alone predict: a logistic fit on the inner product."""
    names, valid = models.layout(data.schema), data.valid
    dots = np.zeros(len(valid.visit), np.float32)
    towers = jax.tree.map(jnp.asarray, towers)
    run = jax.jit(lambda p, u, i, owner: (models.user_tower(p, names, u)[owner] * models.item_tower(p, names, i)).sum(axis=1))
    for batch in inputs.Batches(data, valid, fit.VISITS, fit.ROWS):
        dot = np.asarray(run(towers, batch["user"], batch["item"], batch["owner"]))
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
    logged = schema.get("source") == "scored"
    args.light = args.light or ("product" if logged else "head")
    if logged and (args.light == "head" or args.report or args.figures):
        sys.exit("logged impressions know no other candidates: without --light head, --report and --figures")
    chosen = families.family(args.family or schema.get("ranker", {}).get("family", families.DEFAULT), schema)
    data = dataset.opened(args.cache, args.schema, args.data)
    tables = dataset.tables_key(schema, args.data)
    inputs.fit_scales(data)
    say(f"{len(data.train.visit):,} training and {len(data.valid.visit):,} validation impressions")
    if args.only != "ranker":
        made_of = key(tables, args.retrieval_label, args.tower_epochs, args.seed, args.tower_rate)
        towers = kept(args.cache, "towers", made_of, lambda: fit.fit_towers(data, data.train, args.retrieval_label, args.tower_epochs, args.seed, args.tower_rate, say))
    used = sampling.sampled(data, data.train, args.visit_share, args.negative_rate, args.seed)
    if args.only != "towers":
        spent = time.process_time()
        options = [args.visit_share, args.negative_rate, args.ranker_epochs, args.seed, args.ranker_rate, args.decay]
        made_of = key(tables, schema.get("ranker", {}), options)
        rank, spent = kept(args.cache, f"ranker-{chosen.name}", made_of, lambda: (chosen.train(data, used, args, say), time.process_time() - spent))
    if args.only:
        return
    raw = chosen.predict(data, data.valid, rank)
    figures, calibration, predictions = calibrate.heads(data, raw, args.negative_rate)
    say(json.dumps({n: f.get("crossfitted", f) for n, f in figures.items()}))
    if args.held:
        report.held(data, {n: calibrate.apply(calibration[n], raw[n]) for n in raw}).to_csv(args.held, index=False)
    roles = {h.get("role"): h["name"] for h in schema["head"]}
    train = data.train
    given = train.given[roles["conversion_given_click"]]
    prior = float(np.average(train.labels[roles["conversion_given_click"]][given], weights=train.weight[given]))
    click, conversion = roles["click"], roles["conversion_given_click"]

    def teach(pairs: dataset.Split) -> list[np.ndarray]:
        found = chosen.predict(data, pairs, rank)
        p = calibrate.apply(calibration[click], found[click])
        # Far below what a bid can see, so that what is worth next to nothing still has an order.
        chances = np.clip([p, p * calibrate.apply(calibration[conversion], found[conversion])], 1e-12, 1 - 1e-7)
        return list(np.log(chances / (1 - chances)))

    survived, head = None, None
    if args.figures or args.report or args.light == "head":
        survived, rule, head = light.study(data, args.data, towers, teach, args.seed, (args.light_visits, args.light_visits // 4), prior, say)
        say(json.dumps(survived))
    else:
        rule = light_of(data, export.stored_towers(towers), click)
    head = head if args.light == "head" else None
    written = bundle.write(args.out, data, towers, chosen, rank, raw, (calibration, rule, round(prior, 6)), args.seed, head)
    say(json.dumps(written))
    result = {
        "name": schema["name"], "family": chosen.name, "options": getattr(chosen, "options", {}), "command": command(), "train_rows": len(used.visit),
        "visit_share": args.visit_share, "negative_rate": args.negative_rate, "ranker_epochs": args.ranker_epochs, "ranker_cpu_seconds": round(spent),
        "valid_rows": len(data.valid.visit), "seconds": round(time.time() - begin), "parameters": chosen.parameters(rank),
        "heads": figures, "calibration": calibration, "light": rule, "survival": survived, "bundle": written,
    }
    if args.report:
        whole = result | {"heads": report.compared(data, figures, predictions), "retrieval": retrieval.report(data, args.data, export.stored_towers(towers), args.retrieval_label)}
        say(json.dumps(whole["retrieval"]["methods"]))
        args.report.write_text(report.page(whole))
        args.report.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    if args.figures:
        result["missing"] = missing.table(data, chosen, rank, calibration, args.seed)
        say(json.dumps({g: f[click]["rig"] for g, f in result["missing"].items()}))
        args.figures.parent.mkdir(parents=True, exist_ok=True)
        args.figures.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
