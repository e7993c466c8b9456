from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transenc.averaging import Average
from transenc.config import FitSettings
from transenc.errors import DataError, Interrupted
from transenc.interrupt import StopFlag
from transenc.metrics import quality
from transenc.models.device import Compute
from transenc.objectives import cosine_matrix_mse, cosine_mse, info_nce, nt_xent, soft_bce
from transenc.seeds import random_state_kept
from transenc.store import Store
from transenc.training import Fit, adamw, fit, learning_rate, order


def problem(seed: int = 0) -> tuple[torch.nn.Module, Any]:
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    y = x.sum(1)

    def loss_of(index: np.ndarray[Any, Any]) -> torch.Tensor:
        return ((module(x[index])[:, 0] - y[index]) ** 2).mean()

    return module, loss_of


SETTINGS = FitSettings(epochs=3, batch_size=6, learning_rate=1e-2, warmup=0.2, evaluate_every=2)


def weights(module: torch.nn.Module) -> list[bytes]:
    return [t.detach().numpy().tobytes() for t in module.state_dict().values()]


def measured(module: torch.nn.Module) -> float:
    was = module.training
    module.eval()
    with torch.no_grad():
        value = float(-module(torch.ones(1, 4)).abs())
    module.train(was)
    return value


def test_training_leaves_the_random_state_of_the_process_as_it_was() -> None:
    module, loss_of = problem()
    before = torch.random.get_rng_state()
    fit(module, 20, loss_of, Fit(SETTINGS, Compute("cpu", "fp32"), 1, "stage"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_cards_that_were_not_used_before_a_block_have_the_seed_of_the_process_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with random_state_kept():
        torch.manual_seed(99)
    assert seeds == [99, torch.initial_seed()]
    assert torch.initial_seed() != 99


@pytest.mark.parametrize("stop_at", [1, 2, 5, 11])
@pytest.mark.parametrize("evaluated", [True, False])
@pytest.mark.parametrize("average", ["none", "ema:0.9", "last:0.5"])
def test_a_stopped_and_resumed_training_equals_the_uninterrupted_one(
    tmp_path: Path, stop_at: int, evaluated: bool, average: str
) -> None:
    settings = SETTINGS.model_copy(update={"average": average, "keep_start": True})

    def run(store: Store | None, stop: StopFlag) -> tuple[list[bytes], Any]:
        module, loss_of = problem()
        options = Fit(settings, Compute(), 7, "stage", stop=stop)
        if evaluated:
            options.evaluate = lambda: measured(module)
        if store is not None:
            options.checkpoints = store.checkpoints("stage", "x")
            steps = 0

            def count(progress: Any) -> None:
                nonlocal steps
                steps = progress.done
                if progress.done == stop_at:
                    stop.signum = 2

            if not store.checkpoints("stage", "x").latest():
                options.report = count
        fitted = fit(module, 20, loss_of, options)
        return weights(module), fitted

    plain = run(None, StopFlag())
    store = Store(tmp_path / "run")
    with store.lock():
        with pytest.raises(Interrupted) as caught:
            run(store, StopFlag())
        assert caught.value.exit_code == 130
        resumed = run(store, StopFlag())
    assert resumed == plain


def test_the_best_weights_are_kept_and_the_last_without_evaluation() -> None:
    module, loss_of = problem()
    values = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])
    kept: list[list[bytes]] = []

    def evaluate() -> float:
        kept.append(weights(module))
        return next(values)

    fitted = fit(module, 20, loss_of, Fit(SETTINGS, Compute(), 7, "stage", evaluate=evaluate))
    assert (fitted.best, fitted.best_step) == (0.9, 4)
    assert weights(module) == kept[1]
    module, loss_of = problem()
    fitted = fit(module, 20, loss_of, Fit(SETTINGS, Compute(), 7, "stage"))
    assert weights(module) == kept[-1]
    assert fitted.best_step == 12


def test_the_count_of_steps_between_evaluations_restarts_at_each_epoch() -> None:
    module, loss_of = problem()
    settings = SETTINGS.model_copy(update={"evaluate_every": 3})  # of 4 steps an epoch
    fitted = fit(module, 20, loss_of, Fit(settings, Compute(), 7, "stage", evaluate=lambda: 0.0))
    assert [step for step, _ in fitted.history] == [3, 4, 7, 8, 11, 12]


