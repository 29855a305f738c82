"""What need not be made again? Pickles in a folder, by name and by what they were made of.

The trainer's own code is not among what a key is made of: empty the folder after a change of it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Callable


def key(*made_of) -> str:
    """A short name for what something is made of: values of JSON, and `Path`s, whose file counts by name, size and time."""
    def stated(value):
        if isinstance(value, Path):
            found = value.stat()
            return [value.name, found.st_size, found.st_mtime_ns]
        raise TypeError(f"{value!r} cannot be part of a key")

    text = json.dumps(made_of, default=stated, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def kept(cache: Path | None, name: str, made_of: str, make: Callable):
    """What the cache holds of this name and this `key`, or else what `make` gives, put there."""
    file = cache / f"{name}-{made_of}.pickle" if cache else None
    if file and file.exists():
        return pickle.loads(file.read_bytes())
    value = make()
    if file:
        cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_bytes(pickle.dumps(value, protocol=5))
        part.rename(file)
    return value
