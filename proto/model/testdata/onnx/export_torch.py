"""Small rankers as they are written in torch, and their export by both of torch's exporters.

    python export_torch.py .        # torch 2.15, onnxscript, onnxruntime
"""
import sys
import warnings

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from finish import finish

class Base(nn.Module):
    def __init__(s):
        super().__init__()
        s.segment = nn.Embedding(11, 4); s.kind = nn.Embedding(21, 4)
        s.item_table = nn.Embedding(21, 4, padding_idx=0)
    def parts(s, segment, age, history, weight, kind, price, match):
        pooled = (s.item_table(history) * weight.unsqueeze(-1)).sum(1)
        return [s.segment(segment).squeeze(1), pooled, age, s.kind(kind).squeeze(1), price, match]

class Mlp(Base):
    WIDTH = 4+4+1+4+1+1
    def __init__(s):
        super().__init__()
        s.bn = nn.BatchNorm1d(s.WIDTH)
        s.net = nn.Sequential(nn.Linear(s.WIDTH, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(.1), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.PReLU())
        s.click = nn.Linear(8, 1); s.conv = nn.Linear(8, 1)
    def forward(s, *x):
        x = torch.cat(s.parts(*x), dim=1)
        x = s.net(s.bn(x))
        return s.click(x), s.conv(x)

class DcnMmoe(Base):
    WIDTH = Mlp.WIDTH
    def __init__(s, experts=3, rank=3):
        super().__init__()
        w = s.WIDTH
        s.u = nn.ParameterList([nn.Parameter(torch.randn(w, rank)*.3) for _ in range(2)])
        s.v = nn.ParameterList([nn.Parameter(torch.randn(rank, w)*.3) for _ in range(2)])
        s.b = nn.ParameterList([nn.Parameter(torch.randn(w)*.1) for _ in range(2)])
        s.w1 = nn.Parameter(torch.randn(experts, w, 8)*.3); s.b1 = nn.Parameter(torch.randn(experts, 8)*.1)
        s.gates = nn.ModuleList([nn.Linear(w, experts, bias=False) for _ in range(2)])
        s.towers = nn.ModuleList([nn.Sequential(nn.Linear(8, 6), nn.SiLU(), nn.Linear(6, 1)) for _ in range(2)])
    def forward(s, *x):
        x0 = x = torch.cat(s.parts(*x), dim=-1)
        for u, v, b in zip(s.u, s.v, s.b):
            x = x0 * (x @ u @ v + b) + x
        e = F.relu(torch.einsum('bi,eij->bej', x, s.w1) + s.b1)
        out = []
        for g, t in zip(s.gates, s.towers):
            gate = torch.softmax(g(x0), dim=1)
            out.append(t(torch.einsum('be,bej->bj', gate, e)))
        return tuple(out)

class Sequence(nn.Module):
    """A transformer over the history, and attention of the target over it."""
    def __init__(s, d=8, heads=2, length=6):
        super().__init__()
        s.d, s.heads = d, heads
        s.items = nn.Embedding(21, d); s.kind = nn.Embedding(21, d); s.segment = nn.Embedding(11, d)
        s.place = nn.Embedding(length + 1, d)
        s.cls = nn.Parameter(torch.randn(1, 1, d))
        s.qkv = nn.Linear(d, 3*d); s.o = nn.Linear(d, d)
        s.n1 = nn.LayerNorm(d); s.n2 = nn.LayerNorm(d)
        s.ff = nn.Sequential(nn.Linear(d, 2*d), nn.GELU(), nn.Linear(2*d, d))
        s.q = nn.Linear(d, d); s.k = nn.Linear(d, d)
        s.head = nn.Sequential(nn.Linear(4*d + 3, 8), nn.ReLU(), nn.Linear(8, 2))
    def attend(s, q, k, v, mask):
        score = q @ k.transpose(-2, -1) / (s.d // s.heads) ** 0.5
        score = score.masked_fill(~mask, -1e9)
        return torch.softmax(score, -1) @ v
    def forward(s, segment, age, history, weight, kind, price, match):
        B, L = history.size(0), history.size(1)
        mask = history > 0
        x = s.items(history) * weight.unsqueeze(-1)
        x = torch.cat([s.cls.expand(B, -1, -1), x], dim=1)
        mask = torch.cat([torch.ones(B, 1, dtype=torch.bool), mask], dim=1)
        x = x + s.place(torch.arange(L + 1, device=x.device)).unsqueeze(0)
        h = s.n1(x)
        q, k, v = s.qkv(h).chunk(3, dim=-1)
        split = lambda t: t.view(B, L + 1, s.heads, s.d // s.heads).transpose(1, 2)
        a = s.attend(split(q), split(k), split(v), mask[:, None, None, :])
        a = a.transpose(1, 2).contiguous().view(B, L + 1, s.d)
        x = x + s.o(a)
        x = x + s.ff(s.n2(x))
        user = x[:, 0]
        t = s.kind(kind).squeeze(1)
        w = (s.k(x) * s.q(t).unsqueeze(1)).sum(-1).masked_fill(~mask, float('-1e9'))
        w = torch.softmax(w, dim=-1)
        target = torch.bmm(w.unsqueeze(1), x).squeeze(1)
        m = mask.float().unsqueeze(-1)
        mean = (x * m).sum(1) / m.sum(1).clamp(min=1.0)
        z = torch.cat([user, target, mean * t, s.segment(segment).squeeze(1), age, price, match], -1)
        y = s.head(z)
        return y[:, 0:1], y[:, 1:2]

class Encoder(nn.Module):
    """torch's own encoder layer."""
    def __init__(s, d=8):
        super().__init__()
        s.items = nn.Embedding(21, d); s.kind = nn.Embedding(21, d)
        layer = nn.TransformerEncoderLayer(d, 2, 16, batch_first=True, dropout=0.0)
        s.enc = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        s.click = nn.Linear(2*d + 3, 1); s.conv = nn.Linear(2*d + 3, 1)
    def forward(s, segment, age, history, weight, kind, price, match):
        x = s.enc(s.items(history) * weight.unsqueeze(-1))
        z = torch.cat([x.mean(1), s.kind(kind).squeeze(1), age, price, match], 1)
        return s.click(z), s.conv(z)

def sample(n=8, seed=0):
    r = np.random.default_rng(seed)
    hist = np.zeros((n, 6), np.int64); w = np.zeros((n, 6), np.float32)
    for i in range(n):
        k = i % 7
        hist[i, :k] = r.choice(np.arange(1, 21), k, replace=False); w[i, :k] = np.sort(r.uniform(.1, 2, k))[::-1]
    return dict(segment=r.integers(0, 11, (n, 1)), age=r.normal(size=(n, 1)).astype(np.float32), history=hist,
        **{'history.weight': w}, kind=r.integers(0, 21, (n, 1)), price=r.normal(size=(n, 1)).astype(np.float32),
        match=r.normal(size=(n, 1)).astype(np.float32))


def main(out):
    warnings.filterwarnings('ignore')
    names, path = list(sample().keys()), f'{out}/tmp.onnx'
    for cls, stem in [(Mlp, 'mlp'), (DcnMmoe, 'mmoe'), (Sequence, 'sequence'), (Encoder, 'encoder')]:
        torch.manual_seed(3)
        m = cls()
        for b in m.buffers():
            if b.dtype.is_floating_point:
                b.uniform_(.5, 1.5)
        m.eval()
        args = tuple(torch.from_numpy(v) for v in sample(5).values())
        torch.onnx.export(m, args, path, dynamo=False, opset_version=17, input_names=names,
                          output_names=['click', 'conv'], dynamic_axes={k: {0: 'batch'} for k in names})
        finish(path, f'{out}/torch_{stem}_script')
        shapes = tuple({0: torch.export.Dim('batch')} for _ in args)
        shapes = (shapes,) if cls in (Mlp, DcnMmoe) else shapes     # forward(*x) takes one tuple
        torch.onnx.export(m, args, path, dynamo=True, dynamic_shapes=shapes, input_names=names,
                          output_names=['click', 'conv'], external_data=False)
        finish(path, f'{out}/torch_{stem}_dynamo')
    # Flat ids: [batch] instead of [batch, 1], as most tables are read.
    class Flat(nn.Module):
        def __init__(s):
            super().__init__(); s.kind = nn.Embedding(21, 4); s.segment = nn.Embedding(11, 4)
            s.net = nn.Linear(10, 2)
        def forward(s, segment, age, kind, price):
            x = torch.cat([s.segment(segment), age.unsqueeze(1), s.kind(kind), price.unsqueeze(-1)], 1)
            y = torch.tanh(s.net(x)).view(x.shape[0], 2)
            return y[:, 0], y[:, 1]
    torch.manual_seed(4); m = Flat().eval(); s = sample(5)
    args = tuple(torch.from_numpy(s[k][:, 0]) for k in ('segment', 'age', 'kind', 'price'))
    ns = ['segment', 'age', 'kind', 'price']
    torch.onnx.export(m, args, path, dynamo=False, opset_version=18, input_names=ns, output_names=['click', 'conv'], dynamic_axes={k: {0: 'n'} for k in ns})
    finish(path, f'{out}/torch_flat_script')


if __name__ == '__main__':
    main(sys.argv[1])
