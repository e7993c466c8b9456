from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from tests.runs import content, run_small, small_runner
from transenc.errors import ConfigError, Interrupted, MachineError
from transenc.interrupt import StopFlag
from transenc.metrics import auc
from transenc.parallel import Worker, Workers, _serve
from transenc.readers import read_pairs
from transenc.record import record
from transenc.scorer import mean, weighted_mean
from transenc.stage import Stage
from transenc.stages.balance import dev_weights, imbalance


def facts(root: Path, name: str, kind: str) -> dict[str, Any]:
    return dict(json.loads((root / name / f"{kind}.json").read_text()))


def scores(path: Path) -> Any:
    return read_pairs(path, scores="required").scores


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, plm: Path) -> Path:
    """A run of two students, weighted by development score, with one model in memory at a time."""
    from transenc.models import bi, cross

    root = tmp_path_factory.mktemp("two") / "run"
    alive: list[weakref.ref[Any]] = []
    patch = pytest.MonkeyPatch()
    for module in (bi, cross):
        real = module.load_module

        def load(*args: Any, real: Any = real, **options: Any) -> Any:
            assert not [ref for ref in alive if ref() is not None], "a second model is in memory"
            made = real(*args, **options)
            alive.append(weakref.ref(made))
            return made

        patch.setattr(module, "load_module", load)
    try:
        run_small(root, plm, students=2, changes={"label": {"combine": "dev-weighted", "mix": 0.25}})
    finally:
        patch.undo()
    assert len(alive) > 10
    return root


def test_labels_are_weighted_by_development_scores(two: Path) -> None:
    weights = facts(two, "cycle-1/silver-bi", "silver")["weights"]
    devs = [facts(two, f"prime/s{i}", "prime")["dev"] for i in (0, 1)]
    np.testing.assert_allclose(weights, np.maximum(devs, 0) / np.maximum(devs, 0).sum())
    columns = [scores(two / f"cycle-1/label-bi/s{i}/scores.parquet") for i in (0, 1)]
    expected = np.clip(np.average(columns, axis=0, weights=weights), 0, 1)
    np.testing.assert_allclose(scores(two / "cycle-1/silver-bi/silver.parquet"), expected, atol=1e-6)


def test_bi_encoders_labels_that_are_mixed_in_have_their_own_weights(two: Path) -> None:
    found = facts(two, "cycle-1/silver-cross", "silver")
    own = np.maximum([facts(two, f"prime/s{i}", "prime")["dev"] for i in (0, 1)], 0)
    np.testing.assert_allclose(found["own_weights"], own / own.sum())
    assert not np.allclose(found["weights"], found["own_weights"])
    crosses, bis = (
        np.average(
            [scores(two / f"cycle-1/label-{family}/s{i}/scores.parquet") for i in (0, 1)],
            axis=0,
            weights=weights,
        )
        for family, weights in (("cross", found["weights"]), ("bi", found["own_weights"]))
    )
    expected = np.clip(0.75 * crosses + 0.25 * bis, 0, 1)
    np.testing.assert_allclose(scores(two / "cycle-1/silver-cross/silver.parquet"), expected, atol=1e-6)


def test_the_best_cycle_is_chosen_for_each_student_and_family(two: Path) -> None:
    chosen = facts(two, "select", "select")["chosen"]
    assert set(chosen) == {"bi/s0", "bi/s1", "cross/s0", "cross/s1"}
    for student in ("s0", "s1"):
        devs = {
            "prime/" + student: facts(two, f"prime/{student}", "prime")["dev"],
            f"cycle-1/distill-bi/{student}": facts(two, f"cycle-1/distill-bi/{student}", "distill")["dev"],
        }
        assert chosen[f"bi/{student}"]["dev"] == max(devs.values())


def test_an_ensemble_is_measured_on_mean_scores(two: Path) -> None:
    chosen = facts(two, "select", "select")["chosen"]
    for family in ("bi", "cross"):
        models = [chosen[f"{family}/s{i}"]["model"] for i in (0, 1)]
        found = facts(two, f"ensemble/best-{family}", "ensemble")
        assert found["members"] == models
        columns = [scores(two / f"evaluate/{model}/test.parquet") for model in models]
        np.testing.assert_allclose(
            scores(two / f"ensemble/best-{family}/test.parquet"), np.mean(columns, axis=0), atol=1e-6
        )
    assert facts(two, "ensemble/start-bi", "ensemble")["members"] == ["prime/s0", "prime/s1"]


def test_the_card_of_a_student_names_its_partner(two: Path, plm: Path) -> None:
    assert f"begun from `{plm.name}` learnt beside it" in (two / "best/cross/s0/README.md").read_text()


def test_the_auc_of_mean_scores_is_not_the_mean_of_aucs() -> None:
    gold = [0, 0, 1, 1]
    columns = [np.array([0.1, 0.8, 0.9, 0.2], np.float32), np.array([0.8, 0.1, 0.2, 0.9], np.float32)]
    assert np.mean([auc(column, gold) for column in columns]) == 0.75
    assert auc(mean(columns), gold) == 1.0


