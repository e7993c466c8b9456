"""The segment head of a cross-encoder: the cosine of both sentences' mean states after they have read each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transenc.errors import ConfigError
from transenc.models.layout import HEAD
from transenc.models.unpadded import Batch, position_offset

CALIBRATE = 512  # pairs that a new head is fitted to
LEAST_SLOPE = 1.0
ACROSS = -2.0  # of 0, -2 and -inf: the first reads too much at once, the last nothing (docs/objectives.md)
HIDDEN = -1e4  # what padding gets; fp16 can hold it
# Architectures that read an additive (batch, 1, length, length) mask and absolute positions: tests compare the states
# of a first sentence that sees no second one with those of that sentence alone.
APART = ("bert", "electra", "albert", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet")


@dataclass(frozen=True)
class Apart:
    """How a body reads two sentences in one sequence nearly as it reads each alone.

    across: added to the attention logits between them; the first token belongs to both. begin: position of the second
    segment's first token, so that its words stand where they would alone. offset: position id of position 0.
    """

    across: float
    begin: int
    offset: int


class SegmentModel(nn.Module):
    """Score a pair by a line over the cosine of its two segments' mean states: a logit.

    A classifier's head begins at random and needs thousands of pairs before it compares sentences. This one begins
    near what the body knows already, as pretrained vectors of similar sentences have high cosines, and attention
    across the sentences does the rest. separator: the id of the token that ends the first sentence. apart: None for a
    body that reads them like any pair. typed: the second sentence's tokens have type 1.
    """

    def __init__(
        self,
        body: Any,
        separator: int,
        apart: Apart | None = None,
        slope: float | None = None,
        shift: float = 0.0,
        *,
        typed: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        self.separator = separator
        self.apart = apart
        self.typed = typed
        self.fresh = slope is None
        self.slope = nn.Parameter(torch.tensor(LEAST_SLOPE if slope is None else slope))
        self.shift = nn.Parameter(torch.tensor(shift))

    @property
    def config(self) -> Any:
        """Return the configuration of the body."""
        return self.body.config

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings of the body."""
        found: nn.Module = self.body.get_input_embeddings()
        return found

    def set_attn_implementation(self, name: str) -> None:
        """Choose how the body computes attention."""
        self.body.set_attn_implementation(name)

    def segments(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return which tokens belong to each segment, (batch, length) int64 both; the first ends with a separator.

        Types tell them apart where the tokenizer gives some, as a sentence may hold the separator's text itself.
        """
        mask = batch["attention_mask"]
        if self.typed:
            first = (1 - batch["token_type_ids"]) * mask
            return first, mask - first
        ends = (batch["input_ids"] == self.separator).long()
        first = (torch.cumsum(ends, 1) - ends == 0).long() * mask
        return first, mask - first

    def inputs(self, batch: Batch) -> Batch:
        """Return what the body reads: with `apart`, its own positions and attention mask."""
        if self.apart is None:
            return batch
        first, second = self.segments(batch)
        at = torch.arange(first.shape[1], device=first.device).unsqueeze(0)
        restarted = at - first.sum(1, keepdim=True) + self.apart.begin
        positions = torch.where(second.bool(), restarted, at) + self.apart.offset
        return {**batch, "position_ids": positions, "attention_mask": self._mask(first, second)}

    def logits(self, states: Tensor, batch: Batch) -> Tensor:
        """Return the (batch,) float32 logits of the body's (batch, length, dim) states."""
        first, second = (_mean(states.float(), part) for part in self.segments(batch))
        return self.slope.float() * F.cosine_similarity(first, second) + self.shift.float()

    def _mask(self, first: Tensor, second: Tensor) -> Tensor:
        """Return what is added to the attention logits, (batch, 1, length, length)."""
        assert self.apart is not None
        # The first token is where the body gathers a whole sequence, so it hears both sides and both hear it.
        one, other = first.clone(), second.clone()
        one[:, 0] = 0
        across = one.unsqueeze(2) * other.unsqueeze(1) + other.unsqueeze(2) * one.unsqueeze(1)
        hidden = (1 - first - second).unsqueeze(1)
        dtype = next(self.body.parameters()).dtype
        return (across.to(dtype) * self.apart.across + hidden.to(dtype) * HIDDEN).unsqueeze(1)

    def forward(self, **batch: Tensor) -> Any:
        """Return an object with (batch, 1) `logits`, as a sequence classifier does."""
        states = self.body(**self.inputs(batch)).last_hidden_state
        return SimpleNamespace(logits=self.logits(states, batch).unsqueeze(1))

    def calibrate(
        self, cosines: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.floating[Any]]
    ) -> None:
        """Set the line that predicts labels in [0, 1] from the untrained body's cosines best."""
        slope, shift = logistic_line(np.asarray(cosines, np.float64), np.asarray(labels, np.float64))
        with torch.no_grad():
            self.slope.fill_(slope)
            self.shift.fill_(shift)
        self.fresh = False

    def save_pretrained(self, path: Path, **options: Any) -> None:
        """Write the body, and the line into its config.json."""
        head = {
            "name": "segments",
            "separator": self.separator,
            "slope": self.slope.item(),
            "shift": self.shift.item(),
            "apart": None if self.apart is None else asdict(self.apart),
            "typed": self.typed,
        }
        setattr(self.config, HEAD, head)
        self.body.save_pretrained(path, **options)


def _mean(states: Tensor, part: Tensor) -> Tensor:
    weights = part.unsqueeze(-1).float()
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def logistic_line(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], *, steps: int = 25, ridge: float = 1e-3
) -> tuple[float, float]:
    """Return slope and shift of the logistic regression of soft labels y in [0, 1] on x, by Newton's method.

    The slope is at least 1: more similar vectors never mean less similar sentences. ridge: keeps the line finite
    where x decides y.
    """
    centre, width = float(x.mean()), float(x.std()) or 1.0
    z = np.stack([(x - centre) / width, np.ones_like(x)], axis=1)
    line = np.zeros(2)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(z @ line, -30, 30)))
        gradient = z.T @ (p - y) / len(x) + ridge * line
        curvature = (z.T * np.maximum(p * (1 - p), 1e-6)) @ z / len(x) + ridge * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        line -= step
        if np.abs(step).max() < 1e-10:
            break
    slope = float(line[0] / width)
    if slope < LEAST_SLOPE:
        slope = LEAST_SLOPE
        mean = float(np.clip(y.mean(), 0.01, 0.99))
        return slope, float(np.log(mean / (1 - mean)) - slope * centre)
    return slope, float(line[1] - slope * centre)


def separator_of(tokenizer: Any, start: Path) -> int:
    """Return the id of the token between two sentences; raise ConfigError where a tokenizer has none."""
    if tokenizer.sep_token_id is None:
        raise ConfigError(
            f"{start}: its tokenizer has no separator, so no token tells where the second sentence begins. "
            "Use distill.cross.head=classifier."
        )
    return int(tokenizer.sep_token_id)


def gives_types(tokenizer: Any) -> bool:
    """Tell whether a tokenizer gives a second sentence's tokens type 1."""
    return 1 in tokenizer("a", "a").get("token_type_ids", [])


def apart_of(config: Any, tokenizer: Any) -> Apart | None:
    """Return how a new segment head lets a body read, or None where the architecture cannot be told."""
    if config.model_type not in APART:
        return None
    ids = tokenizer("a", "a")["input_ids"]
    between = ids.count(tokenizer.sep_token_id) - 1  # the RoBERTa line puts two separators there
    return Apart(ACROSS, 2 - between, position_offset(config))
