"""Recipes: named settings that are shipped with transenc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from transenc.config.text import parse_yaml
from transenc.errors import ConfigError
from transenc.registry import did_you_mean

DEFAULT_RECIPE = "best"  # of `transenc cycle`


def recipes() -> list[str]:
    """List the recipes shipped with transenc."""
    folder = files("transenc") / "recipes"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def recipe_title(name: str) -> str:
    """Return what a recipe of ours is for, in one line."""
    return str(_read(name)["title"])


def recipe_layers(
    name: str, *, task: str | None, metric: str | None, raw: Callable[[], bool] = lambda: False
) -> list[dict[str, Any]]:
    """Return a recipe's settings, then what it changes for a kind of start, for a metric and for a task.

    raw: tells whether no start was trained for similarity before; only a recipe that cares asks.
    """
    if name not in recipes():
        raise ConfigError(
            f"No recipe named '{name}'.{did_you_mean(name, recipes())} There are: {', '.join(recipes())}."
        )
    values = _read(name)
    by_start = values.pop("for_start", None)
    by_metric, by_task = values.pop("for_metric", {}), values.pop("for_task", {})
    for_start = by_start.get("raw" if raw() else "tuned", {}) if by_start else {}
    like = values.pop("like", None)
    inherited = recipe_layers(like, task=task, metric=metric, raw=raw) if like else []
    for told in ("title", "students"):  # no settings
        values.pop(told, None)
    return [
        *inherited,
        {**values, "recipe": name},
        for_start,
        by_metric.get(metric, {}),
        by_task.get(task, {}),
    ]


def check_students(recipe: str, plms: Sequence[str]) -> None:
    """Raise ConfigError when a recipe of ours needs more starts than were named."""
    if recipe not in recipes():
        return
    least = int(_read(recipe).get("students", 1))
    if len(plms) < least:
        raise ConfigError(
            f"Recipe '{recipe}' needs {least} students and {', '.join(plms)} is one: repeat --plm NAME, "
            "or take --recipe self."
        )


def _read(name: str) -> dict[str, Any]:
    text = (files("transenc") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = parse_yaml(text, f"recipe {name}")
    return values
