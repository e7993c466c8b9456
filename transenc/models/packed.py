"""Linear layers whose weights lie as oneDNN's products on a CPU read them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from transenc.models.device import Compute


class PackedLinear(nn.Module):
    """Apply a linear layer that is never trained; its weights are laid out once instead of at each call."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        # Neither is a parameter: the layout is oneDNN's own, and nothing may save or move it.
        self.weight, self.bias = weight, None if linear.bias is None else linear.bias.detach()

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return result


def packs(compute: Compute) -> bool:
    """Return whether products of packed weights are faster here: in bf16, and in fp32 where there is no AVX-512."""
    # What torch's own compiler calls; a torch without them keeps the plain layers.
    operators = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if compute.kind != "cpu" or not all(hasattr(torch.ops.mkldnn, name) for name in operators):
        return False
    if compute.precision == "bf16":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx2")) and not has.get("avx512_f")


def scoring_copy(module: nn.Module, compute: Compute) -> nn.Module:
    """Return what scores as a module of fp32 weights does, made for speed; the module itself where that is as fast.

    Parameters are shared where they need no other form, so make it again after they changed.
    """
    packed = packs(compute)
    if compute.precision == "bf16":  # one cast of the weights instead of one a batch, as autocast would do
        made = copy.deepcopy(module)
        # Not buffers, the angles of positions, nor single numbers, a segment head's line: autocast rounds neither,
        # and rounding a line moves all scores the same way.
        for parameter in made.parameters():
            if parameter.ndim:
                parameter.data = parameter.data.to(torch.bfloat16)
    elif packed:
        made = copy.deepcopy(module, {id(each): each for each in (*module.parameters(), *module.buffers())})
    else:
        return module
    return pack(made) if packed else made


def pack(module: nn.Module) -> nn.Module:
    """Replace the linear layers of a module in place, each by one that is never trained."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
    return module
