"""What need not be made again? Pickles in a folder, by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Callable


def kept(cache: Path | None, name: str, make: Callable):
    """What the cache holds under this name, or else what `make` gives, put there."""
    file = cache / f"{name}.pickle" if cache else None
    if file and file.exists():
        return pickle.loads(file.read_bytes())
    value = make()
    if file:
        cache.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(value, protocol=5))
    return value
