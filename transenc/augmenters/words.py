"""Leave out or repeat words (repetition after ESimCSE, Wu et al. 2022, section 3.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from transenc.augmenters import OneByOne, choose, replace_spans, word_spans


@dataclass(frozen=True)
class Delete(OneByOne):
    """Leave out a share of the words, never all of them; a sentence of one word stays."""

    share: float = field(default=0.15, metadata={"help": "Share of the words that go, at least one."})

    def _one(self, sentence: str, rng: np.random.Generator) -> str:
        spans = word_spans(sentence)
        if len(spans) < 2:
            return sentence
        gone = choose(len(spans), self.share, rng)[: len(spans) - 1]
        left = replace_spans(sentence, [spans[i] for i in gone], [""] * len(gone))
        return re.sub(r"\s+", " ", left).strip()


@dataclass(frozen=True)
class Repeat(OneByOne):
    """Say a share of the words twice, which changes the length and little else."""

    share: float = field(
        default=0.15, metadata={"help": "Share of the words that are doubled, at least one."}
    )

    def _one(self, sentence: str, rng: np.random.Generator) -> str:
        spans = word_spans(sentence)
        if not spans:
            return sentence
        chosen = [spans[i] for i in choose(len(spans), self.share, rng)]
        return replace_spans(sentence, chosen, [f"{sentence[a:b]} {sentence[a:b]}" for a, b in chosen])
