"""How much of the machine's matrix rate is used: useful products over what one large product reaches here."""

from __future__ import annotations

import statistics
import time
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from transenc.models.device import Compute


def products(config: Any, lengths: npt.NDArray[np.integer[Any]], *, first: bool = False) -> float:
    """Return the floating-point operations of a forward pass of a BERT over sequences of these token counts.

    Padding, the word embeddings and all that is no matrix product do not count. Training takes three times as many.
    first: the result is read off each sequence's first token, so the last layer needs no other token's.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    each = 2 * width**2 + 2 * width * config.intermediate_size  # weights that queries, and what follows, need
    tokens = np.asarray(lengths, np.float64)
    whole, one = (
        2 * each * asked + 4 * width**2 * tokens.sum() + 4 * width * read
        for asked, read in ((tokens.sum(), (tokens**2).sum()), (len(tokens), tokens.sum()))
    )
    return float((layers - first) * whole + first * one)


@cache
def matrix_rate(compute: Compute) -> float:
    """Return the operations a second of a large matrix product of random numbers here, median of 10."""
    n = 8192 if compute.kind == "cuda" else 2048
    dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=compute.device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(11):
        synchronise(compute)
        began = time.perf_counter()
        a @ b
        synchronise(compute)
        times.append(time.perf_counter() - began)
    return float(2 * n**3 / statistics.median(times[1:]))


def share(compute: Compute, operations: float, seconds: float) -> str:
    """Say what part of the machine's matrix rate was used."""
    rate = matrix_rate(compute)
    return (
        f"{operations / seconds / rate:.1%} of the {compute.precision} matrix rate of {rate / 1e9:,.0f} GF/s"
    )


def synchronise(compute: Compute) -> None:
    """Wait until a GPU has done what it was given."""
    if compute.kind == "cuda":
        torch.cuda.synchronize()
