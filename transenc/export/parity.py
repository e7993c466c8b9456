"""Compare an engine with the model it was made from, over every way in which it will be called."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from transenc.errors import ParityError
from transenc.pairs import Pairs, Scores
from transenc.scorer import Scorer

SINGLES = 32  # pairs that are also scored one at a time, hence without padding
VECTORS = 256  # sentences whose vectors are compared, besides all scores
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
class Parity:
    """All checks of one comparison. longest: tokens of the longest text compared."""

    tolerance: float
    longest: int
    checks: tuple[Check, ...]

    @property
    def worst(self) -> float:
        """Return the largest difference of all checks."""
        return max(check.worst for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**dataclasses.asdict(self), "worst": self.worst}


def check_parity(
    model: Scorer, engine: Scorer, pairs: Pairs, *, tolerance: float, max_length: int | None = None
) -> Parity:
    """Compare scores, and vectors where there are any; raise ParityError above `tolerance`.

    Checked are: `pairs` in batches; some of them one at a time, hence unpadded, against the model's batched
    scores; texts of every length bucket up to `max_length` tokens (None: the engine's own) in mixed batches;
    and the shortest texts there are.
    """
    longest = min(max_length or int(getattr(engine, "max_length", 512)), LONGEST)
    checks = [
        *_given(model, engine, pairs),
        _compare("lengths", model, engine, ladder(pairs, longest)),
        _compare("shortest", model, engine, shortest(pairs)),
    ]
    parity = Parity(tolerance, longest, tuple(checks))
    bad = [check for check in checks if not check.within(tolerance)]
    if bad:
        raise ParityError(
            f"The engine disagrees with its model (tolerance {tolerance:g}): "
            + "; ".join(_line(check) for check in bad)
            + ". No engine was kept."
        )
    return parity


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
