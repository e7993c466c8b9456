"""Plan a whole run as a list of stages: a pure function of settings, for dry runs, resuming and tests alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transenc.config import Settings

# A half-cycle is (teaching family, learning family); a recipe is a ring of them.
HALF_CYCLES = (("bi", "cross"), ("cross", "bi"))


@dataclass(frozen=True)
class Student:
    """One start and its name in the run: one student is self-distillation, several are mutual."""

    name: str
    plm: str
    prime: str


@dataclass(frozen=True)
class Stage:
    """One unit of work that is committed whole.

    name: its directory below the run. settings: what defines its result. needs: names of the stages it reads.
    """

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    student: str | None = None
    family: str | None = None
    cycle: int = 0


def student_names(plms: Sequence[str]) -> list[str]:
    """Name students after their starts: the last part of the name, numbered where two would be equal."""
    taken: list[str] = []
    for plm in plms:
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", plm.rstrip("/").rpartition("/")[2]).strip(".-") or "student"
        name, number = base, 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        taken.append(name)
    return taken


def model_stages(stages: Sequence[Stage], student: str, family: str) -> list[Stage]:
    """Return the stages that made a model of this student and family, the start first."""
    return [
        s for s in stages if s.kind in ("prime", "distill") and s.student == student and s.family == family
    ]


def plan(
    settings: Settings, students: Sequence[Student], *, tests: bool = False, dev: bool = False
) -> list[Stage]:
    """Return the stages of a run in order; no file is read and nothing heavy imported.

    tests: whether there is anything to evaluate on. dev: whether development data can select.
    """
    source = {
        "task": settings.task,
        "pairs": bool(settings.pairs),
        "corpus": bool(settings.corpus),
        "inductive": settings.inductive,
        "sampler": None if settings.pairs else settings.sampler,
        "max_pairs": settings.max_pairs,
    }
    stages = [Stage("pairs", "pairs", source)]
    teacher: dict[str, str] = {}
    for student in students:
        prime = settings.prime.model_copy(update={"method": student.prime})
        chosen = prime.model_dump() if student.prime != "none" else {"method": "none"}
        name = f"prime/{student.name}"
        stages.append(
            Stage(
                name,
                "prime",
                {**chosen, "pooling": settings.pooling, "dev": dev},
                ("pairs",),
                student.name,
                "bi",
            )
        )
        teacher[student.name] = name
    for cycle in range(1, settings.cycles + 1):
        for teaching, learning in HALF_CYCLES:
            stages += _half_cycle(settings, students, cycle, teaching, learning, teacher, dev=dev)
    models = [s for s in stages if s.kind in ("prime", "distill")]
    by = "last" if settings.select == "dev" and not dev else settings.select
    needs = tuple(s.name for s in models)
    if by == "agreement":
        judged = [_judged(settings, s) for s in models]
        stages += judged
        needs += tuple(s.name for s in judged)
    stages.append(Stage("select", "select", {"by": by}, needs))
    if tests:
        tested = [
            Stage(f"evaluate/{s.name}", "evaluate", {}, (s.name,), s.student, s.family, s.cycle)
            for s in models
        ]
        stages += tested
        if len(students) > 1:
            for of, family in (("start", "bi"), ("best", "bi"), ("best", "cross")):
                members = [s.name for s in tested if s.family == family and (of == "best" or s.cycle == 0)]
                name = f"ensemble/{of}-{family}"
                stages.append(Stage(name, "ensemble", {"of": of}, ("select", *members), None, family))
    for family in ("bi", "cross"):
        for student in students:
            name = f"best/{family}" if len(students) == 1 else f"best/{family}/{student.name}"
            candidates = tuple(s.name for s in model_stages(stages, student.name, family))
            stages.append(Stage(name, "best", {}, ("select", *candidates), student.name, family))
    return stages


def _judged(settings: Settings, model: Stage) -> Stage:
    """Return the stage that judges a model on the held-out pairs, beside the labels that it learnt from."""
    learnt_from = (model.needs[0],) if model.kind == "distill" else ()
    return Stage(
        f"agreement/{model.name}",
        "agree",
        {"held_out": settings.held_out},
        (model.name, "pairs", *learnt_from),
        model.student,
        model.family,
        model.cycle,
    )


def batches(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Group neighbouring stages of one kind, one student each, that need nothing of each other."""
    groups: list[list[Stage]] = []
    for stage in stages:
        group = groups[-1] if groups else []
        alike = bool(group) and (stage.kind, stage.family, stage.cycle) == (
            group[0].kind,
            group[0].family,
            group[0].cycle,
        )
        new = stage.student is not None and stage.student not in [s.student for s in group]
        if alike and new and not {s.name for s in group} & set(stage.needs):
            group.append(stage)
        else:
            groups.append([stage])
    return groups


def _half_cycle(
    settings: Settings,
    students: Sequence[Student],
    cycle: int,
    teaching: str,
    learning: str,
    teacher: dict[str, str],
    *,
    dev: bool,
) -> list[Stage]:
    """Label with every student's teaching model, combine, and train every student's learning model.

    teacher: the newest model of each student, read here and replaced by the new ones.
    """
    at = f"cycle-{cycle}"
    label = settings.label
    # A bi-encoder's score is the same in both orders.
    orders = {"both_orders": True} if label.both_orders and teaching == "cross" else {}
    labels = [
        Stage(
            f"{at}/label-{teaching}/{s.name}",
            "label",
            orders,
            ("pairs", teacher[s.name]),
            s.name,
            teaching,
            cycle,
        )
        for s in students
    ]
    silver = f"{at}/silver-{teaching}"
    combine = label.model_dump(include={"combine", "transform", "mix", "clip"})
    if teaching == "bi":  # its labels are its own scores: there is nothing to match or to mix in
        combine |= {"mix": 0.0, "transform": "rank" if label.transform == "rank" else "none"}
    # What the bi-encoders gave the same pairs in this cycle, for labels that keep some of it.
    own = [f"{at}/label-bi/{s.name}" for s in students if label.mix or label.transform == "match"]
    scores = [s.name for s in labels] + (own if teaching == "cross" else [])
    stages = [
        *labels,
        Stage(silver, "silver", combine, ("pairs", *scores), None, teaching, cycle),
    ]
    wanted = getattr(settings.distill, learning)
    for student in students:
        needs = [silver, f"prime/{student.name}"]
        if wanted.start == "previous":
            needs.append(teacher[student.name])
        name = f"{at}/distill-{learning}/{student.name}"
        chosen = {**wanted.model_dump(), "pooling": settings.pooling, "dev": dev}
        if settings.select == "agreement":
            chosen["held_out"] = settings.held_out
        stages.append(
            Stage(name, "distill", chosen, tuple(dict.fromkeys(needs)), student.name, learning, cycle)
        )
        teacher[student.name] = name
    return stages
