from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_pairs
from transenc.cli import console
from transenc.cli.app import main
from transenc.cli.console import table
from transenc.config import build
from transenc.interrupt import StopFlag
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.pairs import join
from transenc.readers import read_pairs
from transenc.session import default_root
from transenc.writers import write_pairs

TINY_CYCLE = [
    "--cycles", "1", "--max-pairs", "40", "--set", "prime.batch_size=16", "--set", "distill.bi.epochs=1",
    "--set", "distill.cross.max_length=32", "--set", "distill.bi.max_length=16", "--precision", "fp32",
]  # fmt: skip


class Shown:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run the command line in this process, from an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Shown:
        monkeypatch.setattr(sys, "argv", ["transenc", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        shown = capsys.readouterr()
        return Shown(code, shown.out, shown.err)

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, plm: Path) -> Path:
    """A directory in which `transenc cycle --task demo` has been run with a tiny model."""
    place = tmp_path_factory.mktemp("place")
    shown = subprocess.run(
        [sys.executable, "-m", "transenc", "cycle", "--plm", str(plm), "--task", "demo", *TINY_CYCLE],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    (place / "out.txt").write_text(shown.stdout)
    return place


@pytest.fixture
def place(finished: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> Path:
    monkeypatch.chdir(finished)
    return finished


def test_cycle_ends_with_a_table_the_best_models_and_the_next_commands(finished: Path) -> None:
    shown = (finished / "out.txt").read_text()
    assert "raw, bi" in shown
    assert "primed (simcse), bi" in shown
    assert "cycle 1, cross" in shown
    assert "best bi: runs/tiny-demo/best/bi" in shown
    assert "transenc export onnx --model runs/tiny-demo/best/bi" in shown
    assert "324 labelled development pairs select" in shown


def test_a_cycle_told_as_json_has_what_its_table_has_and_notes_on_stderr(
    place: Path, run: Any, plm: Path
) -> None:
    shown = run("cycle", "--plm", str(plm), "--task", "demo", *TINY_CYCLE, "--json")
    assert shown.code == 0, shown.err
    lines = [json.loads(line) for line in shown.out.splitlines()]
    start = next(line["dev"] for line in lines if line.get("cycle") == 0)
    best = {line["family"]: line for line in lines if "best" in line}
    table = (place / "out.txt").read_text()
    for family in ("bi", "cross"):
        assert best[family]["best"] == f"runs/tiny-demo/best/{family}"
        assert best[family]["gain"] == best[family]["dev"] - start
        gain = f"; {100 * best[family]['gain']:+.2f} on dev"
        assert (gain if best[family]["cycle"] else "the start is kept") in table
    assert "324 labelled development pairs select checkpoints and cycles\n" in shown.err


def test_a_plan_told_as_json_names_the_run_of_each_seed_and_notes_stay_on_stderr(run: Any, plm: Path) -> None:
    options = ["--seeds", "3,5", "--run", "r", "--dry-run", "--json"]
    shown = run("cycle", "--plm", str(plm), "--task", "demo", *TINY_CYCLE, *options)
    assert shown.code == 0, shown.err
    stages = [json.loads(line) for line in shown.out.splitlines()]
    assert list(dict.fromkeys(stage["run"] for stage in stages)) == ["r/seed-3", "r/seed-5"]
    assert shown.err.count("a seeded sample of 40 of them is used (max_pairs)") == 2


def test_evaluate_without_a_model_takes_the_newest_run_and_names_it(place: Path, run: Any) -> None:
    shown = run("evaluate", "demo", "--json")
    assert shown.code == 0, shown.err
    assert "newest finished run: runs/tiny-demo" in shown.err
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert [r["family"] for r in rows] == ["bi", "cross"]
    figures = {"value", "low", "high", "n", "sets", "gain", "gain_low", "gain_high"}
    assert rows[0].keys() == {"task", "model", "family", "metric"} | figures
    assert rows[0]["gain"] is None
    assert rows[1]["gain"] == pytest.approx(rows[1]["value"] - rows[0]["value"])
    assert rows[1]["gain_low"] <= rows[1]["gain"] <= rows[1]["gain_high"]
    assert rows[0]["low"] <= rows[0]["value"] <= rows[0]["high"]
    assert rows[0]["n"] == 324


def test_evaluate_of_the_run_repeats_the_table_of_the_cycle(place: Path, run: Any) -> None:
    best = json.loads(Path("runs/tiny-demo/best/bi/best.json").read_text())
    recorded = json.loads(Path(f"runs/tiny-demo/evaluate/{best['model']}/evaluate.json").read_text())
    options = ["--json", "--precision", "fp32", "--model", "runs/tiny-demo/best/bi"]
    row = json.loads(run("evaluate", "demo", *options).out)
    assert row["value"] == pytest.approx(recorded["tests"]["demo"], abs=1e-6)


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "demo", "--model", "MODEL"],
        ["label", "--pairs", "pairs.tsv", "--teacher", "MODEL", "--out", "labels.tsv"],
        ["prime", "--plm", "MODEL", "--corpus", "corpus.txt", "--out", "primed"],
        ["cycle", "--plm", "MODEL", "--task", "demo", *TINY_CYCLE],
    ],
    ids=lambda command: command[0],
)
def test_a_damaged_model_is_named_wherever_it_is_used(
    command: list[str], finished: Path, run: Any, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(finished / "runs/tiny-demo/best/bi", tmp_path / "model"))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-5] ^= 4  # safetensors reads other numbers, and nothing else
    (model / "model.safetensors").write_bytes(weights)
    write_pairs(make_pairs(8), tmp_path / "pairs.tsv")
    (tmp_path / "corpus.txt").write_text("a dog runs\na cat sits\n")
    shown = run(*[str(model) if word == "MODEL" else word for word in command])
    assert shown.code == 6, shown.err
    assert "model.safetensors is missing, or differs from what" in shown.err


def test_a_model_without_its_manifest_is_its_own_witness(finished: Path, run: Any, tmp_path: Path) -> None:
    model = Path(shutil.copytree(finished / "runs/tiny-demo/best/bi", tmp_path / "model"))
    (model / "tokenizer_config.json").write_text("{}\n")
    assert run("evaluate", "demo", "--model", "model").code == 6
    (model / "MANIFEST.json").unlink()
    assert run("evaluate", "demo", "--model", "model").code == 0


def test_several_models_are_shown_with_their_ensemble(place: Path, run: Any) -> None:
    models = ["runs/tiny-demo/best/bi", "runs/tiny-demo/best/cross"]
    shown = run("evaluate", "demo", "--json", "--model", models[0], "--model", models[1])
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert [r["family"] for r in rows] == ["bi", "cross", "ensemble"]


def test_fail_under_gives_its_exit_code_and_the_value(place: Path, run: Any) -> None:
    shown = run("evaluate", "demo", "--fail-under", "0.99")
    assert shown.code == 9
    assert "spearman 0." in shown.err
    assert "is below 0.99" in shown.err


def test_results_are_written_in_mtebs_shape(place: Path, run: Any) -> None:
    shown = run("evaluate", "demo", "--model", "runs/tiny-demo/best/bi", "--out", "mteb")
    assert shown.code == 0
    folder = Path("mteb/runs__tiny-demo__best__bi/local")
    assert json.loads((folder / "model_meta.json").read_text())["revision"] == "local"
    entry = json.loads((folder / "demo.json").read_text())["scores"]["test"][0]
    assert entry["main_score"] == entry["cosine_spearman"]


def test_one_own_scored_file_is_evaluated(place: Path, run: Any, tmp_path: Path) -> None:
    write_pairs(make_pairs(30, scored=True), tmp_path / "own.tsv")
    shown = run("evaluate", str(tmp_path / "own.tsv"), "--model", "runs/tiny-demo/best/bi", "--json")
    assert json.loads(shown.out)["n"] == 30


