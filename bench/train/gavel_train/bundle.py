"""Writes a bundle folder: three graphs, the schema, golden rows, checksums.

The golden outputs come from ONNX Runtime on the written files, an implementation that shares nothing with the
servers' executor; the training framework is compared with it on the same rows.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import zstandard
from blake3 import blake3

from . import calibrate, export, hashing, light, models
from .dataset import Dataset, Split, features
from .inputs import encode, item_inputs, user_inputs

GOLDEN = {"visits": 64, "rows": 512}  # unless the schema says otherwise
TOLERANCE = 1e-4


def toml_value(value) -> str:
    """A TOML literal."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, (bool, int)):
        return str(value).lower()
    return repr(float(value))


def bundle_toml(schema: dict, files: dict, cross_keys: tuple, calibration: dict, light: dict, prior_conversion: float) -> str:
    """The file that the servers read first."""
    lines = ["format = 1"]
    head = {"name": schema["name"], "dimension": schema["dimension"], "metric": schema["metric"], "value_weight": 0.0}
    lines += [f"{k} = {toml_value(v)}" for k, v in (head | {"prior_conversion": prior_conversion}).items()]
    lines += ["", "[light]"] + [f"{k} = {toml_value(v)}" for k, v in light.items()]
    files = {"user_tower": "user_tower.onnx", "item_tower": "item_tower.onnx"} | files | {"golden": "golden.jsonl.zst"}
    lines += ["", "[files]"] + [f"{k} = {toml_value(v)}" for k, v in files.items()]
    keys = {"category": ["buckets"], "dense": ["transform", "mean", "std", "default"], "set": ["buckets", "max_len"], "sequence": ["buckets", "max_len"]}
    for f in schema["feature"]:
        lines += ["", "[[feature]]"] + [f"{k} = {toml_value(f[k])}" for k in ["name", "side", "kind"] + keys[f["kind"]] if k in f]
    for c in schema["cross"]:
        lines += ["", "[[cross]]"] + [f"{k} = {toml_value(c[k])}" for k in ("name", "user", "item") + cross_keys]
    for h in schema["head"]:
        rule = calibration[h["name"]]
        said = {k: h[k] for k in ("name", "kind", "role") if k in h} | {k: rule[k] for k in ("negative_rate",) if k in rule}
        lines += ["", "[[head]]"] + [f"{k} = {toml_value(v)}" for k, v in said.items()]
        lines.append(f"calibration = {toml_value({k: v for k, v in rule.items() if k != 'negative_rate'})}")
    return "\n".join(lines) + "\n"


def rounded(value: float) -> float:
    """Seven significant digits: all that a float32 holds."""
    return float(f"{float(value):.7g}")


def raw_user(data: Dataset, visit: int) -> dict:
    """A visit's features as a catalogue and a request would spell them."""
    out = {}
    for f in features(data.schema, ("user", "context"), "category"):
        if value := str(data.texts[f["name"]].iloc[visit]):
            out[f["name"]] = value
    for f in features(data.schema, ("user", "context"), "dense"):
        if np.isfinite(value := data.user_dense[f["name"]][visit]):
            out[f["name"]] = rounded(value)
    for f in features(data.schema, ("user", "context"), "set"):
        places = data.set_values[f["name"]][visit]
        places = places[places >= 0]
        if len(places):
            weights = [rounded(w) for w in data.set_weights[f["name"]][visit][: len(places)]]
            out[f["name"]] = {"values": [data.vocabulary[f["name"]][n] for n in places], "weights": weights}
    for f in features(data.schema, ("user", "context"), "sequence"):
        places = data.sequence_values[f["name"]][visit]
        if len(places := places[places >= 0]):
            out[f["name"]] = [data.vocabulary[f["name"]][n] for n in places]
    return out


