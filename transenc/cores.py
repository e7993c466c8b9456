"""How many cores this process may use: fewer than the machine has in a container, in a batch job, under taskset."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def asked() -> int | None:
    """Return the number of threads that OMP_NUM_THREADS asks for, or None if it names none."""
    # A list is of nested levels, of which nothing here has a second.
    number = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(number) if number.isdecimal() and int(number) > 0 else None


def threads() -> int:
    """Return how many threads to start: those asked for, else one for each core allowed."""
    return asked() or allowed()


def allowed() -> int:
    """Return the number of cores, at least 1: those it may run on, or those that its share of time fills.

    The limit of a container (docker's --cpus, Kubernetes' limits.cpu) is a share of time: once it is used up, all
    threads stand still until the next period, so more threads than cores are slower than fewer.
    """
    return max(1, min([_affinity(), *(math.ceil(share) for share in _shares())]))


def limit() -> None:
    """Let what is loaded from here on (torch, numpy) start no more threads than there are cores allowed.

    For commands, whose process is their own; what libraries know by themselves, and what a user asks for, stays.
    """
    if asked() is None and (most := allowed()) < _affinity():
        os.environ["OMP_NUM_THREADS"] = str(most)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shares() -> Iterator[float]:
    """Yield the cores that each control group of this process may fill (Linux, cgroup v1 and v2)."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, path = line.split(":", 2)
        if number == "0" or "cpu" in kinds.split(","):
            group = Path(path.lstrip("/"))
            # A container may see the host's path here and its own group as the root: what is missing sets no limit.
            names = ["cpu.max"] if number == "0" else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            for each in (group, *group.parents):
                files = [CGROUPS / kinds / each / name for name in names]
                with suppress(OSError, ValueError):  # in v2 no limit is "max"
                    quota, period = map(int, " ".join(file.read_text() for file in files).split())
                    if quota > 0:  # in v1 it is -1
                        yield quota / period
