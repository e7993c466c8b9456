"""Many sequences as one row: every layer but attention runs over all their tokens at once, hardly padded.

A forward pass costs a CPU as much as some hundred tokens, whatever it holds: layers are started, weights laid out,
gradients of every weight made and added. So sequences of all lengths share one, and only attention looks at groups of
one width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from transenc.models.attention import attend, parts
from transenc.models.dropout import CpuDropout
from transenc.models.first_token import last_layer_at

Batch = dict[str, Tensor]

# Architectures that take positions from outside and mix tokens in scaled_dot_product_attention only; tests compare
# outputs and gradients of each with those of padded batches. Others run in padded groups.
ROWS = ("bert", "electra", "roberta", "xlm-roberta", "camembert")


def position_offset(config: Any) -> int:
    """Return the position id of a sequence's first token: the RoBERTa line counts from pad_token_id + 1."""
    if config.model_type == "mpnet":
        return 2  # whatever its padding is
    if config.model_type not in ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm"):
        return 0
    padding = getattr(config, "pad_token_id", None)  # transformers' own default is 1
    return (padding if isinstance(padding, int) else 1) + 1


def fits(config: Any) -> bool:
    """Return whether `states` can run a body of this configuration."""
    return config.model_type in ROWS and config._attn_implementation == "sdpa"


def states(body: Any, groups: Sequence[Batch], *, first: bool = False) -> list[Tensor]:
    """Run padded groups through a body in one pass and return the (batch, length, dim) states of each.

    groups: (batch, length) model inputs; attention_mask may also be what is added to the attention logits,
    (batch, 1, length, length). first: only each sequence's first token is asked for, (batch, 1, dim).
    """
    shapes = [group["input_ids"].shape for group in groups]
    names = [name for name in groups[0] if name != "attention_mask"]
    row = {name: _joined([group[name] for group in groups]) for name in names}
    if "position_ids" not in row:
        row["position_ids"] = _joined([_positions(group["input_ids"], body.config) for group in groups])
    attention = Attention(shapes, [_mask(group["attention_mask"]) for group in groups])
    with attention, narrow(body), last_layer_at(body, attention.firsts) if first else nullcontext():
        flat: Tensor = body(**row).last_hidden_state[0]
    if attention.runs < body.config.num_hidden_layers:  # sequences would have read each other
        raise RuntimeError(f"the attention of {type(body).__name__} did not go through torch's function")
    if torch.is_autocast_enabled("cpu"):
        flat = flat.float()  # for sums over tokens
    cut = torch.split(flat, attention.counts if first else attention.sizes)
    return [part.view(count, -1, flat.shape[-1]) for part, count in zip(cut, attention.counts, strict=True)]


@contextmanager
def narrow(body: Any) -> Iterator[None]:
    """Hand states from layer to layer in the precision of autocast, if it is on, within the block.

    Embeddings are fp32, and so would be all sums with them: each layer would copy them for its products, and their
    gradients back. Weights and what a layer sums up inside (normalisation, softmax) stay as autocast has them.
    """
    if not torch.is_autocast_enabled("cpu"):
        yield
        return
    kind = torch.get_autocast_dtype("cpu")
    hook = body.embeddings.register_forward_hook(lambda part, given, states: states.to(kind))
    try:
        yield
    finally:
        hook.remove()


class Attention(TorchFunctionMode):
    """Let attention over one row look at each group of sequences alone.

    shapes: (batch, length) of the groups in the row. masks: what attention takes for each, or None.
    """

    def __init__(self, shapes: Sequence[torch.Size], masks: list[Tensor | None]) -> None:
        super().__init__()
        self.shapes, self.masks = shapes, masks
        self.counts = [batch for batch, _ in shapes]
        self.sizes = [batch * length for batch, length in shapes]
        self.runs = 0

    @property
    def firsts(self) -> Tensor:
        """Return where in the row each sequence begins."""
        lengths = np.repeat([length for _, length in self.shapes], self.counts)
        return torch.from_numpy(np.cumsum(lengths) - lengths)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take over attention; leave everything else to torch."""
        if func is F.scaled_dot_product_attention:
            self.runs += 1
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Return (1, heads, queries, size) from keys and values of all tokens, and queries of all or of the first."""
        if attn_mask is not None or query.shape[0] != 1:
            raise RuntimeError("this architecture looks at the row as a whole")
        if self.runs == 1:  # autocast decides the precision of attention, the same in all layers
            self.masks = [m if m is None or m.dtype == torch.bool else m.to(query.dtype) for m in self.masks]
        few = query.shape[2] != key.shape[2]
        shapes = [(batch, 1 if few else length, length) for batch, length in self.shapes]
        masks = [m if m is None else m[:, :, : shape[1]] for m, shape in zip(self.masks, shapes, strict=True)]
        # (tokens, heads, size) lies in memory as it is, so every step to (batch, heads, length, size) is a view.
        query, key, value = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
        dropout, scale, drawing = options.get("dropout_p", 0.0), options.get("scale"), CpuDropout.current()
        gradients, causal = torch.is_grad_enabled(), options.get("is_causal")
        if gradients and not causal and drawing and drawing.attends(query, dropout):
            found = drawing.attend_rows(query, key, value, shapes, masks, scale, dropout)
            return found.transpose(0, 1).unsqueeze(0)
        results = []
        groups = zip(
            parts(query, shapes, 1), parts(key, shapes, 2), parts(value, shapes, 2), masks, strict=True
        )
        for queries, keys, values, mask in groups:
            if gradients or causal or dropout:
                result = F.scaled_dot_product_attention(queries, keys, values, mask, **options)
            else:
                result = attend(queries, keys, values, mask, scale)
            results.append(result.transpose(1, 2).flatten(0, 1))
        return torch.cat(results).transpose(0, 1).unsqueeze(0)


def _joined(groups: list[Tensor]) -> Tensor:
    return torch.cat([group.flatten() for group in groups]).unsqueeze(0)


def _positions(ids: Tensor, config: Any) -> Tensor:
    """Return the (batch, length) positions that the architecture itself would choose."""
    if not position_offset(config):
        return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    # The RoBERTa line counts what is not the padding id, also where a text holds that by name.
    pad = position_offset(config) - 1
    real = (ids != pad).long()
    return real.cumsum(1) * real + pad


def _mask(mask: Tensor) -> Tensor | None:
    if mask.ndim == 4:
        return mask
    return None if bool(mask.all()) else mask.bool()[:, None, None, :]
