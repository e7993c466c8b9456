from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from transenc.errors import DataError
from transenc.pairs import Pairs, Scores
from transenc.scorer import BothOrders, blend, rank_mean, to_labels, to_ranks, weighted_mean

CROSS = np.array([0.9, 0.2, 0.4, 0.95], np.float32)
BI = np.array([0.5, -0.1, 0.7, 0.6], np.float32)


def test_ranks_run_from_zero_to_one_and_ties_share() -> None:
    np.testing.assert_allclose(to_ranks(CROSS), [2 / 3, 0, 1 / 3, 1])
    np.testing.assert_allclose(to_ranks(np.array([2, 1, 2], np.float32)), [0.75, 0, 0.75])
    assert to_ranks(CROSS[:1]).tolist() == CROSS[:1].tolist()  # one score has no others to rank it among


@pytest.mark.parametrize(
    ("transform", "mix", "expected"),
    [
        ("none", 0.0, CROSS),
        ("none", 0.25, 0.75 * CROSS + 0.25 * BI),
        ("rank", 0.0, [2 / 3, 0, 1 / 3, 1]),
        ("rank", 0.5, [(2 / 3 + 1 / 3) / 2, 0, (1 / 3 + 1) / 2, (1 + 2 / 3) / 2]),
        ("match", 0.0, [0.6, -0.1, 0.5, 0.7]),  # the bi-encoder's values in the cross-encoder's order
        ("match", 0.5, [0.55, -0.1, 0.6, 0.65]),
    ],
)
def test_labels_are_blended_of_the_teacher_and_the_learner(
    transform: str, mix: float, expected: Scores
) -> None:
    np.testing.assert_allclose(blend(CROSS, BI, transform, mix), expected, atol=1e-6)


def test_a_weighted_mean_takes_weights_of_any_sum() -> None:
    np.testing.assert_allclose(weighted_mean([CROSS, BI], [6, 2]), 0.75 * CROSS + 0.25 * BI, atol=1e-6)


def test_a_bi_encoder_that_teaches_has_nothing_to_blend_with() -> None:
    np.testing.assert_array_equal(blend(BI, None, "match", 0.5), BI)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("way", ["mean", "rank", "match", "rank-mean"])
def test_a_broken_teacher_makes_no_labels_by_any_way(way: str, bad: float) -> None:
    broken = np.array([0.9, bad, 0.4, 0.95], np.float32)
    with pytest.raises(DataError, match="score of pair 2 is (nan|inf); the model is broken"):
        if way == "mean":
            to_labels(broken)
        elif way == "rank-mean":
            to_labels(rank_mean([CROSS, broken]))
        else:
            to_labels(blend(broken, BI if way == "match" else None, way, 0.0))


def test_clipping_is_counted_and_can_be_left_out_to_compare() -> None:
    outside = np.array([-0.1, 0.0, 0.5, 1.0, 1.2], np.float32)
    assert to_labels(outside).values.tolist() == [0, 0, 0.5, 1, 1]
    assert to_labels(outside).clipped == 2
    unclipped = to_labels(BI, clip=False)
    assert (unclipped.clipped, unclipped.rule) == (0, "no clipping")
    np.testing.assert_array_equal(unclipped.values, BI)


@dataclass
class FirstLength:
    family: str = "cross"

    def score(self, pairs: Pairs) -> Scores:
        return np.array([len(a) for a, _ in pairs.rows()], np.float32)


def test_both_orders_are_averaged() -> None:
    pairs = Pairs.from_rows(["aa", "b"], ["bbbb", "aa"])
    assert BothOrders(FirstLength()).score(pairs).tolist() == [3.0, 1.5]
