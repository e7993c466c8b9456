from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transenc import store as store_module
from transenc.errors import ConfigError, DamagedError, LockedError, MachineError
from transenc.store import MANIFEST, Store, commit, fingerprint, kernel_lock, manifest, verify, write_file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run")


def make_stage(store: Store, name: str = "a/b", identity: str = "x") -> Path:
    with store.stage(name, identity, info={"n": 1}) as work:
        (work / "inner").mkdir()
        (work / "data.bin").write_bytes(b"0123456789")
        (work / "inner" / "more.txt").write_text("text")
    return store.path(name)


def test_a_stage_appears_whole_and_verifies(store: Store) -> None:
    with store.lock():
        path = make_stage(store)
        assert verify(path).info == {"n": 1}
        assert store.finished("a/b", "x")
        assert not list((store.root / "tmp").iterdir())


def test_a_failed_stage_leaves_nothing(store: Store) -> None:
    with store.lock():
        with pytest.raises(RuntimeError), store.stage("a", "x") as work:
            (work / "half").write_text("half")
            raise RuntimeError
        assert not store.path("a").exists()
        assert not list((store.root / "tmp").iterdir())


def test_a_stage_of_other_inputs_is_refused(store: Store) -> None:
    with store.lock():
        make_stage(store)
        with pytest.raises(ConfigError, match="other settings or inputs"):
            store.finished("a/b", "y")


def damage(path: Path, how: str) -> None:
    file = path / "data.bin"
    if how == "flip":
        content = bytearray(file.read_bytes())
        content[3] ^= 1
        file.write_bytes(bytes(content))
    elif how == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "delete":
        file.unlink()
    elif how == "extra":
        (path / "new.txt").write_text("x")
    elif how == "directory":
        file.unlink()
        file.mkdir()
    elif how == "symlink":
        content = file.read_bytes()
        file.unlink()
        elsewhere = path.parent / "elsewhere.bin"
        elsewhere.write_bytes(content)
        file.symlink_to(elsewhere)
    elif how == "swap":
        other = path / "inner" / "more.txt"
        a, b = file.read_bytes(), other.read_bytes()
        file.write_bytes(b)
        other.write_bytes(a)
    elif how == "manifest-cut":
        (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes()[:20])
    elif how == "manifest-gone":
        (path / MANIFEST).unlink()
    elif how == "manifest-escape":
        raw = json.loads((path / MANIFEST).read_text())
        raw["files"]["../../outside"] = raw["files"].pop("data.bin")
        (path / MANIFEST).write_text(json.dumps(raw))
    elif how == "manifest-key":  # one bit of it
        (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes().replace(b'"sha256"', b'"rha256"', 1))
    elif how == "manifest-list":
        (path / MANIFEST).write_text('{"schema": 1, "fingerprint": "x", "files": [], "info": {}}')
    elif how == "manifest-schema":
        (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes().replace(b'"schema": 1', b'"schema": 2'))
    elif how == "manifest-deep":
        (path / MANIFEST).write_text("[" * 100_000)


DAMAGES = (
    "flip", "truncate", "empty", "delete", "extra", "directory", "symlink", "swap", "manifest-cut", "manifest-gone",
    "manifest-escape", "manifest-key", "manifest-list", "manifest-schema", "manifest-deep",
)  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_found_and_names_the_way_on(store: Store, how: str) -> None:
    with store.lock():
        damage(make_stage(store), how)
        with pytest.raises(DamagedError, match=r"run/a/b.*Remove .* and run the same command"):
            store.finished("a/b", "x")


@pytest.mark.parametrize("how", ["truncate", "manifest-key"])
def test_a_damaged_checkpoint_falls_back_to_the_older_one(store: Store, how: str) -> None:
    with store.lock():
        checkpoints = store.checkpoints("s", "x")
        checkpoints.save(1, lambda p: (p / "data.bin").write_bytes(b"one") and None)
        older = checkpoints.latest()
        assert older is not None
        newer = older.with_name("step-000000002")
        commit_copy = store.temporary()
        (commit_copy / "data.bin").write_bytes(b"two")
        commit(commit_copy, newer, identity="x")
        assert checkpoints.latest() == newer
        damage(newer, how)
        assert checkpoints.latest() == older
        checkpoints.save(2, lambda p: (p / "data.bin").write_bytes(b"again") and None)  # in its place
        assert checkpoints.latest() == newer
        assert (newer / "data.bin").read_bytes() == b"again"
        assert not older.exists()


def full(*args: object, **options: object) -> None:
    raise OSError(28, "No space left on device")


def lossy(temporary: Path, final: Path, **options: Any) -> None:
    commit(temporary, final, **options)
    (final / "data.bin").write_bytes(b"tw")  # of a disk that lost what it had taken


