"""The cross-encoder: both sentences in one sequence, a logit as the score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from transenc.errors import DataError
from transenc.models import layout
from transenc.models.device import Compute
from transenc.models.family import Family
from transenc.models.layout import HEAD, head_of
from transenc.models.segments import (
    CALIBRATE,
    Apart,
    SegmentModel,
    apart_of,
    gives_types,
    separator_of,
)
from transenc.models.tokens import Tokens
from transenc.models.transformer import Head, Transformer, evaluating, load_module, load_tokenizer
from transenc.models.unpadded import Batch
from transenc.pairs import Index, Pairs, Scores


class Classified(Head):
    """Take the one logit of a sequence classifier, which reads the first token."""

    @property
    def first(self) -> bool:
        """Return True: other tokens count only by what the first one reads of them."""
        return True

    def whole(self, module: Any, batch: Batch) -> Tensor:
        """Return (batch,) logits of a padded batch."""
        logits: Tensor = module(**batch).logits
        return logits[:, 0]

    def body(self, module: Any) -> Any:
        """Return what is below the classifier."""
        return module.base_model

    def rows(self, module: Any, states: Tensor, batch: Batch) -> Tensor:
        """Return (batch,) logits."""
        # A BERT's classifier takes what its pooler makes of the first token, the others' take the states.
        if module.base_model.config.model_type == "bert":
            states = module.dropout(module.base_model.pooler(states))
        logits: Tensor = module.classifier(states)
        return logits[:, 0]


class Compared(Classified):
    """Take the logit of a segment head, which reads all tokens."""

    @property
    def first(self) -> bool:
        """Return False: the mean of a segment takes in all its tokens."""
        return False

    def body(self, module: Any) -> Any:
        """Return what is below the head."""
        return module.body

    def inputs(self, module: Any, batch: Batch) -> Batch:
        """Return the batch with the positions and the attention of two sentences nearly apart."""
        inputs: Batch = module.inputs(batch)
        return inputs

    def rows(self, module: Any, states: Tensor, batch: Batch) -> Tensor:
        """Return (batch,) logits."""
        logits: Tensor = module.logits(states, batch)
        return logits


@dataclass
class CrossEncoder:
    """Score pairs by the sigmoid of one logit, of a sequence classifier or a segment head, in [0, 1]."""

    transformer: Transformer
    family: str = "cross"

    @property
    def module(self) -> nn.Module:
        """Return the trainable module."""
        return self.transformer.module

    @property
    def head(self) -> Head:
        """Return what makes a logit of a pair's states."""
        return Compared() if isinstance(self.module, SegmentModel) else Classified()

    def score(self, pairs: Pairs) -> Scores:
        """Return the probability of each pair, read in the order given (left first)."""
        parts = []
        for start in range(0, len(pairs), 32768):  # bounds the token arrays of a million pairs
            part = slice(start, start + 32768)
            rows = list(zip(pairs.column(pairs.left[part]), pairs.column(pairs.right[part]), strict=True))
            logits = self.transformer.infer(self.head, self.transformer.tokens(rows))
            parts.append(torch.sigmoid(torch.from_numpy(logits)).numpy())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def prepare(self, pairs: Pairs, max_length: int | None = None) -> Tokens:
        """Tokenise every pair once, in the order given, cut to `max_length` tokens; None: to what the model reads."""
        return self.transformer.tokens(list(pairs.rows()), max_length)

    def outputs(self, tokens: Tokens, pairs: Pairs, index: Index) -> Tensor:
        """Return the (len(index),) logits of the pairs at `index`, with gradients."""
        return self.transformer.rows(self.head, tokens, index).float()

    def calibrate(self, tokens: Tokens, labels: npt.NDArray[np.floating[Any]]) -> None:
        """Fit a new segment head's line to some of the labels in [0, 1]; other heads are left alone."""
        module = self.module
        if not isinstance(module, SegmentModel) or not module.fresh or not len(tokens):
            return
        some = np.unique(np.linspace(0, len(tokens) - 1, min(CALIBRATE, len(tokens))).astype(np.int64))
        with torch.inference_mode(), evaluating(module):
            logits = self.transformer.rows(self.head, tokens, some).float()
        cosines = (logits - module.shift) / module.slope
        module.calibrate(cosines.detach().cpu().numpy(), np.clip(labels[some], 0, 1))
        self.transformer.changed()

    def save(self, path: Path, *, card: str = "") -> None:
        """Write the directory that transformers and sentence-transformers load (docs/files.md)."""
        layout.save_cross(self.transformer, path, card=card, segments=isinstance(self.module, SegmentModel))


class CrossFamily(Family):
    """Build, train and load cross-encoders."""

    name = "cross"

    def create(
        self,
        start: Path,
        *,
        compute: Compute,
        max_length: int | None,
        pooling: str | None = None,
        head: str = "classifier",
    ) -> CrossEncoder:
        """Make a cross-encoder of a PLM's or a bi-encoder's weights and a new one-logit head.

        head: "classifier", whose weights come from torch's global generator (seed it first), or "segments", which is
        fitted to labels by `calibrate`; a start that has that head keeps it. `pooling` does not concern this family.
        """
        tokenizer = load_tokenizer(start)
        module = (
            _with_segments(start, tokenizer)
            if head == "segments"
            else load_module(start, "AutoModelForSequenceClassification", new_head=True, num_labels=1)
        )
        return CrossEncoder(Transformer.of(start, module, tokenizer, compute, max_length))

    def load(self, path: Path, *, compute: Compute) -> CrossEncoder:
        """Load a saved cross-encoder of any tool that has one label."""
        tokenizer = load_tokenizer(path)
        module = (
            load_module(path, "AutoModelForSequenceClassification")
            if head_of(path) is None
            else _with_segments(path, tokenizer)
        )
        config: Any = module.config
        if not isinstance(module, SegmentModel) and config.num_labels != 1:
            raise DataError(
                f"{path} classifies into {config.num_labels} labels; a cross-encoder here has one."
            )
        return CrossEncoder(Transformer.of(path, module, tokenizer, compute))


def _with_segments(start: Path, tokenizer: Any) -> nn.Module:
    body, found = load_module(start, "AutoModel"), head_of(start)
    if found is None:
        return SegmentModel(
            body,
            separator_of(tokenizer, start),
            apart_of(body.config, tokenizer),
            typed=gives_types(tokenizer),
        )
    return _restored(body, found, start)


def _restored(body: nn.Module, found: Any, path: Path) -> SegmentModel:
    try:
        numbers, told = [float(found["slope"]), float(found["shift"])], found.get("apart")
        apart = told and Apart(float(told["across"]), int(told["begin"]), int(told["offset"]))
        if found["name"] != "segments" or not np.isfinite([*numbers, apart.across if apart else 0.0]).all():
            raise ValueError(f"head {found['name']!r}, line {numbers}, apart {told}")
        typed = bool(found.get("typed", False))  # heads of before go by the separator alone
        return SegmentModel(body, int(found["separator"]), apart or None, *numbers, typed=typed)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path / 'config.json'}: its {HEAD} cannot be used: {error}") from error
