"""The best BM25 matches of documents among themselves without scoring all others: MaxScore (Turtle and Flood, 1995).

A query's words are read from the rarest on: which documents have them, and what that adds to their sums. Once the
words that are left, "a" and "the" among them, cannot together bring one more document among the best k, their long
lists are not read. Of the documents found, those that may still be among the best are scored by their own words.
Needs the package numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from transenc.pairs import Index

Array = npt.NDArray[Any]

SLACK = np.float32(1 - 1e-4)  # sums lose less in fp32; a document this near to a limit is scored
MASKED = 64  # words, those that most documents have, each with a bit of its own


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call; the code is kept for later processes where there is room for it."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's directory nor the user's can be written
        return numba.njit(nogil=True)(function)


class Postings(NamedTuple):
    """The BM25 matrix of documents that are the queries too.

    words, starts: the words of each document in order, repeated ones too. scores, documents, columns: the matrix by
    words. own_scores, own_words, rows: the same by documents. highest: the highest score of each word. bit: of each
    word in `masks`, MASKED for one without. masks: which words with a bit each document has.
    """

    words: Array
    starts: Array
    scores: Array
    documents: Array
    columns: Array
    own_scores: Array
    own_words: Array
    rows: Array
    highest: Array
    bit: Array
    masks: Array


class Scratch(NamedTuple):
    """What one thread works in; sums, place and values are nought between two queries.

    sums: of each document, over the words read. found, risen: documents with a sum, and those whose sum has passed
    that of the k-th. bounds, masks: what each document found can reach, and its mask. place: of each word among the
    query's, from 1. distinct, times, highest: the query's words, the rarest first, how often each occurs, and what it
    adds at most. rest: what all words from one on add at most. values: one score a word. top, best, exact: the
    documents of the k highest sums, those sums, and their scores, or -1.
    """

    sums: Array
    found: Array
    risen: Array
    bounds: Array
    masks: Array
    place: Array
    distinct: Array
    times: Array
    highest: Array
    rest: Array
    values: Array
    top: Array
    best: Array
    exact: Array


def postings(words: list[list[int]], scores: Array, documents: Array, columns: Array) -> Postings:
    """Arrange a matrix given by words: those of word w lie at columns[w]:columns[w + 1], and each word has some."""
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    order, number = np.argsort(documents, kind="stable"), np.diff(columns)
    own_words = np.repeat(np.arange(len(number), dtype=np.int32), number)[order]
    rows = _ends(np.bincount(documents, minlength=len(words)))
    bit = np.full(len(number), MASKED, np.uint64)
    bit[np.argsort(-number, kind="stable")[:MASKED]] = np.arange(min(MASKED, len(number)))
    return Postings(
        words=np.fromiter((word for each in words for word in each), np.int32, int(lengths.sum())),
        starts=_ends(lengths),
        scores=scores.astype(np.float32, copy=False),
        documents=documents.astype(np.int32, copy=False),
        columns=columns.astype(np.int64, copy=False),
        own_scores=scores[order].astype(np.float32, copy=False),
        own_words=own_words,
        rows=rows,
        highest=np.maximum.reduceat(scores, columns[:-1]).astype(np.float32, copy=False),
        bit=bit,
        masks=_masks(own_words, rows, bit),
    )


def match(given: Postings, queries: Index, k: int) -> tuple[Index, Index]:
    """Return (queries, k) documents, best first and the earlier of equals, and how many each query has.

    queries: documents with words; none is among its own matches, nor is one that shares no word. A score is the sum
    in fp32 over the query's words in order, whatever was read before.
    """
    n, longest = len(given.masks), int(np.diff(given.starts).max())
    scratch = Scratch(
        sums=np.zeros(n, np.float32),
        found=np.empty(n + 1, np.int32),  # written to once more after the last
        risen=np.empty(n + 1, np.int32),
        bounds=np.empty(n, np.float32),
        masks=np.empty(n, np.uint64),
        place=np.zeros(len(given.bit), np.int32),
        distinct=np.empty(longest, np.int32),
        times=np.empty(longest, np.float32),
        highest=np.empty(longest, np.float32),
        rest=np.empty(longest + 1, np.float32),
        values=np.zeros(longest, np.float32),
        top=np.empty(k, np.int32),
        best=np.empty(k, np.float32),
        exact=np.empty(k, np.float32),
    )
    matches, counts = np.zeros((len(queries), k), np.int64), np.zeros(len(queries), np.int64)
    _match(given, queries, matches, counts, scratch)
    return matches, counts


def _ends(lengths: Array) -> Array:
    return np.concatenate([[0], np.cumsum(lengths)])


@compiled
def _masks(own_words: Array, rows: Array, bit: Array) -> Array:
    masks = np.zeros(len(rows) - 1, np.uint64)
    for document in range(len(masks)):
        for p in range(rows[document], rows[document + 1]):
            if bit[own_words[p]] < MASKED:
                masks[document] |= np.uint64(1) << bit[own_words[p]]
    return masks


@compiled
def _ask(given: Postings, asked: Array, scratch: Scratch) -> int:
    """Sort the query's distinct words, the rarest first; return how many there are."""
    place, distinct, columns = scratch.place, scratch.distinct, given.columns
    m = 0
    for word in asked:
        if not place[word]:
            place[word] = 1
            j, number = m, columns[word + 1] - columns[word]
            while j > 0 and columns[distinct[j - 1] + 1] - columns[distinct[j - 1]] > number:
                distinct[j] = distinct[j - 1]
                j -= 1
            distinct[j] = word
            m += 1
    scratch.times[:m] = 0
    for j in range(m):
        place[distinct[j]] = j + 1
    for word in asked:
        scratch.times[place[word] - 1] += 1
    scratch.rest[m] = 0
    for j in range(m - 1, -1, -1):
        scratch.highest[j] = scratch.times[j] * given.highest[distinct[j]]
        scratch.rest[j] = scratch.rest[j + 1] + scratch.highest[j]
    return m


