"""K1: killed at any file operation, the same command ends with the same bytes (docs/reliability.md)."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import content, run_small, stage_names
from transenc.errors import TransencError
from transenc.store import verify

Action = Callable[[int, str], None]
STAGES = stage_names()


def hook_file_operations(root: Path, act: Action) -> None:
    """Call `act(number, what)` before each operation that changes files under `root`, in this process for good."""
    count = 0
    inside = False

    def seen(what: str, path: object) -> None:
        nonlocal count, inside
        if (
            inside
            or not isinstance(path, str | bytes | os.PathLike)
            or not os.fsdecode(path).startswith(str(root))
        ):
            return
        count += 1
        inside = True
        try:
            act(count, f"{what} {os.fsdecode(path)}")
        finally:
            inside = False

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen("open", args[0])
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            seen(event, args[0])

    sys.addaudithook(audit)
    real = os.fsync

    def fsync(handle: int) -> None:
        seen("fsync", str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    os.fsync = fsync


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child and return its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except TransencError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory, plm: Path) -> list[Path]:
    """The run directory before any stage (absent), after the first, after the second, ..."""
    folder = tmp_path_factory.mktemp("snapshots")
    run_small(folder / "warm", plm)  # so that no forked child pays for imports again
    taken = [folder / "0"]
    for i in range(1, len(STAGES) + 1):
        assert in_child(lambda i=i: run_small(folder / "run", plm, upto=i)) == 0
        taken.append(Path(shutil.copytree(folder / "run", folder / str(i))))
    return taken


def begin(snapshot: Path, root: Path) -> Path:
    """Put a copy of a snapshot at `root`."""
    if snapshot.exists():
        shutil.copytree(snapshot, root)
    return root


def killed(root: Path, plm: Path, k: int, upto: int | None = None) -> bool:
    """Run in a child that dies by SIGKILL before its k-th file operation; tell whether it came that far."""

    def work() -> None:
        def kill(number: int, what: str) -> None:
            if number == k:
                os.kill(os.getpid(), signal.SIGKILL)

        hook_file_operations(root, kill)
        run_small(root, plm, upto=upto)

    status = in_child(work)
    assert status in (-signal.SIGKILL, 0)
    for manifest in root.rglob("MANIFEST.json"):
        if "tmp" not in manifest.relative_to(root).parts:
            verify(manifest.parent)  # nothing unfinished stands under a final name
    return status != 0


def test_stopping_after_every_stage_equals_one_uninterrupted_run(
    tmp_path: Path, plm: Path, snapshots: list[Path]
) -> None:
    for trial in ("a", "b"):
        assert in_child(lambda trial=trial: run_small(tmp_path / trial, plm)) == 0
        assert content(tmp_path / trial) == content(snapshots[-1])


@pytest.mark.parametrize("stage", range(1, len(STAGES) + 1), ids=STAGES)
def test_a_kill_at_every_file_operation_of_a_stage_changes_nothing(
    stage: int, tmp_path: Path, plm: Path, snapshots: list[Path]
) -> None:
    # From the snapshot before the stage to its end; that every snapshot leads to the same end is tested above.
    expected = content(snapshots[stage])
    k = 0
    while True:
        k += 1
        root = begin(snapshots[stage - 1], tmp_path / f"kill-{k}")
        if not killed(root, plm, k, upto=stage):
            break
        assert in_child(lambda root=root: run_small(root, plm, upto=stage)) == 0
        assert content(root) == expected, f"killed before file operation {k}"
        shutil.rmtree(root)
    assert k > 15  # the operations of a commit alone


def test_kills_of_resumed_runs_change_nothing(tmp_path: Path, plm: Path, snapshots: list[Path]) -> None:
    import random

    rng = random.Random(0)  # noqa: S311
    for trial in range(6):
        root = tmp_path / f"trial-{trial}"
        kills = [rng.randrange(1, 400) for _ in range(rng.randint(2, 4))]
        for k in kills:
            killed(root, plm, k)
        assert in_child(lambda root=root: run_small(root, plm)) == 0
        assert content(root) == content(snapshots[-1]), f"killed at {kills}"
