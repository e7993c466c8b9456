"""Pairs scored a second, against CrossEncoder.predict at its defaults and at equal precision."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import peers
from benchmarks.common import Row, computes, in_turn, main, minilm, no_bf16, pairs, spearman
from transenc.models.cross import CrossFamily

QUICK, FULL = 1_200, 10_000


def run(size: int) -> list[Row]:
    """Score `size` pairs each way with minilm under a random head."""
    given = pairs(size)
    texts = list(given.rows())
    rows: list[Row] = []
    plain = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cross"
        torch.manual_seed(0)
        CrossFamily().create(minilm(), compute=computes()[0], max_length=None).save(path)
        for compute in computes():
            ours = CrossFamily().load(path, compute=compute)
            theirs = peers.cross(path, device=compute.device, precision=compute.precision)
            sides = {
                "ours": lambda ours=ours: ours.score(given),
                "theirs": lambda theirs=theirs: theirs.predict(texts),
            }
            if compute.precision == "bf16":
                default = peers.cross(path, device=compute.device)
                sides["default"] = lambda default=default: default.predict(texts)
            seconds, results = in_turn(sides)
            if plain is None:
                plain = np.asarray(results["theirs"], np.float32)
            agreement = (
                f"against its fp32: Spearman {spearman(results['ours'], plain):.6f}, "
                f"max difference {np.abs(results['ours'] - plain).max():.1e}{no_bf16()}"
            )
            for side, goal in (("theirs", 1.4), ("default", 4.0)):
                if side in seconds:
                    peer = "sentence-transformers" + (" at its defaults" if side == "default" else "")
                    rate, other = size / seconds["ours"], size / seconds[side]
                    name = f"cross-score {size:,} pairs, {compute.precision}"
                    rows.append(Row(name, "pairs/s", rate, agreement, other, peer, ratio_goal=goal))
    return rows


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
