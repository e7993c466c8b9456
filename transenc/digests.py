"""Fingerprints of what lies outside a run: models and data, by content alone."""

from __future__ import annotations

from pathlib import Path

from transenc.pairs import Pairs
from transenc.store import fingerprint, hash_tree


def plm_digest(path: Path) -> str:
    """Return the fingerprint of the files of a PLM that are loaded."""
    loaded = {
        name: digest
        for name, digest in hash_tree(path, skip="onnx").items()
        if name.endswith((".safetensors", ".json", ".txt", ".model"))
    }
    return fingerprint(loaded)


def pairs_digest(pairs: Pairs | None) -> str | None:
    """Return the fingerprint of pairs' content."""
    if pairs is None:
        return None
    scores = None if pairs.scores is None else pairs.scores.tobytes().hex()
    return fingerprint([list(pairs.sentences), pairs.left.tolist(), pairs.right.tolist(), scores])
