"""Makes a fixture of an exported file: the file, rows, and what ONNX Runtime says to them."""
import json
import os

import numpy as np
import onnx
import onnxruntime as ort


def finish(path, target, rename=None):
    """Drops what only debuggers read, names the inputs as features, writes the file with rows and outputs."""
    m = onnx.load(path)
    for n in m.graph.node: del n.metadata_props[:]; n.doc_string = ''
    del m.graph.value_info[:], m.graph.metadata_props[:], m.metadata_props[:]
    for v in list(m.graph.input) + list(m.graph.output): del v.metadata_props[:]
    ren = rename or {}
    for n in m.graph.node:
        for k, i in enumerate(n.input): n.input[k] = ren.get(i, i)
        for k, i in enumerate(n.output): n.output[k] = ren.get(i, i)
    for v in list(m.graph.input) + list(m.graph.output): v.name = ren.get(v.name, v.name)
    data = m.SerializeToString()
    open(f'{target}.onnx', 'wb').write(data)
    s = ort.InferenceSession(data, providers=['CPUExecutionProvider'])
    n = 8
    r = np.random.default_rng(5)
    hist = np.zeros((n, 6), np.int64); w = np.zeros((n, 6), np.float32)
    for i in range(n):
        k = (i // 4 * 3 + 2) % 7
        g = np.random.default_rng(i // 4)
        hist[i, :k] = g.choice(np.arange(1, 21), k, replace=False); w[i, :k] = np.sort(g.uniform(.1, 2, k))[::-1]
    user = lambda a: np.repeat(a[:2], 4, axis=0)   # two users, four items each
    rows = {'segment': user(r.integers(0, 11, (n, 1))), 'age': user(r.normal(size=(n, 1))), 'history': hist, 'history.weight': w,
            'kind': r.integers(0, 21, (n, 1)), 'price': r.normal(size=(n, 1)), 'match': r.normal(size=(n, 1))}
    types = {'tensor(int64)': np.int64, 'tensor(int32)': np.int32, 'tensor(float)': np.float32}
    feed = {}
    for i in s.get_inputs():
        v = rows[i.name]
        feed[i.name] = v.reshape((n,) + tuple(i.shape[1:])).astype(types[i.type])
    got = s.run(['click', 'conv'], feed)
    j = {k: np.asarray(v, np.float64 if v.dtype != np.int64 else np.int64).astype(np.float32 if v.dtype.kind == 'f' else np.int64).tolist() for k, v in rows.items()}
    j['click'], j['conv'] = [g.reshape(n).astype(float).tolist() for g in got]
    json.dump(j, open(f'{target}.json', 'w'))
    os.remove(path)
    print(target, len(data), [g.reshape(n)[:3] for g in got])
