"""Put a finished engine directory in its place, whole, or leave what was there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transenc import store


@contextmanager
def place(out: Path, *, size: int) -> Iterator[Path]:
    """Give an empty directory beside `out` to work in; it is gone after the block, whatever happens.

    size: bytes that may be written, checked first. What a killed process left beside `out` is mended before.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(f".{out.name}.old")
    if old.exists() and not out.exists():
        old.rename(out)  # killed between the two renames of `commit`
    shutil.rmtree(old, ignore_errors=True)
    for left in out.parent.glob(f".{out.name}.*.tmp*"):
        number = left.name.removesuffix(".ready").removesuffix(".tmp").rpartition(".")[2]
        # In containers numbers come again: one of this number is not this process's, which has made none yet.
        if number.isdecimal() and (int(number) == os.getpid() or not _alive(int(number))):
            shutil.rmtree(left, ignore_errors=True)
    store.need_space(out.parent, size)
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
    if not out.exists():
        store.commit(work, out, identity=identity, info=info)
        return
    ready, old = work / "ready", out.with_name(f".{out.name}.old")
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
    shutil.rmtree(old, ignore_errors=True)
