"""How many cores this process may use: fewer than the machine has in a container, in a batch job, under taskset."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def threads() -> int:
    """Return how many threads to start: what OMP_NUM_THREADS says, else one for each core allowed."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else allowed()


def allowed() -> int:
    """Return the number of cores, at least 1: those it may run on, or those that its share of time fills.

    The limit of a container (docker's --cpus, Kubernetes' limits.cpu) is a share of time: once it is used up, all
    threads stand still until the next period, so more threads than cores are slower than fewer.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(share) for share in _shares())]))


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
            for each in (group, *group.parents):
                share = _share(CGROUPS / each) if number == "0" else _share_v1(CGROUPS / kinds / each)
                if share is not None:
                    yield share


def _share(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)  # no limit is "max"
    except (OSError, ValueError):
        return None


def _share_v1(group: Path) -> float | None:
    try:
        quota, period = (int((group / f"cpu.cfs_{kind}_us").read_text()) for kind in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None  # no limit is -1
