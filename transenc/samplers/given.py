"""Pairs that the user gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transenc.errors import ConfigError
from transenc.pairs import Index
from transenc.samplers import Encode


@dataclass(frozen=True)
class Given:
    """Use the pairs given by --pairs or by a task; nothing is mined."""

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Refuse to mine."""
        raise ConfigError(
            "The sampler 'given' takes pairs as they are: give them with --pairs FILE, "
            "or name a sampler that mines, such as 'bm25'."
        )
