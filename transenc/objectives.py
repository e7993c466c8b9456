"""What training minimises: functions from outputs and targets to a scalar loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 20.0  # CoSENT and AnglE as published
TEMPERATURE = 0.05  # RankCSE, of student and teacher


def soft_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of (batch,) logits with soft targets in [0, 1] (Trans-Encoder, section 2.2)."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def cosine_mse(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of (batch,) scores with targets in [0, 1] (Trans-Encoder, section 2.3)."""
    return F.mse_loss(scores, targets)


def cosent(scores: Tensor, targets: Tensor, *, scale: float = SCALE) -> Tensor:
    """Return CoSENT of (batch,) scores: log(1 + sum of exp(scale (s_i - s_j)) over all i, j with y_i < y_j).

    Only the order of the targets counts, so they may have any scale; without two different targets it is 0.
    Jianlin Su, "CoSENT: a sentence vector scheme more effective than Sentence-BERT" (kexue.fm/archives/8847, 2022).
    """
    wrong = scale * (scores[:, None] - scores[None, :])  # (batch, batch): how far i is above j
    above = wrong.masked_fill(targets[:, None] >= targets[None, :], float("-inf"))
    return torch.logsumexp(F.pad(above.flatten(), (0, 1)), dim=0)  # the padded 0 is the 1 in the logarithm


def complex_angles(sides: Tensor) -> Tensor:
    """Return the (batch,) similarities of AnglE for (2, batch, dim) vectors; 1 for equal ones.

    The halves of a vector are the real and imaginary part of dim / 2 complex numbers: |Re + Im| of their
    Hermitian product, over the norms (Li and Li, "AnglE-optimized text embeddings", 2023, arXiv 2309.12871).
    """
    (a, c), (b, d) = sides.chunk(2, dim=-1)  # a + bi is the left side, c + di the right one
    product = (a * c + b * d + b * c - a * d).sum(-1)
    norms = torch.linalg.vector_norm(sides, dim=-1).clamp(min=1e-12)
    angles: Tensor = (product / (norms[0] * norms[1])).abs()
    return angles


def angle(sides: Tensor, targets: Tensor, *, scale: float = SCALE) -> Tensor:
    """Return AnglE of (2, batch, dim) vectors, dim even: CoSENT of their cosines plus CoSENT of their complex angles.

    Li and Li, "AnglE-optimized text embeddings", 2023, both terms with weight 1 and without its in-batch negatives,
    since every pair here has a label of its own. As in the authors' code a greater angle term means more alike.
    """
    cosines = F.cosine_similarity(sides[0], sides[1])
    return cosent(cosines, targets, scale=scale) + cosent(complex_angles(sides), targets, scale=scale)


