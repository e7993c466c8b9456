"""Benchmarks run, in small; the comparison of objectives shares what variants share and skips what is finished."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common import in_turn
from benchmarks.quality import chains, coverage, objectives, priming, selection, students
from tests.conftest import make_pairs
from tests.runs import run_small
from transenc.models.device import Compute
from transenc.writers import write_pairs

SMALL = ["--task", "demo", "--max-pairs", "30", "--seeds", "1,2", "--teacher", "primed", "--set"]
SMALL += ["distill.bi.epochs=1", "--set", "prime.max_sentences=20"]


def compare(plm: Path, work: Path, *more: str) -> list[dict[str, Any]]:
    assert objectives.main(["--plm", str(plm), "--work", str(work), *SMALL, *more]) == 0
    return [
        json.loads(line) for line in (work / "results.jsonl").read_text().splitlines() if line.endswith("}")
    ]


def test_variants_are_measured_once_and_share_their_teacher(
    plm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--variants", "primed", "--add", "bi:soft=label.mix=0.5 distill.bi.objective=cosent"]
    rows = compare(plm, tmp_path, *options)
    assert [(r["seed"], r["family"], r["variant"]) for r in rows] == [
        (seed, family, name) for seed in (1, 2) for family, name in (("cross", "primed"), ("bi", "soft"))
    ]
    told = capsys.readouterr()
    assert (
        told.err.count("  cycle-1/distill-cross/tiny: start") == 2
    )  # not again for the bi-encoder's teacher
    assert "| soft | 2 |" in told.out
    assert not list((tmp_path / "runs").iterdir())

    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    monkeypatch.setattr(objectives, "measure", lambda *given: pytest.fail("measured again"))
    assert compare(plm, tmp_path, *options) == rows
    assert capsys.readouterr().out == told.out


def test_a_name_that_is_no_variant_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert objectives.main(["--plm", "x", "--work", str(tmp_path), "--variants", "cosnet"]) == 2
    assert "No variant or family 'cosnet'. Variants: angle," in capsys.readouterr().err


def test_every_variant_has_settings_that_exist() -> None:
    for family in objectives.VARIANTS.values():
        for assignments in family.values():
            options = objectives.parse(["--plm", "x", "--work", "w"])
            assert objectives.settings_of(options, assignments, 1).plm == ("x",)


def test_priming_methods_are_measured_once_beside_the_raw_start(
    plm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--plm", str(plm), "--work", str(tmp_path), "--task", "demo", "--seeds", "1,2"]
    command += ["--methods", "whitening", "--set", "prime.max_sentences=64"]
    assert priming.main(command) == 0
    told = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "priming.jsonl").read_text().splitlines()]
    assert [(r["method"], r["seed"]) for r in rows] == [("raw", 1), ("whitening", 1), ("whitening", 2)]
    assert rows[0]["average"] != rows[1]["average"] != rows[2]["average"]
    assert "| whitening | 2 |" in told
    monkeypatch.setattr(priming, "measure", lambda *given: pytest.fail("measured again"))
    assert priming.main(command) == 0
    assert capsys.readouterr().out == told
    assert priming.main([*command, "--methods", "simcs"]) == 2
    assert "No priming method 'simcs'. There are: simcse," in capsys.readouterr().err


def test_students_are_compared_with_their_labels_and_turned_round(
    tmp_path: Path, plm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_small(tmp_path / "run", plm)
    write_pairs(make_pairs(12), tmp_path / "test.tsv")
    assert students.main([str(tmp_path / "run"), "--pairs", str(tmp_path / "test.tsv")]) == 0
    name, labels, dev, difference, orders = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    assert name == "run, s0"
    assert -1 <= float(labels) < 1 and -1 <= float(orders) < 1
    assert 0 < float(difference) < 1
    facts = json.loads((tmp_path / "run/cycle-1/distill-cross/s0/distill.json").read_text())
    assert float(dev) < facts["dev"]


@pytest.mark.parametrize(
    ("name", "size", "peer"),
    [
        ("encode", 40, "sentence_transformers"),
        ("cross_score", 20, "sentence_transformers"),
        ("train_bi", 64, "datasets"),
        ("train_cross", 64, "datasets"),
        ("label_memory", 500, "numpy"),
        ("mine_bm25", 300, "rank_bm25"),
        ("mine_semantic", 300, "faiss"),
        ("startup", 5, "sentence_transformers"),
    ],
)
def test_each_quick_benchmark_measures_both_sides_and_their_agreement(
    name: str, size: int, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(peer)  # some are in the extra `bench` alone
    module = importlib.import_module(f"benchmarks.{name}")
    for part in (module, *(importlib.import_module(f"benchmarks.{n}") for n in ("inference", "training"))):
        if hasattr(part, "in_turn"):
            monkeypatch.setattr(part, "in_turn", lambda sides, **more: in_turn(sides, **more | {"rounds": 2}))
    rows = module.run(size)
    assert rows
    assert all(row.ours > 0 and row.agreement and row.goal != "" for row in rows if row.ratio_goal)
    assert any(row.theirs for row in rows) or name == "label_memory"


def test_the_benchmark_of_a_gpu_measures_each_way_of_a_peer(
    monkeypatch: pytest.MonkeyPatch, plm: Path, tmp_path: Path
) -> None:
    pytest.importorskip("datasets")
    gpu, training = (importlib.import_module(f"benchmarks.{name}") for name in ("gpu", "training"))
    for part in (gpu, training):
        monkeypatch.setattr(part, "in_turn", lambda sides, **more: in_turn(sides, **more | {"rounds": 1}))
    monkeypatch.setattr("benchmarks.limits.matrix_rate", lambda compute: 1e9)
    size = gpu.Size("tiny", 1, 32, 64, 2, 8, 8)
    path, compute = gpu.build(size, plm, tmp_path), Compute("cpu", "bf16")
    rows = gpu.inference(size, path, compute) + gpu.training(size, path, compute)
    assert [row.what.partition(",")[0] for row in rows[::2]] == [
        "encode",
        "cross-score",
        "train bi",
        "train cross",
    ]
    assert [row.peer for row in rows] == [
        "sentence-transformers in bf16",
        "sentence-transformers at its defaults",
    ] * 4
    assert all(row.ours > 0 and row.theirs and "of the bf16 matrix rate" in row.agreement for row in rows)


def test_rules_of_agreement_are_compared_on_simulated_chains(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    kept = chains.below_best(chains.simulate(chains.Case(taken=1, own=0), 3, 50, rng))
    assert all(below == pytest.approx(0) for chosen in kept.values() for below, _ in chosen)
    improving = chains.below_best(chains.simulate(chains.Case(taken=0.5, own=0), 3, 200, rng))
    assert improving["the last cycle"] == [(0, 3), (0, 3)]
    assert [cycle for _, cycle in improving["with the start"]] == [1, 1]
    assert min(below for below, _ in improving["with the start"]) > 0
    assert chains.main(["--repeats", "2", "--pairs", "60"]) == 0
    assert capsys.readouterr().out.count("(cycle ") == len(chains.RULES) * len(chains.CASES)


def test_rules_of_selection_are_compared_on_a_finished_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, rng = tmp_path / "run", np.random.default_rng(0)
    values = {
        "prime/s": 0.8,
        **{f"cycle-{c}/distill-{f}/s": 0.9 - c / 10 for c in (1, 2, 3) for f in ("cross", "bi")},
    }
    truth, rows, said = rng.normal(size=40), [], []
    for path, value in values.items():
        family, cycle = "cross" if "cross" in path else "bi", int(path[6]) if "cycle" in path else 0
        row = {
            "path": path,
            "family": family,
            "cycle": cycle,
            "label": f"cycle {cycle}",
            "tests": {"t": value},
        }
        rows.append(row)
        (run / "agreement" / path).mkdir(parents=True)
        near = truth + abs(cycle - 2) * rng.normal(size=40)  # cycle 2 is in the middle of all
        write_pairs(make_pairs(40).with_scores(near), run / "agreement" / path / "scores.parquet")
        said.append(json.dumps({"model": str(run / path), "value": cycle / 10}))
    best = [{"family": "bi", "model": "prime/s"}, {"family": "cross", "model": "cycle-1/distill-cross/s"}]
    (run / "results.json").write_text(json.dumps({"rows": rows, "best": best}))
    (tmp_path / "dev.jsonl").write_text("\n".join(said))
    assert selection.main([str(run), "--dev", str(tmp_path / "dev.jsonl")]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    found = {tuple(line[2:-2].split(" | ")[:2]): line.split(" | ")[2] for line in lines}
    assert found["bi", "agreement with all, as `--select agreement`"] == "cycle 2: 70.00 (-10.00)"
    assert found["bi", "the start"] == found["bi", selection.KEPT] == "cycle 0: 80.00 (-0.00)"
    assert found["cross", selection.KEPT] == "cycle 1: 80.00 (-0.00)"
    assert found["bi", selection.DEV] == found["bi", "the last cycle"] == "cycle 3: 60.00 (-20.00)"
    assert len(found) == 2 * (len(chains.RULES) + 2) + 1


def test_coverage_counts_the_intervals_that_hold_the_truth() -> None:
    ends = iter([((0.2, 0.6), (0.5, 0.6)), ((0.5, 0.6), (0.5, 0.6))])
    assert coverage.covered(("made up", 0.4, lambda rng: next(ends)), 2, 1) == (0.5, 0)
    for case in coverage.cases(20):
        ours, theirs = case[2](np.random.default_rng(1))
        assert -1 <= ours[0] <= ours[1] <= 1
        if theirs is not None and " over " not in case[0]:
            assert ours != theirs
