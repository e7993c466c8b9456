"""Word embeddings in training on a CPU: gradients by rows that a step touches, AdamW by rows that examples have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LARGE = 1 << 20  # numbers in a table; the gradient of a smaller one costs next to nothing
SHARE = 0.5  # of a table's rows: with more, copying them back takes what AdamW spares


class Part:
    """Rows of a table as a parameter of their own, which is what the optimizer changes.

    Other rows have no gradient in the whole training: all that AdamW would do to them is to decay them.
    """

    def __init__(self, table: nn.Parameter, rows: Tensor) -> None:
        self.table, self.rows = table, rows
        self.place = torch.full((len(table),), -1)
        self.place[rows] = torch.arange(len(rows))
        self.parameter = nn.Parameter(table.detach()[rows])

    @torch.no_grad()
    def read(self) -> None:
        """Take the rows of the table."""
        torch.index_select(self.table, 0, self.rows, out=self.parameter.data)

    @torch.no_grad()
    def write(self, decay: float) -> None:
        """Put the rows into the table and decay the others, by `decay` of what they are."""
        if decay:
            self.table.mul_(1 - decay)
        self.table.index_copy_(0, self.rows, self.parameter)


class RowGradients:
    """Gather the gradients of a module's large embeddings, each in one buffer that lives as long as its training.

    A dense gradient is as large as the table, of which a step touches some hundred rows, and each forward pass of a
    step would make its own: 47 MB of new memory for 30,000 words, a sixth of a step of a small model on a CPU.
    occurring: sorted rows of tables outside of which no step will touch them; what the optimizer keeps and reads is
    then of those rows alone, a small share of a multilingual vocabulary.
    """

    def __init__(self, module: nn.Module, occurring: Mapping[nn.Parameter, Tensor] | None = None) -> None:
        found = [m for m in module.modules() if isinstance(m, nn.Embedding) and m.weight.requires_grad]
        # On a GPU new memory is cheap, and adding by rows would come out in another order each time.
        self.tables = [
            m for m in found if m.weight.numel() >= LARGE and not m.sparse and m.weight.device.type == "cpu"
        ]
        held = {table.weight for table in self.tables}  # tables may share one
        self.weights = [parameter for parameter in module.parameters() if parameter in held]
        self.parts = {
            weight: Part(weight, occurring[weight])
            for weight in self.weights
            if occurring and weight in occurring and len(occurring[weight]) < SHARE * len(weight)
        }
        self.buffers: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self.trained = {
            name: self.parts[weight].parameter if weight in self.parts else weight
            for name, weight in module.named_parameters()
        }

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
            gradient, part = weight.grad, self.parts.get(weight)
            if gradient is None or not gradient.is_sparse:
                if part and gradient is not None:
                    raise RuntimeError("word embeddings are also used otherwise than by the rows of words")
                continue  # this step did not use the table, or used it otherwise too
            rows, values = gradient._indices()[0], gradient._values()
            target = weight
            if part:
                rows, weight.grad, target = part.place[rows], None, part.parameter
                if int(rows.min()) < 0:
                    raise RuntimeError("a step touched a word that no example was said to have")
            buffer, before = self.buffers.get(weight) or (torch.zeros_like(target), rows[:0])
            buffer.index_fill_(0, before, 0.0).index_add_(0, rows, values)
            self.buffers[weight] = buffer, rows
            target.grad = buffer

    def read(self) -> None:
        """Take what the optimizer changes from the module, whose weights were loaded."""
        for part in self.parts.values():
            part.read()

    def write(self, optimizer: torch.optim.Optimizer) -> None:
        """Put what the optimizer has changed into the module; call it after each of its steps."""
        for part in self.parts.values():
            group = next(g for g in optimizer.param_groups if any(p is part.parameter for p in g["params"]))
            part.write(group["lr"] * group["weight_decay"])
