"""Read gold: pairs that people labelled, from a file or a task, whole or a seeded sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transenc import tasks
from transenc.config import Settings
from transenc.errors import ConfigError, DataError
from transenc.gold_plan import hardens
from transenc.metrics import METRICS
from transenc.pairs import Pairs, without
from transenc.readers import SkipBad, column_names, read_pairs
from transenc.registry import did_you_mean
from transenc.samplers.kde import Kde
from transenc.samplers.mix import build
from transenc.seeds import derive

RECIPES = "augsbert-gold, augsbert-few, augsbert-domain"


@dataclass(frozen=True)
class Gold:
    """Hold gold pairs with labels in [0, 1], whether all of them are 0 or 1, and what to say about them.

    texts: the sentences of the whole source, which a sample of its pairs has a part of.
    """

    pairs: Pairs
    binary: bool
    said: list[str]
    texts: Sequence[str] = ()


def read_gold(settings: Settings, *, data: Path | None, offline: bool = False) -> Gold:
    """Read `gold.source`: a file, or a name in tasks.GOLD, with `:N` for a seeded sample of N pairs.

    Raise ConfigError or DataError naming the file or setting: for labels outside [0, 1], constant labels, a
    sample larger than the file, and a name that is neither a file nor known.
    """
    asked = settings.gold
    source = str(asked.source)
    name, wanted = _split(source)
    skip = SkipBad.parse(settings.skip_bad)
    if name in tasks.GOLD and not Path(name).exists():
        if asked.score_range is not None:
            raise ConfigError(f"--gold {name} has its own score range; leave out --gold-range.")
        pairs = tasks.gold(name, data, offline=offline)
    elif Path(name).exists() or Path(name).suffix:
        columns = column_names(settings.columns, scored=True)
        pairs = read_pairs(
            Path(name), scores="required", score_range=asked.score_range, skip_bad=skip, columns=columns
        )
    else:
        known = ", ".join(tasks.GOLD)
        raise ConfigError(
            f"--gold {name} is no file and no known name.{did_you_mean(name, list(tasks.GOLD))} Known: {known}."
        )
    check_labels(pairs, name)
    whole, texts = len(pairs), pairs.sentences
    if wanted is not None:
        if wanted > whole:
            raise ConfigError(f"--gold {source}: {name} has only {whole:,} pairs.")
        rng = np.random.default_rng(derive(settings.seed, "gold", "sample"))
        pairs = pairs.take(np.sort(rng.choice(whole, wanted, replace=False)))
    check_varied(pairs, f"{name}: all {len(pairs):,} gold labels")
    scores = pairs.scores
    assert scores is not None
    zeros_and_ones = bool(np.isin(scores, (0.0, 1.0)).all())
    if asked.labels == "binary" and not zeros_and_ones:
        raise ConfigError(f"gold.labels is binary, but {name} has labels between 0 and 1.")
    binary = zeros_and_ones if asked.labels == "auto" else asked.labels == "binary"
    sample = f", a seeded sample of {whole:,}" if wanted is not None else ""
    kind = f"binary, {100 * scores.mean():.0f} % of them 1" if binary else f"graded, mean {scores.mean():.2f}"
    return Gold(pairs, binary, [f"{len(pairs):,} gold pairs of {name}{sample}: {kind}"], texts)


def check_labels(pairs: Pairs, name: str) -> None:
    """Raise DataError for labels outside [0, 1], naming the option that maps those of their scale to it."""
    assert pairs.scores is not None
    low, high = float(pairs.scores.min()), float(pairs.scores.max())
    if low < 0 or high > 1:
        raise DataError(
            f"{name}: gold labels from {low:g} to {high:g} do not lie in [0, 1]. Give the scale they are on, such as "
            f"--gold-range {min(0, np.floor(low)):g} {np.ceil(high):g}."
        )


def check_judge(gold: Pairs, metric: str, what: str, way_on: str) -> None:
    """Raise DataError where a metric of these gold scores does not exist; what: names them, way_on: the next step."""
    assert gold.scores is not None
    try:
        METRICS[metric](np.arange(len(gold)), gold.scores)
    except DataError as error:
        raise DataError(f"{what} cannot judge a model: {error} {way_on}") from None


def check_varied(pairs: Pairs, what: str) -> None:
    """Raise DataError where all labels are equal; what: the subject of the sentence, such as "all 9 labels"."""
    scores = pairs.scores
    assert scores is not None
    if float(scores.min()) == float(scores.max()):
        raise DataError(
            f"{what} are {scores[0]:g}; nothing can be learnt from them. Give pairs with different labels."
        )


def _split(source: str) -> tuple[str, int | None]:
    name, colon, number = source.rpartition(":")
    if not colon or Path(source).exists():
        return source, None
    if not number.isdigit() or int(number) < 2:
        raise ConfigError(
            f"--gold takes FILE or NAME, and :N for a sample of N pairs (2 or more), not '{source}'."
        )
    return name, int(number)


def without_tests(gold: Gold, dev: Pairs | None, tests: dict[str, Pairs]) -> Gold:
    """Drop gold pairs that are test pairs, since a model must not be measured on what it learnt; say how many."""
    kept, dropped = without(gold.pairs, list(tests.values()))
    said = list(gold.said)
    if dropped:
        said.append(f"{dropped:,} of the gold pairs are test pairs and were left out")
    if not len(kept):
        raise DataError(
            f"Every gold pair is a test pair of {', '.join(tests)}, and those are left out: give other gold, or "
            "test on other pairs with --evaluate."
        )
    if dev is not None:
        shared = without(kept, [dev])[1]
        if shared:
            said.append(
                f"{shared:,} gold pairs are development pairs too, so selection on these is too favourable"
            )
    return replace(gold, pairs=kept, said=said)


def check_use(settings: Settings) -> None:
    """Raise ConfigError unless gold and the recipe ask for each other and fit what selects."""
    gold = settings.gold
    if settings.select == "agreement" and (gold.source or settings.remine):
        raise ConfigError(
            "--select agreement holds out pairs that every cycle shares and no label decides, which "
            f"{'--gold' if gold.source else '--remine'} does not leave: take --select dev or last."
        )
    if gold.scenario == "none":
        if gold.source:
            raise ConfigError(f"--gold is used by the recipes {RECIPES}; name one with --recipe.")
        if gold.score_range is not None:
            raise ConfigError("--gold-range is the scale of --gold: give --gold FILE, or leave it out.")
        if gold.augment:
            raise ConfigError("--augment rewrites gold pairs: give --recipe augsbert-gold --gold FILE.")
        if settings.cycles == 0:
            raise ConfigError("cycles is 0: nothing would be trained. Only recipes with gold can do without.")
    elif not gold.source:
        raise ConfigError(f"Recipe '{settings.recipe}' learns from labels: give --gold FILE or --gold NAME.")
    elif gold.scenario == "gold" and hasattr(build(settings.sampler), "keep"):
        raise ConfigError(
            f"The sampler {settings.sampler} chooses by a teacher's labels; recipe augsbert-gold has no teacher."
        )
    if gold.augment and gold.scenario in ("few", "domain"):
        raise ConfigError("--augment belongs to recipe augsbert-gold; the others make pairs by --sampler.")


def check_thresholds(settings: Settings) -> None:
    """Raise ConfigError where silver labels are balanced as of another score than makes them 1.

    settings: with the kind of gold labels that was found.
    """
    gold, sampler = settings.gold, build(settings.sampler)
    if not (isinstance(sampler, Kde) and sampler.balances(binary=gold.labels == "binary") and hardens(gold)):
        return
    if sampler.threshold != gold.threshold:
        raise ConfigError(
            f"kde balances labels as of {sampler.threshold:g} (threshold) and they become 1 as of {gold.threshold:g} "
            "(gold.threshold), so that the kept ones would not have gold's ratio: give both one value."
        )
