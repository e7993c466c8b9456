"""Compare engines with sentence-transformers' default scoring of the same pairs, in one run.

python -m benchmarks.engines --pairs stsb-test.tsv --score-range 0 5 --model minilm --cross DIR

Each side is measured in turn, A B A B, and the medians are compared. Printed are pairs a second, the ratio, the
agreement of the scores, and the Spearman with people's scores, as a Markdown table with hardware and versions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from transenc.export.engine import load_engine
from transenc.export.latency import machine
from transenc.metrics import spearman
from transenc.models.intake import resolve
from transenc.models.loading import load_scorer
from transenc.pairs import Pairs
from transenc.readers import read_pairs

PACKAGES = ("transenc", "onnxruntime", "sentence-transformers", "transformers", "torch")
Score = Callable[[], Any]


def main() -> None:
    """Export the models, measure, print."""
    options = _options()
    pairs = read_pairs(options.pairs, scores="optional", score_range=options.score_range)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for family, name in (("bi", options.model), ("cross", options.cross)):
            if name:
                out = Path(scratch) / family
                _export(name, out, options)
                rows += compare(family, name, out, pairs, options.rounds)
    if options.json:
        print(json.dumps(rows))
    else:
        print(markdown(rows, len(pairs), options))


def compare(family: str, name: str, engine: Path, pairs: Pairs, rounds: int) -> list[dict[str, Any]]:
    """Measure the peer and every graph of the engine `rounds` times, in turn, and return a row for each."""
    sides: dict[str, Score] = {"sentence-transformers": _peer(family, name, pairs)}
    for graph in json.loads((engine / "engine.json").read_text())["graphs"]:
        sides[graph] = _own(engine, graph, pairs)
    scores = {side: np.asarray(score(), np.float64) for side, score in sides.items()}  # also warms up
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, score in sides.items():
            began = time.perf_counter()
            score()
            times[side].append(time.perf_counter() - began)
    theirs = statistics.median(times["sentence-transformers"])
    rows = []
    for side in sides:
        median = statistics.median(times[side])
        rows.append(
            {
                "family": family,
                "side": side,
                "pairs_per_second": len(pairs) / median,
                "ratio": theirs / median,
                "spearman": None if pairs.scores is None else spearman(scores[side], pairs.scores),
                "agreement": spearman(scores[side], scores["sentence-transformers"]),
                "largest_difference": float(np.abs(scores[side] - scores["sentence-transformers"]).max()),
                "seconds": times[side],
            }
        )
    return rows


def _peer(family: str, name: str, pairs: Pairs) -> Score:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    left, right = pairs.column(pairs.left), pairs.column(pairs.right)
    path = str(resolve(name, offline=True).path)
    if family == "cross":
        model: Any = CrossEncoder(path, device="cpu")
        rows = list(zip(left, right, strict=True))
        return lambda: model.predict(rows, show_progress_bar=False)
    model = SentenceTransformer(path, device="cpu")

    def score() -> Any:
        # Each distinct sentence once, as the engine does: the gain of that is not counted here.
        vectors = model.encode(list(pairs.sentences), normalize_embeddings=True, show_progress_bar=False)
        return np.einsum("nd,nd->n", vectors[pairs.left], vectors[pairs.right])

    return score


def _own(path: Path, graph: str, pairs: Pairs) -> Score:
    engine = load_engine(path, precision=graph)
    return lambda: engine.score(pairs)


def _export(name: str, out: Path, options: argparse.Namespace) -> None:
    from transenc import tasks
    from transenc.export.onnx import export_onnx

    scorer = load_scorer(name, device="cpu", precision="fp32", offline=True)
    dev = tasks.dev(tasks.get("demo"), None, offline=True)
    assert dev is not None
    report = export_onnx(
        scorer,
        out,
        pairs=dev,
        gold=dev,
        precisions=("fp32", "int8"),
        optimize=True,
        max_drop=options.max_drop,
    )
    print(f"{name}: int8: {report.graphs['int8'].what}", file=sys.stderr)


def markdown(rows: list[dict[str, Any]], count: int, options: argparse.Namespace) -> str:
    """Return the table, with what it was measured on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        f"Scoring {count:,} pairs of {options.pairs.name}, medians of {options.rounds} rounds in turn.",
        f"{machine()}; Python {sys.version.split()[0]}, {versions}.",
        "",
        "| family | scored by | pairs/s | x sentence-transformers | Spearman | agreement | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gold = "" if row["spearman"] is None else f"{100 * row['spearman']:.2f}"
        lines.append(
            f"| {row['family']} | {row['side']} | {row['pairs_per_second']:,.0f} | {row['ratio']:.2f} | {gold} | "
            f"{row['agreement']:.4f} | {row['largest_difference']:.1e} |"
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--pairs", type=Path, required=True, help="pairs to score; with scores, Spearman is shown"
    )
    parser.add_argument("--score-range", type=float, nargs=2, help="lowest and highest gold score")
    parser.add_argument("--model", default="minilm", help="bi-encoder; empty: none")
    parser.add_argument("--cross", default="", help="directory of a cross-encoder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-drop", type=float, default=0.005)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
