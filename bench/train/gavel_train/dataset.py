"""What did the model know at each impression?

Reads the tables that a schema names and turns them into arrays: a row per impression, a row per visit (user
side: a visit's impressions share it), a row per item. Histories, counts and popularity are computed from the
events strictly before the visit (popularity: before its period), so nothing of the future leaks.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from . import cache, hashing

# Popularity is events a hundred periods, a share is of ten thousand events: most items are rare, and the logarithm
# of these numbers tells nothing apart far below 1. The catalogue's items are written in the same units.
POPULARITY_PERIODS, SHARE_OF = 100.0, 10_000.0


@dataclass
class Split:
    """Impressions of one span of time. Arrays of rows index into visits and items of the dataset."""

    visit: np.ndarray
    item: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    bias_names: list[str]
    labels: dict[str, np.ndarray]
    given: dict[str, np.ndarray]
    item_dense: dict[str, np.ndarray]  # raw values as of the impression's period, NaN = missing
    cross: np.ndarray  # raw weights


@dataclass
class Dataset:
    """Everything a trainer needs, hashed but not yet scaled."""

    schema: dict
    visits: pd.DataFrame
    items: pd.DataFrame
    item_rows: dict[str, np.ndarray]
    item_dense: dict[str, np.ndarray]  # as the catalogue holds them: at the end of training
    user_rows: dict[str, np.ndarray]  # per visit
    user_dense: dict[str, np.ndarray]
    set_rows: dict[str, np.ndarray]
    set_weights: dict[str, np.ndarray]
    set_values: dict[str, np.ndarray]  # vocabulary places, -1 = none
    vocabulary: dict[str, list[str]]
    texts: dict[str, pd.Series]
    popularity: "Popularity" = field(default=None)
    history_items: np.ndarray = field(default=None)  # items of all events, by user and time
    history_spans: np.ndarray = field(default=None)  # per visit: its user's events before it
    spellable: np.ndarray = field(default=None)  # per visit: golden rows may be made of it; None: of any
    sequence_rows: dict[str, np.ndarray] = field(default_factory=dict)
    sequence_values: dict[str, np.ndarray] = field(default_factory=dict)  # vocabulary places, -1 = none
    train: Split = field(default=None)
    valid: Split = field(default=None)


def features(schema: dict, side: str | tuple, kind: str) -> list[dict]:
    """The features of these sides and this kind, in the order of the schema."""
    return [f for f in schema["feature"] if f["side"] in side and f["kind"] == kind]


def read_schema(path: Path) -> dict:
    """The schema; sets and sequences take the buckets of the item feature that they are made of.

    `extends` names a schema that this one adds to: lists grow, `keep` says which features and cross features stay,
    `limits` caps numbers of features (buckets, rank, tower, max_len), everything else replaces. `visits_every = n`
    reads only the visits whose number n divides.
    """
    schema = tomllib.loads(path.read_text())
    if "extends" in schema:
        base = read_schema(path.parent / schema.pop("extends"))
        keep = schema.pop("keep", None)
        for kind in ("feature", "cross"):
            base[kind] = [f for f in base[kind] if keep is None or f["name"] in keep] + schema.pop(kind, [])
        schema = base | schema
    for f in schema["feature"]:
        f.update({k: min(f[k], most) for k, most in schema.get("limits", {}).items() if k in f})
    by_name = {f["name"]: f for f in schema["feature"]}
    for f in schema["feature"]:
        if f["kind"] in ("set", "sequence") and f["of"] in by_name:
            f["buckets"] = by_name[f["of"]]["buckets"]
    return schema


def text(column: pd.Series) -> pd.Series:
    """Values as the catalogue spells them; a missing one is the empty string."""
    return column.astype("string").fillna("").astype(object)


def hashed(column: pd.Series, buckets: int) -> np.ndarray:
    """Embedding rows of a text column."""
    codes, values = pd.factorize(column)
    rows = np.array([hashing.row(v, buckets) if v else 0 for v in values], np.int32)
    return rows[codes]


def tables_key(schema: dict, data: Path) -> str:
    """What the loaded tables are made of; the ranker's options and the bundle's name change nothing of them."""
    return cache.key({k: v for k, v in schema.items() if k not in ("name", "ranker")}, [data / path for path in schema["tables"].values()])


def opened(folder: Path | None, schema_file: Path, data: Path) -> Dataset:
    """The tables of a schema, from the cache when they are there."""
    schema = read_schema(schema_file)
    found = cache.kept(folder, f"tables-{schema_file.stem}", tables_key(schema, data), lambda: load(schema, data))
    found.schema = schema
    return found


def load(schema: dict, data: Path) -> Dataset:
    """Reads every table and computes every feature, or reads the features too."""
    from . import scored, sequences  # which read this module

    if schema.get("source") == "scored":
        return scored.load(schema, data)

    tables, columns = schema["tables"], schema["columns"]
    items = pd.read_csv(data / tables["items"], dtype={columns["item"]: np.int64})
    items = items.drop_duplicates(columns["item"]).set_index(columns["item"], drop=False)
    users = pd.read_csv(data / tables["users"], dtype="string").set_index(columns["user"])
    ec = schema["event_columns"]
    events = pd.read_csv(data / tables["events"], usecols=list(ec.values()))
    frames = {name: pd.read_csv(data / tables[name], dtype={b: "string" for b in columns["bias"]}) for name in ("train", "valid")}
    if every := schema.get("visits_every"):
        frames = {name: frame[frame[columns["visit"]] % every == 0] for name, frame in frames.items()}
    first_valid = frames["valid"][columns["period"]].min()
    frames["train"] = frames["train"][frames["train"][columns["period"]] < first_valid]
    both = pd.concat(frames.values())
    visits = both.drop_duplicates(columns["visit"]).set_index(columns["visit"]).sort_index()

    item_texts = {f["name"]: text(items[f["source"]]) for f in features(schema, ("item",), "category")}
    out = Dataset(
        schema=schema, visits=visits, items=items, item_dense={}, user_rows={}, user_dense={}, set_rows={},
        set_weights={}, set_values={}, vocabulary={}, texts=dict(item_texts),
        item_rows={f["name"]: hashed(item_texts[f["name"]], f["buckets"]) for f in features(schema, ("item",), "category")},
    )
    user_side(out, users)
    events["item_place"] = items.index.get_indexer(events[ec["item"]])
    events = events[events.item_place >= 0]
    codes, times = histories(out, events)
    sequences.fill(out, times)
    popularity = out.popularity = Popularity(out, events, first_valid)
    for name, frame in frames.items():
        setattr(out, name, split(out, frame, codes, popularity))
    for f in features(schema, ("item",), "dense"):
        out.item_dense[f["name"]] = popularity.value(f, np.arange(len(items)), np.full(len(items), first_valid))
    return out


def user_side(out: Dataset, users: pd.DataFrame) -> None:
    """Categories of the user and of the context, per visit."""
    columns, visits = out.schema["columns"], out.visits
    time = visits[columns["time"]].to_numpy()
    for f in features(out.schema, ("user", "context"), "category"):
        if f["source"] == "hour":
            values = pd.Series(time % 86_400 // 3_600).astype(str)
        elif f["source"] == "weekday":
            values = pd.Series((time // 86_400 + 3) % 7).astype(str)
        elif f["side"] == "user":
            values = text(users[f["source"]].reindex(visits[columns["user"]].astype(str)))
        else:
            values = text(visits[f["source"]])
        values = pd.Series(values.to_numpy())
        out.texts[f["name"]] = values
        out.user_rows[f["name"]] = hashed(values, f["buckets"])


def histories(out: Dataset, events: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Fills sets and counts of every visit; gives the vocabulary place of each item's value per set, and event times."""
    schema, visits = out.schema, out.visits
    columns, ec = schema["columns"], schema["event_columns"]
    sets = features(schema, ("user",), "set")
    codes = {}
    for f in sets:
        values = out.texts[f["of"]].to_numpy()
        # In the order of hashes, so that a stable sort by weight breaks ties by the lower hash.
        vocabulary = sorted({v for v in values if v}, key=hashing.value_hash)
        place = {v: n for n, v in enumerate(vocabulary)}
        codes[f["name"]] = np.array([place.get(v, -1) for v in values], np.int32)
        out.vocabulary[f["name"]] = vocabulary
        shape = (len(visits), f["max_len"])
        out.set_values[f["name"]] = np.full(shape, -1, np.int32)
        out.set_weights[f["name"]] = np.zeros(shape, np.float32)
    events = events.sort_values([ec["user"], ec["time"]], kind="stable")
    user, time = events[ec["user"]].to_numpy(), events[ec["time"]].to_numpy()
    fresh = ~events.duplicated([ec["user"], ec["session"]]).to_numpy()
    items = events.item_place.to_numpy()
    sessions, lines = np.zeros(len(visits)), np.zeros(len(visits))
    out.history_items, out.history_spans = items, np.zeros((len(visits), 2), np.int64)
    asked, asked_at = visits[columns["user"]].to_numpy(), visits[columns["time"]].to_numpy()
    order = np.argsort(asked, kind="stable")
    for mine in np.split(order, np.flatnonzero(asked[order][1:] != asked[order][:-1]) + 1):
        begin, finish = (np.searchsorted(user, asked[mine[0]], side) for side in ("left", "right"))
        before = np.searchsorted(time[begin:finish], asked_at[mine], "left")
        out.history_spans[mine, 0], out.history_spans[mine, 1] = begin, begin + before
        lines[mine], sessions[mine] = before, np.r_[0, np.cumsum(fresh[begin:finish])][before]
        for f in sets:
            heaviest(out, f, mine, before, codes[f["name"]][items[begin:finish]])
    counts = {"sessions": sessions, "events": lines}
    for f in features(schema, ("user",), "dense"):
        out.user_dense[f["name"]] = counts[f["source"]].astype(np.float32)
    for f in sets:
        rows = np.array([hashing.row(v, f["buckets"]) for v in out.vocabulary[f["name"]]] + [0], np.int32)
        out.set_rows[f["name"]] = rows[out.set_values[f["name"]]]
    return codes, time


