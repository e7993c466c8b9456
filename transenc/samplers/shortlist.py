"""Candidates for each sentence's nearest neighbours, from products that are fast and nearly exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc.pairs import Index

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer[Any]]

BF16_FROM = 20_000  # vectors; with fewer, bf16 spares less than importing torch may take
PROBE = 2_048  # vectors that show whether bf16 tells neighbours apart
SPARE = 4  # candidates a neighbour, beyond which it does not
ROOM = 3  # candidates held, a neighbour that is asked for, from which on they are pruned
PIECE = 1 << 10  # pairs multiplied in double precision at a time


@dataclass(frozen=True)
class Products:
    """Inner products of some of n unit vectors with others, and how much two of them may differ wrongly.

    of: rows, columns -> (rows, columns) float32 products that the caller may write to. slack: where one product is
    higher than another by more, the exact one is higher too.
    """

    of: Callable[[slice, slice], Floats]
    slack: float


def products(vectors: Floats, k: int) -> Products:
    """Return the fastest products of (n, dim) unit vectors by which k neighbours can be told here."""
    single = Products(lambda rows, columns: vectors[rows] @ vectors[columns].T, _rounding(vectors))
    if len(vectors) < BF16_FROM:
        return single
    from transenc.models.device import Compute  # local: it imports torch

    if Compute.choose("cpu").precision != "bf16":
        return single
    # To some encoders all sentences are alike: too many are then as near as the k-th, as far as bf16 can tell.
    some = vectors[:: max(1, len(vectors) // PROBE)]
    if k + 1 >= len(some):
        return single
    half, scores = bf16_products(vectors), some @ some.T
    kth = np.partition(scores, -k - 1, axis=1)[:, -k - 1]  # itself is among them
    near = np.count_nonzero(scores >= (kth - half.slack)[:, None])
    return half if near <= SPARE * k * len(some) else single


def bf16_products(vectors: Floats) -> Products:
    """Return products of (n, dim) unit vectors in bf16."""
    import torch  # local: engines search without it

    given = torch.from_numpy(vectors)
    half = given.bfloat16()
    lost = float((given - half.float()).norm(dim=1).max())
    # Each product loses at most that of either side, and then is rounded itself; sums are in single precision.
    error = lost * (2 + lost) + torch.finfo(torch.bfloat16).eps / 2 * (1 + lost) ** 2

    def of(rows: slice, columns: slice) -> Floats:
        found: Floats = (half[rows] @ half[columns].T).float().numpy()
        return found

    return Products(of, 2 * error + _rounding(vectors))


def _rounding(vectors: Floats) -> float:
    # Bounds the difference of two products of unit vectors that were summed in single precision, and what is lost
    # when it is subtracted from one of them.
    return float((vectors.shape[1] + 2) * np.finfo(np.float32).eps)


class Shortlist:
    """Collect, tile by tile, what may be among each sentence's k nearest.

    vectors: (n, dim) unit vectors. low, high: limits of a neighbour's exact product. slack: that of the products.
    """

    def __init__(self, vectors: Floats, k: int, low: float, high: float, slack: float) -> None:
        self.vectors, self.k, self.low, self.high, self.slack = vectors, k, low, high, slack
        n = len(vectors)
        # What a candidate of each sentence has at least: above the -inf of itself, below any cosine.
        self.least = np.full(n, max(low, -2.0) - slack, np.float32)
        self.queries: list[Integers] = []
        self.others: list[Integers] = []
        self.scores: list[Floats] = []
        self.asked, self.held = n * k, 0
        self.room = ROOM * self.asked

    def begin(self, scores: Floats, start: int) -> None:
        """Take the products of the sentences from `start` on with each other; they come before all other tiles."""
        rows = slice(start, start + len(scores))
        np.fill_diagonal(scores, -np.inf)
        sure = self._within(scores)
        if len(scores) > self.k:
            self.least[rows] = np.maximum(self.least[rows], at_most_kth(sure, self.k) - self.slack)
        # The nonzero of two dimensions takes many times as long.
        left, right = np.divmod(np.flatnonzero(scores >= self.least[rows, None]), len(scores))
        self._hold(left + start, right + start, scores[left, right])

    def add(self, scores: Floats, top: int, left: int) -> None:
        """Take the products of the sentences from `top` on with those from `left` on, none of which is in both."""
        height, width = scores.shape
        self._within(scores)
        near = scores >= self.least[top : top + height, None]
        near |= scores >= self.least[left : left + width]
        rows, columns = np.divmod(np.flatnonzero(near), width)
        found = scores[rows, columns]
        rows, columns = rows + top, columns + left
        for queries, others in ((rows, columns), (columns, rows)):
            enough = found >= self.least[queries]
            self._hold(queries[enough], others[enough], found[enough])
        if self.held > self.room:
            self._prune()
            if self.held > SPARE * self.asked:
                self._decide()  # so many are nearly equal that only doubles can tell them apart
            self.room = max(ROOM * self.asked, 2 * self.held)

    def nearest(self) -> tuple[Index, Index]:
        """Return (query, neighbour) columns of each sentence's k best, best first, queries ascending."""
        self._prune()
        self._decide()
        return self.queries[0].astype(np.int64), self.others[0].astype(np.int64)

    def _within(self, scores: Floats) -> Floats:
        """Strike out in place what is surely above the limit; return the scores without what may be."""
        if self.high == np.inf:
            return scores
        scores[scores > self.high + self.slack] = -np.inf
        return np.where(scores > self.high - self.slack, np.float32(-np.inf), scores)

    def _hold(self, queries: Index, others: Index, scores: Floats) -> None:
        self.queries.append(queries.astype(np.int32))
        self.others.append(others.astype(np.int32))
        self.scores.append(scores)
        self.held += len(scores)

    def _prune(self) -> None:
        """Forget what k others are surely above, now that more of them are known."""
        queries, others = np.concatenate(self.queries), np.concatenate(self.others)
        scores = np.concatenate(self.scores)
        # One integer orders by query, then by falling score, and integers are sorted several times faster than two
        # columns: a float's bits are in its order, if those of negative ones are turned over.
        bits = scores.view(np.int32).astype(np.int64)
        bits ^= (bits >> 63) & 0x7FFFFFFF
        order = np.argsort((queries.astype(np.int64) << 32) - bits)
        queries, others, scores = queries[order], others[order], scores[order]
        # Those that may be above the limit come first, and do not count among the k.
        unsure = np.bincount(queries[scores > self.high - self.slack], minlength=len(self.least))
        counts = np.bincount(queries, minlength=len(self.least))
        ends = np.cumsum(counts)
        kth = ends - counts + unsure + self.k - 1
        known = kth < ends
        self.least[known] = np.maximum(self.least[known], scores[kth[known]] - self.slack)
        kept = scores >= self.least[queries]
        self._keep(queries[kept], others[kept], scores[kept])

    def _decide(self) -> None:
        """Keep each sentence's k best by exact products of those that `_prune` has left."""
        queries, others = self.queries[0], self.others[0]
        best = ranked(self.vectors, queries, others, self.k, self.low, self.high)
        self._keep(queries[best], others[best], self.scores[0][best])

    def _keep(self, queries: Integers, others: Integers, scores: Floats) -> None:
        self.queries, self.others, self.scores = [queries], [others], [scores]
        self.held = len(scores)


