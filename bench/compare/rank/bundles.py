"""How do a ranker and random rows become a bundle that a server would open, and inputs for another runtime?

The golden outputs are ONNX Runtime's on the exported graph. Raw rows are what a catalogue and a request would spell;
`feeds` encodes them by the rules of the schema, and shares nothing with the servers' encoding but the hash's recipe.
"""

import json
import pathlib
import sys

import numpy
import onnxruntime
import zstandard
from blake3 import blake3

import models

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "train"))
from gavel_train import hashing  # noqa: E402

GOLDEN_ROWS = 64
MISSING = 0.05
CALIBRATION = {"kind": "platt", "scale": 0.9, "offset": -0.3}


def schema(name, sizes):
    """Features and crosses of a model."""
    if name == "sequence":
        return models.sequence_features(sizes), []
    return models.features(sizes), models.crosses(sizes)


def value(literal):
    if isinstance(literal, dict):
        return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in literal.items()) + " }"
    return json.dumps(literal)


def bundle_toml(name, features, crosses, precision):
    lines = ["format = 1", f'name = "compare-{name}"', "dimension = 16", 'metric = "ip"', "prior_conversion = 0.02"]
    lines += ["", "[light]", "scale = 1.0", "offset = -3.0"]
    if precision != "f32":
        # The largest that a bundle may name: what random weights lose is not what a trained model does.
        lines += ["", "[ranker_options]", f'precision = "{precision}"', "tolerance = 0.05"]
    lines += ["", "[files]"] + [f'{k} = "{k}.onnx"' for k in ("user_tower", "item_tower", "ranker")] + ['golden = "golden.jsonl.zst"']
    for kind, rows in (("feature", features), ("cross", crosses)):
        for row in rows:
            lines += ["", f"[[{kind}]]"] + [f"{k} = {value(v)}" for k, v in row.items()]
    for head, role in zip(models.HEADS, ("click", "conversion_given_click", "hide", "long_click")):
        lines += ["", "[[head]]", f'name = "{head}"', 'kind = "probability"', f'role = "{role}"', f"calibration = {value(CALIBRATION)}"]
    return "\n".join(lines) + "\n"


def raw(generator, features, side):
    """One side's features of one row."""
    row = {}
    for f in features:
        if (f["side"] == "item") != (side == "item"):
            continue
        if f["kind"] == "category" and generator.random() >= MISSING:
            # Values that are met often and values that are not, as real ones are.
            row[f["name"]] = f"{f['name']}={int(generator.zipf(1.2)) % 50_000}"
        elif f["kind"] == "set":
            count = f["max_len"] // 2
            wanted = generator.integers(0, 200, count)
            names = sorted({f"item_{n % 8}={n // 8}" for n in wanted.tolist()})
            row[f["name"]] = {"values": names, "weights": [round(float(x), 3) for x in generator.gamma(2.0, 1.0, len(names))]}
        elif f["kind"] == "sequence":
            count = int(generator.integers(f["max_len"] // 2, f["max_len"] + 1))
            row[f["name"]] = [f"action={int(n) % 50_000}" for n in generator.zipf(1.2, count)]
    return row


def rows(features, users, count, seed):
    """`count` rows, each with an item of its own and one of `users` users, in turn."""
    generator = numpy.random.default_rng(seed)
    of_users = [raw(generator, features, "user") for _ in range(users)]
    return [{"user": of_users[i % users], "item": raw(generator, features, "item")} for i in range(count)]


def transformed(rule, x):
    x = numpy.asarray(x, numpy.float32)
    x = numpy.log1p(numpy.maximum(x, 0)) if rule.get("transform") == "log1p" else x
    return ((x - numpy.float32(rule["mean"])) / numpy.float32(rule["std"])).astype(numpy.float32)


def side_feeds(features, rows, side):
    """Inputs of one side, a row each."""
    out = {}
    for f in features:
        if (f["side"] == "item") != (side == "item"):
            continue
        width = f.get("max_len", 1)
        table = numpy.zeros((len(rows), width), numpy.int64)
        for n, row in enumerate(rows):
            given = row.get(f["name"], [])
            # No ranker here reads a set.
            given = [] if f["kind"] == "set" else [given] if isinstance(given, str) else given[:width]
            for place, text in enumerate(given):
                table[n, place] = hashing.row(text, f["buckets"])
        out[f["name"]] = table
    return out


def cross_feeds(crosses, user, items):
    """The features of a user's meetings with items."""
    out = {}
    for c in crosses:
        held = user.get(c["user"], {"values": [], "weights": []})
        weights = dict(zip(held["values"], held["weights"]))
        out[c["name"]] = transformed(c, [[weights.get(item.get(c["item"]), 0.0)] for item in items])
    return out


def feeds(features, crosses, user, items, form):
    """All inputs of a graph in this form: one user's row, repeated if every input has the candidates' rows."""
    of_user = side_feeds(features, [user], "user")
    if form == "tiled":
        of_user = {k: numpy.repeat(v, len(items), axis=0) for k, v in of_user.items()}
    return of_user | side_feeds(features, items, "item") | cross_feeds(crosses, user, items)


def session(model):
    """ONNX Runtime on one thread, every optimisation on."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # A thread that spins would take CPU time that nobody counts.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(opened, inputs):
    wanted = {i.name: inputs[i.name] for i in opened.get_inputs()}
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, wanted)))


def seven(x):
    """Seven significant digits: all that a float32 holds."""
    return float(f"{float(x):.7g}")


def predictions(logits):
    return {head: 1 / (1 + float(numpy.exp(-(CALIBRATION["scale"] * x + CALIBRATION["offset"])))) for head, x in logits.items()}


def golden(features, crosses, made):
    """Golden rows of a bundle: raw features, and what ONNX Runtime makes of them."""
    opened = {name: session(model) for name, model in made.items()}
    lines = []
    for row in rows(features, 8, GOLDEN_ROWS, seed=7):
        inputs = feeds(features, crosses, row["user"], [row["item"]], "tiled")
        out = {name: run(o, inputs) for name, o in opened.items()}
        heads = {head: seven(out["ranker"][head][0, 0]) for head in models.HEADS}
        vectors = {"query": out["user_tower"]["query"][0], "vector": out["item_tower"]["vector"][0]}
        lines.append(row | {k: [seven(x) for x in v] for k, v in vectors.items()} | {"heads": heads, "predictions": predictions(heads)})
    return lines


def write(folder, name, sizes, precision="f32"):
    """A bundle of the model; gives its schema."""
    folder.mkdir(parents=True, exist_ok=True)
    features, crosses = schema(name, sizes)
    made = models.towers(sizes) | {"ranker": models.ranker(name, "tiled", sizes, precision)}
    for file, model in made.items():
        (folder / f"{file}.onnx").write_bytes(model.SerializeToString())
    (folder / "bundle.toml").write_text(bundle_toml(name, features, crosses, precision))
    text = "".join(json.dumps(line) + "\n" for line in golden(features, crosses, made))
    (folder / "golden.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    kept = [p for p in sorted(folder.iterdir()) if p.name != "BLAKE3SUMS"]
    (folder / "BLAKE3SUMS").write_text("".join(f"{blake3(p.read_bytes()).hexdigest()}  {p.name}\n" for p in kept))
    return features, crosses
