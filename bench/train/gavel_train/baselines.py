"""What would simple methods reach on the same rows? Logistic regression; own history, popularity and SVD."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from sklearn.linear_model import LogisticRegression

from .dataset import Dataset, Split, features


def regression_features(data: Dataset, split: Split) -> np.ndarray:
    """Logs of every match and of its rate, of the user's activity and of the item's numbers."""
    match = np.log1p(split.cross)
    user = np.stack([np.log1p(data.user_dense[f["name"]][split.visit]) for f in features(data.schema, ("user",), "dense")], 1)
    columns = [match, match - user[:, -1:], split.cross > 0, user]
    for f in features(data.schema, ("item",), "dense"):
        raw = split.item_dense[f["name"]]
        columns += [np.log(np.maximum(np.nan_to_num(raw), 1e-4))[:, None], ~np.isfinite(raw)[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)


def logistic(data: Dataset, head: str) -> np.ndarray:
    """Log odds on the validation rows of a regression fitted on the training rows of a head."""
    train, valid = data.train, data.valid
    rows = np.flatnonzero(train.given[head])
    x, scale = regression_features(data, train)[rows], train.weight[rows]
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    model = LogisticRegression(max_iter=100, C=1.0)
    model.fit((x - mean) / std, train.labels[head][rows], sample_weight=scale / scale.mean())
    return model.decision_function((regression_features(data, valid) - mean) / std)


def own_history(data: Dataset, visit: int) -> np.ndarray:
    """How often each item was bought by this visit's user before it: the whole history, not the cut set."""
    first, last = data.history_spans[visit]
    return np.bincount(data.history_items[first:last], minlength=len(data.items)).astype(np.float32)


def svd(data: Dataset, width: int) -> tuple[dict, np.ndarray]:
    """Users and items from the training histories: log counts, truncated SVD."""
    schema = data.schema
    users = data.visits[schema["columns"]["user"]].to_numpy()
    last = {}
    train_visits = np.unique(data.train.visit)
    for visit in train_visits:
        last[users[visit]] = max(last.get(users[visit], visit), visit, key=lambda v: data.history_spans[v][1])
    rows, columns, values = [], [], []
    for n, visit in enumerate(last.values()):
        counts = own_history(data, visit)
        found = np.flatnonzero(counts)
        rows += [n] * len(found)
        columns += found.tolist()
        values += np.log1p(counts[found]).tolist()
    u, s, vt = svds(csr_matrix((values, (rows, columns)), shape=(len(last), len(data.items))), k=width, random_state=0)
    return {user: u[n] * s for n, user in enumerate(last)}, vt.T
