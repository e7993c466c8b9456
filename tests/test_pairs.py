from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transenc.errors import DataError
from transenc.metrics import spearman
from transenc.models.loading import load_scorer
from transenc.pairs import Pairs, cosines, join, plain
from transenc.readers import read_pairs, read_sentences
from transenc.scorer import mean, rank_mean, to_labels

PAIRS = Pairs.from_rows(["a", "b", "a", "c"], ["b", "a", "b", "c"], [0.1, 0.2, 0.3, 0.4])


def test_every_distinct_sentence_is_stored_once() -> None:
    assert list(PAIRS.sentences) == ["a", "b", "c"]
    assert list(PAIRS.rows()) == [("a", "b"), ("b", "a"), ("a", "b"), ("c", "c")]


def test_unique_drops_self_pairs_and_either_order() -> None:
    assert list(PAIRS.unique().rows()) == [("a", "b")]


def test_take_narrows_the_sentences_and_keeps_scores() -> None:
    taken = PAIRS.take(np.array([3, 1]))
    assert list(taken.rows()) == [("c", "c"), ("b", "a")]
    assert taken.scores is not None
    assert taken.scores.tolist() == pytest.approx([0.4, 0.2])


def test_join_shares_sentences_and_keeps_scores_only_if_all_have_them() -> None:
    joined = join([PAIRS, Pairs.from_rows(["d"], ["a"], [0.5])])
    assert list(joined.sentences) == ["a", "b", "c", "d"]
    assert joined.scores is not None
    assert list(joined.rows())[-1] == ("d", "a")
    assert join([PAIRS, Pairs.from_rows(["d"], ["a"])]).scores is None
    assert len(join([])) == 0


@pytest.mark.parametrize("columns", [(["a"], [], None), (["a"], ["b"], [0.1, 0.2])])
def test_columns_of_different_lengths_are_refused(
    columns: tuple[list[str], list[str], list[float] | None],
) -> None:
    with pytest.raises(ValueError, match=r"1 left but 0|2 scores for 1"):
        Pairs.from_rows(*columns)


def test_cosines_stay_within_one() -> None:
    vectors = np.array([[0.6, 0.8000001], [1, 0]], np.float32)
    assert cosines(vectors, np.array([0, 0]), np.array([0, 1])).tolist() == pytest.approx([1.0, 0.6])


def test_labels_are_clipped_and_the_clipped_are_counted() -> None:
    labels = to_labels(np.array([-0.2, 0.0, 0.5, 1.0, 1.1], np.float32))
    assert labels.values.tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert (labels.clipped, labels.rule) == (2, "clip to [0, 1]")


def test_a_broken_teacher_is_named_by_its_pair() -> None:
    with pytest.raises(DataError, match="score of pair 2 is nan"):
        to_labels(np.array([0.1, np.nan], np.float32))


def test_teachers_scores_or_ranks_are_averaged() -> None:
    columns = [np.array([0.1, 0.2, 0.9, 0.3], np.float32), np.array([10, 40, 20, 30], np.float32)]
    assert mean(columns).tolist() == pytest.approx([5.05, 20.1, 10.45, 15.15])
    assert rank_mean(columns).tolist() == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3])


def test_the_rank_mean_does_not_depend_on_a_members_scale() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 50)).astype(np.float32)
    np.testing.assert_allclose(rank_mean([a, b]), rank_mean([a**3 * 7, b]), atol=1e-6)
    assert rank_mean([a[:1]]).tolist() == mean([a[:1]]).tolist()


def test_the_metric_of_averaged_scores_is_not_the_average_of_metrics() -> None:
    gold = np.array([1, 2, 3, 4], np.float32)
    a, b = np.array([1, 2, 3, 0], np.float32), np.array([0, 2, 3, 9], np.float32)
    assert spearman(mean([a, b]), gold) != pytest.approx((spearman(a, gold) + spearman(b, gold)) / 2)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("A man is eating.", "a man is  eating", True),
        ("\u201cYes\u201d - she said", '"yes," she said', True),
        ("ﬁve cafe\u0301s", "five cafés", True),
        ("x < 5", "x > 5", False),
        ("कि", "की", False),  # vowel signs are no letters to a regular expression
        ("??", "!!", False),
        ("😀", "😡", False),
    ],
)
def test_sentences_that_nobody_would_tell_apart_have_one_plain_form(
    first: str, second: str, same: bool
) -> None:
    assert (plain(first) == plain(second)) == same


@pytest.mark.parametrize(
    ("given", "message"),
    [("a dog", r"give a list, \[text\]"), (["a", None], "text 2 of 2 is NoneType, not str")],
)
def test_one_text_or_none_is_never_taken_for_a_column(given: Any, message: str, plm: Path) -> None:
    with pytest.raises(TypeError, match=message):
        Pairs.from_rows(given, ["a", "b"])
    with pytest.raises(TypeError, match=message):
        load_scorer(plm).encode(given)  # type: ignore[attr-defined]


def test_arrays_and_columns_are_encoded_as_lists_are(plm: Path) -> None:
    encoder: Any = load_scorer(plm)
    wanted = encoder.encode(["a dog", "a cat"])
    for given in (np.array(["a dog", "a cat"]), iter(["a dog", "a cat"])):
        np.testing.assert_array_equal(encoder.encode(given), wanted)


def test_files_are_named_by_text_or_path_alone_or_in_a_list(tmp_path: Path) -> None:
    file = tmp_path / "s.txt"
    file.write_text("a\nb\n")
    for given in (file, str(file), [file], [str(file)]):
        assert read_sentences(given) == ["a", "b"]
    (tmp_path / "p.txt").write_text("a||b\n")
    assert len(read_pairs(str(tmp_path / "p.txt"), scores="optional")) == 1
