"""Small rankers in jax, exported by jax2onnx.

    python export_jax.py .          # jax 0.10, jax2onnx 0.17, onnxruntime
"""
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax2onnx import to_onnx

from finish import finish

r = np.random.default_rng(5)
W = lambda *s: jnp.asarray(r.normal(size=s, scale=.3), jnp.float32)
P = dict(seg=W(11,4), kind=W(21,4), items=W(21,4), w1=W(15,16), b1=W(16), g=W(16), be=W(16), e=W(3,16,8), gate=W(16,3), t=W(2,8,1))
def model(segment, age, history, weight, kind, price, match):
    take = lambda t, i: jnp.take(t, i, axis=0)
    pooled = (take(P['items'], history) * weight[..., None]).sum(1)
    x = jnp.concatenate([take(P['seg'], segment)[:, 0], pooled, age, take(P['kind'], kind)[:, 0], price, match], -1)
    x = x @ P['w1'] + P['b1']
    mu = x.mean(-1, keepdims=True); v = x.var(-1, keepdims=True)
    x = (x - mu) * jax.lax.rsqrt(v + 1e-5) * P['g'] + P['be']
    x = jax.nn.gelu(x)
    e = jax.nn.relu(jnp.einsum('bi,eij->bej', x, P['e']))
    gate = jax.nn.softmax(x @ P['gate'], axis=-1)
    y = jnp.einsum('be,bej->bj', gate, e)
    return y @ P['t'][0], y @ P['t'][1]
def sequence(segment, age, history, weight, kind, price, match):
    take = lambda t, i: jnp.take(t, i, axis=0)
    mask = history > 0
    x = take(P['items'], history) * weight[..., None]
    q = take(P['kind'], kind)
    s = jnp.einsum('bqd,bld->bql', q, x) / 2.0
    s = jnp.where(mask[:, None, :], s, -1e9)
    a = jax.nn.softmax(s, axis=-1)
    t = jnp.einsum('bql,bld->bqd', a, x)[:, 0]
    y = jnp.concatenate([t, q[:, 0], take(P['seg'], segment)[:, 0], age, price, match], -1)
    h = jax.nn.silu(y @ P['w1'] + P['b1'])
    return h @ P['gate'][:, :1], h @ P['gate'][:, 1:2]

NAMES = ['segment', 'age', 'history', 'history.weight', 'kind', 'price', 'match']
I, F = jnp.int32, jnp.float32
SPEC = [(('B', 1), I), (('B', 1), F), (('B', 6), I), (('B', 6), F), (('B', 1), I), (('B', 1), F), (('B', 1), F)]

if __name__ == '__main__':
    out = sys.argv[1]
    for fn in [model, sequence]:
        m = to_onnx(fn, inputs=[jax.ShapeDtypeStruct(s, d) for s, d in SPEC], model_name=fn.__name__)
        onnx.save(m, f'{out}/tmp.onnx')
        names = [i.name for i in m.graph.input] + [o.name for o in m.graph.output]
        finish(f'{out}/tmp.onnx', f'{out}/jax_{fn.__name__}', dict(zip(names, NAMES + ['click', 'conv'])))
