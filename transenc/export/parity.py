"""Compare an engine with the model it was made from, over every way in which it will be called."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from transenc.errors import ParityError
from transenc.metrics import spearman
from transenc.pairs import Pairs, Scores
from transenc.scorer import Scorer

SINGLES = 32  # pairs that are also scored one at a time, hence without padding
VECTORS = 256  # sentences whose vectors are compared, besides all scores
MAX_DROP = 0.005  # of Spearman with people's scores, at most, unless asked otherwise
ROUNDING = 1e-6  # of the largest score in fp32: a model's own differ by as much with the batch
LONGEST = 2048  # tokens; beyond it attention matrices outgrow the memory of a workstation


@runtime_checkable
class Encoder(Protocol):
    """A scorer that makes a vector of each sentence."""

    family: str

    def score(self, pairs: Pairs) -> Scores:
        """Return one float32 score per pair."""
        ...

    def encode(self, sentences: list[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32 unit vectors."""
        ...


@dataclass(frozen=True)
class Check:
    """The largest absolute differences found in one way of calling; `vectors` is None for a cross-encoder."""

    name: str
    pairs: int
    scores: float
    vectors: float | None

    def within(self, tolerance: float) -> bool:
        """Tell whether both differences are small enough; NaN is not."""
        return self.scores <= tolerance and (self.vectors is None or self.vectors <= tolerance)

    @property
    def worst(self) -> float:
        """Return the larger of the two differences."""
        return max(self.scores, self.vectors or 0.0)


@dataclass(frozen=True)
class Ranks:
    """Spearman with people's scores, of the model and of the engine, and of the engine with the model.

    scores: the largest difference of a score, as a share of the model's largest.
    """

    pairs: int
    scores: float
    model: float
    engine: float
    agreement: float
    max_drop: float

    @property
    def drop(self) -> float:
        """Return by how much the engine is worse; negative when it is better by chance."""
        return self.model - self.engine

    @property
    def within(self) -> bool:
        """Tell whether the drop is small enough, or scores are the same but for rounding; NaN is not."""
        return self.scores <= ROUNDING or self.drop <= self.max_drop


