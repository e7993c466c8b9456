"""Pairs a second in training a cross-encoder (soft BCE, batch 32, 64 tokens), against the trainer of its peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks import peers
from benchmarks.common import Row, main, minilm
from benchmarks.training import measure
from transenc.config import Distill
from transenc.pairs import Pairs

QUICK, FULL = 256, 4_096
SETTINGS = Distill().cross.model_copy(update={"epochs": 1, "both_orders": False, "warmup": 0.0})


def peer(device: str, path: Path | None = None) -> Any:
    """Return a new peer of a directory, of minilm without one, the same at each call."""
    torch.manual_seed(0)
    return peers.cross(path or minilm(), device=device, max_length=SETTINGS.max_length)


def train(model: Any, pairs: Pairs, bf16: bool) -> float:
    """Train the peer as we do and return its mean loss."""
    return peers.train_cross(model, pairs, batch=SETTINGS.batch_size, rate=SETTINGS.learning_rate, bf16=bf16)


def score(model: Any, pairs: Pairs) -> Any:
    """Return the peer's scores."""
    return model.predict(list(pairs.rows()))


def run(size: int) -> list[Row]:
    """Train one epoch of `size` pairs, in one order, each way."""
    return measure("cross", size, SETTINGS, peer, train, score)


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
