"""Gather what a run works on: training pairs, development and test data, starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc import tasks
from transenc.config import Settings
from transenc.cycle import Student, student_names
from transenc.digests import pairs_digest, plm_digest
from transenc.errors import ConfigError, DataError
from transenc.models.bi import BiEncoder, BiFamily
from transenc.models.device import Compute
from transenc.models.intake import Plm, resolve
from transenc.pairs import Pairs
from transenc.readers import SkipBad, read_pairs, read_sentences
from transenc.samplers import mine
from transenc.samplers.mix import build, owners
from transenc.seeds import derive
from transenc.store import fingerprint

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """Hold a run's data.

    make_pairs: read or mine the training pairs, and say how; called once in the life of a run. source: what decides
    them. dev, tests: scored pairs, gold in [0, 1]. said: lines that a reader of the results must see.
    """

    make_pairs: Callable[[], tuple[Pairs, list[str]]]
    source: dict[str, Any]
    dev: Pairs | None = None
    tests: Mapping[str, Pairs] = field(default_factory=dict)
    metric: str = "spearman"
    symmetric: bool = True
    said: list[str] = field(default_factory=list)


def students_of(settings: Settings, plms: list[Plm]) -> list[Student]:
    """Name the students and decide, for `auto`, which are primed: those not tuned for similarity already."""
    method = settings.prime.method
    return [
        Student(name, plm.name, ("none" if plm.tuned else "simcse") if method == "auto" else method)
        for name, plm in zip(student_names(settings.plm), plms, strict=True)
    ]


def find_plms(settings: Settings, *, offline: bool = False) -> list[Plm]:
    """Resolve and check every start before any work."""
    return [resolve(name, offline=offline) for name in settings.plm]


def gather(settings: Settings, *, data: Path | None, offline: bool, plm: Plm, compute: Compute) -> Inputs:
    """Read the user's files and the task's scored data, and prepare how training pairs are made of them.

    plm: embeds the corpus for samplers that compare embeddings.
    """
    if settings.pairs and settings.corpus:
        raise ConfigError("Give either --pairs (pairs as they are) or --corpus (pairs are mined), not both.")
    task = tasks.get(settings.task) if settings.task else None
    if settings.inductive and task is None:
        raise ConfigError("--inductive leaves out a task's evaluation pairs: name the --task.")
    dev = tasks.dev(task, data, offline=offline) if task else None
    tests = dict(tasks.tests(task, data, offline=offline)) if task else {}
    skip = SkipBad.parse(settings.skip_bad) if settings.skip_bad else None
    if settings.pairs:
        given = read_pairs(Path(settings.pairs), scores="ignored", skip_bad=skip)
        inputs = _from_pairs(given, f"{len(given):,} pairs of {settings.pairs}")
    elif settings.corpus:
        inputs = _from_corpus(settings, read_sentences([Path(settings.corpus)], skip_bad=skip), plm, compute)
    elif task is not None and task.corpus:
        inputs = _from_corpus(settings, tasks.corpus(task, data, offline=offline), plm, compute)
    elif task is not None:
        given = tasks.pool(task, data, offline=offline)
        inputs = _from_pairs(given, f"{len(given):,} pairs of task {task.name}")
    else:
        known = ", ".join(tasks.names())
        raise ConfigError(f"Nothing to learn from: give --task ({known}), --pairs or --corpus.")
    if task is not None:
        inputs.dev, inputs.tests, inputs.metric, inputs.symmetric = dev, tests, task.metric, task.symmetric
        if task.note and not settings.inductive:
            inputs.said.append(f"task {task.name}: {task.note}")
        if settings.inductive:
            inputs = _without_evaluation(inputs, [dev, *tests.values()])
    return _sampled(inputs, settings)


def _from_pairs(given: Pairs, said: str) -> Inputs:
    return Inputs(lambda: (given, [said]), {"pairs": pairs_digest(given)})


def _from_corpus(settings: Settings, sentences: list[str], plm: Plm, compute: Compute) -> Inputs:
    sampler = build(settings.sampler)
    embeds = bool(getattr(sampler, "needs_encoder", False))

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        encoder: BiEncoder = BiFamily().load(plm.path, compute=compute)
        return encoder.encode(list(texts))

    def make() -> tuple[Pairs, list[str]]:
        pairs = mine(sampler, sentences, seed=derive(settings.seed, "pairs", "mine"), encode=encode)
        return pairs, [f"{len(pairs):,} pairs mined from {len(sentences):,} sentences by {settings.sampler}"]

    encoder = plm_digest(plm.path) if embeds else None
    source = {"sentences": fingerprint(sentences), "sampler": owners(settings.sampler), "encoder": encoder}
    return Inputs(make, source)


def _without_evaluation(inputs: Inputs, evaluation: Sequence[Pairs | None]) -> Inputs:
    held = [pairs for pairs in evaluation if pairs is not None]
    whole = inputs.make_pairs

    def make() -> tuple[Pairs, list[str]]:
        pairs, said = whole()
        kept, dropped = tasks.without(pairs, held)
        return kept, [*said, f"inductive: {dropped:,} of them are evaluation pairs and were left out"]

    source = {**inputs.source, "without": [pairs_digest(pairs) for pairs in held]}
    return replace(inputs, make_pairs=make, source=source)


def _sampled(inputs: Inputs, settings: Settings) -> Inputs:
    whole = inputs.make_pairs

    def make() -> tuple[Pairs, list[str]]:
        pairs, said = whole()
        most = settings.max_pairs
        if most is not None and len(pairs) > most:
            rng = np.random.default_rng(derive(settings.seed, "pairs", "subset"))
            pairs = pairs.take(np.sort(rng.choice(len(pairs), most, replace=False)))
            said = [*said, f"a seeded sample of {len(pairs):,} of them is used (max_pairs)"]
        if len(pairs) == 0:
            raise DataError("There are no pairs to train on. Give more text, or another --sampler.")
        return pairs, said

    return replace(inputs, make_pairs=make)
