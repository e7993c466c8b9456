"""Misspell words, as people do at a keyboard."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from transenc.augmenters import OneByOne, choose, replace_spans, word_spans

SHORTEST = 4  # letters; shorter words become other words too easily
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def neighbours(letter: str) -> str:
    """Return the letters beside a letter on a keyboard."""
    for row in KEYS:
        at = row.find(letter.lower())
        if at >= 0:
            return row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    return ""


@dataclass(frozen=True)
class Noise(OneByOne):
    """Swap, drop, double or mistype one letter inside a share of the words; first and last letters stay."""

    share: float = field(
        default=0.15, metadata={"help": "Share of the longer words that change, at least one."}
    )

    def _one(self, sentence: str, rng: np.random.Generator) -> str:
        # Numbers stay, since another number is another meaning.
        spans = [
            (a, b)
            for a, b in word_spans(sentence)
            if b - a >= SHORTEST and not any(c.isdigit() for c in sentence[a:b])
        ]
        if not spans:
            return sentence
        chosen = [spans[i] for i in choose(len(spans), self.share, rng)]
        return replace_spans(sentence, chosen, [misspell(sentence[a:b], rng) for a, b in chosen])


def misspell(word: str, rng: np.random.Generator) -> str:
    """Change one inner letter of a word of 4 or more."""
    at = int(rng.integers(1, len(word) - 2))
    way = int(rng.integers(4))
    beside = neighbours(word[at])
    if way == 0 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if way == 1:
        return word[:at] + word[at + 1 :]
    if way == 2 and beside:
        return word[:at] + beside[int(rng.integers(len(beside)))] + word[at + 1 :]
    return word[: at + 1] + word[at:]
