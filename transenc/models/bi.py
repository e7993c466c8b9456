"""The bi-encoder: one vector a sentence, cosine as the score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transenc.errors import ConfigError
from transenc.models import layout
from transenc.models.device import Compute
from transenc.models.family import Family
from transenc.models.intake import describe
from transenc.models.tokens import Tokens
from transenc.models.transformer import Head, Transformer, load_module, load_tokenizer
from transenc.models.unpadded import Batch
from transenc.pairs import Index, Pairs, Scores, cosines, texts_of

POOLINGS = ("cls", "mean")
BLOCK = 8192  # vectors normalised at a time


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Reduce (batch, sequence, dim) token states to (batch, dim), padding ignored."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


@dataclass(frozen=True)
class Pooled(Head):
    """Pool a body's states to one vector a sentence."""

    pooling: str

    @property
    def first(self) -> bool:
        """Return whether the vector is that of the first token."""
        return self.pooling == "cls"

    def whole(self, module: Any, batch: Batch) -> Tensor:
        """Return (batch, dim) vectors of a padded batch."""
        return self.rows(module, module(**batch).last_hidden_state, batch)

    def body(self, module: Any) -> Any:
        """Return the module: it is all body."""
        return module

    def rows(self, module: Any, states: Tensor, batch: Batch) -> Tensor:
        """Return (batch, dim) vectors."""
        return pool(states, batch["attention_mask"], self.pooling)


@dataclass
class BiEncoder:
    """Encode sentences to unit vectors and score pairs by their cosine in [-1, 1]."""

    transformer: Transformer
    pooling: str
    family: str = "bi"

    @property
    def module(self) -> nn.Module:
        """Return the trainable module."""
        return self.transformer.module

    @property
    def dim(self) -> int:
        """Return the length of a vector."""
        config: Any = self.module.config
        return int(config.hidden_size)

    @property
    def head(self) -> Pooled:
        """Return what makes a vector of a sentence's states."""
        return Pooled(self.pooling)

    def vectors(self, tokens: Tokens, index: Index) -> Tensor:
        """Return (len(index), dim) pooled vectors with gradients, not normalised."""
        return self.transformer.rows(self.head, tokens, index).float()

    def encode(self, sentences: Iterable[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32 unit vectors; raise TypeError for one text in place of several."""
        texts = texts_of(sentences)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        rows = self.transformer.infer(self.head, self.transformer.tokens(texts))
        for start in range(0, len(rows), BLOCK):  # in place: those of a million sentences are gigabytes
            part = rows[start : start + BLOCK]
            part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
        return rows

    def score(self, pairs: Pairs) -> Scores:
        """Return the cosine of each pair; every distinct sentence is encoded once."""
        pairs = pairs.take(slice(None))  # narrows the sentences to those that occur
        return cosines(self.encode(pairs.sentences), pairs.left, pairs.right)

    def prepare(self, pairs: Pairs, max_length: int | None = None) -> Tokens:
        """Tokenise every distinct sentence once, cut to `max_length` tokens; None: to what the model reads."""
        return self.transformer.tokens(list(pairs.sentences), max_length)

    def sides(self, tokens: Tokens, pairs: Pairs, index: Index) -> Tensor:
        """Return the (2, len(index), dim) vectors of the pairs at `index`, with gradients, in one pass."""
        vectors = self.vectors(tokens, np.concatenate([pairs.left[index], pairs.right[index]]))
        return torch.stack(vectors.chunk(2))

    def outputs(self, tokens: Tokens, pairs: Pairs, index: Index) -> Tensor:
        """Return the (len(index),) cosines of the pairs at `index`, with gradients."""
        left, right = self.sides(tokens, pairs, index)
        return F.cosine_similarity(left, right)

    def save(self, path: Path, *, card: str = "") -> None:
        """Write the directory that sentence-transformers and transformers load (docs/files.md)."""
        layout.save_bi(self.transformer, self.pooling, path, card=card)


class BiFamily(Family):
    """Build, train and load bi-encoders."""

    name = "bi"

    def create(
        self, start: Path, *, compute: Compute, max_length: int | None, pooling: str | None = None
    ) -> BiEncoder:
        """Make a bi-encoder of a PLM's, or another bi-encoder's, weights.

        max_length: tokens a sentence is cut to; None keeps the directory's own. pooling: None keeps its own,
        else cls.
        """
        found = describe(str(start), start)
        pooling = pooling or found.pooling or "cls"
        if pooling not in POOLINGS:
            raise ConfigError(f"Pooling '{pooling}' is not one of {', '.join(POOLINGS)}.")
        module, tokenizer = load_module(start, "AutoModel"), load_tokenizer(start)
        return BiEncoder(Transformer.of(start, module, tokenizer, compute, max_length), pooling)

    def load(self, path: Path, *, compute: Compute) -> BiEncoder:
        """Load a saved bi-encoder; a bare PLM is pooled by its mean."""
        found = describe(str(path), path)
        return self.create(path, compute=compute, max_length=None, pooling=found.pooling or "mean")
