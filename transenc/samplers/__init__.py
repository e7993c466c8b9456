"""Mine unlabelled sentence pairs from a corpus; one file per way of choosing them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from transenc.errors import ConfigError, DataError, MachineError
from transenc.pairs import Index, Pairs

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Sentences to L2-normalised embeddings, (n, dim)."""

log = logging.getLogger(__name__)


class PairSampler(Protocol):
    """Choose which sentences of a corpus to pair.

    A sampler is a frozen dataclass; its fields are its options, each with `metadata={"help": "..."}`.
    A class attribute `needs_encoder = True` asks for `encode`. What `mine` removes it may return.
    """

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Return index columns (left, right) into `sentences`, which are all different from each other."""
        ...


def mine(
    sampler: PairSampler,
    sentences: Sequence[str],
    *,
    seed: int,
    encode: Encode | None = None,
    exclude: Pairs | None = None,
    max_pairs: int | None = None,
) -> Pairs:
    """Mine unlabelled pairs: no self pair, no pair twice in either order, none of `exclude` in either order.

    exclude: pairs that have a gold score already; their sentences may differ from the corpus.
    max_pairs: the size of the seeded subset to keep, in mined order; None keeps all.
    """
    if max_pairs is not None and max_pairs < 1:
        raise ConfigError(f"max_pairs must be at least 1, not {max_pairs}.")
    name = type(sampler).__name__
    needs_encoder = getattr(sampler, "needs_encoder", False)
    if needs_encoder and encode is None:
        raise ConfigError(f"The sampler {name} compares embeddings: name a model with --encoder.")
    distinct = list(dict.fromkeys(sentences))
    rng = np.random.default_rng(seed)
    left, right = sampler.sample(distinct, rng, encode=encode if needs_encoder else None)
    pairs = Pairs(distinct, np.asarray(left, np.int64), np.asarray(right, np.int64))
    if exclude is not None:
        pairs = pairs.take(np.flatnonzero(~np.isin(pairs.keys(), _keys_in(exclude, distinct))))
    pairs = pairs.unique()
    if max_pairs is not None and len(pairs) > max_pairs:
        pairs = pairs.take(np.sort(rng.choice(len(pairs), max_pairs, replace=False)))
    if not len(pairs):
        log.warning("%s found no new pair among %d different sentences.", name, len(distinct))
    return pairs


def require(sentences: Sequence[str], needed: int) -> None:
    """Raise DataError when a corpus holds fewer different sentences than a sampler needs."""
    if len(sentences) < needed:
        raise DataError(
            f"The corpus has {len(sentences)} different sentences and the sampler needs at least {needed}; "
            "give more text or ask for fewer neighbours."
        )


def check_k(k: int) -> None:
    """Raise ValueError unless a number of neighbours is at least 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")


def import_package(module: str, package: str) -> Any:
    """Import an optional package; raise MachineError naming its install command."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MachineError(f"This sampler needs {package}: pip install {package} ({error})") from error


def _keys_in(pairs: Pairs, sentences: Sequence[str]) -> Index:
    """Return `Pairs.keys` as they are over other sentences, for the pairs whose sides are both there."""
    position = {sentence: i for i, sentence in enumerate(sentences)}
    ids = np.asarray([position.get(sentence, -1) for sentence in pairs.sentences], np.int64)
    left, right = ids[pairs.left], ids[pairs.right]
    there = (left >= 0) & (right >= 0)
    return Pairs(sentences, left[there], right[there]).keys()