def test_labels_of_both_orders_do_not_depend_on_the_order(plm: Path, run: Any, tmp_path: Path) -> None:
    CrossFamily().create(plm, compute=Compute("cpu", "fp32"), max_length=32).save(tmp_path / "cross")
    pairs = make_pairs(20)
    options = ["--teacher", str(tmp_path / "cross"), "--precision", "fp32", "--both-orders"]
    labels = []
    for name, given, more in (
        ("a", pairs, []), ("b", pairs.flipped(), []), ("c", pairs, ["--transform", "rank"]),
    ):  # fmt: skip
        write_pairs(given, tmp_path / f"{name}.tsv")
        out = tmp_path / f"{name}-silver.parquet"
        shown = run("label", "--pairs", str(tmp_path / f"{name}.tsv"), *options, *more, "--out", str(out))
        assert shown.code == 0, shown.err
        labels.append(read_pairs(out, scores="required").scores)
    np.testing.assert_allclose(labels[0], labels[1], atol=1e-6)
    np.testing.assert_allclose(labels[2], (np.argsort(np.argsort(labels[0]))) / 19, atol=1e-6)


def test_labels_distil_and_evaluate_in_turn(place: Path, run: Any, tmp_path: Path) -> None:
    write_pairs(make_pairs(30), tmp_path / "pairs.tsv")
    silver, model = str(tmp_path / "silver.tsv"), str(tmp_path / "model")
    teachers = ["--teacher", "runs/tiny-demo/best/bi", "--teacher", "runs/tiny-demo/best/cross"]
    shown = run("label", "--pairs", str(tmp_path / "pairs.tsv"), *teachers, "--out", silver)
    assert shown.code == 0, shown.err
    scores = read_pairs(Path(silver), scores="required").scores
    assert scores is not None
    assert 0 <= scores.min() <= scores.max() <= 1
    assert Path(silver).read_text().startswith("sentence1\tsentence2\tscore\n")
    for family in ("bi", "cross"):
        shown = run(
            "distill",
            "--pairs",
            silver,
            "--family",
            family,
            "--start",
            "runs/tiny-demo/best/bi",
            "--out",
            model + family,
        )
        assert shown.code == 0, shown.err
        assert run("evaluate", "demo", "--model", model + family, "--json").code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["modelbi", "modelcross", "pairs.tsv", "silver.tsv"]


