"""Offer the raw masked language model `mini` to transenc (entry point group `transenc.plms`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["plm"]

CARD = (
    "mini (Apache-2.0): a raw BERT of 4.3 million parameters, pretrained on 17 million tokens of textbooks, "
    "old novels and short sentences; not tuned for similarity"
)


def plm() -> dict[str, Any]:
    """Say where the model lies and what it is.

    A plain dict, so that this package needs no import of transenc: `path` (directory), `tuned` (similarity-tuned
    already?), `pooling`, `sha256` (file name to digest) and `card` (one line).
    """
    path = Path(__file__).parent / "model"
    sums = (line.split() for line in (path / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    return {
        "path": path,
        "tuned": False,
        "pooling": "mean",
        "sha256": {name: digest for digest, name in sums},
        "card": CARD,
    }
