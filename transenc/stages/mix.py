"""Put gold and silver pairs together for training: chosen, hardened, weighted, gold never contradicted."""

from __future__ import annotations

from typing import Any

import numpy as np

from transenc.errors import DataError
from transenc.pairs import Index, Pairs, Scores, join, without
from transenc.samplers.mix import build
from transenc.seeds import derive

BINS = 10


def mix_pairs(
    gold: Pairs, silver: Pairs | None, settings: dict[str, Any], seed: int
) -> tuple[Pairs, dict[str, Any]]:
    """Return gold and silver pairs as often as their weights say, and a report of their labels.

    settings: keep (a sampler that chooses by labels, or None), hard (threshold or None), weight, silver_weight.
    A silver pair that is also gold, in whatever order and case, is dropped.
    """
    if silver is None:
        silver = gold.take(slice(0, 0))
    fresh, repeated = without(silver, [gold])
    assert gold.scores is not None
    assert fresh.scores is not None
    rule: dict[str, Any] | None = None
    kept = fresh
    if settings["keep"]:
        sampler: Any = build(settings["keep"])
        chosen, rule = sampler.keep(
            gold.scores, fresh.scores, np.random.default_rng(derive(seed, "mix", "keep"))
        )
        kept = fresh.take(chosen)
    assert kept.scores is not None
    if settings["hard"] is not None:
        kept = kept.with_scores((kept.scores >= settings["hard"]).astype(np.float32))
    parts = [
        _times(gold, settings["weight"], derive(seed, "mix", "gold")),
        _times(kept, settings["silver_weight"], derive(seed, "mix", "silver")),
    ]
    mixed = join([part for part in parts if len(part)])
    if not len(mixed):
        raise DataError("No pair is left to train on: gold has the weight 0 and there is no silver pair.")
    report = {
        "pairs": len(mixed),
        "gold_pairs": len(gold),
        "silver_pairs": len(silver),
        "silver_also_gold": repeated,
        "kept_pairs": len(kept),
        "weights": [settings["weight"], settings["silver_weight"]],
        "rule": rule,
        "spread": {"gold": spread(gold.scores), "silver": spread(fresh.scores)},
        "histograms": {
            "gold": histogram(gold.scores),
            "silver": histogram(fresh.scores),
            "kept": histogram(kept.scores),
        },
    }
    return mixed, report


def histogram(scores: Scores | None) -> list[int]:
    """Count labels in ten equal bins of [0, 1]."""
    assert scores is not None
    return [int(n) for n in np.histogram(scores, bins=BINS, range=(0, 1))[0]]


def spread(scores: Scores) -> float:
    """Return the standard deviation of labels, 0 for none."""
    return float(np.std(scores, dtype=np.float64)) if len(scores) else 0.0


def _times(pairs: Pairs, weight: float, seed: int) -> Pairs:
    """Repeat pairs `weight` times; its fraction is a seeded sample of them."""
    whole = int(weight)
    index: list[Index] = [np.arange(len(pairs))] * whole
    part = round((weight - whole) * len(pairs))
    if part:
        index.append(np.sort(np.random.default_rng(seed).choice(len(pairs), part, replace=False)))
    return pairs.take(np.concatenate([np.zeros(0, np.int64), *index]).astype(np.int64))