def raw_item(data: Dataset, split: Split, row: int) -> dict:
    """An item's features as of an impression."""
    out = {}
    for f in features(data.schema, ("item",), "category"):
        if value := str(data.texts[f["name"]].iloc[split.item[row]]):
            out[f["name"]] = value
    for f in features(data.schema, ("item",), "dense"):
        value = split.item_dense[f["name"]][row]
        if np.isfinite(value):
            out[f["name"]] = rounded(value)
    return out


def feeds(schema: dict, users: list[dict], items: list[dict]) -> dict[str, np.ndarray]:
    """Graph inputs from raw features alone, by the rules of the schema: nothing of the dataset is used.

    Rows that share an object are encoded once.
    """
    out = {}
    for f in schema["feature"]:
        rows = items if f["side"] == "item" else users
        if f["kind"] == "category":
            out[f["name"]] = np.array([[hashing.row(r[f["name"]], f["buckets"]) if f["name"] in r else 0] for r in rows], np.int64)
        elif f["kind"] == "dense":
            out[f["name"]] = encode(f, np.array([[r.get(f["name"], np.nan)] for r in rows], np.float32))
        elif f["kind"] == "sequence":
            places = np.zeros((len(rows), f["max_len"]), np.int64)
            for n, r in enumerate(rows):
                values = r.get(f["name"], [])[: f["max_len"]]
                places[n, : len(values)] = [hashing.row(v, f["buckets"]) for v in values]
            out[f["name"]] = places
        else:
            places, weights, seen = np.zeros((len(rows), f["max_len"]), np.int64), np.zeros((len(rows), f["max_len"]), np.float32), {}
            for n, r in enumerate(rows):
                if (before := seen.setdefault(id(r), n)) < n:
                    places[n], weights[n] = places[before], weights[before]
                    continue
                pairs = r.get(f["name"], {"values": [], "weights": []})
                ranked = sorted(zip(pairs["values"], pairs["weights"]), key=lambda p: (-p[1], hashing.value_hash(p[0])))[: f["max_len"]]
                for k, (value, weight) in enumerate(ranked):
                    places[n, k], weights[n, k] = hashing.row(value, f["buckets"]), weight
            out[f["name"]], out[f["name"] + ".weight"] = places, weights
    for c in schema["cross"]:
        raw, weights_of = [], {}
        for user, item in zip(users, items):
            if id(user) not in weights_of:
                have = user.get(c["user"], {"values": [], "weights": []})
                weights_of[id(user)] = dict(zip(have["values"], have["weights"]))
            raw.append([weights_of[id(user)].get(item.get(c["item"]), 0.0)])
        out[c["name"]] = encode(c, np.array(raw, np.float32))
    return out


def run(folder: Path, file: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One graph on ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
    wanted = {i.name: inputs[i.name] for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, wanted)))


def ranked(folder: Path, schema: dict, users: list[dict], items: list[dict]) -> dict[str, np.ndarray]:
    """Raw outputs of a bundle's graph on ONNX Runtime, from raw features alone."""
    return {name: values[:, 0] for name, values in run(folder, "ranker.onnx", feeds(schema, users, items)).items()}


def golden(folder: Path, data: Dataset, family, calibration: dict, seed: int) -> tuple[list[dict], np.ndarray]:
    """Golden rows, and which validation rows they are."""
    rng = np.random.default_rng(seed)
    split, counts = data.valid, GOLDEN | data.schema.get("golden", {})
    visits = np.unique(split.visit)
    if data.spellable is not None:
        visits = visits[data.spellable[visits]]
    chosen = rng.choice(visits, min(counts["visits"], len(visits)), replace=False)
    pool = np.flatnonzero(np.isin(split.visit, chosen))
    rows = np.sort(rng.choice(pool, min(counts["rows"], len(pool)), replace=False))
    users = [raw_user(data, split.visit[r]) for r in rows]
    items = [raw_item(data, split, r) for r in rows]
    # A server must also cope with a user and an item it knows nothing of.
    users[0], items[1] = {}, {}
    inputs = feeds(data.schema, users, items)
    of_user, of_item = run(folder, "user_tower.onnx", inputs), run(folder, "item_tower.onnx", inputs)
    query, vector = of_user["query"], of_item["vector"]
    heads = family.reference(folder, data.schema, users, items)
    lines = []
    for n in range(len(rows)):
        raw = {name: rounded(values[n]) for name, values in heads.items()}
        made = {name: rounded(calibrate.apply(calibration[name], values[n : n + 1])[0]) for name, values in heads.items()}
        lines.append({
            "user": users[n], "item": items[n], "query": [rounded(v) for v in query[n]],
            "vector": [rounded(v) for v in vector[n]], "heads": raw, "predictions": made,
        })
    if (folder / "light.onnx").exists():
        similarity = {"similarity": (query * vector).sum(axis=1, keepdims=True)}
        for name, logits in run(folder, "light.onnx", of_user | of_item | similarity).items():
            for line, logit in zip(lines, logits):
                line[name] = rounded(logit[0])
    return lines, rows


