"""Insert or substitute words that a masked language model expects (nlpaug's contextual word augmentation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from transenc.augmenters import Fill, Span, as_written, check_share, choose, replace_spans, word_spans
from transenc.errors import ConfigError


def _filled(
    sentences: Sequence[str],
    places: Sequence[Sequence[Span]],
    rngs: Sequence[np.random.Generator],
    fill: Fill | None,
    top: int,
) -> list[str]:
    """Put a predicted word into each place, drawn by its probability among the `top` that are not there already."""
    if fill is None:
        raise ConfigError("Contextual augmentation needs a masked language model: name one with model=NAME.")
    gaps = [
        replace_spans(s, at, [fill.mask if b > a else f" {fill.mask}" for a, b in at])
        for s, at in zip(sentences, places, strict=True)
    ]
    rewritten = []
    for sentence, at, rng, found in zip(sentences, places, rngs, fill.words(gaps, top + 1), strict=True):
        words = []
        for (a, b), candidates in zip(at, [*found, *[[]] * len(at)][: len(at)], strict=True):
            before = sentence[a:b]
            fresh = [(w, p) for w, p in candidates if w.lower() != before.lower()][:top]
            if not fresh:
                words.append(before)
                continue
            weights = np.array([p for _, p in fresh], np.float64)
            word = fresh[int(rng.choice(len(fresh), p=weights / weights.sum()))][0]
            words.append(as_written(word, before) if before else f" {word}")
        rewritten.append(replace_spans(sentence, at, words))
    return rewritten


class _Contextual:
    """Let a masked language model speak at a share of the places that a sentence offers."""

    share: float
    top: int
    needs_model = True

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.top < 1:
            raise ValueError(f"top must be at least 1, not {self.top}")

    def augment(
        self, sentences: Sequence[str], rngs: Sequence[np.random.Generator], *, fill: Fill | None = None
    ) -> list[str]:
        """Return each sentence with predicted words at the chosen places."""
        places: list[list[Span]] = []
        for sentence, rng in zip(sentences, rngs, strict=True):
            # A gap of the sentence's own would be taken for one of ours.
            spans = [] if fill is not None and fill.mask in sentence else self._places(sentence)
            places.append([spans[i] for i in choose(len(spans), self.share, rng)] if spans else [])
        return _filled(sentences, places, rngs, fill, self.top)

    def _places(self, sentence: str) -> list[Span]:
        raise NotImplementedError


@dataclass(frozen=True)
class Insert(_Contextual):
    """Insert words, each between two others, that a masked language model expects there."""

    model: str = field(default="", metadata={"help": "Masked language model; default: the start of the run."})
    share: float = field(
        default=0.15, metadata={"help": "Words put in, as a share of those there, at least one."}
    )
    top: int = field(default=10, metadata={"help": "How many of the likeliest words are drawn from."})

    def _places(self, sentence: str) -> list[Span]:
        return [(b, b) for _, b in word_spans(sentence)[:-1]]  # after a word, never before the first


@dataclass(frozen=True)
class Substitute(_Contextual):
    """Replace words by others that a masked language model expects in their place."""

    model: str = field(default="", metadata={"help": "Masked language model; default: the start of the run."})
    share: float = field(default=0.15, metadata={"help": "Share of the words that change, at least one."})
    top: int = field(default=10, metadata={"help": "How many of the likeliest words are drawn from."})

    def _places(self, sentence: str) -> list[Span]:
        # Numbers stay, since another number is another meaning.
        return [(a, b) for a, b in word_spans(sentence) if not any(c.isdigit() for c in sentence[a:b])]
