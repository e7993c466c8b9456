"""Objectives against values worked out by hand, and against plain loops over the definitions."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transenc.config import OBJECTIVES, UNFIT, build
from transenc.errors import ConfigError
from transenc.objectives import (
    PAIR_OBJECTIVES,
    angle,
    complex_angles,
    contrastive,
    cosent,
    info_nce,
    kl,
    listmle,
    listnet,
    margin_mse,
    nt_xent,
    soft_bce,
)

N = 9
RNG = np.random.default_rng(3)
SCORES, LABELS = RNG.uniform(-1, 1, N), RNG.integers(0, 5, N) / 4  # with ties among the labels


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (cosent(t(0.9, 0.1), t(0, 1), scale=1), 1.171101),  # log(1 + e^0.8): the wrong order
        (cosent(t(0.1, 0.9), t(0, 1), scale=1), 0.371101),  # log(1 + e^-0.8): the right one
        (cosent(t(0.9, 0.1), t(0.4, 0.4)), 0.0),
        (listnet(t(0, log(3)), t(log(3), 0), temperature=1), -0.75 * log(0.25) - 0.25 * log(0.75)),
        (listmle(t(log(1), log(2), log(3)), t(0.1, 0.9, 0.5), temperature=1), log(4) / 3),  # 2/6 x 3/4 x 1
        (margin_mse(t(0.9, 0.1), t(0.5, 0.5)), 0.32),  # the differences' errors are 0, 0.8, -0.8, 0
        (kl(t(2 * log(3)), t(0.5)), 4 * 0.5 * (log(0.5 / 0.75) + log(0.5 / 0.25))),
    ],
)
def test_losses_have_the_values_worked_out_by_hand(loss: Tensor, expected: float) -> None:
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_contrastive_has_the_value_and_the_gradients_worked_out_by_hand() -> None:
    cosines = torch.tensor([0.9, 0.2, 0.8, 0.3], requires_grad=True)
    loss = contrastive(cosines, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    # Positives: distances 0.1 and 0.8 squared; negatives: only 0.2 lies within the margin of 0.5.
    assert loss.item() == pytest.approx((0.1**2 + 0.8**2 + 0.3**2 + 0) / 8)
    (gradient,) = torch.autograd.grad(loss, cosines)
    assert (gradient[:2] < 0).all()
    assert gradient[2] > 0
    assert gradient[3] == 0


def test_complex_angles_have_the_values_worked_out_by_hand() -> None:
    left = torch.tensor([[1.0, 0], [1, 0], [3, 4], [3, 4], [0, 0]])
    right = torch.tensor([[2.0, 0], [1, 1], [4, 3], [-3, -4], [1, 0]])
    # (1)(2): 1; (1)(1 - i): 1 - 1; (3 + 4i)(4 - 3i) = 24 + 7i over 25; opposite vectors: |-1|; of nothing: 0
    assert complex_angles(torch.stack([left, right])).tolist() == pytest.approx([1, 0, 31 / 25, 1, 0])
    wanted = log(1 + exp(1 - 1 / sqrt(2))) + log(1 + exp(1 - 0))
    got = angle(torch.stack([left[:2], right[:2]]), torch.tensor([0.0, 1.0]), scale=1)
    assert got.item() == pytest.approx(wanted)
    published = angle(torch.stack([left[:2], right[:2]]), torch.tensor([0.0, 1.0]))
    assert published.item() == pytest.approx(20 * (1 - 1 / sqrt(2)) + 20 * (1 - 0), abs=0.01)  # scale 20


def plain_cosent() -> float:
    terms = [exp(20 * (SCORES[i] - SCORES[j])) for i in range(N) for j in range(N) if LABELS[i] < LABELS[j]]
    return log(1 + sum(terms))


def plain_listnet() -> float:
    wanted, got = np.exp(LABELS / 0.05), np.exp(SCORES / 0.05)
    return float(-(wanted / wanted.sum()) @ np.log(got / got.sum()))


def plain_listmle() -> float:
    rest, total = sorted(range(N), key=lambda i: -LABELS[i]), 0.0
    while rest:
        total -= log(exp(SCORES[rest[0]] / 0.05) / sum(exp(SCORES[i] / 0.05) for i in rest))
        rest = rest[1:]
    return total / N


def plain_margin_mse() -> float:
    pairs = [(i, j) for i in range(N) for j in range(N)]
    return sum(((SCORES[i] - SCORES[j]) - (LABELS[i] - LABELS[j])) ** 2 for i, j in pairs) / N**2


@pytest.mark.parametrize(
    ("objective", "plain"),
    [
        (cosent, plain_cosent),
        (listnet, plain_listnet),
        (listmle, plain_listmle),
        (margin_mse, plain_margin_mse),
    ],
)
def test_losses_equal_plain_loops_over_their_definitions(
    objective: Callable[..., Tensor], plain: Callable[[], float]
) -> None:
    got = objective(torch.from_numpy(SCORES), torch.from_numpy(LABELS))
    assert got.item() == pytest.approx(plain(), rel=1e-9)


def test_rank_losses_see_only_the_order_of_the_labels() -> None:
    scores, labels = torch.from_numpy(SCORES), torch.from_numpy(LABELS)
    for objective in (cosent, listmle):
        assert objective(scores, labels) == objective(scores, labels**3 * 7 - 2)
    assert margin_mse(scores + 0.3, labels).item() == pytest.approx(margin_mse(scores, labels).item())


def test_kl_at_temperature_one_has_the_gradient_of_soft_bce_and_is_zero_at_the_label() -> None:
    labels = torch.tensor([0.2, 0.9, 0.5])
    x = torch.tensor([0.3, -1.0, 2.0], requires_grad=True)
    (of_kl,) = torch.autograd.grad(kl(x, labels, temperature=1), x)
    (of_bce,) = torch.autograd.grad(soft_bce(x, labels), x)
    assert torch.allclose(of_kl, of_bce, atol=1e-6)
    assert kl(torch.logit(labels), labels).item() == pytest.approx(0, abs=1e-6)
    ends = torch.tensor([0.0, 1.0])  # whose logits would be infinite
    assert kl(torch.logit(ends, eps=1e-4), ends).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", [n for n, o in PAIR_OBJECTIVES.items() if o.takes != "sides"])
def test_gradients_are_finite_where_labels_and_scores_are_extreme(name: str) -> None:
    x = torch.tensor([30.0, -30.0, 0.0, 0.0], requires_grad=True)
    loss = PAIR_OBJECTIVES[name].loss(x, torch.tensor([0.0, 1.0, 0.5, 0.5]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


def test_what_settings_offer_is_what_exists() -> None:
    assert set(OBJECTIVES) == set(PAIR_OBJECTIVES)


@pytest.mark.parametrize(("name", "family"), UNFIT)
def test_an_objective_that_does_not_fit_a_family_is_refused_with_those_that_do(
    name: str, family: str
) -> None:
    with pytest.raises(ConfigError, match=f"'distill.{family}.objective' is '{name}', which needs .*cosent"):
        build({"plm": ["x"], "distill": {family: {"objective": name}}})


def test_names_may_be_written_with_a_hyphen() -> None:
    settings = build({"plm": ["x"], "distill": {"bi": {"objective": "margin-mse"}}})
    assert settings.distill.bi.objective == "margin_mse"


@pytest.mark.parametrize("average", ["ema", "ema:1", "last:0", "last:2", "mean:0.5", "ema:x"])
def test_averages_that_do_not_exist_are_refused(average: str) -> None:
    with pytest.raises(ConfigError, match=r"distill.bi.average.*there are: none, ema:0.999"):
        build({"plm": ["x"], "distill": {"bi": {"average": average}}})


def test_what_is_no_negative_leaves_the_sum_of_info_nce() -> None:
    first, second = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    logits = F.cosine_similarity(first[:, None], second, dim=-1) / 0.1
    alike = torch.tensor([[True, True, False], [False, True, False], [True, False, True]])
    kept = [logits[0, [0, 2]], logits[1, [1, 0, 2]], logits[2, [2, 1]]]  # each row's own first
    expected = torch.stack([torch.logsumexp(row, 0) - row[0] for row in kept]).mean()
    assert info_nce(first, second, 0.1, alike).item() == pytest.approx(expected.item(), abs=1e-6)
    assert info_nce(first, second, 0.1, torch.eye(3, dtype=torch.bool)) == info_nce(first, second, 0.1)


def test_nt_xent_equals_a_plain_loop_over_its_definition() -> None:
    first, second = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    views = F.normalize(torch.cat([first, second]), dim=1).tolist()
    terms = []
    for i, view in enumerate(views):
        logits = [sum(a * b for a, b in zip(view, other, strict=True)) / 0.1 for other in views]
        others = [exp(logits[j]) for j in range(6) if j != i]
        terms.append(log(sum(others)) - logits[(i + 3) % 6])  # the other view of the same sentence
    assert nt_xent(first, second, 0.1).item() == pytest.approx(sum(terms) / 6, rel=1e-5)


@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_contrastive_logits_are_fp32_under_autocast(loss: Any) -> None:
    first, second = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(first, second, 0.05)
    assert torch.equal(found, loss(first, second, 0.05))
