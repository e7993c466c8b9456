"""Attention over many short sequences on a CPU: a few batched products in fp32, whatever precision surrounds it.

torch's fused attention is made for long sequences. In bf16, oneDNN also prepares every product of a size that it has
not seen lately, which takes longer than products this small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORT = 64  # tokens; longer sequences are torch's in scoring, and keep their precision in training
LANES = 16  # torch's softmax takes rows shorter than a vector register one number at a time
TOKENS = 1024  # of the sequences taken at once in scoring, so that all stays in cache


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Return softmax(query key^T * scale + mask) value without gradients.

    query: (batch, heads, asked, size). key, value: (batch, heads, length, size). mask: bool or added, broadcast to
    (batch, heads, asked, length), or None. scale: None takes 1 / sqrt(size). Returns (batch, heads, asked, size) that
    lies as (batch, asked, heads, size).
    """
    batch, heads, asked, size = query.shape
    if key.shape[2] > SHORT:
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    scale, result = _scale(query, scale), query.new_empty(batch, asked, heads, size)
    step = max(1, TOKENS // key.shape[2])
    for start in range(0, batch, step):
        part = slice(start, start + step)
        q, k, v = _wide(query[part]), _wide(key[part], LANES), _wide(value[part], LANES)
        some = mask if mask is None or mask.shape[0] == 1 else mask[part]
        weights = _weights(q, k, some, scale, heads, key.shape[2])
        result[part].copy_(torch.bmm(weights, v).view(-1, heads, asked, size).transpose(1, 2))
    return result.transpose(1, 2)


class AttendWithGradients(torch.autograd.Function):
    """Attention as `attend` has it, with gradients and dropout.

    draw: makes the factors of dropout for a tensor and the share that falls.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float | None,
        dropout: float,
        draw: Callable[[Tensor, float], Tensor],
    ) -> Tensor:
        """Return what `attend` does, after dropout of the weights."""
        heads, length, scale = query.shape[1], key.shape[2], _scale(query, scale)
        kind = torch.float32 if length <= SHORT else query.dtype
        with torch.autocast("cpu", enabled=False):
            q, k, v = _wide(query, kind=kind), _wide(key, LANES, kind), _wide(value, LANES, kind)
            weights = _weights(q, k, mask, scale, heads, length)
            factors = draw(weights, dropout) if dropout else None
            result = torch.bmm(weights if factors is None else weights * factors, v)
        ctx.save_for_backward(q, k, v, weights, factors)
        ctx.scale, ctx.heads, ctx.length, ctx.dtype = scale, heads, length, query.dtype
        ctx.bias = mask.shape if mask is not None and ctx.needs_input_grad[3] else None
        return _narrow(result, heads, query.shape[2], query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys, values and what was added."""
        q, k, v, weights, factors = ctx.saved_tensors
        g = _wide(gradient, kind=q.dtype)
        fallen = weights if factors is None else weights * factors
        of_weights = torch.bmm(g, v.transpose(1, 2))
        if factors is not None:
            of_weights.mul_(factors)
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        found = (
            (torch.bmm(of_scores, k).mul_(ctx.scale), q.shape[1]),
            (torch.bmm(of_scores.transpose(1, 2), q).mul_(ctx.scale), ctx.length),
            (torch.bmm(fallen.transpose(1, 2), g), ctx.length),
        )
        bias = ctx.bias and _apart(of_scores, ctx.heads)[..., : ctx.length].sum_to_size(ctx.bias)
        return *(_narrow(each, ctx.heads, rows, ctx.dtype) for each, rows in found), bias, None, None, None


def _wide(states: Tensor, least: int = 0, kind: torch.dtype = torch.float32) -> Tensor:
    """Return (batch * heads, length, size) of (batch, heads, length, size), with zeros up to `least` rows."""
    batch, heads, length, size = states.shape
    if length >= least:
        found = torch.empty(states.shape, dtype=kind, device=states.device).copy_(states)
    else:
        found = torch.zeros((batch, heads, least, size), dtype=kind, device=states.device)
        found[:, :, :length] = states
    return found.view(batch * heads, -1, size)


def _scale(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


def _apart(states: Tensor, heads: int) -> Tensor:
    return states.view(-1, heads, *states.shape[1:])


def _narrow(states: Tensor, heads: int, rows: int, dtype: torch.dtype) -> Tensor:
    """Return (batch, heads, rows, size), which lies as (batch, rows, heads, size), of what `_wide` makes."""
    apart = _apart(states, heads)[:, :, :rows].transpose(1, 2)
    return torch.empty(apart.shape, dtype=dtype, device=states.device).copy_(apart).transpose(1, 2)


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, heads: int, length: int) -> Tensor:
    """Return the (batch * heads, asked, rows of k) softmax; rows from `length` on weigh nothing."""
    scores = torch.baddbmm(q.new_empty(()).expand(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
    apart = _apart(scores, heads)
    if mask is not None and mask.dtype == torch.bool:
        apart[..., :length].masked_fill_(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        apart[..., :length] += mask
    apart[..., length:] = float("-inf")
    return torch.softmax(scores, -1)
