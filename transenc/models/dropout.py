"""Draw dropout masks on CPUs ten times as fast as torch does, for whatever architecture is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from transenc.models.attention import AttendRows, attend_with_gradients

LEVELS = 1 << 16  # probabilities are kept to one in this many
# Of each thread its own, as torch keeps its modes.
_CURRENT: ContextVar[CpuDropout | None] = ContextVar("current", default=None)


class CpuDropout(TorchFunctionMode):
    """Replace dropout and attention inside the block; entered once a step, it draws from torch's seed alone.

    torch draws every mask one number at a time, a quarter of a bf16 training step. Here each 64-bit number of SFC64
    decides four elements. Which are dropped differs from torch's choice, and their share by at most 1 / 65536.
    Attention in bf16, or with dropout, is that of attention.py.
    """

    def __enter__(self) -> Any:
        self._bits = np.random.SFC64(int(torch.randint(2**62, ())))
        self._outer = _CURRENT.set(self)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        _CURRENT.reset(self._outer)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @staticmethod
    def current() -> CpuDropout | None:
        """Return the one whose block this thread is in."""
        return _CURRENT.get()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take over the two functions that draw masks; leave every other one, and any unusual call, to torch."""
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention and len(args) <= 4:
            unusual = kwargs.get("is_causal") or kwargs.get("enable_gqa") or args[0].ndim != 4
            if not unusual and self.attends(args[0], kwargs.get("dropout_p", 0.0)):
                return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def attends(self, query: Tensor, dropout: float) -> bool:
        """Return whether attention is taken over."""
        # Without dropout torch's fused attention is as fast in fp32, and needs no room for the weights.
        return bool(dropout) or query.dtype != torch.float32

    def attend_rows(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int, int]],
        masks: Sequence[Tensor | None],
        scale: float | None,
        dropout: float,
    ) -> Tensor:
        """Return the (tokens asked, heads, size) attention of groups of sequences (attention.AttendRows)."""
        result: Tensor = AttendRows.apply(query, key, value, shapes, scale, dropout, self._mask, *masks)  # type: ignore[no-untyped-call]
        return result

    def _dropout(
        self, states: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0.0:
            return states
        if inplace or p == 1.0:
            return F.dropout(states, p, training, inplace)
        return torch.mul(states, self._mask(states, p))

    def _mask(self, states: Tensor, p: float) -> Tensor:
        """Return the factors of dropout, shaped as `states`: 0 for dropped elements, for the others their scale."""
        falls = round(p * LEVELS)
        numbers = self._bits.random_raw(-(-states.numel() // 4)).view(np.int16)[: states.numel()]
        mask = torch.empty(states.shape, dtype=states.dtype)
        torch.ge(torch.from_numpy(numbers).view(states.shape), falls - LEVELS // 2, out=mask)
        return mask.mul_(LEVELS / (LEVELS - falls))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        return attend_with_gradients(query, key, value, attn_mask, scale, dropout_p, self._mask)
