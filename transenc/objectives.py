"""What training minimises: functions from outputs and targets to a scalar loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of (batch,) logits with soft targets in [0, 1] (Trans-Encoder, section 2.2)."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def cosine_mse(cosines: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of (batch,) cosines with targets in [0, 1] (Trans-Encoder, section 2.3)."""
    return F.mse_loss(cosines, targets)


def contrastive(cosines: Tensor, targets: Tensor, margin: float = 0.5) -> Tensor:
    """Contrastive loss of (batch,) cosines (Hadsell et al. 2006), with cosine distances and soft targets allowed."""
    distances = 1 - cosines
    apart = F.relu(margin - distances)
    return (targets * distances**2 + (1 - targets) * apart**2).mean() / 2


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """InfoNCE of two (batch, dim) views over in-batch negatives, one direction (SimCSE, equation 1)."""
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature  # (batch, batch)
    return F.cross_entropy(logits, torch.arange(len(first), device=first.device))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two (batch, dim) views: each of the 2N views against all others (Mirror-BERT, equation 1)."""
    views = F.normalize(torch.cat([first, second]), dim=-1)
    logits = views @ views.T / temperature  # (2 batch, 2 batch)
    logits.fill_diagonal_(float("-inf"))
    n = len(first)
    partner = torch.arange(2 * n, device=first.device).roll(n)
    return F.cross_entropy(logits, partner)


PAIR_OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "soft_bce": soft_bce,
    "cosine_mse": cosine_mse,
    "contrastive": contrastive,
}