def ranked(
    vectors: Floats, queries: Integers, others: Integers, k: int, low: float = -np.inf, high: float = np.inf
) -> Index:
    """Return the positions of each query's k best candidates within [low, high].

    Ordered by query, then by falling exact product, then by candidate: in doubles, so equal vectors tie.
    """
    exact = np.empty(len(queries))
    for start in range(0, len(queries), PIECE):
        piece = slice(start, start + PIECE)
        exact[piece] = (vectors[queries[piece]].astype(np.float64) * vectors[others[piece]]).sum(axis=1)
    within = np.flatnonzero((exact >= low) & (exact <= high))
    order = within[np.lexsort((others[within], -exact[within], queries[within]))]
    rank = np.arange(len(order)) - np.searchsorted(queries[order], queries[order])
    return order[rank < k]


def at_most_kth(scores: Floats, k: int) -> Floats:
    """Return a score of each row that k others of it reach, close to the k-th highest; rows are longer than k."""
    # k groups of columns have a maximum as high as the k-th highest maximum, so k scores are as high. Looking
    # among the maxima alone is several times faster than among all the columns.
    n = scores.shape[1]
    groups = max(k, n // 32)
    top = scores[:, :groups].copy()
    for start in range(groups, n - groups + 1, groups):
        np.maximum(top, scores[:, start : start + groups], out=top)
    kth: Floats = np.partition(top, groups - k, axis=1)[:, groups - k]
    return kth
