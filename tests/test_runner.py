from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_pairs
from tests.runs import content, run_small, small_runner
from transenc.errors import ConfigError, DamagedError, Interrupted
from transenc.interrupt import StopFlag
from transenc.outcome import read_outcome
from transenc.readers import read_pairs
from transenc.record import differences, record
from transenc.runs import models_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, plm: Path) -> Path:
    root = tmp_path_factory.mktemp("finished") / "run"
    run_small(root, plm, cycles=2)
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def facts(root: Path, name: str, kind: str) -> dict[str, Any]:
    return dict(json.loads((root / name / f"{kind}.json").read_text()))


def test_a_run_ends_with_the_best_models_and_their_tests(finished: Path) -> None:
    for family in ("bi", "cross"):
        best = facts(finished, f"best/{family}", "best")
        candidates = [f"cycle-{c}/distill-{family}/s0" for c in (1, 2)] + (
            ["prime/s0"] if family == "bi" else []
        )
        devs = {name: facts(finished, name, name.split("/")[-2].split("-")[0])["dev"] for name in candidates}
        assert best["dev"] == max(devs.values())
        assert devs[best["model"]] == best["dev"]
    assert facts(finished, "evaluate/prime/s0", "evaluate")["tests"].keys() == {"test"}


def test_silver_labels_are_the_clipped_mean_of_the_teachers(tmp_path: Path, plm: Path) -> None:
    run_small(tmp_path / "run", plm, students=2)
    scores = [
        read_pairs(tmp_path / f"run/cycle-1/label-bi/s{i}/scores.parquet", scores="required").scores
        for i in (0, 1)
    ]
    silver = read_pairs(tmp_path / "run/cycle-1/silver-bi/silver.parquet", scores="required").scores
    np.testing.assert_allclose(silver, np.clip(np.mean(scores, axis=0), 0, 1), atol=1e-7)
    assert (tmp_path / "run/best/bi/s1/model.safetensors").is_file()


def test_a_run_leaves_the_random_state_of_the_process_as_it_was(plm: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run_small(tmp_path / "run", plm, n=80, changes={"select": "agreement", "held_out": 0.25})
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


def test_the_same_command_again_does_nothing_and_changes_nothing(run: Path, plm: Path) -> None:
    before = content(run)
    done: list[str] = []
    runner, stages = small_runner(run, plm, cycles=2)
    with runner.context.store.lock():
        record(runner.context)
        runner.run(stages, on_stage=lambda stage, what: done.append(what))
    assert set(done) == {"done before"}
    assert content(run) == before


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_signal_stops_the_run_and_the_same_command_ends_with_the_same_bytes(
    after: int, tmp_path: Path, plm: Path, finished: Path
) -> None:
    stop = StopFlag()
    runner, stages = small_runner(tmp_path / "run", plm, cycles=2, stop=stop)
    steps = 0

    def count(progress: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            stop.signum = 15

    runner.context.report = count
    with runner.context.store.lock():
        record(runner.context)
        with pytest.raises(Interrupted) as caught:
            runner.run(stages)
    assert caught.value.exit_code == 143
    run_small(tmp_path / "run", plm, cycles=2)
    assert content(tmp_path / "run") == content(finished)


def test_a_moved_run_with_other_file_times_is_still_finished(run: Path, plm: Path) -> None:
    import os

    moved = run.rename(run.with_name("moved"))
    for path in moved.rglob("*"):
        os.utime(path, (0, 0))
    before = content(moved)
    run_small(moved, plm, cycles=2)
    assert content(moved) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 2}, "seed: was 1, now 2"),
        ({"distill": {"bi": {"epochs": 3}}}, "distill.bi.epochs: was 2, now 3"),
        ({"label": {"shard": 99}}, "label.shard: was 24, now 99"),
        ({"cycles": 1}, "cycles: was 2, now 1"),
        ({"cycles": 3, "changes": {"seed": 2}}, "seed: was 1, now 2"),
    ],
)
def test_resuming_with_another_setting_is_refused_with_the_difference(
    changes: dict[str, Any], named: str, run: Path, plm: Path
) -> None:
    runner, _ = small_runner(
        run, plm, **{"cycles": 2, "changes": changes} if "cycles" not in changes else changes
    )
    with runner.context.store.lock(), pytest.raises(ConfigError, match=named):
        record(runner.context)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [("", DamagedError, "holds no settings"), ("seed: 1\n", ConfigError, "begun with other settings")],
)
def test_a_run_whose_settings_are_lost_is_refused(
    text: str, error: type[Exception], message: str, run: Path, plm: Path
) -> None:
    (run / "run.yaml").write_text(text, encoding="utf-8")
    runner, _ = small_runner(run, plm, cycles=3)
    with runner.context.store.lock(), pytest.raises(error, match=message):
        record(runner.context)
    assert (run / "best").is_dir()


