"""What did the user do last? Sequences of the events strictly before a visit, newest first.

Sequences of one length are aligned: place n of each tells of the same event. A value that is not known is spelled
`UNKNOWN`, since leaving it out would move all others. `of = "age"` tells how long ago the event was, in buckets that
double: below 1 day, 1 to 3, 3 to 7, 7 to 15, ...
"""

from __future__ import annotations

import numpy as np

from . import hashing
from .dataset import Dataset, features

UNKNOWN, AGES = "-", 16


def fill(out: Dataset, time: np.ndarray) -> None:
    """Computes every sequence of every visit; `time` is that of each event of `history_items`."""
    first, last = out.history_spans[:, :1], out.history_spans[:, 1:]
    for f in features(out.schema, ("user", "context"), "sequence"):
        place = last - 1 - np.arange(f["max_len"])[None, :]
        there = place >= first
        place = np.where(there, place, 0)
        if f["of"] == "age":
            vocabulary = [str(k) for k in range(AGES)]
            asked = out.visits[out.schema["columns"]["time"]].to_numpy()[:, None]
            days = np.maximum(asked - time[place], 0) / 86_400
            codes = np.minimum(np.log2(1 + days).astype(np.int32), AGES - 1)
        else:
            values = [v or UNKNOWN for v in out.texts[f["of"]]]
            vocabulary = sorted(set(values))
            at = {v: n for n, v in enumerate(vocabulary)}
            codes = np.array([at[v] for v in values], np.int32)[out.history_items[place]]
        rows = np.array([hashing.row(v, f["buckets"]) for v in vocabulary], np.int32)
        out.vocabulary[f["name"]] = vocabulary
        out.sequence_values[f["name"]] = np.where(there, codes, -1).astype(np.int32)
        out.sequence_rows[f["name"]] = np.where(there, rows[codes], 0).astype(np.int32)
