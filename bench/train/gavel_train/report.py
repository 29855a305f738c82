"""The model report: figures as JSON and as a page."""

from __future__ import annotations

import numpy as np
import pandas as pd

from . import baselines, calibrate, light, metrics
from .dataset import Dataset


def compared(data: Dataset, figures: dict, predictions: dict) -> dict:
    """The figures of the probability heads with calibration by placement, and beside a logistic regression."""
    valid, early = data.valid, calibrate.halves(data)
    for name, p in predictions.items():
        rows = valid.given[name]
        y, w = valid.labels[name][rows].astype(np.float64), valid.weight[rows].astype(np.float64)
        figures[name]["placements"] = placements(data, rows, p, y, w)
        odds = baselines.logistic(data, name)[rows]
        figures[name]["logistic_regression"] = metrics.judge(metrics.crossfit(odds, y, w, early[rows]), y, w)
    return figures


def placements(data: Dataset, rows: np.ndarray, p: np.ndarray, y: np.ndarray, w: np.ndarray) -> list[dict]:
    """Calibration per placement, the heaviest first."""
    names = np.array(data.valid.bias_names)[rows]
    out = []
    for name in np.unique(names):
        part = names == name
        out.append({
            "placement": str(name), "share": round(float(w[part].sum() / w.sum()), 4), "positives": int(y[part].sum()),
            "calibration_ratio": round(float((w * p)[part].sum() / max((w * y)[part].sum(), 1e-9)), 3),
        })
    return sorted(out, key=lambda row: -row["share"])


QUOTED = {"click": ("0.840", "0.194"), "conversion": ("0.908", "0.251")}


def page(report: dict) -> str:
    """The report as Markdown."""
    lines = [
        "# Model report", "",
        f"Bundle `{report['name']}`, trained on weeks 1-40 ({report['train_rows']:,} impressions), judged on weeks 41-44 "
        f"({report['valid_rows']:,} impressions) of cj-ads. Every figure is weighted by the inverse sampling rate. Made by:", "",
        "```", report["command"], "```", "",
        "*click* is category engagement (the visitor bought something of the advertised product type): a proxy, never to be read as a click-through rate.",
        "Predictions are without the placement tower, as served. Calibrated figures are cross-fitted: weeks 41-42 calibrated on 43-44 and the other way round.",
        "The logistic regression is fitted in the same run on the same features' logs; the quoted one is that of the data's own notes, whose exact setting is not known.",
        "Epochs and decays were chosen by looking at the validation weeks, so these figures are a little on the bright side.", "",
        "## Heads", "",
        "| head | rows | positives | base rate | AUC | RIG | calibration | AUC, logistic regression | RIG, logistic regression | quoted AUC / RIG |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in report["heads"].items():
        if "crossfitted" not in f:
            lines.append(f"| {name} | {f['rows']:,} | | | | R² of log1p {f['r2_log1p']} | {f['uncalibrated_ratio']} before scaling | | | |")
            continue
        c, base, quoted = f["crossfitted"], f["logistic_regression"], " / ".join(QUOTED.get(name, ("", "")))
        lines.append(
            f"| {name} | {c['rows']:,} | {c['positives']:,} | {c['base_rate']:.4f} | {c['auc']:.4f} | {c['rig']:.4f} | {c['calibration_ratio']:.3f} "
            f"({f['uncalibrated']['calibration_ratio']:.3f} before) | {base['auc']:.4f} | {base['rig']:.4f} | {quoted} |"
        )
    lines += ["", "## Calibration by placement (display × mailer)", "", "Predicted over observed, placements with at least 30 positives, heaviest first.", "",
              "| head | placement | share of weight | positives | ratio |", "|---|---|---|---|---|"]
    for name, f in report["heads"].items():
        for row in [r for r in f.get("placements", []) if r["positives"] >= 30][:12]:
            shown = row["placement"].replace("|", " × ")
            lines.append(f"| {name} | {shown} | {row['share']:.3f} | {row['positives']:,} | {row['calibration_ratio']:.2f} |")
    r = report["retrieval"]
    lines += ["", "## Retrieval", "",
              f"For each of {r['visits']:,} visits of weeks 41-44 that bought something promoted ({r['bought_promoted']:,} products): candidates are the products "
              f"with a placement in that store whose first and last week enclose the visit's week (mean {r['candidates_mean']:,.0f}, a superset of what was promoted "
              "that week); recall@k is the share of the bought ones among the k best. Macro = mean over visits, micro = over products. "
              "The figures of the data's notes (own history .464, SVD .312 at 200) are of a candidate set that is not documented; compare within this table.", "",
              "| method | " + " | ".join(f"recall@{k} macro / micro" for k in (50, 200, 1000)) + " |", "|---|---|---|---|"]
    for method, f in r["methods"].items():
        lines.append(f"| {method} | " + " | ".join(f"{f[f'recall@{k}']['macro']:.3f} / {f[f'recall@{k}']['micro']:.3f}" for k in (50, 200, 1000)) + " |")
    lines += ["", "Norms of the item vectors: {:.3f} to {:.3f}, median {:.3f}.".format(*(r["item_norms"][n] for n in (0, 2, 1)))]
    if report.get("survival"):
        lines += ["", "## Light ranking", "", *light.section(report["survival"]),
                  "| " + " | ".join(light.COLUMNS) + " |", "|" + "---|" * len(light.COLUMNS)]
        lines += ["| " + " | ".join(row) + " |" for row in light.rows(report["survival"])]
    b = report["bundle"]
    lines += ["", "## Bundle", "", f"{b['bytes']:,} bytes. Largest |a - b| / max(1, |b|) between the training framework and ONNX Runtime on the golden rows: "
              + ", ".join(f"{k} {v:.1e}" for k, v in b["parity"].items()) + ".", "", *report.get("notes", []), ""]
    return "\n".join(lines)


def held(data: Dataset, predictions: dict[str, np.ndarray]) -> pd.DataFrame:
    """Who met what in the validation, and what is predicted of it: none of these rows was trained on."""
    columns, valid = data.schema["columns"], data.valid
    of = {"user": data.visits[columns["user"]].to_numpy()[valid.visit], "item": data.items[columns["item"]].to_numpy()[valid.item]}
    return pd.DataFrame(of | {"weight": valid.weight} | {name: np.float32(p) for name, p in predictions.items()})
