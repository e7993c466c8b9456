"""Simulate how often 95% intervals of `evaluate` cover the truth: of Spearman, of a ROC-AUC and of its gains.

Beside each AUC stands what percentiles of the same resamples would cover.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np

from transenc.metrics import Floats, auc, auc_interval, interval, resampled, spearman

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
        return auc_interval(drawn, value, ones), interval(drawn, value)

    return f"AUC of {truth:.2f}, {ones} pairs in a class, {kind} scores", truth, draw


def of_gain(first: float, second: float, ones: int, resamples: int) -> Case:
    """Return the case of two models' difference in AUC, who share most of their noise."""

    def draw(rng: np.random.Generator) -> tuple[Ends, Ends]:
        gold = np.repeat([1.0, 0.0], [ones, ZEROS])
        common, seed = 0.8 * rng.normal(size=len(gold)), int(rng.integers(2**31))
        values, drawn = [], []
        for truth in (first, second):
            scores = common + 0.6 * rng.normal(size=len(gold)) + gold * math.sqrt(2) * NORMAL.inv_cdf(truth)
            values.append(auc(scores, gold))
            drawn.append(resampled(auc, scores, gold, samples=resamples, seed=seed))
        gain, moved = values[1] - values[0], drawn[1] - drawn[0]
        return auc_interval(moved, gain, ones, difference=True), interval(moved, gain)

    return f"AUC {second:.2f} over {first:.2f}, {ones} pairs in a class", second - first, draw


def cases(resamples: int) -> Iterator[Case]:
    """Yield what is simulated."""
    for n in (30, 100, 300):
        for correlation in (0.5, 0.8):
            yield of_spearman(n, correlation, resamples)
    for kind, truth in (("normal", 0.86), ("normal", 0.95), ("exponential", 0.86), ("exponential", 0.95)):
        for ones in (5, 10, 20, 40):
            yield of_auc(kind, truth, ones, resamples)
    for first, second in ((0.86, 0.86), (0.86, 0.94)):
        for ones in (5, 10, 20, 40):
            yield of_gain(first, second, ones, resamples)


def covered(case: Case, repeats: int, seed: int) -> tuple[float, float | None]:
    """Return the share of repeats whose interval holds the truth, by our rule and, of AUC, by percentiles."""
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