@compiled
def _score(given: Postings, document: int, asked: Array, scratch: Scratch) -> np.float32:
    """Return a document's score."""
    place, values = scratch.place, scratch.values
    for p in range(given.rows[document], given.rows[document + 1]):
        if place[given.own_words[p]]:
            values[place[given.own_words[p]] - 1] = given.own_scores[p]
    score: np.float32 = np.float32(0)
    for word in asked:
        score += values[place[word] - 1]
    for word in asked:
        values[place[word] - 1] = 0
    return score


@compiled
def _settle(document: int, score: float, j: int, scratch: Scratch) -> None:
    """Put a document into `top` at j, or before those above with lower sums, which move down."""
    top, best, exact, value = scratch.top, scratch.best, scratch.exact, scratch.sums[document]
    while j > 0 and best[j - 1] < value:
        top[j], best[j], exact[j] = top[j - 1], best[j - 1], exact[j - 1]
        j -= 1
    top[j], best[j], exact[j] = document, value, score


@compiled
def _rise(rises: int, kept: int, scratch: Scratch) -> int:
    """Bring `top` up to date with the sums that have risen; return how many documents it holds."""
    k, sums, top, best = len(scratch.top), scratch.sums, scratch.top, scratch.best
    for i in range(kept):  # its own have risen too
        _settle(top[i], scratch.exact[i], i, scratch)
    for r in range(rises):
        document = scratch.risen[r]
        held = kept == k and sums[document] <= best[k - 1]
        for i in range(kept):
            held |= top[i] == document
        if held:
            continue
        _settle(document, -1, min(kept, k - 1), scratch)
        kept = min(kept + 1, k)
    return kept


@compiled
def _find(given: Postings, query: int, asked: Array, m: int, scratch: Scratch) -> tuple[int, int, np.float32]:
    """Read words until no further document can be among the best k.

    Return how many documents were found, how many words were read, and a score that k documents reach.
    """
    k, sums = len(scratch.top), scratch.sums
    count, read, kept, least = 0, 0, 0, np.float32(0)
    sums[query] = -np.inf  # it is not among its own matches
    while read < m and least * SLACK <= scratch.rest[read]:
        word, times, rises = scratch.distinct[read], scratch.times[read], 0
        floor = scratch.best[k - 1] if kept == k else np.float32(0)
        # No branches in here: many would be guessed wrong.
        for p in range(given.columns[word], given.columns[word + 1]):
            document = given.documents[p]
            before = sums[document]
            scratch.found[count] = document
            count += int(before == 0)
            sums[document] = before + times * given.scores[p]
            scratch.risen[rises] = document
            rises += int(sums[document] > floor)
        read += 1
        kept = _rise(rises, kept, scratch)
        if kept == k and read < m:
            lowest = np.float32(np.inf)
            for j in range(k):
                if scratch.exact[j] < 0:
                    scratch.exact[j] = _score(given, scratch.top[j], asked, scratch)
                lowest = min(lowest, scratch.exact[j])
            least = max(least, lowest)
    sums[query] = 0
    return count, read, least


@compiled
def _bound(given: Postings, count: int, read: int, m: int, scratch: Scratch) -> None:
    """Fill `bounds` of the documents found and clear their sums; masks tell which of the words left each has."""
    bounds, masks = scratch.bounds[:count], scratch.masks[:count]
    for c in range(count):
        document = scratch.found[c]
        bounds[c], masks[c] = scratch.sums[document], given.masks[document]
        scratch.sums[document] = 0
    for j in range(read, m):
        bit, adds = given.bit[scratch.distinct[j]], scratch.highest[j]
        if bit == MASKED:
            bounds += adds
            continue
        # One loop a word and no branches, so that the compiler takes many documents at a time.
        for c in range(count):
            bounds[c] += adds * np.float32(np.int32(masks[c] >> bit & np.uint64(1)))


@compiled
def _choose(
    given: Postings, asked: Array, count: int, least: np.float32, row: Array, scratch: Scratch
) -> int:
    """Put the best documents found into `row` and return how many there are."""
    k, best = len(row), scratch.best
    kept, limit = 0, least * SLACK
    for c in range(count):
        if scratch.bounds[c] < limit:
            continue
        document = scratch.found[c]
        score = _score(given, document, asked, scratch)
        if kept == k and (score < best[k - 1] or (score == best[k - 1] and document > row[k - 1])):
            continue
        j = min(kept, k - 1)
        while j > 0 and (best[j - 1] < score or (best[j - 1] == score and row[j - 1] > document)):
            best[j], row[j] = best[j - 1], row[j - 1]
            j -= 1
        best[j], row[j] = score, document
        kept = min(kept + 1, k)
        if kept == k:
            limit = max(limit, best[k - 1] * SLACK)
    return kept


@compiled
def _match(given: Postings, queries: Index, matches: Index, counts: Index, scratch: Scratch) -> None:
    for q in range(len(queries)):
        asked = given.words[given.starts[queries[q]] : given.starts[queries[q] + 1]]
        m = _ask(given, asked, scratch)
        count, read, least = _find(given, queries[q], asked, m, scratch)
        _bound(given, count, read, m, scratch)
        counts[q] = _choose(given, asked, count, least, matches[q], scratch)
        for word in asked:
            scratch.place[word] = 0
