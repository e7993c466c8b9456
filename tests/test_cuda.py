"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_pairs
from transenc import registry
from transenc.config import Distill
from transenc.errors import Interrupted
from transenc.interrupt import StopFlag
from transenc.models.device import Compute
from transenc.objectives import PAIR_OBJECTIVES
from transenc.stages.distill import distill_model
from transenc.store import Store
from transenc.training import Fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
FAMILIES = ("bi", "cross")


def model_of(plm: Path, family: str, compute: Compute) -> Any:
    torch.manual_seed(0)
    return registry.load(registry.FAMILIES, family)().create(
        plm, compute=compute, max_length=32, pooling="mean"
    )


def settings_of(family: str, **changes: Any) -> Any:
    return getattr(Distill(), family).model_copy(
        update={"epochs": 2, "batch_size": 16, "dropout": 0.0, **changes}
    )


def curve(plm: Path, family: str, compute: Compute, **changes: Any) -> list[float]:
    losses: list[float] = []
    settings = settings_of(family, **changes)
    run = Fit(settings, compute, 0, "test", report=lambda p: losses.append(float(p.loss or 0.0)))
    model = model_of(plm, family, compute)
    distill_model(model, make_pairs(96, seed=3, scored=True), settings, run)
    return [*losses, float(model.score(make_pairs(8, seed=4)).mean())]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_cpu(plm: Path, family: str) -> None:
    pairs = make_pairs(64, seed=2)
    cpu = model_of(plm, family, Compute()).score(pairs)
    fp32, bf16 = (model_of(plm, family, Compute("cuda", p)).score(pairs) for p in ("fp32", "bf16"))
    assert np.abs(fp32 - cpu).max() < 1e-5
    assert 0 < np.abs(bf16 - cpu).max() < 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_training_follows_the_losses_of_the_cpu(plm: Path, family: str) -> None:
    cpu = curve(plm, family, Compute())
    cuda = curve(plm, family, Compute("cuda", "fp32"))
    # There a report shows the loss of the step before, except where a whole epoch ends: compare that one.
    assert cuda[-1] == pytest.approx(cpu[-1], abs=1e-3)
    assert cuda[-2] == pytest.approx(cpu[-2], abs=1e-4)
    bf16 = curve(plm, family, Compute("cuda", "bf16"))
    assert bf16[-2] == pytest.approx(cpu[-2], abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_recorded_losses_are_whole(plm: Path, family: str) -> None:
    settings = settings_of(family, epochs=20)
    pairs = make_pairs(96, seed=3, scored=True)
    points = []
    for compute in (Compute(), Compute("cuda", "fp32")):
        model = model_of(plm, family, compute)
        points.append(distill_model(model, pairs, settings, Fit(settings, compute, 0, "test")).losses)
    assert [step for step, _ in points[0]] == [step for step, _ in points[1]]
    assert np.allclose([v for _, v in points[0]], [v for _, v in points[1]], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_training_ends_as_an_unstopped_one(
    plm: Path, family: str, precision: str, tmp_path: Path
) -> None:
    compute, settings = Compute("cuda", precision), settings_of(family)
    pairs = make_pairs(96, seed=3, scored=True)

    def weights(folder: Path, stop_at: int | None) -> dict[str, torch.Tensor]:
        store = Store(folder)
        with store.lock():
            while True:
                flag = StopFlag()

                def report(progress: Any, flag: StopFlag = flag, stop_at: int | None = stop_at) -> None:
                    if progress.done == stop_at:
                        flag.signum = 2

                model = model_of(plm, family, compute)
                kept = store.checkpoints("test", "id")
                run = Fit(settings, compute, 0, "test", checkpoints=kept, stop=flag, report=report)
                try:
                    distill_model(model, pairs, settings, run)
                except Interrupted:
                    stop_at = None
                    continue
                return {name: tensor.cpu() for name, tensor in model.module.state_dict().items()}

    whole, resumed = weights(tmp_path / "a", None), weights(tmp_path / "b", 5)
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-5) for name in whole)


@pytest.mark.parametrize("name", sorted(PAIR_OBJECTIVES))
def test_every_objective_runs_there(plm: Path, name: str) -> None:
    family = "cross" if PAIR_OBJECTIVES[name].takes == "logits" else "bi"
    losses = curve(plm, family, Compute("cuda", "bf16"), objective=name, epochs=1)
    assert np.isfinite(losses).all()


def test_a_whole_run_by_the_command_line(plm: Path, tmp_path: Path) -> None:
    shutil.copytree(plm, other := tmp_path / "other")
    command = (
        f"cycle --plm {plm} --plm {other} --task demo --recipe mutual --max-pairs 64 --cycles 1 --devices"
    )
    settings = ["--set", "distill.bi.epochs=1", "--set", "distill.cross.epochs=1"]
    run = ["cuda:0,cuda:0", "--run", str(tmp_path / "run"), *settings]
    done = subprocess.run(
        [sys.executable, "-m", "transenc", *command.split(), *run],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "cycle 1, cross" in done.stdout


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own, in some releases
def test_pretraining_runs_and_resumes(tmp_path: Path) -> None:
    from examples.pretrain_mini.settings import Settings
    from examples.pretrain_mini.train import pretrain

    rng = np.random.default_rng(0)
    words = [f"w{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(" ".join([word] * 12) for word in rng.choice(words, 4000)) + "\n")
    settings = Settings(
        steps=20,
        rows=8,
        row_length=32,
        learning_rate=1e-2,
        warmup=2,
        width=32,
        ffn=64,
        heads=2,
        layers=2,
        precision="bf16",
        dropout=0.1,
    )
    run = tmp_path / "run"
    for until in (10, None):
        pretrain(
            [corpus],
            run,
            settings,
            vocabulary_size=128,
            device="cuda",
            compiled=True,
            until=until,
            evaluate_every=5,
        )
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert lines[-1]["held_out"] < lines[0]["held_out"]