def test_labels_are_not_continued_with_another_model_of_the_same_name(
    plm: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def teacher(seed: int, path: Path) -> None:
        torch.manual_seed(seed)
        CrossFamily().create(plm, compute=Compute("cpu", "fp32"), max_length=32).save(path)

    @contextmanager
    def stopped() -> Iterator[StopFlag]:
        flag = StopFlag()
        flag.signum = 15
        yield flag

    write_pairs(make_pairs(20), tmp_path / "pairs.tsv")
    options = ["label", "--pairs", "pairs.tsv", "--precision", "fp32", "--shard", "5", "--teacher"]
    teacher(1, tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr("transenc.interrupt.stop_on_signals", stopped)
        assert run(*options, "model", "--out", "labels.tsv").code == 143
    shutil.rmtree(tmp_path / "model")
    teacher(2, tmp_path / "model")
    teacher(2, tmp_path / "other")
    assert run(*options, "model", "--out", "labels.tsv").code == 0
    assert run(*options, "other", "--out", "fresh.tsv").code == 0
    assert (tmp_path / "labels.tsv").read_bytes() == (tmp_path / "fresh.tsv").read_bytes()


@pytest.mark.parametrize("sampler", ["bm25:k=2", "random", "semantic:k=1", "bm25+semantic", "rank-bm25"])
def test_label_mines_pairs_from_a_corpus(sampler: str, place: Path, run: Any, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(make_pairs(15).sentences) + "\n")
    arguments = ["label", "--corpus", str(tmp_path / "corpus.txt"), "--sampler", sampler]
    shown = run(*arguments, "--teacher", "runs/tiny-demo/best/bi", "--out", str(tmp_path / "mined.jsonl"))
    assert shown.code == 0, shown.err
    assert len(read_pairs(tmp_path / "mined.jsonl", scores="required")) > 10


@pytest.mark.parametrize(("n", "told"), [(0, ""), (3, "3 of the 15 pairs of dev.tsv are among the pairs")])
def test_distill_counts_development_pairs_that_it_trains_on(
    n: int, told: str, run: Any, plm: Path, tmp_path: Path
) -> None:
    dev, pairs = make_pairs(15, seed=1, scored=True), make_pairs(20, scored=True)
    write_pairs(dev, tmp_path / "dev.tsv")
    write_pairs(join([pairs, dev.take(slice(0, n)).flipped()]), tmp_path / "pairs.tsv")
    options = [*"--pairs pairs.tsv --dev dev.tsv --family bi --out bi --start".split(), str(plm)]
    shown = run("distill", *options, "--precision", "fp32", "--set", "distill.bi.epochs=1")
    assert shown.code == 0, shown.err
    assert told in shown.err
    assert bool(told) == ("too favourable" in shown.err)


def test_prime_writes_a_bi_encoder(run: Any, plm: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(make_pairs(40).sentences) + "\n")
    for method in ("simcse", "mirror"):
        out = str(tmp_path / method)
        shown = run(
            "prime", "--plm", str(plm), "--corpus", str(tmp_path / "corpus.txt"), "--out", out,
            "--method", method, "--set", "prime.batch_size=16", "--set", "prime.max_sentences=32",
        )  # fmt: skip
        assert shown.code == 0, shown.err
        assert "primed on 32 sentences" in shown.out
        assert run("evaluate", "demo", "--model", out, "--json").code == 0


def told(shown: Shown) -> dict[str, Any]:
    """The one JSON object that a command printed."""
    assert shown.code == 0, shown.err
    (line,) = shown.out.splitlines()
    return dict(json.loads(line))


def test_prime_label_and_distill_tell_what_they_made_as_json(run: Any, plm: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(make_pairs(40).sentences) + "\n")
    write_pairs(make_pairs(15, seed=1, scored=True), tmp_path / "dev.tsv")
    common = ["--precision", "fp32", "--json", "--seed", "3"]

    arguments = ["--plm", str(plm), "--corpus", "corpus.txt", "--set", "prime.batch_size=16"]
    primed = told(run("prime", *arguments, "--out", "primed", *common))
    loss = json.loads(Path("primed/training.json").read_text())["losses"][-1][1]
    of_bi = {"family": "bi", "start": str(plm), "seed": 3}
    made = {"path": "primed", "method": "simcse", "sentences": len(set(make_pairs(40).sentences))}
    assert primed == {**of_bi, **made, "loss": loss}

    arguments = ["--corpus", "corpus.txt", "--sampler", "bm25:k=1", "--teacher", "primed"]
    labelled = told(run("label", *arguments, "--out", "silver.tsv", *common))
    silver = read_pairs(Path("silver.tsv"), scores="required")
    assert silver.scores is not None
    assert labelled.pop("mean") == pytest.approx(silver.scores.mean(), abs=1e-5)
    assert labelled.pop("clipped") == np.isin(silver.scores, (0, 1)).sum()
    assert labelled == {
        "path": "silver.tsv", "teachers": ["primed"], "combine": "mean", "both_orders": False,
        "transform": "none", "sampler": "bm25:k=1", "seed": 3, "pairs": len(silver),
        "sentences": len(silver.sentences), "rule": "clip to [0, 1]", "kept": None,
    }  # fmt: skip

    arguments = ["--pairs", "silver.tsv", "--family", "bi", "--start", str(plm), "--dev", "dev.tsv"]
    distilled = told(
        run("distill", *arguments, "--set", "distill.bi.epochs=1", "--out", "distilled", *common)
    )
    history = json.loads(Path("distilled/training.json").read_text())
    made = {"path": "distilled", "objective": "cosine_mse", "pairs": len(silver)}
    judged = {"loss": history["losses"][-1][1], "dev": history["best"], "step": history["best_step"]}
    assert distilled == {**of_bi, **made, **judged}
    assert distilled["dev"] is not None


def test_prime_takes_pairs_that_belong_together(run: Any, plm: Path, tmp_path: Path) -> None:
    pairs = make_pairs(20, scored=True)
    rows = "".join(f"{a}\t{b}\t{s}\n" for (a, b), s in zip(pairs.rows(), pairs.scores, strict=True))  # type: ignore[arg-type]
    (tmp_path / "qa.tsv").write_text("title\tbody\tscore\n" + rows, encoding="utf-8")
    options = ["--plm", str(plm), "--pairs", "qa.tsv", "--columns", "title,body", "--out", "primed"]
    shown = run("prime", *options, "--set", "prime.max_sentences=16", "--set", "prime.batch_size=8")
    assert shown.code == 0, shown.err
    assert "primed: primed on 16 pairs, last mean loss" in shown.out
    assert "qa.tsv has scores, which are not read: every pair is taken as one that belongs" in shown.err
    assert run("evaluate", "demo", "--model", "primed", "--json").code == 0


@pytest.mark.parametrize("given", ["{}=1", "{}", "seed={}", "seed=!!{} 1", "prime={}", "a\n\x1b{}=1"])
def test_a_setting_of_thousands_of_characters_is_told_in_one_short_line(
    given: str, run: Any, tmp_path: Path
) -> None:
    shown = run("cycle", "--plm", "mini", "--corpus", "c.txt", "--set", given.format("x" * 5_000))
    assert shown.code == 2
    assert len(shown.err) < 800 and "xxx..." in shown.err and "\x1b" not in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_cycle_primes_by_its_own_pairs(run: Any, plm: Path, tmp_path: Path) -> None:
    write_pairs(make_pairs(88), tmp_path / "pairs.tsv")
    options = ["--plm", str(plm), "--pairs", "pairs.tsv", "--set", "prime.method=pairs", "--cycles", "1"]
    label_free = ["--select", "agreement", "--set", "held_out=0.25"]
    shown = run("cycle", *options, *label_free, "--dry-run", "--json")
    rows = {row["stage"]: row for row in map(json.loads, shown.out.splitlines())}
    assert rows["prime/tiny"]["what"] == "pairs"
    said = "prime.method=pairs takes every pair as one that belongs together, whatever its score"
    assert f"{said}\n" in shown.err
    shown = run("cycle", *options, "--evaluate", "demo", "--dry-run")
    assert f"{said}, also any that is tested on: --inductive leaves these out\n" in shown.err
    fast = ["--set", "prime.batch_size=8", "--set", "distill.bi.epochs=1", "--run", "run"]
    shown = run("cycle", *options, *label_free, *fast)
    assert shown.code == 0, shown.err
    assert "primed (pairs), bi" in shown.out
    # A quarter of the pairs are judged on, so 66 of 88 are learnt from; the last, smaller batch is left out.
    assert json.loads(Path("run/prime/tiny/training.json").read_text())["losses"][-1][0] == 66 // 8


def test_export_and_its_engines_work_wherever_a_scorer_does(place: Path, run: Any, tmp_path: Path) -> None:
    shown = run("export", "onnx", "--run", "runs/tiny-demo", "--out", str(tmp_path / "engines"), "--json")
    assert shown.code == 0, shown.err
    for family in ("bi", "cross"):
        engine, model = str(tmp_path / "engines" / family), f"runs/tiny-demo/best/{family}"
        options = ["--json", "--precision", "fp32", "--model"]
        values = [json.loads(run("evaluate", "demo", *options, m).out)["value"] for m in (engine, model)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
    write_pairs(make_pairs(5), tmp_path / "pairs.tsv")
    shown = run(
        "label", "--pairs", str(tmp_path / "pairs.tsv"), "--teacher", engine, "--out", str(tmp_path / "s.tsv")
    )
    assert shown.code == 0, shown.err


def test_export_onnx_alone_exports_the_newest_run_into_it(place: Path, run: Any) -> None:
    shown = run("export", "onnx")
    assert shown.code == 0, shown.err
    assert "newest finished run: runs/tiny-demo" in shown.err
    assert "runs/tiny-demo/export/bi: bi-encoder of runs/tiny-demo/best/bi" in shown.out
    assert "max difference" in shown.out
    for family in ("bi", "cross"):
        shown = run("evaluate", "demo", "--json", "--model", f"runs/tiny-demo/export/{family}")
        assert shown.code == 0, shown.err
        assert f"runs/tiny-demo/export/{family}: fp32 on CPUExecutionProvider" in shown.err


def test_a_gate_that_fails_exits_with_its_code_and_prints_its_numbers(
    place: Path, run: Any, tmp_path: Path
) -> None:
    arguments = ["export", "onnx", "--model", "runs/tiny-demo/best/bi", "--out", str(tmp_path / "x")]
    shown = run(*arguments, "--precision", "fp16", "--atol", "1e-9", "--json")
    assert shown.code == 8
    assert "fp16: The engine disagrees with its model (tolerance 1e-09): in 'batches', 324 pairs" in shown.err
    told = json.loads(shown.out)
    assert told["failed"]["fp16"]["worst"] > 1e-9
    assert {check["name"] for check in told["failed"]["fp16"]["checks"]} >= {"batches", "shortest"}
    assert list(tmp_path.iterdir()) == []


def test_int8_is_evaluated_and_labels_by_its_name(place: Path, run: Any, tmp_path: Path) -> None:
    out = str(tmp_path / "engine")
    write_pairs(make_pairs(12, scored=True), tmp_path / "pairs.tsv")
    shown = run(
        "export", "onnx", "--model", "runs/tiny-demo/best/bi", "--precision", "fp32,int8", "--max-drop", "0.5",
        "--pairs", str(tmp_path / "pairs.tsv"), "--out", out, "--json",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    told = json.loads(shown.out)
    assert told["graphs"]["int8"]["parity"]["ranks"]["pairs"] == 12
    shown = run("evaluate", "demo", "--json", "--model", out, "--model", f"{out}:int8")
    values = [json.loads(line)["value"] for line in shown.out.splitlines()]
    assert shown.code == 0, shown.err
    assert values[0] != values[1] == pytest.approx(values[0], abs=0.1)
    arguments = ["label", "--pairs", str(tmp_path / "pairs.tsv"), "--out", str(tmp_path / "s.tsv")]
    assert run(*arguments, "--teacher", out, "--precision", "int8").code == 0


def test_a_dry_run_prints_the_plan_with_counts_and_writes_nothing(
    run: Any, plm: Path, tmp_path: Path
) -> None:
    shown = run("cycle", "--plm", str(plm), "--task", "demo", "--dry-run", "--max-pairs", "100")
    assert shown.code == 0, shown.err
    assert "cycle-1/distill-cross/tiny" in shown.out
    assert "200 examples" in shown.out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_counts_the_pairs_of_each_family(run: Any, plm: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(make_pairs(30, seed=9).sentences) + "\n")
    shown = run(
        "cycle", "--plm", str(plm), "--corpus", "corpus.txt", "--recipe", "self", "--cycles", "1", "--dry-run",
        "--json", "--sampler", "random:per_sentence=5", "--set", "bi_sampler=random:per_sentence=1",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    what = {row["stage"]: row["what"] for row in map(json.loads, shown.out.splitlines())}
    n, own = (int(what[name].split()[0]) for name in ("pairs", "cycle-1/pairs-bi"))
    assert n > own
    assert what["cycle-1/label-bi/tiny"] == f"{n} pairs" != what["cycle-1/silver-cross"] == f"{own} pairs"
    assert what["cycle-1/distill-bi/tiny"].startswith(f"{own} examples")


def test_a_run_mines_pairs_from_several_files(run: Any, plm: Path, tmp_path: Path) -> None:
    sentences = make_pairs(30, seed=9).sentences
    halves = {"first.v1.txt": sentences[:20], "second.txt": sentences[10:]}
    for name, part in {**halves, "whole.txt": sentences}.items():
        (tmp_path / name).write_text("\n".join(part) + "\n")

    def pairs(*files: str) -> tuple[int, str]:
        corpora = (word for file in files for word in ("--corpus", file))
        shown = run("cycle", "--plm", str(plm), *corpora, "--cycles", "1", "--dry-run", "--json")
        assert shown.code == 0, shown.err
        what = {row["stage"]: row["what"] for row in map(json.loads, shown.out.splitlines())}
        return int(what["pairs"].split()[0]), shown.err

    assert pairs(*halves)[0] == pairs("whole.txt")[0]
    settings = build({"plm": [str(plm)], "corpus": list(halves)})
    assert default_root(settings).name.endswith("-first+1")
    alone = [build({"plm": ["x"], "corpus": given}) for given in ("a.txt", ["a.txt"])]
    assert [s.model_dump(mode="json")["corpus"] for s in alone] == ["a.txt", "a.txt"]


def test_a_dry_run_tells_what_every_stage_learns_by_and_what_is_not_as_published(run: Any, plm: Path) -> None:
    Path("pairs.tsv").write_text("sentence1\tsentence2\na b\tb c\nc d\td e\n")
    command = ["cycle", "--plm", str(plm), "--pairs", "pairs.tsv", "--recipe", "self", "--cycles", "1"]

    def told(*options: str) -> dict[str, Any]:
        shown = run(*command, *options, "--dry-run", "--json")
        assert shown.code == 0, shown.err
        return {row["stage"]: row for row in map(json.loads, shown.out.splitlines())}

    rows = told()
    assert {name: row["what"] for name, row in rows.items() if name.startswith(("prime", "cycle"))} == {
        "prime/tiny": "simcse",
        "cycle-1/label-bi/tiny": "2 pairs",
        "cycle-1/silver-bi": "2 pairs",
        "cycle-1/distill-cross/tiny":
            "4 examples, 1 steps of 32, 1 epoch; soft_bce from base, learning rate 2e-05",
        "cycle-1/label-cross/tiny": "2 pairs",
        "cycle-1/silver-cross": "2 pairs",
        "cycle-1/distill-bi/tiny":
            "2 examples, 10 steps of 128, 10 epochs; cosine_mse from primed, learning rate 5e-05",
    }  # fmt: skip
    assert rows["cycle-1/distill-bi/tiny"]["settings"]["max_length"] == 32
    changed = (
        "prime.method=mirror-drophead", "prime.drop_heads=0.05", "label.mix=0.5", "label.clip=false", "pooling=mean",
        "label.both_orders=true", "distill.cross.start=previous", "distill.bi.objective=cosent",
        "distill.bi.dropout=0",
    )  # fmt: skip
    rows = told("--plm", str(plm), *(word for one in changed for word in ("--set", one)))
    assert {name: row["what"] for name, row in rows.items() if name.startswith(("prime", "cycle"))} == {
        **dict.fromkeys(["prime/tiny", "prime/tiny-2"], "mirror-drophead; drop_heads=0.05, pooling=mean"),
        **dict.fromkeys(["cycle-1/label-bi/tiny", "cycle-1/label-bi/tiny-2"], "2 pairs"),
        "cycle-1/silver-bi": "2 pairs, mean of 2 teachers; clip=false",
        **dict.fromkeys(
            ["cycle-1/distill-cross/tiny", "cycle-1/distill-cross/tiny-2"],
            "4 examples, 1 steps of 32, 1 epoch; soft_bce from previous, learning rate 2e-05",
        ),
        **dict.fromkeys(["cycle-1/label-cross/tiny", "cycle-1/label-cross/tiny-2"], "2 pairs, both orders"),
        "cycle-1/silver-cross": "2 pairs, mean of 2 teachers; mix=0.5, clip=false",
        **dict.fromkeys(
            ["cycle-1/distill-bi/tiny", "cycle-1/distill-bi/tiny-2"],
            "2 examples, 10 steps of 128, 10 epochs; cosent from primed, learning rate 5e-05; dropout=0.0, "
            "pooling=mean",
        ),
    }


def test_an_option_and_a_setting_may_say_the_same(run: Any, plm: Path) -> None:
    options = ["--plm", str(plm), "--seed", "3", "--cycles", "1"]
    settings = [f"plm={plm}", "seed=3", "cycles=1"]
    shown = run(
        "cycle", "--task", "demo", *options, *(w for s in settings for w in ("--set", s)), "--dry-run"
    )
    assert shown.code == 0, shown.err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "prime: simcse\n",
            "'prime' is 'simcse', and it is a group of settings: name one of them",
        ),
        (
            "distill: {bi: 3}\n",
            "'distill.bi' is 3, and it is a group of settings: name one of them",
        ),
    ],
)
def test_a_value_in_the_place_of_a_group_is_refused_even_where_an_option_replaces_it(
    file: str, message: str, run: Any, plm: Path
) -> None:
    Path("run.yaml").write_text(f"plm: {plm}\ntask: demo\n{file}")
    settings = ["--set", "prime.epochs=2", "--set", "distill.bi.epochs=2"]
    shown = run("cycle", "--config", "run.yaml", *settings, "--dry-run")
    assert (shown.code, shown.out) == (2, "")
    assert message in shown.err


def test_many_pairs_without_development_data_are_selected_on_by_agreement(
    run: Any, plm: Path, tmp_path: Path
) -> None:
    write_pairs(make_pairs(88), tmp_path / "own.tsv")
    options = ["--plm", str(plm), "--pairs", "own.tsv", *TINY_CYCLE]
    options += ["--max-pairs", "88", "--set", "held_out=0.25"]
    shown = run("cycle", *options)
    assert shown.code == 0, shown.err
    assert "no labels: agreement on held-out unlabelled pairs selects" in shown.out
    assert "select: agreement\n" in Path("runs/tiny-own/run.yaml").read_text()
    assert run("cycle", *options, "--select", "last").code == 2  # begun otherwise
    assert run("cycle", *options).code == 0


def test_own_pairs_without_development_data_select_the_last_cycle_and_say_so(
    run: Any, plm: Path, tmp_path: Path
) -> None:
    write_pairs(make_pairs(30), tmp_path / "own.tsv")
    shown = run("cycle", "--plm", str(plm), "--pairs", "own.tsv", *TINY_CYCLE)
    assert shown.code == 0, shown.err
    assert "no development data: the last cycle is kept" in shown.out
    assert "the last cycle, chosen without labels" in shown.out
    assert "nothing was evaluated" in shown.out
    assert shown.out.startswith("\nruns/tiny-own\n  ")  # a table would have names alone


def test_two_students_teach_each_other(run: Any, plm: Path, tmp_path: Path) -> None:
    write_pairs(make_pairs(30), tmp_path / "own.tsv")
    shown = run("cycle", "--plm", str(plm), "--plm", str(plm), "--pairs", "own.tsv", *TINY_CYCLE)
    assert shown.code == 0, shown.err
    assert (tmp_path / "runs/tiny+tiny-2-own/best/cross/tiny-2/config.json").is_file()


def test_a_yaml_file_sets_what_flags_can(run: Any, plm: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"plm: {plm}\ntask: demo\ncycles: 2\ndistill:\n  bi: {{learning_rate: 1e-4}}\n"
    )
    shown = run("cycle", "--config", "run.yaml", "--cycles", "3", "--dry-run", "--json")
    names = [json.loads(line)["stage"] for line in shown.out.splitlines()]
    assert "cycle-3/distill-bi/tiny" in names


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cycle", "--task", "demo"], 2, "Name a start: --plm NAME"),
        (["cycle", "--plm", "minilmm", "--task", "demo", "--offline"], 4, "Did you mean 'minilm'?"),
        (["cycle", "--plm", "no/start", "--set", "distill.bi.epoch=2"], 2, "Did you mean 'epochs'?"),
        (["cycle", "--plm", "PLM", "--task", "dmeo"], 2, "Did you mean 'demo'?"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--recipe", "slef"], 2, "Did you mean 'self'?"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--sampler", "bm52"], 2, "Did you mean 'bm25'?"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--sampler", "bm25:kk=1"], 2, "Did you mean 'k'?"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--sampler", "bm25:k=x"], 2, "takes int, not 'x'"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--set", "cycels=1"], 2, "Did you mean 'cycles'?"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--set", "cycles"], 2, "--set takes key=value"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--device", "gpu9"], 4, "No device 'gpu9' here"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--device", "cuda:7"], 4, "No device 'cuda:7' here"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--device", "meta"], 4, "No device 'meta' here"),
        (["cycle", "--plm", "", "--task", "demo"], 2, "A model has no name: name a local directory, a hub"),
        (["cycle", "--plm", "PLM", "--pairs", "none.tsv"], 3, "none.tsv"),
        (["cycle", "--plm", "PLM", "--task", "sts", "--offline"], 3, "--data DIR or TRANSENC_DATA"),
        (["cycle", "--plm", "PLM", "--pairs", "a.tsv", "--corpus", "b.txt"], 2, "not both"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--config", "none.yaml"], 2, "none.yaml cannot be read"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--cycles", "-1"], 2, "--cycles"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--cycles", "0"], 2, "cycles is 0"),
        (["evaluate", "demo"], 2, "No finished run under runs/"),
        (["evaluate", "demo", "--run", "nowhere"], 2, "nowhere holds no finished run"),
        (["evaluate", "none.tsv", "--model", "PLM"], 3, "none.tsv"),
        (["evaluate", "demmo", "--model", "PLM"], 2, "Did you mean 'demo'?"),
        (["evaluate", "demo", "--model", "PLM", "--metric", "f1"], 2, "--metric is one of"),
        (["label", "--teacher", "PLM", "--out", "x.tsv"], 2, "Give either --pairs FILE, or --corpus FILE"),
        (["label", "--teacher", "PLM", "--pairs", "p.tsv", "--out", "x.doc"], 2, "must end in one of .tsv"),
        (["label", "--teacher", "PLM", "--pairs", "p.tsv", "--out", "x.tsv", "--transform", "r"], 2, "none or rank"),
        (["cycle", "--plm", "PLM", "--set", "distill.cross.objective=angle"], 2, "one vector a sentence"),
        (["distill", "--pairs", "p.tsv", "--family", "tri", "--start", "PLM", "--out", "x"], 2, "No family"),
        (["prime", "--plm", "PLM", "--corpus", "c.txt", "--out", "x", "--method", "x"], 2, "There are: simcse"),
        (["export", "onnx", "--out", "x"], 2, "No finished run"),
        (["export", "onnx", "--model", "./nowhere"], 2, "Give --out DIR"),
        (["export", "onnx", "--model", "x", "--run", "y", "--out", "z"], 2, "either --model or --run"),
        (["export", "tensorrt", "--model", "x", "--out", "y", "--device", "cuda"], 2, "--device is tensorrt"),
        (["export", "onnx", "--model", "./nowhere", "--out", "x"], 2, "./nowhere does not exist"),
        (["nonsense"], 2, "nonsense"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_its_exit_code(
    arguments: list[str], code: int, message: str, run: Any, plm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRANSENC_DATA", raising=False)
    shown = run(*[str(plm) if a == "PLM" else a for a in arguments])
    assert shown.code == code, shown.err
    assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("more", [[], ["--seeds", "2"]], ids=["one", "seeds"])
def test_the_task_that_is_taken_where_none_is_named_is_said(
    more: list[str], run: Any, plm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRANSENC_DATA", raising=False)
    shown = run("cycle", "--plm", str(plm), "--offline", *more)
    assert shown.code == 3
    assert shown.err.startswith(
        "None of --task, --pairs, --corpus and --gold is given: task sts, as published."
    )


def test_bad_rows_are_named_by_file_and_line(run: Any, plm: Path, tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("sentence1\tsentence2\tscore\na dog\ta cat\t1\na dog\ta cat\tx\n")
    shown = run("evaluate", "own.tsv", "--model", str(plm))
    assert shown.code == 3
    assert "own.tsv:3: score 'x' is not a number" in shown.err


def test_a_run_begun_with_other_settings_is_refused_with_the_difference(
    place: Path, run: Any, plm: Path
) -> None:
    changed = [*TINY_CYCLE, "--seed", "5"]
    shown = run("cycle", "--plm", str(plm), "--task", "demo", *changed)
    assert shown.code == 2
    assert "seed: was 1, now 5" in shown.err


def test_a_finished_run_shows_its_table_again(place: Path, run: Any, plm: Path) -> None:
    shown = run("cycle", "--plm", str(plm), "--task", "demo", *TINY_CYCLE)
    assert shown.code == 0, shown.err
    assert "best bi: runs/tiny-demo/best/bi" in shown.out


def test_a_folder_that_is_not_a_run_is_left_alone(run: Any, plm: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    shown = run("cycle", "--plm", str(plm), "--task", "demo", "--run", "mine", *TINY_CYCLE)
    assert shown.code == 2
    assert "not a run directory (it has thesis.txt)" in shown.err


def test_debug_is_taken_after_a_command_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSENC_DEBUG", "")
    assert "Traceback" not in run("evaluate", "none.tsv").err
    for arguments in (("evaluate", "none.tsv", "--debug"), ("--debug", "evaluate", "none.tsv")):
        shown = run(*arguments)
        assert shown.code == 3 and "Traceback" in shown.err and "none.tsv: no such file" in shown.err
        monkeypatch.setenv("TRANSENC_DEBUG", "")


def test_an_unexpected_error_is_one_line_unless_debugging(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import transenc.config

    def broken() -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(transenc.config, "recipes", broken)
    shown = run("backends")
    assert shown.code == 1
    assert (
        shown.err.strip()
        == "transenc: internal error, please report it: RuntimeError: surprise (--debug shows where)"
    )


@pytest.mark.parametrize(
    ("number", "error"),
    [(28, "No space left on device"), (13, "Permission denied"), (24, "Too many open files")],
)
def test_errors_of_the_machine_name_the_path_and_exit_4(
    number: int, error: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transenc.config

    def failing() -> None:
        raise OSError(number, error, "runs/x/weights")

    monkeypatch.setattr(transenc.config, "recipes", failing)
    shown = run("backends")
    assert shown.code == 4
    assert f"{error} (runs/x/weights)" in shown.err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "transenc", *arguments]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_real_process_with_its_code_and_the_run_continues(
    signum: int, code: int, plm: Path, tmp_path: Path
) -> None:
    arguments = ["cycle", "--plm", str(plm), "--task", "demo", *TINY_CYCLE, "--set", "distill.bi.epochs=200"]
    with subprocess.Popen(command(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/prime/*/MANIFEST.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "The same command continues from here." in err
    assert "Traceback" not in err
    assert list(tmp_path.glob("runs/*/prime/*/MANIFEST.json"))


def test_help_answers_without_importing_anything_heavy() -> None:
    code = (
        "import sys; sys.argv = ['transenc', '--help']\n"
        "import transenc.cli.app as a\n"
        "try:\n    a.main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'transformers', 'numpy', 'pydantic', 'scipy', 'pyarrow', 'huggingface_hub', 'click')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stderr.strip() == "[]"
    assert "cycle" in shown.stdout


def test_run_as_a_module_it_gives_the_completion_of_the_command() -> None:
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # a test has no shell
    shown = subprocess.run(
        [sys.executable, "-m", "transenc", "--show-completion", "bash"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert " _TRANSENC_COMPLETE=complete_bash" in shown.stdout
    assert shown.stdout.rstrip().endswith("_transenc_completion transenc")


def test_backends_lists_names_and_options_without_torch(run: Any) -> None:
    code = (
        "import sys; sys.argv = ['transenc', 'backends', '--json']\n"
        "import transenc.cli.app as a\n"
        "try:\n    a.main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {"bm25", "random", "semantic", "given"} <= {r["name"] for r in rows if r["kind"] == "sampler"}
    assert {"bi", "cross"} == {r["name"] for r in rows if r["kind"] == "family"}
    recipes = {r["name"]: (r["about"], r["options"]) for r in rows if r["kind"] == "recipe"}
    assert recipes["best"] == ("no labels, from a raw or a tuned start: the default", {})
    assert all(about for about, _ in recipes.values())
    assert not any("" in row["options"] for row in rows)


def test_a_closed_pipe_is_not_an_error_message(plm: Path) -> None:
    text = f"{sys.executable} -m transenc backends --json | head -1; echo ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, env=os.environ)
    assert "Traceback" not in shown.stderr


def test_prime_takes_the_method_of_an_embedded_start_unless_told(
    run: Any, plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transenc.models import intake

    own = {"prime": {"method": "whitening", "batch_size": 4}}
    monkeypatch.setattr(intake, "own_settings", lambda names: own)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(make_pairs(12).sentences) + "\n", encoding="utf-8")
    for out, more, method in (("a", [], "whitening"), ("b", ["--method", "esimcse"], "esimcse")):
        shown = run("prime", "--plm", str(plm), "--corpus", str(corpus), "--out", out, *more)
        assert shown.code == 0, shown.err
        assert f"({method})" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["label", "--pairs", "pairs.tsv", "--teacher", "x", "--out", "pairs.tsv"],
            2,
            "pairs.tsv exists already",
        ),
        (
            ["label", "--pairs", "pairs.tsv", "--teacher", "x", "--out", "o.tsv", "--max-pairs", "2"],
            2,
            "--max-pairs is",
        ),
        (
            ["label", "--pairs", "pairs.tsv", "--teacher", "x", "--out", "o.tsv", "--sampler", "bm25"],
            2,
            "--sampler is",
        ),
        (["cycle", "--plm", "PLM", "--pairs", "pairs.tsv", "--sampler", "bm25"], 2, "those of pairs.tsv are"),
        (["cycle", "--plm", "PLM", "--task", "sts", "--sampler", "bm25"], 2, "those of task sts are taken"),
        (
            ["cycle", "--plm", "PLM", "--pairs", "pairs.tsv", "--corpus", "far.txt", "--sampler", "bm25"],
            2,
            "Give either --pairs",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "sts", "--set", "bi_sampler=bm25"],
            2,
            "setting bi_sampler mines",
        ),
        (
            ["distill", "--pairs", "pairs.tsv", "--family", "bi", "--start", "PLM", "--out", "o"]
            + ["--set", "distill.cross.epochs=2"],
            2,
            "use the setting 'distill.cross.epochs'. It uses: distill.bi, ",
        ),
        (
            ["prime", "--plm", "PLM", "--corpus", "far.txt", "--out", "o", "--set", "cycles=2"],
            2,
            "use the setting 'cycles'",
        ),
        (["label", "--pairs", "tab.csv", "--teacher", "x", "--out", "o.tsv"], 3, "write .jsonl or .parquet"),
        (["label", "--corpus", "far.txt", "--teacher", "x", "--out", "o.tsv"], 3, "bm25 found no pair"),
        (["evaluate", "pairs.tsv", "--model", "x", "--fail-under", "50"], 2, "from -1 to 1, not 50"),
        (["evaluate", "pairs.tsv", "--model", "x", "--fail-under", "nan"], 2, "from -1 to 1, not nan"),
        (["evaluate", "demo", "--model", "x", "--score-range", "0", "5"], 2, "--score-range and --skip-bad"),
        (["evaluate", "demo", "--model", "x", "--columns", "q,p,s"], 2, "--columns is for one's own files"),
        (
            ["evaluate", "pairs.tsv", "--model", "x", "--columns", "q,p"],
            2,
            "as q1,q2,is_duplicate, not 'q,p'",
        ),
        (["evaluate", "pairs.tsv", "--model", "x", "--columns", "q,q,s"], 2, "not 'q,q,s'"),
        (["evaluate", "pairs.tsv", "--model", "x", "--skip-bad", ""], 2, "as 5 or 2%, not ''"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--skip-bad", ""], 2, "as 5 or 2%, not ''"),
        (["evaluate", "pairs.tsv", "--model", "x", "--columns", "q,p,s"], 3, "Needed: q, p, s."),
        (
            ["label", "--corpus", "far.txt", "--teacher", "x", "--out", "o.tsv", "--columns", "q,p"],
            2,
            "--columns names those of --pairs or --gold",
        ),
        (["evaluate", "one.tsv", "--model", "PLM"], 3, "on one.tsv: Spearman needs at least 2 pairs"),
        (["evaluate", "one.tsv", "--model", "eng", "--precision", "int8"], 2, "It holds: eng/bi, eng/cross."),
        (
            [
                "cycle",
                "--plm",
                "PLM",
                "--pairs",
                "pairs.tsv",
                "--evaluate",
                "pairs.tsv",
                "--inductive",
                "--dry-run",
            ],
            3,
            "All 4 training pairs are evaluation pairs, which --inductive leaves out",
        ),
        (
            ["distill", "--pairs", "high.tsv", "--family", "bi", "--start", "PLM", "--out", "o"],
            3,
            "pair 2 has the label 4",
        ),
        (
            ["distill", "--pairs", "same.tsv", "--family", "bi", "--start", "PLM", "--out", "o"],
            3,
            "same.tsv: all 2 labels are 0.5; nothing can be learnt from them",
        ),
        (
            ["distill", "--pairs", "pairs.tsv", "--dev", "same.tsv", "--family", "bi", "--start", "PLM"]
            + ["--out", "o"],
            3,
            "same.tsv cannot judge a model: All 2 gold scores are 0.5: Spearman is undefined. Give another --dev",
        ),
        (
            ["distill", "--pairs", "pairs.tsv", "--dev", "word.tsv", "--family", "bi", "--start", "PLM"]
            + ["--out", "o", "--skip-bad", "0"],
            3,
            "word.tsv:3: score 'x' is not a number (1 bad row of 3; more than --skip-bad 0 allows)",
        ),
        (
            [
                "label",
                "--corpus",
                "far.txt",
                "--sampler",
                "semantic",
                "--encoder",
                "CROSS",
                "--teacher",
                "PLM",
            ]
            + ["--out", "o.tsv"],
            2,
            "is a cross-encoder, which makes none: name a bi-encoder with --encoder",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "demo", "--run", "one.tsv", "--dry-run"],
            2,
            "is a file, not a run",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "demo", "--seed", "3", "--set", "seed=7"],
            2,
            "'seed' is 3 by its option and 7 by --set",
        ),
        (
            ["prime", "--plm", "PLM", "--corpus", "x.txt", "--out", "o", "--seed", "1", "--set", "seed=7"],
            2,
            "'seed' is 1 by its option and 7 by --set",
        ),
        (
            ["prime", "--plm", "PLM", "--corpus", "x.txt", "--out", "o", "--method", "mirror"]
            + ["--set", "prime.method=simcse"],
            2,
            "'prime.method' is 'mirror' by its option and 'simcse' by --set",
        ),
        (
            ["distill", "--pairs", "x.tsv", "--family", "bi", "--start", "PLM", "--out", "o"]
            + ["--pooling", "cls", "--set", "pooling=mean"],
            2,
            "'pooling' is 'cls' by its option and 'mean' by --set",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "demo", "--seed-optimisation", "2"]
            + ["--set", "distill.cross.trials=3"],
            2,
            "'distill.cross.trials' is 2 by",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "demo", "--seeds", "2", "--set", "seed=7"],
            2,
            "either --seed (one run) or --seeds",
        ),
        (
            ["prime", "--plm", "PLM", "--corpus", "far.txt", "--out", "o", "--set", "prime.corpus=none.txt"],
            2,
            "use the setting 'prime.corpus': give --corpus",
        ),
        (["prime", "--plm", "PLM", "--out", "o"], 2, "Give either --corpus FILE (sentences) or --pairs FILE"),
        (
            ["prime", "--plm", "PLM", "--corpus", "far.txt", "--pairs", "pairs.tsv", "--out", "o"],
            2,
            "Give either --corpus FILE (sentences) or --pairs FILE",
        ),
        (
            ["prime", "--plm", "PLM", "--corpus", "far.txt", "--columns", "a,b", "--out", "o"],
            2,
            "--columns names those of a file of pairs: give --pairs FILE",
        ),
        (
            ["prime", "--plm", "PLM", "--pairs", "pairs.tsv", "--method", "simcse", "--out", "o"],
            2,
            "Priming by 'simcse' takes sentences: give --corpus FILE in place of --pairs FILE, or another",
        ),
        (
            ["prime", "--plm", "PLM", "--corpus", "pairs.tsv", "--method", "pairs", "--out", "o"],
            2,
            "Priming by 'pairs' takes pairs of texts: give --pairs FILE, or another --method",
        ),
        (
            ["cycle", "--plm", "PLM", "--corpus", "far.txt", "--set", "prime.method=pairs", "--dry-run"],
            2,
            "this run mines its pairs, most of which do not: give --pairs FILE alone",
        ),
        (
            ["cycle", "--plm", "PLM", "--pairs", "pairs.tsv", "--set", "prime.method=pairs"]
            + ["--recipe", "augsbert-few", "--gold", "stsb-train:50", "--dry-run"],
            2,
            "this run has labels: give --pairs FILE alone",
        ),
        (
            ["cycle", "--plm", "PLM", "--pairs", "pairs.tsv", "--set", "prime.method=pairs"]
            + ["--set", "prime.corpus=far.txt", "--dry-run"],
            2,
            "primes on the pairs of the run: leave prime.corpus out",
        ),
        (
            ["cycle", "--plm", "PLM", "--pairs", "pairs.tsv", "--set", "prime.method=none"]
            + ["--set", "prime.corpus=far.txt", "--dry-run"],
            2,
            "text to prime on, and no start is primed (prime.method is none): leave it out, or name a method",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "", "--dry-run"],
            2,
            "--task is empty: name one, or leave it out.",
        ),
        (["evaluate", "", "--model", "PLM"], 2, "transenc: TASK_OR_FILE is empty: name one. Is a variable"),
        (["cycle", "--plm", "PLM", "--task", "demo", "--dev=", "--dry-run"], 2, "--dev is empty: name one"),
        (["label", "--pairs", "", "--teacher", "PLM", "--out", "o.tsv"], 2, "--pairs is empty: name one"),
        (["export", "onnx", "--model", "", "--out", "o"], 2, "A model has no name: name a local directory"),
        (
            ["prime", "--plm", "PLM", "--corpus", "far.txt", "--out", "o", "--set", "prime.method=none"],
            2,
            "No priming method 'none'",
        ),
        (
            ["distill", "--pairs", "pairs.tsv", "--family", "bi", "--start", "PLM", "--out", "o"]
            + ["--set", "distill.bi.start=previous"],
            2,
            "use the setting 'distill.bi.start': give --start",
        ),
        (
            ["distill", "--pairs", "pairs.tsv", "--family", "cross", "--start", "PLM", "--out", "o"]
            + ["--asymmetric", "--set", "distill.cross.both_orders=true"],
            2,
            "--asymmetric says that (a, b) and (b, a) differ",
        ),
        (
            ["cycle", "--plm", "PLM", "--pairs", "pairs.tsv", "--set", "symmetric=false"]
            + ["--set", "distill.cross.both_orders=true", "--dry-run"],
            2,
            "By symmetric=false pairs are asymmetric",
        ),
        (
            ["label", "--corpus", "far.txt", "--teacher", "PLM", "--encoder", "PLM", "--out", "o.tsv"],
            2,
            "The sampler bm25 compares no embeddings, so --encoder",
        ),
        (
            ["label", "--pairs", "far.txt", "--columns", "q1,q2", "--teacher", "PLM", "--out", "o.tsv"],
            2,
            "far.txt: a||b lines have no columns that --columns could name",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "demo", "--gold-range", "0", "5", "--dry-run"],
            2,
            "--gold-range is the scale of --gold: give --gold FILE",
        ),
        (
            [
                "cycle",
                "--plm",
                "PLM",
                "--task",
                "demo",
                "--device",
                "cuda",
                "--devices",
                "cpu,cpu",
                "--dry-run",
            ],
            2,
            "either --device (one) or --devices (several)",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "demo", "--sampler", "bm25:k=3,k=5", "--dry-run"],
            2,
            "'bm25:k=3,k=5' gives the option 'k' twice",
        ),
        (
            ["cycle", "--plm", "PLM", "--task", "demo", "--columns", "q1,q2", "--dry-run"],
            2,
            "--columns names those of files of pairs, and none is given that has any",
        ),
        (
            ["export", "onnx", "--model", "PLM", "--out", "o", "--columns", "q1,q2,same"],
            2,
            "--columns is for one's own file: give --pairs FILE",
        ),
        (["cycle", "--plm", "PLM", "--config", "none.yaml"], 2, "none.yaml cannot be read: No such file"),
        (["cycle", "--plm", "PLM", "--config", "twice.yaml"], 2, "the key 'cycles' stands there twice"),
        (
            ["evaluate", "pairs.tsv", "--model", "PLM", "--device", "gpu"],
            4,
            "No device 'gpu' here. There is: cpu",
        ),
        (
            "label --pairs pairs.tsv --teacher PLM --out o.tsv --show 3".split(),
            2,
            "--show is how many rewritten sentences to look at",
        ),
        (
            "distill --pairs pairs.tsv --family bi --start PLM --out o --set distill.bi.objective=cosent "
            "--set distill.bi.batch_size=1".split(),
            2,
            "is 'cosent': it compares the pairs of a step, and batch_size=1 gives it one alone",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    arguments: list[str], code: int, message: str, run: Any, plm: Path, tmp_path: Path
) -> None:
    write_pairs(make_pairs(4, scored=True), tmp_path / "pairs.tsv")
    (tmp_path / "one.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t0.5\n")
    for engine in ("eng/bi", "eng/cross"):
        (tmp_path / engine).mkdir(parents=True)
        (tmp_path / engine / "engine.json").write_text("{}")
    (tmp_path / "same.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t0.5\nc\td\t0.5\n")
    (tmp_path / "word.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t0\na\tc\tx\nc\td\t1\n")
    if "CROSS" in arguments:
        CrossFamily().create(plm, compute=Compute("cpu", "fp32"), max_length=32).save(tmp_path / "cross")
    (tmp_path / "high.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t0.5\nc\td\t4\n")
    (tmp_path / "tab.csv").write_text('sentence1,sentence2\n"a\tb",c\n')
    (tmp_path / "far.txt").write_text(
        "\n".join(f"w{3 * i} w{3 * i + 1} w{3 * i + 2}" for i in range(9)) + "\n"
    )
    (tmp_path / "twice.yaml").write_text("cycles: 1\ncycles: 2\n")
    before = (tmp_path / "pairs.tsv").read_bytes()
    models = {"PLM": str(plm), "CROSS": "cross"}
    shown = run(*(models.get(argument, argument) for argument in arguments))
    assert (shown.code, shown.out) == (code, "")
    assert message in shown.err
    assert shown.err.splitlines()[-1].startswith("transenc: ")
    assert (tmp_path / "pairs.tsv").read_bytes() == before
    assert not list(tmp_path.glob("o*.tsv"))[1:]


def test_every_file_of_pairs_of_a_cycle_may_have_columns_of_other_names(run: Any, plm: Path) -> None:
    for seed, name in enumerate(("pairs", "dev", "test", "gold", "target")):
        rows = "".join(
            f'"{a}","{b}",{i % 3 / 2}\n' for i, (a, b) in enumerate(make_pairs(12, seed=seed).rows())
        )
        Path(f"{name}.csv").write_text(f"q1,q2,same\n{rows}")
    command = ["cycle", "--plm", str(plm), "--evaluate", "test.csv", "--dry-run"]
    shown = run(*command, "--pairs", "pairs.csv")
    assert shown.code == 3
    assert "Found: 'q1', 'q2', 'same'" in shown.err
    assert "name the columns with --columns" in shown.err
    shown = run(*command, "--pairs", "pairs.csv", "--dev", "dev.csv", "--columns", "q1,q2,same")
    assert (shown.code, "12 pairs of pairs.csv" in shown.err) == (0, True)
    domain = ["--recipe", "augsbert-domain", "--gold", "gold.csv", "--corpus", "target.csv"]
    shown = run(*command, *domain, "--set", "columns=q1,q2,same")
    assert (shown.code, "the labels of target.csv are ignored" in shown.err) == (0, True)
    Path("more.txt").write_text("a dog runs far\na cat sits still\n")
    both = run(*command, *domain, "--corpus", "more.txt", "--set", "columns=q1,q2,same")
    assert (both.code, "the labels of target.csv are ignored" in both.err) == (0, True)
    shown = run(*command, "--pairs", "pairs.csv", "--columns", "q1,q2")
    assert (shown.code, "both sides and the score" in shown.err) == (2, True)


def test_bad_rows_of_every_file_of_a_cycle_are_skipped_as_asked(run: Any, plm: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("pairs", "dev", "test")):
        write_pairs(make_pairs(9, seed, scored=True), tmp_path / f"{name}.tsv")
        with (tmp_path / f"{name}.tsv").open("a") as file:
            file.write("only one column\n")
    (tmp_path / "prime.txt").write_text("\n".join(make_pairs(9).sentences) + "\n\x00\n")
    files = ["--pairs", "pairs.tsv", "--dev", "dev.tsv", "--evaluate", "test.tsv"]
    command = ["cycle", "--plm", str(plm), *files, "--set", "prime.corpus=prime.txt", "--dry-run"]
    assert run(*command).code == 3
    shown = run(*command, "--skip-bad", "1")
    assert shown.code == 0, shown.err
    for name in ("pairs.tsv", "dev.tsv", "test.tsv", "prime.txt"):
        assert f"{name}: 1 bad row of" in shown.err


def test_a_dry_run_of_a_run_begun_with_other_settings_is_refused_as_the_run_is(
    place: Path, run: Any, plm: Path
) -> None:
    command = ["cycle", "--plm", str(plm), "--task", "demo", *TINY_CYCLE, "--dry-run"]
    assert run(*command).code == 0
    assert run(*command, "--cycles", "2").code == 0  # more cycles continue it
    shown = run(*command, "--seed", "5")
    assert (shown.code, shown.out) == (2, "")
    assert "seed: was 1, now 5" in shown.err


def test_columns_of_other_names_are_read_by_each_command(run: Any, plm: Path, tmp_path: Path) -> None:
    write_pairs(make_pairs(9, scored=True), tmp_path / "own.tsv")
    header, rows = (tmp_path / "own.tsv").read_text().split("\n", 1)
    assert header == "sentence1\tsentence2\tscore"
    (tmp_path / "own.tsv").write_text(f"question1\tquestion2\tSame\n{rows}")
    scored = ["--columns", "question1, question2, Same"]
    assert run("evaluate", "own.tsv", "--model", str(plm), *scored).code == 0
    own = ["--pairs", "own.tsv"]
    student = ["--dev", "own.tsv", "--family", "bi", "--start", str(plm), "--set", "distill.bi.epochs=1"]
    assert run("distill", *own, *student, "--out", "bi", *scored).code == 0
    unscored = ["--columns", "question1,question2"]
    assert run("label", *own, "--teacher", str(plm), "--out", "a.tsv", *unscored).code == 0
    assert run("label", "--augment", "delete", *own, *unscored).code == 0
    gold = ["--gold", "own.tsv", *scored]
    assert run("label", "--augment", "delete", *gold, "--out", "b.tsv").code == 0
    (tmp_path / "c.txt").write_text("\n".join(make_pairs(9).sentences) + "\n")
    assert run("label", "--corpus", "c.txt", "--teacher", str(plm), *gold, "--out", "c.tsv").code == 0


def test_bad_rows_of_the_development_file_are_skipped_as_asked(run: Any, plm: Path, tmp_path: Path) -> None:
    write_pairs(make_pairs(9, scored=True), tmp_path / "pairs.tsv")
    shutil.copy(tmp_path / "pairs.tsv", tmp_path / "dev.tsv")
    with (tmp_path / "dev.tsv").open("a") as file:
        file.write("a dog\ta cat\tx\n")
    options = [
        "--pairs",
        "pairs.tsv",
        "--dev",
        "dev.tsv",
        "--family",
        "bi",
        "--start",
        str(plm),
        "--out",
        "o",
    ]
    shown = run("distill", *options, "--skip-bad", "1", "--set", "distill.bi.epochs=1")
    assert shown.code == 0, shown.err
    assert "dev.tsv: 1 bad row of 10 skipped" in shown.err
    assert "best dev Spearman" in shown.out


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_shows_every_number_whole(
    columns: int, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    name, numbers = "runs/a-rather-long-name-of-a-run/best/cross", [f"{60 + i}.25 to 99.75" for i in range(6)]
    table(["model", *(f"metric {i}" for i in range(6))], [[name, *numbers], [f"{name} + {name}", *numbers]])
    shown = capsys.readouterr().out
    assert all(shown.count(number) == 2 for number in numbers)
    assert "\u2026" not in shown
    assert name in shown or (terminal and columns < 200)
    assert name in "".join(line.split("  ")[0] for line in shown.splitlines())


def test_a_closed_pipe_of_a_table_ends_with_its_code(plm: Path, tmp_path: Path) -> None:
    write_pairs(make_pairs(40, scored=True), tmp_path / "pairs.tsv")
    command = f"{sys.executable} -m transenc evaluate pairs.tsv --model {plm}"
    text = f"{{ sleep 0.2; {command}; echo $? >&2; }} | true"
    shown = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stderr.split()[-1] == "141"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_bug_and_no_file_takes_their_place(closed: str, tmp_path: Path) -> None:
    code = (
        "from transenc.cli import app; app._fill_streams(); assert open('new', 'w').fileno() > 2; app.main()"
    )
    child = [sys.executable, "-c", "import os; [os.fstat(number) for number in range(3)]"]
    inherited = f"app._fill_streams(); import subprocess, sys; sys.exit(subprocess.call({child}))"
    for script in (code, f"from transenc.cli import app; {inherited}"):
        command = shlex.join([sys.executable, "-c", script, "backends"])
        done = subprocess.run(["/bin/sh", "-c", f"{command} {closed}"], cwd=tmp_path, check=False)
        assert done.returncode == 0


def test_a_closed_pipe_of_help_ends_with_the_same_code() -> None:
    text = f"{{ sleep 0.5; {sys.executable} -m transenc cycle --help; echo $? >&2; }} | true"
    shown = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert shown.stderr.split()[-1] == "141"


def test_an_error_that_cannot_be_shown_keeps_its_code() -> None:
    command = shlex.join([sys.executable, "-m", "transenc", "evaluate", "nothing-of-this-name"])
    codes = [
        subprocess.run(["/bin/sh", "-c", f"{command} 2>{where}"], check=False).returncode
        for where in ("/dev/null", "/dev/full")
    ]
    assert codes[0] == codes[1] > 1


@pytest.mark.parametrize("coding", ["ascii", "latin-1", "utf-8"])
def test_results_are_shown_where_a_stream_lacks_their_characters(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=coding))
    console.out("Hämäläinen \u2500 \U0001f600")
    console.out_json({"name": "Hämäläinen \u2500 \U0001f600"})
    text, line = written.getvalue().decode(coding).splitlines()
    assert text == ("Hämäläinen \u2500 \U0001f600".encode(coding, "backslashreplace").decode(coding))
    assert json.loads(line) == {"name": "Hämäläinen \u2500 \U0001f600"}


def test_a_name_that_is_not_utf8_is_refused_in_one_line(plm: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.tsv"
    Path(os.fsdecode(name)).write_text("sentence1\tsentence2\na\tb\n")
    command = [sys.executable, "-m", "transenc", "label", "--pairs", name, "--model", plm]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert (
        shown.stderr == f"transenc: '{tmp_path}/caf\\xe9.tsv' is not UTF-8: rename that file or directory.\n"
    )


def test_offline_is_told_to_the_client_of_the_hub_before_it_is_imported(run: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert run("evaluate", "none.tsv", "--offline").code == 3
    assert os.environ.pop("HF_HUB_OFFLINE") == "1"


def test_a_family_that_only_scores_is_not_distilled(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transenc.registry.find", lambda group, name: None)
    result = run(*"distill --pairs p.tsv --family poly --start minilm --out o".split())
    assert result.code == 2
    assert "Family 'poly' only scores; distill trains cross and bi." in result.err


def test_a_terminal_obeys_nothing_that_a_stranger_wrote(run: Any, plm: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": evil}))
    (tmp_path / "gold.tsv").write_text(f"sentence1\tsentence2\tscore\na {evil} dog ran\ta cat\t0.5\n")
    shutil.copytree(plm, tmp_path / f"{evil}red")
    refused = run("evaluate", "demo", "--model", "odd")
    assert refused.code == 2 and "model_type '\\u001b]0;owned\\u0007' is not" in refused.err
    shown = run("label", "--gold", "gold.tsv", "--augment", "delete")
    assert shown.code == 0 and "\\u001b" in shown.out
    listed = run("evaluate", "demo", "--model", f"{evil}red")
    assert listed.code == 0 and "\\u001b" in listed.out
    for done in (refused, shown, listed):
        assert not set("\x1b\x07") & set(done.out + done.err)
    plain = run("evaluate", "demo", "--json", "--model", f"{evil}red")
    assert json.loads(plain.out.splitlines()[0])["model"] == f"{evil}red"
