"""One stage on explicit paths, with the same checkpoints and commit as inside a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transenc.errors import ConfigError, DamagedError, MachineError
from transenc.store import Checkpoints, Store, fingerprint, manifest, sync


def make_directory(out: Path, identity: dict[str, Any], make: Callable[[Path, Checkpoints], None]) -> None:
    """Call `make(directory, checkpoints)` and let `out` appear, whole, when it succeeds.

    identity: what defines the result; only work begun with the same is continued. It is kept beside `out` as
    `.<name>.work` until then.
    """
    key, left = fingerprint(identity), _work_of(out)
    if left.is_dir() and _made_from(out) == key:
        shutil.rmtree(left, ignore_errors=True)  # a process died after its last rename: all is done
        return
    refuse_existing(out)
    with _workshop(out) as store:
        # A process may have died between the commit and the last rename; then only the rename is left.
        if not store.finished("result", key):
            with store.stage("result", key) as work:
                make(work, store.checkpoints("result", key))
        _refuse_come(out, store)
        store.path("result").rename(out)
        sync(out.parent)


def refuse_existing(out: Path) -> None:
    """Raise ConfigError for a result that would replace what is there or lie in a file; MachineError if forbidden."""
    if _taken(out):
        told, left = f"{out} exists already. Choose another --out or remove it.", _work_of(out)
        if left.is_dir():
            told += f" {left} is left of a call that did not end: remove it, unless it is to go on."
        raise ConfigError(told)
    there = next(path for path in out.absolute().parents if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{there} is a file, so {out} cannot lie in it. Choose another --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MachineError(f"{there} may not be written to. Choose another --out, or mend that.")


@contextmanager
def output_file(out: Path) -> Iterator[tuple[Store, Path]]:
    """Give a store for checkpoints, and where the block writes the file that becomes `out`, whole, after it."""
    with _workshop(out) as store:
        result = store.temporary() / out.name
        yield store, result
        _refuse_come(out, store)
        result.rename(out)
        sync(out.parent)  # before the checkpoints go


def _made_from(out: Path) -> str | None:
    try:
        return manifest(out).fingerprint
    except DamagedError:  # nothing of ours, or not whole any more
        return None


def _taken(out: Path) -> bool:
    return out.exists() or out.is_symlink()


def _work_of(out: Path) -> Path:
    return out.parent / f".{out.name}.work"


@contextmanager
def _workshop(out: Path) -> Iterator[Store]:
    out.parent.mkdir(parents=True, exist_ok=True)
    store = Store(_work_of(out), option="--out")
    with store.lock():
        _refuse_come(out, store)
        try:
            yield store
        except Exception:
            _clear_idle(store)
            raise
        # Under the lock: after it, another process may work there.
        shutil.rmtree(store.root, ignore_errors=True)


def _refuse_come(out: Path, store: Store) -> None:
    """Refuse a result that another process has made since the caller looked."""
    if _taken(out):
        _clear_idle(store)  # first, as what is left is named
        refuse_existing(out)


def _clear_idle(store: Store) -> None:
    """Remove a store that has no work to continue: nothing but what a lock leaves."""
    root = store.root
    if root.is_dir() and {path.name for path in root.iterdir()} <= {"run.lock", "run.holder", "tmp"}:
        shutil.rmtree(root, ignore_errors=True)
