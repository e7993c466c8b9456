from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_pairs
from tests.runs import content
from tests.tiny import tiny_plm
from transenc.cli.app import main
from transenc.errors import ConfigError
from transenc.repeats import parse_seeds, reproduce, summarise
from transenc.writers import write_pairs

QUICK = [
    "--cycles", "1", "--precision", "fp32", "--device", "cpu", "--set", "prime.method=none",
    "--set", "distill.bi.epochs=1", "--set", "distill.cross.learning_rate=1e-3",
]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pairs, a graded development file, and a 0/1 and a graded test file."""
    monkeypatch.chdir(tmp_path)
    write_pairs(make_pairs(40), tmp_path / "pairs.tsv")
    write_pairs(make_pairs(14, seed=1, scored=True), tmp_path / "dev.tsv")
    test = make_pairs(12, seed=2, scored=True)
    write_pairs(test, tmp_path / "graded.tsv")
    assert test.scores is not None
    write_pairs(test.with_scores((test.scores > 0.5).astype("float32")), tmp_path / "binary.tsv")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["transenc", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.mark.parametrize(("text", "seeds"), [("3", [1, 2, 3]), ("4,9", [4, 9]), ("7,", [7]), ("0,1", [0, 1])])
def test_seeds_are_counted_or_listed(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "a", "1,1", "-1", "1,,2", ",", "²"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds(text)


def test_a_command_reproduces_one_seed_elsewhere() -> None:
    argv = ["cycle", "--plm", "a b", "--seeds", "5", "--run=x", "--task", "sts"]
    shown = reproduce(argv, 3, Path("runs/a"))
    assert shown == "transenc cycle --plm 'a b' --task sts --seed 3 --run runs/a-again/seed-3"
    apart = ["cycle", "--seeds=5", "--run", "x", "--seed", "7", "--plm", "a b", "--seed=7", "--task", "sts"]
    assert reproduce(apart, 3, Path("runs/a")) == shown


def test_a_summary_has_the_mean_and_the_sample_deviation() -> None:
    def results(value: float) -> dict[str, Any]:
        row = {
            "student": "s", "family": "bi", "cycle": 0, "dev": value, "tests": {"t": 2 * value},
            "average": 2 * value, "average_precision": {}, "label": "start", "path": "prime/s",
        }  # fmt: skip
        best = {"student": "s", "family": "bi", "cycle": 0, "model": "prime/s"}
        return {
            "plm": ["s"], "rows": [row], "best": [best], "ensembles": [], "metrics": {"t": "spearman"},
            "selection": "dev", "setting": "inductive",
        }  # fmt: skip

    found = summarise({1: results(0.1), 2: results(0.3)}, {1: "x", 2: "y"})
    assert found["models"]["best, bi"]["dev"] == pytest.approx({"mean": 0.2, "sd": 0.02**0.5, "n": 2})
    assert found["per_seed"]["start, bi"]["2"] == {"dev": 0.3, "t": 0.6}
    one = summarise({1: results(0.1)}, {1: "x"})
    assert one["models"]["best, bi"]["t"]["sd"] is None


def test_a_summary_has_raw_starts_average_precision_and_the_mean_of_several_tests() -> None:
    raw = {
        "student": "s", "family": "bi", "dev": None, "tests": {"t": 0.2, "u": 0.4}, "average": 0.3,
        "average_precision": {"t": 0.1}, "path": ".",
    }  # fmt: skip
    start = raw | {"tests": {"t": 0.5, "u": 0.7}, "average": 0.6, "path": "prime/s"}
    made = start | {"dev": 0.8, "tests": {"t": 0.6, "u": 0.9}, "average": 0.75, "path": "cycle-1/s"}
    best = {"student": "s", "family": "bi", "model": "cycle-1/s"}
    results = {
        "plm": ["s"], "rows": [start, made], "raw": [raw], "best": [best], "ensembles": [], "selection": "dev",
        "metrics": {"t": "auc", "u": "auc"}, "setting": "inductive",
    }  # fmt: skip
    found = summarise({1: results}, {1: "x"})
    means = {
        name: {column: value["mean"] for column, value in columns.items()}
        for name, columns in found["models"].items()
    }
    assert means == {
        "raw, bi": {"t": 0.2, "u": 0.4, "t AP": 0.1, "average": 0.3},
        "start, bi": {"t": 0.5, "u": 0.7, "t AP": 0.1, "average": 0.6},
        "best, bi": {"dev": 0.8, "t": 0.6, "u": 0.9, "t AP": 0.1, "average": 0.75},
    }
    assert list(found["gains"]) == ["best, bi"]
    assert {column: value["mean"] for column, value in found["gains"]["best, bi"].items()} == pytest.approx(
        {"t": 0.1, "u": 0.2, "t AP": 0.0, "average": 0.15}  # the start has no development score
    )


def test_gains_are_taken_over_the_start_of_the_same_seed_and_student() -> None:
    def results(**values: tuple[float, float]) -> dict[str, Any]:
        def row(student: str, family: str, cycle: int, value: float) -> dict[str, Any]:
            return {
                "student": student, "family": family, "cycle": cycle, "dev": None, "tests": {"t": value},
                "average": value, "average_precision": {}, "path": f"{cycle}/{student}",
            }  # fmt: skip

        return {
            "plm": list(values), "ensembles": [], "metrics": {"t": "spearman"}, "selection": "", "setting": "",
            "rows": [r for s, (a, b) in values.items() for r in (row(s, "bi", 0, a), row(s, "cross", 1, b))],
            "best": [{"student": s, "family": "cross", "model": f"1/{s}"} for s in values],
        }  # fmt: skip

    # The starts differ more between seeds than what is gained over them.
    runs = {1: results(a=(0.5, 0.52), b=(0.9, 0.8)), 2: results(a=(0.7, 0.74), b=(0.6, 0.7))}
    gains = summarise(runs, {1: "x", 2: "y"})["gains"]
    assert gains["best, cross, a"]["t"] == pytest.approx({"mean": 0.03, "sd": 0.0002**0.5, "n": 2})
    assert gains["best, cross, b"]["t"]["mean"] == pytest.approx(0)
    alone = summarise({1: results(a=(0.5, 0.52))}, {1: "x"})["gains"]
    assert alone["best, cross"]["t"] == {"mean": pytest.approx(0.02), "sd": None, "n": 1}
    mean = {**runs[1]["rows"][1], "label": "best, averaged"}  # whatever a row is called, a mean has no start
    found = summarise({1: {**runs[1], "ensembles": [mean]}}, {1: "x"})
    assert set(found["models"]) - set(found["gains"]) == {
        "start, bi, a",
        "start, bi, b",
        "best, averaged, cross",
    }


def test_each_seed_is_a_run_of_its_own_and_the_same_command_continues(
    files: Path, run: Any, plm: Path
) -> None:
    common = ["cycle", "--plm", str(plm), "--pairs", "pairs.tsv", "--dev", "dev.tsv", *QUICK]
    common += ["--evaluate", "binary.tsv", "--evaluate", "graded.tsv"]
    code, out, err = run(*common, "--seeds", "1,2", "--run", "all")
    assert code == 0, err
    assert "best, bi, mean of 2" in out
    assert re.search(r"best, cross, over start, mean of 2 +[+-]\d+\.\d\d ±\d", out)
    assert "--seed 2 --run all-again/seed-2" in out
    summary = json.loads((files / "all/summary.json").read_text())
    assert summary["seeds"] == [1, 2]
    assert {"dev", "binary.tsv", "binary.tsv AP", "graded.tsv"} == set(summary["models"]["best, cross"])
    assert summary["metrics"] == {"binary.tsv": "auc", "graded.tsv": "spearman"}

    code, out, err = run(*common, "--seed", "2", "--run", "alone")
    assert code == 0, err
    assert content(files / "all/seed-2") == content(files / "alone")
    assert "graded.tsv: Spearman x 100" in out
    assert "inductive: none of the 24 test pairs is among the training pairs" in out
    results = json.loads((files / "alone/results.json").read_text())
    assert results["selection"].startswith("14 labelled development pairs select")
    assert results["rows"][0]["average"] is None  # of two scales there is none
    assert "Inductive: none" in (files / "alone/best/cross/README.md").read_text()

    before = content(files / "all")
    shutil.rmtree(files / "all/seed-2")
    code, _, err = run(*common, "--seeds", "1,2", "--run", "all")
    assert code == 0, err
    assert content(files / "all") == before


def test_a_seed_can_be_the_newest_run(tmp_path: Path) -> None:
    from transenc.runs import newest_run

    (tmp_path / "x-seeds/seed-1/best/bi").mkdir(parents=True)
    (tmp_path / "x-seeds/seed-1/best/bi/best.json").touch()
    assert newest_run(tmp_path) == tmp_path / "x-seeds/seed-1"


def scored(path: Path, *rows: tuple[str, str, float]) -> None:
    lines = ["score\tsentence1\tsentence2", *(f"{s}\t{a}\t{b}" for a, b, s in rows)]
    path.write_text("\n".join(lines) + "\n")


BAD = [
    (["--recipe", "mutual", "--pairs", "pairs.tsv"], 2, "Recipe 'mutual' needs 2 students"),
    (
        ["--pairs", "pairs.tsv", "--dev", "flat.tsv"],
        3,
        "flat.tsv cannot judge a model: All 3 gold scores are 0.5",
    ),
    (["--pairs", "pairs.tsv", "--dev", "ones.tsv"], 3, "undefined for one class. Give another --dev"),
    (["--pairs", "pairs.tsv", "--dev", "stssb"], 2, "No task named 'stssb'. Did you mean 'stsb'?"),
    (
        ["--pairs", "pairs.tsv", "--dev", "dev.tsv", "--select", "agreement"],
        2,
        "reads no label: leave out --dev",
    ),
    (["--pairs", "pairs.tsv", "--set", "label.combine=dev-weighted"], 2, "give --dev FILE"),
    (["--pairs", "pairs.tsv", "--seed-optimisation", "3"], 2, "distill.cross.trials compares seeds"),
    (["--pairs", "pairs.tsv", "--select", "agreement"], 3, "judge on 4 of 40 pairs"),
    (
        ["--pairs", "pairs.tsv", "--set", "distill.cross.max_length=65"],
        2,
        "has positions for 64 tokens: --set",
    ),
    (["--pairs", "foreign.tsv"], 2, "does not know 100% of the tokens of the pairs"),
    (["--task", "qnli", "--set", "symmetric=true"], 2, "Task 'qnli' is asymmetric.*symmetric=true"),
    (["--task", "qnli", "--set", "distill.cross.both_orders=true"], 2, "Leave distill.cross.both_orders out"),
    (["--pairs", "pairs.tsv", "--inductive"], 2, "--inductive leaves out the evaluation pairs"),
    (["--pairs", "pairs.tsv", "--seeds", "2", "--seed", "1"], 2, "Give either --seed"),
    (
        ["--pairs", "pairs.tsv", "--seeds", "2", "--run", "pairs.tsv"],
        2,
        "pairs.tsv is a file, not a run directory",
    ),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD, ids=[m[:30] for _, _, m in BAD])
def test_what_cannot_work_is_one_line_with_the_way_on(
    arguments: list[str], code: int, message: str, files: Path, run: Any, plm: Path
) -> None:
    scored(files / "flat.tsv", *[("a", "b", 0.5)] * 3)
    scored(files / "ones.tsv", ("a", "b", 1), ("c", "d", 1))
    (files / "foreign.tsv").write_text("sentence1\tsentence2\n你好\t世界\n再见\t朋友\n")
    found, _, err = run("cycle", "--plm", str(plm), "--run", "r", *arguments, *QUICK)
    last = err.strip().splitlines()[-1]
    assert found == code, err
    assert re.search(message.replace("(", r"\("), last), last


def test_one_order_of_ones_own_asymmetric_pairs_is_trained(files: Path, run: Any, plm: Path) -> None:
    base = ["cycle", "--plm", str(plm), "--pairs", "pairs.tsv", *QUICK, "--set", "distill.cross.batch_size=8"]
    for name, extra in (("both", []), ("one", ["--set", "symmetric=false"])):
        code, _, err = run(*base, *extra, "--run", name)
        assert code == 0, err
    steps = [
        json.loads((files / name / f"cycle-1/distill-cross/{plm.name}/training.json").read_text())["losses"][
            -1
        ][0]
        for name in ("both", "one")
    ]
    assert steps == [10, 5]


def test_students_of_unequal_size_and_architecture_learn_together(files: Path, run: Any, plm: Path) -> None:
    other = tiny_plm(files / "other", "roberta", seed=3)
    code, out, err = run(
        "cycle", "--plm", str(plm), "--plm", str(other), "--recipe", "mutual", "--pairs", "pairs.tsv",
        "--evaluate", "graded.tsv", "--dev", "dev.tsv", *QUICK, "--run", "mutual",
    )  # fmt: skip
    assert code == 0, err
    assert "mean of best, cross" in out
    results = json.loads((files / "mutual/results.json").read_text())
    assert [row["label"] for row in results["ensembles"]] == [
        "mean of starts",
        "mean of best",
        "mean of best",
    ]
    assert {best["student"] for best in results["best"]} == {"tiny", "other"}
