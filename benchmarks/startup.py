"""Seconds of whole processes: `transenc --help`, and `transenc label` of 100 pairs with an ONNX engine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Row, in_turn, main, minilm, pairs
from transenc.readers import read_pairs
from transenc.writers import write_pairs

QUICK, FULL = 100, 100
WITHOUT_TORCH = """
import sys
from transenc.cli.app import main
sys.argv[0] = "transenc"
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
assert not {"torch", "transformers"} & set(sys.modules), "torch was imported"
"""
PEER = """
import sys
import csv
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
rows = list(csv.DictReader(open(sys.argv[2], encoding="utf-8"), delimiter="\\t", quoting=csv.QUOTE_NONE))
columns = ([row[name] for row in rows] for name in ("sentence1", "sentence2"))
left, right = (model.encode(column, normalize_embeddings=True) for column in columns)
open(sys.argv[3], "w").write("\\n".join(map(str, (left * right).sum(1).tolist())))
"""


def process(*arguments: str) -> Callable[..., Any]:
    """Return how a Python process with these arguments is run; what `in_turn` prepares is not passed on."""

    def work(_: None = None) -> None:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{arguments[:3]} failed: {done.stderr.strip()[-400:]}")

    return work


def run(size: int) -> list[Row]:
    """Time each process five times, that of the peer in turn."""
    shown, _ = in_turn({"ours": process("-m", "transenc", "--help")}, rounds=5)
    rows = [Row("transenc --help", "s", shown["ours"], "whole process", less=True, most=0.3)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given, out, theirs = folder / "pairs.tsv", folder / "out.tsv", folder / "theirs.txt"
        write_pairs(pairs(size).with_scores(None), given)
        engine = folder / "engine"
        process("-m", "transenc", "export", "onnx", "--model", str(minilm()), "--out", str(engine))()
        label = ("label", "--teacher", str(engine), "--pairs", str(given), "--out", str(out))
        process("-c", WITHOUT_TORCH, *label)()
        sides = {
            "ours": process("-m", "transenc", *label),
            "theirs": process("-c", PEER, str(minilm()), str(given), str(theirs)),
        }
        # `transenc label` does not replace what is there.
        fresh = {
            "ours": partial(out.unlink, missing_ok=True),
            "theirs": partial(theirs.unlink, missing_ok=True),
        }
        seconds, _ = in_turn(sides, rounds=5, prepare=fresh)
        mine = read_pairs(out, scores="required").scores
        assert mine is not None
        other = np.clip(np.loadtxt(theirs), 0, 1)
        agreement = (
            f"labels differ by at most {np.abs(mine - other).max():.1e}; no torch was imported; whole process"
        )
    what = f"transenc label of {size} pairs with an ONNX engine"
    rows.append(
        Row(
            what,
            "s",
            seconds["ours"],
            agreement,
            seconds["theirs"],
            "sentence-transformers",
            less=True,
            most=1.5,
        )
    )
    return rows


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