def test_the_recorded_curve_has_the_means_of_windows_of_losses() -> None:
    module, loss_of = problem()
    losses: list[float] = []
    run = Fit(SETTINGS.model_copy(update={"batch_size": 1}), Compute(), 7, "stage")
    run.report = lambda progress: losses.append(progress.loss)  # type: ignore[arg-type]
    fitted = fit(module, 20, loss_of, run)
    assert fitted.losses == [
        (50, pytest.approx(np.mean(losses[:50]))),
        (60, pytest.approx(np.mean(losses[50:]))),
    ]


def test_a_training_is_that_of_torchs_own_parts() -> None:
    settings = SETTINGS.model_copy(update={"max_grad_norm": 0.5, "weight_decay": 0.3})
    module, loss_of = problem()
    module[1].p = 0.0  # type: ignore[index,assignment]
    fit(module, 20, loss_of, Fit(settings, Compute(), 7, "stage"))
    plain, loss_of = problem()
    first, _, last = plain.eval().children()
    groups = [
        {"params": [first.weight, last.weight], "weight_decay": 0.3},
        {"params": [first.bias, last.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 12, settings)
        optimizer.zero_grad()
        examples = order(7, "stage", step // 4, 20)
        loss_of(examples[6 * (step % 4) :][:6]).backward()
        assert torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5) > 0.5
        optimizer.step()
    for found, wanted in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_biases_and_normalisation_weights_do_not_decay() -> None:
    vector, matrix = torch.zeros(2), torch.zeros(2, 2)
    given = {
        "weight": matrix,
        "bias": vector,
        "norm.weight": vector,
        "positions.bias": matrix,
        "frozen": matrix,
    }
    trained = {name: torch.nn.Parameter(value, name != "frozen") for name, value in given.items()}
    names = {id(parameter): name for name, parameter in trained.items()}
    groups = adamw(trained, FitSettings(weight_decay=0.2)).param_groups
    assert [(g["weight_decay"], [names[id(p)] for p in g["params"]]) for g in groups] == [
        (0.2, ["weight"]),
        (0.0, ["bias", "norm.weight", "positions.bias"]),
    ]


def test_evaluating_does_not_shift_order_or_dropout() -> None:
    plain, loss_of = problem()
    fit(plain, 20, loss_of, Fit(SETTINGS, Compute(), 7, "stage"))
    module, loss_of = problem()
    rising = iter(range(100))

    def evaluate() -> float:
        torch.rand(3)  # an evaluation that draws from the global generator
        return float(next(rising))  # so the last weights are the best

    settings = SETTINGS.model_copy(update={"evaluate_every": 1})
    fit(module, 20, loss_of, Fit(settings, Compute(), 7, "stage", evaluate=evaluate))
    assert weights(module) == weights(plain)


def test_weights_that_the_last_step_spoilt_are_named() -> None:
    module, loss_of = problem()
    settings = SETTINGS.model_copy(
        update={"epochs": 1, "batch_size": 20, "warmup": 0.0, "learning_rate": 1e30}
    )
    with pytest.raises(DataError, match="stage: the loss is (nan|inf) at step 1"):
        fit(module, 20, loss_of, Fit(settings, Compute(), 7, "stage"))


def test_another_fault_of_a_development_score_is_not_laid_to_the_learning_rate() -> None:
    module, loss_of = problem()

    def evaluate() -> float:
        raise DataError("The tokenizer makes no token of ''.")

    settings = FitSettings(epochs=1, batch_size=6, evaluate_every=2)
    with pytest.raises(DataError, match=r"stage: no development score at step 1: .* of ''\.$"):
        fit(module, 6, loss_of, Fit(settings, Compute(), 1, "stage", evaluate=evaluate))


def test_weights_that_cannot_be_scored_are_named_with_the_step_that_spoilt_them() -> None:
    module, loss_of = problem()
    settings = FitSettings(epochs=1, batch_size=6, learning_rate=1e30, warmup=0.0, evaluate_every=2)
    gold = np.arange(4.0)

    def evaluate() -> float:
        with torch.no_grad():
            column = module(torch.arange(16.0).reshape(4, 4))[:, 0]
        return quality("spearman", (column * column - column * column).numpy(), gold)

    wanted = r"stage: no development score at step 1: pair 1: the score is nan .* Try a lower learning rate"
    with pytest.raises(DataError, match=wanted):
        fit(module, 6, loss_of, Fit(settings, Compute(), 1, "stage", evaluate=evaluate))


def test_a_loss_that_is_not_finite_is_named_with_its_step() -> None:
    module, _ = problem()
    with pytest.raises(DataError, match="stage: the loss is nan at step 1"):
        fit(
            module,
            20,
            lambda index: module(torch.full((1, 4), float("nan"))).sum(),
            Fit(SETTINGS, Compute(), 7, "stage"),
        )


def test_the_learning_rate_warms_up_and_decays_to_zero() -> None:
    rates = [learning_rate(step, 10, SETTINGS) for step in range(10)]
    assert rates[:3] == [0.0, 0.005, 0.01]
    assert rates[-1] == pytest.approx(0.01 / 8)
    constant = SETTINGS.model_copy(update={"schedule": "constant", "warmup": 0.0})
    assert {learning_rate(step, 10, constant) for step in range(10)} == {0.01}
    # The only step of a short training is no warm-up, whose first rate is 0.
    assert [learning_rate(step, 1, SETTINGS) for step in range(1)] == [0.01]
    assert [learning_rate(step, 2, SETTINGS) for step in range(2)] == [0.0, 0.01]


def test_the_order_is_a_permutation_that_only_its_arguments_decide() -> None:
    first = order(1, "a", 0, 100)
    np.random.default_rng().normal()
    assert (first == order(1, "a", 0, 100)).all()
    assert sorted(first.tolist()) == list(range(100))
    for other in (order(2, "a", 0, 100), order(1, "b", 0, 100), order(1, "a", 1, 100)):
        assert (first != other).any()


def test_gradients_of_the_pair_objectives_are_those_of_the_paper() -> None:
    x = torch.tensor([0.3, -1.0, 2.0], requires_grad=True)
    y = torch.tensor([0.2, 0.9, 0.5])
    soft_bce(x, y).backward()
    assert torch.allclose(x.grad, (torch.sigmoid(x) - y) / 3)  # papers: d BCE / dx = (sigmoid(x) - y) / N
    x.grad = None
    cosine_mse(x, y).backward()
    assert torch.allclose(x.grad, 2 * (x.detach() - y) / 3)


def test_soft_bce_is_smallest_at_the_label_where_it_is_its_entropy() -> None:
    y = torch.tensor([0.2])
    at = torch.logit(y)
    lowest = soft_bce(at, y)
    assert lowest == pytest.approx(float(-(y * y.log() + (1 - y) * (1 - y).log())))
    assert all(soft_bce(at + d, y) > lowest for d in (-0.1, 0.1))


@pytest.mark.parametrize("n", [2, 7])
def test_contrastive_losses_of_equal_embeddings_are_the_log_of_the_candidates(n: int) -> None:
    same = torch.ones(n, 5)
    assert info_nce(same, same, 0.05).item() == pytest.approx(np.log(n), abs=1e-5)
    assert nt_xent(same, same, 0.05).item() == pytest.approx(np.log(2 * n - 1), abs=1e-5)


def test_the_matrix_of_cosines_counts_a_sentence_s_own_views_apart() -> None:
    eye, ones = torch.eye(2), torch.ones(2, 2)
    assert cosine_matrix_mse(eye, eye, 5 * eye, 3 * eye).item() == 0
    assert cosine_matrix_mse(eye, eye, ones, ones).item() == pytest.approx(1.0)  # own 0, others 1
    assert cosine_matrix_mse(eye, eye, eye, eye.flip(0)).item() == pytest.approx(1.3)  # own 1, others 1
    turned = torch.tensor([[1, 0], [0.6, 0.8]])  # own 0 and 0.2 squared, others 0 and 0.6 squared
    assert cosine_matrix_mse(eye, eye, eye, turned).item() == pytest.approx(0.3 * 0.02 + 0.18)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ema:0.9", [1, 1.75, (4 * 1.75 + 9 * 4) / 13]),  # decays of 3 / 12 and 4 / 13
        ("ema:0.1", [1, 1.9, 3.79]),
        ("last:0.5", [None, 2, 3]),  # 1.5 steps are two
        ("last:0.3", [None, None, 4]),
        ("none", [None] * 3),
    ],
)
@torch.no_grad()
def test_a_mean_of_weights_is_the_one_worked_out_by_hand(spec: str, expected: list[float | None]) -> None:
    module, average = torch.nn.Linear(1, 1, bias=False), Average(spec, 3)
    for step, (weight, mean) in enumerate(zip([1.0, 2.0, 4.0], expected, strict=True), start=1):
        module.weight.fill_(weight)
        average.update(module, step)
        found = average.weights["weight"].item() if average.weights else None
        assert found == (mean if mean is None else pytest.approx(mean))


