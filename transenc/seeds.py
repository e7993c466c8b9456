"""Randomness as a pure function of names and numbers, so that nothing can shift it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager


def derive(seed: int, *parts: str | int) -> int:
    """Return a 63-bit seed for one purpose, such as `derive(1, "cycle-1/distill-bi/mini", "order", epoch)`."""
    text = "\x1f".join([str(seed), *(str(part) for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give torch's global generators back as they were, after a block that seeds them."""
    import torch  # local: heavy, and a sampler derives seeds without it

    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if used else ()):
        yield
    if not used:  # cards that are first used in the block or later begin as torch.manual_seed would have them
        torch.cuda.manual_seed_all(torch.initial_seed())