@dataclass(frozen=True)
class Parity:
    """All checks of one comparison. longest: tokens of the longest text compared."""

    tolerance: float
    longest: int
    checks: tuple[Check, ...]
    ranks: Ranks | None = None

    @property
    def worst(self) -> float:
        """Return the largest difference of all checks."""
        return max(check.worst for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; what is not finite is None there."""
        plain = {**dataclasses.asdict(self), "worst": self.worst}
        if self.ranks is not None:
            plain["ranks"]["drop"] = self.ranks.drop
        return dict(_finite(plain))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Remembered:
    """A model that scores the same pairs, or encodes the same sentences, once; several engines meet it."""

    def __init__(self, model: Scorer) -> None:
        self.family = model.family
        self._model: Any = model
        self._known: dict[Any, Any] = {}
        if isinstance(model, Encoder) and model.family == "bi":
            self.encode = self._encode

    def score(self, pairs: Pairs) -> Scores:
        """Return one float32 score per pair."""
        key = (tuple(pairs.sentences), pairs.left.tobytes(), pairs.right.tobytes())
        if key not in self._known:
            self._known[key] = self._model.score(pairs)
        scores: Scores = self._known[key]
        return scores

    def _encode(self, sentences: list[str]) -> npt.NDArray[np.float32]:
        key = tuple(sentences)
        if key not in self._known:
            self._known[key] = self._model.encode(sentences)
        vectors: npt.NDArray[np.float32] = self._known[key]
        return vectors


def check_parity(
    model: Scorer,
    engine: Scorer,
    pairs: Pairs,
    *,
    tolerance: float,
    max_length: int | None = None,
    gold: Pairs | None = None,
    max_drop: float = MAX_DROP,
) -> Parity:
    """Compare scores, and vectors where there are any; raise ParityError above `tolerance` or `max_drop`.

    Checked are: `pairs` in batches; some of them one at a time, hence unpadded, against the model's batched
    scores; texts of every length bucket up to `max_length` tokens (None: the engine's own) in mixed batches;
    the shortest texts there are; and, with `gold`, how much of the Spearman with people's scores is lost.
    """
    longest = min(max_length or int(getattr(engine, "max_length", 512)), LONGEST)
    checks = [
        *_given(model, engine, pairs),
        _compare("lengths", model, engine, ladder(pairs, longest)),
        _compare("shortest", model, engine, shortest(pairs)),
    ]
    ranks = None if gold is None else _ranks(model, engine, gold, max_drop)
    parity = Parity(tolerance, longest, tuple(checks), ranks)
    bad = [_line(check) for check in checks if not check.within(tolerance)]
    if ranks is not None and not ranks.within:
        bad.append(
            f"Spearman falls from {ranks.model:.4f} to {ranks.engine:.4f} on {ranks.pairs:,} scored pairs, by "
            f"{ranks.drop:.4f} (allowed {max_drop:g})"
        )
    if bad:
        raise ParityError(
            f"The engine disagrees with its model (tolerance {tolerance:g}): {'; '.join(bad)}. "
            "No engine was kept.",
            parity.as_dict(),
        )
    return parity


def _ranks(model: Scorer, engine: Scorer, gold: Pairs, max_drop: float) -> Ranks:
    assert gold.scores is not None
    wanted, got = model.score(gold), engine.score(gold)
    to_gold = to_model = math.nan
    if np.isfinite(got).all():
        to_gold, to_model = spearman(got, gold.scores), spearman(got, wanted)
    # As a share, since small scores, as sigmoids of low logits, are not rounded as those near 1 are.
    far = _difference(wanted, got) / (float(np.abs(wanted).max(initial=0.0)) or 1.0)
    return Ranks(len(gold), far, spearman(wanted, gold.scores), to_gold, to_model, max_drop)


def _line(check: Check) -> str:
    vectors = "" if check.vectors is None else f", vectors by up to {check.vectors:.2g}"
    return f"in '{check.name}', {check.pairs} pairs, scores differ by up to {check.scores:.2g}{vectors}"


def _given(model: Scorer, engine: Scorer, pairs: Pairs) -> list[Check]:
    if not len(pairs):
        return []
    wanted = model.score(pairs)
    got = engine.score(pairs)
    sample = np.unique(np.linspace(0, len(pairs) - 1, SINGLES).astype(np.int64))
    singles = np.concatenate([engine.score(pairs.take(np.asarray([i]))) for i in sample])
    return [
        Check("batches", len(pairs), _difference(wanted, got), _vectors(model, engine, pairs)),
        Check("one at a time", len(sample), _difference(wanted[sample], singles), None),
    ]


def _compare(name: str, model: Scorer, engine: Scorer, pairs: Pairs) -> Check:
    difference = _difference(model.score(pairs), engine.score(pairs))
    return Check(name, len(pairs), difference, _vectors(model, engine, pairs))


def _vectors(model: Scorer, engine: Scorer, pairs: Pairs) -> float | None:
    if not (isinstance(model, Encoder) and isinstance(engine, Encoder) and engine.family == "bi"):
        return None
    sentences = list(pairs.sentences[:VECTORS])
    return _difference(model.encode(sentences), engine.encode(sentences))


def _difference(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0))


def ladder(pairs: Pairs, longest: int) -> Pairs:
    """Make texts of 1, 2, 3, 4, 6, ... `longest` words of the pairs, each paired with the next and with a word.

    A word has at least one token, so the last texts are cut at `longest` tokens, as long input will be.
    """
    words = list(dict.fromkeys(w for sentence in pairs.sentences[:200] for w in sentence.split())) or ["a"]
    counts = sorted({longest, *(c for n in range(16) for c in (2**n, 3 * 2**n) if c < longest)})
    # Each text starts elsewhere, so that no two are alike.
    texts = [" ".join(words[(7 * i + k) % len(words)] for k in range(n)) for i, n in enumerate(counts)]
    return Pairs.from_rows([*texts, *texts], [*texts[1:], texts[0], *[words[0]] * len(texts)])


def shortest(pairs: Pairs) -> Pairs:
    """Pair texts of no or one character with each other and with a sentence of the pairs."""
    sentence = pairs.sentences[0] if len(pairs.sentences) else "a"
    texts = ["", " ", ".", "a"]
    return Pairs.from_rows([*texts, *texts], [*texts[1:], *[sentence] * (len(texts) + 1)])
