"""The same run with several seeds: a directory each, their mean and standard deviation, and how to repeat each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transenc.errors import ConfigError


def parse_seeds(text: str) -> list[int]:
    """Read `5` as the seeds 1 to 5, and `3,7` (or `3,`) as those seeds; raise ConfigError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    listed = len(parts) > 1
    if listed and parts[-1] == "":
        parts.pop()
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--seeds takes a count such as 5, or seeds such as 1,2,3, not '{text}'.")
    numbers = [int(part) for part in parts]
    seeds = numbers if listed else list(range(1, numbers[0] + 1))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text}: give at least one seed, each once.")
    return seeds


def seed_root(parent: Path, seed: int) -> Path:
    """Return the run directory of one seed."""
    return parent / f"seed-{seed}"


def reproduce(argv: Sequence[str], seed: int, parent: Path) -> str:
    """Return the command that repeats one seed elsewhere, from the command that ran them all."""
    kept: list[str] = []
    dropping = False
    for word in argv:
        if dropping:
            dropping = False
            continue
        if word in ("--seeds", "--run", "--seed"):
            dropping = True
        elif not word.startswith(("--seeds=", "--run=", "--seed=")):
            kept.append(word)
    again = parent.with_name(f"{parent.name}-again")
    return shlex.join(["transenc", *kept, "--seed", str(seed), "--run", str(seed_root(again, seed))])


def summarise(results: dict[int, dict[str, Any]], commands: dict[int, str]) -> dict[str, Any]:
    """Return mean and standard deviation (n - 1) over seeds of the starts, the best models and the ensembles.

    results: what results.json of each seed holds. The best models are those that each run kept, whatever their cycle;
    what each has over its student's start is taken seed by seed, as the starts differ between seeds as well.
    """
    models: dict[str, dict[int, dict[str, float]]] = {}
    gains: dict[str, dict[int, dict[str, float]]] = {}
    for seed, found in results.items():
        for name, (row, start) in _kept(found).items():
            values = _values(row)
            models.setdefault(name, {})[seed] = values
            if start is not None:
                before = _values(start)
                gained = {
                    column: value - before[column] for column, value in values.items() if column in before
                }
                gains.setdefault(name, {})[seed] = gained
    first = next(iter(results.values()))
    return {
        "schema": 1,
        "seeds": list(results),
        "selection": first["selection"],
        "settings": {str(seed): found["setting"] for seed, found in results.items()},
        "metrics": first["metrics"],
        "models": {name: _spreads(by_seed) for name, by_seed in models.items()},
        "gains": {name: _spreads(by_seed) for name, by_seed in gains.items()},
        "per_seed": {name: {str(s): v for s, v in by_seed.items()} for name, by_seed in models.items()},
        "commands": {str(seed): command for seed, command in commands.items()},
    }


def _kept(found: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return the rows of a run that are compared over seeds, by a name that all seeds share.

    Beside each of the best models stands its student's start, beside the others None.
    """
    many = len(found["plm"]) > 1
    rows = {r["path"]: r for r in found["rows"]}
    starts: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:  # a student's first row is its start
        starts.setdefault(row["student"], row)

    def name(kind: str, family: str, student: str) -> str:
        return f"{kind}, {family}" + (f", {student}" if many else "")

    kept: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {}
    kept |= {name("raw", "bi", row["student"]): (row, None) for row in found.get("raw", [])}
    kept |= {name("start", "bi", student): (row, None) for student, row in starts.items()}
    for best in found["best"]:
        student = best["student"]
        kept[name("best", best["family"], student)] = rows[best["model"]], starts[student]
    kept |= {f"{row['label']}, {row['family']}": (row, None) for row in found["ensembles"]}
    return kept


def _values(row: dict[str, Any]) -> dict[str, float]:
    values = {} if row["dev"] is None else {"dev": row["dev"]}
    values |= row["tests"]
    values |= {f"{name} AP": value for name, value in row["average_precision"].items()}
    if row["average"] is not None and len(row["tests"]) > 1:
        values["average"] = row["average"]
    return values


def _spreads(by_seed: dict[int, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    columns = list(dict.fromkeys(column for values in by_seed.values() for column in values))
    return {
        column: _spread([values[column] for values in by_seed.values() if column in values])
        for column in columns
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "n": len(values)}
