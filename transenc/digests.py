"""Fingerprints of what lies outside a run: models and data, by content alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transenc.errors import DamagedError
from transenc.pairs import Pairs
from transenc.store import MANIFEST, fingerprint, hash_tree, manifest

LOADED = (".safetensors", ".json", ".txt", ".model")


def plm_digest(path: Path) -> str:
    """Return the fingerprint of the files of a PLM that are loaded.

    Raise DamagedError where the manifest, if there is one, has recorded others.
    """
    loaded = {n: digest for n, digest in hash_tree(path, skip="onnx").items() if n.endswith(LOADED)}
    recorded = _recorded(path) if (path / MANIFEST).is_file() else {}
    for name, entry in recorded.items():
        if name.endswith(LOADED) and not name.startswith("onnx/") and loaded.get(name) != entry["sha256"]:
            raise DamagedError(
                f"{path / name} is missing, or differs from what {path / MANIFEST} recorded. Make the model again; "
                f"if it was changed on purpose, remove that {MANIFEST}."
            )
    return fingerprint(loaded)


def _recorded(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return manifest(path).files
    except DamagedError as error:
        raise DamagedError(
            f"{error} If another tool wrote it, remove it: transenc compares a model with its own {MANIFEST} alone."
        ) from error


def check_committed(path: Path) -> None:
    """Raise DamagedError where a model's files are not those of its manifest, if it has one."""
    if (path / MANIFEST).is_file():
        plm_digest(path)


def pairs_digest(pairs: Pairs | None) -> str | None:
    """Return the fingerprint of pairs' content."""
    if pairs is None:
        return None
    scores = None if pairs.scores is None else pairs.scores.tobytes().hex()
    return fingerprint([list(pairs.sentences), pairs.left.tolist(), pairs.right.tolist(), scores])
