"""Measure a sampler on a corpus: pairs, seconds, peak memory, and examples to look at.

python -m benchmarks.mining --corpus FILE [--corpus FILE] --sampler bm25:k=5 [--sentences 100000] [--encoder MODEL]

With more --sentences than the corpus has, sentences of other words are made of its words, as long as its own.
One run a process, since memory is the peak of the whole process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from transenc.readers import read_sentences
from transenc.samplers import mine
from transenc.samplers.mix import build


def enlarge(sentences: list[str], wanted: int, seed: int) -> list[str]:
    """Return the first `wanted` sentences, followed by made ones of the same words and lengths where they end."""
    found = dict.fromkeys(sentences[:wanted])
    words = " ".join(sentences).split()
    lengths = [len(s.split()) for s in sentences]
    rng = np.random.default_rng(seed)
    while len(found) < wanted:
        drawn = rng.choice(lengths, 4_096)
        picks = rng.integers(0, len(words), int(drawn.sum()))
        start = 0
        for length in drawn:
            found[" ".join(words[i] for i in picks[start : start + length])] = None
            start += length
            if len(found) == wanted:
                break
    return list(found)


def main() -> None:
    """Mine once and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, action="append", required=True)
    parser.add_argument("--sampler", default="bm25:k=5")
    parser.add_argument("--sentences", type=int)
    parser.add_argument("--encoder", help="model that embeds, for samplers that compare embeddings")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5, help="examples to print")
    asked = parser.parse_args()
    sentences = read_sentences(asked.corpus)
    if asked.sentences:
        sentences = enlarge(sentences, asked.sentences, asked.seed)
    encode = None
    if asked.encoder:
        from transenc.models.loading import load_scorer

        encode = load_scorer(asked.encoder).encode  # type: ignore[attr-defined]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    pairs = mine(build(asked.sampler), sentences, seed=asked.seed, encode=encode)
    seconds = time.perf_counter() - began
    rng = np.random.default_rng(asked.seed)
    shown = pairs.take(np.sort(rng.choice(len(pairs), min(asked.show, len(pairs)), replace=False)))
    facts = {
        "sampler": asked.sampler,
        "sentences": len(sentences),
        "pairs": len(pairs),
        "seconds": round(seconds, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "before_mining_mib": before // 1024,
        "examples": [list(row) for row in shown.rows()],
    }
    print(json.dumps(facts, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
