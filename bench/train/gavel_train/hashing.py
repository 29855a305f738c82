"""Which number stands for a categorical value?

The same hash as the servers' `value_hash`: FNV-1a 64 over UTF-8, then the finaliser of MurmurHash3, never 0.
`check()` asserts the pairs that the Rust tests assert, so that a drift between the languages cannot pass.
"""

from functools import cache

MASK = (1 << 64) - 1


def mix64(x: int) -> int:
    """The 64-bit finaliser of MurmurHash3."""
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & MASK
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ x >> 33


@cache
def value_hash(value: str) -> int:
    """The number of a value; 0 is kept for a missing one."""
    h = 0xCBF29CE484222325
    for byte in value.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK
    return mix64(h) or 1


def row(value: str, buckets: int) -> int:
    """The embedding row of a value; row 0 is the missing one."""
    return 1 + value_hash(value) % buckets


def check() -> None:
    """The vectors that both languages hold."""
    assert value_hash("") == mix64(0xCBF29CE484222325)
    assert value_hash("GROCERY") == 13_918_692_429_262_488_608
    assert value_hash("é") == 11_337_192_735_045_482_043
