"""Selection without labels, and seed optimisation, in small runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_pairs
from tests.runs import content, run_small, small_runner
from transenc import kinds
from transenc.agreement import agreement, held_out, uniformity, word_overlap
from transenc.config import DistillSettings, Settings
from transenc.errors import Interrupted
from transenc.inputs import Inputs, selected_by
from transenc.interrupt import StopFlag
from transenc.models.bi import BiFamily
from transenc.models.device import Compute
from transenc.pairs import Pairs, join, shared
from transenc.record import record
from transenc.stages.agree import judge
from transenc.stages.select import choose_by
from transenc.stages.trials import try_seeds
from transenc.stages.views import dropout
from transenc.store import Checkpoints, Store
from transenc.training import Fitted

LABEL_FREE: dict[str, Any] = {"select": "agreement", "held_out": 0.25}
TRIALS: dict[str, Any] = {"distill": {"cross": {"trials": 3, "trial_share": 0.4}}}


def turned(pairs: Pairs) -> Pairs:
    """The same pairs with other gold."""
    assert pairs.scores is not None
    return pairs.with_scores(1 - pairs.scores)


def facts(root: Path, name: str, kind: str) -> dict[str, Any]:
    return dict(json.loads((root / name / f"{kind}.json").read_text()))


@pytest.mark.parametrize(
    ("by", "cycles"),
    [("dev", {"bi/a": 1, "bi/b": 0, "cross/a": 1}), ("last", {"bi/a": 3, "bi/b": 1, "cross/a": 2})],
)
def test_the_first_of_the_best_on_development_data_is_chosen_or_the_last_model(
    by: str, cycles: dict[str, int]
) -> None:
    scores = {"bi/a": [0.5, 0.7, 0.7, 0.6], "bi/b": [0.9, 0.8], "cross/a": [None, 0.75, 0.75]}
    models = {
        f"{key}-{cycle}": {"family": key.split("/")[0], "student": key[-1], "cycle": cycle, "dev": dev}
        for cycle in range(4)
        for key, values in scores.items()
        for dev in values[cycle : cycle + 1]
        if dev is not None  # a cross-encoder has no start
    }
    assert choose_by(models, by) == {
        key: {"model": f"{key}-{cycle}", "cycle": cycle, "dev": scores[key][cycle]}
        for key, cycle in cycles.items()
    }


@pytest.mark.parametrize(
    ("sentences", "given", "dev", "by"),
    [
        (400, {}, False, "agreement"),
        (380, {}, False, "dev"),  # too few pairs to hold out a tenth
        (400, {"max_pairs": 200}, False, "agreement"),
        (400, {"max_pairs": 190}, False, "dev"),
        (400, {"held_out": 0.09}, False, "dev"),
        (400, {}, True, "dev"),
        (400, {"remine": True}, False, "dev"),
        (400, {"gold": {"source": "gold.tsv"}}, False, "dev"),
        (400, {"select": "last"}, False, "last"),
        (400, {"select": "dev"}, False, "dev"),
        (4, {"select": "agreement"}, False, "agreement"),
    ],
)
def test_agreement_selects_where_that_is_left_open_and_there_are_no_labels(
    sentences: int, given: dict[str, Any], dev: bool, by: str
) -> None:
    settings = Settings(plm=("x",), **given)
    inputs = Inputs(lambda: (make_pairs(2), []), {}, sentences=[str(i) for i in range(sentences)])
    inputs.dev = make_pairs(12, scored=True) if dev else None
    assert selected_by(settings, inputs) == by


def test_no_gold_label_has_any_influence(tmp_path: Path, plm: Path) -> None:
    for name, gold in (("a", lambda pairs: pairs), ("b", turned)):
        run_small(tmp_path / name, plm, changes=LABEL_FREE, n=88, gold=gold)
    # Only what was measured on the test pairs, and what repeats it, may differ.
    first, second = (
        {k: v for k, v in content(tmp_path / name).items() if not k.startswith("evaluate/")} for name in "ab"
    )
    assert first == second
    before = facts(tmp_path / "a", "evaluate/prime/s0", "evaluate")["tests"]["test"]
    after = facts(tmp_path / "b", "evaluate/prime/s0", "evaluate")["tests"]["test"]
    assert before == pytest.approx(-after)

    chosen = facts(tmp_path / "a", "select", "select")
    assert chosen["by"] == "agreement"
    assert all(c["dev"] is None and c["reason"] for c in chosen["chosen"].values())
    judged = facts(tmp_path / "a", "agreement/cycle-1/distill-bi/s0", "agree")
    assert judged["held_out"] == 22
    assert -1 <= judged["labels"] <= 1
    assert judged["noise"] < 1
    assert judged["alignment"] > 0 > judged["uniformity"]
    # 66 of the 88 pairs are trained on, in both orders, 8 at a time.
    losses = json.loads((tmp_path / "a/cycle-1/distill-cross/s0/training.json").read_text())["losses"]
    assert losses[-1][0] == math.ceil(2 * 66 / 8)
    assert "No labelled data was used" in (tmp_path / "a/best/bi/README.md").read_text()


def test_no_held_out_pair_is_trained_on_that_occurs_twice(
    tmp_path: Path, plm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, stages = small_runner(tmp_path / "run", plm, changes=LABEL_FREE)
    once = make_pairs(44)
    runner.make_pairs = lambda: (join([once, once.flipped()]), [])  # as a pool has pairs in both orders
    trained: list[Pairs] = []
    real = kinds.distill_model

    def seen(student: Any, silver: Pairs, *args: Any, **options: Any) -> Any:
        trained.append(silver)
        return real(student, silver, *args, **options)

    monkeypatch.setattr(kinds, "distill_model", seen)
    with runner.context.store.lock():
        record(runner.context)
        runner.run(stages)
    held = runner.pairs.take(held_out(88, 0.25, runner.context.settings.seed))
    assert len(held) == 22
    assert len(trained) == 2
    for silver in trained:
        assert shared(silver, held) == 0
        assert 44 <= len(silver) < 66


def test_a_start_without_dropout_is_judged_under_some(plm: Path) -> None:
    model = BiFamily().create(plm, compute=Compute("cpu", "fp32"), max_length=16, pooling="mean")
    usual = judge(model, make_pairs(24), None, 1)[1]["noise"]
    with dropout(model.module, 0.0):
        noise = judge(model, make_pairs(24), None, 1)[1]["noise"]
        assert model.module.config.hidden_dropout_prob == 0
        # Ranks that are equal correlate by 1 less a rounding error for many numbers of pairs.
        assert all(
            found < 0.99
            for n in (32, 45, 46, 52, 60, 64, 70, 71)
            for found in [judge(model, make_pairs(n, seed=2), None, 1)[1]["noise"]]
            if found is not None
        )
    assert noise is not None
    assert noise == usual
    assert noise < 1


class Judged:
    """Scores pairs lower the more words they share, and under dropout by chance too; vectors by the first letter."""

    def __init__(self, family: str) -> None:
        self.family, self.transformer = family, SimpleNamespace(noisy=False)

    def noise(self, n: int) -> np.ndarray[Any, Any]:
        return (torch.rand(n).numpy() if self.transformer.noisy else np.zeros(n)).astype(np.float32)

    def score(self, pairs: Pairs) -> np.ndarray[Any, Any]:
        return self.noise(len(pairs)) - word_overlap(pairs)

    def encode(self, sentences: list[str]) -> np.ndarray[Any, Any]:
        angles = np.array([ord(sentence[0]) for sentence in sentences]) + self.noise(len(sentences))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize("family", ["bi", "cross"])
def test_a_model_is_judged_on_what_it_was_taught_and_under_two_draws_of_dropout(family: str) -> None:
    model, held, taught, own = Judged(family), make_pairs(30), make_pairs(25, seed=1), make_pairs(28, seed=2)
    taught = taught.with_scores(np.random.default_rng(0).random(25, np.float32))
    scores, facts = judge(model, held, taught, 5, own=own)
    np.testing.assert_array_equal(scores, -word_overlap(held))

    def noise(pairs: Pairs) -> float:
        views = []
        for seed in (6, 7):
            torch.manual_seed(seed)
            views.append(torch.rand(len(pairs)).numpy() - word_overlap(pairs))
        return agreement(*views)

    told = agreement(word_overlap(taught), np.asarray(taught.scores))
    assert (facts["labels"], facts["words"]) == (-told, told)
    assert (facts["noise"], facts["noise_own"]) == (noise(held), noise(own))
    assert not model.transformer.noisy
    vectors = model.encode(list(held.sentences))
    assert facts["uniformity"] == (uniformity(vectors) if family == "bi" else None)
    assert (facts["alignment"] or 0) > 0 if family == "bi" else facts["alignment"] is None
    # Of the pairs that it was taught, other labels are other facts; without any there are none.
    assert judge(model, taught, taught, 5)[1]["labels"] == -told
    assert judge(model, held, None, 5)[1]["labels"] is None


def test_the_score_of_the_start_is_no_trials_score(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every trial has it, so it would hide which of them is the best until one has passed it."""
    ends = iter([0.2, 0.4, 0.4])  # the first of the best is kept

    def train(seed: int, checkpoints: Checkpoints, limit: float | None) -> tuple[Any, Fitted]:
        # A winner may have gone on before it was stopped, as to step 4.
        return None, Fitted(history=[(0, 0.9), (1, 0.1), (3, next(ends)), (4, 0.8)], limit=3)

    settings = DistillSettings(trials=3, trial_share=0.5, keep_start=True)
    with caplog.at_level("INFO"):
        tried = try_seeds(settings, 1, Store(tmp_path).checkpoints("stage", "x"), train)
    assert (tried.kept, tried.scores) == (1, [0.2, 0.4, 0.4])
    assert caplog.messages == [
        "stage: 3 seeds, each for 0.5 of the steps, have 20.00, 40.00, 40.00; the best one is trained on."
    ]