def passed_through(average: str) -> tuple[list[torch.Tensor], torch.nn.Module]:
    """The first layer's weights after each of the 12 steps, and the trained module."""
    module, loss_of = problem()
    seen: list[torch.Tensor] = []
    settings = SETTINGS.model_copy(update={"average": average})
    run = Fit(settings, Compute(), 7, "stage", changed=lambda: seen.append(module[0].weight.detach().clone()))
    fit(module, 20, loss_of, run)
    return seen[:12], module


def test_the_last_steps_are_averaged() -> None:
    seen, module = passed_through("last:0.5")
    assert torch.allclose(module[0].weight, torch.stack(seen[6:]).mean(0), atol=1e-6)
    assert not torch.allclose(module[0].weight, seen[-1], atol=1e-6)


def test_the_moving_average_forgets_its_start_and_then_decays_as_told() -> None:
    seen, module = passed_through("ema:0.5")
    expected = seen[0]
    for step, weights in enumerate(seen[1:], start=2):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    assert torch.allclose(module[0].weight, expected, atol=1e-6)


def test_the_average_is_what_is_scored_and_kept_while_training_goes_on_without_it() -> None:
    plain, _ = passed_through("none")
    scored: list[list[bytes]] = []
    module, loss_of = problem()

    def evaluate() -> float:
        scored.append(weights(module))
        return float(len(scored))

    settings = SETTINGS.model_copy(update={"average": "last:0.5"})
    after: list[torch.Tensor] = []
    run = Fit(settings, Compute(), 7, "stage", evaluate=evaluate)
    run.report = lambda progress: after.append(module[0].weight.detach().clone())
    fit(module, 20, loss_of, run)
    assert all(torch.equal(a, b) for a, b in zip(after, plain, strict=True))
    assert weights(module) == scored[-1]
    assert torch.allclose(module[0].weight, torch.stack(plain[6:]).mean(0), atol=1e-6)


