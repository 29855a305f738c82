"""What is lost when a group of features does not arrive at serving?

Each group is set to what a server takes for a missing feature (row 0, the schema's default, an empty set, cross 0;
NaN for trees), and the validation rows are judged again with the calibration as it is in the bundle.
"""

from __future__ import annotations

import copy

import numpy as np

from . import calibrate, metrics, sampling
from .dataset import Dataset, features


VISIT_SHARE = 0.15  # every group costs a pass over the rows


def groups(schema: dict) -> dict[str, list[str]]:
    """Names of features by group: the schema's own `group`, or else by side and kind."""
    out = {}
    for f in schema["feature"]:
        kind = "history" if f["kind"] == "set" else "sequence" if f["kind"] == "sequence" else f["side"]
        out.setdefault(f.get("group", kind), []).append(f["name"])
    out["cross"] = [c["name"] for c in schema["cross"]]
    if "history" in out:
        # A cross feature is the item's weight in a set: without the sets there is none.
        out["history and cross"] = out["history"] + out["cross"]
    return out


def without(data: Dataset, names: list[str]) -> Dataset:
    """The same data, these features missing in the validation rows."""
    out, valid = copy.copy(data), copy.copy(data.valid)
    out.valid = valid
    for table in ("item_rows", "user_rows", "set_rows", "set_weights", "sequence_rows"):
        whole = getattr(data, table)
        setattr(out, table, whole | {n: np.zeros_like(whole[n]) for n in names if n in whole})
    out.user_dense = data.user_dense | {n: np.full_like(data.user_dense[n], np.nan) for n in names if n in data.user_dense}
    valid.item_dense = data.valid.item_dense | {n: np.full_like(data.valid.item_dense[n], np.nan) for n in names if n in data.valid.item_dense}
    gone = [n for n, c in enumerate(data.schema["cross"]) if c["name"] in names]
    valid.cross = data.valid.cross.copy()
    valid.cross[:, gone] = 0
    return out


def judged(data: Dataset, raw: dict[str, np.ndarray], rules: dict) -> dict[str, dict]:
    """AUC and RIG of every probability head under the bundle's own calibration."""
    out, valid = {}, data.valid
    for head in data.schema["head"]:
        name, rows = head["name"], valid.given[head["name"]]
        y, w = valid.labels[name][rows].astype(np.float64), valid.weight[rows].astype(np.float64)
        if head["kind"] == "value":
            out[name] = {"r2_log1p": round(calibrate.r2(raw[name][rows].astype(np.float64), y, w), 4)}
        else:
            out[name] = metrics.judge(calibrate.apply(rules[name], raw[name][rows]), y, w)
    return out


def table(data: Dataset, family, params, rules: dict, seed: int) -> dict:
    """Figures by group, with nothing missing first, on a share of the visits."""
    data = copy.copy(data)
    data.valid = sampling.sampled(data, data.valid, VISIT_SHARE, 1.0, seed)
    out = {"none": judged(data, family.predict(data, data.valid, params), rules)}
    for group, names in groups(data.schema).items():
        part = without(data, names)
        out[group] = judged(part, family.predict(part, part.valid, params), rules)
    return out
