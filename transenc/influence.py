"""What each pair adds to a metric, to first order: influence functions (Hampel, 1974), the intervals of large sets.

Each function takes scores and gold as a metric's `measure` does, and its value. It returns one figure a pair, of mean
0: the metric's derivative by that pair's weight. Their mean square over n is the metric's variance; that of AUC is
DeLong's (1988).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[Any]


def of_pearson(scores: Column, gold: Column, value: float) -> Floats:
    """Return the influence of each pair on the Pearson correlation."""
    x, y = (scores - scores.mean()) / scores.std(), (gold - gold.mean()) / gold.std()
    influence: Floats = x * y - value * (x**2 + y**2) / 2
    return influence


def of_spearman(scores: Column, gold: Column, value: float) -> Floats:
    """Return the influence of each pair on the Spearman correlation: by its own ranks, and by those it moves."""
    ones = np.ones(len(scores))
    x, y = 0.5 - _above(scores, ones), 0.5 - _above(gold, ones)  # centred mid-ranks, as shares of all
    xx, yy = float((x**2).mean()), float((y**2).mean())
    both = x * y + _above(scores, y) + _above(gold, x) - 3 * float((x * y).mean())
    own = [column**2 + 2 * _above(codes, column) for codes, column in ((scores, x), (gold, y))]
    influence: Floats = both / np.sqrt(xx * yy) - value / 2 * (own[0] / xx + own[1] / yy - 6)
    return influence


def of_auc(scores: Column, gold: Column, value: float) -> Floats:
    """Return the influence of each pair on the ROC-AUC: what its class's share of right orders has in it."""
    one = float(gold.mean())
    over = (1 - one) - _above(scores, 1.0 - gold)  # zeros below, as a share of all pairs
    under = _above(scores, gold)  # ones above
    influence: Floats = np.where(gold == 1, over / (1 - one) - value, under / one - value)
    return influence / np.where(gold == 1, one, 1 - one)


def of_average_precision(scores: Column, gold: Column, value: float) -> Floats:
    """Return the influence of each pair on the average precision: by its own threshold, and by those below it."""
    total = np.bincount(scores)
    right = np.bincount(scores, gold, len(total))
    seen = np.cumsum(total[::-1])[::-1]  # pairs from each threshold on
    precision = np.cumsum(right[::-1])[::-1] / seen
    gained, spread = np.cumsum(right / seen), np.cumsum(right * precision / seen)
    own = gold * (precision[scores] - value + gained[scores]) - spread[scores]
    influence: Floats = own / gold.mean()
    return influence


def _above(codes: Column, weights: Column) -> Floats:
    """Return the weight of the pairs whose value is above each pair's, an equal one counting half, over n."""
    sums = np.bincount(codes, weights)
    above: Floats = (sums.sum() - np.cumsum(sums) + sums / 2)[codes] / len(codes)
    return above
