"""Pairs a second in training a bi-encoder (cosine MSE, batch 128, 32 tokens), against the trainer of its peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.common import Row, main, minilm
from benchmarks.training import measure
from transenc.config import Distill
from transenc.pairs import Pairs

QUICK, FULL = 512, 4_096
SETTINGS = Distill().bi.model_copy(update={"epochs": 1})


def peer(device: str, path: Path | None = None) -> Any:
    """Return a new peer of a directory, of minilm without one."""
    return peers.bi(path or minilm(), device=device, max_length=SETTINGS.max_length)


def train(model: Any, pairs: Pairs, bf16: bool) -> float:
    """Train the peer as we do and return its mean loss."""
    return peers.train_bi(model, pairs, batch=SETTINGS.batch_size, rate=SETTINGS.learning_rate, bf16=bf16)


def score(model: Any, pairs: Pairs) -> Any:
    """Return the peer's cosines."""
    left, right = (model.encode(pairs.column(side)) for side in (pairs.left, pairs.right))
    return (left * right).sum(1)


def run(size: int) -> list[Row]:
    """Train one epoch of `size` pairs each way."""
    return measure("bi", size, SETTINGS, peer, train, score)


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
