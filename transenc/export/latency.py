"""Measure how fast an engine scores: latency of small batches and throughput, on the pairs given."""

from __future__ import annotations

import dataclasses
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transenc.cores import allowed
from transenc.export.engine import Engine
from transenc.pairs import Pairs

BATCHES = (1, 8, 64)
SECONDS = 2.0  # of measuring for each batch size, after a warm-up
RUNS = (10, 200)  # at least and at most


@dataclass(frozen=True)
class Timing:
    """Milliseconds that scoring `batch` pairs takes, tokenising included: the median and the 95th percentile."""

    batch: int
    p50: float
    p95: float
    runs: int


@dataclass(frozen=True)
class Latency:
    """What was measured. throughput: pairs a second over all the pairs, each once, in one call. pairs: how many.

    timings: of the batch sizes that there were enough pairs for.
    """

    timings: tuple[Timing, ...]
    throughput: float
    pairs: int
    provider: str
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return dataclasses.asdict(self)


def measure(engine: Engine, pairs: Pairs) -> Latency:
    """Time an engine on batches of 1, 8 and 64 of the pairs, taken in turn, and on all of them.

    No pair is twice in a batch, since a bi-encoder would encode it once: repeated pairs, in
    either order, are taken once, and a batch of more pairs than there are is left out.
    """
    pairs = pairs.take(np.sort(np.unique(pairs.keys(), return_index=True)[1]))
    timings = []
    for batch in (size for size in BATCHES if size <= len(pairs)):
        index = np.arange(batch)
        engine.score(pairs.take(index))
        times: list[float] = []
        while len(times) < RUNS[0] or (sum(times) < SECONDS and len(times) < RUNS[1]):
            part = pairs.take((index + len(times) * batch) % len(pairs))
            began = time.perf_counter()
            engine.score(part)
            times.append(time.perf_counter() - began)
        p50, p95 = np.percentile(np.asarray(times) * 1000, [50, 95])
        timings.append(Timing(batch, float(p50), float(p95), len(times)))
    began = time.perf_counter()
    engine.score(pairs)
    throughput = len(pairs) / (time.perf_counter() - began)
    return Latency(tuple(timings), throughput, len(pairs), engine.provider, machine())


def machine() -> str:
    """Name the processor and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            name = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {allowed()} cores"


def rows(found: dict[str, Latency]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of a table of graphs by name."""
    columns = ["graph", *(f"{b}: {p}, ms" for b in _batches(found) for p in ("p50", "p95")), "pairs/s"]
    cells = [
        [name, *(f"{v:.2f}" for t in latency.timings for v in (t.p50, t.p95)), f"{latency.throughput:,.0f}"]
        for name, latency in found.items()
    ]
    return columns, cells


def _batches(found: dict[str, Latency]) -> list[int]:
    return [timing.batch for timing in next(iter(found.values())).timings]


def table(found: dict[str, Latency]) -> str:
    """Return the figures as Markdown: p50 and p95 of each batch size, and throughput."""
    columns, cells = rows(found)
    lines = [title(found), ""]
    for row in (columns, ["---"] * len(columns), *cells):
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def title(found: dict[str, Latency]) -> str:
    """Say what a table of latencies holds and where it was measured."""
    first = next(iter(found.values()))
    batches = _batches(found)
    sizes = " and ".join(filter(None, [", ".join(map(str, batches[:-1])), str(batches[-1])]))
    few = [str(size) for size in BATCHES if size not in batches]
    left_out = f"; there are too few different pairs for {' and '.join(few)}" if few else ""
    return (
        f"Latency of {sizes} {'pair' if batches == [1] else 'pairs'} and throughput over {first.pairs:,} "
        f"{'pair' if first.pairs == 1 else 'pairs'} ({first.machine}{left_out}):"
    )
