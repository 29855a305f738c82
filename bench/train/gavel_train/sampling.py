"""Which impressions are trained on? A share of the visits, and of the rows without a click."""

from __future__ import annotations

import dataclasses

import numpy as np

from .dataset import Dataset, Split


def sampled(data: Dataset, split: Split, visit_share: float, negative_rate: float, seed: int) -> Split:
    """Some of a split's rows, each with the weight it had.

    A visit stays or goes as a whole. Of the rows without a click (the head with that role), `negative_rate` stay,
    and the others are not made up for by weight: the probability of a click then needs the correction of
    `calibrate.py`, and what is given a click is as it was.
    """
    rng = np.random.default_rng(seed)
    stays = rng.random(len(data.visits)) < visit_share
    click = next(h["name"] for h in data.schema["head"] if h.get("role") == "click")
    keep = stays[split.visit] & ((split.labels[click] > 0) | (rng.random(len(split.visit)) < negative_rate))
    picked = {f.name: getattr(split, f.name) for f in dataclasses.fields(split)}
    for name, value in picked.items():
        if isinstance(value, dict):
            picked[name] = {k: v[keep] for k, v in value.items()}
        elif isinstance(value, list):
            picked[name] = [v for v, k in zip(value, keep) if k]
        else:
            picked[name] = value[keep]
    return Split(**picked)
