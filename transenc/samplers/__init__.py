"""Mine unlabelled sentence pairs from a corpus; one file per way of choosing them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from transenc import registry
from transenc.errors import ConfigError, DataError, MachineError
from transenc.pairs import Encode as Encode  # for samplers of plugins
from transenc.pairs import Index, Pairs, plain
from transenc.samplers.mix import Mix

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

    exclude: pairs that have a gold score already; their sentences may differ from the corpus, and case and
    punctuation do not tell a pair from one of them.
    max_pairs: the size of the seeded subset to keep, in mined order; None keeps all.
    A mix is mined member by member; a pair that several find counts for the first.
    """
    if max_pairs is not None and max_pairs < 1:
        raise ConfigError(f"max_pairs must be at least 1, not {max_pairs}.")
    name = type(sampler).__name__
    needs_encoder = getattr(sampler, "needs_encoder", False)
    if needs_encoder and encode is None:
        raise ConfigError(f"The sampler {name} compares embeddings: name a model with --encoder.")
    distinct = list(dict.fromkeys(sentences))
    rng = np.random.default_rng(seed)
    known = _plain_keys(exclude, distinct) if exclude is not None else None
    if isinstance(sampler, Mix):
        pairs = _mixed(sampler, distinct, rng, encode, known)
    else:
        pairs = _clean(sampler, distinct, rng, encode if needs_encoder else None, known)
    kept: Index | slice = slice(None)
    if max_pairs is not None and len(pairs) > max_pairs:
        kept = np.sort(rng.choice(len(pairs), max_pairs, replace=False))
    pairs = pairs.take(kept)  # narrows the sentences to those that occur
    if not len(pairs) and not isinstance(sampler, Mix):  # which says itself who found none
        log.warning("%s found no new pair among %d different sentences.", name, len(distinct))
    return pairs


def sample(
    sampler: PairSampler, sentences: Sequence[str], rng: np.random.Generator, encode: Encode | None
) -> tuple[Index, Index]:
    """Return what a sampler returns, as arrays; raise MachineError naming a plugin's package where it fails."""
    with registry.blaming(f"The sampler {type(sampler).__name__}", registry.package_of(sampler)):
        left, right = map(np.asarray, sampler.sample(sentences, rng, encode=encode))
    return left, right


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


Known = tuple[Index, Index]  # each sentence's plain number, and the sorted keys of the excluded pairs


def _clean(
    sampler: PairSampler,
    distinct: Sequence[str],
    rng: np.random.Generator,
    encode: Encode | None,
    known: Known | None,
) -> Pairs:
    left, right = sample(sampler, distinct, rng, encode)
    both = np.stack([left, right]) if left.shape == right.shape else np.zeros(0)
    # A list of no numbers has no type of its own.
    if both.ndim != 2 or (
        both.size and (both.dtype.kind not in "iu" or both.min() < 0 or both.max() >= len(distinct))
    ):
        raise DataError(
            f"The sampler {type(sampler).__name__} returned columns that are no pairs of {len(distinct)} sentences."
        )
    left, right = both.astype(np.int64)
    pairs = Pairs(distinct, left, right)
    if known is not None:
        numbers, keys = known
        new = ~np.isin(Pairs(distinct, numbers[pairs.left], numbers[pairs.right]).keys(), keys)
        pairs = Pairs(distinct, pairs.left[new], pairs.right[new])
    _, first = np.unique(pairs.keys(), return_index=True)
    first.sort()
    first = first[pairs.left[first] != pairs.right[first]]
    return Pairs(distinct, pairs.left[first], pairs.right[first])


def _mixed(
    mix: Mix, distinct: Sequence[str], rng: np.random.Generator, encode: Encode | None, known: Known | None
) -> Pairs:
    parts: list[Pairs] = []
    taken = np.zeros(0, np.int64)
    for member in mix.members:
        wanted = encode if getattr(member, "needs_encoder", False) else None
        part = _clean(member, distinct, rng, wanted, known)
        new = ~np.isin(part.keys(), taken)
        parts.append(Pairs(distinct, part.left[new], part.right[new]))
        taken = np.concatenate([taken, parts[-1].keys()])
        if not len(parts[-1]):
            log.warning(
                "%s found no new pair among %d different sentences, so the mix is empty.",
                type(member).__name__,
                len(distinct),
            )
    lefts, rights = [], []
    for part, count in zip(parts, mix.counts([len(part) for part in parts]), strict=True):
        chosen = np.sort(rng.choice(len(part), count, replace=False))
        lefts.append(part.left[chosen])
        rights.append(part.right[chosen])
    return Pairs(distinct, np.concatenate(lefts), np.concatenate(rights))


def _plain_keys(pairs: Pairs, sentences: Sequence[str]) -> Known:
    """Give sentences equal but for case and punctuation one number; return the keys of `pairs` in these too."""
    position: dict[str, int] = {}
    numbers = np.asarray([position.setdefault(plain(s), i) for i, s in enumerate(sentences)], np.int64)
    ids = np.asarray([position.get(plain(s), -1) for s in pairs.sentences], np.int64)
    left, right = ids[pairs.left], ids[pairs.right]
    there = (left >= 0) & (right >= 0)
    return numbers, np.unique(Pairs(sentences, left[there], right[there]).keys())
