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
from transenc.agreement import enough
from transenc.config import BY_TEXT, DEFAULT_RECIPE, Settings, merge, recipe_layers
from transenc.config import build as build_settings
from transenc.digests import pairs_digest, plm_digest
from transenc.errors import ConfigError, DataError
from transenc.formats import suffix_of
from transenc.gold import Gold, check_judge, check_use, read_gold, without_tests
from transenc.models.bi import BiEncoder, BiFamily
from transenc.models.device import Compute
from transenc.models.intake import Plm, is_tuned, own_settings, resolve
from transenc.pairs import Pairs, without
from transenc.readers import (
    SkipBad,
    column_names,
    has_scores,
    is_table_of_pairs,
    read_pairs,
    read_sentences,
)
from transenc.samplers import PairSampler, mine
from transenc.samplers.mix import build, owners
from transenc.seeds import derive
from transenc.stage import Student, student_names
from transenc.store import fingerprint

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """Hold a run's data.

    make_pairs: read or mine the training pairs, and say how; called once in the life of a run. source: what decides
    them. dev, tests: scored pairs. metric: of the development pairs; metrics: of each test set. said: lines that a
    reader of the results must see. mine_with: mine the pairs again with the bi-encoder in a directory; None where no
    pairs are mined, or no encoder is needed. mine_bi, bi_source: the same for pairs that only bi-encoders learn from,
    if they have their own; bi_needs_encoder: whether mining those compares embeddings. sentences: the unlabelled
    sentences. texts: what lengths follow in place of these, so that a sample does not decide them. gold: pairs that
    people labelled, to train on.
    """

    make_pairs: Callable[[], tuple[Pairs, list[str]]]
    source: dict[str, Any]
    dev: Pairs | None = None
    tests: Mapping[str, Pairs] = field(default_factory=dict)
    metric: str = "spearman"
    metrics: Mapping[str, str] = field(default_factory=dict)
    symmetric: bool = True
    said: list[str] = field(default_factory=list)
    mine_with: Callable[[Path], tuple[Pairs, list[str]]] | None = None
    mine_bi: Callable[[Path], tuple[Pairs, list[str]]] | None = None
    bi_needs_encoder: bool = False
    bi_source: dict[str, Any] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    texts: Sequence[str] = ()
    gold: Gold | None = None

    @property
    def gold_pairs(self) -> Pairs:
        """Return the gold pairs; there must be some."""
        assert self.gold is not None
        return self.gold.pairs


