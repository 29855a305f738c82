"""Which calibration does a head get, and how well do its predictions hold?

Platt and isotonic are both fitted on one half of the validation periods and judged on the other; the one with the
lower log loss over both halves is fitted again on all of them. Where training dropped negatives, the raw
probability is first put back to the rate of all rows: p' = p / (p + (1 - p) / w), w = `negative_rate`.
"""

from __future__ import annotations

import numpy as np
from sklearn.isotonic import IsotonicRegression

from . import metrics
from .dataset import Dataset

POINTS_MAX = 64  # points of an isotonic map; the rest are interpolated
NEAREST = 0.01  # logits between two points of a map: it has to tell them apart in f32
STEEPEST = 8.0  # logits that a map may rise within one logit: it multiplies the error of a score
LEAST = 1e-6  # no prediction of exactly 0, which no bid and no log could take


def restored(logit: np.ndarray, negative_rate: float) -> np.ndarray:
    """Logits after the correction for dropped negatives."""
    return logit.astype(np.float64) + np.log(negative_rate)


def fit_isotonic(logit: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict:
    """A non-decreasing map on the probability, at most `POINTS_MAX` points.

    Each level stands at the mean of the rows that have it, and what lies between two is interpolated. Levels held to
    the ends of their rows would make stairs, on whose steps the last bit of a score decides. A level takes half an event
    of either kind on top of its rows: rows without a positive are no evidence of a chance of zero. The ends lead to 0
    and 1, so that the order of scores is kept beyond the first and the last level.
    """
    p = np.float32(metrics.sigmoid(logit)).astype(np.float64)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(p, y, sample_weight=w).predict(p)
    _, block, size = np.unique(fitted, return_inverse=True, return_counts=True)
    weight, positive, at = np.bincount(block, w), np.bincount(block, w * y), np.bincount(block, w * p)
    x, level = at / weight, (positive + weight / size / 2) / (weight + weight / size)
    level = np.maximum.accumulate(level.clip(LEAST, 1 - LEAST))
    if len(x) > POINTS_MAX - 2:
        # Where the levels change most, on the logit: the error of leaving a point out is relative there.
        way = np.r_[0.0, np.cumsum(np.abs(np.diff(np.log(level / (1 - level)))))]
        chosen = np.unique(np.r_[0, np.searchsorted(way, np.linspace(0, way[-1], POINTS_MAX - 3)).clip(0, len(x) - 1), len(x) - 1])
        x, level = x[chosen], level[chosen]
    # A score that is 0 or 1 in f32 stands at an end already.
    inside = (x >= LEAST) & (x <= 1 - LEAST)
    x, level = x[inside], level[inside]
    kept = gentle(x, level)
    x, level = np.r_[0.0, x[kept], 1.0], np.r_[LEAST, level[kept], 1 - LEAST]
    return {"kind": "isotonic", "x": [float(f"{v:.7g}") for v in x], "y": [float(f"{v:.7g}") for v in np.maximum.accumulate(level)]}


def gentle(x: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Places of the points to keep: the first, and each that is far enough from the one kept before, above it, and not too steeply so."""
    at, height = (np.log(v / (1 - v)) for v in (x, level))
    kept = [0] if len(x) else []
    for n in range(1, len(x)):
        run, rise = at[n] - at[kept[-1]], height[n] - height[kept[-1]]
        if run >= NEAREST and 0 < rise <= STEEPEST * run:
            kept.append(n)
    return np.array(kept, int)


def apply(rule: dict, raw: np.ndarray) -> np.ndarray:
    """What a server makes of a head's raw output."""
    raw = raw.astype(np.float64)
    if rule["kind"] == "scale":
        return np.maximum(np.expm1(raw), 0) * rule["factor"]
    if "negative_rate" in rule:
        raw = restored(raw, rule["negative_rate"])
    if rule["kind"] == "isotonic":
        return np.interp(metrics.sigmoid(raw), rule["x"], rule["y"])
    return metrics.sigmoid(rule["scale"] * raw + rule["offset"])


FITS = {"platt": metrics.fit_platt, "isotonic": fit_isotonic}


def choose(raw: np.ndarray, y: np.ndarray, w: np.ndarray, half: np.ndarray, negative_rate: float) -> tuple[dict, np.ndarray, dict]:
    """The rule, the cross-fitted predictions, and the cross-fitted log loss of either kind."""
    before = {"negative_rate": negative_rate} if negative_rate < 1 else {}
    logit = restored(raw, negative_rate)
    crossed = {}
    for kind, fit in FITS.items():
        crossed[kind] = np.zeros(len(y))
        for part in (half, ~half):
            crossed[kind][part] = apply(fit(logit[~part], y[~part], w[~part]), logit[part])
    losses = {kind: metrics.cross_entropy(p, y, w) for kind, p in crossed.items()}
    kind = min(losses, key=losses.get)
    return FITS[kind](logit, y, w) | before, crossed[kind], {k: round(v, 6) for k, v in losses.items()}


def deciles(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> list[dict]:
    """Predicted and observed by tenths of the weight, in order of the prediction."""
    order = np.argsort(p, kind="stable")
    tenth = ((np.cumsum(w[order]) - w[order] / 2) / w.sum() * 10).astype(int)
    out = []
    for n in range(10):
        rows = order[tenth == n]
        if len(rows):
            predicted, observed = np.average(p[rows], weights=w[rows]), np.average(y[rows], weights=w[rows])
            out.append({"predicted": float(f"{predicted:.4g}"), "observed": float(f"{observed:.4g}"), "positives": int(y[rows].sum())})
    return out


def halves(data: Dataset) -> np.ndarray:
    """The earlier half of the validation periods."""
    period = data.visits[data.schema["columns"]["period"]].to_numpy()[data.valid.visit]
    return period <= (period.min() + period.max()) // 2


def heads(data: Dataset, raw: dict[str, np.ndarray], negative_rate: float) -> tuple[dict, dict, dict]:
    """Figures, rule and cross-fitted predictions of every head on the validation rows."""
    valid, early = data.valid, halves(data)
    figures, rules, predictions = {}, {}, {}
    for head in data.schema["head"]:
        name, rows = head["name"], valid.given[head["name"]]
        y, w, out = valid.labels[name][rows].astype(np.float64), valid.weight[rows].astype(np.float64), raw[name][rows].astype(np.float64)
        if head["kind"] == "value":
            rules[name] = {"kind": "scale", "factor": round(float((w * y).sum() / (w * np.maximum(np.expm1(out), 0)).sum()), 6)}
            figures[name] = {"r2_log1p": round(r2(out, y, w), 4), "uncalibrated_ratio": round(1 / rules[name]["factor"], 4), "rows": int(rows.sum())}
            continue
        rate = negative_rate if head.get("role") == "click" else 1.0
        rules[name], crossed, losses = choose(out, y, w, early[rows], rate)
        predictions[name] = crossed
        figures[name] = {
            "uncalibrated": metrics.judge(metrics.sigmoid(out), y, w), "restored": metrics.judge(metrics.sigmoid(restored(out, rate)), y, w),
            "crossfitted": metrics.judge(crossed, y, w), "log_loss": losses, "calibration": rules[name]["kind"], "deciles": deciles(crossed, y, w),
        }
    return figures, rules, predictions


def r2(out: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Share of the variance of log1p(value) that the raw output explains."""
    target = np.log1p(y)
    return float(1 - (w * (target - out) ** 2).sum() / (w * (target - np.average(target, weights=w)) ** 2).sum())
