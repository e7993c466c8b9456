"""What the benchmarks share: text, timing in turn, rows of results, and the machine they were had on."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from transenc import tasks
from transenc.cores import allowed
from transenc.metrics import METRICS
from transenc.pairs import Pairs

if TYPE_CHECKING:
    from transenc.models.device import Compute

Floats = npt.NDArray[np.floating[Any]]
DATA = Path(os.environ["TRANSENC_DATA"]) if os.environ.get("TRANSENC_DATA") else None
TASK = "sts" if DATA else "demo"
PACKAGES = (
    *("torch", "transformers", "tokenizers", "numpy", "sentence-transformers", "rank-bm25", "bm25s", "numba"),
    *("faiss-cpu", "onnxruntime"),
)


@dataclass(frozen=True)
class Row:
    """One measured claim.

    ours, theirs: medians in `unit`, theirs None without a peer. less: whether less is better, as of seconds.
    ratio_goal: how many times better than the peer it should be. most: what `ours` should stay under.
    agreement: how the result compares with the plain path's or the peer's.
    """

    what: str
    unit: str
    ours: float
    agreement: str
    theirs: float | None = None
    peer: str = ""
    less: bool = False
    ratio_goal: float | None = None
    most: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return how many times better than the peer ours is."""
        if self.theirs is None:
            return None
        return self.theirs / self.ours if self.less else self.ours / self.theirs

    @property
    def goal(self) -> str:
        """Say what is aimed at and whether it was reached here."""
        if self.ratio_goal is not None and self.ratio is not None:
            return f">= {self.ratio_goal:.4g}x: {'yes' if self.ratio >= self.ratio_goal else 'no'}"
        if self.most is not None:
            return f"<= {self.most:g}: {'yes' if self.ours <= self.most else 'no'}"
        return ""


def in_turn(
    sides: Mapping[str, Callable[..., Any]],
    rounds: int = 3,
    prepare: Mapping[str, Callable[[], Any]] | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Run every side in turn (A B A B ...); return the median seconds and the last result of each.

    prepare: makes a side's argument anew for each round, untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, work in sides.items():
            arguments = [prepare[name]()] if prepare else []
            gc.collect()
            began = time.perf_counter()
            results[name] = work(*arguments)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}, results


@cache
def _pool() -> Pairs:
    if DATA:
        return tasks.pool(tasks.get("sts"), DATA)
    texts = tasks.corpus(tasks.get("demo"), None)
    return Pairs(texts, np.arange(len(texts) - 1), np.arange(1, len(texts)))


def sentences(n: int, seed: int = 0) -> list[str]:
    """Return n distinct sentences of the STS pool (or the demo), in random order.

    Where there are fewer, halves of two of them make more, so that words and lengths stay natural.
    """
    rng = np.random.default_rng(seed)
    base = [text for text in _pool().sentences if text.strip()]
    found = dict.fromkeys(base[i] for i in rng.permutation(len(base)))
    halves = [(words[: len(words) // 2], words[len(words) // 2 :]) for words in map(str.split, base)]
    while len(found) < n:
        for i, j in rng.integers(0, len(base), (n, 2)):
            found.setdefault(" ".join([*halves[i][0], *halves[j][1]]))
    return list(found)[:n]


def pairs(n: int, seed: int = 0) -> Pairs:
    """Return n random pairs of the STS pool (or the demo), each with a seeded label in [0, 1]."""
    rng = np.random.default_rng(seed)
    pool = _pool()
    chosen = pool.take(rng.integers(0, len(pool), n) if n > len(pool) else rng.permutation(len(pool))[:n])
    return chosen.with_scores(rng.random(n, dtype=np.float32))


def dev() -> Pairs:
    """Return scored development pairs."""
    return tasks.dev(tasks.get(TASK), DATA)


def spearman(a: Any, b: Any) -> float:
    """Return the rank correlation of two columns."""
    return float(METRICS["spearman"](np.asarray(a, np.float64), np.asarray(b, np.float64)))


def minilm() -> Path:
    """Return the directory of the embedded model."""
    from transenc.models.intake import resolve

    return resolve("minilm").path


def computes() -> list[Compute]:
    """Return fp32, and bf16 too where transenc would choose it here."""
    from transenc.models.device import Compute

    chosen = Compute.choose()
    return [Compute(chosen.device, "fp32"), *([chosen] if chosen.precision == "bf16" else [])]


def no_bf16() -> str:
    """Say why there is no faster row where there is none."""
    return "" if len(computes()) > 1 else "; no fast bf16 here, so this is the default too"


def resident_mib() -> float:
    """Return the memory this process holds now."""
    return float(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)


def peak_mib() -> float:
    """Return the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> dict[str, str]:
    """Describe the hardware and the versions that decide the figures."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    flags = sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
    facts = {
        "CPU": f"{cpu}, {allowed()} cores used, {torch.get_num_threads()} threads",
        "instructions": ", ".join(name for name in flags if name.startswith(("avx", "amx", "sve")))
        or "none of note",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "text": f"task {TASK}",
    }
    for name in PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "not installed"
    return facts


def say(text: str) -> None:
    """Tell on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def show(rows: list[Row]) -> None:
    """Print rows for people."""
    for row in rows:
        peer = f", {row.peer} {row.theirs:,.4g}: {row.ratio:.2f}x" if row.theirs is not None else ""
        print(
            f"{row.what}: transenc {row.ours:,.4g} {row.unit}{peer}  {row.goal}  [{row.agreement}]",
            flush=True,
        )


def main(run: Callable[[int], list[Row]], *, quick: int, full: int) -> None:
    """Run one benchmark as a script; --json prints its rows for `python -m benchmarks`."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help=f"size {quick:,}, the default")
    size.add_argument("--full", action="store_true", help=f"size {full:,}, that of the claim")
    size.add_argument("--size", type=int, help="any other size")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows = run(arguments.size or (full if arguments.full else quick))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows]))
    else:
        show(rows)
