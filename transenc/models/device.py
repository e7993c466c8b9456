"""Choose the device and the arithmetic, once, by rules that give the same answer on the same machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from transenc.errors import MachineError
from transenc.models.dropout import CpuDropout

# Batches have nearly every number of tokens, and oneDNN keeps what it prepared for the last 1,024 products: hundreds
# of MiB that save no time (docs/speed.md). It reads this at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
os.environ.setdefault("LRU_CACHE_CAPACITY", "128")  # torch's own list of the same, 0.3 MiB each


@dataclass(frozen=True)
class Compute:
    """Where and how exactly to compute.

    device: "cpu", "cuda", "cuda:1", ... precision: "fp32", or "bf16": bf16 arithmetic over fp32 weights in
    training.
    """

    device: str = "cpu"
    precision: str = "fp32"

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto") -> Compute:
        """Resolve "auto": a CUDA device if there is one; bf16 where the hardware multiplies it fast."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.zeros(1, device=device).item()  # what holds no numbers, "meta", is no device to compute on
        except (RuntimeError, AssertionError, ImportError) as error:
            have = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
            reason = str(error).splitlines()[0]
            # They list all that torch knows of, or all that it was built for.
            lists = ("Expected one of", "Could not run")
            why = "" if reason.startswith(lists) else f" ({reason})"
            raise MachineError(f"No device '{device}' here{why}. There is: {', '.join(have)}.") from error
        if precision == "auto":
            precision = "bf16" if _fast_bf16(device) else "fp32"
        return cls(device, precision)

    @property
    def kind(self) -> str:
        """Return "cpu" or "cuda"."""
        return self.device.partition(":")[0]

    def put(self, array: npt.NDArray[Any]) -> Tensor:
        """Return an array as a tensor on the device; a GPU takes it out of pinned memory while the CPU goes on."""
        tensor = torch.from_numpy(array)
        if self.kind == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which fp32 weights compute in the precision of `self`."""
        return torch.autocast(self.kind, dtype=torch.bfloat16) if self.precision == "bf16" else nullcontext()

    @contextmanager
    def training_pass(self) -> Iterator[None]:
        """Run one step's forward for the block; torch's seed gives its dropout."""
        with self.autocast(), CpuDropout() if self.kind == "cpu" else nullcontext():
            yield


def _fast_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        with torch.cuda.device(device):  # else torch tells of the first card, whichever is asked for
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions bf16 is emulated, some hundred times slower than fp32.
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
