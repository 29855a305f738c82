"""What did the model see at each impression? Read from what routers logged, not computed again.

`gavel log join` writes the tables; a schema says `source = "scored"` and names them. Every feature is taken as it was
scored: categories by their hashes, sets with their weights, match features by the weights that they were made of. No
table of users, items or events is needed, and a feature cannot differ between training and serving.

The log holds hashes, and golden rows of a bundle spell their values. `StandIns` finds for each hash a text that falls
into the same row of the same table: all that a model sees of it. Equal hashes have equal texts and others have others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from . import hashing
from .dataset import Dataset, Split, features


class StandIns:
    """Texts for hashes, among tables of one number of buckets."""

    def __init__(self, buckets: int):
        self.buckets, self.number = buckets, 0
        self.given: dict[int, str] = {}
        self.spare: dict[int, list[str]] = {}

    def of(self, value: int) -> str:
        """The text of a hash; the empty text of 0, which is missing."""
        if value and value not in self.given:
            wanted = value % self.buckets
            while not self.spare.get(wanted):
                text = f"~{self.number}"
                self.number += 1
                self.spare.setdefault(hashing.value_hash.__wrapped__(text) % self.buckets, []).append(text)
            self.given[value] = self.spare[wanted].pop()
        return self.given[value] if value else ""


def row(value: int, buckets: int) -> int:
    """The embedding row of a hash; row 0 is the missing one."""
    return 1 + value % buckets if value else 0


def hashes(frame: pd.DataFrame, column: str) -> list[int]:
    """A column of categories; what is not there is 0."""
    if column not in frame:
        return [0] * len(frame)
    return [int(text, 16) if text else 0 for text in frame[column].fillna("")]


def numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column of numbers; what is not there is NaN."""
    if column not in frame:
        return np.full(len(frame), np.nan, np.float32)
    return pd.to_numeric(frame[column]).to_numpy(np.float32)


def pairs(text: str) -> list[tuple[int, float]]:
    """Hashes with their weights, in their order."""
    return [(int(value, 16), float(weight)) for value, _, weight in (pair.partition(":") for pair in text.split())]


