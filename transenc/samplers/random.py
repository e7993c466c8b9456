"""Random pairs, mostly unrelated: the baseline of Augmented SBERT (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from transenc.pairs import Index
from transenc.samplers import Encode, require


@dataclass(frozen=True)
class Random:
    """Draw different unordered pairs uniformly from all pairs of the corpus."""

    per_sentence: int = field(
        default=3, metadata={"help": "Pairs for each sentence of the corpus, fewer if there are not so many."}
    )

    def __post_init__(self) -> None:
        if self.per_sentence < 1:
            raise ValueError(f"per_sentence must be at least 1, not {self.per_sentence}")

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Draw pair numbers without replacement and decode them."""
        require(sentences, 2)
        n = len(sentences)
        every = n * (n - 1) // 2
        number = rng.choice(every, min(n * self.per_sentence, every), replace=False).astype(np.int64)
        # Sentences on a circle: pair c joins sentence c % n to the one c // n + 1 steps on. Steps up to n / 2
        # meet each unordered pair once; for even n the last step is only half used.
        left = number % n
        return left, (left + number // n + 1) % n
