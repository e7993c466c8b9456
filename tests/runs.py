"""A complete run in a second or two, for the tests of running, resuming and damage."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import make_pairs
from transenc.cli.app import main
from transenc.config import build
from transenc.cycle import plan
from transenc.digests import plm_digest
from transenc.interrupt import StopFlag
from transenc.models.device import Compute
from transenc.models.intake import resolve
from transenc.pairs import Pairs
from transenc.record import record
from transenc.runner import Runner
from transenc.stage import Student
from transenc.stages.context import Context
from transenc.store import Store

SMALL: dict[str, Any] = {
    "precision": "fp32",
    "pooling": "mean",
    "prime": {"method": "simcse", "batch_size": 16, "evaluate_every": 2, "learning_rate": 1e-3},
    "label": {"shard": 24},
    "distill": {
        "cross": {"batch_size": 8, "evaluate_every": 3, "learning_rate": 1e-3, "max_length": 32},
        "bi": {"epochs": 2, "batch_size": 12, "evaluate_every": 2, "learning_rate": 1e-3, "max_length": 16},
    },
}


def run_command(*arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    argv, sys.argv = sys.argv, ["transenc", *arguments]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = argv
    return 0


def small_runner(
    root: Path,
    plm: Path,
    *,
    students: int = 1,
    cycles: int = 1,
    stop: StopFlag | None = None,
    changes: dict[str, Any] | None = None,
    n: int = 24,
    computes: int = 1,
    gold: Callable[[Pairs], Pairs] = lambda pairs: pairs,
) -> tuple[Runner, list[Any]]:
    from transenc.config import merge

    settings = build(merge(SMALL, {"plm": [str(plm)] * students, "cycles": cycles}, changes or {}))
    names = [Student(f"s{i}", str(plm), "simcse") for i in range(students)]
    found = resolve(str(plm))
    context = Context(
        store=Store(root),
        settings=settings,
        compute=Compute("cpu", "fp32"),
        plms={s.name: found for s in names},
        dev=gold(make_pairs(12, seed=1, scored=True)),
        tests={"test": gold(make_pairs(10, seed=2, scored=True))},
        stop=stop or StopFlag(),
        checkpoint_every=3,
    )
    digests: dict[str, Any] = {f"plm:{s.name}": plm_digest(plm) for s in names}
    runner = Runner(context, lambda: (make_pairs(n), []), digests)
    runner.computes = [context.compute] * computes
    by_dev = settings.select in ("auto", "dev")
    return runner, plan(settings, names, tests=True, dev=by_dev)


def stage_names() -> list[str]:
    settings = build({**SMALL, "plm": ["x"], "cycles": 1})
    return [s.name for s in plan(settings, [Student("s0", "x", "simcse")], tests=True, dev=True)]


def run_small(root: Path, plm: Path, *, upto: int | None = None, **options: Any) -> None:
    """Run all stages, or the first `upto` of them."""
    runner, stages = small_runner(root, plm, **options)
    with runner.context.store.lock():
        record(runner.context)
        runner.run(stages[:upto])


def content(root: Path) -> dict[str, str]:
    """The sha256 of every file of a run that is not about times or places."""
    skip = {"events.jsonl", "run.json", "run.lock", "run.holder"}
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name not in skip
    }
