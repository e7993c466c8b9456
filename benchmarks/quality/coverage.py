"""Simulate how often 95% intervals of `evaluate` cover the truth.

Of Spearman, of a ROC-AUC, of an average precision, and of gains in either. Beside each of the latter stands what
percentiles of the same resamples would cover.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np

from transenc.metrics import (
    LARGE,
    Floats,
    Metric,
    auc,
    average_precision,
    interval,
    log_odds_interval,
    resampled,
    spearman,
)

NORMAL = NormalDist()
ZEROS = 160  # pairs of the larger class
Ends = tuple[float, float]
Case = tuple[
    str, float, Callable[[np.random.Generator], tuple[Ends, Ends | None]]
]  # what, truth, its intervals


def of_spearman(n: int, correlation: float, resamples: int) -> Case:
    """Return the case of n pairs of normal scores and gold."""

    def draw(rng: np.random.Generator) -> tuple[Ends, None]:
        gold = rng.normal(size=n)
        scores = correlation * gold + math.sqrt(1 - correlation**2) * rng.normal(size=n)
        drawn = resampled(spearman, scores, gold, samples=resamples, seed=int(rng.integers(2**31)))
        return interval(drawn, spearman(scores, gold)), None

    truth = 6 / math.pi * math.asin(correlation / 2)
    return f"Spearman of {truth:.2f}, {n} pairs", truth, draw


def of_auc(kind: str, truth: float, ones: int, resamples: int) -> Case:
    """Return the case of `ones` pairs in the rarer class, whose scores are normal or exponential."""

    def draw(rng: np.random.Generator) -> tuple[Ends, Ends]:
        gold = np.repeat([1.0, 0.0], [ones, ZEROS])
        if kind == "normal":
            scores = rng.normal(size=len(gold)) + gold * math.sqrt(2) * NORMAL.inv_cdf(truth)
        else:
            scores = rng.exponential(size=len(gold)) * np.where(gold == 1, truth / (1 - truth), 1)
        drawn = resampled(auc, scores, gold, samples=resamples, seed=int(rng.integers(2**31)))
        value = auc(scores, gold)
        return log_odds_interval(drawn, value, ones), interval(drawn, value)

    return f"AUC of {truth:.2f}, {ones} pairs in a class, {kind} scores", truth, draw


def of_average_precision(ones: int, zeros: int, apart: float, resamples: int) -> Case:
    """Return the case of normal scores, of which those of ones are higher by `apart`."""
    truth = _average_precision(ones, zeros, apart)

    def draw(rng: np.random.Generator) -> tuple[Ends, Ends]:
        gold = np.repeat([1.0, 0.0], [ones, zeros])
        scores = rng.normal(size=len(gold)) + apart * gold
        drawn = resampled(average_precision, scores, gold, samples=resamples, seed=int(rng.integers(2**31)))
        value = average_precision(scores, gold)
        return log_odds_interval(drawn, value, min(ones, zeros)), interval(drawn, value)

    return f"average precision of {truth:.2f}, {ones} ones, {zeros:,} zeros", truth, draw


def _average_precision(ones: int, zeros: int, apart: float) -> float:
    """Return what the average precision tends to when pairs of these shares are ever more."""
    thresholds = np.linspace(apart + 8, -8, 20_001)
    of_ones, of_zeros = (
        np.array([NORMAL.cdf(mean - t) for t in thresholds]) for mean in (apart, 0.0)
    )  # shares above each threshold
    precision = ones * of_ones / (ones * of_ones + zeros * of_zeros)
    return float(np.diff(of_ones) @ (precision[1:] + precision[:-1]) / 2)


def of_gain(metric: Metric, first: float, second: float, ones: int, resamples: int) -> Case:
    """Return the case of two models' difference, who share most of their noise; first, second: their AUC."""
    aparts = [math.sqrt(2) * NORMAL.inv_cdf(truth) for truth in (first, second)]
    if metric is average_precision:
        first, second = (_average_precision(ones, ZEROS, apart) for apart in aparts)

    def draw(rng: np.random.Generator) -> tuple[Ends, Ends]:
        gold = np.repeat([1.0, 0.0], [ones, ZEROS])
        common, seed = 0.8 * rng.normal(size=len(gold)), int(rng.integers(2**31))
        values, drawn = [], []
        for apart in aparts:
            scores = common + 0.6 * rng.normal(size=len(gold)) + gold * apart
            values.append(metric(scores, gold))
            drawn.append(resampled(metric, scores, gold, samples=resamples, seed=seed))
        gain, moved = values[1] - values[0], drawn[1] - drawn[0]
        return log_odds_interval(moved, gain, ones, difference=True), interval(moved, gain)

    return f"{metric.name} {second:.2f} over {first:.2f}, {ones} pairs in a class", second - first, draw


def cases(resamples: int) -> Iterator[Case]:
    """Yield what is simulated."""
    for n in (10, 30, 100, 300):
        for correlation in (0.5, 0.8):
            yield of_spearman(n, correlation, resamples)
    for kind, truth in (("normal", 0.86), ("normal", 0.95), ("exponential", 0.86), ("exponential", 0.95)):
        for ones in (5, 10, 20, 40):
            yield of_auc(kind, truth, ones, resamples)
    for zeros, parts in ((ZEROS, (1.5, 2.5)), (LARGE, (3.0, 4.0))):
        for apart in parts:
            for ones in (5, 10, 20, 40):
                yield of_average_precision(ones, zeros, apart, resamples)
    yield of_average_precision(ZEROS, 10, 1.5, resamples)
    for first, second in ((0.86, 0.86), (0.86, 0.94)):
        for ones in (5, 10, 20, 40):
            for metric in (auc, average_precision):
                yield of_gain(metric, first, second, ones, resamples)


def covered(case: Case, repeats: int, seed: int) -> tuple[float, float | None]:
    """Return the share of repeats whose interval holds the truth, by our rule and, of binary gold, by percentiles."""
    _, truth, draw = case
    rng = np.random.default_rng(seed)
    found: Floats = np.array([[math.nan, math.nan]] * repeats)
    for i in range(repeats):
        for j, ends in enumerate(draw(rng)):
            if ends is not None:
                found[i, j] = ends[0] <= truth <= ends[1]
    ours, theirs = (float(share) for share in found.mean(axis=0))
    return ours, None if math.isnan(theirs) else theirs


def main(arguments: Sequence[str]) -> int:
    """Print a table of the shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality coverage", description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=1000, help="of each bootstrap")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print("| what | covered | by percentiles |\n|---|---|---|")
    for case in cases(options.resamples):
        ours, theirs = covered(case, options.repeats, options.seed)
        print(
            f"| {case[0]} | {100 * ours:.0f}% | {'' if theirs is None else f'{100 * theirs:.0f}%'} |",
            flush=True,
        )
    return 0
