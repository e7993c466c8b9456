"""Time and memory against N for encode, label, mine and train, with the exponents, a table and a plot.

Every point is a process of its own. A kind of work goes on to the next size while that is expected to stay
within --limit seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import minilm, pairs, peak_mib, resident_mib, say, sentences

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
Work = Callable[[], Any]


def _bi() -> Any:
    from transenc.models.bi import BiFamily
    from transenc.models.device import Compute

    return BiFamily().load(minilm(), compute=Compute.choose())


def encode(n: int) -> Work:
    """Prepare to encode n sentences."""
    model, texts = _bi(), sentences(n)
    return lambda: model.encode(texts)


def label(n: int) -> Work:
    """Prepare to label n pairs over n / 10 sentences with a one-layer bi-encoder."""
    from benchmarks.label_memory import random_pairs, small_model
    from transenc.models.loading import load_scorer
    from transenc.stages.label import score_pairs

    with tempfile.TemporaryDirectory() as folder:
        scorer = load_scorer(str(small_model(Path(folder) / "model")))
    given = random_pairs(n)
    return lambda: score_pairs(scorer, given)


def bm25(n: int) -> Work:
    """Prepare to mine the 5 best matches of n sentences."""
    from transenc.samplers.bm25 import Bm25

    texts = sentences(n)
    return lambda: Bm25(5).sample(texts, np.random.default_rng(0))


def semantic(n: int) -> Work:
    """Prepare to find the 10 nearest of n vectors exactly."""
    from benchmarks.mine_semantic import embeddings
    from transenc.samplers.semantic import nearest

    vectors = embeddings(n)
    return lambda: nearest(vectors, 10)


def approximate(n: int) -> Work:
    """Prepare to find the 10 nearest of n vectors by the approximate sampler."""
    from benchmarks.mine_semantic import embeddings
    from transenc.samplers.approximate import approximately_nearest

    vectors = embeddings(n)
    return lambda: approximately_nearest(vectors, 10)


def train(n: int) -> Work:
    """Prepare to train a bi-encoder on n pairs, one epoch."""
    from benchmarks.training import student
    from benchmarks.training import train as fit
    from transenc.config import Distill
    from transenc.models.device import Compute

    settings, compute, given = Distill().bi.model_copy(update={"epochs": 1}), Compute.choose(), pairs(n)
    model = student("bi", settings, compute)
    return lambda: fit(model, given, settings, compute)


KINDS: dict[str, tuple[Callable[[int], Work], str]] = {
    "encode": (encode, "encode N sentences"),
    "label": (label, "label N pairs over N / 10 sentences (one layer)"),
    "bm25": (bm25, "BM25 top 5 of N sentences"),
    "semantic": (semantic, "exact top 10 of N vectors (quadratic)"),
    "approximate": (approximate, "approximate top 10 of N vectors"),
    "train": (train, "train bi on N pairs"),
}


def cell(kind: str, n: int) -> dict[str, float]:
    """Do one kind of work of size n in this process."""
    KINDS[kind][0](min(n, 64))()  # compiles, warms up, and loads libraries
    work = KINDS[kind][0](n)
    before = resident_mib()
    began = time.perf_counter()
    work()
    return {"n": n, "seconds": time.perf_counter() - began, "mib": max(0.0, peak_mib() - before)}


def exponent(ns: list[float], values: list[float]) -> float:
    """Return the slope of the last three points in logarithms; 1 is linear."""
    if len(ns) < 2:
        return float("nan")
    return float(np.polyfit(np.log(ns[-3:]), np.log(np.maximum(values[-3:], 1e-3)), 1)[0])


def measure(kinds: list[str], limit: float, largest: int) -> dict[str, list[dict[str, float]]]:
    """Measure every kind at growing sizes."""
    found: dict[str, list[dict[str, float]]] = {}
    for kind in kinds:
        points: list[dict[str, float]] = []
        for n in (size for size in SIZES if size <= largest):
            if points:
                slope = exponent([p["n"] for p in points], [p["seconds"] for p in points])
                slope = 1.0 if np.isnan(slope) else max(1.0, slope)
                if points[-1]["seconds"] * (n / points[-1]["n"]) ** slope > limit:
                    break
            command = [sys.executable, "-m", "benchmarks.growth", "--cell", kind, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                say(f"{kind} {n:,}: {done.stderr.strip()[-300:]}")
                break
            points.append(json.loads(done.stdout.splitlines()[-1]))
            say(f"{kind} {n:,}: {points[-1]['seconds']:.2f} s, {points[-1]['mib']:,.0f} MiB")
        found[kind] = points
    return found


def markdown(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the table."""
    lines = [
        "| work | " + " | ".join(f"{n:,}" for n in SIZES) + " | exponent of time | of memory |",
        "|---|" + "---|" * (len(SIZES) + 2),
    ]
    for kind, points in found.items():
        cells = {p["n"]: f"{p['seconds']:.3g} s, {p['mib']:,.0f} MiB" for p in points}
        ns = [p["n"] for p in points]
        slopes = [exponent(ns, [p[key] for p in points]) for key in ("seconds", "mib")]
        row = [
            KINDS[kind][1],
            *(cells.get(n, "") for n in SIZES),
            *("" if np.isnan(slope) else f"{slope:.2f}" for slope in slopes),
        ]
        lines.append("| " + " | ".join(row) + " |")
    lines.append("")
    lines.append("Memory is what a process held at most beyond its text, model and libraries.")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw time and memory against N."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "transenc"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, key, name in zip(axes, ("seconds", "mib"), ("seconds", "MiB beyond the inputs"), strict=True):
        for kind, points in found.items():
            if points:
                axis.plot(
                    [p["n"] for p in points], [max(p[key], 1e-3) for p in points], "o-", label=KINDS[kind][1]
                )
        axis.set(xscale="log", yscale="log", xlabel="N", ylabel=name)
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds that a point may be expected to take"
    )
    parser.add_argument("--size", type=int, default=SIZES[-1], help="the largest N")
    parser.add_argument("--plot", type=Path, help="file to draw into, such as docs/growth.svg")
    parser.add_argument("--json", action="store_true", help="print the points as JSON")
    parser.add_argument("--cell", nargs=2, metavar=("KIND", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cell(arguments.cell[0], int(arguments.cell[1]))))
        return
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"no such work: {', '.join(sorted(unknown))}; there is {', '.join(KINDS)}")
    found = measure(arguments.kinds or list(KINDS), arguments.limit, arguments.size)
    if arguments.plot:
        plot(found, arguments.plot)
    print(json.dumps(found) if arguments.json else markdown(found))


if __name__ == "__main__":
    main()
