"""Randomness as a pure function of names and numbers, so that nothing can shift it."""

from __future__ import annotations

import hashlib


def derive(seed: int, *parts: str | int) -> int:
    """Return a 63-bit seed for one purpose, such as `derive(1, "cycle-1/distill-bi/mini", "order", epoch)`."""
    text = "\x1f".join([str(seed), *(str(part) for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
