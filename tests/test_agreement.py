from __future__ import annotations

import numpy as np
import pytest

from transenc.agreement import (
    Candidate,
    agreement,
    alignment,
    choose,
    held_out,
    uniformity,
    word_overlap,
)
from transenc.errors import DataError
from transenc.pairs import Pairs

TRUTH = np.random.default_rng(0).standard_normal(400).astype(np.float32)


def candidate(family: str, cycle: int, noise: float, labels: float | None, needed: float = 0.9) -> Candidate:
    """A model that sees the truth through noise of its own."""
    rng = np.random.default_rng([cycle, len(family)])
    scores = (TRUTH + noise * rng.standard_normal(len(TRUTH))).astype(np.float32)
    return Candidate(f"{family}-{cycle}", "s", family, cycle, scores, labels, needed)


def test_held_out_pairs_are_a_seeded_share_of_all() -> None:
    chosen = held_out(1000, 0.1, 1)
    assert len(chosen) == len(set(chosen.tolist())) == 100
    np.testing.assert_array_equal(chosen, held_out(1000, 0.1, 1))
    assert set(chosen) != set(held_out(1000, 0.1, 2))
    assert len(held_out(10**6, 0.1, 1)) == 2000


def test_too_few_pairs_to_judge_on_are_refused() -> None:
    with pytest.raises(DataError, match="would judge on 10 of 100 pairs; it needs 20 or more.*held_out"):
        held_out(100, 0.1, 1)


def test_a_collapsed_model_agrees_with_nobody() -> None:
    assert agreement([1, 2, 3], [0.5, 0.5, 0.5]) == 0
    assert agreement([1, 2, 3], [10, 20, 30]) == pytest.approx(1)


def test_the_most_central_of_the_models_that_learnt_is_chosen() -> None:
    models = [
        candidate("bi", 0, 0.0, None),
        candidate("cross", 1, 0.4, 0.95),
        candidate("bi", 1, 0.8, 0.95),
        candidate("cross", 2, 0.4, 0.95),
        candidate("bi", 2, 0.1, 0.95),
    ]
    chosen = choose(models)
    assert chosen["bi/s"].candidate.model == "bi-2"
    assert chosen["bi/s"].agreement is not None


def test_the_start_is_kept_when_no_cycle_learnt_its_labels() -> None:
    chosen = choose(
        [candidate("bi", 0, 0.0, None), candidate("cross", 1, 0.1, 0.8), candidate("bi", 1, 0.1, 0.99)]
    )
    assert chosen["bi/s"].candidate.model == "bi-0"  # what its teacher did not learn, it cannot have
    assert chosen["cross/s"].candidate.model == "cross-1"
    assert "no cycle learnt" in chosen["bi/s"].reason


def test_cycles_after_a_broken_one_are_not_trusted() -> None:
    models = [candidate("bi", 0, 0.0, None), candidate("cross", 1, 0.3, 0.95), candidate("bi", 1, 0.3, 0.95)]
    models += [candidate("cross", 2, 0.1, 0.5), candidate("bi", 2, 0.1, 0.99)]
    chosen = choose(models)
    assert {c.candidate.cycle for c in chosen.values()} == {1}


def test_alignment_and_uniformity_have_their_values() -> None:
    poles = np.array([[1, 0], [-1, 0]], np.float32)
    assert alignment(poles, poles) == 0
    assert alignment(poles, poles[::-1]) == 4
    assert uniformity(poles) == pytest.approx(-8)  # log E exp(-2 * 4)


def test_word_overlap_is_the_dice_coefficient() -> None:
    pairs = Pairs.from_rows(["A cat sat", "a"], ["a cat", "b"])
    np.testing.assert_allclose(word_overlap(pairs), [0.8, 0.0])
