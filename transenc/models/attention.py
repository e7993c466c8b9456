"""Attention over many short sequences on a CPU: a few batched products in fp32, whatever precision surrounds it.

torch's fused attention is made for long sequences. In bf16, oneDNN also prepares every product of a size that it has
not seen lately, which takes longer than products this small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Draw = Callable[[Tensor, float], Tensor]

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


def attend_with_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    dropout: float = 0.0,
    draw: Draw | None = None,
) -> Tensor:
    """Return what `attend` returns for the same inputs, with dropout of the weights and with gradients.

    draw: makes the factors of dropout for a tensor and the share of it that is dropped.
    """
    shape = (len(query), query.shape[2], key.shape[2])
    rows = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    result: Tensor = AttendRows.apply(*rows, [shape], scale, dropout, draw, mask)  # type: ignore[no-untyped-call]
    return result.view(*shape[:2], *result.shape[1:]).transpose(1, 2)


class AttendRows(torch.autograd.Function):
    """Attention within groups of sequences of one length each that lie end to end, as `attend_with_gradients` has it.

    In one function, since cutting and joining a group's queries, keys and values costs as much as a product of it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int, int]],
        scale: float | None,
        dropout: float,
        draw: Draw | None,
        *masks: Tensor | None,
    ) -> Tensor:
        """Return (tokens asked, heads, size).

        query, key, value: (tokens, heads, size). shapes: (batch, asked, length) of each group.
        """
        scale, result, kept = _scale(query, scale), value.new_empty(*query.shape[:2], value.shape[2]), []
        groups = zip(parts(query, shapes, 1), parts(key, shapes, 2), parts(value, shapes, 2), strict=True)
        for (asked, keys, values), target, mask in zip(groups, parts(result, shapes, 1), masks, strict=True):
            _, heads, length, _ = keys.shape
            kind = torch.float32 if length <= SHORT else query.dtype
            with torch.autocast("cpu", enabled=False):
                q, k, v = _wide(asked, kind=kind), _wide(keys, LANES, kind), _wide(values, LANES, kind)
                weights = _weights(q, k, mask, scale, heads, length)
                factors = draw(weights, dropout) if draw and dropout else None
                _put(torch.bmm(weights if factors is None else weights * factors, v), target)
            kept += [q, k, v, weights, factors]
        ctx.save_for_backward(*kept)
        ctx.scale, ctx.shapes, ctx.dtype = scale, shapes, query.dtype
        ctx.sizes = query.shape, key.shape, value.shape
        ctx.biases = [
            mask.shape if mask is not None and needed else None
            for mask, needed in zip(masks, ctx.needs_input_grad[7:], strict=True)
        ]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys, values and additive masks."""
        of_query, of_key, of_value = (torch.empty(size, dtype=ctx.dtype) for size in ctx.sizes)
        of_masks: list[Tensor | None] = []
        targets = zip(
            *(parts(each, ctx.shapes, i) for each, i in ((of_query, 1), (of_key, 2), (of_value, 2))),
            strict=True,
        )
        kept, saved = ctx.saved_tensors, 5
        for i, (part, target, bias) in enumerate(
            zip(parts(gradient, ctx.shapes, 1), targets, ctx.biases, strict=True)
        ):
            q, k, v, weights, factors = kept[saved * i : saved * (i + 1)]
            g = _wide(part, kind=q.dtype)
            of_weights = torch.bmm(g, v.transpose(1, 2))
            if factors is not None:
                of_weights.mul_(factors)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            fallen = weights if factors is None else weights * factors
            _put(torch.bmm(of_scores, k).mul_(ctx.scale), target[0])
            _put(torch.bmm(of_scores.transpose(1, 2), q).mul_(ctx.scale), target[1])
            _put(torch.bmm(fallen.transpose(1, 2), g), target[2])
            heads, length = target[1].shape[1:3]
            of_masks.append(bias and _apart(of_scores, heads)[..., :length].sum_to_size(bias))
        return of_query, of_key, of_value, None, None, None, None, *of_masks


def parts(rows: Tensor, shapes: Sequence[tuple[int, int, int]], which: int) -> list[Tensor]:
    """Return each group's (batch, heads, length, size) view of (tokens, heads, size); which: 1 asked, 2 length."""
    cut = torch.split(rows, [shape[0] * shape[which] for shape in shapes])
    return [
        part.view(shape[0], shape[which], *rows.shape[1:]).transpose(1, 2)
        for part, shape in zip(cut, shapes, strict=True)
    ]


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


def _put(states: Tensor, target: Tensor) -> None:
    """Write what `_wide` has the layout of into (batch, heads, rows, size)."""
    target.copy_(_apart(states, target.shape[1])[:, :, : target.shape[2]])


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
