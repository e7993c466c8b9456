"""Scoring beside its peer, at equal precision and at the peer's defaults; encode and cross_score say what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import Floats, Row, computes, in_turn, no_bf16
from benchmarks.limits import share
from transenc.models.device import Compute


def measure(
    what: str,
    unit: str,
    size: int,
    ours: Callable[[Compute], Callable[[], Any]],
    peer: Callable[..., Callable[[], Any]],
    agree: Callable[[Floats, Floats], str],
    operations: float,
) -> list[Row]:
    """Time each precision that pays here.

    ours: makes our work for a compute. peer: makes the same for a device, and a precision unless at its default.
    agree: compares our results with those of the peer in fp32. operations: of all the matrix products.
    """
    rows: list[Row] = []
    plain: Floats | None = None
    for compute in computes():
        sides = {"ours": ours(compute), "theirs": peer(compute.device, precision=compute.precision)}
        if compute.precision == "bf16":
            sides["default"] = peer(compute.device)
        seconds, results = in_turn(sides)
        if plain is None:
            plain = np.asarray(results["theirs"], np.float32)
        used = share(compute, operations, seconds["ours"])
        agreement = f"against its fp32: {agree(results['ours'], plain)}; {used}{no_bf16()}"
        for side, goal in (("theirs", 1.4), ("default", 4.0)):
            if side in seconds:
                name = "sentence-transformers" + (" at its defaults" if side == "default" else "")
                rate, other = size / seconds["ours"], size / seconds[side]
                text = f"{what}, {compute.precision}"
                rows.append(Row(text, unit, rate, agreement, other, name, ratio_goal=goal))
    return rows
