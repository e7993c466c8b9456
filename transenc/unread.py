"""Tell when much of the texts lies beyond what a scorer reads; without torch, which engines do not need."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from transenc.models.tokens import tokenize
from transenc.pairs import Pairs
from transenc.registry import package_of

logger = logging.getLogger(__name__)

MOST_CUT = 0.1  # share of the texts; of STS 7 % are, by the published lengths
SAMPLE = 500  # pairs, evenly over all


def warn_of_unread(name: str, scorer: Any, pairs: Pairs) -> None:
    """Warn when a scorer reads more than a tenth of the texts in part only; of plugins it is not known."""
    if package_of(scorer) != "transenc":
        return
    body = getattr(scorer, "transformer", None)
    tokenizer = getattr(scorer, "tokenizer", None) if body is None else body.tokenizer.backend_tokenizer
    limit = getattr(scorer if body is None else body, "max_length", None)
    if tokenizer is None or limit is None or not len(pairs):
        return
    sample = pairs.take(np.arange(0, len(pairs), -(-len(pairs) // SAMPLE)))
    texts: Any = list(sample.rows()) if scorer.family == "cross" else list(sample.sentences)
    share = float((tokenize(tokenizer, texts, limit).lengths >= limit).mean())
    if share > MOST_CUT:
        what = "pairs" if scorer.family == "cross" else "texts"
        logger.warning("%s reads %d tokens, and %.0f%% of the %s are longer.", name, limit, 100 * share, what)
