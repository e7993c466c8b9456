"""Plan what comes before the cycles when people labelled pairs (Augmented SBERT): a pure function of settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transenc.config import DistillSettings, GoldSettings, Settings
from transenc.stage import Stage, Student, label_settings, silver_settings

GOLD = "gold/pairs"
MIX = "gold/mix"


def families(settings: Settings) -> tuple[str, ...]:
    """Return which families learn from gold and silver pairs; the cycles go on from a bi-encoder."""
    chosen = {"bi": ("bi",), "cross": ("cross",), "both": ("bi", "cross")}[settings.gold.students]
    return chosen if "bi" in chosen or not settings.cycles else ("bi", *chosen)


def hardens(gold: GoldSettings) -> bool:
    """Tell whether the teacher's labels become 0 or 1; whether gold is binary is known."""
    binary = gold.silver == "auto" and gold.labels == "binary"
    return gold.scenario != "gold" and (binary or gold.silver == "hard")


def mix_stage(
    settings: Settings, name: str, silver: str | None, cycle: int = 0, keep: str | None = None
) -> Stage:
    """Return the stage that puts gold pairs beside those of the stage `silver`, if there is one."""
    gold = settings.gold
    # The published rule is for the teacher's labels; cycles need soft ones.
    hard = cycle == 0 and hardens(gold)
    values = {
        "keep": keep,
        "hard": gold.threshold if hard else None,
        "weight": gold.weight,
        "silver_weight": gold.silver_weight,
    }
    return Stage(name, "mix", values, (*([silver] if silver else []), GOLD), None, None, cycle)


def gold_stage(settings: Settings) -> Stage:
    """Return the stage that keeps the gold pairs of the run."""
    gold = settings.gold
    values = {"source": gold.source, "score_range": gold.score_range, "labels": gold.labels}
    return Stage(GOLD, "gold", values)


def encoder_stages(
    settings: Settings, students: Sequence[Student], *, needs_encoder: bool, dev: bool
) -> list[Stage]:
    """Return the bi-encoder, trained on gold alone, that a semantic sampler searches with (section 3.1)."""
    if not needs_encoder or settings.gold.scenario == "gold":
        return []
    return [_learner(settings, students[0], "bi", "gold/encoder", GOLD, settings.distill.bi, dev=dev)]


def gold_stages(settings: Settings, students: Sequence[Student], *, keeps: bool, dev: bool) -> list[Stage]:
    """Return the stages from gold labels to the students that are trained on gold and silver pairs.

    keeps: whether the sampler chooses pairs by their labels.
    """
    gold, stages = settings.gold, []
    if gold.scenario == "gold":
        if gold.augment:
            values = {"augment": list(gold.augment), "copies": gold.copies}
            stages.append(Stage("gold/augment", "augment", values, (GOLD,)))
        stages.append(mix_stage(settings, MIX, "gold/augment" if gold.augment else None))
    else:
        for student in students:
            stages.append(_learner(settings, student, "cross", "gold/teacher", GOLD, gold.teacher, dev=dev))
        labels = [
            Stage(
                f"gold/label-cross/{s.name}",
                "label",
                label_settings(settings, "cross"),
                ("pairs", f"gold/teacher/{s.name}"),
                s.name,
                "cross",
            )
            for s in students
        ]
        combine = silver_settings(settings, own=False)
        needs = ("pairs", *(s.name for s in labels))
        stages += [*labels, Stage("gold/silver-cross", "silver", combine, needs, None, "cross")]
        stages.append(mix_stage(settings, MIX, "gold/silver-cross", keep=settings.sampler if keeps else None))
    for family in families(settings):
        wanted: DistillSettings = getattr(settings.distill, family)
        for student in students:
            stages.append(_learner(settings, student, family, f"gold/distill-{family}", MIX, wanted, dev=dev))
    return stages


def for_gold(settings: Settings, family: str, wanted: DistillSettings) -> DistillSettings:
    """Return the settings of a student that learns from gold pairs, with the objective that their labels ask for."""
    # Squared errors pull unrelated pairs to a cosine of 0, which labels of 0 and 1 do not ask for.
    if family == "bi" and settings.gold.labels == "binary" and wanted.objective == "cosine_mse":
        wanted = wanted.model_copy(update={"objective": "contrastive"})
    return wanted


def _learner(
    settings: Settings,
    student: Student,
    family: str,
    name: str,
    pairs: str,
    wanted: DistillSettings,
    *,
    dev: bool,
) -> Stage:
    if wanted.start == "previous":  # there is no earlier model to go on from
        wanted = wanted.model_copy(update={"start": "primed"})
    wanted = for_gold(settings, family, wanted)
    values: dict[str, Any] = {**wanted.model_dump(), "pooling": settings.pooling, "dev": dev}
    return Stage(
        f"{name}/{student.name}", "distill", values, (pairs, f"prime/{student.name}"), student.name, family
    )
