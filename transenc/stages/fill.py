"""Find the masked language models that augmenters name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transenc import registry
from transenc.digests import plm_digest
from transenc.models.device import Compute
from transenc.models.intake import resolve
from transenc.models.masked_lm import MaskedLM, load_masked_lm


def find_masked_lm(name: str, *, compute: Compute, offline: bool = False) -> MaskedLM:
    """Load the masked language model of a hub name or directory."""
    return load_masked_lm(resolve(name, offline=offline).path, name, compute)


def model_digests(specs: Sequence[str], default: str, *, offline: bool = False) -> dict[str, Any]:
    """Return the fingerprints of the models that augmenters use, by name; raise as `find_masked_lm` does."""
    found: dict[str, Any] = {}
    for spec in specs:
        augmenter = registry.create(registry.AUGMENTERS, spec)
        if getattr(augmenter, "needs_model", False):
            name = str(getattr(augmenter, "model", "")) or default
            path = resolve(name, offline=offline).path
            load_masked_lm(path, name, Compute.choose("cpu", "fp32"))
            found[f"model {name}"] = plm_digest(path)
    return found
