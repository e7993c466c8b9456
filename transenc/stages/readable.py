"""Check that the students can read the pairs, and how much of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from transenc.errors import ConfigError
from transenc.lengths import group, positions
from transenc.models.tokens import Tokens
from transenc.models.transformer import Transformer, load_tokenizer, position_limit
from transenc.pairs import Pairs
from transenc.stages.context import Context
from transenc.unread import MOST_CUT

SAMPLE = 500
MOST_UNKNOWN = 0.5

logger = logging.getLogger(__name__)


def check_lengths(context: Context, used: Sequence[str]) -> None:
    """Raise ConfigError when a student has fewer positions than the tokens that it would be trained with.

    used: the groups of settings of the run's trainings.
    """
    # One that is primed longer than its positions reads as many as it has.
    trained = {name: group(context.settings, name).max_length for name in used if name != "prime"}
    for student, plm in context.plms.items():
        limit = positions(plm.path)
        for name, wanted in trained.items():
            if wanted is not None and wanted > limit:
                raise ConfigError(
                    f"{name}.max_length is {wanted}, but {student} ({plm.name}) has positions for {limit} "
                    f"tokens: --set {name}.max_length={limit}, or another --plm."
                )


def warn_of_cut(
    tokens: Tokens, transformer: Transformer, stage: str, group: str, max_length: int | None
) -> None:
    """Warn when many texts fill all the tokens that a model is trained on: what follows in them is not learnt.

    group, max_length: the settings of the training, and what they cut texts to where the model reads more.
    """
    limit = transformer.cut(max_length)
    share = float((tokens.lengths >= limit).mean())
    if share > MOST_CUT:
        most = position_limit(transformer.module.config)
        way = f"more are read with --set {group}.max_length=N, {most} at most"
        told = way if limit < most else "the model has positions for no more"
        logger.warning("%s: %.0f%% of the texts are cut to %d tokens; %s.", stage, 100 * share, limit, told)


def check_readable(context: Context, pairs: Pairs) -> None:
    """Raise ConfigError when a student's tokenizer knows too little of the text, by a sample of sentences."""
    step = max(1, len(pairs.sentences) // SAMPLE)
    sample = list(pairs.sentences[::step])
    for student, plm in context.plms.items():
        tokenizer = load_tokenizer(plm.path)
        if tokenizer.unk_token_id is None:
            continue  # made of bytes: it knows every text
        encodings = tokenizer.backend_tokenizer.encode_batch(sample, add_special_tokens=False)
        ids = np.concatenate([np.asarray(e.ids, np.int64) for e in encodings])
        unknown = float((ids == tokenizer.unk_token_id).mean()) if len(ids) else 1.0
        if unknown > MOST_UNKNOWN:
            raise ConfigError(
                f"{student} ({plm.name}) does not know {100 * unknown:.0f}% of the tokens of the pairs: its "
                "tokenizer is for other text. Take a --plm of that language, or another --pairs, --corpus or --task."
            )
