"""Spare the last layer's work on tokens that nothing reads: classifiers and cls pooling read the first one alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def first_token_only(body: Any, take: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the last layer of a body compute some tokens only, within the block; they still read all others.

    body: of an architecture in unpadded.ROWS, whose layers are all built as BERT's are. take: (batch, length, dim)
    states -> (batch, kept, dim), what the body's last hidden states then are. Of a layer's
    products only keys and values remain for the others, a sixth: a model of six layers does 14 % less, one of
    three 28 %.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    last = body.encoder.layer[-1]
    own = last.attention.self

    def forward(states: Tensor, attention_mask: Tensor | None = None, *more: Any, **options: Any) -> Tensor:
        few = take(states)
        query, key, value = (
            layer(given).unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2)
            for layer, given in ((own.query, few), (own.key, states), (own.value, states))
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            own.config._attn_implementation, sys.modules[type(own).__module__].eager_attention_forward
        )
        # Masks are of the keys: what one token may read, all may.
        mask = None if attention_mask is None else attention_mask[:, :, : few.shape[1]]
        dropout = own.dropout.p if own.training else 0.0
        context, _ = attend(own, query, key, value, mask, dropout=dropout, scaling=own.scaling)
        result: Tensor = last.feed_forward_chunk(last.attention.output(context.flatten(2), few))
        return result

    last.forward = forward  # of this one module, which keeps its parameters and their names
    try:
        yield
    finally:
        del last.forward
