"""Pairs a second in training a cross-encoder (soft BCE, batch 32, 64 tokens), against the trainer of its peer."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import peers
from benchmarks.common import Row, main, minilm
from benchmarks.training import measure
from transenc.config import Distill
from transenc.pairs import Pairs

QUICK, FULL = 256, 4_096


def run(size: int) -> list[Row]:
    """Train one epoch of `size` pairs, in one order, each way."""
    settings = Distill().cross.model_copy(update={"both_orders": False, "warmup": 0.0})

    def peer(device: str, precision: str) -> Any:
        torch.manual_seed(0)
        return peers.cross(minilm(), device=device, precision=precision, max_length=settings.max_length)

    def train(model: Any, pairs: Pairs, bf16: bool) -> float:
        return peers.train_cross(
            model, pairs, batch=settings.batch_size, rate=settings.learning_rate, bf16=bf16
        )

    return measure(
        "cross", size, settings, peer, train, lambda model, pairs: model.predict(list(pairs.rows()))
    )


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
