"""Offer the raw masked language model `mini` to transenc (entry point group `transenc.plms`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["plm"]

CARD = (
    "mini (Apache-2.0): a raw BERT of 11.6 million parameters, pretrained on 234 million tokens (25 passes) of "
    "textbooks, old novels and short sentences; not tuned for similarity"
)


# What suits six thin layers in place of a recipe's values, which are published for 12 layers and more: larger steps,
# and priming that needs no deep network to tell two views apart (docs/results.md).
SETTINGS = {
    "prime": {"method": "whitening", "learning_rate": 2e-4, "max_sentences": 20_000},
    "distill": {"cross": {"learning_rate": 1e-4}, "bi": {"learning_rate": 1e-4, "dropout": 0.0}},
}


def plm() -> dict[str, Any]:
    """Say where the model lies and what it is.

    A plain dict, so that this package needs no import of transenc: `path` (directory), `tuned` (similarity-tuned
    already?), `pooling`, `sha256` (file name to digest), `settings` (over a recipe's, under the user's) and `card`
    (one line).
    """
    path = Path(__file__).parent / "model"
    sums = (line.split() for line in (path / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    return {
        "path": path,
        "tuned": False,
        "pooling": "mean",
        "sha256": {name: digest for digest, name in sums},
        "settings": SETTINGS,
        "card": CARD,
    }
