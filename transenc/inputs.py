"""Gather what a run works on: training pairs, development and test data, starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transenc import registry, tasks
from transenc.config import Settings
from transenc.cycle import Student, student_names
from transenc.errors import ConfigError, DataError
from transenc.models.device import Compute
from transenc.models.intake import Plm, resolve
from transenc.pairs import Pairs
from transenc.readers import SkipBad, read_pairs, read_sentences
from transenc.samplers import mine
from transenc.seeds import derive

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """Hold a run's data; `said` are the lines a reader of the results must see."""

    pairs: Pairs
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
    """Read or mine the training pairs and read the task's scored data.

    plm: embeds the corpus for samplers that compare embeddings.
    """
    if settings.pairs and settings.corpus:
        raise ConfigError("Give either --pairs (pairs as they are) or --corpus (pairs are mined), not both.")
    if not (settings.task or settings.pairs or settings.corpus):
        raise ConfigError(
            f"Nothing to learn from: give --task ({', '.join(tasks.names())}), --pairs or --corpus."
        )
    skip = SkipBad.parse(settings.skip_bad) if settings.skip_bad else None
    inputs = Inputs(Pairs.from_rows([], []))
    task = tasks.get(settings.task) if settings.task else None
    if task is not None:
        inputs.metric, inputs.symmetric = task.metric, task.symmetric
        inputs.dev = tasks.dev(task, data, offline=offline)
        inputs.tests = tasks.tests(task, data, offline=offline)
        if task.note and not task.pool:
            inputs.said.append(f"task {task.name}: {task.note}")
    if settings.pairs:
        inputs.pairs = read_pairs(Path(settings.pairs), scores="ignored", skip_bad=skip)
        inputs.said.append(f"{len(inputs.pairs):,} pairs of {settings.pairs}")
    elif settings.corpus or (task is not None and task.corpus):
        if settings.corpus:
            sentences = read_sentences([Path(settings.corpus)], skip_bad=skip)
        else:
            assert task is not None
            sentences = tasks.corpus(task, data, offline=offline)
        sampler = registry.create(registry.SAMPLERS, settings.sampler)

        def encode(texts: object) -> object:
            from transenc.models.bi import BiFamily

            return BiFamily().load(plm.path, compute=compute).encode(list(texts))  # type: ignore[call-overload]

        seed = derive(settings.seed, "pairs", "mine")
        inputs.pairs = mine(sampler, sentences, seed=seed, encode=encode)  # type: ignore[arg-type]
        inputs.said.append(
            f"{len(inputs.pairs):,} pairs mined from {len(sentences):,} sentences by {settings.sampler}"
        )
    else:
        assert task is not None
        inputs.pairs = tasks.pool(task, data, inductive=settings.inductive, offline=offline)
        setting = "inductive: no evaluation pair in the pool" if settings.inductive else task.note
        inputs.said.append(f"{len(inputs.pairs):,} pairs of task {task.name} ({setting})")
    if settings.max_pairs is not None and len(inputs.pairs) > settings.max_pairs:
        rng = np.random.default_rng(derive(settings.seed, "pairs", "subset"))
        kept = np.sort(rng.choice(len(inputs.pairs), settings.max_pairs, replace=False))
        inputs.pairs = inputs.pairs.take(kept)
        inputs.said.append(f"a seeded sample of {len(inputs.pairs):,} of them is used (max_pairs)")
    if len(inputs.pairs) == 0:
        raise DataError("There are no pairs to train on. Give more text, or another --sampler.")
    return inputs
