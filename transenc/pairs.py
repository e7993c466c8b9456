"""Sentence pairs in columns: every distinct sentence is stored once and pairs are indices into them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Sentences to L2-normalised embeddings, (n, dim)."""

# Punctuation, spaces, control characters, free-standing accents: what differs in one sentence taken from two files.
UNHEARD = ("P", "Z", "C", "Sk")


class _Heard(dict[int, str | None]):
    """Map characters to themselves, those that make no other sentence to None; filled as they come."""

    def __missing__(self, code: int) -> str | None:
        unheard = unicodedata.category(chr(code)).startswith(UNHEARD)
        self[code] = None if unheard else chr(code)
        return self[code]


_HEARD = _Heard()


def plain(sentence: str) -> str:
    """Return a sentence without case, punctuation and spaces: equal for two that nobody would tell apart.

    Compatible characters (Unicode's NFKC) are equal, too. A sentence of nothing else is itself.
    """
    kept = unicodedata.normalize("NFKC", sentence).casefold().translate(_HEARD)
    return kept or sentence.strip()


def texts_of(given: Iterable[str]) -> list[str]:
    """Return texts of any iterable as a list; raise TypeError for one text alone, and for what is no text."""
    if isinstance(given, str):
        raise TypeError(
            "one text in place of several, of which each character would be one: give a list, [text]"
        )
    texts = list(given)
    odd = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if odd is not None:
        raise TypeError(f"text {odd + 1} of {len(texts)} is {type(texts[odd]).__name__}, not str")
    return texts


@dataclass(frozen=True, eq=False)  # arrays have no one truth value
class Pairs:
    """Hold `n` sentence pairs, scored or not.

    sentences: the distinct sentences, in order of first use.
    left, right: (n,) int64 indices into `sentences`.
    scores: (n,) float32, or None for unlabelled pairs; gold keeps the range its reader mapped it to.
    """

    sentences: Sequence[str]
    left: Index
    right: Index
    scores: Scores | None = None

    def __post_init__(self) -> None:
        if len(self.left) != len(self.right):
            raise ValueError(f"{len(self.left)} left but {len(self.right)} right sentences")
        if self.scores is not None and len(self.scores) != len(self.left):
            raise ValueError(f"{len(self.scores)} scores for {len(self.left)} pairs")

    def __len__(self) -> int:
        return len(self.left)

    @classmethod
    def from_rows(
        cls, sentence1: Iterable[str], sentence2: Iterable[str], scores: Iterable[float] | None = None
    ) -> Pairs:
        """Build pairs from two parallel columns, storing each distinct sentence once.

        Raises TypeError for a single text in place of a column, and for what is no text.
        """
        ids: dict[str, int] = {}
        left = [ids.setdefault(s, len(ids)) for s in texts_of(sentence1)]
        right = [ids.setdefault(s, len(ids)) for s in texts_of(sentence2)]
        values = None if scores is None else np.asarray(list(scores), dtype=np.float32)
        return cls(list(ids), np.asarray(left, np.int64), np.asarray(right, np.int64), values)

    def column(self, side: Index) -> list[str]:
        """Return the sentences of one side (`pairs.left` or `pairs.right`) as a column of length n."""
        return [self.sentences[i] for i in side]

    def rows(self) -> Iterator[tuple[str, str]]:
        """Iterate over (sentence1, sentence2)."""
        for i, j in zip(self.left, self.right, strict=True):
            yield self.sentences[i], self.sentences[j]

    def with_scores(self, scores: Scores | None) -> Pairs:
        """Return the same pairs with other scores."""
        return replace(self, scores=None if scores is None else np.asarray(scores, np.float32))

    def take(self, index: Index | slice) -> Pairs:
        """Return the pairs at `index`; the sentence list is narrowed to those still used."""
        left, right = self.left[index], self.right[index]
        used, inverse = np.unique(np.concatenate([left, right]), return_inverse=True)
        inverse = inverse.astype(np.int64)
        scores = None if self.scores is None else self.scores[index]
        sentences = [self.sentences[i] for i in used]
        return Pairs(sentences, inverse[: len(left)], inverse[len(left) :], scores)

    def flipped(self) -> Pairs:
        """Return every pair in the other order."""
        return replace(self, left=self.right, right=self.left)

    def keys(self) -> Index:
        """Return one integer per pair that is equal for (a, b) and (b, a)."""
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        keys: Index = low * np.int64(len(self.sentences)) + high
        return keys

    def unique(self) -> Pairs:
        """Drop self pairs and all but the first of each unordered duplicate, keeping the order."""
        _, first = np.unique(self.keys(), return_index=True)
        first.sort()
        return self.take(first[self.left[first] != self.right[first]])


def join(parts: Sequence[Pairs]) -> Pairs:
    """Concatenate pairs; scores are kept only if every part has them."""
    ids: dict[str, int] = {}
    left, right = [], []
    for part in parts:
        own = np.asarray([ids.setdefault(s, len(ids)) for s in part.sentences], np.int64)
        left.append(own[part.left])
        right.append(own[part.right])
    scored = [p.scores for p in parts if p.scores is not None]
    scores = np.concatenate(scored) if scored and len(scored) == len(parts) else None
    empty = np.zeros(0, np.int64)
    return Pairs(list(ids), np.concatenate([empty, *left]), np.concatenate([empty, *right]), scores)


def without(pairs: Pairs, evaluation: Sequence[Pairs]) -> tuple[Pairs, int]:
    """Drop and count the pairs that occur in the others, whatever their order, case and punctuation."""
    held = {key for other in evaluation for key in _plain_keys(other)}
    kept = np.array([key not in held for key in _plain_keys(pairs)], bool)
    return pairs.take(np.flatnonzero(kept)), int(len(pairs) - kept.sum())


def shared(pairs: Pairs, evaluation: Pairs) -> int:
    """Count the evaluation pairs that occur among the pairs, whatever their order, case and punctuation."""
    held = set(_plain_keys(pairs))
    return sum(key in held for key in _plain_keys(evaluation))


def _plain_keys(pairs: Pairs) -> Iterator[tuple[str, str]]:
    keys = [plain(sentence) for sentence in pairs.sentences]
    for i, j in zip(pairs.left, pairs.right, strict=True):
        yield (keys[i], keys[j]) if keys[i] <= keys[j] else (keys[j], keys[i])


def cosines(vectors: npt.NDArray[np.float32], left: Index, right: Index) -> Scores:
    """Return the inner products of unit vectors for index columns, in bounded memory."""
    values = np.empty(len(left), np.float32)
    for start in range(0, len(left), 8192):
        part = slice(start, start + 8192)
        values[part] = np.einsum("nd,nd->n", vectors[left[part]], vectors[right[part]])
    return np.clip(values, -1.0, 1.0)  # rounding can pass 1 by an ulp or two
