"""BM25 neighbours of every sentence (top 5), against rank-bm25 extrapolated from 200 queries."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.common import Row, main, peak_mib, resident_mib, sentences
from transenc.samplers.bm25 import K1, B, Bm25, best, word_ids

QUICK, FULL = 20_000, 100_000
K = 5
QUERIES = 200
FIRST = 100  # sentences mined before, so that what is done once does not count


def run(size: int) -> list[Row]:
    """Mine `size` sentences; a peer that would take hours is asked for some of them."""
    from rank_bm25 import BM25Plus

    texts = sentences(size)
    sampler, rng = Bm25(K), np.random.default_rng(0)
    began = time.perf_counter()
    Bm25(K, backend=sampler.chosen(size)).sample(texts[:FIRST], rng)
    first = time.perf_counter() - began
    before = resident_mib()
    began = time.perf_counter()
    left, right = sampler.sample(texts, rng)
    ours = time.perf_counter() - began
    memory = peak_mib() - before

    words, _ = word_ids(texts)
    began = time.perf_counter()
    index = BM25Plus(words, k1=K1, b=B, delta=0)
    built = time.perf_counter() - began
    asked = np.random.default_rng(1).choice(size, min(QUERIES, size), replace=False)
    began = time.perf_counter()
    scores = {int(q): index.get_scores(words[q]) for q in asked}
    each = (time.perf_counter() - began) / len(asked)
    off = 0.0
    for query, row in scores.items():
        mine = np.sort(row[right[left == query]])[::-1]
        theirs = row[best(row.copy(), query, K)]
        if len(mine) != len(theirs):
            raise AssertionError(f"sentence {query}: {len(mine)} neighbours, rank-bm25 has {len(theirs)}")
        off = max(off, float(np.abs(mine - theirs).max(initial=0.0)))
    agreement = (
        f"same neighbours up to ties: rank-bm25's scores of both lists differ by at most {off:.1e} "
        f"({len(asked)} queries); {memory:,.0f} MiB; not counted: {first:.1f} s for {FIRST} sentences before, "
        "in which numba compiles if it never did"
    )
    goal = 1000.0 if size >= FULL else None
    what = f"BM25 top {K} of {size:,} sentences, each a query"
    peer = f"rank-bm25, from {len(asked)} queries"
    return [Row(what, "s", ours, agreement, built + each * size, peer, less=True, ratio_goal=goal)]


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
