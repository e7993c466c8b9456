"""Put into words what the stages of a plan will do: what they learn by, and where that is not as published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transenc.agreement import held_out
from transenc.cli.gold import about_gold, learnt_from
from transenc.config import METHODS, Distill, GoldSettings, LabelSettings, PrimeSettings, to_assignments
from transenc.kinds import is_teacher

if TYPE_CHECKING:
    from transenc.pairs import Pairs
    from transenc.session import Session
    from transenc.stage import Stage

# Of a training, told in words of their own; the batch and the passes are in the number of steps.
SAID = ("objective", "start", "learning_rate", "batch_size", "epochs")
JUDGED = ("dev", "held_out")  # what a training is judged on, which is told elsewhere
POOLED = {"pooling": "auto"}


def about(stage: Stage, session: Session, pairs: Pairs) -> str:
    """Say what a stage of a run will do; pairs: those that it works on."""
    n = len(pairs)
    if stage.kind == "pairs":
        return f"{n:,} pairs, {len(pairs.sentences):,} sentences"
    if stage.kind in ("label", "silver"):
        return f"{n:,} pairs{about_labels(stage)}"
    if stage.kind == "distill":
        return f"{_examples(stage, session, n)}, {about_training(stage)}"
    if stage.kind == "prime":
        return about_priming(stage)
    if stage.kind == "agree":
        return f"{len(held_out(n, stage.settings['held_out'], session.settings.seed)):,} held-out pairs"
    if stage.kind == "evaluate":
        return f"{sum(len(p) for p in session.inputs.tests.values()):,} test pairs"
    if stage.kind == "select":
        return f"by {stage.settings['by']}"
    return about_gold(stage, session) if stage.kind in ("gold", "augment", "mix") else ""


def _examples(stage: Stage, session: Session, n: int) -> str:
    """Count the examples and steps of a training where n pairs are mined or given."""
    both = stage.settings["both_orders"] is not False and session.inputs.symmetric and stage.family != "bi"
    share = stage.settings.get("held_out")
    judged = len(held_out(n, share, session.settings.seed)) if share else 0
    taught, most = learnt_from(stage.needs[0], session, n)
    if judged:  # a pair that stands there twice may be held out once
        most = "up to "
    examples = (taught - judged) * (2 if both else 1)
    steps = math.ceil(examples / stage.settings["batch_size"]) * stage.settings["epochs"]
    return f"{most}{examples:,} examples, {steps:,} steps of {stage.settings['batch_size']}"


def about_training(stage: Stage) -> str:
    """Say what a student learns by and begins from, and its settings that are not those of Table 16."""
    of_gold = stage.group == "gold.teacher"
    published = (GoldSettings().teacher if of_gold else getattr(Distill(), str(stage.family))).model_dump()
    chosen = {k: v for k, v in stage.settings.items() if k != "pooling" or stage.family == "bi"}
    epochs = f"{chosen['epochs']} epoch{'s' if chosen['epochs'] > 1 else ''}"
    said = (
        f"{epochs}; {chosen['objective']} from {chosen['start']}, learning rate {chosen['learning_rate']:g}"
    )
    return said + _others(chosen, published | POOLED, leave_out=(*SAID, *JUDGED))


def about_priming(stage: Stage) -> str:
    """Name the method of priming, and its settings that are not those it was published with."""
    method = str(stage.settings["method"])
    if method == "none":
        return "as it is"
    published = PrimeSettings().model_dump() | METHODS[method] | POOLED
    return method + _others(stage.settings, published, leave_out=("method", "corpus", *JUDGED))


def about_labels(stage: Stage) -> str:
    """Say how labels are made of scores, where it is not the plain score of one teacher."""
    if stage.kind == "label":
        return ", both orders" if stage.settings.get("both_orders") else ""
    teachers = sum(is_teacher(name, stage) for name in stage.needs[1:])
    several = f", {stage.settings['combine']} of {teachers} teachers" if teachers > 1 else ""
    return several + _others(stage.settings, LabelSettings().model_dump(), leave_out=("combine",))


def _others(chosen: Mapping[str, Any], published: Mapping[str, Any], *, leave_out: tuple[str, ...]) -> str:
    changed = {
        key: value for key, value in chosen.items() if key not in leave_out and value != published[key]
    }
    return "; " + ", ".join(to_assignments(changed)) if changed else ""
