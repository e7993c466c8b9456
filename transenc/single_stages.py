"""`prime` and `distill` on explicit paths: load, call the stage function, save, commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from transenc.config import Settings, check_primed_on
from transenc.digests import pairs_digest, plm_digest
from transenc.errors import ConfigError
from transenc.interrupt import StopFlag
from transenc.lengths import reading_length, with_lengths
from transenc.metrics import quality
from transenc.models.device import Compute
from transenc.models.intake import resolve
from transenc.models.layout import head_of
from transenc.models.loading import family_of
from transenc.pairs import Pairs
from transenc.progress import Progress
from transenc.seeds import derive, random_state_kept
from transenc.single import make_directory
from transenc.stages.context import family as find_family
from transenc.stages.distill import distill_model, head_option
from transenc.stages.prime import prime_model
from transenc.stages.trials import train_best
from transenc.store import Checkpoints
from transenc.training import Fit, Fitted, read_history, save_history

logger = logging.getLogger(__name__)

Report = Callable[[Progress], None]


@random_state_kept()
def prime_to(
    settings: Settings,
    texts: Sequence[str] | Pairs,
    out: Path,
    *,
    device: str = "auto",
    offline: bool = False,
    stop: StopFlag | None = None,
    report: Report = lambda progress: None,
) -> Fitted:
    """Prime `settings.plm[0]` on sentences, or on pairs that belong together, and write the bi-encoder `out`.

    Raises ConfigError for pairs under another method than "pairs", and for sentences under that.
    """
    check_primed_on(settings.prime.method, pairs=isinstance(texts, Pairs))
    sentences = texts.sentences if isinstance(texts, Pairs) else list(texts)
    compute = Compute.choose(device, settings.precision)
    plm = resolve(settings.plm[0], offline=offline)
    settings, longer = with_lengths(settings, [plm.path], sentences, ["prime"])
    identity = {
        "prime": settings.prime.model_dump(), "pooling": settings.pooling, "seed": settings.seed,
        "precision": compute.precision, "plm": plm_digest(plm.path),
        **({"pairs": pairs_digest(texts)} if isinstance(texts, Pairs) else {"sentences": sentences}),
    }  # fmt: skip

    def make(work: Path, checkpoints: Checkpoints) -> None:
        if longer:
            logger.info("%s", longer)
        torch.manual_seed(derive(settings.seed, "prime", "start"))  # a pooler may be new
        encoder = find_family("bi").create(
            plm.path,
            compute=compute,
            max_length=reading_length(plm.path, settings.prime.max_length, tuned=plm.tuned),
            pooling=plm.pooled_by(settings.pooling),
        )
        run = Fit(settings.prime, compute, settings.seed, "prime", checkpoints=checkpoints, report=report)
        run.stop = stop or StopFlag()
        fitted = prime_model(encoder, texts, settings.prime, run)
        encoder.save(work)
        save_history(work, fitted)

    make_directory(out, identity, make)
    return read_history(out)


@random_state_kept()
def distill_to(
    settings: Settings,
    family: str,
    pairs: Pairs,
    dev: Pairs | None,
    out: Path,
    *,
    symmetric: bool = True,
    keep_head: bool = False,
    device: str = "auto",
    offline: bool = False,
    stop: StopFlag | None = None,
    report: Report = lambda progress: None,
) -> Fitted:
    """Train a student of `family`, begun from `settings.plm[0]`, on scored pairs and write the directory `out`.

    keep_head: a cross-encoder's start that has a segment head keeps it, whatever the settings ask for.
    """
    compute = Compute.choose(device, settings.precision)
    plm = resolve(settings.plm[0], offline=offline)
    settings, longer = with_lengths(settings, [plm.path], pairs.sentences, [f"distill.{family}"])
    chosen = getattr(settings.distill, family)
    if chosen.trials > 1 and dev is None:
        raise ConfigError(
            f"distill.{family}.trials compares seeds, and there is nothing to compare them by: give --dev FILE."
        )
    same = family == "cross" and family_of(plm.path) == "cross"  # trained on pairs before
    if keep_head and same and head_of(plm.path) is not None:
        chosen = chosen.model_copy(update={"head": "segments"})
    identity = {
        "family": family, "distill": chosen.model_dump(), "pooling": settings.pooling, "seed": settings.seed,
        "precision": compute.precision, "plm": plm_digest(plm.path), "pairs": pairs_digest(pairs),
        "dev": pairs_digest(dev), "symmetric": symmetric,
    }  # fmt: skip

    def train(seed: int, checkpoints: Checkpoints, limit: float | None) -> tuple[Any, Fitted]:
        torch.manual_seed(derive(seed, "distill", "start"))
        student = find_family(family).create(
            plm.path,
            compute=compute,
            max_length=reading_length(plm.path, chosen.max_length, tuned=plm.tuned or same),
            pooling=plm.pooled_by(settings.pooling),
            **head_option(chosen),
        )

        def measure() -> float:
            assert dev is not None
            assert dev.scores is not None
            return quality("spearman", student.score(dev), dev.scores)

        run = Fit(chosen, compute, seed, "distill", checkpoints=checkpoints, report=report, limit=limit)
        run.stop, run.evaluate = stop or StopFlag(), measure if dev is not None else None
        return student, distill_model(student, pairs, chosen, run, symmetric=symmetric)

    def make(work: Path, checkpoints: Checkpoints) -> None:
        if longer:
            logger.info("%s", longer)
        student, fitted, _ = train_best(chosen, settings.seed, checkpoints, train)
        student.save(work)
        save_history(work, fitted)

    make_directory(out, identity, make)
    return read_history(out)
