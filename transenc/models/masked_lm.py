"""A masked language model that says which words fit a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from transenc.errors import ConfigError
from transenc.models.device import Compute
from transenc.models.tokens import CPU_TOKENS, chunks, collate
from transenc.models.transformer import Transformer, load_module, load_tokenizer

STARTS = ("Ġ", "▁")  # how byte-level and SentencePiece vocabularies write the space before a word
Candidates = list[tuple[str, float]]


@dataclass
class MaskedLM:
    """Fill gaps in texts with whole words."""

    transformer: Transformer
    name: str

    @property
    def mask(self) -> str:
        """Return the text that stands for a gap."""
        return str(self.transformer.tokenizer.mask_token)

    @cached_property
    def vocabulary(self) -> tuple[list[str], torch.Tensor]:
        """Return the word of each token, and whether it is one: letters only, and the start of a word."""
        tokenizer = self.transformer.tokenizer
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        spaced = any(str(t).startswith(STARTS) for t in tokens)
        words = [str(t).lstrip("".join(STARTS)) for t in tokens]
        whole = [
            w.isalpha() and (not spaced or str(t).startswith(STARTS))
            for w, t in zip(words, tokens, strict=True)
        ]
        return words, torch.tensor(whole)

    def words(self, texts: Sequence[str], top: int) -> list[list[Candidates]]:
        """Return, for each text and each mask within the model's length, its `top` likeliest words."""
        transformer = self.transformer
        found: list[list[Candidates]] = [[] for _ in texts]
        tokens = transformer.tokens(list(texts))
        mask_id = transformer.tokenizer.mask_token_id
        words, whole = self.vocabulary
        module: Any = transformer.module
        names = transformer.tokenizer.model_input_names
        # A logit for every word at every token: more tokens at a time would take gigabytes.
        budget = min(transformer.budget, CPU_TOKENS)
        with torch.inference_mode(), transformer.compute.autocast():
            for index in chunks(tokens.lengths, budget):
                raw = collate(tokens, index, pad_id=transformer.pad_id, names=names)
                batch = {key: transformer.compute.put(value) for key, value in raw.items()}
                rows, columns = np.nonzero(raw["input_ids"] == mask_id)
                if not len(rows):
                    continue
                logits = module(**batch).logits[rows, columns].float().cpu()  # (masks, vocabulary)
                logits[:, : len(whole)].masked_fill_(~whole, float("-inf"))
                logits[:, len(whole) :] = float("-inf")
                best = torch.softmax(logits, dim=-1).topk(min(top, logits.shape[-1]), dim=-1)
                for row, values, ids in zip(rows, best.values.tolist(), best.indices.tolist(), strict=True):
                    candidates = [(words[i], p) for i, p in zip(ids, values, strict=True) if p > 0]
                    found[index[row]].append(candidates)
        return found


def load_masked_lm(path: Path, name: str, compute: Compute) -> MaskedLM:
    """Load a checked model directory; raise ConfigError when it holds no masked-language-model head."""
    tokenizer = load_tokenizer(path)
    if tokenizer.mask_token is None:
        raise ConfigError(f"{name} has no mask token, so it cannot fill gaps; name another with model=NAME.")
    module = load_module(path, "AutoModelForMaskedLM", new_head=True)
    # Here no head may be new: it would be random, and its words nonsense.
    stored: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "np") as tensors:
            stored |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    body = f"{getattr(module, 'base_model_prefix', '')}."
    head = {key: tuple(p.shape) for key, p in module.named_parameters() if not key.startswith(body)}
    missing = [key for key, shape in head.items() if len(shape) == 2 and key not in stored]
    missing += [key for key, shape in head.items() if stored.get(key, shape) != shape]
    if missing:
        raise ConfigError(
            f"{name} is no masked language model (it lacks {missing[0]}, or has it in another shape); name one with "
            "model=NAME, such as bert-base-uncased or roberta-base."
        )
    return MaskedLM(Transformer.of(path, module, tokenizer, compute), name)
