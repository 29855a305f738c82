"""Makes docs/model-families.md of the figures that train.py wrote for each family, of parity.py's and precision.py's.

    python bench/train/families.py --figures FOLDER --parity FOLDER --precision FOLDER --out docs/model-families.md
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from gavel_train import light

WHAT = {
    "wide-mmoe": "the demo bundle's: two full-rank DCN-v2 layers, three experts mixed for each head",
    "mlp": "embeddings, then one network for all heads",
    "dcn": "DCN-v2 at full rank, then one network",
    "dcn-lowrank": "DCN-v2 at low rank, then one network",
    "mmoe": "experts of low-rank DCN-v2, a gate and a tower for each head",
    "sequence": "transformer over the last 100 actions, target attention by the item, then one network",
    "trees": "LightGBM, a model for each head",
}


def table(head: list[str], rows: list[list]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows] + [""]


def training(found: dict) -> list[str]:
    """What each family is, and what it took."""
    rows = []
    for name, f in found.items():
        size = ", ".join(f"{v:,} {k}" for k, v in f["parameters"].items())
        epochs = "" if name == "trees" else f["ranker_epochs"]
        rows.append([f"`{name}`", WHAT[name], f"{f['train_rows']:,}", f["visit_share"], f["negative_rate"], epochs, f["ranker_cpu_seconds"], size, f"{f['bundle']['ranker_bytes']:,}", f"{f['bundle']['bytes']:,}"])
    return table(["family", "what it is", "rows", "of visits", "of rows without a click", "epochs", "CPU s", "parameters", "ranker, bytes", "bundle, bytes"], rows)


def heads(found: dict) -> list[str]:
    """AUC, RIG and calibration by family and head."""
    out = []
    for head in next(iter(found.values()))["heads"]:
        rows = []
        for name, f in found.items():
            h = f["heads"][head]
            if "crossfitted" not in h:
                rows.append([f"`{name}`", "", "", "", f"R² of log1p {h['r2_log1p']}", f"{h['uncalibrated_ratio']:.3f}", "scale", ""])
                continue
            c, loss = h["crossfitted"], h["log_loss"]
            ratios = f"{h['uncalibrated']['calibration_ratio']:.3f} / {h['restored']['calibration_ratio']:.3f}"
            rows.append([f"`{name}`", f"{c['auc']:.4f}", f"{c['rig']:.4f}", f"{1 - c['rig']:.4f}", f"{c['calibration_ratio']:.3f}", ratios, h["calibration"], f"{loss['platt']:.6f} / {loss['isotonic']:.6f}"])
        c = next(iter(found.values()))["heads"][head]
        base = f": {c['crossfitted']['rows']:,} rows, {c['crossfitted']['positives']:,} positives, base rate {c['crossfitted']['base_rate']:.4f}" if "crossfitted" in c else ""
        out += [f"**{head}**{base}", ""]
        out += table(["family", "AUC", "RIG", "NE", "calibration", "before: raw / restored", "chosen", "log loss, Platt / isotonic"], rows)
    return out


def deciles(found: dict) -> list[str]:
    """Predicted / observed by tenth of the weight, every probability head."""
    rows = []
    for name, f in found.items():
        for head, h in f["heads"].items():
            if "deciles" in h:
                rows.append([f"`{name}`", head, *(f"{d['predicted']:.4f} / {d['observed']:.4f}" for d in h["deciles"])])
    return table(["family", "head", *(str(n) for n in range(1, 11))], rows)


def parity(found: dict, folder: Path | None) -> list[str]:
    """Differences from the reference by family."""
    rows = []
    for name in found:
        file = folder / f"{name}.json" if folder else None
        if not file or not file.exists():
            rows.append([f"`{name}`", "not run", "", "", "", "", ""])
            continue
        f = json.loads(file.read_text())
        for split, of in f["split"].items():
            worst = ", ".join(f"{h} {d['max_rel_error']:.1e}" for h, d in of.items())
            priced = max(d["prediction_max_rel_error"] for d in of.values())
            rows.append([f"`{name}`", f["reference"], f"{f['rows']:,}", split, worst, f"{priced:.1e}", sum(d["other_bits"] for d in of.values()) if name == "trees" else ""])
    return table(["family", "reference", "rows", "split", "raw outputs", "predictions", "values with other bits"], rows)


def refused(reason: str) -> str:
    """That servers refuse a bundle, and how far off its first golden row is."""
    off = re.search(r"relative difference of ([0-9.e-]+)", reason)
    return f"refused ({float(off[1]):.3f})" if off else f"refused: {reason}"


def precision(found: dict, folder: Path) -> list[str]:
    """AUC by precision of the layers, and its loss."""
    files = [(name, folder / f"{name}.json") for name in found]
    made = {name: json.loads(file.read_text()) for name, file in files if file.exists()}
    rows = []
    for name, f in made.items():
        for head, exact in f["auc"]["f32"].items():
            cells = [f"{exact - f['auc'][kind][head]:+.1e}" if kind in f["auc"] else refused(f["refused"][kind]) for kind in ("bf16", "int8")]
            rows.append([f"`{name}`", head, f"{f['rows']:,}", f"{exact:.5f}", *cells])
    text = (
        "`bench/train/precision.py`: AUC on impressions of weeks 41-44 by the servers' own execution (`gavel bench rank --scores`), and what it loses "
        "when the bundle keeps the wide layers of the part for each candidate in fewer bits. A bundle is refused when a prediction or raw output of a golden row deviates by more than the largest tolerance, "
        f"{next(iter(made.values()), {}).get('tolerance')}: in brackets the first that does. A minus is a gain."
    )
    if made and all("int8" in f["refused"] for f in made.values()):
        text += " Eight bits deviate by more on some golden row of every family here, so that their AUC has no number: int8 is an option that none of these models can take."
    return ["## Layers of fewer bits", "", text, "", *table(["family", "head", "rows", "AUC, f32", "loss, bf16", "loss, int8"], rows)] if rows else []


def survival(found: dict) -> list[str]:
    """Share of the ranker's best that pass each cut."""
    judged = {name: f["survival"] for name, f in found.items() if f.get("survival")}
    if not judged:
        return []
    rows = [[f"`{name}`", *row] for name, one in judged.items() for row in light.rows(one)]
    return ["## Light ranking", "", *light.section(next(iter(judged.values()))), *table(["ranker", *light.COLUMNS], rows)]