def test_the_best_of_several_seeds_is_trained_on_also_after_a_stop(tmp_path: Path, plm: Path) -> None:
    run_small(tmp_path / "whole", plm, changes=TRIALS)
    found = facts(tmp_path / "whole", "cycle-1/distill-cross/s0", "distill")
    assert len(found["trials"]) == 3
    assert found["trial"] == found["trials"].index(max(found["trials"]))
    assert found["dev"] >= max(found["trials"])

    stop = StopFlag()
    runner, stages = small_runner(tmp_path / "run", plm, changes=TRIALS, stop=stop)
    steps = 0

    def count(progress: Any) -> None:
        nonlocal steps
        steps += progress.stage == "cycle-1/distill-cross/s0"
        # 6 steps in all, 3 in each of the trials: in the midst of the winner's second half.
        if steps == 3 * 3 + 2:
            stop.signum = 15

    runner.context.report = count
    with runner.context.store.lock():
        record(runner.context)
        with pytest.raises(Interrupted):
            runner.run(stages)
    run_small(tmp_path / "run", plm, changes=TRIALS)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_the_first_trial_is_the_run_without_trials(tmp_path: Path, plm: Path) -> None:
    run_small(tmp_path / "plain", plm)
    run_small(tmp_path / "tried", plm, changes=TRIALS)
    plain = json.loads((tmp_path / "plain/cycle-1/distill-cross/s0/training.json").read_text())
    first = facts(tmp_path / "tried", "cycle-1/distill-cross/s0", "distill")["trials"][0]
    assert [value for step, value in plain["history"] if step == 3] == [first]
