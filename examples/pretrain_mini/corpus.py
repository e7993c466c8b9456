"""Turn plain-text files into dense rows of token ids whose order depends on nothing but the seed."""

import gzip
import hashlib
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from transenc.errors import DataError

HELD_OUT_SHARE = 50  # one sentence in 50 (2%) is held out


def read_sentences(files: Iterable[Path]) -> list[str]:
    """Read one sentence a line from .txt and .txt.gz files, in the order given, without blank lines."""
    sentences: list[str] = []
    for file in files:
        before = len(sentences)
        try:
            opener = gzip.open if file.suffix == ".gz" else open
            # newline="\n": a sentence may hold U+2028 or a form feed, which other readers take for line ends.
            with opener(file, "rt", encoding="utf-8", newline="\n") as lines:
                for number, line in enumerate(lines, start=1):  # noqa: B007  (the error below names the line)
                    if stripped := line.strip():
                        sentences.append(stripped)
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not UTF-8 text near line {len(sentences) - before + 1}.") from error
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{file}: cannot be read: {reason}.") from error
        if len(sentences) == before:
            raise DataError(f"{file}: holds no sentence. Expected one sentence a line.")
    if not sentences:
        raise DataError("No corpus file given. Expected .txt or .txt.gz files with one sentence a line.")
    return sentences


def is_held_out(sentence: str) -> bool:
    """Say by its hash whether a sentence is held out, so that equal sentences never sit on both sides."""
    digest = hashlib.sha256(sentence.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0


def split_sentences(sentences: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part sentences into (training, held out); order is kept because neighbours are context."""
    training: list[str] = []
    held_out: list[str] = []
    for sentence in sentences:
        (held_out if is_held_out(sentence) else training).append(sentence)
    return training, held_out


@dataclass(frozen=True)
class TokenStream:
    """Hold all sentences as one array of ids, each sentence closed by [SEP]."""

    ids: np.ndarray  # (tokens,) int32
    starts: np.ndarray  # (sentences + 1,) int64, where each sentence begins; the last entry is the length
    cls_id: int
    sep_id: int

    @classmethod
    def encode(cls, sentences: list[str], tokenizer: Tokenizer) -> "TokenStream":
        """Tokenize in slices, so that memory stays bounded by the ids."""
        cls_id, sep_id = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        parts: list[np.ndarray] = []
        for begin in range(0, len(sentences), 20_000):
            encodings = tokenizer.encode_batch_fast(
                sentences[begin : begin + 20_000], add_special_tokens=False
            )
            parts.extend(np.asarray([*encoding.ids, sep_id], dtype=np.int32) for encoding in encodings)
        lengths = np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        return cls(np.concatenate(parts), starts, cls_id, sep_id)

    def counts(self, vocabulary_size: int) -> np.ndarray:
        """Count every token except [SEP]."""
        counts = np.bincount(self.ids, minlength=vocabulary_size)
        counts[self.sep_id] = 0
        return counts

    def rows(self, length: int, first_sentence: int = 0) -> np.ndarray:
        """Cut the stream into rows of `length` ids: [CLS], then sentences, the last one cut off.

        A row always begins with a sentence, as the inputs of the finished encoder do. The tail that is cut
        off is dropped; another `first_sentence` cuts elsewhere, so over the epochs every token is seen.
        """
        starts = self.starts.tolist()
        sentence, begins = first_sentence, []
        while starts[sentence] + length - 1 <= starts[-1]:
            begins.append(starts[sentence])
            sentence = bisect_left(starts, starts[sentence] + length - 1, lo=sentence + 1)
        rows = np.full((len(begins), length), self.cls_id, dtype=np.int32)
        if begins:
            rows[:, 1:] = self.ids[np.asarray(begins)[:, None] + np.arange(length - 1)]
        return rows


def segments(rows: np.ndarray, sep_id: int) -> np.ndarray:
    """Return the token type of each id: sentences count 0, 1, 0, 1, ... so that both types get trained."""
    is_sep = rows == sep_id
    return (np.cumsum(is_sep, axis=1) - is_sep) % 2


def repeat_sentences(rows: np.ndarray, share: float, sep_id: int, rng: np.random.Generator) -> np.ndarray:
    """Write each sentence of a share of the rows twice, the second time without a random quarter of its tokens.

    What is masked in one copy can be read off the other, at no fixed distance, so attention learns to find equal
    words in two sentences: what a cross-encoder lives on, and plain text of few tokens hardly teaches.
    """
    rows = rows.copy()
    for i in np.flatnonzero(rng.random(len(rows)) < share):
        ends = np.flatnonzero(rows[i] == sep_id)
        parts, first = [rows[i, :1]], 1
        for end in [*ends.tolist(), rows.shape[1] - 1]:
            sentence = rows[i, first : end + 1]
            kept = (rng.random(len(sentence)) >= 0.25) | (sentence == sep_id)
            parts += [sentence, sentence[kept]]
            first = end + 1
        rows[i] = np.concatenate(parts)[: rows.shape[1]]
    return rows


def seeded(*parts: object) -> np.random.Generator:
    """Return a generator that depends on the parts alone, e.g. (seed, "mask", step)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


class RowOrder:
    """Give the rows of any step as a pure function of (seed, step): what resume rests on."""

    def __init__(self, stream: TokenStream, *, length: int, rows_per_step: int, seed: int) -> None:
        self.stream, self.length, self.rows_per_step, self.seed = stream, length, rows_per_step, seed
        self._epoch = lru_cache(maxsize=1)(self._build_epoch)
        self._sizes: list[int] = []  # steps of each epoch seen so far
        if self._steps_of(0) == 0:
            raise DataError(
                f"The corpus fills fewer than {rows_per_step} rows of {length} tokens, the size of one step. "
                "Give more text, or a smaller --rows or --row-length."
            )

    def _build_epoch(self, epoch: int) -> np.ndarray:
        rng = seeded(self.seed, "order", epoch)
        first = int(rng.integers(0, min(16, len(self.stream.starts) - 1))) if epoch else 0
        rows = self.stream.rows(self.length, first)
        return rows[rng.permutation(len(rows))]

    def _steps_of(self, epoch: int) -> int:
        while len(self._sizes) <= epoch:
            # At least one step each epoch, so that the walk in `at` always ends.
            self._sizes.append(len(self._epoch(len(self._sizes))) // self.rows_per_step)
        return self._sizes[epoch]

    def at(self, step: int) -> np.ndarray:
        """Return the (rows, length) ids of a step, counted from 0."""
        epoch = 0
        while step >= (size := max(self._steps_of(epoch), 1)):
            step, epoch = step - size, epoch + 1
        begin = step * self.rows_per_step
        return self._epoch(epoch)[begin : begin + self.rows_per_step]

    def batches(self, first_step: int) -> Iterator[np.ndarray]:
        """Yield the rows of each step from `first_step` on, without end."""
        while True:
            yield self.at(first_step)
            first_step += 1
