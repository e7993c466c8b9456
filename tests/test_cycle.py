from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import make_pairs
from transenc.config import build
from transenc.cycle import plan
from transenc.outcome import gold_label, selection
from transenc.pairs import join
from transenc.stage import Stage, Student, batches, model_stages, student_names


def planned(n: int = 1, **values: Any) -> Any:
    settings = build({"plm": [f"s{i}" for i in range(n)], "task": "sts", **values})
    return plan(settings, [Student(f"s{i}", f"s{i}", "none") for i in range(n)], tests=True, dev=True)


def test_the_plan_of_self_distillation_is_the_papers_loop() -> None:
    names = [s.name for s in planned(cycles=2) if not s.name.startswith("evaluate/")]
    assert names == [
        "pairs", "prime/s0",
        "cycle-1/label-bi/s0", "cycle-1/silver-bi", "cycle-1/distill-cross/s0",
        "cycle-1/label-cross/s0", "cycle-1/silver-cross", "cycle-1/distill-bi/s0",
        "cycle-2/label-bi/s0", "cycle-2/silver-bi", "cycle-2/distill-cross/s0",
        "cycle-2/label-cross/s0", "cycle-2/silver-cross", "cycle-2/distill-bi/s0",
        "select", "best/bi", "best/cross",
    ]  # fmt: skip


def test_a_start_is_evaluated_raw_where_it_is_primed() -> None:
    def raw(prime: str, **options: Any) -> list[Any]:
        settings = build({"plm": ["s0"], "task": "sts", "cycles": 1})
        return [
            s
            for s in plan(settings, [Student("s0", "s0", prime)], **options)
            if s.name.startswith("evaluate/raw")
        ]

    assert [s.name for s in raw("simcse", tests=True)] == ["evaluate/raw/s0"]
    assert raw("none", tests=True) == raw("simcse", tests=False) == []


def test_the_teacher_of_each_half_cycle_is_the_model_before_it() -> None:
    stages = {s.name: s for s in planned(cycles=2)}
    assert stages["cycle-1/label-bi/s0"].needs == ("pairs", "prime/s0")
    assert stages["cycle-1/label-cross/s0"].needs == ("pairs", "cycle-1/distill-cross/s0")
    assert stages["cycle-2/label-bi/s0"].needs == ("pairs", "cycle-1/distill-bi/s0")


@pytest.mark.parametrize("n", [2, 3])
def test_several_students_share_the_silver_and_nothing_else(n: int) -> None:
    stages = {s.name: s for s in planned(n, cycles=1)}
    assert stages["cycle-1/silver-bi"].needs == ("pairs", *(f"cycle-1/label-bi/s{i}" for i in range(n)))
    assert stages["cycle-1/distill-cross/s1"].needs == ("cycle-1/silver-bi", "prime/s1")
    assert {s for s in stages if s.startswith("best/")} == {
        f"best/{f}/s{i}" for f in ("bi", "cross") for i in range(n)
    }


def test_previous_weights_come_from_the_teacher_of_the_half_cycle() -> None:
    stages = {
        s.name: s
        for s in planned(cycles=2, distill={"bi": {"start": "previous"}, "cross": {"start": "previous"}})
    }
    assert stages["cycle-2/distill-cross/s0"].needs[-1] == "cycle-1/distill-bi/s0"
    assert stages["cycle-2/distill-bi/s0"].needs[-1] == "cycle-2/distill-cross/s0"


@pytest.mark.parametrize("label", [{"mix": 0.3}, {"transform": "match"}])
def test_a_cross_encoders_labels_that_keep_the_bi_encoders_need_them(label: dict[str, Any]) -> None:
    stages = {s.name: s for s in planned(2, cycles=1, label={**label, "both_orders": True})}
    assert stages["cycle-1/silver-cross"].needs == (
        "pairs", *(f"cycle-1/label-{family}/s{i}" for family in ("cross", "bi") for i in (0, 1))
    )  # fmt: skip
    assert stages["cycle-1/silver-bi"].needs == ("pairs", "cycle-1/label-bi/s0", "cycle-1/label-bi/s1")
    assert stages["cycle-1/label-cross/s0"].settings == {"both_orders": True}
    assert stages["cycle-1/label-bi/s0"].settings == {}
    own = stages["cycle-1/silver-bi"].settings
    assert (own["mix"], own["transform"]) == (0.0, "none")


def test_every_stage_needs_only_what_stands_before_it() -> None:
    seen: set[str] = set()
    for stage in planned(2, cycles=3):
        assert set(stage.needs) <= seen
        seen.add(stage.name)


def test_the_start_is_a_candidate_for_the_best_bi_encoder() -> None:
    stages = planned(cycles=2)
    best = next(s for s in stages if s.name == "best/bi")
    assert "prime/s0" in best.needs
    assert [s.cycle for s in model_stages(stages, "s0", "bi")] == [0, 1, 2]