@pytest.mark.parametrize(
    ("way", "error", "message"), [(full, OSError, "No space"), (lossy, DamagedError, "differs from")]
)
def test_the_older_checkpoint_goes_only_after_the_new_one_is_there(
    way: Callable[..., None],
    error: type[Exception],
    message: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with store.lock():
        checkpoints = store.checkpoints("s", "x")
        checkpoints.save(1, lambda p: (p / "data.bin").write_bytes(b"one") and None)
        monkeypatch.setattr(store_module, "commit", way)
        with pytest.raises(error, match=message):
            checkpoints.save(2, lambda p: (p / "data.bin").write_bytes(b"two") and None)
        latest = checkpoints.latest()
        assert latest is not None
        assert (latest / "data.bin").read_bytes() == b"one"


def test_a_checkpoint_of_other_settings_is_not_used(store: Store) -> None:
    with store.lock():
        store.checkpoints("s", "x").save(1, lambda p: (p / "data.bin").write_bytes(b"one") and None)
        assert store.checkpoints("s", "y").latest() is None


def test_opening_sweeps_what_a_killed_process_left(store: Store) -> None:
    with store.lock():
        make_stage(store)
        (store.temporary() / "half").write_text("half")
        (store.root / ".run.yaml.123.tmp").write_text("half")
        leftovers = [
            store.checkpoints(name, "x").folder / "step-000000001" for name in ("a/b", "a/b/trial-1")
        ]
        unfinished = store.checkpoints("a/c", "x").folder / "step-000000001"
        for folder in (*leftovers, unfinished):
            folder.mkdir(parents=True)
            (folder / "state").write_text("1")
    with store.lock():
        assert not (store.root / "tmp").exists()
        assert not (store.root / ".run.yaml.123.tmp").exists()
        assert not any(folder.exists() for folder in leftovers)
        assert unfinished.exists()


def test_nothing_empty_is_left_of_finished_work(store: Store) -> None:
    with store.lock():
        store.checkpoints("a/b", "x").save(3, lambda work: (work / "state").write_text("3") and None)
    assert (store.root / "checkpoints/a/b/step-000000003/state").is_file()
    with store.lock():
        make_stage(store)
    assert {path.name for path in store.root.iterdir()} == {"run.lock", "run.holder", "a"}


def test_only_what_a_run_made_is_swept(store: Store) -> None:
    with store.lock():
        pass
    kept = [store.root / "tmp/notes/a.txt", store.root / ".draft.tmp", store.root / ".engine.99.tmp/a"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    with store.lock():
        assert all(path.read_text() == "mine" for path in kept)


@pytest.mark.parametrize("name", ["tmp/a", "run.yaml"])
def test_a_directory_with_names_of_a_run_is_not_taken_for_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ConfigError, match="not a run directory"), Store(tmp_path).lock():
        pass
    assert path.read_text() == "mine"


def _hold(root: Path, ready: str) -> None:
    with Store(root).lock():
        Path(ready).touch()
        time.sleep(60)


def test_a_second_process_is_refused_at_once_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = tmp_path / "ready"
    holder = context.Process(target=_hold, args=(tmp_path / "run", str(ready)))
    holder.start()
    while not ready.exists():
        time.sleep(0.05)
    began = time.monotonic()
    with pytest.raises(LockedError, match=f"pid {holder.pid} on "), Store(tmp_path / "run").lock():
        pass
    assert time.monotonic() - began < 2
    holder.kill()
    holder.join()
    with Store(tmp_path / "run").lock():
        pass


@pytest.mark.parametrize("left", [False, True], ids=["new", "locked-before"])
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_no_soft_lock_takes_their_place(
    code: int, left: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if left:  # as in a run that was copied from a disk that has locks
        with store.lock():
            pass

    def flock(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    for _ in range(2):  # what a soft lock left would keep the second one out
        with (
            pytest.raises(MachineError, match=r"run\.lock cannot be locked \(.+\)\. Name a --run on"),
            store.lock(),
        ):
            pass


def test_a_lock_whose_file_cannot_be_made_is_not_taken_for_a_file_system_without_locks(
    tmp_path: Path,
) -> None:
    with pytest.raises(OSError, match="File name too long"):
        kernel_lock(tmp_path / ("a" * 300), option="--out")


def test_a_foreign_directory_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("x")
    with (
        pytest.raises(ConfigError, match=r"not a run directory \(it has photo.jpg\)"),
        Store(tmp_path).lock(),
    ):
        pass


def test_write_file_keeps_the_old_content_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.yaml"
    write_file(path, b"old")

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_too_little_space_is_said_before_work(store: Store) -> None:
    with store.lock(), pytest.raises(MachineError, match="MiB free and the next stage needs"):
        with store.stage("a", "x", size=2**60):
            pass


def test_a_fingerprint_does_not_depend_on_key_order_and_refuses_nan() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": float("nan")})


def test_committing_over_something_is_refused(store: Store) -> None:
    with store.lock():
        make_stage(store)
        with pytest.raises(ConfigError, match="exists already"):
            make_stage(store)
        assert manifest(store.path("a/b")).info == {"n": 1}


def test_the_store_knows_nothing_of_models() -> None:
    heavy = ("torch", "transformers", "pydantic")
    code = f"import sys, transenc.store; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
