"""Labelled candidates are kept by the published rule, and their labels then lie nearer to gold's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.test_samplers import corpus, unordered
from transenc import registry
from transenc.errors import ConfigError, DataError
from transenc.samplers import mine
from transenc.samplers.kde import GRID, Kde, acceptance, density, divergence
from transenc.samplers.random import Random


def labels(seed, n, a, b):
    return np.random.default_rng(seed).beta(a, b, n)


@pytest.mark.parametrize(("n", "a", "b"), [(50, 2, 2), (1_000, 1, 6), (3_000, 0.5, 0.5)])
def test_the_density_is_scipys(n, a, b):
    scores = labels(1, n, a, b)
    expected = stats.gaussian_kde(scores, "scott")(GRID)
    np.testing.assert_allclose(density(scores), expected, atol=2e-3 * expected.max())


def test_equal_scores_have_a_density_too():
    assert np.isfinite(density(np.full(5, 0.3))).all()
    assert density(np.array([0.3])).argmax() == round(0.3 * (len(GRID) - 1))
    steps = len(GRID) - 1  # the bandwidth is one of them
    np.testing.assert_allclose(density(np.array([0.5])), stats.norm(0.5, 1 / steps).pdf(GRID), atol=1e-9)
    assert density(np.array([1.0])).argmax() == steps
    left, right, between = (density(np.array([place / steps])) for place in (307, 308, 307.25))
    np.testing.assert_allclose(between, 0.75 * left + 0.25 * right)  # in proportion to its distance
    outside = density(np.array([-0.2, 1.2]))  # as labels that were not clipped may be: they count at the ends
    np.testing.assert_allclose(outside, outside[::-1])


def test_acceptance_is_the_ratio_of_the_densities_and_at_most_one():
    gold, silver = density(labels(1, 800, 2, 2)), density(labels(2, 9_000, 1, 6))
    s = np.linspace(0, 1, 101)
    f_gold, f_silver = np.interp(s, GRID, gold), np.interp(s, GRID, silver)
    q = acceptance(gold, silver, s)
    np.testing.assert_allclose(q, np.where(f_gold >= f_silver, 1, f_gold / f_silver))
    assert (q == 1).any() and (q < 0.5).any()
    assert acceptance(0 * gold, 0 * silver, s[:1]) == 1  # neither has any


def test_pairs_are_kept_as_often_as_the_rule_says():
    gold, silver = labels(1, 1_000, 2, 2), labels(2, 60_000, 1, 6)
    kept, _ = Kde().keep(gold, silver, np.random.default_rng(0))
    q = acceptance(density(gold), density(silver), silver)
    chosen = np.isin(np.arange(len(silver)), kept)
    for low in np.arange(0, 0.9, 0.1):
        bin_ = (silver >= low) & (silver < low + 0.1)
        sd = np.sqrt((q[bin_] * (1 - q[bin_])).sum()) + 1e-9
        assert abs(chosen[bin_].sum() - q[bin_].sum()) <= 4 * sd


def test_the_kept_labels_are_nearer_to_gold_and_both_divergences_are_told():
    gold, silver = labels(1, 1_000, 2, 2), labels(2, 20_000, 1, 6)
    kept, report = Kde().keep(gold, silver, np.random.default_rng(0))
    assert report["rule"] == "kde"
    assert (report["offered"], report["kept"]) == (20_000, len(kept))
    assert (
        report["kl_kept"] < 0.7 * report["kl_offered"]
    )  # rare labels stay rare: what is missing is not made
    assert report["kl_kept"] == pytest.approx(divergence(density(gold), density(silver[kept])))
    assert (np.diff(kept) > 0).all()


def test_equal_distributions_keep_nearly_all():
    gold = labels(1, 20_000, 2, 5)
    kept, report = Kde().keep(gold, gold, np.random.default_rng(0))
    assert len(kept) == len(gold)
    assert report["kl_kept"] == pytest.approx(0, abs=1e-9)


def test_the_divergence_of_two_normals_is_the_formulas():
    p, q = (stats.norm(m, 0.05).pdf(GRID) for m in (0.45, 0.55))
    assert divergence(p, q) == pytest.approx((0.1 / 0.05) ** 2 / 2, rel=1e-3)


def test_binary_gold_keeps_all_positives_and_negatives_in_golds_ratio():
    gold = np.repeat([1.0, 0.0], [30, 60])
    silver = labels(2, 5_000, 1, 6)
    kept, report = Kde().keep(gold, silver, np.random.default_rng(0))
    positives = set(np.flatnonzero(silver >= 0.5))
    assert positives <= set(kept)
    assert len(kept) == 3 * len(positives)
    assert (np.diff(kept) > 0).all()
    assert report["rule"] == "balance"
    assert report["positive_kept"] == pytest.approx(1 / 3)
    assert report["kl_kept"] < report["kl_offered"]
    assert Kde(rule="kde").keep(gold, silver, np.random.default_rng(0))[1]["rule"] == "kde"


def test_a_score_at_the_threshold_is_positive():
    kept, report = Kde(rule="balance", threshold=0.5).keep(
        [0.5, 0.4], [0.5, 0.4, 0.4], np.random.default_rng(0)
    )
    assert (report["positive_gold"], report["positive_kept"]) == (0.5, 0.5)
    assert 0 in kept


def test_negatives_are_kept_in_golds_ratio_to_the_nearest_pair():
    kept, _ = Kde().keep([1.0, 1.0, 0.0, 0.0, 0.0], [0.9, 0.1, 0.1, 0.1], np.random.default_rng(0))
    assert len(kept) == 3  # 1.5 negatives are two


def test_too_few_negatives_are_all_kept():
    kept, _ = Kde().keep([1.0, 0.0, 0.0], [0.9, 0.8, 0.1], np.random.default_rng(0))
    assert kept.tolist() == [0, 1, 2]
    kept, report = Kde().keep([1.0, 0.0], [0.9, 0.8], np.random.default_rng(0))
    assert kept.tolist() == [0, 1]  # there are none
    assert np.isfinite(report["kl_kept"])


@pytest.mark.parametrize(
    ("gold", "silver", "message"),
    [
        ([], [0.1], "give some with --gold"),
        ([1.0, 1.0], [0.1, 0.9], "one class"),
        ([0.0, 0.0], [0.1, 0.9], "one class"),
        ([1.0, 0.0], [0.1, 0.2], "None of 2 labelled pairs is positive"),
        ([0.9, 0.91], [0.1] * 5, "kept none of 5"),
    ],
)
def test_what_cannot_be_balanced_is_said(gold, silver, message):
    with pytest.raises(DataError, match=message):
        Kde().keep(gold, silver, np.random.default_rng(0))


def test_the_candidates_are_those_of_the_sampler_it_names():
    kde = registry.create(registry.SAMPLERS, "kde:candidates=random:per_sentence=2,threshold=0.4")
    assert kde == Kde("random:per_sentence=2", threshold=0.4)
    pairs = unordered(mine(kde, corpus(50), seed=3))
    assert pairs == unordered(mine(Random(per_sentence=2), corpus(50), seed=3))
    assert Kde("semantic").needs_encoder and not kde.needs_encoder


@pytest.mark.parametrize(
    "spec", ["kde:rule=best", "kde:threshold=0", "kde:threshold=1", "kde:candidates=bm52"]
)
def test_wrong_options_are_refused(spec):
    with pytest.raises(ConfigError):
        registry.create(registry.SAMPLERS, spec)