def test_test_pairs_that_helped_to_select_are_counted() -> None:
    settings, dev, test = (
        build({"plm": ["x"]}),
        make_pairs(12, scored=True),
        make_pairs(20, seed=5, scored=True),
    )
    assert (
        selection(settings, dev, {"t": test}) == "12 labelled development pairs select checkpoints and cycles"
    )
    both = join([test, dev.take(slice(0, 3)).flipped()])
    told = selection(settings, dev, {"t": both, "u": test})
    assert told.endswith("; 3 of the 43 test pairs are among them, so they helped to select")


def test_development_data_that_select_nothing_are_not_said_to_lack() -> None:
    gold = {"source": "g.tsv", "scenario": "few"}
    last = build({"plm": ["x"], "select": "last", "gold": gold})
    dev = make_pairs(12, scored=True)
    assert selection(last, dev, {}) == "no labels: the last model is kept (--select last)"
    assert selection(last, None, {}).startswith("no development data: the last model is kept")
    few = {"plm": ["x"], "select": "dev"}
    none = "no development data: the last cycle is kept"
    assert selection(build(few), None, {}) == f"{none} (--select agreement needs no labels, but 200 pairs)"
    assert selection(build(few | {"held_out": 0.3}), None, {}).endswith("but 67 pairs)")
    assert selection(build(few | {"remine": True}), None, {}) == f"{none} (--dev FILE selects)"
    free = build({"plm": ["x"], "select": "last"})
    for given in (dev, None):
        assert selection(free, given, {}) == "no labels: the last cycle is kept (--select last)"
    assert selection(build({"plm": ["x"]}), None, {}).startswith(
        "no development data: the last cycle is kept"
    )


@pytest.mark.parametrize(
    ("stage", "gold", "label"),
    [
        ("gold/encoder/s0", {"scenario": "few"}, "gold alone"),
        ("gold/teacher/s0", {"scenario": "few", "weight": 0}, "gold alone"),
        ("gold/distill-bi/s0", {"scenario": "few"}, "gold and silver"),
        ("gold/distill-cross/s0", {"scenario": "domain"}, "gold and silver"),
        ("gold/distill-bi/s0", {"scenario": "few", "weight": 0}, "silver alone"),
        ("gold/distill-bi/s0", {"scenario": "gold"}, "gold alone"),
        ("gold/distill-bi/s0", {"scenario": "gold", "augment": ["noise"]}, "gold and rewritten"),
        ("cycle-1/distill-bi/s0", {"scenario": "few"}, None),
        ("prime/s0", {"scenario": "few"}, None),
    ],
)
def test_what_gold_taught_is_named_by_the_pairs_that_it_saw(
    stage: str, gold: dict[str, Any], label: str | None
) -> None:
    settings = build({"plm": ["x"], "gold": {"source": "gold.tsv", **gold}})
    assert gold_label(Stage(stage, "distill"), settings) == label


def test_without_labels_every_model_is_judged_on_held_out_pairs_before_selection() -> None:
    settings = build({"plm": ["a"], "task": "sts", "cycles": 1, "select": "agreement"})
    stages = {s.name: s for s in plan(settings, [Student("a", "a", "none")], tests=True)}
    models = ("prime/a", "cycle-1/distill-cross/a", "cycle-1/distill-bi/a")
    assert stages["select"].needs == (*models, *(f"agreement/{name}" for name in models))
    assert stages["agreement/cycle-1/distill-bi/a"].needs[-1] == "cycle-1/silver-cross"
    assert all(stages[name].settings["held_out"] == 0.1 for name in models[1:])
    assert not any(stages[name].settings["dev"] for name in models)


def test_students_are_batched_where_none_needs_another() -> None:
    stages = planned(2, cycles=2)
    groups = batches(stages)
    assert [s for group in groups for s in group] == stages
    for group in groups:
        assert len(group) in (1, 2)
        assert not {s.name for s in group} & {need for s in group for need in s.needs}
    pairs = {group[0].kind for group in groups if len(group) == 2}
    assert pairs == {"prime", "label", "distill", "evaluate", "best"}


def test_several_students_are_evaluated_together() -> None:
    found = {s.name: s for s in planned(2, cycles=1) if s.kind == "ensemble"}
    assert set(found) == {"ensemble/start-bi", "ensemble/best-bi", "ensemble/best-cross"}
    assert found["ensemble/start-bi"].needs == ("select", "evaluate/prime/s0", "evaluate/prime/s1")
    assert not [s for s in planned(1) if s.kind == "ensemble"]


def test_without_development_data_the_last_cycle_is_selected() -> None:
    settings = build({"plm": ["a"], "pairs": "x.tsv"})
    stages = plan(settings, [Student("a", "a", "none")])
    assert next(s for s in stages if s.kind == "select").settings == {"by": "last"}
    assert not [s for s in stages if s.kind == "evaluate"]


@pytest.mark.parametrize(
    ("plms", "names"),
    [
        (["roberta-large"], ["roberta-large"]),
        (["org/model", "./models/model/"], ["model", "model-2"]),
        (["../..", "a b"], ["student", "a-b"]),
    ],
)
def test_students_are_named_after_their_starts(plms: list[str], names: list[str]) -> None:
    assert student_names(plms) == names


def test_planning_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy")
    code = f"import sys, transenc.cycle; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
