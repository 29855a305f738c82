"""Writes a bundle folder: three graphs, the schema, golden rows, checksums.

The golden outputs come from ONNX Runtime on the written files, an implementation that shares nothing with the
servers' executor; the training framework is compared with it on the same rows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import zstandard
from blake3 import blake3

from . import export, hashing, models
from .dataset import Dataset, Split, features
from .inputs import cross_inputs, encode, item_inputs, user_inputs

GOLDEN_VISITS, GOLDEN_ROWS = 64, 512
TOLERANCE = 1e-4


def toml_value(value) -> str:
    """A TOML literal."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (bool, int)):
        return str(value).lower()
    return repr(float(value))


def bundle_toml(schema: dict, calibration: dict, light: dict, prior_conversion: float) -> str:
    """The file that the servers read first."""
    lines = ["format = 1"]
    head = {"name": schema["name"], "dimension": schema["dimension"], "metric": schema["metric"], "value_weight": 0.0}
    lines += [f"{k} = {toml_value(v)}" for k, v in (head | {"prior_conversion": prior_conversion}).items()]
    lines += ["", "[light]"] + [f"{k} = {toml_value(v)}" for k, v in light.items()]
    lines += ["", "[files]"] + [f'{k} = "{k}.onnx"' for k in ("user_tower", "item_tower", "ranker")] + ['golden = "golden.jsonl.zst"']
    keys = {"category": ["buckets"], "dense": ["transform", "mean", "std", "default"], "set": ["buckets", "max_len"]}
    for f in schema["feature"]:
        lines += ["", "[[feature]]"] + [f"{k} = {toml_value(f[k])}" for k in ["name", "side", "kind"] + keys[f["kind"]] if k in f]
    for c in schema["cross"]:
        lines += ["", "[[cross]]"] + [f"{k} = {toml_value(c[k])}" for k in ("name", "user", "item", "transform", "mean", "std")]
    for h in schema["head"]:
        lines += ["", "[[head]]"] + [f"{k} = {toml_value(h[k])}" for k in ("name", "kind", "role") if k in h]
        lines.append(f"calibration = {toml_value(calibration[h['name']])}")
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
        out[f["name"]] = rounded(data.user_dense[f["name"]][visit])
    for f in features(data.schema, ("user", "context"), "set"):
        places = data.set_values[f["name"]][visit]
        places = places[places >= 0]
        if len(places):
            weights = [rounded(w) for w in data.set_weights[f["name"]][visit][: len(places)]]
            out[f["name"]] = {"values": [data.vocabulary[f["name"]][n] for n in places], "weights": weights}
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
    """Graph inputs from raw features alone, by the rules of the schema: nothing of the dataset is used."""
    out = {}
    for f in schema["feature"]:
        rows = items if f["side"] == "item" else users
        if f["kind"] == "category":
            out[f["name"]] = np.array([[hashing.row(r[f["name"]], f["buckets"]) if f["name"] in r else 0] for r in rows], np.int64)
        elif f["kind"] == "dense":
            out[f["name"]] = encode(f, np.array([[r.get(f["name"], np.nan)] for r in rows], np.float32))
        else:
            places, weights = np.zeros((len(rows), f["max_len"]), np.int64), np.zeros((len(rows), f["max_len"]), np.float32)
            for n, r in enumerate(rows):
                pairs = r.get(f["name"], {"values": [], "weights": []})
                ranked = sorted(zip(pairs["values"], pairs["weights"]), key=lambda p: (-p[1], hashing.value_hash(p[0])))[: f["max_len"]]
                for k, (value, weight) in enumerate(ranked):
                    places[n, k], weights[n, k] = hashing.row(value, f["buckets"]), weight
            out[f["name"]], out[f["name"] + ".weight"] = places, weights
    for c in schema["cross"]:
        raw = []
        for user, item in zip(users, items):
            have = user.get(c["user"], {"values": [], "weights": []})
            raw.append([dict(zip(have["values"], have["weights"])).get(item.get(c["item"]), 0.0)])
        out[c["name"]] = encode(c, np.array(raw, np.float32))
    return out


