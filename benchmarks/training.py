"""What the two training benchmarks share: students, equal work on both sides, and comparison with plain batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.common import Row, computes, dev, in_turn, minilm, no_bf16, pairs, spearman
from benchmarks.limits import products, share, synchronise
from transenc import registry
from transenc.config import DistillSettings
from transenc.models.device import Compute
from transenc.models.transformer import Transformer
from transenc.pairs import Pairs
from transenc.stages.distill import distill_model
from transenc.training import Fit


def student(family: str, settings: DistillSettings, compute: Compute, path: Path | None = None) -> Any:
    """Return a new student of a directory, of minilm without one, the same at each call."""
    torch.manual_seed(0)
    return registry.load(registry.FAMILIES, family)().create(
        path or minilm(), compute=compute, max_length=settings.max_length, pooling="mean"
    )


def train(model: Any, given: Pairs, settings: DistillSettings, compute: Compute) -> list[float]:
    """Train and return the losses as they were reported: of every step on a CPU, a step late on a GPU."""
    losses: list[float | None] = []
    run = Fit(settings, compute, 0, "benchmark", report=lambda p: losses.append(p.loss))
    distill_model(model, given, settings, run)
    return [loss for loss in losses if loss is not None]


def token_counts(model: Any, family: str, given: Pairs) -> npt.NDArray[np.int64]:
    """Return the token counts of all sequences that one epoch reads in one order."""
    texts = (
        list(given.rows()) if family == "cross" else [*given.column(given.left), *given.column(given.right)]
    )
    lengths: npt.NDArray[np.int64] = model.transformer.tokens(texts).lengths
    return lengths


def plain_difference(family: str, settings: DistillSettings, given: Pairs) -> float:
    """Return how far the losses are from those of plain padded batches, without dropout, in 4 steps of fp32."""
    few = settings.model_copy(update={"batch_size": 16, "dropout": 0.0})
    given, compute = given.take(slice(64)), Compute()
    curves = [train(student(family, few, compute), given, few, compute)]
    with (
        patch.object(Transformer, "passes", lambda self, lengths: [[np.arange(len(lengths))]]),
        patch.object(Transformer, "unpadded", False),
    ):
        curves.append(train(student(family, few, compute), given, few, compute))
    return float(np.abs(np.diff(curves, axis=0)).max())


def compete(
    family: str,
    settings: DistillSettings,
    given: Pairs,
    compute: Compute,
    peer_of: Callable[[str], Any],
    train_peer: Callable[[Any, Pairs, bool], float],
    *,
    peers: Mapping[str, bool],
    path: Path | None = None,
) -> tuple[dict[str, float], dict[str, tuple[Any, float]], str]:
    """Train "ours" and `peers`, named by whether they train in bf16, in turn.

    Return the seconds, and the model and mean loss, of each; and what share of the matrix rate ours used.
    """

    def ours(model: Any) -> tuple[Any, float]:
        loss = float(np.mean(train(model, given, settings, compute)))
        synchronise(compute)
        return model, loss

    def theirs(model: Any, bf16: bool) -> tuple[Any, float]:
        loss = train_peer(model, given, bf16)
        synchronise(compute)
        return model, loss

    # As in transenc, bf16 trains fp32 weights under autocast.
    new = {name: partial(peer_of, compute.device) for name in peers}
    sides = {name: partial(theirs, bf16=bf16) for name, bf16 in peers.items()}
    seconds, results = in_turn(
        {"ours": ours, **sides},
        prepare={"ours": lambda: student(family, settings, compute, path), **new},
    )
    mine = results["ours"][0]
    counts = token_counts(mine, family, given)
    operations = 3 * settings.epochs * products(mine.transformer.module.config, counts, first=mine.head.first)
    return seconds, results, share(compute, operations, seconds["ours"])


def measure(
    family: str,
    size: int,
    settings: DistillSettings,
    peer_of: Callable[[str], Any],
    train_peer: Callable[[Any, Pairs, bool], float],
    score_peer: Callable[[Any, Pairs], Any],
) -> list[Row]:
    """Train both sides on `size` pairs at each precision, and transenc's best against the peer's default.

    peer_of: device -> a new peer. train_peer: peer, pairs, bf16 -> mean loss.
    """
    given = pairs(size)
    gold = dev()
    assert gold.scores is not None
    same = plain_difference(family, settings, given)
    rows: list[Row] = []
    default = None
    for compute in computes():
        bf16 = compute.precision == "bf16"
        seconds, results, used = compete(
            family, settings, given, compute, peer_of, train_peer, peers={"theirs": bf16}
        )
        default = seconds["theirs"] if default is None else default
        (mine, my_loss), (other, other_loss) = results["ours"], results["theirs"]
        mine_dev = spearman(mine.score(gold), gold.scores)
        other_dev = spearman(score_peer(other, gold), gold.scores)
        agreement = (
            f"losses of plain batches within {same:.1e}; mean loss {my_loss:.4f} against {other_loss:.4f}, "
            f"dev Spearman {mine_dev:.4f} against {other_dev:.4f} (other orders and dropout); {used}{no_bf16()}"
        )
        name = f"train {family}, {size:,} pairs, batch {settings.batch_size}, {compute.precision}"
        for peer, time, goal in (
            ("sentence-transformers", seconds["theirs"], 1.5),
            ("sentence-transformers at its defaults", default if bf16 else None, 4.0),
        ):
            if time is not None:
                rate = size / seconds["ours"]
                rows.append(Row(name, "pairs/s", rate, agreement, size / time, peer, ratio_goal=goal))
    return rows
