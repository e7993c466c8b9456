"""Rewrite sentences a little: a labelled pair gives more pairs of the same label (Augmented SBERT, scenario 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from transenc.seeds import derive
from transenc.words import word_pattern

Span = tuple[int, int]


class Fill(Protocol):
    """Predict words for the gaps in texts: a masked language model."""

    @property
    def mask(self) -> str:
        """Return the text that stands for a gap."""
        ...

    def words(self, texts: Sequence[str], top: int) -> list[list[list[tuple[str, float]]]]:
        """Return, for each text and each `mask` in it, up to `top` whole words and their probabilities."""
        ...


class Augmenter(Protocol):
    """Change the words or letters of sentences.

    An augmenter is a frozen dataclass; its fields are its options, each with `metadata={"help": "..."}`. A class
    attribute `needs_model = True` asks for `fill`, a masked language model.
    """

    def augment(
        self, sentences: Sequence[str], rngs: Sequence[np.random.Generator], *, fill: Fill | None = None
    ) -> list[str]:
        """Return one rewritten sentence each, or the sentence itself where there was nothing to change.

        rngs: a generator for each sentence, so that a result does not depend on its neighbours.
        """
        ...


def generators(seed: int, name: str, start: int, n: int) -> list[np.random.Generator]:
    """Return the generators of sentences number `start` to `start + n` for one augmenter."""
    return [np.random.default_rng(derive(seed, "augment", name, i)) for i in range(start, start + n)]


def word_spans(sentence: str) -> list[Span]:
    """Return where the words of a sentence begin and end; what stands between them is kept by all augmenters."""
    return [found.span() for found in word_pattern(sentence, joined=True).finditer(sentence)]


def check_share(share: float) -> None:
    """Raise ValueError unless a share of words or letters is above 0 and at most 1."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share:g}")


def choose(n: int, share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return a share of the numbers below n, in order, at least one if there is any."""
    count = min(n, max(1, round(share * n)))
    return np.sort(rng.choice(n, count, replace=False)).astype(np.int64)


def replace_spans(sentence: str, spans: Sequence[Span], words: Sequence[str]) -> str:
    """Put words in the place of spans, which do not overlap and come in order."""
    parts, end = [], 0
    for (start, stop), word in zip(spans, words, strict=True):
        parts += [sentence[end:start], word]
        end = stop
    return "".join([*parts, sentence[end:]])


def as_written(word: str, before: str) -> str:
    """Give a replacement the capitals of what it replaces."""
    if before.isupper() and len(before) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if before[:1].isupper() else word


class OneByOne:
    """Rewrite sentences independently; an augmenter that does so has a `share` and says what `_one` makes of one."""

    share: float

    def __post_init__(self) -> None:
        check_share(self.share)

    def augment(
        self, sentences: Sequence[str], rngs: Sequence[np.random.Generator], *, fill: Fill | None = None
    ) -> list[str]:
        """Return each sentence rewritten."""
        return [self._one(s, rng) for s, rng in zip(sentences, rngs, strict=True)]

    def _one(self, sentence: str, rng: np.random.Generator) -> str:
        raise NotImplementedError
