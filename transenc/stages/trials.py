"""Seed optimisation: try several seeds for a share of the steps and train the best one on (Dodge et al., 2020)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from transenc.config import DistillSettings
from transenc.memory import release
from transenc.seeds import derive
from transenc.store import Checkpoints
from transenc.training import Fitted

logger = logging.getLogger(__name__)

Train = Callable[[int, Checkpoints, float | None], tuple[Any, Fitted]]


@dataclass(frozen=True)
class Tried:
    """The seed that came out first, its checkpoints, its number and the score of every trial."""

    seed: int
    checkpoints: Checkpoints
    kept: int
    scores: list[float]


def train_best(
    settings: DistillSettings, seed: int, checkpoints: Checkpoints, train: Train
) -> tuple[Any, Fitted, Tried | None]:
    """Train on with the best of the seeds, if several are to be tried; return the model, and what was done."""
    if settings.trials == 1:
        return *train(seed, checkpoints, None), None
    tried = try_seeds(settings, seed, checkpoints, train)
    return *train(tried.seed, tried.checkpoints, None), tried


def try_seeds(settings: DistillSettings, seed: int, checkpoints: Checkpoints, train: Train) -> Tried:
    """Train each trial's seed for a share of the steps and return the best; the first is `seed` itself.

    train: seed, checkpoints, share of the steps -> the model and what training did. A trial ends with a
    checkpoint, so the best one is trained on and a stopped run repeats none. One model is in memory at a time.
    """
    seeds = [seed, *(derive(seed, "trial", k) for k in range(1, settings.trials))]
    places = [replace(checkpoints, name=f"{checkpoints.name}/trial-{k}") for k in range(len(seeds))]
    scores = []
    for tried, place in zip(seeds, places, strict=True):
        fitted = train(tried, place, settings.trial_share)[1]
        release()  # the model of this trial, before the next one's
        # The winner may have gone on before the run was stopped: what came after the trial does not count, nor does
        # the start's own score, which is the same in all.
        scores.append(max(value for step, value in fitted.history if 0 < step <= fitted.limit))
    kept = scores.index(max(scores))
    logger.info(
        "%s: %d seeds, each for %g of the steps, have %s; the best one is trained on.",
        checkpoints.name,
        len(seeds),
        settings.trial_share,
        ", ".join(f"{100 * score:.2f}" for score in scores),
    )
    return Tried(seeds[kept], places[kept], kept, scores)
