"""Prime a bi-encoder: pull two views of the same sentence together, push other sentences away."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from transenc.config import PrimeSettings
from transenc.errors import DataError
from transenc.models.bi import BiEncoder
from transenc.objectives import info_nce, nt_xent
from transenc.pairs import Index
from transenc.seeds import derive
from transenc.stages.views import delete_tokens, drop_heads, mask_spans, repeat_tokens, set_dropout
from transenc.training import Fit, Fitted, fit

logger = logging.getLogger(__name__)


def prime_model(encoder: BiEncoder, sentences: Sequence[str], settings: PrimeSettings, run: Fit) -> Fitted:
    """Train `encoder` in place on distinct sentences: a view of each against a second one and against the others."""
    chosen = choose(sentences, settings.max_sentences, derive(run.seed, run.stage, "sentences"))
    if len(chosen) < 2:
        raise DataError(f"{run.stage}: priming needs at least 2 different sentences, not {len(chosen)}.")
    settings = settings.model_copy(update={"batch_size": min(settings.batch_size, len(chosen))})
    run.settings = settings
    torch.manual_seed(derive(run.seed, run.stage, "head"))
    dim = int(encoder.module.config.hidden_size)  # type: ignore[union-attr, arg-type]
    head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if settings.head else nn.Identity()
    if settings.dropout is not None:
        set_dropout(encoder.module, settings.dropout)
    module = nn.ModuleDict({"encoder": encoder.module, "head": head.to(run.compute.device)})
    tokens = encoder.transformer.tokens(chosen)
    loss = nt_xent if settings.method.startswith("mirror") else info_nce

    special = encoder.transformer.tokenizer.all_special_ids
    everything = np.arange(settings.batch_size)

    def loss_of(index: Index) -> Tensor:
        own, at, other, other_at = tokens, index, tokens, index
        if settings.span_mask:
            masked = mask_spans(
                [chosen[i] for i in index],
                encoder.transformer.tokenizer,
                settings.span_mask,
                settings.span_unit,
            )
            other, other_at = encoder.transformer.tokens(masked), everything[: len(index)]
        if settings.repeat:
            other = repeat_tokens(other, other_at, settings.repeat, special)
            other_at = everything[: len(index)]
        if settings.delete:
            own = delete_tokens(own, at, settings.delete, special)
            other = delete_tokens(other, other_at, settings.delete, special)
            at = other_at = everything[: len(index)]
        if own is other:  # only dropout tells the views apart: one pass for both
            first, second = encoder.vectors(own, np.concatenate([at, other_at])).chunk(2)
        else:
            first, second = encoder.vectors(own, at), encoder.vectors(other, other_at)
        return loss(head(first), head(second), settings.temperature)

    with drop_heads(encoder.module, settings.drop_heads):
        return fit(module, len(chosen), loss_of, run)


def choose(sentences: Sequence[str], most: int, seed: int) -> list[str]:
    """Return at most `most` distinct sentences, a seeded sample in their first order."""
    distinct = list(dict.fromkeys(sentences))
    if len(distinct) <= most:
        return distinct
    kept = np.random.default_rng(seed).choice(len(distinct), most, replace=False)
    return [distinct[i] for i in np.sort(kept)]


def read_history(path: Path) -> Fitted:
    """Read what `save_history` wrote."""
    raw = json.loads((path / "training.json").read_text(encoding="utf-8"))
    history = [(int(step), float(value)) for step, value in raw["history"]]
    losses = [(int(step), float(value)) for step, value in raw["losses"]]
    return Fitted(history, losses, int(raw["best_step"]), raw["best"])


def save_history(path: Path, fitted: Fitted) -> None:
    """Write what training did beside the model."""
    content = {
        "best_step": fitted.best_step,
        "best": fitted.best,
        "history": fitted.history,
        "losses": fitted.losses,
    }
    (path / "training.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
