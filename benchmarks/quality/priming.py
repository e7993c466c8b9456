"""Compare priming methods: the raw start (mean pooling), then each method over seeds, on a task's test sets.

The sentences are those of the task's training pairs; `pairs` takes the pairs themselves. Finished measurements are in
a JSONL file and are skipped.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.objectives import spread
from benchmarks.quality.rows import Row, append_row, read_rows
from transenc import tasks
from transenc.config import METHODS, build, from_assignments, merge
from transenc.errors import ConfigError, TransencError
from transenc.interrupt import StopFlag, stop_on_signals
from transenc.metrics import METRICS
from transenc.models.loading import load_scorer
from transenc.pairs import Pairs
from transenc.single_stages import prime_to
from transenc.store import fingerprint

RAW = "raw"


def measure(method: str, seed: int, options: argparse.Namespace, stop: StopFlag) -> Row:
    """Prime once (or not at all) and return every test set's value."""
    task = tasks.get(options.task)
    where, seconds = Path(options.plm), 0.0
    if method != RAW:
        own = {"plm": [options.plm], "seed": seed, "pooling": "mean", "prime": {"method": method}}
        where = options.work / f"{method}-{seed}"
        shutil.rmtree(where, ignore_errors=True)
        began = time.monotonic()
        texts = texts_of(method, options)
        prime_to(build(merge(own, from_assignments(options.set))), texts, where, offline=True, stop=stop)
        seconds = time.monotonic() - began
    name = options.plm if method == RAW else str(where)
    scorer = load_scorer(name, offline=True)
    found = {}
    for test, gold in tasks.tests(task, options.data, offline=True).items():
        assert gold.scores is not None
        stop.check()
        found[test] = float(METRICS[task.metric](scorer.score(gold), gold.scores))
    return {"tests": found, "average": statistics.mean(found.values()), "seconds": seconds}


def texts_of(method: str, options: argparse.Namespace) -> Sequence[str] | Pairs:
    """Return the training pairs or their sentences, without evaluated pairs when asked for, or the task's corpus."""
    task = tasks.get(options.task)
    if task.corpus:
        return tasks.corpus(task, options.data, offline=True)
    pool = tasks.pool(task, options.data, inductive=options.inductive, offline=True)
    return pool if method == "pairs" else pool.sentences


def table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Return Markdown: mean and standard deviation over seeds, x 100."""
    sets = list(rows[0]["tests"])
    lines = ["| priming | seeds | average | " + " | ".join(sets) + " | s |", "|---" * (len(sets) + 4) + "|"]
    for method in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == method]
        cells = [method, str(len(mine)), spread([r["average"] for r in mine])]
        cells += [spread([r["tests"][name] for r in mine]) for name in sets]
        lines.append("| " + " | ".join([*cells, f"{statistics.mean(r['seconds'] for r in mine):.0f}"]) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace, stop: StopFlag) -> str:
    """Measure what is not yet in results.jsonl and return the table."""
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.work / "priming.jsonl"
    done = {row["key"]: row for row in read_rows(results)}
    rows = []
    for method in [RAW, *options.methods]:
        for seed in options.seeds if method != RAW else options.seeds[:1]:
            shared = [options.plm, options.task, options.inductive, options.set if method != RAW else []]
            key = fingerprint(["priming", method, seed, shared])
            if key not in done:
                done[key] = {"key": key, "method": method, "seed": seed, "plm": options.plm}
                done[key] |= measure(method, seed, options, stop)
                append_row(results, done[key])
                print(f"{method}, seed {seed}: {100 * done[key]['average']:.2f}", file=sys.stderr, flush=True)
            rows.append(done[key])
    return table(rows, options)


def main(arguments: Sequence[str]) -> int:
    """Run the comparison; stopped by a signal it continues with the same command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality priming", description=__doc__)
    parser.add_argument("--plm", required=True, help="raw start: a directory, a hub name or an embedded name")
    parser.add_argument("--work", type=Path, required=True, help="directory for priming.jsonl and models")
    parser.add_argument("--data", type=Path, help="directory of the task's files")
    parser.add_argument("--task", default="sts")
    parser.add_argument("--methods", default="simcse,mirror,whitening", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", default="1,2,3", help="comma separated")
    parser.add_argument("--inductive", action="store_true", help="prime on no evaluated pair's sentences")
    parser.add_argument(
        "--set", action="append", metavar="KEY=VALUE", default=[], help="setting of all; repeat"
    )
    options = parser.parse_args(arguments)
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    options.methods = options.methods.split(",")
    try:
        if unknown := [name for name in options.methods if name not in METHODS]:
            raise ConfigError(f"No priming method '{unknown[0]}'. There are: {', '.join(METHODS)}.")
        with stop_on_signals() as stop:
            print(run(options, stop))
    except TransencError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
