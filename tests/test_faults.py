"""K1: killed at any file operation, the same command ends with the same bytes (docs/reliability.md)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import content, run_small
from transenc.errors import TransencError
from transenc.store import verify

Action = Callable[[int, str], None]


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
def reference(tmp_path_factory: pytest.TempPathFactory, plm: Path) -> tuple[dict[str, str], list[str]]:
    """The content of an uninterrupted run, and the list of its file operations."""
    root = tmp_path_factory.mktemp("reference") / "run"
    run_small(root.with_name("warm"), plm)  # so that no forked child pays for imports again
    log = root.parent / "operations.txt"

    def work() -> None:
        def note(number: int, what: str) -> None:
            with log.open("a") as file:
                file.write(what.replace(str(root), "") + "\n")

        hook_file_operations(root, note)
        run_small(root, plm)

    assert in_child(work) == 0
    return content(root), log.read_text().splitlines()


def survive(root: Path, plm: Path, kills: list[int]) -> None:
    """Kill one process after the other, each at its k-th file operation, then let one finish."""
    for k in kills:

        def work(k: int = k) -> None:
            def kill(number: int, what: str) -> None:
                if number == k:
                    os.kill(os.getpid(), signal.SIGKILL)

            hook_file_operations(root, kill)
            run_small(root, plm)

        status = in_child(work)
        assert status in (-signal.SIGKILL, 0)
        for manifest in root.rglob("MANIFEST.json"):
            if "tmp" not in manifest.relative_to(root).parts:
                verify(manifest.parent)  # nothing unfinished stands under a final name
    assert in_child(lambda: run_small(root, plm)) == 0


def test_two_uninterrupted_runs_have_the_same_bytes(
    tmp_path: Path, plm: Path, reference: tuple[dict[str, str], list[str]]
) -> None:
    assert in_child(lambda: run_small(tmp_path / "run", plm)) == 0
    assert content(tmp_path / "run") == reference[0]


@pytest.mark.parametrize("part", range(8))
def test_a_kill_at_every_file_operation_changes_nothing(
    part: int, tmp_path: Path, plm: Path, reference: tuple[dict[str, str], list[str]]
) -> None:
    expected, operations = reference
    assert len(operations) > 100
    for k in range(1 + part, len(operations) + 1, 8):
        root = tmp_path / f"kill-{k}"
        survive(root, plm, [k])
        assert content(root) == expected, f"killed before operation {k}: {operations[k - 1]}"


def test_kills_of_resumed_runs_change_nothing(
    tmp_path: Path, plm: Path, reference: tuple[dict[str, str], list[str]]
) -> None:
    import random

    expected, operations = reference
    rng = random.Random(0)  # noqa: S311
    for trial in range(6):
        root = tmp_path / f"trial-{trial}"
        kills = [rng.randrange(1, len(operations)) for _ in range(rng.randint(2, 4))]
        survive(root, plm, kills)
        assert content(root) == expected, f"killed at {kills}"
