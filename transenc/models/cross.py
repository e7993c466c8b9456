"""The cross-encoder: both sentences in one sequence, a logit as the score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transenc.errors import DataError
from transenc.models import layout
from transenc.models.device import Compute
from transenc.models.tokens import Tokens
from transenc.models.transformer import Transformer, load_module, load_tokenizer, own_length, position_limit
from transenc.pairs import Index, Pairs, Scores


@dataclass
class CrossEncoder:
    """Score pairs by the sigmoid of a one-label sequence classifier, in [0, 1]."""

    transformer: Transformer
    family: str = "cross"

    @property
    def module(self) -> nn.Module:
        """Return the trainable module."""
        return self.transformer.module

    def _head(self, module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = module(**batch).logits
        return logits[:, 0]

    def score(self, pairs: Pairs) -> Scores:
        """Return the probability of each pair, read in the order given (left first)."""
        parts = []
        for start in range(0, len(pairs), 32768):  # bounds the token arrays of a million pairs
            part = slice(start, start + 32768)
            rows = list(zip(pairs.column(pairs.left[part]), pairs.column(pairs.right[part]), strict=True))
            logits = self.transformer.infer(self._head, self.transformer.tokens(rows))
            parts.append(torch.sigmoid(torch.from_numpy(logits)).numpy())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def prepare(self, pairs: Pairs) -> Tokens:
        """Tokenise every pair once, in the order given."""
        return self.transformer.tokens(list(pairs.rows()))

    def outputs(self, tokens: Tokens, pairs: Pairs, index: Index) -> Tensor:
        """Return the (len(index),) logits of the pairs at `index`, with gradients."""
        return self.transformer.rows(self._head, tokens, index).float()

    def save(self, path: Path, *, card: str = "") -> None:
        """Write the directory that transformers and sentence-transformers load (docs/files.md)."""
        layout.save_cross(self.transformer, path, card=card)


class CrossFamily:
    """Build, train and load cross-encoders."""

    name = "cross"
    objective = "soft_bce"

    def create(
        self, start: Path, *, compute: Compute, max_length: int | None, pooling: str | None = None
    ) -> CrossEncoder:
        """Make a cross-encoder of a PLM's or a bi-encoder's weights and a new one-logit head.

        The head's weights come from torch's global generator: seed it first. `pooling` does not concern this
        family.
        """
        module = load_module(start, "AutoModelForSequenceClassification", num_labels=1)
        config: Any = module.config
        length = own_length(start, config) if max_length is None else min(max_length, position_limit(config))
        return CrossEncoder(Transformer(module.to(compute.device), load_tokenizer(start), length, compute))

    def load(self, path: Path, *, compute: Compute) -> CrossEncoder:
        """Load a saved cross-encoder of any tool that has one label."""
        module = load_module(path, "AutoModelForSequenceClassification")
        config: Any = module.config
        if config.num_labels != 1:
            raise DataError(
                f"{path} classifies into {config.num_labels} labels; a cross-encoder here has one."
            )
        length = own_length(path, config)
        return CrossEncoder(Transformer(module.to(compute.device), load_tokenizer(path), length, compute))