def heaviest(found: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """What of a set reaches the model: the first weight of each value, the heaviest first, ties by the lower hash."""
    weights: dict[int, float] = {}
    for value, weight in found:
        if value:
            weights.setdefault(value, weight)
    return sorted(weights.items(), key=lambda p: (-p[1], p[0]))[:most]


def read(path: Path) -> pd.DataFrame:
    """A table as text, so that no hash becomes a number."""
    return pd.read_csv(path, dtype="string", keep_default_na=False)


def load(schema: dict, data: Path) -> Dataset:
    """Reads the joined tables."""
    tables, columns = schema["tables"], schema["columns"]
    frames = {name: read(data / tables[name]) for name in ("train", "valid")}
    visits = read(data / tables["visits"])
    for frame in (visits, *frames.values()):
        for column in ("visit", "time", "period"):
            frame[columns[column]] = frame[columns[column]].astype(np.int64)
    visits = visits.set_index(columns["visit"]).sort_index()
    absent = [f["name"] for f in schema["feature"] if f"{'i' if f['side'] == 'item' else 'u'}.{f['name']}" not in (frames["train"] if f["side"] == "item" else visits)]
    if absent:
        print(f"not in the log, so missing at every impression: {', '.join(absent)}", flush=True)
    texts = {f["buckets"]: StandIns(f["buckets"]) for f in schema["feature"] if "buckets" in f}
    items = distinct_items(schema, pd.concat(frames.values(), ignore_index=True))
    out = Dataset(
        schema=schema, visits=visits, items=items, item_dense={}, user_rows={}, user_dense={}, set_rows={}, set_weights={},
        set_values={}, vocabulary={}, texts={}, item_rows={},
        history_items=np.zeros(0, np.int64), history_spans=np.zeros((len(visits), 2), np.int64), spellable=np.ones(len(visits), bool),
    )
    for f in features(schema, ("item",), "category"):
        fill_category(out, f, items[f"i.{f['name']}"].tolist(), texts, out.item_rows)
    for f in features(schema, ("user", "context"), "category"):
        fill_category(out, f, hashes(visits, f"u.{f['name']}"), texts, out.user_rows)
    for f in features(schema, ("user", "context"), "dense"):
        out.user_dense[f["name"]] = numbers(visits, f"u.{f['name']}")
    for kind in ("set", "sequence"):
        for f in features(schema, ("user", "context"), kind):
            fill_list(out, f, visits, texts[f["buckets"]])
    for name, frame in frames.items():
        setattr(out, name, split(out, frame))
    for f in features(schema, ("item",), "dense"):
        # As the newest impression of each item had it.
        values = np.full(len(items), np.nan, np.float32)
        for part in (out.train, out.valid):
            values[part.item] = part.item_dense[f["name"]]
        out.item_dense[f["name"]] = values
    return out


def item_keys(schema: dict, frame: pd.DataFrame) -> pd.DataFrame:
    """What tells items apart: the id with the categories, as a new generation may change them."""
    names = [f"i.{f['name']}" for f in features(schema, ("item",), "category")]
    return pd.DataFrame({schema["columns"]["item"]: frame[schema["columns"]["item"]].to_numpy()} | {n: hashes(frame, n) for n in names})


def distinct_items(schema: dict, rows: pd.DataFrame) -> pd.DataFrame:
    """Every item that was shown, with the hashes of its categories."""
    items = item_keys(schema, rows).drop_duplicates(ignore_index=True)
    items.index = pd.MultiIndex.from_frame(items)
    return items


def fill_category(out: Dataset, feature: dict, values: list[int], texts: dict, rows: dict) -> None:
    """Rows and texts of a category."""
    rows[feature["name"]] = np.array([row(v, feature["buckets"]) for v in values], np.int32)
    out.texts[feature["name"]] = pd.Series([texts[feature["buckets"]].of(v) for v in values], dtype=object)


def fill_list(out: Dataset, feature: dict, visits: pd.DataFrame, texts: StandIns) -> None:
    """Rows, weights and texts of a set or a sequence."""
    name, most, column = feature["name"], feature["max_len"], f"u.{feature['name']}"
    shape = (len(visits), most)
    rows, weights, places = np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
    vocabulary: dict[int, int] = {}
    for n, text in enumerate(visits[column] if column in visits else []):
        found = pairs(text)
        kept = heaviest(found, most) if feature["kind"] == "set" else found[:most]
        # What is cut off would still meet an item, and stand-ins break the ties at the cut in another order.
        out.spellable[n] &= feature["kind"] != "set" or len(heaviest(found, len(found))) <= most
        for k, (value, weight) in enumerate(kept):
            rows[n, k], weights[n, k] = row(value, feature["buckets"]), weight
            places[n, k] = vocabulary.setdefault(value, len(vocabulary))
    out.vocabulary[name] = [texts.of(value) for value in vocabulary]
    if feature["kind"] == "set":
        out.set_rows[name], out.set_weights[name], out.set_values[name] = rows, weights, places
    else:
        out.sequence_rows[name], out.sequence_values[name] = rows, places


def split(out: Dataset, frame: pd.DataFrame) -> Split:
    """Rows of one span of time, sorted by visit."""
    schema, columns = out.schema, out.schema["columns"]
    frame = frame.sort_values(columns["visit"], kind="stable")
    visit = out.visits.index.get_indexer(frame[columns["visit"]]).astype(np.int32)
    item = out.items.index.get_indexer(pd.MultiIndex.from_frame(item_keys(schema, frame))).astype(np.int32)
    labels, given = {}, {}
    for head in schema["head"]:
        raw = numbers(frame, head["label"])
        labels[head["name"]] = (raw >= head["at_least"]).astype(np.float32) if "at_least" in head else raw
        given[head["name"]] = numbers(frame, head["given"]) > 0 if "given" in head else np.ones(len(frame), bool)
    cross = np.zeros((len(frame), len(schema["cross"])), np.float32)
    for place, rule in enumerate(schema["cross"]):
        cross[:, place] = np.nan_to_num(numbers(frame, f"m.{rule['name']}"))
    bias = frame[columns["bias"]].agg("|".join, axis=1)
    bias_rows = np.array([hashing.row(b, 255) for b in bias.unique()], np.int32)[pd.factorize(bias)[0]]
    return Split(
        visit=visit, item=item, weight=numbers(frame, columns["weight"]), bias=bias_rows, bias_names=bias.tolist(),
        labels=labels, given=given, cross=cross,
        item_dense={f["name"]: numbers(frame, f"i.{f['name']}") for f in features(schema, ("item",), "dense")},
    )
