"""Put into words what the stages of a plan will do: what they learn by, and where that is not as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transenc.config import METHODS, Distill, GoldSettings, LabelSettings, PrimeSettings, to_assignments
from transenc.kinds import is_teacher

if TYPE_CHECKING:
    from transenc.stage import Stage

# Of a training, told in words of their own; the batch and the passes are in the number of steps.
SAID = ("objective", "start", "learning_rate", "batch_size", "epochs")
JUDGED = ("dev", "held_out")  # what a training is judged on, which is told elsewhere
POOLED = {"pooling": "auto"}


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
