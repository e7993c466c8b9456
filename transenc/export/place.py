"""Put a finished engine directory in its place, whole, or leave what was there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from transenc import store
from transenc.errors import ConfigError, LockedError
from transenc.export.engine import SIDECAR


@contextmanager
def place(out: Path, *, size: int) -> Iterator[Path]:
    """Give an empty directory beside `out` to work in; it is gone after the block, whatever happens.

    size: bytes that may be written, checked first. What a killed process left beside `out` is mended before.
    Raises ConfigError where `out`, or what has the name under which it is set aside, is no engine, and
    LockedError while another process exports there.
    """
    out = _named(out)
    old = _aside(out)
    for path in (out, old):
        refuse_other(path)
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with _folder(out.parent), _locked(out):
        if old.exists() and not out.exists():
            old.rename(out)  # killed between the two renames of `commit`
        for left in out.parent.iterdir():
            # Containers reuse process numbers: one of this number is not this process's, which has made none yet.
            found = re.fullmatch(rf"\.{re.escape(out.name)}\.(\d+)\.tmp(\.ready)?", left.name)
            if found and (int(found[1]) == os.getpid() or not _alive(int(found[1]))):
                shutil.rmtree(left, ignore_errors=True)
        if old.exists():  # killed before it was gone; renamed first, since half removed it would be nobody's
            shutil.rmtree(old.rename(work.with_name(f"{work.name}.ready")), ignore_errors=True)
        store.need_space(out.parent, size)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a directory and its parents for the block; those that are empty after it are gone again."""
    made = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def refuse_other(path: Path) -> None:
    """Raise ConfigError where something is that is no engine: it is not this package's to replace."""
    if path.is_symlink() or (path.exists() and not (path / SIDECAR).is_file()):
        raise ConfigError(f"{path} exists already and is no engine. Choose another place or remove it.")


def _named(out: Path) -> Path:
    """Return a path that has a name of its own, which `.` lacks."""
    return out.resolve() if out.name in ("", "..") else out


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes from exporting to `out` for the block; the kernel's lock dies with its process."""
    file = out.with_name(f".{out.name}.transenc-lock")
    lock = store.kernel_lock(file, option="--out")
    if lock is None:
        raise LockedError(
            f"Another process exports to {out}. Wait for it, or choose another place with --out."
        )
    try:
        yield
    finally:
        # While it is held: a process that has opened it meanwhile finds that it has no name any more.
        file.unlink(missing_ok=True)
        lock.release()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def commit(work: Path, out: Path, *, identity: str, info: dict[str, Any]) -> None:
    """Give a finished engine its manifest and its name; an older engine of that name is replaced by it, whole."""
    out = _named(out)
    if not out.exists():
        store.commit(work, out, identity=identity, info=info)
        return
    ready, old = work / "ready", _aside(out)
    inner = work.with_name(f"{work.name}.ready")
    store.commit(work, inner, identity=identity, info=info)
    work.mkdir()
    inner.rename(ready)  # so that it goes with `work` if anything below fails
    out.rename(old)
    try:
        ready.rename(out)
    except BaseException:
        old.rename(out)
        raise
    store.sync(out.parent)
    old.rename(work / "old")  # so that it goes with `work`


def commit_at_close(hold: ExitStack, work: Path, out: Path, *, identity: str, info: dict[str, Any]) -> None:
    """Let `hold` commit a finished engine when it closes, unless an error closes it."""

    def close(kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            commit(work, out, identity=identity, info=info)

    hold.push(close)
