"""The run directory: committed stages, checkpoints, one kernel lock, resume by content.

A directory is written under `tmp/`, flushed, given a manifest of sizes and sha256 as its last file, and
renamed into place. So finished means: the directory exists under its final name and verifies. Nothing here
knows models.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from transenc.errors import ConfigError, DamagedError, LockedError, MachineError

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
SCHEMA = 1


def canonical(value: Any) -> bytes:
    """Serialise plain data to the one JSON text that equal data share; NaN is refused."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"


def fingerprint(value: Any) -> str:
    """Return the sha256 of plain data: the identity of a stage."""
    return hashlib.sha256(canonical(value)).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):  # hashlib.file_digest came with Python 3.11
            digest.update(block)
    return digest.hexdigest()


def hash_tree(directory: Path, *, skip: str = "") -> dict[str, str]:
    """Return the sha256 of every file below a directory, by relative path; `skip` is a folder to leave out."""
    names = (name for name in _files(directory) if not skip or not name.startswith(f"{skip}/"))
    return {name: hash_file(directory / name) for name in names}


def _files(directory: Path) -> list[str]:
    found = (p for p in directory.rglob("*") if p.name != MANIFEST and not p.is_dir())
    return sorted(p.relative_to(directory).as_posix() for p in found)


def sync(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that takes the place of `path` after the block, durably; if that fails, nothing changes.

    A reader, or a crash, sees the old content or the new, never a part.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Replace one file, whole or not at all."""
    with replacing(path) as file:
        file.write(content)


@dataclass(frozen=True)
class Manifest:
    """What a committed directory holds: its fingerprint, the sha256 of its files, and a few facts."""

    fingerprint: str
    files: dict[str, dict[str, Any]]
    info: dict[str, Any]


def commit(temporary: Path, final: Path, *, identity: str, info: Mapping[str, Any] | None = None) -> None:
    """Give a finished temporary directory its manifest and its final name, durably.

    identity: the fingerprint of what went in. info: plain facts to keep; no times, so that equal work is
    equal bytes.
    """
    files: dict[str, dict[str, Any]] = {}
    for name in _files(temporary):
        path = temporary / name
        if path.is_symlink() or not path.is_file():
            raise DamagedError(f"{path} is not a plain file")
        sync(path)
        files[name] = {"sha256": hash_file(path), "size": path.stat().st_size}
    content = {"schema": SCHEMA, "fingerprint": identity, "files": files, "info": dict(info or {})}
    write_file(temporary / MANIFEST, canonical(content))
    for folder in sorted((p for p in temporary.rglob("*") if p.is_dir()), reverse=True):
        sync(folder)
    sync(temporary)
    _make_parents(final)
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise ConfigError(f"{final} exists already. Choose another place or remove it.") from error
        raise
    sync(final.parent)


def _make_parents(path: Path) -> None:
    missing = [p for p in path.parents if not p.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def manifest(directory: Path) -> Manifest:
    """Read the manifest of a committed directory without hashing its files."""
    path = directory / MANIFEST
    try:
        raw = json.loads(path.read_bytes())
        if raw["schema"] != SCHEMA:
            raise DamagedError(f"{path} has schema {raw['schema']}; this transenc reads {SCHEMA}.")
        files = {
            name: {key: entry[key] for key in ("sha256", "size")} for name, entry in raw["files"].items()
        }
        return Manifest(raw["fingerprint"], files, dict(raw["info"]))
    except FileNotFoundError:
        raise DamagedError(
            f"{directory} has no {MANIFEST}: it was not written by a finished stage."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error


def verify(directory: Path) -> Manifest:
    """Check every file of a committed directory against its manifest; raise DamagedError naming the first fault."""
    found = manifest(directory)
    present = _files(directory)
    for name, expected in found.files.items():
        path = directory / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DamagedError(f"{directory / MANIFEST} names '{name}', which leaves its directory.")
        if name not in present:
            raise DamagedError(f"{path} is missing.")
        if path.is_symlink() or not path.is_file():
            raise DamagedError(f"{path} is not a plain file any more.")
        if path.stat().st_size != expected["size"] or hash_file(path) != expected["sha256"]:
            raise DamagedError(f"{path} differs from what was committed.")
    extra = sorted(set(present) - set(found.files))
    if extra:
        raise DamagedError(f"{directory / extra[0]} was added after the commit.")
    return found


def need_space(where: Path, size: int) -> None:
    """Raise MachineError unless the disk of `where` has `size` bytes free."""
    free = shutil.disk_usage(where).free
    if free < size:
        raise MachineError(
            f"{where} has {free / 2**20:.0f} MiB free and the next stage needs {size / 2**20:.0f} MiB. "
            "Free some space and run the same command again."
        )


def refuse_file(root: Path) -> None:
    """Raise ConfigError where a run directory cannot be, since a file is there."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file, not a run directory. Name another one with --run.")


