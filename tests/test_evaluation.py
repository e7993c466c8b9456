from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.conftest import make_pairs
from transenc.cli.app import main
from transenc.errors import DataError
from transenc.evaluation import First, Result, measure, write_mteb
from transenc.metrics import METRICS, log_odds_interval, resampled, spearman
from transenc.pairs import Pairs, Scores, join
from transenc.writers import write_pairs


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("runs/a/best/bi", "runs__a__best__bi"),
        ("./runs/a/best/bi", "runs__a__best__bi"),
        ("/models/a", "models__a"),
        ("org/name", "org__name"),
        ("engines/bi:int8", "engines__bi:int8"),
        ("./a + ./b", "a + b"),
        (".cache/a", "cache__a"),
    ],
)
def test_a_model_has_a_visible_directory_of_its_name(model: str, folder: str, tmp_path: Path) -> None:
    result = Result(model, "bi", "demo", "spearman", 0.5, 0.4, 0.6, 9)
    assert write_mteb([result], model, "local", tmp_path) == tmp_path / folder / "local"
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_models_of_one_name_in_two_places_have_a_directory_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = Result("m", "bi", "demo", "spearman", 0.5, 0.4, 0.6, 9)
    folders = [write_mteb([result], model, "local", Path("out")) for model in ("m", "../m", "..", ".")]
    assert len(set(folders)) == 4
    assert not list(Path("out").glob(".*"))


@dataclass
class Fixed:
    scores: Scores
    family: str = "bi"

    def score(self, pairs: Pairs) -> Scores:
        return self.scores


def test_the_edge_of_fail_under_is_the_value_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, rng = make_pairs(30, scored=True), np.random.default_rng(0)
    write_pairs(own, tmp_path / "own.tsv")
    scorer = Fixed(rng.normal(size=30).astype(np.float32) + 3 * np.asarray(own.scores))
    value = spearman(scorer.score(own), np.asarray(own.scores))
    monkeypatch.setattr("transenc.models.loading.load_scorer", lambda name, **options: scorer)
    command = ["transenc", "evaluate", str(tmp_path / "own.tsv"), "--model", "m", "--fail-under"]
    for bound, code in ((value, 0), (float(np.nextafter(value, 1)), 9), (round(value + 3e-5, 4), 9)):
        monkeypatch.setattr(sys, "argv", [*command, repr(bound)])
        try:
            main()
            found: object = 0
        except SystemExit as stop:
            found = stop.code or 0
        told = capsys.readouterr().err
        assert found == code, told
        if code:
            shown = re.search(r"spearman (\S+) is below (\S+)", told)
            assert shown is not None
            assert float(shown[1]) < float(shown[2]) == bound