def missing(found: dict) -> list[str]:
    """AUC and RIG of the first two heads without each group."""
    out = []
    for head in list(next(iter(found.values()))["missing"]["none"])[:2]:
        groups = list(dict.fromkeys(g for f in found.values() for g in f["missing"]))
        rows = []
        for name, f in found.items():
            whole, cells = f["missing"]["none"][head], []
            for g in groups[1:]:
                part = f["missing"].get(g, {}).get(head)
                cells.append(f"{part['auc'] - whole['auc']:+.4f} / {part['rig'] - whole['rig']:+.4f}" if part else "")
            rows.append([f"`{name}`", f"{whole['auc']:.4f} / {whole['rig']:.4f}", *cells])
        out += [f"**{head}**", ""] + table(["family", "AUC / RIG, nothing missing", *groups[1:]], rows)
    return out


def general(command: str) -> str:
    """A command without the places that it was run at."""
    command = re.sub(r"^python \S+", "python bench/train/train.py", command)
    for word, place in (("data", "../shared/data"), ("out", "OUT"), ("figures", "FIGURES.json")):
        command = re.sub(rf"--{word} \S+", f"--{word} {place}", command)
    return command


def absent(found: dict) -> list[str]:
    """Says which families have no row."""
    names = ", ".join(f"`{name}`" for name in WHAT if name not in found)
    return [f"Not trained for these tables yet: {names}. `proto/model/tests/families.rs` opens a small trained bundle of each.", ""] if names else []


def page(found: dict, parities: Path | None, precisions: Path | None) -> str:
    """The whole page."""
    one = next(iter(found.values()))
    lines = [
        "# Model families", "",
        "Rankers that `bench/train` trains and Gavel serves, each on impressions of cj-ads: a share of weeks 1-40 for training (the table says how many rows), judged on all of weeks 41-44 "
        f"({one['valid_rows']:,} impressions). Every figure is weighted by the inverse sampling rate. *click* is category engagement, a proxy, never to be read as a click-through rate. "
        "These are examples that train in minutes on a share of the rows, not the best that each family can do; compare with care, and see `docs/model-report.md` for the demo bundle. The page is made by `bench/train/families.py`.", "",
        "## Training", "", *training(found), *absent(found),
        "Commands, one a family; the two towers come from one training for each schema that the cache keeps:", "", "```", *[general(f["command"]) for f in found.values()], "```", "",
        "Of the training visits the share in the table was used, and of their rows without a click the share beside it: the bundle's `negative_rate` puts the click probability back before it is calibrated.", "",
        "## Heads", "", "Figures are cross-fitted: calibrated on weeks 41-42 and judged on 43-44, and the other way round. NE is 1 - RIG. The kind with the lower cross-fitted log loss is in the bundle, fitted on all four weeks. "
        "*Before* is predicted over observed of the raw output, and after the correction for negatives that were left out.", "", *heads(found),
        "### Calibration by tenths of the prediction", "", "Predicted / observed, a tenth of the weight in each, lowest first; cross-fitted.", "", *deciles(found),
        "## Parity", "",
        "`bench/train/parity.py`: impressions of weeks 41-44, one feature in ten spoilt (left out, or a word that nobody knows). Largest |a - b| / max(|b|, 0.1) of the raw outputs and / max(|b|, 0.001) of the calibrated predictions; "
        "for trees the bits of each raw score, rounded to f32, are compared.", "", *parity(found, parities),
        *(precision(found, precisions) if precisions else []),
        *survival(found),
        "## When features go missing", "",
        "Change of AUC / RIG when a group is what a server takes for a missing feature (row 0, the default, an empty set, cross 0; NaN for trees), with the bundle's calibration as it is, on 15 % of the validation visits.", "", *missing(found),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, required=True, help="folder with NAME.json of train.py --figures")
    parser.add_argument("--parity", type=Path, help="folder with NAME.json of parity.py --json")
    parser.add_argument("--precision", type=Path, help="folder with NAME.json of precision.py --json")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    files = {name: args.figures / f"{name}.json" for name in WHAT}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    args.out.write_text(page(found, args.parity, args.precision))


if __name__ == "__main__":
    main()