def kernel_lock(path: Path, *, option: str) -> BaseFileLock | None:
    """Take the kernel's lock of a file, which dies with its process; return None where another process holds it.

    option: what named the place. Raise MachineError where the file system has no such locks.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    lock, reason = FileLock(path, timeout=0), "no flock"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions warn of the soft lock that they take
            lock.acquire()
        if not isinstance(lock, SoftFileLock):
            return lock
        lock.release()  # its file would outlive a killed process, and keep every later one out
    except Timeout:
        if not isinstance(lock, SoftFileLock):
            return None
    except (OSError, NotImplementedError) as error:  # the second is what older versions raise
        if getattr(error, "filename", None):  # the file cannot be made: a full disk, too long a name
            raise
        reason = getattr(error, "strerror", None) or reason
    raise MachineError(
        f"{path} cannot be locked ({reason}). Name a {option} on a file system with locks, such as a local disk."
    )


class Store:
    """A run directory, which the user named by `option`. Use it inside `with store.lock():`."""

    def __init__(self, root: Path, *, option: str = "--run") -> None:
        self.root = root
        self._option = option
        self._count = 0

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory for this process; raise LockedError naming the holder when it is taken.

        The lock is the kernel's (flock), so it dies with its process and is never stale.
        """
        refuse_file(self.root)
        self._refuse_foreign()
        _make_parents(self.root / "run.lock")
        holder = self.root / "run.holder"
        lock = kernel_lock(self.root / "run.lock", option=self._option)
        if lock is None:
            who = holder.read_text(encoding="utf-8").strip() if holder.exists() else "another process"
            raise LockedError(f"{self.root} is in use by {who}. Wait for it, or name another {self._option}.")
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            holder.write_text(
                f"pid {os.getpid()} on {socket.gethostname()} since {since}\n", encoding="utf-8"
            )
            self.sweep()
            yield
        finally:
            self._prune()
            lock.release()

    def _refuse_foreign(self) -> None:
        known = {"run.lock", "run.holder"}  # the first things that a run makes
        entries = {p.name for p in self.root.iterdir()} if self.root.is_dir() else set()
        if entries and not entries & known:
            raise ConfigError(
                f"{self.root} is not empty and not a run directory (it has {sorted(entries)[0]}). "
                f"Name another one with {self._option}."
            )

    def sweep(self) -> None:
        """Remove what a killed process left: temporary files and directories, checkpoints of finished stages."""
        # Only by the names that are given here: the directory may hold what a user put there.
        for left in (self.root / "tmp").glob("*"):
            if re.fullmatch(r"\d+-\d+", left.name):
                shutil.rmtree(left, ignore_errors=True)
        for half in self.root.glob(".*.tmp"):
            if re.fullmatch(r"\..+\.\d+\.tmp", half.name) and half.is_file():
                half.unlink(missing_ok=True)
        checkpoints = self.root / "checkpoints"
        for marker in sorted(checkpoints.rglob("step-*")) if checkpoints.is_dir() else []:
            stage = marker.parent.relative_to(checkpoints)  # or a part of its work, below it
            if any((self.root / part / MANIFEST).exists() for part in (stage, *stage.parents)):
                shutil.rmtree(marker, ignore_errors=True)
        self._prune()

    def _prune(self) -> None:
        """Remove the folders of temporary files and of checkpoints that are empty, the inner ones first."""
        # os.walk passes over what cannot be listed, so that a lock is released whatever the disk does.
        inner = [Path(folder) for folder, _, _ in os.walk(self.root / "checkpoints", topdown=False)]
        for folder in (*inner, self.root / "tmp"):
            with suppress(OSError):  # not there, or not empty
                folder.rmdir()

    def temporary(self) -> Path:
        """Make a fresh temporary directory on the run's own file system."""
        self._count += 1
        path = self.root / "tmp" / f"{os.getpid()}-{self._count}"
        path.mkdir(parents=True)
        return path

    def path(self, name: str) -> Path:
        """Return where the stage `name` lives once it is finished."""
        return self.root / name

    def finished(self, name: str, identity: str) -> bool:
        """Tell whether a stage is done, verified and made from the same inputs.

        Raise DamagedError when it is damaged and ConfigError when it was made from other inputs.
        """
        path = self.path(name)
        if not path.exists():
            return False
        try:
            found = verify(path)
        except DamagedError as error:
            raise DamagedError(f"{error} Remove {path} and run the same command to rebuild it.") from error
        if found.fingerprint != identity:
            raise ConfigError(
                f"{path} was made from other settings or inputs. Use another {self._option}, or remove {self.root}."
            )
        return True

    @contextmanager
    def stage(
        self, name: str, identity: str, *, info: Mapping[str, Any] | None = None, size: int = 0
    ) -> Iterator[Path]:
        """Give a temporary directory to write in, and commit it as stage `name` when the block succeeds.

        size: bytes the stage may need, checked before it starts.
        """
        need_space(self.root, size + 2**20)
        work = self.temporary()
        try:
            yield work
            commit(work, self.path(name), identity=identity, info=info)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self.checkpoints(name, identity).clear()

    def checkpoints(self, name: str, identity: str) -> Checkpoints:
        """Return the checkpoints of an unfinished stage."""
        return Checkpoints(self, name, identity)

    def log(self, **event: Any) -> None:
        """Append one line to events.jsonl, which informs people; nothing ever reads it to decide."""
        line = json.dumps({"time": round(time.time(), 3), **event}, allow_nan=False) + "\n"
        with (self.root / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)


@dataclass(frozen=True)
class Checkpoints:
    """The newest verified state of an unfinished stage, kept under `checkpoints/<stage>/step-<n>/`."""

    store: Store
    name: str
    identity: str

    @property
    def folder(self) -> Path:
        """Where this stage's checkpoints are."""
        return self.store.root / "checkpoints" / self.name

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Commit what `write(directory)` writes, re-read it, and only then drop the older ones."""
        final = self.folder / f"step-{step:09d}"
        if final.exists():
            # The same step again can only be a damaged one: a verified one is resumed from.
            shutil.rmtree(final)
        work = self.store.temporary()
        try:
            write(work)
            commit(work, final, identity=self.identity, info={"step": step})
            verify(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for old in self._all():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Path | None:
        """Return the newest checkpoint that verifies and has the same identity, or None."""
        for path in reversed(self._all()):
            try:
                if verify(path).fingerprint == self.identity:
                    return path
                logger.warning("%s belongs to other settings and is ignored.", path)
            except DamagedError as error:
                logger.warning("%s Falling back to the checkpoint before it.", error)
        return None

    def clear(self) -> None:
        """Remove all checkpoints of the stage."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []
