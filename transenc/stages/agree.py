"""Judge a model on held-out unlabelled pairs: what selection without labels looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from transenc.agreement import agreement, alignment, uniformity, word_overlap
from transenc.pairs import Pairs, Scores
from transenc.seeds import random_state_kept
from transenc.stages.views import DROPOUT, dropout

SENTENCES = 1_000  # that alignment and uniformity are taken over


@random_state_kept()
def judge(
    scorer: Any, held: Pairs, taught: Pairs | None, seed: int, *, own: Pairs | None = None
) -> tuple[Scores, dict[str, float | None]]:
    """Return a model's scores of the held-out pairs and what they say about it.

    taught: held-out pairs of those that it learnt from, with their silver labels. own: held-out pairs of those that
    bi-encoders alone learn from. The facts are labels: agreement with these labels. noise: agreement of two scorings
    with dropout on: how sure the model is of its own ranking; of a model that has no dropout, with 0.1. noise_own:
    the same of `own`. words: agreement of the labels with word overlap.
    alignment, uniformity: of a bi-encoder's vectors, two dropout views being a positive pair; for information.
    """
    scores = scorer.score(held)
    transformer = scorer.transformer
    facts: dict[str, float | None] = {"labels": None, "words": None, "alignment": None, "uniformity": None}
    if taught is not None:
        assert taught.scores is not None
        same = list(taught.rows()) == list(held.rows())  # unless bi-encoders have pairs of their own
        facts["labels"] = agreement(scores if same else scorer.score(taught), taught.scores)
        facts["words"] = agreement(word_overlap(taught), taught.scores)
    transformer.noisy = True
    try:
        facts["noise"] = _noise(scorer, held, seed)
        if own is not None:
            facts["noise_own"] = _noise(scorer, own, seed)
        if scorer.family == "bi":
            sentences = list(held.sentences[:SENTENCES])
            torch.manual_seed(seed + 3)
            vectors: list[np.ndarray[Any, Any]] = [scorer.encode(sentences) for _ in (1, 2)]
            facts["alignment"] = alignment(*vectors)
    finally:
        transformer.noisy = False
    if scorer.family == "bi":
        facts["uniformity"] = uniformity(scorer.encode(sentences))
    return scores, facts


def _noise(scorer: Any, held: Pairs, seed: int) -> float:
    views = _views(scorer, held, seed)
    # Without dropout both are the same, and no student could be nearer to its labels than that.
    if np.array_equal(views[0], views[1]):
        with dropout(scorer.module, DROPOUT):
            scorer.transformer.changed()
            views = _views(scorer, held, seed)
        scorer.transformer.changed()
    return agreement(*views)


def _views(scorer: Any, held: Pairs, seed: int) -> list[Scores]:
    views = []
    for view in (1, 2):
        torch.manual_seed(seed + view)
        views.append(scorer.score(held))
    return views
