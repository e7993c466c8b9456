"""Prime a bi-encoder: pull two views of the same sentence together, push other sentences away."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transenc.config import PrimeSettings
from transenc.errors import DataError
from transenc.models.bi import BiEncoder
from transenc.objectives import info_nce, nt_xent
from transenc.pairs import Index
from transenc.seeds import derive
from transenc.training import Fit, Fitted, fit

logger = logging.getLogger(__name__)

SHORTEST_MASKED = 30  # characters; shorter sentences are left whole (Mirror-BERT, data_loader.py)


def prime_model(encoder: BiEncoder, sentences: Sequence[str], settings: PrimeSettings, run: Fit) -> Fitted:
    """Train `encoder` in place on distinct sentences with SimCSE or Mirror-BERT."""
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
    loss = nt_xent if settings.method == "mirror" else info_nce

    def loss_of(index: Index) -> Tensor:
        if settings.span_mask:
            masked = mask_spans([chosen[i] for i in index], encoder.transformer.tokenizer, settings)
            first = encoder.vectors(tokens, index)
            second = encoder.vectors(encoder.transformer.tokens(masked), np.arange(len(index)))
        else:
            first, second = encoder.vectors(tokens, np.concatenate([index, index])).chunk(2)
        return loss(head(first), head(second), settings.temperature)

    return fit(module, len(chosen), loss_of, run)


def choose(sentences: Sequence[str], most: int, seed: int) -> list[str]:
    """Return at most `most` distinct sentences, a seeded sample in their first order."""
    distinct = list(dict.fromkeys(sentences))
    if len(distinct) <= most:
        return distinct
    kept = np.random.default_rng(seed).choice(len(distinct), most, replace=False)
    return [distinct[i] for i in np.sort(kept)]


def set_dropout(module: nn.Module, p: float) -> None:
    """Set every dropout of a model, also the attention's, to `p`."""
    config: Any = module.config
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, p)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = p
        elif isinstance(getattr(part, "dropout_prob", None), float):
            part.dropout_prob = p  # type: ignore[assignment]
        elif isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = p  # type: ignore[assignment]


def mask_spans(sentences: Sequence[str], tokenizer: Any, settings: PrimeSettings) -> list[str]:
    """Replace one random span of each sentence by the model's mask token (Mirror-BERT, section 2).

    By character as published, in sentences of 30 or more; by token it is words' pieces that are replaced.
    Positions come from torch's generator, which `fit` seeds at every step. Unlike the reference, the span
    that was drawn is replaced, not its first look-alike.
    """
    mask = f" {tokenizer.mask_token or '[MASK]'} "
    masked = []
    for sentence in sentences:
        if settings.span_unit == "char":
            spans = [(i, i + 1) for i in range(len(sentence))] if len(sentence) >= SHORTEST_MASKED else []
        else:
            encoding = tokenizer.backend_tokenizer.encode(sentence, add_special_tokens=False)
            spans = [(int(a), int(b)) for a, b in encoding.offsets]
        if len(spans) <= settings.span_mask:
            masked.append(sentence)
            continue
        start = int(torch.randint(len(spans) - settings.span_mask + 1, ()))
        first, last = spans[start][0], spans[start + settings.span_mask - 1][1]
        masked.append(sentence[:first] + mask + sentence[last:])
    return masked


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
