from __future__ import annotations

from pathlib import Path

import pytest

from transenc.cli.results import next_commands
from transenc.outcome import Best, Outcome, Row


def outcome(selected_by: str, *models: tuple[str, str, float | None]) -> Outcome:
    """Two students whose starts have 0.7 on development data, and a best model for each (student, family, dev)."""
    by_dev = selected_by == "dev"
    rows = [Row("start", s, "bi", 0, Path(f"prime/{s}"), 0.7 if by_dev else None, {}, None) for s in "ab"]
    best = []
    for student, family, dev in models:
        made = Path(f"cycle-1/distill-{family}/{student}")
        rows.append(Row("cycle 1", student, family, 1, made, dev, {}, None))
        best.append(Best(student, family, Path(f"best/{family}/{student}"), 1, dev, made))
    return Outcome(rows, best, "spearman", selected_by)


def test_the_next_commands_name_the_better_student() -> None:
    lines = next_commands(
        outcome("dev", ("a", "bi", 0.71), ("b", "bi", 0.8), ("a", "cross", 0.75), ("b", "cross", 0.82)), "sts"
    )
    assert lines[1:] == [
        "  transenc evaluate sts --model best/bi/b --model best/cross/b",
        "  transenc export onnx --model best/bi/b --out engine-bi",
        "  transenc label --pairs FILE.tsv --teacher best/cross/b --out scored.tsv",
    ]


@pytest.mark.parametrize(("dev", "teacher"), [(0.69, "bi/a"), (0.7, "bi/a"), (0.71, "cross/a")])
def test_a_cross_encoder_that_does_not_beat_its_start_is_no_teacher(dev: float, teacher: str) -> None:
    lines = next_commands(outcome("dev", ("a", "bi", 0.7), ("a", "cross", dev)), "sts")
    assert f"--teacher best/{teacher} " in lines[-1]


def test_without_labels_the_first_student_is_named() -> None:
    models = [(s, f, None) for f in ("bi", "cross") for s in "ab"]
    lines = next_commands(outcome("agreement", *models), "sts")
    assert "--model best/bi/a --model best/cross/a" in lines[1]
    assert "--teacher best/cross/a " in lines[-1]


def test_without_a_task_the_models_are_compared_with_their_start_on_pairs_of_ones_own() -> None:
    lines = next_commands(outcome("last", ("b", "bi", None), ("b", "cross", None)), None)
    assert lines[1] == ("  transenc evaluate FILE.tsv --model prime/b --model best/bi/b --model best/cross/b")
    assert "sentence1 <tab> sentence2 <tab> score" in lines[2]
    assert 'load_scorer("best/bi/b").encode(' in lines[3]
