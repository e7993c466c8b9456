"""The units of work that a plan is made of: what names, groups and describes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transenc.config import Settings

# Kinds of stages that look at the models of all cycles, each in a directory of its own below the run.
OVER_CYCLES = ("select", "ensemble", "best")


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

    @property
    def mines_for_bi(self) -> bool:
        """Tell whether this makes the pairs of bi-encoders alone."""
        return self.settings.get("of") == "bi"

    @property
    def group(self) -> str | None:
        """Name the group of run.yaml that a training's settings are of; None for what trains nothing."""
        if self.kind == "distill":
            return distill_group(self.name, str(self.family))
        return "prime" if self.kind == "prime" and self.settings["method"] != "none" else None


def distill_group(stage: str, family: str) -> str:
    """Name the group of run.yaml that has the settings of this stage, in which a family learns labels."""
    return "gold.teacher" if stage.startswith("gold/teacher/") else f"distill.{family}"


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


def label_settings(settings: Settings, teaching: str) -> dict[str, Any]:
    """Return the settings of stages in which a family labels; a bi-encoder's score is the same in both orders."""
    return {"both_orders": True} if settings.label.both_orders and teaching == "cross" else {}


def silver_settings(settings: Settings, *, own: bool) -> dict[str, Any]:
    """Return the settings of a stage that combines labels.

    own: whether a bi-encoder's scores of the same pairs are there, to match or to mix in.
    """
    label = settings.label
    values = label.model_dump(include={"combine", "transform", "mix", "clip"})
    if not own:
        values |= {"mix": 0.0, "transform": "rank" if label.transform == "rank" else "none"}
    return values
