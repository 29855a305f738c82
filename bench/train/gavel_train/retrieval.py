"""Of what a visitor bought under promotion, how much would retrieval have brought?

For each visit of the validation weeks that bought something promoted, the candidates are the products with a
placement in that store whose first and last week enclose the visit's week: a superset of what was promoted in
that very week (the tables keep no finer placement), so the figure is on the hard side. recall@k of a visit is
the share of its bought promoted products among the k best candidates; the figure is the mean over the visits
(`macro`) and over the products (`micro`).
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from . import baselines, models
from .dataset import Dataset, features
from .inputs import item_inputs, user_inputs

DEPTHS = (50, 200, 1_000)


class Tally:
    """Sums of recall by method and depth."""

    def __init__(self):
        self.macro, self.found, self.visits, self.products = {}, {}, 0, 0

    def add(self, method: str, scores: np.ndarray, wanted: np.ndarray) -> None:
        """One visit: scores of all candidates, places of the bought ones."""
        order = np.argpartition(-scores, min(DEPTHS[-1], len(scores) - 1))[: DEPTHS[-1]]
        order = order[np.argsort(-scores[order], kind="stable")]
        for depth in DEPTHS:
            hits = np.isin(wanted, order[:depth]).sum()
            self.macro[method, depth] = self.macro.get((method, depth), 0) + hits / len(wanted)
            self.found[method, depth] = self.found.get((method, depth), 0) + hits

    def table(self) -> dict:
        """Figures by method."""
        out = {}
        for method, depth in self.macro:
            out.setdefault(method, {})[f"recall@{depth}"] = {
                "macro": round(float(self.macro[method, depth] / self.visits), 4),
                "micro": round(float(self.found[method, depth] / self.products), 4),
            }
        return out


def report(data: Dataset, data_folder: Path, towers: dict, label: str) -> dict:
    """recall@k of the towers and of the baselines on the same candidates."""
    schema, valid = data.schema, data.valid
    columns, pc = schema["columns"], schema["placement_columns"]
    placements = pd.read_csv(data_folder / schema["tables"]["placements"], usecols=list(pc.values()))
    placements["place_of_item"] = data.items.index.get_indexer(placements[pc["item"]])
    by_place = dict(list(placements.groupby(pc["place"])))
    bought = pd.Series(valid.item[valid.labels[label] > 0]).groupby(valid.visit[valid.labels[label] > 0]).unique()
    names = models.layout(schema)
    run_user = jax.jit(lambda p, u: models.user_tower(p, names, u))
    run_item = jax.jit(lambda p, i: models.item_tower(p, names, i))
    visits = bought.index.to_numpy()
    chunks = [visits[k : k + 512] for k in range(0, len(visits), 512)]
    queries = {}
    for chunk in chunks:
        full = np.r_[chunk, np.repeat(chunk[-1:], 512 - len(chunk))]
        queries |= dict(zip(chunk.tolist(), np.asarray(run_user(towers, user_inputs(data, full)))))
    factors, item_factors = baselines.svd(data, 64)
    everything = np.arange(len(data.items))
    tally, sizes, missing, norms = Tally(), [], 0, []
    info = data.visits.iloc[visits]
    for period, of_period in info.groupby(columns["period"]).indices.items():
        dense = {f["name"]: data.popularity.value(f, everything, np.full(len(everything), period)) for f in features(schema, ("item",), "dense")}
        vectors = np.asarray(run_item(towers, item_inputs(data, everything, dense)))
        halves = np.asarray(vectors.astype(jnp.bfloat16), np.float32)
        norms.append(np.linalg.norm(vectors, axis=1))
        popular = np.log1p(np.nan_to_num(dense["popularity"])) if "popularity" in dense else np.zeros(len(everything))
        for place, group in info.iloc[of_period].groupby(columns["place"]).indices.items():
            near = by_place.get(place)
            if near is None:
                continue
            live = (near[pc["first"]] <= period) & (near[pc["last"]] >= period)
            candidates = np.unique(near.place_of_item[live].to_numpy())
            candidates = candidates[candidates >= 0]
            for n in np.asarray(of_period)[group]:
                visit = int(visits[n])
                wanted = np.flatnonzero(np.isin(candidates, bought.iloc[n]))
                missing += len(bought.iloc[n]) - len(wanted)
                if not len(wanted):
                    continue
                tally.visits += 1
                tally.products += len(wanted)
                sizes.append(len(candidates))
                history = baselines.own_history(data, visit)[candidates]
                tally.add("two towers", vectors[candidates] @ queries[visit], wanted)
                tally.add("two towers, vectors as bf16", halves[candidates] @ queries[visit], wanted)
                tally.add("own history, then popularity", history + popular[candidates] / 100, wanted)
                tally.add("popularity", popular[candidates], wanted)
                user = data.visits[columns["user"]].iloc[visit]
                tally.add("SVD 64", item_factors[candidates] @ factors.get(user, np.zeros(64)), wanted)
    return {
        "visits": tally.visits, "bought_promoted": tally.products, "bought_without_placement": int(missing),
        "candidates_mean": round(float(np.mean(sizes)), 1), "methods": tally.table(),
        "item_norms": [round(float(n), 4) for n in np.quantile(np.concatenate(norms), (0, 0.5, 1))],
    }
