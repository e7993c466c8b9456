from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from transenc.errors import DataError
from transenc.metrics import (
    LARGE,
    METRICS,
    auc,
    average_precision,
    interval,
    log_odds_interval,
    metric_for,
    pearson,
    quality,
    ranks,
    resampled,
    spearman,
)

SEEDS = range(20)


def bootstrap(metric, scores, gold, **options):
    return interval(resampled(metric, scores, gold, **options), metric(scores, gold))


def sample(seed: int, n: int = 200, levels: int | None = 7) -> tuple[np.ndarray, np.ndarray]:
    """Scores and gold that agree somewhat; few levels make many ties."""
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=n)
    scores = gold + rng.normal(size=n)
    if levels:
        gold, scores = np.round(gold * levels / 4), np.round(scores * levels / 4)
    return scores.astype(np.float32), gold.astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [None, 2, 7])
def test_ranks_agree_with_scipy(seed: int, levels: int | None) -> None:
    values = sample(seed, levels=levels)[0]
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [None, 2, 7])
def test_correlations_agree_with_scipy(seed: int, levels: int | None) -> None:
    scores, gold = sample(seed, levels=levels)
    assert spearman(scores, gold) == pytest.approx(stats.spearmanr(scores, gold).statistic, abs=1e-12)
    expected = stats.pearsonr(scores.astype(float), gold.astype(float)).statistic
    assert pearson(scores, gold) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [None, 2, 7])
def test_classification_metrics_agree_with_sklearn(seed: int, levels: int | None) -> None:
    scores, gold = sample(seed, levels=levels)
    labels = (gold > 0.2).astype(np.float32)
    assert auc(scores, labels) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_perfect_scores_measure_one(name: str) -> None:
    gold = np.array([0, 1, 0, 1, 1], np.float32)
    assert METRICS[name](gold, gold) == pytest.approx(1.0)


def test_no_correlation_is_above_one_by_rounding() -> None:
    columns = [np.arange(n) / 7 for n in range(3, 60)]
    assert 1 - 1e-12 < max(pearson(column, column) for column in columns) <= 1
    assert -1 <= min(pearson(column, -column) for column in columns) < 1e-12 - 1


def test_auc_is_a_half_for_constant_scores() -> None:
    assert auc([0.5] * 4, [0, 1, 0, 1]) == 0.5


def test_auc_of_an_ensemble_is_not_the_mean_of_aucs() -> None:
    gold = np.array([1, 1, 0, 0])
    first, second = np.array([0.9, 0.1, 0.2, 0.3]), np.array([0.2, 0.9, 0.1, 0.3])
    together = auc((first + second) / 2, gold)
    assert together == 1.0
    assert np.mean([auc(first, gold), auc(second, gold)]) == 0.625


@pytest.mark.parametrize(
    ("metric", "scores", "gold", "message"),
    [
        (spearman, [1, 1, 1], [1, 2, 3], "All 3 scores are 1: Spearman is undefined"),
        (pearson, [1, 2, 3], [2, 2, 2], "All 3 gold scores are 2: Pearson is undefined"),
        (auc, [1, 2, 3], [1, 1, 1], "All 3 gold labels are 1: AUC is undefined for one class"),
        (auc, [1, 2, 3], [0, 1, 0.5], "pair 3: the gold score is 0.5, but AUC needs labels 0 and 1"),
        (average_precision, [1, 2], [0, 0], "one class"),
        (spearman, [1, np.nan, 3], [1, 2, 3], "pair 2: the score is nan"),
        (spearman, [1, 2, 3], [1, 2, np.inf], "pair 3: the gold score is inf"),
        (spearman, [1, 2], [1, 2, 3], "2 scores for 3 gold scores"),
        (spearman, [1], [1], "at least 2 pairs, not 1"),
    ],
)
def test_what_cannot_be_measured_is_named(metric, scores, gold, message: str) -> None:
    with pytest.raises(DataError, match=message):
        metric(scores, gold)
    with pytest.raises(DataError, match=message):
        bootstrap(metric, scores, gold)


@pytest.mark.parametrize("name", METRICS)
def test_bootstrap_is_repeatable_and_measures_the_resamples_themselves(name: str) -> None:
    scores, gold = sample(0)
    gold = (gold > 0).astype(np.float32)
    rng = np.random.default_rng(3)
    drawn = [rng.integers(len(gold), size=len(gold)) for _ in range(50)]
    expected = np.quantile([METRICS[name](scores[d], gold[d]) for d in drawn], [0.025, 0.975])
    found = bootstrap(METRICS[name], scores, gold, samples=50, seed=3)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found == bootstrap(METRICS[name], scores, gold, samples=50, seed=3)