@pytest.mark.parametrize("students", [1, 2])
def test_more_cycles_continue_a_finished_run_to_the_same_bytes(
    students: int, tmp_path: Path, plm: Path, finished: Path
) -> None:
    run = tmp_path / "run"
    run_small(run, plm, students=students)
    done: dict[str, str] = {}
    runner, stages = small_runner(run, plm, students=students, cycles=2)
    with runner.context.store.lock():
        record(runner.context)
        runner.run(stages, on_stage=lambda stage, what: done.__setitem__(stage.name, what))
    assert done["cycle-1/distill-bi/s0"] == done["evaluate/cycle-1/distill-bi/s0"] == "done before"
    assert not (run / "tmp").exists() or not list((run / "tmp").iterdir())
    whole = finished
    if students > 1:
        whole = tmp_path / "whole"
        run_small(whole, plm, students=students, cycles=2)
    assert content(run) == content(whole)


@pytest.mark.parametrize("cycles", [1, 2])
def test_a_run_killed_before_it_has_more_cycles_serves_either_command(
    cycles: int, tmp_path: Path, plm: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run_small(run, plm)
    before = content(run)
    runner, _ = small_runner(run, plm, cycles=2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, runner.context.store.lock(), pytest.raises(KeyboardInterrupt):
        patch.setattr("transenc.record.write_file", killed)
        record(runner.context)
    assert not (run / "best").exists()
    run_small(run, plm, cycles=cycles)
    assert content(run) == (before if cycles == 1 else content(finished))


def test_other_pairs_than_the_run_was_begun_with_are_refused(run: Path, plm: Path) -> None:
    runner, stages = small_runner(run, plm, cycles=2)
    runner.digests = {**runner.digests, "pairs": "other"}
    with (
        runner.context.store.lock(),
        pytest.raises(ConfigError, match="pairs was made from other settings or inputs"),
    ):
        runner.run(stages)


@pytest.mark.parametrize(
    "name",
    ["cycle-1/distill-bi/s0/model.safetensors", "cycle-1/silver-bi/silver.parquet", "best/cross/config.json"],
)
def test_a_damaged_stage_is_named_and_rebuilt_to_the_same_bytes(
    name: str, run: Path, plm: Path, finished: Path
) -> None:
    file = run / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    file.write_bytes(bytes(raw))
    with pytest.raises(DamagedError, match=f"{name} differs.*Remove "):
        run_small(run, plm, cycles=2)
    shutil.rmtree(file.parent)
    run_small(run, plm, cycles=2)
    assert content(run) == content(finished)


GENTLE: dict[str, Any] = {
    "label": {"transform": "match", "mix": 0.25, "both_orders": True},
    "distill": {
        "cross": {"start": "primed", "average": "ema:0.9", "objective": "cosent"},
        "bi": {"average": "last:0.5", "keep_start": True, "objective": "angle"},
    },
}


def test_labels_keep_a_share_of_the_bi_encoder_and_stopping_changes_nothing(
    tmp_path: Path, plm: Path
) -> None:
    from transenc.models.cross import CrossFamily
    from transenc.models.device import Compute
    from transenc.scorer import blend, mean

    run_small(tmp_path / "plain", plm, changes=GENTLE)
    pairs = read_pairs(tmp_path / "plain/pairs/pairs.parquet", scores="ignored")
    cross = CrossFamily().load(tmp_path / "plain/cycle-1/distill-cross/s0", compute=Compute("cpu", "fp32"))
    bi = read_pairs(tmp_path / "plain/cycle-1/label-bi/s0/scores.parquet", scores="required").scores
    silver = read_pairs(tmp_path / "plain/cycle-1/silver-cross/silver.parquet", scores="required").scores
    expected = blend(mean([cross.score(pairs), cross.score(pairs.flipped())]), bi, "match", 0.25)
    np.testing.assert_allclose(silver, np.clip(expected, 0, 1), atol=1e-5)
    assert facts(tmp_path / "plain", "cycle-1/silver-cross", "silver")["mix"] == 0.25

    for stop_at in (8, 15):  # in the middle of the cross-encoder, and of the bi-encoder's average
        stop = StopFlag()
        runner, stages = small_runner(tmp_path / "stopped", plm, changes=GENTLE, stop=stop)
        steps = iter(range(1, 1000))
        runner.context.report = lambda progress, steps=steps, stop=stop, at=stop_at: setattr(
            stop, "signum", 2 if next(steps) >= at else None
        )
        with runner.context.store.lock():
            record(runner.context)
            with pytest.raises(Interrupted):
                runner.run(stages)
        run_small(tmp_path / "stopped", plm, changes=GENTLE)
        assert content(tmp_path / "stopped") == content(tmp_path / "plain")
        shutil.rmtree(tmp_path / "stopped")


def test_an_older_models_start_wins_when_nothing_beats_it(tmp_path: Path, plm: Path) -> None:
    # A learning rate of almost nothing: the students stay at their starts and cannot be strictly better.
    tiny = {"learning_rate": 1e-30, "warmup": 0.0}
    run_small(tmp_path / "run", plm, changes={"distill": {"bi": tiny, "cross": tiny}})
    assert facts(tmp_path / "run", "best/bi", "best")["cycle"] == 0
    assert "No cycle beat the start" in (tmp_path / "run/best/bi/README.md").read_text()


def test_a_student_that_kept_the_weights_it_began_with_is_named(tmp_path: Path, plm: Path) -> None:
    tiny = {"learning_rate": 1e-30, "warmup": 0.0, "keep_start": True}
    runner, stages = small_runner(tmp_path / "run", plm, changes={"distill": {"bi": tiny}})
    with runner.context.store.lock():
        record(runner.context)
        runner.run(stages)
    (told,) = read_outcome(runner, stages, []).warnings
    assert told.startswith("cycle-1/distill-bi/s0 learnt nothing")


def test_refreshing_and_sequential_students_start_where_they_should(tmp_path: Path, plm: Path) -> None:
    from safetensors.torch import load_file

    tiny = {"learning_rate": 1e-30, "start": "previous", "warmup": 0.0}
    run_small(tmp_path / "run", plm, changes={"distill": {"bi": tiny, "cross": tiny}})
    primed = load_file(tmp_path / "run/prime/s0/model.safetensors")
    cross = load_file(tmp_path / "run/cycle-1/distill-cross/s0/model.safetensors")
    bi = load_file(tmp_path / "run/cycle-1/distill-bi/s0/model.safetensors")
    base = load_file(plm / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    for found in (cross[f"bert.{name}"], bi[name]):
        np.testing.assert_allclose(found, primed[name], atol=1e-7)
        assert not np.allclose(found, base[name], atol=1e-7)


def test_differences_name_nested_keys() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: was 1, now 3"]
    assert differences({"a": 1}, {"b": 2}) == ["a: was 1, now None", "b: was None, now 2"]


def test_a_finished_run_leaves_no_work_in_progress(finished: Path) -> None:
    assert not (finished / "tmp").exists()
    assert not (finished / "checkpoints").exists()
    events = [json.loads(line)["event"] for line in (finished / "events.jsonl").read_text().splitlines()]
    assert events.count("start") == events.count("finish")


def test_pairs_of_the_run_are_those_it_was_given(finished: Path) -> None:
    found = read_pairs(finished / "pairs/pairs.parquet", scores="optional")
    assert list(found.rows()) == list(make_pairs(24).rows())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: [", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "holds no settings"),
        (b"- cycles", "holds no settings"),
    ],
)
def test_settings_that_cannot_be_read_are_damage(text: bytes, said: str, run: Path, plm: Path) -> None:
    (run / "run.yaml").write_bytes(text)
    runner, _ = small_runner(run, plm, cycles=2)
    with (
        runner.context.store.lock(),
        pytest.raises(DamagedError, match=rf"run.yaml {said}.*Remove it"),
    ):
        record(runner.context)


def test_a_run_that_goes_on_with_other_threads_says_so(
    run: Path, plm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        caplog.clear()
        run_small(run, plm, cycles=2)
        return [r.getMessage() for r in caplog.records if "was begun otherwise" in r.getMessage()]

    shutil.rmtree(run / "select")
    assert not warnings()
    facts = json.loads((run / "run.json").read_text())
    facts["environment"] |= {"threads": 3, "numpy": "1.0"}
    (run / "run.json").write_text(json.dumps(facts))
    assert not warnings()  # nothing is left to do
    shutil.rmtree(run / "select")
    (said,) = warnings()
    assert "threads: was 3, now 1" in said
    assert "numpy: was '1.0'" in said


def test_a_setting_that_has_become_another_kind_is_shown(run: Path, plm: Path) -> None:
    text = (run / "run.yaml").read_text().replace("cycles: 2", "cycles: q")
    (run / "run.yaml").write_text(text)
    runner, _ = small_runner(run, plm, cycles=2)
    with runner.context.store.lock(), pytest.raises(ConfigError, match="cycles: was 'q', now 2"):
        record(runner.context)


def test_a_damaged_choice_between_models_is_named(run: Path) -> None:
    (run / "select/select.json").write_text("{")
    with pytest.raises(
        DamagedError, match=r"select\.json differs .* Remove .*select and run the cycle command"
    ):
        models_of(run)


def test_a_damaged_best_model_is_named_with_what_makes_it_again(run: Path) -> None:
    (run / "best/cross/MANIFEST.json").write_text("")
    with pytest.raises(
        DamagedError, match=r"best/cross/MANIFEST\.json cannot .* Remove .*best/cross and run"
    ):
        models_of(run)


@pytest.mark.parametrize("lost", ["bi", "cross"])
def test_a_run_without_one_of_its_best_models_is_not_whole(lost: str, run: Path) -> None:
    assert len(models_of(run)) == 2
    shutil.rmtree(run / "best" / lost)
    with pytest.raises(ConfigError, match=f"is not whole: best/{lost} is missing"):
        models_of(run)