def run(folder: Path, file: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One graph on ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
    wanted = {i.name: inputs[i.name] for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, wanted)))


def calibrated(rule: dict, raw: np.ndarray) -> np.ndarray:
    """What a server makes of a head's raw output."""
    raw = raw.astype(np.float64)
    if rule["kind"] == "scale":
        return np.maximum(np.expm1(raw), 0) * rule["factor"]
    return 1 / (1 + np.exp(-(rule["scale"] * raw + rule["offset"])))


def golden(folder: Path, data: Dataset, calibration: dict, seed: int) -> tuple[list[dict], np.ndarray]:
    """Golden rows, and which validation rows they are."""
    rng = np.random.default_rng(seed)
    split = data.valid
    chosen = rng.choice(np.unique(split.visit), GOLDEN_VISITS, replace=False)
    pool = np.flatnonzero(np.isin(split.visit, chosen))
    rows = np.sort(rng.choice(pool, GOLDEN_ROWS, replace=False))
    users = [raw_user(data, split.visit[r]) for r in rows]
    items = [raw_item(data, split, r) for r in rows]
    # A server must also cope with a user and an item it knows nothing of.
    users[0], items[1] = {}, {}
    inputs = feeds(data.schema, users, items)
    query = run(folder, "user_tower.onnx", inputs)["query"]
    vector = run(folder, "item_tower.onnx", inputs)["vector"]
    heads = run(folder, "ranker.onnx", inputs)
    lines = []
    for n in range(len(rows)):
        raw = {name: rounded(values[n, 0]) for name, values in heads.items()}
        made = {name: rounded(calibrated(calibration[name], values[n : n + 1, 0])[0]) for name, values in heads.items()}
        lines.append({
            "user": users[n], "item": items[n], "query": [rounded(v) for v in query[n]],
            "vector": [rounded(v) for v in vector[n]], "heads": raw, "predictions": made,
        })
    return lines, rows


def parity(folder: Path, data: Dataset, towers: dict, rank: dict, lines: list[dict], rows: np.ndarray) -> dict[str, float]:
    """Largest difference between the training framework (tables rounded as stored) and ONNX Runtime."""
    names, split = models.layout(data.schema), data.valid
    towers, rank = export.stored_towers(towers), export.stored_ranker(rank)
    u = user_inputs(data, split.visit[rows])
    i = item_inputs(data, split.item[rows], {k: v[rows] for k, v in split.item_dense.items()})
    raw = models.ranker(rank, names, u, i, cross_inputs(data, split.cross[rows]), np.arange(len(rows)))
    ours = {"query": models.user_tower(towers, names, u), "vector": models.item_tower(towers, names, i)} | raw
    out = {}
    for name, values in ours.items():
        theirs = np.array([line[name] if name in line else line["heads"][name] for line in lines], np.float32)
        known = np.arange(2, len(rows))  # the first two were emptied
        out[name] = float((np.abs(np.asarray(values)[known] - theirs[known]) / np.maximum(1.0, np.abs(theirs[known]))).max())
    return out


def write(folder: Path, data: Dataset, towers: dict, rank: dict, calibration: dict, light: dict, prior_conversion: float, seed: int) -> dict:
    """Writes every file; refuses to end when the two implementations differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, model in export.graphs(towers, rank, data.schema).items():
        (folder / name).write_bytes(model.SerializeToString())
    (folder / "bundle.toml").write_text(bundle_toml(data.schema, calibration, light, prior_conversion))
    lines, rows = golden(folder, data, calibration, seed)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (folder / "golden.jsonl.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))
    differences = parity(folder, data, towers, rank, lines, rows)
    assert max(differences.values()) < TOLERANCE, differences
    sums = [f"{blake3(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder.iterdir())]
    (folder / "BLAKE3SUMS").write_text("".join(sums))
    return {"parity": differences, "bytes": sum(p.stat().st_size for p in folder.iterdir())}