def heaviest(out: Dataset, feature: dict, visits: np.ndarray, before: np.ndarray, values: np.ndarray) -> None:
    """The heaviest values of one user's events before each visit, ties by the lower hash."""
    found, place = np.unique(values, return_inverse=True)
    known = found >= 0
    for visit, last in zip(visits, before):
        counts = np.bincount(place[:last], minlength=len(found)) * known
        order = np.argsort(-counts, kind="stable")[: feature["max_len"]]
        order = order[counts[order] > 0]
        out.set_values[feature["name"]][visit, : len(order)] = found[order]
        out.set_weights[feature["name"]][visit, : len(order)] = counts[order]


class Popularity:
    """Events of items per period, of the periods before a given one."""

    def __init__(self, out: Dataset, events: pd.DataFrame, last_period: int):
        period = events[out.schema["event_columns"]["period"]].to_numpy()
        self.first = int(period.min())
        self.out = out
        spans = last_period + 64 - self.first
        self.before = np.zeros((len(out.items), spans + 1), np.float32)
        np.add.at(self.before, (events.item_place.to_numpy(), np.minimum(period - self.first + 1, spans)), 1)
        self.before = self.before.cumsum(axis=1)
        self.grouped = {}

    def value(self, feature: dict, item: np.ndarray, period: np.ndarray) -> np.ndarray:
        """Raw values of a dense item feature."""
        elapsed = period - self.first
        own = self.before[item, elapsed]
        if feature["source"] == "popularity":
            return np.where(elapsed > 0, own / np.maximum(elapsed, 1) * POPULARITY_PERIODS, np.nan).astype(np.float32)
        if feature["source"] == "share":
            of = feature["of"]
            group, names = pd.factorize(self.out.texts[of].to_numpy())
            if of not in self.grouped:
                totals = np.zeros((len(names), self.before.shape[1]), np.float32)
                np.add.at(totals, group, self.before)
                self.grouped[of] = totals
            total = self.grouped[of][group[item], elapsed]
            known = (total > 0) & np.array([bool(n) for n in names])[group[item]]
            return np.where(known, own / np.maximum(total, 1) * SHARE_OF, np.nan).astype(np.float32)
        return self.out.items[feature["source"]].to_numpy(np.float32)[item]