def test_a_model_that_tells_nothing_apart_leaves_the_others_results_within_reach(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = make_pairs(30, scored=True)
    assert own.scores is not None
    flat, told = np.full(30, 0.5, np.float32), own.scores
    found = measure("m", "bi", {"a": own, "b": own}, {"a": flat, "b": told}, "spearman", group="both")
    assert [(r.task, r.value) for r in found] == [
        ("a", 0),
        ("b", pytest.approx(1)),
        ("both", pytest.approx(0.5)),
    ]
    assert (found[0].low, found[0].high) == (0, 0)
    assert "m scores all 30 pairs of a alike: nothing is told apart" in caplog.text
    with pytest.raises(DataError, match="m on a: All 30 gold scores are 0.5"):
        measure("m", "bi", {"a": own.with_scores(flat)}, {"a": told}, "spearman", group="a")


def test_equal_scores_are_warned_of_once_for_all_metrics(caplog: pytest.LogCaptureFixture) -> None:
    gold = make_pairs(30, scored=True)
    gold = gold.with_scores(np.arange(30) % 2)
    first = First()
    for metric in ("auc", "average_precision"):
        measure("m", "bi", {"a": gold}, {"a": np.full(30, 0.5, np.float32)}, metric, group="a", first=first)
    assert caplog.messages == ["m scores all 30 pairs of a alike: nothing is told apart."]


def noisy(gold: np.ndarray, seed: int, noise: float) -> np.ndarray:
    return (gold + noise * np.random.default_rng(seed).normal(size=len(gold))).astype(np.float32)


def test_gains_and_averages_have_intervals_over_the_same_draws_of_pairs() -> None:
    sizes = {"a": 40, "b": 60}
    sets = {name: make_pairs(n, scored=True) for name, n in sizes.items()}
    golds = {name: each.scores for name, each in sets.items()}
    one = {name: noisy(gold, 1, 0.3) for name, gold in golds.items()}
    two = {name: noisy(gold, 2, 0.2) for name, gold in golds.items()}
    first = First()
    start = measure("one", "bi", sets, one, "spearman", group="both", first=first)
    found = measure("two", "bi", sets, two, "spearman", group="both", first=first)
    assert [r.gain for r in start] == [None, None, None]

    def drawn(scores: dict[str, np.ndarray], name: str) -> np.ndarray:
        rng = np.random.default_rng(0)
        index = [rng.integers(sizes[name], size=sizes[name]) for _ in range(1000)]
        return np.array([stats.spearmanr(scores[name][i], golds[name][i]).statistic for i in index])

    over = {name: drawn(two, name) - drawn(one, name) for name in sets}
    over["both"] = (over["a"] + over["b"]) / 2
    for result, before in zip(found, start, strict=True):
        assert result.gain == pytest.approx(result.value - before.value)
        expected = np.quantile(over[result.task], [0.025, 0.975])
        assert (result.gain_low, result.gain_high) == pytest.approx(tuple(expected))
    both = np.quantile((drawn(two, "a") + drawn(two, "b")) / 2, [0.025, 0.975])
    assert (found[2].low, found[2].high, found[2].sets, found[2].n) == (*map(pytest.approx, both), 2, 100)


def test_the_interval_of_a_gain_is_narrower_than_those_of_both_models() -> None:
    pairs = make_pairs(300, scored=True)
    gold = pairs.scores
    shared = noisy(gold, 1, 0.4)  # most of what they miss is missed by both
    first = First()
    one = measure("one", "bi", {"a": pairs}, {"a": shared}, "spearman", group="a", first=first)[0]
    two = measure(
        "two", "bi", {"a": pairs}, {"a": noisy(shared, 2, 0.02)}, "spearman", group="a", first=first
    )[0]
    assert two.gain_high - two.gain_low < (one.high - one.low) / 3
    assert two.gain_low <= two.gain <= two.gain_high


@pytest.mark.parametrize("name", ["auc", "average_precision"])
def test_a_metric_of_labels_with_a_rare_class_has_the_interval_of_that_class(name: str) -> None:
    metric = METRICS[name]
    labels = np.repeat([1, 0], [4, 60]).astype(np.float32)
    sets = {name: make_pairs(64).with_scores(labels) for name in ("a", "b")}
    first = First()
    for seed in (1, 2):
        scores = {name: noisy(labels, seed, 0.8) for name in sets}
        found = measure("m", "bi", sets, scores, name, group="both", first=first)
        drawn = resampled(metric, scores["a"], labels)
        expected = log_odds_interval(drawn, metric(scores["a"], labels), 4)
        assert [(r.low, r.high) for r in found] == [pytest.approx(expected)] * 3  # both sets are alike
    gains = drawn - resampled(metric, noisy(labels, 1, 0.8), labels)
    assert found[2].gain is not None
    ends = log_odds_interval(gains, found[2].gain, 4, difference=True)
    assert (found[2].gain_low, found[2].gain_high) == pytest.approx(ends)


@pytest.mark.parametrize("name", ["spearman", "average_precision"])
def test_a_pair_that_stands_there_three_times_makes_no_interval_narrower(name: str) -> None:
    once = make_pairs(60, scored=True)
    if METRICS[name].binary:
        once = once.with_scores(np.repeat([1, 0], [6, 54]))
    again = join([once, once.flipped(), once])
    scores = [noisy(np.asarray(once.scores), seed, 0.5) for seed in (1, 2)]
    found = []
    for pairs, times in ((once, 1), (again, 3)):
        first = First()
        for each in scores:
            found += measure(
                "m", "bi", {"a": pairs}, {"a": np.tile(each, times)}, name, group="a", first=first
            )
    for one, more in ((found[0], found[2]), (found[1], found[3])):
        assert (more.low, more.high) == pytest.approx((one.low, one.high))
    assert (found[3].gain_low, found[3].gain_high) == pytest.approx((found[1].gain_low, found[1].gain_high))


@pytest.mark.parametrize("name", ["auc", "spearman"])
def test_a_set_without_pairs_is_told_as_too_few(name: str) -> None:
    empty = Pairs.from_rows([], [], [])
    with pytest.raises(DataError, match="^model on set: .* needs at least 2 pairs, not 0"):
        measure("model", "bi", {"set": empty}, {"set": np.zeros(0, np.float32)}, name, group="all")
