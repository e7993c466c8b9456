from __future__ import annotations

from dataclasses import replace

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
    assert (np.diff(chosen) > 0).all()
    assert len(held_out(10**6, 0.1, 1)) == 2000
    assert len(held_out(195, 0.1, 1)) == len(held_out(21, 0.95, 1)) == 20  # 19.5 and 19.95: just enough


def test_too_few_pairs_to_judge_on_are_refused() -> None:
    with pytest.raises(DataError, match="would judge on 10 of 100 pairs; it needs 20 or more.*held_out"):
        held_out(100, 0.1, 1)
    with pytest.raises(DataError, match="would judge on 20 of 20 pairs; .* some to train on"):
        held_out(20, 0.99, 1)


def test_a_collapsed_model_agrees_with_nobody() -> None:
    assert agreement([1, 2, 3], [0.5, 0.5, 0.5]) == agreement([0.5, 0.5, 0.5], [1, 2, 3]) == 0
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


def test_the_first_of_equally_central_models_is_kept_with_its_agreement_with_the_others() -> None:
    start, cross = candidate("bi", 0, 0.0, None), candidate("cross", 1, 0.4, 0.95)
    best, last = candidate("bi", 1, 0.1, 0.9), candidate("bi", 2, 0.8, 0.95)  # 0.9 is just enough
    assert start.learnt  # it has nothing to learn
    chosen = choose([start, cross, best, last])["bi/s"]
    assert chosen.candidate is best
    found = [agreement(best.scores, other.scores) for other in (cross, last)]
    assert chosen.agreement == pytest.approx(np.mean(found))
    assert choose([start, cross, best, last, replace(best, cycle=3)])["bi/s"].candidate is best
    assert choose([start, cross])["cross/s"].agreement == 1  # there is no other


def test_of_cross_encoders_that_did_not_learn_their_labels_the_nearest_is_kept() -> None:
    models = [candidate("bi", 0, 0.0, None)]
    models += [candidate("cross", cycle, 0.1, labels) for cycle, labels in ((1, 0.5), (2, 0.7), (3, 0.6))]
    chosen = choose(models)["cross/s"]
    assert (chosen.candidate.model, chosen.agreement) == ("cross-2", None)
    assert chosen.reason == "no cycle learnt its labels well enough; nearest to its labels"


def test_one_student_that_learnt_is_teacher_enough_for_the_others() -> None:
    models = [candidate("cross", 1, 0.1, 0.95), candidate("bi", 1, 0.1, 0.95)]
    models += [replace(each, student="t") for each in (candidate("cross", 1, 0.2, 0.5), models[1])]
    chosen = choose(models)
    assert {key: choice.agreement is None for key, choice in chosen.items()} == {
        "cross/s": False,
        "bi/s": False,
        "cross/t": True,  # it learnt nothing itself
        "bi/t": False,
    }


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
    models += [candidate("cross", 3, 0.1, 0.99), candidate("bi", 3, 0.0, 0.99)]  # learnt what was not taught
    chosen = choose(models)
    assert {c.candidate.cycle for c in chosen.values()} == {1}


def test_alignment_and_uniformity_have_their_values() -> None:
    poles = np.array([[1, 0], [-1, 0]], np.float32)
    assert alignment(poles, poles) == 0
    assert alignment(poles, poles[::-1]) == 4
    assert uniformity(poles) == pytest.approx(-8)  # log E exp(-2 * 4)


def test_word_overlap_is_the_dice_coefficient() -> None:
    pairs = Pairs.from_rows(["A cat sat", "a", "Dog", ""], ["a cat", "b", "dog", " "])
    np.testing.assert_allclose(word_overlap(pairs), [0.8, 0.0, 1.0, 0.0])