def codes(out: Dataset) -> dict[str, np.ndarray]:
    """For every set, the vocabulary place of each item's value, -1 where it has none."""
    found = {}
    for f in features(out.schema, ("user",), "set"):
        place = {v: n for n, v in enumerate(out.vocabulary[f["name"]])}
        found[f["name"]] = np.array([place.get(v, -1) for v in out.texts[f["of"]].to_numpy()], np.int32)
    return found


def crossed(out: Dataset, codes: dict[str, np.ndarray], visit: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Raw cross features [rows, rules]: the weight of the item's value in the visit's set."""
    cross = np.zeros((len(visit), len(out.schema["cross"])), np.float32)
    for place, rule in enumerate(out.schema["cross"]):
        wanted = codes[rule["user"]][item]
        values, weights = out.set_values[rule["user"]], out.set_weights[rule["user"]]
        for start in range(0, len(visit), 65_536):
            part = slice(start, start + 65_536)
            of = visit[part]
            at = (values[of] == wanted[part, None]).argmax(axis=1)
            hit = (values[of, at] == wanted[part]) & (wanted[part] >= 0)
            cross[part, place] = weights[of, at] * hit
    return cross


def split(out: Dataset, frame: pd.DataFrame, codes: dict[str, np.ndarray], popularity: Popularity) -> Split:
    """Rows of one span of time, sorted by visit."""
    schema, columns = out.schema, out.schema["columns"]
    frame = frame.sort_values(columns["visit"], kind="stable")
    visit = out.visits.index.get_indexer(frame[columns["visit"]]).astype(np.int32)
    item = out.items.index.get_indexer(frame[columns["item"]]).astype(np.int32)
    period = frame[columns["period"]].to_numpy()
    labels, given = {}, {}
    for head in schema["head"]:
        raw = frame[head["label"]].to_numpy(np.float32)
        labels[head["name"]] = (raw >= head["at_least"]).astype(np.float32) if "at_least" in head else raw
        given[head["name"]] = frame[head["given"]].to_numpy() > 0 if "given" in head else np.ones(len(frame), bool)
    cross = crossed(out, codes, visit, item)
    bias = frame[columns["bias"]].agg("|".join, axis=1)
    bias_rows = np.array([hashing.row(b, 255) for b in bias.unique()], np.int32)[pd.factorize(bias)[0]]
    return Split(
        visit=visit, item=item, weight=frame[columns["weight"]].to_numpy(np.float32), bias=bias_rows,
        bias_names=bias.tolist(), labels=labels, given=given, cross=cross,
        item_dense={f["name"]: popularity.value(f, item, period) for f in features(schema, ("item",), "dense")},
    )
