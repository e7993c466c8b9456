"""Prime a bi-encoder: pull two views of a sentence, or both sides of a pair, together, and push others away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from transenc.config import PrimeSettings
from transenc.errors import DataError
from transenc.models.bi import BiEncoder
from transenc.models.tokens import Tokens
from transenc.models.transformer import position_limit
from transenc.objectives import cosine_matrix_mse, info_nce, nt_xent
from transenc.pairs import Index, Pairs, join, plain
from transenc.seeds import derive, random_state_kept
from transenc.stages.readable import warn_of_cut
from transenc.stages.views import (
    DROPOUT,
    delete_tokens,
    drop_heads,
    dropout,
    has_dropout,
    mask_spans,
    repeat_tokens,
)
from transenc.training import Fit, Fitted, fit

logger = logging.getLogger(__name__)


@random_state_kept()
def prime_model(
    encoder: BiEncoder, texts: Sequence[str] | Pairs, settings: PrimeSettings, run: Fit
) -> Fitted:
    """Train `encoder` in place on distinct sentences: a view of each against a second one and against the others.

    Of pairs the sides are the views: a left one is pulled to its right one and pushed away from those of others.
    """
    examples = choose(texts, settings.max_sentences, derive(run.seed, run.stage, "sentences"))
    chosen = examples.sentences
    if len(examples) < 2:
        what, more = "sentences", ""
        if isinstance(texts, Pairs):
            what, more = "pairs", " In either order a pair is the same, and a text with itself is none."
        raise DataError(f"{run.stage}: priming needs at least 2 different {what}, not {len(examples)}.{more}")
    settings = settings.model_copy(update={"batch_size": min(settings.batch_size, len(examples))})
    run.settings, run.changed = settings, encoder.transformer.changed
    torch.manual_seed(derive(run.seed, run.stage, "head"))
    dim = encoder.dim
    head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if settings.head else nn.Identity()
    module = nn.ModuleDict({"encoder": encoder.module, "head": head.to(run.compute.device)})
    tokens = encoder.transformer.tokens(chosen, settings.max_length)
    warn_of_cut(tokens, encoder.transformer, run.stage, "prime", settings.max_length)
    loss = nt_xent if settings.method.startswith("mirror") else info_nce
    # Pairs that a sample leaves out still say what belongs together.
    alike = no_negatives(join([examples, texts])) if isinstance(texts, Pairs) else None
    if alike is not None:
        check_negatives(examples, alike, run.stage)

    whitened = whitened_embeddings(encoder.module, tokens) if settings.method == "whitening" else None
    special = encoder.transformer.tokenizer.all_special_ids
    limit = position_limit(encoder.module.config)
    everything = np.arange(settings.batch_size)

    def loss_of(index: Index) -> Tensor:
        own, at, other, other_at = tokens, examples.left[index], tokens, examples.right[index]
        if settings.span_mask:
            masked = mask_spans(
                [chosen[i] for i in other_at],
                encoder.transformer.tokenizer,
                settings.span_mask,
                settings.span_unit,
            )
            other = encoder.transformer.tokens(masked, settings.max_length)
            other_at = everything[: len(index)]
        if settings.repeat:
            other = repeat_tokens(other, other_at, settings.repeat, special, limit)
            other_at = everything[: len(index)]
        if settings.delete:
            own = delete_tokens(own, at, settings.delete, special)
            other = delete_tokens(other, other_at, settings.delete, special)
            at = other_at = everything[: len(index)]
        if own is other:  # only dropout tells the views apart: one pass for both
            first, second = encoder.vectors(own, np.concatenate([at, other_at])).chunk(2)
        else:
            first, second = encoder.vectors(own, at), encoder.vectors(other, other_at)
        if whitened is not None:
            return cosine_matrix_mse(
                head(first),
                head(second),
                mean_tokens(whitened, own, at),
                mean_tokens(whitened, other, other_at),
            )
        if alike is not None:
            known = run.compute.put(alike(index, index))
            return info_nce(head(first), head(second), settings.temperature, known)
        return loss(head(first), head(second), settings.temperature)

    if not settings.span_mask:  # a word that is cut through has other pieces
        run.words = encoder.transformer.words(tokens)
    p = settings.dropout
    if p is None and whitened is None and alike is None and not has_dropout(encoder.module):
        p = DROPOUT  # as in the papers: without any, the views of SimCSE are the same vector
        logger.info("%s: the model has no dropout of its own; views are made with %g.", run.stage, p)
    with dropout(encoder.module, p), drop_heads(encoder.transformer, settings.drop_heads):
        return fit(module, len(examples), loss_of, run)


def whitened_embeddings(module: nn.Module, tokens: Tokens) -> Tensor:
    """Return the (vocabulary, dim) word embeddings, moved and scaled so that mean vectors of sentences are white.

    Whitening takes away the directions that all sentences share, after which plain means of word embeddings rank
    similarity far better (Su et al. 2021, "Whitening Sentence Representations"). Directions with under 1e-6 of the
    largest variance are left out. Of fewer than 4 sentences a dimension the small variances are mostly chance, and
    dividing by them makes all sentences equally far from each other: all are raised by a part of their mean (ours,
    docs/method.md).
    """
    table: Tensor = module.get_input_embeddings().weight.detach().float()  # type: ignore[operator]
    means = mean_tokens(table, tokens, np.arange(len(tokens)))
    centre = means.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((means - centre).T.double()))
    variances = variances + max(0.0, len(variances) / len(tokens) - 0.25) / 4 * variances.mean()
    kept = variances > variances[-1] * 1e-6
    scale = (directions[:, kept] / variances[kept].sqrt()).float()
    white: Tensor = (table - centre) @ scale
    return white


def mean_tokens(table: Tensor, tokens: Tokens, index: Index) -> Tensor:
    """Return (len(index), dim) means of the rows of `table` over each sequence between its first and last token."""
    spans = [(tokens.offsets[i] + 1, max(tokens.offsets[i + 1] - 1, tokens.offsets[i] + 2)) for i in index]
    flat = torch.from_numpy(np.concatenate([tokens.ids[a:b] for a, b in spans]).astype(np.int64))
    starts = torch.from_numpy(np.cumsum([0] + [b - a for a, b in spans[:-1]]))
    return nn.functional.embedding_bag(flat.to(table.device), table, starts.to(table.device), mode="mean")


def no_negatives(pairs: Pairs) -> Callable[[Index, Index], npt.NDArray[np.bool_]]:
    """Return what tells which right sides at (m,) indices are no negatives of which left ones at (n,), as (n, m).

    Those are the sentence itself and all that stand in a pair with it, in either order and in any batch. Case,
    punctuation and spaces make no other sentence (`plain`).
    """
    names = [plain(sentence) for sentence in pairs.sentences]
    same = Pairs.from_rows((names[i] for i in pairs.left), (names[j] for j in pairs.right))
    known = np.unique(same.keys())

    def alike(lefts: Index, rights: Index) -> npt.NDArray[np.bool_]:
        left, right = np.repeat(same.left[lefts], len(rights)), np.tile(same.right[rights], len(lefts))
        keys = Pairs(same.sentences, left, right).keys()
        found = known.take(np.searchsorted(known, keys), mode="clip") == keys
        return np.asarray(found | (left == right), np.bool_).reshape(len(lefts), len(rights))

    return alike


def check_negatives(pairs: Pairs, alike: Callable[[Index, Index], npt.NDArray[np.bool_]], stage: str) -> None:
    """Raise DataError for pairs of which none has a negative, whose loss is 0 from the first step on."""
    lefts, rights = (np.unique(side, return_index=True)[1] for side in (pairs.left, pairs.right))
    # Almost always the first has one. A left side that has none stands in a pair with every right one, so no more
    # comparisons are made than there are pairs.
    if all(bool(alike(lefts[i : i + 1], rights).all()) for i in range(len(lefts))):
        raise DataError(
            f"{stage}: each left side of the {len(pairs):,} pairs stands in a pair with every right one, so none has "
            "a negative. Add pairs about other things, or prime on sentences: prime.method=simcse."
        )


def choose(texts: Sequence[str] | Pairs, most: int, seed: int) -> Pairs:
    """Return at most `most` different pairs, or sentences, each paired with itself: a seeded sample in order."""
    if isinstance(texts, Pairs):
        found = texts.unique()
    else:
        distinct = list(dict.fromkeys(texts))
        found = Pairs(distinct, np.arange(len(distinct)), np.arange(len(distinct)))
    if len(found) <= most:
        return found
    return found.take(np.sort(np.random.default_rng(seed).choice(len(found), most, replace=False)))
