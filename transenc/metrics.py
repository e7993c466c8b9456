"""How well scores agree with gold: Spearman, Pearson, AUC, average precision, and bootstrap intervals.

Written in numpy, since importing scipy costs half a second; the tests compare with scipy and scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc import influence
from transenc.errors import DataError

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000  # of a bootstrap
LARGE = 20_000  # pairs, from which on a bootstrap goes by influence
GROUPS = 2_000  # of pairs, drawn as one there: widths vary by sqrt(1 / (2 groups)), 1.6%
Column = npt.NDArray[Any]


def ranks(values: npt.ArrayLike) -> Floats:
    """Return ranks from 1; ties share their average rank."""
    return _shared_ranks(_codes(np.asarray(values)))


def _codes(values: Column) -> Column:
    """Return the place of each value among the distinct values: all that rank metrics need of them."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def _as_floats(values: Column) -> Column:
    return np.asarray(values, np.float64)


def _as_classes(values: Column) -> Column:
    return np.asarray(values, np.int64)


def _shared_ranks(codes: Column) -> Floats:
    counts = np.bincount(codes)
    ranked: Floats = (np.cumsum(counts) - (counts - 1) / 2.0)[codes]
    return ranked


def _pearson(scores: Column, gold: Column) -> float:
    x, y = scores - scores.mean(), gold - gold.mean()
    norm = float(np.sqrt(x @ x) * np.sqrt(y @ y))
    return min(1.0, max(-1.0, float(x @ y) / norm)) if norm > 0 else np.nan


def _spearman(scores: Column, gold: Column) -> float:
    return _pearson(_shared_ranks(scores), _shared_ranks(gold))


def _auc(scores: Column, gold: Column) -> float:
    ones = int(gold.sum())
    zeros = len(gold) - ones
    if not ones or not zeros:
        return np.nan
    wins = float(_shared_ranks(scores)[gold == 1].sum()) - ones * (ones + 1) / 2
    return wins / (ones * zeros)


def _average_precision(scores: Column, gold: Column) -> float:
    """Return the sum over thresholds of (recall gained) x precision; equal scores are one threshold."""
    total, right = np.bincount(scores)[::-1], np.bincount(scores, gold)[::-1]
    if not 0 < right.sum() < len(gold):
        return np.nan
    return float(right @ (np.cumsum(right) / np.cumsum(total)) / right.sum())


@dataclass(frozen=True)
class Metric:
    """Compare scores with gold; call it with two arrays of one length.

    It raises DataError for NaN or infinity, naming the pair (from 1), for fewer than two pairs and where it
    is undefined: constant scores or gold, gold of one class.
    """

    name: str
    measure: Callable[[Column, Column], float]
    influence: Callable[[Column, Column, float], Floats]
    prepare: Callable[[Column], Column] = _codes
    binary: bool = False

    def __call__(self, scores: npt.ArrayLike, gold: npt.ArrayLike) -> float:
        """Return the value, as a fraction and not times 100."""
        return self.measure(*self.prepared(scores, gold))

    def prepared(self, scores: npt.ArrayLike, gold: npt.ArrayLike) -> tuple[Column, Column]:
        """Check both columns and bring them into the form that `measure` takes."""
        x, y = _checked(scores, "score"), _checked(gold, "gold score")
        if len(x) != len(y):
            raise DataError(f"{len(x)} scores for {len(y)} gold scores.")
        if len(x) < 2:
            raise DataError(f"{self.name} needs at least 2 pairs, not {len(x)}.")
        if self.binary:
            other = np.flatnonzero((y != 0) & (y != 1))
            if len(other):
                wrong = f"pair {other[0] + 1}: the gold score is {y[other[0]]:g}"
                raise DataError(f"{wrong}, but {self.name} needs labels 0 and 1.")
            if y.min() == y.max():
                same = f"All {len(y)} gold labels are {y[0]:g}"
                raise DataError(f"{same}: {self.name} is undefined for one class.")
            return self.prepare(x), _as_classes(y)
        for what, column in (("scores", x), ("gold scores", y)):
            if column.min() == column.max():
                raise DataError(f"All {len(column)} {what} are {column[0]:g}: {self.name} is undefined.")
        return self.prepare(x), self.prepare(y)


def _checked(values: npt.ArrayLike, what: str) -> Column:
    column = np.asarray(values, np.float64).reshape(-1)
    bad = np.flatnonzero(~np.isfinite(column))
    if len(bad):
        count = f"{len(bad)} of {len(column)} pairs"
        raise DataError(f"pair {bad[0] + 1}: the {what} is {column[bad[0]]} ({count}).")
    return column


spearman = Metric("Spearman", _spearman, influence.of_spearman)
pearson = Metric("Pearson", _pearson, influence.of_pearson, _as_floats)
auc = Metric("AUC", _auc, influence.of_auc, binary=True)
average_precision = Metric(
    "average precision", _average_precision, influence.of_average_precision, binary=True
)

