"""Sentences encoded a second, against SentenceTransformer.encode at its defaults and at equal precision."""

from __future__ import annotations

import numpy as np

from benchmarks import peers
from benchmarks.common import Row, computes, in_turn, main, minilm, no_bf16, sentences, spearman
from transenc.models.bi import BiFamily
from transenc.models.tokens import CPU_TOKENS, chunks

QUICK, FULL = 2_000, 10_000


def run(size: int) -> list[Row]:
    """Encode `size` sentences each way."""
    texts = sentences(size)
    path = minilm()
    rows: list[Row] = []
    plain = None
    for compute in computes():
        ours = BiFamily().load(path, compute=compute)
        theirs = peers.bi(path, device=compute.device, precision=compute.precision)
        sides = {
            "ours": lambda ours=ours: ours.encode(texts),
            "theirs": lambda theirs=theirs: theirs.encode(texts),
        }
        if compute.precision == "bf16":
            default = peers.bi(path, device=compute.device)
            sides["default"] = lambda default=default: default.encode(texts)
        seconds, results = in_turn(sides)
        if plain is None:
            plain = np.asarray(results["theirs"], np.float32)
        cosines = [(v[:-1] * v[1:]).sum(1) for v in (results["ours"], plain)]
        lengths = ours.transformer.tokens(texts).lengths
        padded = sum(len(c) * lengths[c].max() for c in chunks(lengths, CPU_TOKENS))
        agreement = (
            f"against its fp32: Spearman {spearman(*cosines):.6f}, "
            f"max cosine difference {np.abs(cosines[0] - cosines[1]).max():.1e}; "
            f"{lengths.mean():.1f} tokens a sentence, padding {padded / lengths.sum() - 1:.1%}{no_bf16()}"
        )
        for side, goal in (("theirs", 1.4), ("default", 4.0)):
            if side in seconds:
                name = f"encode {size:,} sentences, {compute.precision}"
                peer = "sentence-transformers" + (" at its defaults" if side == "default" else "")
                rate, other = size / seconds["ours"], size / seconds[side]
                rows.append(Row(name, "sentences/s", rate, agreement, other, peer, ratio_goal=goal))
    return rows


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
