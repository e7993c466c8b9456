"""Find finished runs and their best models, by files alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from transenc.errors import ConfigError, DamagedError
from transenc.store import verify

RUNS = Path("runs")


def newest_run(runs: Path = RUNS) -> Path | None:
    """Return the run under `runs` whose best models were committed last, or None."""
    places = [*sorted(runs.glob("*")), *sorted(runs.glob("*/seed-*"))] if runs.is_dir() else []
    found = [p for p in places if best_models(p)]
    return max(found, key=lambda p: (p / "best").stat().st_mtime_ns) if found else None


def best_models(run: Path) -> list[Path]:
    """List the best model directories of a finished run, bi-encoders first."""
    return [
        p.parent for family in ("bi", "cross") for p in sorted((run / "best" / family).rglob("best.json"))
    ]


def models_of(run: Path | None, *, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Return the verified best models of `run`, or of the newest run under runs/, which `say` is told.

    Raise ConfigError when there is none, and DamagedError when one does not match its manifest.
    """
    if run is None:
        run = newest_run()
        if run is None:
            raise ConfigError("No finished run under runs/. Name a model with --model, or a run with --run.")
        say(f"newest finished run: {run}")
    models = best_models(run)
    if not models:
        raise ConfigError(
            f"{run} holds no finished run (no best/). Finish it with its cycle command, or name --model."
        )
    _refuse_parts(run, models)
    for model in models:
        _verify(model)
    return models


def _verify(stage: Path) -> None:
    try:
        verify(stage)
    except DamagedError as error:
        raise DamagedError(f"{error} Remove {stage} and run the cycle command of this run again.") from error


def _refuse_parts(run: Path, models: list[Path]) -> None:
    """Raise ConfigError for a run that was stopped between its best models, or has lost one."""
    chosen = run / "select" / "select.json"
    if not chosen.is_file():
        return
    _verify(chosen.parent)
    keys = list(json.loads(chosen.read_text(encoding="utf-8"))["chosen"])  # family/student
    have = {p.relative_to(run / "best").parts[0] for p in models}
    missing = [key for key in keys if key.partition("/")[0] not in have]
    if missing or len(models) < len(keys):
        lost = f"best/{missing[0].partition('/')[0]}" if missing else "a student's model"
        raise ConfigError(
            f"{run} is not whole: {lost} is missing. Run its cycle command again, or name --model."
        )
