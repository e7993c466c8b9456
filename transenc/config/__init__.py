"""Run settings: frozen, every field explained, unknown keys refused, from recipe, YAML file and flags."""

from __future__ import annotations

from transenc.config.recipe import DEFAULT_RECIPE, check_students, recipe_layers, recipe_title, recipes
from transenc.config.settings import (
    BY_TEXT,
    COMPARING,
    METHODS,
    OBJECTIVES,
    UNFIT,
    Distill,
    DistillSettings,
    FitSettings,
    Frozen,
    GoldSettings,
    LabelSettings,
    PrimeSettings,
    Settings,
    check_objective,
    parse_average,
)
from transenc.config.text import load_file, parse_yaml
from transenc.config.values import (
    build,
    check_once,
    check_primed_on,
    check_used,
    from_assignments,
    merge,
    to_assignments,
)

__all__ = [
    "BY_TEXT", "COMPARING", "DEFAULT_RECIPE", "METHODS", "OBJECTIVES", "UNFIT", "Distill", "DistillSettings",
    "FitSettings", "Frozen", "GoldSettings", "LabelSettings", "PrimeSettings", "Settings", "build",
    "check_objective", "check_once", "check_primed_on", "check_students", "check_used", "from_assignments",
    "load_file", "merge", "parse_average", "parse_yaml", "recipe_layers", "recipe_title", "recipes", "to_assignments",
]  # fmt: skip