def listnet(scores: Tensor, targets: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Return ListNet: the cross-entropy of the softmax of (batch,) scores with that of targets, over the batch.

    Cao et al. 2007 as in Liu et al., "RankCSE", ACL 2023, with its temperature; the list here is the batch of pairs.
    """
    wanted = F.softmax(targets / temperature, dim=0)
    return -(wanted * F.log_softmax(scores / temperature, dim=0)).sum()


def listmle(scores: Tensor, targets: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Return ListMLE: the negative log-likelihood of the targets' order under (batch,) scores, averaged over places.

    Xia et al. 2008 as in Liu et al., "RankCSE", ACL 2023; equal targets keep the order they have in the batch.
    """
    ordered = (scores / temperature)[torch.argsort(targets, descending=True, stable=True)]
    remaining = torch.logcumsumexp(ordered.flip(0), dim=0).flip(0)  # over the places from here to the last
    return (remaining - ordered).mean()


def margin_mse(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of the differences of every two (batch,) scores with those of their targets.

    Free of a constant offset. Hofstätter et al., "Improving efficient neural ranking models with cross-architecture
    knowledge distillation", 2020 (Margin-MSE), where the two are candidates of one query.
    """
    error = scores - targets
    return (error[:, None] - error[None, :]).square().mean()


def kl(logits: Tensor, targets: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Return the divergence of softened probabilities from softened targets in [0, 1], times the squared temperature.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2, for two classes. At temperature 1
    its gradient is that of `soft_bce`.
    """
    wanted = torch.logit(targets, eps=1e-4) / temperature
    entropy = F.binary_cross_entropy_with_logits(wanted, torch.sigmoid(wanted))
    cross_entropy = F.binary_cross_entropy_with_logits(logits / temperature, torch.sigmoid(wanted))
    return temperature**2 * (cross_entropy - entropy)


def contrastive(cosines: Tensor, targets: Tensor, margin: float = 0.5) -> Tensor:
    """Return the contrastive loss of (batch,) cosines, as distances, with soft targets (Hadsell et al. 2006)."""
    distances = 1 - cosines
    apart = F.relu(margin - distances)
    return (targets * distances**2 + (1 - targets) * apart**2).mean() / 2


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the (n, m) cosines of (n, dim) and (m, dim) vectors in fp32.

    Autocast would take them in bf16, whose step near 1 is 1/256: 0.08 of a logit at temperature 0.05.
    """
    with torch.autocast(first.device.type, enabled=False):
        return F.normalize(first.float(), dim=-1) @ F.normalize(second.float(), dim=-1).T


def info_nce(first: Tensor, second: Tensor, temperature: float, alike: Tensor | None = None) -> Tensor:
    """Return InfoNCE of two (batch, dim) views over in-batch negatives, one direction (SimCSE, equation 1).

    alike: (batch, batch), true where the second view of a column is no negative of a row's first.
    """
    logits = _cosines(first, second) / temperature  # (batch, batch)
    own = torch.arange(len(first), device=first.device)
    if alike is not None:
        logits = logits.masked_fill(alike & (own[:, None] != own), float("-inf"))
    return F.cross_entropy(logits, own)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent of two (batch, dim) views: each of the 2N views against all others (Mirror-BERT, equation 1)."""
    views = torch.cat([first, second])
    logits = _cosines(views, views) / temperature  # (2 batch, 2 batch)
    logits.fill_diagonal_(float("-inf"))
    n = len(first)
    partner = torch.arange(2 * n, device=first.device).roll(n)
    return F.cross_entropy(logits, partner)


def cosine_matrix_mse(
    first: Tensor, second: Tensor, target_first: Tensor, target_second: Tensor, same: float = 0.3
) -> Tensor:
    """Return the mean squared error between the (batch, batch) cosines of two views and those of their targets.

    same: weight of the mean over views of one sentence, beside 1 for the mean over the others. Needs a batch of 2.
    """
    found, wanted = _cosines(first, second), _cosines(target_first, target_second)
    errors = (found - wanted).square()
    n = len(errors)
    own = errors.diagonal()
    return same * own.mean() + (errors.sum() - own.sum()) / (n * n - n)


@dataclass(frozen=True)
class PairObjective:
    """A loss of a batch of pairs, and what of the student it takes.

    takes: "logits", "scores" (cosines, or probabilities, of which any scorer has one a pair) or "sides" (the
    (2, batch, dim) vectors of an encoder).
    """

    takes: Literal["logits", "scores", "sides"]
    loss: Callable[[Tensor, Tensor], Tensor]


PAIR_OBJECTIVES = {
    "soft_bce": PairObjective("logits", soft_bce),
    "cosine_mse": PairObjective("scores", cosine_mse),
    "cosent": PairObjective("scores", cosent),
    "angle": PairObjective("sides", angle),
    "listnet": PairObjective("scores", listnet),
    "listmle": PairObjective("scores", listmle),
    "margin_mse": PairObjective("scores", margin_mse),
    "kl": PairObjective("logits", kl),
    "contrastive": PairObjective("scores", contrastive),
}
