"""`label` on explicit paths: mine pairs, score them with one teacher after the other, write their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transenc.digests import pairs_digest
from transenc.errors import ConfigError, DataError
from transenc.interrupt import StopFlag
from transenc.models import loading
from transenc.pairs import Pairs
from transenc.progress import Progress
from transenc.samplers import PairSampler, mine
from transenc.samplers.mix import build
from transenc.scorer import COMBINE, BothOrders, Labels, Scorer, blend, encoder_of, to_labels
from transenc.seeds import derive
from transenc.single import output_file, refuse_existing
from transenc.stages.label import score_pairs
from transenc.store import fingerprint
from transenc.unread import warn_of_unread
from transenc.writers import check_suffix, check_writable, write_pairs


@dataclass
class Scorers:
    """Load scorers by name, one in memory at a time: the last one stays."""

    device: str = "auto"
    precision: str = "auto"
    offline: bool = False
    _loaded: dict[str, Scorer] = field(default_factory=dict, init=False, repr=False)

    def load(self, name: str) -> Scorer:
        """Return the scorer of a name, as `load_scorer` does."""
        if name not in self._loaded:
            self._loaded.clear()
            self._loaded[name] = loading.load_scorer(
                name, device=self.device, precision=self.precision, offline=self.offline
            )
        return self._loaded[name]

    def digest(self, name: str) -> str:
        """Return the fingerprint of the files that `load` reads."""
        return loading.scorer_digest(name, offline=self.offline)


@dataclass(frozen=True)
class Labelled:
    """What labelling made: the pairs that were written, how their scores became labels, and how few were kept.

    rule: the report of a sampler that chose pairs by their labels; None where none did.
    """

    pairs: Pairs
    labels: Labels
    rule: dict[str, Any] | None = None


def check_label(out: Path, combine: str, transform: str) -> None:
    """Raise ConfigError for what `label_to` would refuse; call it before long work."""
    if combine not in COMBINE:
        raise ConfigError(f"--combine is one of {', '.join(COMBINE)}, not '{combine}'.")
    if transform not in ("none", "rank"):
        raise ConfigError(f"--transform is none or rank, not '{transform}'.")
    check_suffix(out)
    refuse_existing(out)


def mine_pairs(
    sentences: Sequence[str],
    sampler: str,
    scorers: Scorers,
    *,
    teacher: str,
    encoder: str | None = None,
    gold: Pairs | None = None,
    max_pairs: int | None = None,
    seed: int = 1,
) -> Pairs:
    """Mine the pairs of sentences that are to be labelled; raise DataError where there are none.

    encoder: the model whose embeddings a semantic sampler compares; None: the teacher's. gold: pairs that are not
    mined again, and the measure of a sampler that chooses by labels.
    """
    backend = build(sampler)
    _keep(backend, sampler, gold)
    encode = None
    if getattr(backend, "needs_encoder", False):
        searcher = encoder or teacher
        encode = encoder_of(scorers.load(searcher))
        if encode is None:
            raise ConfigError(
                f"The sampler {sampler} compares embeddings, and {searcher} is a {scorers.load(searcher).family}-"
                "encoder, which makes none: name a bi-encoder with --encoder."
            )
    elif encoder is not None:
        raise ConfigError(
            f"The sampler {sampler} compares no embeddings, so --encoder {encoder} is of no use: leave it out, "
            "or name --sampler semantic."
        )
    found = mine(backend, sentences, seed=seed, encode=encode, exclude=gold, max_pairs=max_pairs)
    if not len(found):
        raise DataError(f"{sampler} found no pair in the corpus: give more text, or another --sampler.")
    return found


def label_to(
    teachers: Sequence[str],
    pairs: Pairs,
    out: Path,
    *,
    combine: str = "mean",
    both_orders: bool = False,
    transform: str = "none",
    sampler: str | None = None,
    gold: Pairs | None = None,
    shard: int = 2_000,
    seed: int = 1,
    scorers: Scorers | None = None,
    stop: StopFlag | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Labelled:
    """Score pairs with each teacher, combine the scores into labels in [0, 1] and write them to the file `out`.

    combine, transform: "mean" or "rank-mean"; "none" or "rank". both_orders: a cross-encoder scores the mean of
    (a, b) and (b, a). sampler: what the pairs were mined with: one that chooses by labels keeps those whose labels
    are distributed as those of `gold`. A stopped call continues between two shards when it is made again.
    """
    check_label(out, combine, transform)
    check_writable(pairs, out)
    keep = _keep(build(sampler), sampler, gold) if sampler else None
    scorers = scorers or Scorers()
    digest = pairs_digest(pairs)
    rule: dict[str, Any] | None = None
    with output_file(out) as (store, result):
        by_teacher = []
        for number, name in enumerate(teachers, start=1):
            # Keyed by content, so that neither other pairs' work nor another model's of this name is taken.
            identity = fingerprint(
                {
                    "teacher": scorers.digest(name),
                    "pairs": digest,
                    "precision": scorers.precision,
                    "both": both_orders,
                }
            )
            scorer = scorers.load(name)
            warn_of_unread(name, scorer, pairs)
            by_teacher.append(
                score_pairs(
                    BothOrders(scorer) if both_orders and scorer.family == "cross" else scorer,
                    pairs,
                    shard=shard,
                    checkpoints=store.checkpoints(f"teacher-{number}", identity),
                    stop=stop,
                    report=report,
                    stage=name,
                )
            )
        scores = blend(COMBINE[combine](by_teacher), None, transform, 0.0)
        labels = to_labels(scores)
        labelled = pairs.with_scores(labels.values)
        if keep is not None and gold is not None:
            rng = np.random.default_rng(derive(seed, "label", "keep"))
            chosen, rule = keep(gold.scores, labels.values, rng)
            labelled, labels = labelled.take(chosen), to_labels(scores[chosen])
            if not len(labelled):
                raise DataError(f"{sampler} keeps none of the pairs; give more text or more --gold.")
        write_pairs(labelled, result, told=out)
    return Labelled(labelled, labels, rule)


def _keep(backend: PairSampler, sampler: str, gold: Pairs | None) -> Callable[..., Any] | None:
    """Return how a sampler chooses pairs by their labels, if it does; refuse it without gold ones."""
    keep: Callable[..., Any] | None = getattr(backend, "keep", None)
    if keep is not None and gold is None:
        raise ConfigError(f"The sampler {sampler} compares with gold labels: give --gold FILE.")
    return keep
