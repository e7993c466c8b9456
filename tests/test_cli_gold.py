"""The commands that take gold labels, as a user types them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import make_pairs
from tests.test_cli import run as run  # a fixture
from transenc.pairs import Pairs
from transenc.readers import read_pairs
from transenc.repeats import summarise
from transenc.writers import write_pairs

QUICK = [
    "--precision", "fp32", "--max-pairs", "20", "--set", "prime.method=none", "--set", "distill.bi.max_length=16",
    "--set", "gold.teacher.max_length=32", "--set", "gold.teacher.epochs=1", "--set", "distill.bi.epochs=1",
]  # fmt: skip


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    write_pairs(make_pairs(12, seed=4, scored=True), tmp_path / "gold.tsv")
    return tmp_path / "gold.tsv"


def test_few_labels_end_with_models_a_table_and_the_labels_histograms(
    run: Any, gold: Path, plm: Path
) -> None:
    command = ["cycle", "--plm", str(plm), "--recipe", "augsbert-few", "--gold", str(gold), *QUICK]
    plan = run(*command, "--dry-run")
    assert plan.code == 0
    assert "gold/teacher/tiny" in plan.out and "gold x 1, silver x 1" in plan.out
    assert " 24 examples" in plan.out and "up to 32 examples" in plan.out  # 12 in both orders; 12 and 20
    shown = run(*command)
    assert shown.code == 0, shown.err
    assert "labels from" in shown.out and "gold/mix: " in shown.out
    assert "gold and silver, bi" not in shown.err
    assert f"12 gold pairs of {gold}: graded" in shown.out
    assert "best bi: runs/tiny-gold-augsbert-few/best/bi" in shown.out
    assert "chosen without labels" not in shown.out
    lines = [json.loads(line) for line in run(*command, "--json").out.splitlines()]
    assert lines[0]["labels"] == "gold/mix" and sum(lines[0]["histograms"]["gold"]) == 12
    card = Path("runs/tiny-gold-augsbert-few/best/bi/README.md").read_text()
    assert "without labels" not in card and f"learnt from `{gold}`" in card


def test_seed_optimisation_is_of_the_cross_encoder_that_learns_gold(run: Any, gold: Path, plm: Path) -> None:
    command = ["cycle", "--plm", str(plm), "--gold", str(gold), "--dry-run", "--json", "--recipe"]
    tried = ["--seed-optimisation", "3"]
    dev = ["--dev", str(gold)]
    shown = run(*command, "augsbert-few", *dev, *tried, "--cycles", "1")
    assert shown.code == 0, shown.err
    rows = {row["stage"]: row for row in map(json.loads, shown.out.splitlines())}
    trials = {n: row["settings"]["trials"] for n, row in rows.items() if row["kind"] == "distill"}
    assert trials == {
        "gold/teacher/tiny": 3,
        "gold/distill-bi/tiny": 1,
        "cycle-1/distill-cross/tiny": 3,
        "cycle-1/distill-bi/tiny": 1,
    }
    assert "trials=3" in rows["gold/teacher/tiny"]["what"]
    for recipe, options, message in (
        ("augsbert-gold", dev, "tries seeds of a model that this run does not train: leave it out"),
        ("augsbert-few", [], "give --dev FILE (or a --task that has some) with --select dev."),
        ("augsbert-domain", ["--pairs", str(gold)], "reads no label of its target. Leave it out."),
        (
            "augsbert-few",
            [*dev, "--set", "gold.teacher.trials=2"],
            "'gold.teacher.trials' is 3 by its option and 2",
        ),
    ):
        shown = run(*command, recipe, *options, *tried)
        assert (shown.code, shown.out) == (2, "")
        assert message in shown.err


def test_rewritten_gold_needs_no_cross_encoder(run: Any, gold: Path, plm: Path) -> None:
    shown = run(
        "cycle", "--plm", str(plm), "--recipe", "augsbert-gold", "--gold", f"{gold}:8", "--augment", "delete",
        "--augment", "repeat", "--run", "r", *QUICK,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    assert "best cross" not in shown.out
    assert "--teacher r/best/bi" in shown.out
    assert json.loads(Path("r/gold/augment/augment.json").read_text())["made"] > 8
    results = json.loads(Path("r/results.json").read_text())
    assert results["gold"] == f"{gold}:8"
    assert results["best"][0]["model"] == "gold/distill-bi/tiny"
    assert results["setting"] == "nothing was evaluated"
    learnt = {**results["rows"][1], "dev": 0.7}
    rows = {1: {**results, "rows": [{**results["rows"][0], "dev": 0.4}, learnt]}}
    figures = summarise(rows, {1: "x"})["models"]
    assert {name: found["dev"]["mean"] for name, found in figures.items()} == {
        "start, bi": 0.4,
        "best, bi": 0.7,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--recipe", "augsbert-few"], 2, "give --gold FILE"),
        (["--recipe", "augsbert-few", "--gold", "none.tsv"], 3, "none.tsv: no such file"),
        (["--recipe", "augsbert-few", "--gold", "stsb"], 2, "no known name. Did you mean 'stsb-"),
        (["--gold", "demo-dev"], 2, "used by the recipes augsbert-gold"),
        (
            ["--recipe", "augsbert-gold", "--gold", "demo-dev", "--augment", "delet"],
            2,
            "Did you mean 'delete'?",
        ),
        (["--recipe", "augsbert-domain", "--gold", "demo-dev"], 2, "needs sentences of the target"),
        (["--task", "demo", "--sampler", "bm25:0.5,random"], 2, "neither name:share nor option=value"),
    ],
)
def test_bad_input_is_one_line_with_the_way_on(
    run: Any, plm: Path, arguments, code: int, message: str
) -> None:
    shown = run("cycle", "--plm", str(plm), *arguments)
    assert shown.code == code
    assert message in shown.err
    assert len(shown.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("corpus: c.txt\ngold: gold.tsv\n", []),
        ("corpus: c.txt\ngold: gold.tsv\n", ["--gold-range", "0", "1"]),
        ("gold: gold.tsv\n", ["--offline"]),
        ("corpus: c.txt\n", ["--set", "gold=gold.tsv"]),
        ("corpus: c.txt\n", ["--set", "gold=gold.tsv", "--set", "gold.source=gold.tsv"]),
        ("corpus: c.txt\n", ["--set", "gold=null"]),
    ],
)
def test_a_value_in_the_place_of_the_group_gold_is_refused(
    run: Any, gold: Path, plm: Path, file: str, arguments: list[str]
) -> None:
    Path("c.txt").write_text("one two\nthree four\n")
    Path("run.yaml").write_text(f"plm: {plm}\n{file}")
    shown = run("cycle", "--config", "run.yaml", *arguments, "--dry-run")
    assert (shown.code, shown.out) == (2, "")
    assert "a group of settings: name one of them, such as gold.source" in shown.err


def test_options_change_the_gold_of_a_file(run: Any, gold: Path, plm: Path) -> None:
    write_pairs(make_pairs(9, seed=4, scored=True), Path("few.tsv"))
    file = "recipe: augsbert-gold\ngold: {source: gold.tsv, score_range: [0, 4], augment: [delete]}\n"
    Path("run.yaml").write_text(f"plm: {plm}\n{file}")
    command = ["cycle", "--config", "run.yaml", "--dry-run"]
    for options, said in (
        ([], "12 gold pairs of gold.tsv: graded, mean 0.12"),
        (["--gold-range", "0", "1"], "12 gold pairs of gold.tsv: graded, mean 0.50"),
        (["--gold", "few.tsv"], "9 gold pairs of few.tsv"),
        (["--augment", "repeat"], "12 gold pairs of gold.tsv: graded, mean 0.12"),
    ):
        shown = run(*command, *options)
        assert shown.code == 0, shown.err
        assert said in shown.err
        assert ("repeat, 1 a pair" if "repeat" in options else "delete, 1 a pair") in shown.out


def test_rewriting_can_be_looked_at_and_written(run: Any, gold: Path) -> None:
    shown = run("label", "--augment", "delete", "--augment", "repeat", "--gold", str(gold), "--show", "3")
    assert shown.code == 0
    assert shown.out.count("  -> ") == 6
    assert "delete: 3 of 3 sentences changed" in shown.err
    shown = run("label", "--augment", "delete", "--gold", str(gold), "--out", "new.tsv")
    assert shown.code == 0 and "of 12 gold pairs 12 made" in shown.out
    before, after = (read_pairs(path, scores="required").scores for path in (gold, Path("new.tsv")))
    assert before is not None and after is not None
    assert before.tolist() == after.tolist()


def test_rewriting_is_told_as_json(run: Any, gold: Path) -> None:
    shown = run("label", "--augment", "delete", "--gold", str(gold), "--show", "2", "--json")
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert [line["sentence"] for line in lines] == list(read_pairs(gold, scores="ignored").sentences)[:2]
    assert all(line["augmenter"] == "delete" and line["rewritten"] != line["sentence"] for line in lines)
    shown = run("label", "--augment", "delete", "--gold", str(gold), "--out", "new.tsv", "--json")
    counts = {"gold_pairs": 12, "made": 12, "unchanged": 0, "already_gold": 0, "repeated": 0}
    assert json.loads(shown.out) == {"path": "new.tsv", "augmenters": ["delete"], "seed": 1, **counts}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augment", "delete"], "takes one of --gold"),
        (["--augment", "delete", "--corpus", "c.txt", "--out", "o.tsv"], "give --gold FILE with --out"),
        (["--augment", "insert", "--corpus", "c.txt"], "insert:model=NAME"),
        (["--corpus", "c.txt"], "Give --teacher MODEL and --out FILE"),
        (["--augment", "delete", "--corpus", "c.txt", "--teacher", "x"], "--teacher is about pairs that"),
        (["--augment", "delete", "--corpus", "c.txt", "--combine", "x"], "--combine is about pairs that"),
        (
            ["--augment", "delete", "--corpus", "c.txt", "--gold-range", "0", "5"],
            "give --gold FILE, or leave",
        ),
        (["--augment", "delete", "--gold", "none.tsv", "--out", "new/o.txt"], "must end in one of .tsv"),
        (["--teacher", "x", "--out", "o.tsv", "--corpus", "c.txt", "--sampler", "kde"], "give --gold FILE"),
    ],
)
def test_what_label_lacks_is_asked_for(run: Any, arguments: list[str], message: str) -> None:
    Path("c.txt").write_text("one two\nthree four\n")
    shown = run("label", *arguments)
    assert shown.code == 2
    assert message in shown.err


@pytest.mark.parametrize("command", [["--teacher", "x", "--corpus", "c.txt"], ["--augment", "delete"]])
def test_a_range_is_suggested_for_gold_of_another_scale(run: Any, command: list[str]) -> None:
    Path("c.txt").write_text("one two\nthree four\n")
    Path("five.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t0\na\tc\t4.5\n")
    shown = run("label", *command, "--gold", "five.tsv", "--out", "new/o.tsv")
    assert shown.code == 3
    assert "five.tsv: gold labels from 0 to 4.5 do not lie in [0, 1]" in shown.err
    assert "--gold-range 0 5." in shown.err
    assert not Path("new").exists()


def test_rewritten_pairs_may_go_to_a_new_directory(run: Any, gold: Path) -> None:
    shown = run("label", "--augment", "delete", "--gold", str(gold), "--out", "new/one/o.tsv")
    assert shown.code == 0, shown.err
    assert len(read_pairs(Path("new/one/o.tsv"), scores="required")) == 12


def test_scores_are_counted_as_changed_among_the_kept_pairs_alone(
    run: Any, gold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wide:
        family = "cross"

        def score(self, pairs: Pairs) -> Any:
            return np.linspace(-1.01, 2.03, len(pairs), dtype=np.float32)

    monkeypatch.setattr("transenc.models.loading.load_scorer", lambda name, **options: Wide())
    monkeypatch.setattr("transenc.models.loading.scorer_digest", lambda name, **options: name)
    Path("c.txt").write_text("\n".join(read_pairs(gold, scores="ignored").sentences) + "\n")
    options = ["--corpus", "c.txt", "--sampler", "kde", "--gold", str(gold), "--out", "s.tsv"]
    shown = run("label", "--teacher", "x", *options)
    assert shown.code == 0, shown.err
    scores = read_pairs(Path("s.tsv"), scores="required").scores
    assert scores is not None
    kept, offered = re.search(r"kept (\d+) of (\d+)", shown.err).groups()  # type: ignore[union-attr]
    assert int(kept) == len(scores) < int(offered)
    assert f" {np.isin(scores, (0, 1)).sum()} scores changed by" in shown.out


def test_labelling_leaves_gold_pairs_out_and_keeps_by_their_labels(run: Any, gold: Path, plm: Path) -> None:
    Path("c.txt").write_text("\n".join(read_pairs(gold, scores="ignored").sentences) + "\n")
    shown = run(
        "label",
        "--teacher",
        str(plm),
        "--corpus",
        "c.txt",
        "--sampler",
        "kde",
        "--gold",
        str(gold),
        "--out",
        "s.tsv",
    )
    assert shown.code == 0, shown.err
    assert "kde: kept" in shown.err
    known = {frozenset(row) for row in read_pairs(gold, scores="ignored").rows()}
    assert not known & {frozenset(row) for row in read_pairs(Path("s.tsv"), scores="required").rows()}


def test_augmenters_are_listed(run: Any) -> None:
    shown = run("backends", "--json")
    listed = {
        row["name"]: row for row in map(json.loads, shown.out.splitlines()) if row["kind"] == "augmenter"
    }
    assert "wordnet" in listed and "share" in listed["delete"]["options"]


def test_the_commands_of_the_documentation_run_as_they_stand(run: Any, tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    shutil.copytree(root / "examples" / "library", tmp_path / "examples" / "library")
    text = (root / "docs" / "augmented-sbert.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("transenc label --augment")]
    assert len(lines) == 2
    for line in lines:
        shown = run(*shlex.split(line)[1:])
        assert shown.code == 0, shown.err
    assert len(read_pairs(tmp_path / "rewritten.tsv", scores="required")) == 10