def selected_by(settings: Settings, inputs: Inputs) -> str:
    """Return what selects: where that is left open, agreement if no labels can and there are pairs enough for it."""
    if settings.select != "auto":
        return settings.select
    # Each sentence is in a pair.
    pairs = min(len(inputs.sentences) // 2, settings.max_pairs or len(inputs.sentences))
    left_open = inputs.dev is None and not settings.gold.source and not settings.remine
    return "agreement" if left_open and enough(pairs, settings.held_out) else "dev"


def students_of(settings: Settings, plms: list[Plm]) -> list[Student]:
    """Name the students and decide, for `auto`, which are primed: those not tuned for similarity already.

    Raises ConfigError for text to prime on where none is.
    """
    method = settings.prime.method
    students = [
        Student(name, plm.name, ("none" if plm.tuned else "simcse") if method == "auto" else method)
        for name, plm in zip(student_names(settings.plm), plms, strict=True)
    ]
    if settings.prime.corpus and all(student.prime == "none" for student in students):
        why = "prime.method is none" if method == "none" else f"{', '.join(settings.plm)}: tuned already"
        raise ConfigError(
            f"prime.corpus is text to prime on, and no start is primed ({why}): leave it out, or name a method, "
            "such as prime.method=simcse."
        )
    return students


def recipe_for(
    name: str, plms: Sequence[str], task: str | None, *, offline: bool = False
) -> list[dict[str, Any]]:
    """Return the settings of a recipe for these starts and this task, then those that the starts carry themselves."""
    metric = tasks.get(task).metric if task else None

    def raw() -> bool:  # looks for the starts, which may be on the hub
        return not any(is_tuned(plm, offline=offline) for plm in plms)

    return [*recipe_layers(name, task=task, metric=metric, raw=raw), own_settings(plms)]


def settings_for(values: Mapping[str, Any], *, offline: bool = False) -> Settings:
    """Complete the settings that a user gave, nested as in run.yaml, by the recipe's and those the starts carry.

    Raises ConfigError naming the first wrong key or unknown name.
    """
    asked = build_settings(values)  # a wrong key is told before a start is looked for
    layers = recipe_for(str(values.get("recipe", DEFAULT_RECIPE)), asked.plm, asked.task, offline=offline)
    by_text = {} if asked.task else BY_TEXT  # of tasks the published lengths, so that figures stay comparable
    return build_settings(merge(by_text, *layers, values))


def check_sampler(settings: Settings, by_hand: Mapping[str, Any]) -> None:
    """Raise ConfigError where settings given by hand name a sampler, and pairs are taken as they are, not mined."""
    if settings.corpus:
        return  # pairs are mined from it; beside --pairs it is refused later
    taken = settings.pairs
    if (
        taken is None
        and settings.task
        and settings.gold.scenario == "none"
        and not tasks.get(settings.task).corpus
    ):
        taken = f"task {settings.task}"
    for name, how in (("sampler", "--sampler"), ("bi_sampler", "The setting bi_sampler")):
        if taken and by_hand.get(name):
            raise ConfigError(
                f"{how} mines pairs from sentences, and those of {taken} are taken as they are: leave it out, or "
                "give --corpus FILE in their place."
            )


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
    given_tests = settings.evaluate or ((settings.task,) if settings.task else ())
    if settings.inductive and not given_tests:
        raise ConfigError("--inductive leaves out the evaluation pairs: name a --task, or --evaluate FILE.")
    check_use(settings)
    scenario = settings.gold.scenario
    symmetric = _symmetric(settings, task)
    skip = SkipBad.parse(settings.skip_bad)
    names = _columns(settings)
    dev, metric = _development(settings, task, data, skip, names, offline=offline)
    tests, metrics = tasks.evaluation(given_tests, data, offline=offline, skip_bad=skip, columns=names)
    for name, test in tests.items():
        check_judge(test, metrics[name], f"test set {name}", "Give another --evaluate.")
    gold = read_gold(settings, data=data, offline=offline) if settings.gold.source else None
    if gold is not None:
        gold = without_tests(gold, dev, tests)

    def mined(sentences: list[str], where: str) -> Inputs:
        return _from_corpus(settings, sentences, where, plm, compute, gold.pairs if gold else None)

    if settings.pairs:
        given = read_pairs(Path(settings.pairs), scores="ignored", skip_bad=skip, columns=names)
        inputs = _from_pairs(given, f"{len(given):,} pairs of {settings.pairs}")
    elif settings.corpus:
        files = [Path(name) for name in settings.corpora]
        inputs = mined(_sentences(settings, files, skip, names), ", ".join(settings.corpora))
    elif scenario in ("gold", "few") and gold is not None:
        inputs = mined(list(gold.pairs.sentences), f"the gold pairs of {settings.gold.source}")
        inputs.texts = gold.texts
    elif task is not None and task.corpus:
        inputs = mined(tasks.corpus(task, data, offline=offline), f"task {task.name}")
    elif task is not None and scenario == "domain":
        target = tasks.pool(task, data, offline=offline)
        inputs = mined(list(target.sentences), f"task {task.name}")
    elif task is not None:
        given = tasks.pool(task, data, offline=offline)
        inputs = _from_pairs(given, f"{len(given):,} pairs of task {task.name}")
    elif scenario == "domain":
        raise ConfigError(
            f"Recipe '{settings.recipe}' needs sentences of the target: --corpus, --pairs or --task."
        )
    else:
        known = ", ".join(tasks.names())
        raise ConfigError(f"Nothing to learn from: give --task ({known}), --pairs or --corpus.")
    if settings.remine and inputs.mine_with is None and not inputs.bi_needs_encoder:
        raise ConfigError(_no_remining(settings, mined="sampler" in inputs.source))
    inputs.dev, inputs.tests, inputs.metric, inputs.metrics = dev, tests, metric, metrics
    inputs.symmetric = symmetric
    if task is not None and task.note and not settings.inductive:
        inputs.said.append(f"task {task.name}: {task.note}")
    if settings.inductive:
        inputs = _without_evaluation(inputs, [dev, *tests.values()])
    if gold is not None:
        inputs.gold, inputs.said = gold, [*gold.said, *inputs.said]
    if scenario == "domain":
        inputs.said.append(_target_notice(settings, names, measured=bool(tests)))
    return _sampled(inputs, settings)


def _columns(settings: Settings) -> tuple[str, ...]:
    """Return the other names of the columns of the user's pairs; refuse them where no file has any of these."""
    gold, targets = settings.gold.source, settings.corpora if settings.gold.scenario == "domain" else ()
    scored = [name for name in (settings.dev, *settings.evaluate) if name and name not in tasks.names()]
    scored += [gold] if gold and gold.partition(":")[0] not in tasks.GOLD else []
    files = [name for name in (*scored, settings.pairs, *targets) if name]
    if settings.columns is not None and all(suffix_of(Path(f)) == ".txt" for f in files):
        raise ConfigError(
            "--columns names those of files of pairs, and none is given that has any: leave it out."
        )
    return column_names(settings.columns, scored=bool(scored))


def _development(
    settings: Settings,
    task: tasks.Task | None,
    data: Path | None,
    skip: SkipBad | None,
    columns: Sequence[str],
    *,
    offline: bool,
) -> tuple[Pairs | None, str]:
    """Read the labelled development pairs and their metric; none, unread, when labels must not select."""
    own = task.metric if task else "spearman"
    if settings.gold.scenario == "domain":  # the task is the target: its labels only measure, at the end
        if settings.dev:
            raise ConfigError(f"Recipe '{settings.recipe}' reads no label of its target: leave out --dev.")
        return None, own
    if settings.select == "agreement":
        if settings.dev:
            raise ConfigError("--select agreement reads no label: leave out --dev, or take --select dev.")
        return None, own
    name = settings.dev or (task.name if task else None)
    if name is None:
        return None, own
    dev, metric = tasks.development(name, data, offline=offline, skip_bad=skip, columns=columns)
    what = f"{tasks.get(name).dev.name} of task {name}" if name in tasks.names() else name
    check_judge(dev, metric, what, "Give another --dev, or choose without labels: --select agreement.")
    return dev, metric


def _symmetric(settings: Settings, task: tasks.Task | None) -> bool:
    """Tell whether both orders of a pair mean the same; refuse settings that say so where they do not."""
    own = task.symmetric if task else True
    both = [
        key
        for key, wrong in (
            ("symmetric", settings.symmetric),
            ("distill.cross.both_orders", settings.distill.cross.both_orders),
            ("distill.bi.both_orders", settings.distill.bi.both_orders),
        )
        if wrong
    ]
    if both and (not own or settings.symmetric is False):
        whose = f"Task '{task.name}' is" if task and not own else "By symmetric=false pairs are"
        raise ConfigError(
            f"{whose} asymmetric: (a, b) and (b, a) differ, so {both[0]}=true would teach wrong "
            f"labels. Leave {both[0]} out, or set it to false."
        )
    return own if settings.symmetric is None else settings.symmetric


def _from_pairs(given: Pairs, said: str) -> Inputs:
    return Inputs(lambda: (given, [said]), {"pairs": pairs_digest(given)}, sentences=given.sentences)


def _from_corpus(
    settings: Settings, sentences: list[str], where: str, plm: Plm, compute: Compute, gold: Pairs | None
) -> Inputs:
    sampler, bi_sampler = build(settings.sampler), build(settings.bi_sampler) if settings.bi_sampler else None
    embeds, bi_embeds = (bool(getattr(one, "needs_encoder", False)) for one in (sampler, bi_sampler))
    if hasattr(sampler, "keep") and gold is None:
        raise ConfigError(
            f"The sampler {settings.sampler} chooses pairs whose labels are like gold ones: give --gold with "
            "--recipe augsbert-few, or another --sampler."
        )
    if hasattr(bi_sampler, "keep"):
        raise ConfigError(
            f"The sampler {settings.bi_sampler} chooses pairs whose labels are like gold ones, which cycles do not: "
            "name it as --sampler, or another bi_sampler."
        )

    def miner(chosen: PairSampler, spec: str) -> Callable[[Path], tuple[Pairs, list[str]]]:
        def mine_with(path: Path) -> tuple[Pairs, list[str]]:
            def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
                encoder: BiEncoder = BiFamily().load(path, compute=compute)
                return encoder.encode(list(texts))

            seed = derive(settings.seed, "pairs", "mine")
            try:
                pairs = mine(chosen, sentences, seed=seed, encode=encode, exclude=gold)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            return pairs, [f"{len(pairs):,} pairs mined from {len(sentences):,} sentences by {spec}"]

        return mine_with

    def source_of(spec: str, *, searches: bool) -> dict[str, Any]:
        encoder = plm_digest(plm.path) if searches else None
        return {"sentences": fingerprint(sentences), "sampler": owners(spec), "encoder": encoder}

    mine_with = miner(sampler, settings.sampler)
    source = source_of(settings.sampler, searches=embeds)
    inputs = Inputs(lambda: mine_with(plm.path), source, sentences=sentences)
    inputs.mine_with = mine_with if embeds else None
    if bi_sampler is not None and settings.bi_sampler:
        inputs.mine_bi, inputs.bi_needs_encoder = miner(bi_sampler, settings.bi_sampler), bi_embeds
        inputs.bi_source = source_of(settings.bi_sampler, searches=bi_embeds)
    return inputs


def _sentences(
    settings: Settings, files: Sequence[Path], skip: SkipBad | None, columns: Sequence[str]
) -> list[str]:
    """Read the sentences of a corpus, each distinct one once, or for a target both sides of a file of pairs."""
    if settings.gold.scenario != "domain":
        return read_sentences(files, skip_bad=skip)
    found: dict[str, None] = {}
    for path in files:
        if is_table_of_pairs(path, columns):
            found |= dict.fromkeys(
                read_pairs(path, scores="ignored", skip_bad=skip, columns=columns).sentences
            )
        else:
            found |= dict.fromkeys(read_sentences([path], skip_bad=skip))
    return list(found)


def _no_remining(settings: Settings, *, mined: bool) -> str:
    if not mined:
        return "--remine mines pairs afresh from sentences: give --corpus FILE."
    return (
        f"--remine searches with the better bi-encoder, and the sampler {settings.sampler} uses none: "
        "name --sampler semantic, bm25+semantic, or a mix such as bm25:0.5,semantic:0.5, or a bi_sampler that does."
    )


def _target_notice(settings: Settings, columns: Sequence[str], *, measured: bool) -> str:
    targets = settings.corpora or ((settings.pairs,) if settings.pairs else ())
    scored = [name for name in targets if has_scores(Path(name), columns)]
    found = f"the labels of {', '.join(scored)} are ignored" if scored else "no target label is read"
    return f"{found}; the last model is kept" + (", and test labels only measure it" if measured else "")


def _then(inputs: Inputs, change: Callable[[Pairs, list[str]], tuple[Pairs, list[str]]]) -> Inputs:
    """Return inputs whose pairs, mined now or later, are changed further."""
    whole, again, own = inputs.make_pairs, inputs.mine_with, inputs.mine_bi
    with_ = (lambda path: change(*again(path))) if again is not None else None
    bi = (lambda path: change(*own(path))) if own is not None else None
    return replace(inputs, make_pairs=lambda: change(*whole()), mine_with=with_, mine_bi=bi)


def _without_evaluation(inputs: Inputs, evaluation: Sequence[Pairs | None]) -> Inputs:
    held = [pairs for pairs in evaluation if pairs is not None]

    def change(pairs: Pairs, said: list[str]) -> tuple[Pairs, list[str]]:
        kept, dropped = without(pairs, held)
        if dropped and not len(kept):
            raise DataError(
                f"All {dropped:,} training pairs are evaluation pairs, which --inductive leaves out: give other "
                "pairs, more text, or --transductive."
            )
        return kept, [*said, f"inductive: {dropped:,} of them are evaluation pairs and were left out"]

    # By their text alone: gold scores must not decide anything here.
    left_out = {"without": [pairs_digest(pairs.with_scores(None)) for pairs in held]}
    changed = _then(inputs, change)
    return replace(changed, source=inputs.source | left_out, bi_source=inputs.bi_source | left_out)


def check_silver(settings: Settings, inputs: Inputs) -> None:
    """Raise DataError, before starts are primed, where all pairs that are given to label are gold."""
    if _silver_alone(settings) and "sampler" not in inputs.source:
        made = inputs.make_pairs()
        inputs.make_pairs = lambda: made  # the run that begins takes these


def _silver_alone(settings: Settings) -> bool:
    """Tell whether students learn from the pairs that a teacher labels, and from no gold ones."""
    return settings.gold.scenario in ("few", "domain") and settings.gold.weight == 0


def _sampled(inputs: Inputs, settings: Settings) -> Inputs:
    gold = inputs.gold_pairs if _silver_alone(settings) else None

    def change(pairs: Pairs, said: list[str]) -> tuple[Pairs, list[str]]:
        most = settings.max_pairs
        if most is not None and len(pairs) > most:
            rng = np.random.default_rng(derive(settings.seed, "pairs", "subset"))
            pairs = pairs.take(np.sort(rng.choice(len(pairs), most, replace=False)))
            said = [*said, f"a seeded sample of {len(pairs):,} of them is used (max_pairs)"]
        if len(pairs) == 0:
            raise DataError("There are no pairs to train on. Give more text, or another --sampler.")
        if gold is not None and not len(without(pairs, [gold])[0]):
            raise DataError(
                f"All {len(pairs):,} pairs to label are gold pairs, of which nothing is trained (gold.weight is 0): "
                "give other pairs with --pairs or more text with --corpus."
            )
        return pairs, said

    return _then(inputs, change)