def parity(data: Dataset, towers: dict, raw: dict, lines: list[dict], rows: np.ndarray) -> dict[str, float]:
    """Largest difference between the training framework (tables rounded as stored) and the written files, over max(1, |value|)."""
    names, split = models.layout(data.schema), data.valid
    towers = jax.tree.map(jnp.asarray, export.stored_towers(towers))
    u = user_inputs(data, split.visit[rows])
    i = item_inputs(data, split.item[rows], {k: v[rows] for k, v in split.item_dense.items()})
    raw = {name: values[rows] for name, values in raw.items()}
    run = jax.jit(lambda p, u, i: {"query": models.user_tower(p, names, u), "vector": models.item_tower(p, names, i)})
    ours = run(towers, u, i) | raw
    out = {}
    for name, values in ours.items():
        theirs = np.array([line[name] if name in line else line["heads"][name] for line in lines], np.float32)
        known = np.arange(2, len(rows))  # the first two were emptied
        out[name] = float((np.abs(np.asarray(values)[known] - theirs[known]) / np.maximum(1.0, np.abs(theirs[known]))).max())
    return out


def served(schema: dict, family) -> dict:
    """The schema as the bundle has it: sequences only where the ranker reads them."""
    return schema | {"feature": [f for f in schema["feature"] if f["kind"] != "sequence" or family.name == "sequence"]}


def write(folder: Path, data: Dataset, towers: dict, family, rank, raw: dict, rules: tuple[dict, dict, float], seed: int, head: dict | None = None) -> dict:
    """Writes every file; refuses to end when the two implementations differ.

    `raw` holds the family's outputs on the validation rows, `rules` the calibration, the light ranking, and the
    share of conversions among clicks; `head` a light head of `light.py`.
    """
    calibration, product, prior_conversion = rules
    data = copy.copy(data)
    data.schema = served(data.schema, family)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    files, said = family.files(rank, data.schema)
    graphs = {name: model.SerializeToString() for name, model in export.towers(towers, data.schema, head).items()}
    if head:
        files["light.onnx"] = light.graph(head).SerializeToString()
        product = {"head": "light.onnx"}
    for name, content in (graphs | files).items():
        (folder / name).write_bytes(content)
    cross_keys = () if family.raw_cross else ("transform", "mean", "std")
    (folder / "bundle.toml").write_text(bundle_toml(data.schema, said, cross_keys, calibration, product, prior_conversion))
    lines, rows = golden(folder, data, family, calibration, seed)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (folder / "golden.jsonl.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))
    differences = parity(data, towers, raw, lines, rows)
    if not all(off < TOLERANCE for off in differences.values()):  # nor a NaN
        raise ValueError(f"the written files do not say what the training framework says: {differences}")
    sums = [f"{blake3(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder.iterdir())]
    (folder / "BLAKE3SUMS").write_text("".join(sums))
    sizes = {p.name: p.stat().st_size for p in folder.iterdir()}
    return {"parity": differences, "bytes": sum(sizes.values()), "ranker_bytes": sum(sizes[name] for name in files if name != "light.onnx")}
