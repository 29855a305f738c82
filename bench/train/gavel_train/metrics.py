"""How good are predictions? Everything is weighted: a row stands for `weight` impressions."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score


SCALE_MIN = 1e-3  # a model that ranks worse than chance gets (nearly) the base rate


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Stable enough in float64."""
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def cross_entropy(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Mean log loss."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return float(-(w * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum() / w.sum())


def rig(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Relative information gain: 1 - log loss / log loss of the base rate."""
    base = (w * y).sum() / w.sum()
    return 1 - cross_entropy(p, y, w) / cross_entropy(np.full(len(y), base), y, w)


def fit_platt(logit: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict:
    """p = sigmoid(scale x logit + offset) of least weighted log loss; scale stays above 0, as servers want it."""
    logit = logit.astype(np.float64)

    def loss(theta):
        p = sigmoid(theta[0] * logit + theta[1])
        g = w * (p - y) / w.sum()
        return cross_entropy(p, y, w), np.array([(g * logit).sum(), g.sum()])

    scale, offset = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(SCALE_MIN, None), (None, None)], options={"ftol": 1e-14, "gtol": 1e-9}).x
    return {"kind": "platt", "scale": round(float(scale), 6), "offset": round(float(offset), 6)}


def platt(rule: dict, logit: np.ndarray) -> np.ndarray:
    """Applies it."""
    return sigmoid(rule["scale"] * logit.astype(np.float64) + rule["offset"])


def crossfit(logit: np.ndarray, y: np.ndarray, w: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Calibrated predictions where each half of the time is calibrated on the other."""
    out = np.zeros(len(y))
    for part in (half, ~half):
        out[part] = platt(fit_platt(logit[~part], y[~part], w[~part]), logit[part])
    return out


def judge(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict:
    """AUC, RIG, and predicted over observed."""
    return {
        "auc": round(float(roc_auc_score(y, p, sample_weight=w)), 4),
        "rig": round(rig(p, y, w), 4),
        "calibration_ratio": round(float((w * p).sum() / (w * y).sum()), 4),
        "base_rate": round(float((w * y).sum() / w.sum()), 6),
        "rows": int(len(y)), "positives": int(y.sum()),
    }