METRICS: dict[str, Metric] = {
    "spearman": spearman,
    "pearson": pearson,
    "auc": auc,
    "average_precision": average_precision,
}


def quality(name: str, scores: npt.ArrayLike, gold: npt.ArrayLike) -> float:
    """Return a metric of a model's scores; 0 where all are equal and it is a correlation: nothing is told apart.

    Gold of one value raises DataError, as there nothing can be told.
    """
    metric, column = METRICS[name], _checked(scores, "score")
    if not metric.binary and len(column) and column.min() == column.max():
        metric(np.arange(len(column)), gold)
        return 0.0
    return metric(column, gold)


def metric_for(gold: npt.ArrayLike) -> str:
    """Name the metric of gold scores: auc when all are 0 or 1, else spearman."""
    return "auc" if bool(np.isin(np.asarray(gold), (0, 1)).all()) else "spearman"


def resampled(
    metric: Metric,
    scores: npt.ArrayLike,
    gold: npt.ArrayLike,
    *,
    units: npt.NDArray[np.int64] | None = None,
    samples: int = RESAMPLES,
    seed: int = 0,
) -> Column:
    """Return a metric of pairs drawn with replacement, once a sample (bootstrap: Efron, 1979).

    units: (n,) the number, from 0, of what each pair is a copy of; copies tell nothing more, so they are drawn
    together. None: every pair is its own.
    NaN where it is undefined: one class, or all equal. As many pairs and the same seed give the same draws, so that
    differences of two scorers' values are paired. Of more than 20,000 pairs the metric's influence is resampled, to
    first order the same, and in groups of pairs: a second in place of minutes for a million.
    """
    x, y = metric.prepared(scores, gold)
    rng = np.random.default_rng(seed)
    if len(x) > LARGE:
        return _resampled_influence(metric, x, y, units, samples, rng)
    values, places = np.empty(samples), np.arange(len(x))
    n = len(x) if units is None else int(units.max()) + 1
    for i in range(samples):
        drawn = rng.integers(n, size=n)
        if units is not None:
            drawn = np.repeat(places, np.bincount(drawn, minlength=n)[units])
        values[i] = metric.measure(x[drawn], y[drawn])
    return values


def _resampled_influence(
    metric: Metric, x: Column, y: Column, units: Column | None, samples: int, rng: np.random.Generator
) -> Column:
    value, units = metric.measure(x, y), np.arange(len(x)) if units is None else units
    # Files may be sorted: only groups at random vary as pairs do.
    groups = rng.integers(GROUPS, size=int(units.max()) + 1)[units]
    sums = np.bincount(groups, metric.influence(x, y, value), GROUPS) / len(x)
    times = rng.multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS), size=samples)
    moved: Column = times @ sums
    return value + moved


def interval(resamples: Column, value: float) -> tuple[float, float]:
    """Return the 95% percentile interval of resamples, those that are NaN left out; of none, the value itself."""
    known = resamples[~np.isnan(resamples)]
    if not len(known):
        return value, value
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def log_odds_interval(
    resamples: Column, value: float, rarer: int, *, difference: bool = False
) -> tuple[float, float]:
    """Return the 95% interval of a ROC-AUC or an average precision by log-odds, or of a difference of two as it is.

    rarer: pairs of the rarer class. Percentiles of few are too short: there the standard deviation of resamples lacks
    a factor, sqrt(n / (n - 1)), and is itself uncertain, for which Student's t stands in place of 1.96. Of a perfect
    order it tells nothing: n pairs that all are in order have a probability of at most value^n.
    """
    if not difference and value in (0.0, 1.0):
        edge = 0.025 ** (1 / rarer)
        return (edge, 1.0) if value else (0.0, 1 - edge)
    known = resamples[~np.isnan(resamples)]
    deviation = float(known.std(ddof=1)) if len(known) > 1 else np.inf
    if rarer == 1:
        half = np.inf if deviation else 0.0
    else:
        half = _students_t(rarer - 1) * deviation * (rarer / (rarer - 1)) ** 0.5
    if difference:
        return max(-1.0, value - half), min(1.0, value + half)
    odds, times = value / (1 - value), np.exp(min(half / (value * (1 - value)), 600.0))
    return float(odds / (odds + times)), float(1 / (1 + 1 / (odds * times)))


def _students_t(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t by expansion about the normal one (Abramowitz and Stegun, 26.7.5)."""
    if freedom in (1, 2):  # where the expansion is 24% and 3% too small
        return 12.7062 if freedom == 1 else 4.30265
    z = 1.959964
    terms = (z, z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z)
    parts = zip(terms, (1.0, 4.0 * freedom, 96.0 * freedom**2, 384.0 * freedom**3), strict=True)
    return sum(term / by for term, by in parts)
