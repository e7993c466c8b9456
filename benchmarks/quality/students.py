"""How far cross-encoders are from their labels, and from themselves when a pair is turned round.

python -m benchmarks.quality students RUN [RUN ...] --pairs DATA/sts/stsb-test.tsv

Each RUN is a finished directory of `transenc cycle`. "Labels" is the Spearman correlation of what a cross-encoder
says of the pairs it learnt from with the labels it was taught there: below 1, or it would be a copy of its
teacher; left out when the run has other pairs for bi-encoders. "Orders" compares its scores of (a, b) and (b, a) on
the file's pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from transenc.kinds import kind_of
from transenc.metrics import spearman
from transenc.models.loading import load_scorer
from transenc.pairs import Pairs
from transenc.readers import read_pairs


def relation(run: Path, cycle: int, student: str, pairs: Pairs) -> dict[str, float]:
    """Return the figures of one cross-encoder of a run; correlations and development scores are not times 100."""
    at = run / f"cycle-{cycle}"
    taught = read_pairs(at / "silver-bi/silver.parquet", scores="required")
    said = read_pairs(at / f"label-cross/{student}/scores.parquet", scores="required")
    assert taught.scores is not None and said.scores is not None
    found: dict[str, float] = {}
    if list(taught.rows()) == list(said.rows()):
        found["labels"] = spearman(said.scores, taught.scores)
    scorer = load_scorer(str(at / f"distill-cross/{student}"))
    there, back = scorer.score(pairs), scorer.score(pairs.flipped())
    found["difference"] = float(np.abs(there - back).mean())
    found["orders"] = spearman(there, back)
    teacher = str(json.loads((at / f"label-bi/{student}/label.json").read_text())["teacher"])
    files = (run / teacher / f"{kind_of(teacher)}.json", at / f"distill-cross/{student}/distill.json")
    devs = [json.loads(file.read_text())["dev"] for file in files]
    if None not in devs:
        found["dev over teacher"] = devs[1] - devs[0]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print a table of the runs' cross-encoders and, of several, their mean and sample standard deviation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality students", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--cycle", type=int, default=1)
    asked = parser.parse_args(arguments)
    pairs = read_pairs(asked.pairs, scores="ignored")
    rows: list[tuple[str, dict[str, float]]] = []
    for run in asked.runs:
        for model in sorted((run / f"cycle-{asked.cycle}/distill-cross").iterdir()):
            rows.append((f"{run.name}, {model.name}", relation(run, asked.cycle, model.name, pairs)))
    columns: dict[str, Any] = {
        "labels": "Spearman with its labels",
        "dev over teacher": "development score over its teacher",
        "difference": "mean difference of the orders",
        "orders": "Spearman of the orders",
    }
    print(f"| cross-encoder | {' | '.join(columns.values())} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, found in rows:
        print(f"| {name} | {' | '.join(f'{found[c]:.4f}' if c in found else '' for c in columns)} |")
    if len(rows) > 1:
        cells = []
        for column in columns:
            values = [found[column] for _, found in rows if column in found]
            spread = (
                f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            )
            cells.append(spread)
        print(f"| mean of {len(rows)} | {' | '.join(cells)} |")
    return 0
