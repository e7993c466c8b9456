"""Distil silver labels into a student: one half-cycle, whatever the families."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transenc.config import DistillSettings
from transenc.errors import DataError
from transenc.models.bi import BiEncoder
from transenc.models.cross import CrossEncoder
from transenc.objectives import PAIR_OBJECTIVES
from transenc.pairs import Index, Pairs, join
from transenc.training import Fit, Fitted, fit


def distill_model(
    student: BiEncoder | CrossEncoder,
    silver: Pairs,
    settings: DistillSettings,
    run: Fit,
    *,
    symmetric: bool = True,
) -> Fitted:
    """Train `student` in place on pairs with labels in [0, 1].

    symmetric: whether the other order of a pair has the same label; only then are both orders trained.
    """
    objective = PAIR_OBJECTIVES[settings.objective]
    if silver.scores is None:
        raise DataError(f"{run.stage}: the pairs have no scores to learn from.")
    if len(silver) and not (silver.scores.min() >= 0 and silver.scores.max() <= 1):
        raise DataError(f"{run.stage}: labels must lie in [0, 1]; map them with --score-range.")
    # A bi-encoder's cosine is the same in both orders, so the second one would only repeat the first.
    if settings.both_orders is not False and symmetric and student.family != "bi":
        silver = join([silver, silver.flipped()])
    scores = silver.scores
    assert scores is not None
    targets = torch.from_numpy(np.asarray(scores, np.float32)).to(run.compute.device)
    tokens = student.prepare(silver)

    def loss_of(index: Index) -> Tensor:
        wanted = targets[torch.from_numpy(index).to(targets.device)]
        return objective(student.outputs(tokens, silver, index), wanted)

    run.changed = student.transformer.changed
    return fit(student.module, len(silver), loss_of, run)