def test_up_to_twenty_thousand_pairs_are_drawn_themselves() -> None:
    scores, gold = sample(0, n=20_000, levels=None)
    drawn = np.random.default_rng(0).integers(20_000, size=20_000)
    assert resampled(pearson, scores, gold, samples=1) == [pytest.approx(pearson(scores[drawn], gold[drawn]))]


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(200):
        x = rng.normal(size=(100, 2))
        low, high = bootstrap(pearson, x[:, 0], 0.6 * x[:, 0] + 0.8 * x[:, 1], samples=200, seed=i)
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_log_odds_intervals_of_a_rare_class_cover_the_truth_about_as_often_as_they_say() -> None:
    rng, labels = np.random.default_rng(0), np.repeat([1, 0], [5, 100])
    truth = stats.norm.cdf(1.5 / 2**0.5)
    covered = {"percentiles": 0, "log-odds": 0}
    for i in range(200):
        scores = rng.normal(size=105) + 1.5 * labels
        drawn, value = resampled(auc, scores, labels, samples=200, seed=i), auc(scores, labels)
        for name, (low, high) in (
            ("percentiles", interval(drawn, value)),
            ("log-odds", log_odds_interval(drawn, value, 5)),
        ):
            covered[name] += low <= truth <= high
    assert covered["percentiles"] < 180
    assert 186 <= covered["log-odds"] <= 199


@pytest.mark.parametrize("zeros", [160, LARGE])
def test_intervals_of_an_average_precision_of_few_ones_cover_the_truth_about_as_often_as_they_say(
    zeros: int,
) -> None:
    rng, labels = np.random.default_rng(0), np.repeat([1, 0], [5, zeros])
    apart, truth = {160: (2.5, 0.6479), LARGE: (3.5, 0.4327)}[zeros]  # integrated over thresholds
    covered = {"percentiles": 0, "log-odds": 0}
    for i in range(100):
        scores = rng.normal(size=len(labels)) + apart * labels
        drawn = resampled(average_precision, scores, labels, samples=200, seed=i)
        value = average_precision(scores, labels)
        for name, (low, high) in (
            ("percentiles", interval(drawn, value)),
            ("log-odds", log_odds_interval(drawn, value, 5)),
        ):
            covered[name] += low <= truth <= high
    assert covered["percentiles"] < 90
    assert covered["log-odds"] >= 94


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 39, 10**6])
def test_with_many_pairs_an_log_odds_interval_is_the_normal_one(freedom: int) -> None:
    drawn = np.array([0.49, 0.51])
    n = freedom + 1
    half = stats.t.ppf(0.975, freedom) * drawn.std(ddof=1) * (n / freedom) ** 0.5
    near = 0.01 if freedom < 39 else 1e-6  # an expansion for many
    assert log_odds_interval(drawn, 0.0, n, difference=True) == pytest.approx((-half, half), rel=near)
    low, high = log_odds_interval(drawn, 0.5, n)
    assert np.log(high / (1 - high)) == pytest.approx(4 * half, rel=0.01)
    assert low == pytest.approx(1 - high)


def test_a_perfect_order_and_a_class_of_one_pair_tell_little_of_an_auc() -> None:
    flat = np.ones(100)
    assert log_odds_interval(flat, 1.0, 5) == (pytest.approx(0.025**0.2), 1.0)
    assert log_odds_interval(0 * flat, 0.0, 5) == (0.0, pytest.approx(1 - 0.025**0.2))
    assert log_odds_interval(np.arange(100) / 100, 0.5, 1) == pytest.approx((0, 1), abs=1e-6)
    assert log_odds_interval(np.arange(100) / 100, 1 - 1e-9, 1) == pytest.approx(
        (0, 1), abs=1e-6
    )  # no overflow
    assert log_odds_interval(0 * flat, 0.0, 1, difference=True) == (0, 0)
    assert log_odds_interval(np.array([-0.9, 0.9]), 0.5, 3, difference=True) == (-1, 1)
    assert log_odds_interval(np.nan * flat, 0.5, 2) == pytest.approx(
        (0, 1), abs=1e-6
    )  # of many sets with such a class


def test_bootstrap_leaves_out_resamples_of_one_class() -> None:
    low, high = bootstrap(auc, [0.1, 0.2, 0.9], [0, 0, 1])
    assert low == high == 1.0


@pytest.mark.parametrize(
    ("name", "value"), [("spearman", -1), ("pearson", -1), ("auc", 0), ("average_precision", 0.5)]
)
def test_bootstrap_leaves_out_resamples_of_one_pair_drawn_twice(name: str, value: float) -> None:
    assert bootstrap(METRICS[name], [0.9, 0.1], [0, 1]) == pytest.approx((value, value))
    assert interval(np.full(3, np.nan), value) == (value, value)  # of those alone


