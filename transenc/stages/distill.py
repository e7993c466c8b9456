"""Distil silver labels into a student: one half-cycle, whatever the families."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transenc.config import DistillSettings, check_objective
from transenc.errors import DataError
from transenc.models.bi import BiEncoder
from transenc.models.cross import CrossEncoder
from transenc.objectives import PAIR_OBJECTIVES
from transenc.pairs import Index, Pairs, join
from transenc.stage import distill_group
from transenc.stages.readable import warn_of_cut
from transenc.stages.views import dropout
from transenc.training import Fit, Fitted, fit


def head_option(settings: DistillSettings) -> dict[str, str]:
    """Return the head that a family is asked for, if it is not the usual one."""
    return {} if settings.head == "classifier" else {"head": settings.head}


def distill_model(
    student: BiEncoder | CrossEncoder,
    silver: Pairs,
    settings: DistillSettings,
    run: Fit,
    *,
    symmetric: bool = True,
    clipped: bool = True,
) -> Fitted:
    """Train `student` in place on pairs with labels in [0, 1].

    symmetric: whether the other order of a pair has the same label; only then are both orders trained.
    clipped: False admits labels outside [0, 1], to compare with the published code. Raise ConfigError for an
    objective that does not fit the student.
    """
    check_objective(settings.objective, student.family)
    objective = PAIR_OBJECTIVES[settings.objective]
    if silver.scores is None:
        raise DataError(f"{run.stage}: the pairs have no scores to learn from.")
    outside = np.flatnonzero((silver.scores < 0) | (silver.scores > 1))
    if clipped and len(outside):
        told = f"pair {outside[0] + 1} has the label {silver.scores[outside[0]]:g}"
        raise DataError(
            f"{run.stage}: {told}, and labels must lie in [0, 1]; map them with --score-range LOW HIGH."
        )
    # A bi-encoder's cosine is the same in both orders, so the second one would only repeat the first.
    if settings.both_orders is not False and symmetric and student.family != "bi":
        silver = join([silver, silver.flipped()])
    scores = silver.scores
    assert scores is not None
    targets = run.compute.put(np.asarray(scores, np.float32))
    tokens = student.prepare(silver, settings.max_length)
    group = distill_group(run.stage, student.family)
    warn_of_cut(tokens, student.transformer, run.stage, group, settings.max_length)
    if isinstance(student, CrossEncoder):
        student.calibrate(tokens, np.asarray(scores))

    def loss_of(index: Index) -> Tensor:
        wanted = targets[run.compute.put(index)]
        if objective.takes == "sides":
            assert isinstance(student, BiEncoder)  # check_objective has refused the others
            return objective.loss(student.sides(tokens, silver, index), wanted)
        outputs = student.outputs(tokens, silver, index)
        # The output of a cross-encoder is a logit, that of the others their score.
        if objective.takes == "scores" and student.family == "cross":
            outputs = torch.sigmoid(outputs)
        return objective.loss(outputs, wanted)

    run.changed, run.words = student.transformer.changed, student.transformer.words(tokens)
    with dropout(student.module, settings.dropout):
        return fit(student.module, len(silver), loss_of, run)
