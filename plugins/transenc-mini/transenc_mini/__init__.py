"""Offer the raw masked language model `mini` to transenc (entry point group `transenc.plms`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transenc_mini.digests import SHA256

__all__ = ["plm"]


def plm() -> dict[str, Any]:
    """Say where the model lies and what it is.

    A plain dict, so that this package needs no import of transenc: `path` (directory), `tuned` (similarity-tuned
    already?), `pooling`, `sha256` (file name to digest) and `card` (one line).
    """
    return {
        "path": Path(__file__).parent / "model",
        "tuned": False,
        "pooling": "mean",
        "sha256": dict(SHA256),
        "card": CARD,
    }


CARD = "CARD_LINE"
