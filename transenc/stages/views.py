"""The two views of a sentence that priming compares: spans masked, tokens repeated or left out, heads off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transenc.errors import ConfigError
from transenc.models.tokens import Tokens
from transenc.models.transformer import Transformer
from transenc.pairs import Index

DROPOUT = 0.1  # of BERT and its line, for models that have none where two views or scorings must differ
SHORTEST_MASKED = 30  # characters; shorter sentences are left whole (Mirror-BERT, data_loader.py)

# The linear layer behind the attention heads, by architecture: its input is the heads' outputs end to end.
HEADS_MEET = (
    "attention.output.dense",  # BERT, RoBERTa, ELECTRA, DeBERTa
    "attention.out_lin",  # DistilBERT
    "attention.attn.o",  # MPNet
    "attention.dense",  # ALBERT
    "attn.Wo",  # ModernBERT
)


def mask_spans(sentences: Sequence[str], tokenizer: Any, span: int, unit: str) -> list[str]:
    """Replace one random span of each sentence by the model's mask token (Mirror-BERT, section 2).

    By character as published, in sentences of 30 or more; by token it is words' pieces that are replaced.
    Positions come from torch's generator, which `fit` seeds at every step. Unlike the reference, the span
    that was drawn is replaced, not its first look-alike.
    """
    mask = f" {tokenizer.mask_token or '[MASK]'} "
    masked = []
    for sentence in sentences:
        if unit == "char":
            spans = [(i, i + 1) for i in range(len(sentence))] if len(sentence) >= SHORTEST_MASKED else []
        else:
            encoding = tokenizer.backend_tokenizer.encode(sentence, add_special_tokens=False)
            spans = [(int(a), int(b)) for a, b in encoding.offsets]
        if len(spans) <= span:
            masked.append(sentence)
            continue
        start = int(torch.randint(len(spans) - span + 1, ()))
        first, last = spans[start][0], spans[start + span - 1][1]
        masked.append(sentence[:first] + mask + sentence[last:])
    return masked


def repeat_tokens(tokens: Tokens, index: Index, rate: float, special: Sequence[int], limit: int) -> Tokens:
    """Repeat random tokens of the sequences at `index` (ESimCSE, section 3.1: length stops giving pairs away).

    Of n tokens, up to max(2, rate * n), a number drawn anew for each sequence, stand twice. Special tokens never
    do. No sequence grows beyond `limit` tokens.
    """

    def counts(plain: Index, length: int) -> Index:
        most = min(len(plain), max(2, int(rate * len(plain))), max(0, limit - length))
        chosen = torch.randperm(len(plain))[: int(torch.randint(most + 1, ()))].numpy()
        return 1 + np.bincount(chosen, minlength=len(plain))

    return _resized(tokens, index, special, counts)


def delete_tokens(tokens: Tokens, index: Index, rate: float, special: Sequence[int]) -> Tokens:
    """Leave random tokens of the sequences at `index` out, in each a share drawn between 0 and `rate`.

    At least one token of each stays, and every special one. Word deletion, as compared in SimCSE, table 1.
    """

    def counts(plain: Index, length: int) -> Index:
        kept = (torch.rand(len(plain)) >= rate * torch.rand(())).numpy()
        if len(plain) and not kept.any():
            kept[int(torch.randint(len(plain), ()))] = True
        return kept.astype(np.int64)

    return _resized(tokens, index, special, counts)


def _resized(tokens: Tokens, index: Index, special: Sequence[int], counts: Any) -> Tokens:
    ids, types, lengths = [], [], []
    for i in index:
        row = slice(tokens.offsets[i], tokens.offsets[i + 1])
        times = np.ones(row.stop - row.start, np.int64)
        plain = np.flatnonzero(~np.isin(tokens.ids[row], special))
        times[plain] = counts(plain, len(times))
        ids.append(np.repeat(tokens.ids[row], times))
        types.append(np.repeat(tokens.types[row], times))
        lengths.append(int(times.sum()))
    return Tokens(np.concatenate(ids), np.concatenate(types), np.concatenate([[0], np.cumsum(lengths)]))


def has_dropout(module: nn.Module) -> bool:
    """Tell whether a model has any dropout of its own: ALBERT and ModernBERT have none by default."""
    return any(getattr(place, name) for place, name in _places(module) if place is not module.config)


def _places(module: nn.Module) -> Iterator[tuple[Any, str]]:
    """Yield the objects that hold a dropout's probability, and its name there."""
    config: Any = module.config
    named = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
    yield from ((config, name) for name in named if hasattr(config, name))
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            yield part, "p"
        else:
            held = ("dropout_prob", "attention_dropout")
            yield from ((part, name) for name in held if isinstance(getattr(part, name, None), float))


@contextmanager
def dropout(module: nn.Module, p: float | None) -> Iterator[None]:
    """Set every dropout of a model, also the attention's, to `p` for the block; None leaves them as they are.

    The model's own are back after it, so that a saved model trains later as its PLM would.
    """
    places = [] if p is None else list(_places(module))
    before = [(place, name, getattr(place, name)) for place, name in places]
    for place, name in places:
        setattr(place, name, p)
    try:
        yield
    finally:
        for place, name, own in before:
            setattr(place, name, own)


@contextmanager
def drop_heads(transformer: Transformer, p: float) -> Iterator[None]:
    """Switch whole attention heads off with probability `p` a sequence while training (DropHead, Zhou et al. 2020).

    What is left of a sequence is scaled by heads / heads left, as in the code that Mirror-BERT uses. Raises
    ConfigError for an architecture whose heads cannot be found.
    """
    if p == 0:
        yield
        return
    module: Any = transformer.module
    heads = int(module.config.num_attention_heads)

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not layer.training:
            return inputs
        states = inputs[0]  # (batch, sequence, heads * size)
        drawn = torch.rand(states.shape[0], 1, heads, 1, device=states.device)
        keep = (drawn >= p).to(states.dtype)
        left = keep.sum(2, keepdim=True).clamp(min=1)  # where none is left there is nothing to scale
        apart = states.view(*states.shape[:-1], heads, -1)
        return ((apart * keep * heads / left).flatten(-2), *inputs[1:])

    found = [
        m for name, m in module.named_modules() if name.endswith(HEADS_MEET) and isinstance(m, nn.Linear)
    ]
    if not found:
        kind = module.config.model_type
        raise ConfigError(
            f"prime.drop_heads: the attention heads of a '{kind}' model are not known. Set it to 0."
        )
    hooks = [layer.register_forward_pre_hook(before) for layer in found]
    was_padded, transformer.padded = transformer.padded, True
    try:
        yield
    finally:
        transformer.padded = was_padded
        for hook in hooks:
            hook.remove()
