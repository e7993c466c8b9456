from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.runs import run_command
from transenc import cores
from transenc.models.device import Compute
from transenc.samplers.approximate import approximately_nearest

Place = Callable[[str, dict[str, str]], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Put this process, on 8 cores, into control groups: /proc/self/cgroup, and files by their paths."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "OWN", tmp_path / "own")

    def put(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "groups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return put


V1 = {"cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # one thread would leave a half unused
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, 8),
        ("0::/jobs/mine\n", {"jobs/cpu.max": "300000 100000\n", "jobs/mine/cpu.max": "500000 100000\n"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "400000 100000\n"}, 4),  # a container's own group is its root
        ("4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n", V1, 3),
        ("4:memory:/box\n0::/\n", V1, 8),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "odd", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_share_of_time_counts_as_the_cores_that_it_fills(
    own: str, files: dict[str, str], expected: int, place: Place
) -> None:
    place(own, files)
    assert cores.allowed() == cores.threads() == expected


def test_affinity_and_what_the_user_asks_for_are_heeded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("0::/\n", {"cpu.max": "600000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2, 3}, raising=False)
    assert cores.allowed() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert (cores.threads(), cores.allowed()) == (7, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert cores.threads() == 3


def test_without_control_groups_all_cores_count(place: Place) -> None:
    assert cores.allowed() == 8  # there is no /proc/self/cgroup


def test_a_command_starts_no_more_threads_than_there_are_cores(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # given back after the test
    place("0::/\n", {"cpu.max": "max 100000\n"})
    assert run_command("--version") == 0
    assert cores.asked() is None  # what libraries choose by themselves
    place("0::/\n", {"cpu.max": "300000 100000\n"})
    assert run_command("--version") == 0
    assert cores.asked() == 3
    place("0::/\n", {"cpu.max": "200000 100000\n"})
    assert run_command("--version") == 0
    assert cores.asked() == 3  # it may be somebody's choice
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert run_command("--version") == 0
    assert (cores.asked(), os.environ["OMP_NUM_THREADS"]) == (5, "5,2")


def test_a_program_that_calls_the_library_keeps_its_own_number_of_threads(place: Place) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        place("0::/\n", {"cpu.max": "300000 100000\n"})
        Compute.choose("cpu")
        assert torch.get_num_threads() == 4
        if find_spec("faiss") is not None:  # it may share torch's pool
            rng = np.random.default_rng(0)
            approximately_nearest(rng.normal(size=(1_000, 8)).astype(np.float32), 2, probes=2)
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
