"""A whole cycle (label, train a cross-encoder, label, train a bi-encoder), against the same recipe on its peer.

Neither side evaluates while it works; afterwards both results are measured on the task.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.common import DATA, TASK, Row, computes, in_turn, main, minilm, no_bf16, pairs, spearman
from benchmarks.training import student
from transenc import tasks
from transenc.config import Distill, DistillSettings
from transenc.models.bi import BiFamily
from transenc.pairs import Pairs, join
from transenc.scorer import to_labels
from transenc.stages.distill import distill_model
from transenc.stages.label import score_pairs
from transenc.training import Fit

QUICK, FULL = 256, 8_000
CROSS = Distill().cross
BI = Distill().bi.model_copy(update={"epochs": 3})


def run(size: int) -> list[Row]:
    """Run the cycle on `size` pairs each way."""
    given = pairs(size).with_scores(None)
    compute = computes()[-1]

    def learn(family: str, silver: Pairs, settings: DistillSettings) -> Any:
        model = student(family, settings, compute)
        distill_model(model, silver, settings, Fit(settings, compute, 0, f"benchmark/{family}"))
        return model

    def ours() -> Any:
        teacher = BiFamily().load(minilm(), compute=compute)
        silver = given.with_scores(to_labels(score_pairs(teacher, given)).values)
        cross = learn("cross", silver, CROSS)
        silver = given.with_scores(to_labels(score_pairs(cross, given)).values)
        return learn("bi", silver, BI)

    def theirs() -> Any:
        teacher = peers.bi(minilm(), device=compute.device)
        left, right = (teacher.encode(given.column(side)) for side in (given.left, given.right))
        silver = given.with_scores(np.clip((left * right).sum(1), 0, 1))
        torch.manual_seed(0)
        cross = peers.cross(minilm(), device=compute.device, max_length=CROSS.max_length)
        both = join([silver, silver.flipped()])
        rate, batch = CROSS.learning_rate, CROSS.batch_size
        peers.train_cross(cross, both, batch=batch, rate=rate, warmup=CROSS.warmup)
        silver = given.with_scores(np.clip(cross.predict(list(given.rows())), 0, 1))
        bi = peers.bi(minilm(), device=compute.device, max_length=BI.max_length)
        peers.train_bi(bi, silver, batch=BI.batch_size, rate=BI.learning_rate, epochs=BI.epochs)
        return bi

    seconds, results = in_turn({"ours": ours, "theirs": theirs}, rounds=1)
    mine, other = average(results["ours"].encode), average(results["theirs"].encode)
    agreement = (
        f"average Spearman on task {TASK}: {mine:.4f} against {other:.4f}; {compute.precision} against the peer's "
        f"default fp32; one round{no_bf16()}"
    )
    what = f"one cycle, {size:,} pairs, 1 epoch cross, {BI.epochs} epochs bi"
    peer = "sentence-transformers at its defaults"
    return [Row(what, "s", seconds["ours"], agreement, seconds["theirs"], peer, less=True, ratio_goal=3.5)]


def average(encode: Any) -> float:
    """Return a bi-encoder's Spearman averaged over the task's test sets."""
    values = []
    for gold in tasks.tests(tasks.get(TASK), DATA).values():
        vectors = np.asarray(encode(list(gold.sentences)), np.float32)
        values.append(spearman((vectors[gold.left] * vectors[gold.right]).sum(1), gold.scores))
    return float(np.mean(values))


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
