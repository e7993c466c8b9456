"""How many tokens models read where the text decides: of short texts the published 32 and 64, of long ones more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from transenc.config import METHODS, Distill, FitSettings, GoldSettings, PrimeSettings, Settings, build, merge
from transenc.models.tokens import Ints, tokenize
from transenc.models.transformer import load_tokenizer, own_length, position_limit
from transenc.unread import MOST_CUT

SAMPLE = 2_000  # texts whose tokens are counted, evenly over all
STEP = 16


def with_lengths(
    settings: Settings,
    starts: Sequence[Path],
    sentences: Sequence[str],
    used: Sequence[str],
    primed_on: Sequence[str] = (),
) -> tuple[Settings, str | None]:
    """Return settings in which the sentences have decided every max_length that is null, and a line of longer ones.

    It is the published one where that cuts no more than a tenth of them, else one that does not, and at most what
    every start reads; of pairs, as much of both sides. used: the groups of settings that the line names. primed_on:
    other sentences that priming learns from; what it makes labels the pairs, so it reads as much as either asks for.
    """
    published: dict[str, Any] = {
        "prime": METHODS.get(settings.prime.method, {}).get("max_length", PrimeSettings().max_length),
        "distill.bi": Distill().bi.max_length,
        "distill.cross": Distill().cross.max_length,
        "gold.teacher": GoldSettings().teacher.max_length,
    }
    open_ = {name: least for name, least in published.items() if group(settings, name).max_length is None}
    if not open_:
        return settings, None
    own = min(own_length(start, _config(start)) for start in starts)
    limit = min(map(positions, starts))
    counts = [_lengths(start, sentences, own) for start in starts]
    text, long = _enough(counts, MOST_CUT), _enough(counts, MOST_CUT / 2)
    primed = _enough([_lengths(start, primed_on, own) for start in starts], MOST_CUT) if primed_on else 0
    # Either side of a pair may be a long one, so a twentieth of the texts may cut a tenth of the pairs.
    pair = 0 if text <= published["distill.bi"] else 2 * long
    changes: dict[str, Any] = {}
    for name, least in open_.items():
        need, most = (text, own) if name in ("prime", "distill.bi") else (pair, limit)
        need = max(need, primed) if name == "prime" else need
        found = least if need <= least else max(least, min(most, -(-need // STEP) * STEP))
        outer, _, inner = name.partition(".")
        value = {"max_length": found}
        changes = merge(changes, {outer: {inner: value} if inner else value})
    chosen = build(merge(settings.model_dump(), changes))
    longer = {name: group(chosen, name).max_length for name in used if name in open_}
    told = [f"{name}.max_length={n}" for name, n in longer.items() if n != open_[name]]
    corpus = f" (of prime.corpus: {primed - 1})" if primed > text else ""
    so = f"A tenth of the texts has {text - 1} tokens or more{corpus}, so {', '.join(told)}."
    return chosen, f"{so} Less is faster, and leaves more unread." if told else None


def reading_length(start: Path, trained: int | None, *, tuned: bool) -> int | None:
    """Return how many tokens a student reads: those that it is trained on, or as many as a tuned start is made for.

    A start that reads 256 tokens does not forget how, while it is trained on short texts or on the first tokens of
    long ones. Of a raw one nobody promised that its vectors hold for more than it was primed on.
    """
    if trained is None or not tuned:
        return trained
    return max(trained, own_length(start, _config(start)))


def group(settings: Settings, name: str) -> FitSettings:
    """Return a group of settings of a training, by its name in run.yaml."""
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(found, FitSettings)
    return found


def positions(start: Path) -> int:
    """Return the tokens that a start has positions for."""
    return position_limit(_config(start))


def _config(start: Path) -> SimpleNamespace:
    raw = json.loads((start / "config.json").read_text(encoding="utf-8"))
    return SimpleNamespace(**{"model_type": "", "max_position_embeddings": 512, **raw})


def _enough(counts: Sequence[Ints], cut: float) -> int:
    """Return the tokens of which no start reads all in at most a share `cut` of its texts."""
    return max(int(np.quantile(n, 1 - cut, method="higher")) + 1 for n in counts)


def _lengths(start: Path, sentences: Sequence[str], limit: int) -> Ints:
    """Return the token counts of a sample of the sentences, at most `limit`."""
    sample = list(sentences[:: max(1, len(sentences) // SAMPLE)])
    return tokenize(load_tokenizer(start).backend_tokenizer, sample, limit).lengths
