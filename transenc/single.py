"""One stage on explicit paths, with the same checkpoints and commit as inside a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transenc.errors import ConfigError
from transenc.store import Checkpoints, Store, fingerprint, sync


def make_directory(out: Path, identity: dict[str, Any], make: Callable[[Path, Checkpoints], None]) -> None:
    """Call `make(directory, checkpoints)` and let `out` appear, whole, when it succeeds.

    identity: what defines the result; only work begun with the same is continued. It is kept beside `out` as
    `.<name>.work` until then.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already. Choose another --out or remove it.")
    with _workshop(out) as store:
        key = fingerprint(identity)
        # A process may have died between the commit and the last rename; then only the rename is left.
        if not store.finished("result", key):
            with store.stage("result", key) as work:
                make(work, store.checkpoints("result", key))
        store.path("result").rename(out)
        sync(out.parent)


@contextmanager
def output_file(out: Path) -> Iterator[Store]:
    """Give a store for the checkpoints of work whose result the block writes to the file `out`."""
    with _workshop(out) as store:
        yield store


@contextmanager
def _workshop(out: Path) -> Iterator[Store]:
    out.parent.mkdir(parents=True, exist_ok=True)
    store = Store(out.parent / f".{out.name}.work")
    with store.lock():
        yield store
    shutil.rmtree(store.root, ignore_errors=True)