def test_a_run_on_two_devices_stops_at_a_signal_and_gives_the_bytes_of_one(tmp_path: Path, plm: Path) -> None:
    stop = StopFlag()
    runner, stages = small_runner(tmp_path / "run", plm, students=2, computes=2, stop=stop)
    seen: set[str] = set()
    workers: list[Any] = []

    def signal_all(*_: object) -> None:
        # As a terminal, or the end of a service, does; the first time while they are still importing.
        workers[:] = multiprocessing.active_children()
        for worker in workers:
            os.kill(worker.pid, signal.SIGINT)
            os.kill(worker.pid, signal.SIGTERM)

    def late(progress: Any) -> None:
        seen.add(progress.stage)
        if progress.stage.startswith("cycle-1/distill-cross") and progress.done >= 2:
            signal_all()
            stop.signum = 15

    runner.context.report = late
    with runner.context.store.lock():
        record(runner.context)
        with pytest.raises(Interrupted):
            runner.run(stages, on_stage=signal_all)
    assert len(workers) == 2
    assert not {w.exitcode for w in workers} & {
        -signal.SIGINT,
        -signal.SIGTERM,
    }  # their parent told them
    assert {"cycle-1/distill-cross/s0", "cycle-1/distill-cross/s1"} <= seen
    run_small(tmp_path / "run", plm, students=2)
    run_small(tmp_path / "alone", plm, students=2)
    assert content(tmp_path / "run") == content(tmp_path / "alone")


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), MachineError, "No space left"),
        (LookupError("odd"), RuntimeError, "LookupError: odd"),
    ],
    ids=["a full disk is no bug", "a bug comes with its traceback"],
)
def test_what_another_process_met_is_told(fault: Exception, kind: type[Exception], said: str) -> None:
    def finish(stage: Stage, identity: str) -> Any:
        raise fault

    ours, theirs = multiprocessing.Pipe()
    runner: Any = SimpleNamespace(context=SimpleNamespace(), finish=finish)
    logger = logging.getLogger("transenc")
    handlers, level = list(logger.handlers), logger.level
    thread = threading.Thread(target=_serve, args=(theirs, lambda: runner, None))
    thread.start()
    try:
        ours.send((Stage("prime/a", "prime"), "x"))
        worker = Worker(None, ours, Stage("prime/a", "prime"))  # type: ignore[arg-type]
        error = Workers([], StopFlag(), lambda progress: None)._take(worker, lambda stage, info: None)
        assert type(error) is kind
        assert said in str(error)
        assert "in finish" in str(error.__cause__)
    finally:
        ours.close()
        thread.join()
        theirs.close()
        logger.handlers[:], logger.level = handlers, level


def test_a_process_that_died_between_two_stages_is_named() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    workers = Workers([], StopFlag(), lambda progress: None, SimpleNamespace(value=0))
    gone: Any = SimpleNamespace(exitcode=-9, join=lambda timeout: None)
    workers.started.append(Worker(gone, ours))
    with pytest.raises(MachineError, match="The process of prime/a ended with code -9"):
        workers.run([(Stage("prime/a", "prime"), "x")], lambda stage, info: None)
    ours.close()


@pytest.mark.parametrize(
    ("devs", "binary", "weights"),
    [
        ({"a": 0.8, "b": 0.4}, False, [2 / 3, 1 / 3]),
        ({"a": 0.8, "b": 0.6}, True, [0.75, 0.25]),
        ({"a": 0.4, "b": 0.9}, True, [0.0, 1.0]),
        ({"a": -0.1, "b": 0.0}, False, [0.5, 0.5]),
    ],
)
def test_weights_are_what_is_above_chance(devs: dict[str, float | None], binary: bool, weights: Any) -> None:
    assert dev_weights(devs, binary) == pytest.approx(weights)


def test_weights_without_a_development_score_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs development scores; b has none"):
        dev_weights({"a": 0.5, "b": None}, False)


def test_a_weighted_mean_of_equal_weights_is_the_mean() -> None:
    columns = [np.array([0.0, 1.0], np.float32), np.array([1.0, 1.0], np.float32)]
    np.testing.assert_array_equal(weighted_mean(columns, [0.5, 0.5]), mean(columns))


def test_a_much_weaker_partner_is_named_with_both_scores() -> None:
    said = imbalance("cycle-1/silver-bi", {"strong": 0.82, "weak": 0.61})
    assert said is not None
    assert "weak teaches with 61.00" in said
    assert "21.00 below strong (82.00)" in said
    assert said.endswith(": --set label.combine=dev-weighted, or leave it out")
    assert imbalance("x", {"a": 0.82, "b": 0.80}) is None
    assert imbalance("x", {"a": None, "b": None}) is None


def test_partners_that_are_weighed_already_are_not_told_to_be() -> None:
    said = imbalance("cycle-1/silver-bi", {"strong": 0.82, "weak": 0.61}, weighted=True)
    assert said is not None
    assert "--set" not in said
    assert said.endswith("even with label.combine=dev-weighted: leave it out if it does")


def test_a_run_that_weighs_its_partners_does_not_advise_it(
    plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transenc.stages.balance.UNEQUAL", -1)
    runner, stages = small_runner(
        tmp_path / "run", plm, students=2, changes={"label": {"combine": "dev-weighted"}}
    )
    with runner.context.store.lock():
        record(runner.context)
        runner.run(stages[: [stage.name for stage in stages].index("cycle-1/silver-bi") + 1])
    warning = facts(tmp_path / "run", "cycle-1/silver-bi", "silver")["warning"]
    assert "even with label.combine=dev-weighted" in warning