def test_every_change_of_the_weights_is_told_before_they_are_used() -> None:
    module, loss_of = problem()
    told: list[list[bytes]] = []
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])

    def evaluate() -> float:
        assert told[-1] == weights(module)
        return next(scores)

    def loss(index: np.ndarray[Any, Any]) -> torch.Tensor:
        assert not told or told[-1] == weights(module)
        return loss_of(index)

    settings = SETTINGS.model_copy(update={"average": "last:0.9"})
    fit(
        module,
        20,
        loss,
        Fit(settings, Compute(), 7, "stage", evaluate=evaluate, changed=lambda: told.append(weights(module))),
    )
    assert told[-1] == weights(module)


def test_a_trial_is_the_first_steps_of_the_whole_training_and_is_scored_at_its_end() -> None:
    settings = SETTINGS.model_copy(update={"evaluate_every": 100, "epochs": 1})  # of 4 steps
    seen: list[list[bytes]] = []
    module, loss_of = problem()
    fit(
        module,
        20,
        loss_of,
        Fit(settings, Compute(), 7, "stage", changed=lambda: seen.append(weights(module))),
    )
    module, loss_of = problem()
    trial = fit(
        module,
        20,
        loss_of,
        Fit(settings, Compute(), 7, "stage", evaluate=lambda: measured(module), limit=0.6),
    )
    assert weights(module) == seen[2]  # 2.4 steps are three, at the rates of the whole
    assert (trial.limit, trial.best_step, trial.history) == (3, 3, [(3, measured(module))])


def test_the_start_is_kept_when_no_step_beats_it() -> None:
    module, loss_of = problem()
    before = weights(module)
    values = iter([0.5, 0.1, 0.4, 0.5, 0.3, 0.2, 0.1])
    settings = SETTINGS.model_copy(update={"keep_start": True})
    fitted = fit(module, 20, loss_of, Fit(settings, Compute(), 7, "stage", evaluate=lambda: next(values)))
    assert (fitted.best, fitted.best_step, fitted.history[0]) == (0.5, 0, (0, 0.5))
    assert weights(module) == before
