"""Turn a pretrained language model and unlabelled sentences into a bi-encoder and a cross-encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transenc.config import Settings as Settings
    from transenc.inputs import settings_for as settings_for
    from transenc.models.loading import load_scorer as load_scorer
    from transenc.pairs import Pairs as Pairs
    from transenc.readers import read_pairs as read_pairs
    from transenc.readers import read_sentences as read_sentences
    from transenc.session import Session as Session

__version__: str

_HOMES = {
    "Pairs": "transenc.pairs",
    "Session": "transenc.session",
    "Settings": "transenc.config",
    "load_scorer": "transenc.models.loading",
    "read_pairs": "transenc.readers",
    "read_sentences": "transenc.readers",
    "settings_for": "transenc.inputs",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    # Only when asked for: `transenc --help` imports none of them, and importlib.metadata is a fifth of its time.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("transenc")
        except PackageNotFoundError:  # a source tree that was not installed
            return "0"
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'transenc' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
