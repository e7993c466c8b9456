from __future__ import annotations

import os

# One thread gives one set of bits, keeps forked children safe, and suits tiny models best.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import numpy as np
import pytest

from tests.tiny import WORDS, tiny_plm
from transenc.pairs import Pairs


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def plm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT."""
    return tiny_plm(tmp_path_factory.mktemp("plm") / "tiny")


def make_pairs(n: int, seed: int = 0, *, scored: bool = False) -> Pairs:
    """Random sentences of known words; the gold of a pair is its word overlap."""
    rng = np.random.default_rng(seed)
    sentences = [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(2 * n)]
    first, second = sentences[:n], sentences[n:]
    # Every other pair shares most of its words, so that gold varies.
    second = [
        f"{a} {b.split()[0]}" if i % 2 else b for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    gold = [_dice(a, b) for a, b in zip(first, second, strict=True)] if scored else None
    return Pairs.from_rows(first, second, gold)


def _dice(a: str, b: str) -> float:
    x, y = set(a.split()), set(b.split())
    return 2 * len(x & y) / (len(x) + len(y))


@pytest.fixture
def pairs() -> Pairs:
    return make_pairs(24)


@pytest.fixture
def dev() -> Pairs:
    return make_pairs(12, seed=1, scored=True)
