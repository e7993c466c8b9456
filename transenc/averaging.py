"""A mean of the weights that training passes through, scored and kept in their place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from transenc.config import parse_average

Weights = dict[str, Tensor]


class Average:
    """Follow a module's parameters over `steps` steps of training.

    ema:DECAY is the exponential moving average, its decay at most (1 + step) / (10 + step), so that short trainings
    forget their start. last:SHARE is the plain mean over the last share of the steps (Izmailov et al., "Averaging
    weights leads to wider optima and better generalization", 2018). `weights` is all its state.
    """

    def __init__(self, spec: str, steps: int) -> None:
        self.kind, self.value = parse_average(spec)
        self.first = 1 if self.kind == "ema" else steps - math.ceil(self.value * steps) + 1
        self.weights: Weights = {}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after `step`, counted from 1."""
        if self.kind == "none" or step < self.first:
            return
        share = 1 / (step - self.first + 1)
        if self.kind == "ema" and step > 1:
            share = 1 - min(self.value, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            if share == 1:
                self.weights[name] = parameter.detach().clone()
            else:
                self.weights[name].lerp_(parameter, share)

    @torch.no_grad()
    def load(self, module: nn.Module) -> None:
        """Put the mean, once there is one, into the module."""
        for name, parameter in module.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let the module hold the mean for the block, and exactly what it held before after it."""
        before = {n: p.detach().clone() for n, p in module.named_parameters()} if self.weights else {}
        self.load(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    if before:
                        parameter.copy_(before[name])
