"""What a finished run holds: its models with their scores, those that were kept, and what a reader must know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transenc.agreement import LEAST
from transenc.config import Settings
from transenc.kinds import Info, setting
from transenc.pairs import Pairs, shared
from transenc.runner import Runner
from transenc.stage import Stage, Student


@dataclass(frozen=True)
class Row:
    """One model of a run: its place, development score and test scores (Spearman or AUC, not times 100)."""

    label: str
    student: str
    family: str
    cycle: int
    path: Path
    dev: float | None
    tests: dict[str, float]
    average: float | None
    average_precision: dict[str, float] = field(default_factory=dict)
    held_out: float | None = None


@dataclass(frozen=True)
class Best:
    """The model kept for one student and family, and the directory of the stage that made it."""

    student: str
    family: str
    path: Path
    cycle: int
    dev: float | None
    model: Path
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a finished run holds.

    metrics: of each test set. setting: whether evaluated pairs were trained on. selection: what chose the models, and
    whether labels did. ensembles: the students' mean scores, by family. raw: starts before they
    were primed. warnings: what a reader must know.
    """

    rows: list[Row]
    best: list[Best]
    metric: str
    selected_by: str
    metrics: dict[str, str] = field(default_factory=dict)
    setting: str = ""
    selection: str = ""
    ensembles: list[Row] = field(default_factory=list)
    raw: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_outcome(runner: Runner, stages: Sequence[Stage], students: Sequence[Student]) -> Outcome:
    """Read what the stages of a finished run recorded."""
    context = runner.context
    silver = [runner.info(stage.name, "silver") for stage in stages if stage.kind == "silver"]
    return Outcome(
        rows=_models(runner, stages),
        best=[_best(runner, stage) for stage in stages if stage.kind == "best"],
        metric=context.metric,
        selected_by=runner.info("select", "select")["by"],
        metrics={name: context.metric_of(name) for name in context.tests},
        setting=setting(runner.trained_on(), context.tests),
        selection=selection(context.settings, context.dev, context.tests),
        ensembles=[_ensemble(runner, stage, students) for stage in stages if stage.kind == "ensemble"],
        raw=[_raw(runner, stage) for stage in stages if stage.settings.get("raw")],
        warnings=[facts["warning"] for facts in silver if facts.get("warning")] + _untaught(runner, stages),
    )


def _untaught(runner: Runner, stages: Sequence[Stage]) -> list[str]:
    """Say which students kept the weights that they began with, since none of their training's were better."""
    made = [stage.name for stage in stages if stage.kind == "distill"]
    kept = [name for name in made if runner.info(name, "distill")["best_step"] == 0]
    return [
        f"{name} learnt nothing: no step of its training was better than the start, which it kept"
        for name in kept
    ]


def _models(runner: Runner, stages: Sequence[Stage]) -> list[Row]:
    tested = {s.needs[0]: s.name for s in stages if s.kind == "evaluate" and s.needs}
    rows = []
    for stage in stages:
        if stage.kind not in ("prime", "distill"):
            continue
        facts = runner.info(stage.name, stage.kind)
        results = runner.info(tested[stage.name], "evaluate") if stage.name in tested else {}
        label = f"cycle {stage.cycle}" if stage.cycle else start_label(str(facts.get("method")))
        rows.append(
            Row(
                gold_label(stage, runner.context.settings) or label,
                str(stage.student),
                str(stage.family),
                stage.cycle,
                runner.context.store.path(stage.name),
                facts["dev"],
                results.get("tests", {}),
                results.get("average"),
                results.get("average_precision", {}),
                facts.get("held_out"),
            )
        )
    return rows


def _raw(runner: Runner, stage: Stage) -> Row:
    facts = runner.info(stage.name, "evaluate")
    place = runner.context.store.root
    return Row("raw", str(stage.student), "bi", 0, place, facts["dev"], **_tested(facts))


def _ensemble(runner: Runner, stage: Stage, students: Sequence[Student]) -> Row:
    facts = runner.info(stage.name, "ensemble")
    label = "mean of starts" if stage.settings["of"] == "start" else "mean of best"
    names = "+".join(s.name for s in students)
    place = runner.context.store.path(stage.name)
    return Row(label, names, str(stage.family), 0, place, None, **_tested(facts))


def _tested(facts: Info) -> Info:
    return {key: facts[key] for key in ("tests", "average", "average_precision")}


def _best(runner: Runner, stage: Stage) -> Best:
    facts, store = runner.info(stage.name, "best"), runner.context.store
    return Best(
        str(stage.student), str(stage.family), store.path(stage.name), facts["cycle"], facts["dev"],
        store.path(facts["model"]), facts.get("reason", ""),
    )  # fmt: skip


def selection(settings: Settings, dev: Pairs | None, tests: Mapping[str, Pairs]) -> str:
    """Say what chooses checkpoints and cycles, and whether labels do."""
    if settings.select == "agreement":
        return "no labels: agreement on held-out unlabelled pairs selects checkpoints and cycles"
    if settings.gold.source and dev is None:
        return "no development data: the last model is kept (--select last)"
    if settings.select == "last":
        last = "model" if settings.gold.source else "cycle"
        return f"no labels: the last {last} is kept (--select last)"
    if dev is None:
        least = math.ceil(LEAST / settings.held_out)
        way = (
            "--dev FILE selects"
            if settings.remine
            else f"--select agreement needs no labels, but {least:,} pairs"
        )
        return f"no development data: the last cycle is kept ({way})"
    both, total = sum(shared(dev, test) for test in tests.values()), sum(map(len, tests.values()))
    among = f"; {both:,} of the {total:,} test pairs are among them, so they helped to select" if both else ""
    return f"{len(dev):,} labelled development pairs select checkpoints and cycles{among}"


def gold_label(stage: Stage, settings: Settings) -> str | None:
    """Name the row of a model that gold pairs taught; None for others."""
    kind = stage.name.rpartition("/")[0]
    if kind in ("gold/encoder", "gold/teacher"):
        return "gold alone"
    if kind not in ("gold/distill-bi", "gold/distill-cross"):
        return None
    gold = settings.gold
    if gold.weight == 0:
        return "silver alone"
    if gold.scenario == "gold":
        return "gold and rewritten" if gold.augment else "gold alone"
    return "gold and silver"


def start_label(method: str) -> str:
    """Name a run's first row."""
    return "start" if method == "none" else f"primed ({method})"
