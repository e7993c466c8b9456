"""Gradients of word embeddings, gathered by the rows that a step has touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LARGE = 1 << 20  # numbers in a table; the gradient of a smaller one costs next to nothing


class RowGradients:
    """Gather the gradients of a module's large embeddings, each in one buffer that lives as long as its training.

    A dense gradient is as large as the table, of which a step touches some hundred rows, and each forward pass of a
    step would make its own: 47 MB of new memory for 30,000 words, a sixth of a step of a small model on a CPU.
    """

    def __init__(self, module: nn.Module) -> None:
        found = [m for m in module.modules() if isinstance(m, nn.Embedding) and m.weight.requires_grad]
        # On a GPU new memory is cheap, and adding by rows would come out in another order each time.
        self.tables = [
            m for m in found if m.weight.numel() >= LARGE and not m.sparse and m.weight.device.type == "cpu"
        ]
        self.weights = list(dict.fromkeys(table.weight for table in self.tables))  # tables may share one
        self.buffers: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def sparse(self) -> Iterator[None]:
        """Let backward passes give (row, gradient) pairs for the block; `gather` makes gradients of them."""
        for table in self.tables:
            table.sparse = True
        try:
            yield
        finally:
            for table in self.tables:
                table.sparse = False

    def gather(self) -> None:
        """Replace sparse gradients by dense ones of the same values; call it after each backward pass."""
        for weight in self.weights:
            if weight.grad is None or not weight.grad.is_sparse:
                continue  # not used in this step, or used otherwise too
            rows, values = weight.grad._indices()[0], weight.grad._values()
            buffer, before = self.buffers.get(weight) or (torch.zeros_like(weight), rows[:0])
            buffer.index_fill_(0, before, 0.0).index_add_(0, rows, values)
            self.buffers[weight] = buffer, rows
            weight.grad = buffer
