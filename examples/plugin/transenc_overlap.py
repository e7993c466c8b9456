"""An example of a plugin: pairs of sentences that follow each other, and a judge that compares words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transenc.models.device import Compute
from transenc.models.family import Family
from transenc.pairs import Index, Pairs, Scores
from transenc.samplers import Encode, PairSampler


@dataclass(frozen=True)
class Following(PairSampler):
    """Pair each sentence with the one that follows it in the corpus."""

    step: int = field(default=1, metadata={"help": "How far behind it the other one stands."})

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"step must be at least 1, not {self.step}")

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Return index columns (left, right) into `sentences`."""
        left = np.arange(max(0, len(sentences) - self.step))
        return left, left + self.step


class Overlap:
    """Score a pair by the share of words that both sentences have."""

    family = "overlap"

    def score(self, pairs: Pairs) -> Scores:
        """Return the Jaccard index of each pair's words."""
        words = [set(sentence.casefold().split()) for sentence in pairs.sentences]
        sides = [(words[i], words[j]) for i, j in zip(pairs.left, pairs.right, strict=True)]
        return np.asarray([len(a & b) / max(1, len(a | b)) for a, b in sides], np.float32)


class OverlapFamily(Family):
    """Load what compares words; there is nothing to read."""

    def load(self, path: Path, *, compute: Compute) -> Overlap:
        """Return the scorer."""
        return Overlap()
