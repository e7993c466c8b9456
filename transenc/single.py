"""One stage on explicit paths, with the same checkpoints and commit as inside a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transenc.errors import ConfigError
from transenc.store import Checkpoints, Store, fingerprint, sync


@contextmanager
def output_directory(out: Path, identity: dict[str, Any]) -> Iterator[tuple[Path, Checkpoints]]:
    """Give a temporary directory and checkpoints; `out` appears, whole, when the block succeeds.

    identity: what defines the result; only work begun with the same is continued. It is kept beside `out` as
    `.<name>.work` until then.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already. Choose another --out or remove it.")
    with _workshop(out) as store:
        key = fingerprint(identity)
        if not store.finished("result", key):
            with store.stage("result", key) as work:
                yield work, store.checkpoints("result", key)
        out.parent.mkdir(parents=True, exist_ok=True)
        store.path("result").rename(out)
        sync(out.parent)


@contextmanager
def output_file(out: Path) -> Iterator[Store]:
    """Give a store for the checkpoints of work whose result the block writes to the file `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(out) as store:
        yield store


@contextmanager
def _workshop(out: Path) -> Iterator[Store]:
    store = Store(out.parent / f".{out.name}.work")
    with store.lock():
        yield store
    shutil.rmtree(store.root, ignore_errors=True)
