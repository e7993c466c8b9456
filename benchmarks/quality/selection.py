"""Which cycles rules choose in real runs, and how far each choice lies below the best on test data.

python -m benchmarks.quality selection RUN [RUN ...] [--dev FILE]

Each RUN is a finished directory of `transenc cycle --select agreement` with one start and tests. FILE holds what
`transenc evaluate DEV --model RUN/prime/... --model ... --json` printed of the runs' models. Rules on agreement are
those of `chains` and choose among cycles; development data, and what the run itself kept, may be the start.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.chains import Chain, choices
from benchmarks.quality.rows import read_rows
from transenc.readers import read_pairs

DEV = "development data"
KEPT = "what the run kept"


def below_best(run: Path, dev: Mapping[Path, float]) -> dict[tuple[str, str], tuple[str, float, float]]:
    """Return for each family and rule the chosen model, its test value and how far that is below the best, x 100."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    held = [
        read_pairs(run / "agreement" / row["path"] / "scores.parquet", scores="required").scores
        for row in rows
    ]
    chain = Chain(np.array(held, np.float64), [row["family"] for row in rows], np.empty(0))
    chosen = {key: rows[place] for key, place in choices(chain).items()}
    chosen["bi", "the start"] = rows[0]
    for best in results["best"]:
        chosen[best["family"], KEPT] = next(row for row in rows if row["path"] == best["model"])
    if dev:
        for family in set(chain.family):
            own = [row for row in rows if row["family"] == family]
            chosen[family, DEV] = max(own, key=lambda row: dev[(run / row["path"]).resolve()])
    highest: dict[str, float] = {}
    for row in rows:
        highest[row["family"]] = max(highest.get(row["family"], -100.0), _value(row))
    return {
        (family, rule): (row["label"], _value(row), highest[family] - _value(row))
        for (family, rule), row in sorted(chosen.items(), key=lambda item: item[0][0])
    }


def _value(row: dict[str, Any]) -> float:
    return 100 * float(statistics.mean(row["tests"].values()))


def main(arguments: Sequence[str]) -> int:
    """Print a table of the rules, a column for each run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality selection", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--dev", type=Path, help="JSON lines of `transenc evaluate --json`")
    asked = parser.parse_args(arguments)
    lines = read_rows(asked.dev) if asked.dev else []
    dev = {Path(line["model"]).resolve(): float(line["value"]) for line in lines}
    columns = [below_best(run, dev) for run in asked.runs]
    print(f"| family | rule | {' | '.join(run.name for run in asked.runs)} | below the best, mean |")
    print("|---" * (len(columns) + 3) + "|")
    for family, rule in columns[0]:
        cells = [
            f"{label}: {value:.2f} (-{below:.2f})"
            for label, value, below in (column[family, rule] for column in columns)
        ]
        mean = statistics.mean(column[family, rule][2] for column in columns)
        print(f"| {family} | {rule} | {' | '.join(cells)} | {mean:.2f} |")
    return 0
