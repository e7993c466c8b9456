"""Keep finished stages by fingerprint, so that what several runs have in common is made once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from transenc.record import record
from transenc.session import Session
from transenc.stage import Stage


def fetch(session: Session, stages: Sequence[Stage], cache: Path) -> None:
    """Let the stages that the cache holds appear in the run directory, whose lock the caller holds."""
    record(session.context)
    identities = session.runner.identities(stages)
    for stage in stages:
        _copy(cache / identities[stage.name], session.context.store.path(stage.name))


def put(session: Session, stages: Sequence[Stage], cache: Path) -> None:
    """Give the cache these finished stages of the run directory."""
    identities = session.runner.identities(session.stages)
    for stage in stages:
        _copy(session.context.store.path(stage.name), cache / identities[stage.name])


def _copy(source: Path, to: Path) -> None:
    """Let a committed directory appear at `to` too, if it exists and `to` does not; the files are shared."""
    if not source.is_dir() or to.exists():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    half = to.with_name(f".{to.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half, copy_function=os.link)
    half.rename(to)