def test_bootstrap_of_all_sts_pairs_takes_seconds() -> None:
    scores, gold = sample(0, n=18_700, levels=None)
    start = time.process_time()
    low, high = bootstrap(spearman, scores, gold)
    assert time.process_time() - start < 10
    assert low < spearman(scores, gold) < high


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("levels", [7, None])
def test_influence_is_what_one_more_pair_changes(name: str, levels: int | None) -> None:
    metric, (scores, gold) = METRICS[name], sample(0, n=40, levels=levels)
    if metric.binary:
        gold = (gold > 0).astype(np.float32)
    value, times = metric(scores, gold), 500
    found = metric.influence(*metric.prepared(scores, gold), value)
    many = [np.tile(column, times) for column in (scores, gold)]
    changed = [
        metric(*(np.append(m, c[i]) for m, c in zip(many, (scores, gold), strict=True))) for i in range(40)
    ]
    expected = (np.array(changed) - value) * (40 * times + 1)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("name", METRICS)
def test_large_sets_have_the_intervals_of_drawn_pairs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, gold = sample(0, n=LARGE + 1, levels=40)
    if METRICS[name].binary:
        gold = (gold > 11).astype(np.float32)  # one in seven
    order = np.argsort(scores, kind="stable")  # groups of neighbours would vary less than pairs do
    scores, gold = scores[order], gold[order]
    other = scores + np.random.default_rng(1).normal(size=len(scores))

    def spreads() -> list[float]:
        one, two = (resampled(METRICS[name], s, gold) for s in (scores, other))
        assert one.mean() == pytest.approx(METRICS[name](scores, gold), abs=one.std() / 5)
        return [float(one.std()), float((two - one).std())]

    found = spreads()
    monkeypatch.setattr("transenc.metrics.LARGE", len(scores))
    np.testing.assert_allclose(found, spreads(), rtol=0.1)


def test_copies_are_drawn_together_however_many_each_pair_has() -> None:
    scores, gold = sample(0, n=30, levels=None)
    units, rng = np.minimum(np.arange(30), 19), np.random.default_rng(0)  # the last one stands there 11 times
    drawn = [rng.integers(20, size=20) for _ in range(3)]
    rows = [[i for unit in each for i in range(30) if units[i] == unit] for each in drawn]
    expected = [pearson(scores[each], gold[each]) for each in rows]
    assert resampled(pearson, scores, gold, units=units, samples=3).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", METRICS)
def test_copies_in_large_sets_are_drawn_together(name: str) -> None:
    scores, gold = sample(0, n=LARGE + 1, levels=40)
    if METRICS[name].binary:
        gold = (gold > 11).astype(np.float32)
    one, rows = resampled(METRICS[name], scores, gold), np.repeat(np.arange(LARGE + 1), 4)
    four = resampled(METRICS[name], scores[rows], gold[rows], units=rows)
    np.testing.assert_allclose(four, one)


def test_a_rare_class_of_a_large_set_leads_to_no_precision_beyond_0() -> None:
    gold = np.zeros(LARGE + 1)
    gold[:10] = 1
    scores = np.random.default_rng(0).normal(size=len(gold)) + 2 * gold
    value = average_precision(scores, gold)
    low, high = log_odds_interval(resampled(average_precision, scores, gold), value, 10)
    assert 0 < low < value < high < 1


def test_bootstrap_of_a_million_pairs_takes_seconds() -> None:
    scores, gold = sample(0, n=1_000_000, levels=None)
    start = time.process_time()
    bootstrap(spearman, scores, gold)
    assert time.process_time() - start < 10


def test_one_graded_label_makes_a_correlation_the_metric() -> None:
    assert metric_for([0, 1, 1]) == "auc"
    assert metric_for([0, 1, 0.5]) == "spearman"


def test_a_model_that_tells_nothing_apart_has_no_correlation_and_no_error() -> None:
    gold = [0.1, 0.9, 0.5]
    assert quality("spearman", [0.3, 0.3, 0.3], gold) == 0
    assert quality("pearson", [1, 1, 1], gold) == 0
    assert quality("auc", [1, 1, 1], [0, 1, 1]) == 0.5
    assert quality("spearman", [1, 3, 2], gold) == spearman([1, 3, 2], gold) > 0.99
    with pytest.raises(DataError, match="gold scores are 1: Spearman is undefined"):
        quality("spearman", [0.3, 0.3, 0.3], [1, 1, 1])
