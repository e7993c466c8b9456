"""What each kind of stage does: inputs on disk -> outputs in a directory, and plain facts about them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from transenc.agreement import agreement, held_out
from transenc.config import DistillSettings, FitSettings, PrimeSettings
from transenc.errors import DataError
from transenc.gold_plan import GOLD
from transenc.lengths import reading_length
from transenc.metrics import METRICS, quality
from transenc.models.bi import BiEncoder
from transenc.models.layout import head_of
from transenc.pairs import Pairs, Scores, join, shared, without
from transenc.scorer import COMBINE, BothOrders, blend, mean, to_labels, weighted_mean
from transenc.seeds import derive
from transenc.stage import Stage
from transenc.stages.agree import judge
from transenc.stages.augment import augment_sentences, augmented_pairs
from transenc.stages.balance import dev_weights, imbalance
from transenc.stages.context import family
from transenc.stages.distill import distill_model, head_option
from transenc.stages.label import CHECKPOINT_SECONDS, score_pairs
from transenc.stages.mix import histogram, mix_pairs
from transenc.stages.prime import prime_model
from transenc.stages.readable import check_readable
from transenc.stages.select import choose_by, choose_by_agreement
from transenc.stages.trials import train_best
from transenc.store import Checkpoints, manifest
from transenc.training import Fit, Fitted, save_history
from transenc.writers import write_pairs

if TYPE_CHECKING:
    from transenc.runner import Runner

logger = logging.getLogger(__name__)

Info = dict[str, Any]
Work = Callable[["Runner", Stage, Path, str], Info]  # the last is the stage's fingerprint
OWN_KEYS = ("pooling", "dev", "held_out")  # of a model stage's settings, beside those of its training


def _pairs(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    own = stage.mines_for_bi
    mine = runner.mine_bi if own else runner.mine_with
    models = [name for name in stage.needs if name not in (GOLD, "pairs")]
    if models:
        assert mine is not None
        known = [(runner.info(n, kind_of(n))["dev"], n) for n in models]
        # An equal later model does not replace an earlier one, as where models are selected.
        encoder = max(known, key=lambda k: k[0])[1] if stage.settings.get("by") == "dev" else models[-1]
        pairs, said = mine(runner.context.store.path(encoder))
        said = [*said, f"{stage.name}: mined with {encoder}"]
    elif own:
        assert mine is not None
        pairs, said = mine(next(iter(runner.context.plms.values())).path)
    else:
        pairs, said = runner.make_pairs()
    if own:
        said = [f"for bi-encoders: {said[0]}", *said[1:]]
    if own and runner.context.settings.select == "agreement":
        # What is judged on is trained on by nobody.
        places = held_out(len(runner.pairs), runner.context.settings.held_out, runner.context.settings.seed)
        pairs, _ = without(pairs, [runner.pairs.take(places)])
    check_readable(runner.context, pairs)
    if runner.context.settings.select == "agreement":
        held_out(len(pairs), runner.context.settings.held_out, runner.context.settings.seed)  # or refuse, now
    write_pairs(pairs, out / "pairs.parquet")
    # With those made before, which are trained on as well.
    earlier = [runner.pairs_of(name) for name in runner.pairs_made(before=stage)]
    return {
        "pairs": len(pairs),
        "sentences": len(pairs.sentences),
        "said": said,
        "test_pairs_shared": _shared(runner, join([pairs, *earlier]) if earlier else pairs),
    }


def _gold(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    assert runner.gold is not None
    check_readable(runner.context, runner.gold)
    write_pairs(runner.gold, out / "gold.parquet")
    return {
        "pairs": len(runner.gold),
        "histogram": histogram(runner.gold.scores),
        "test_pairs_shared": _shared(runner, runner.gold),
    }


def _augment(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    context = runner.context
    gold = runner.labelled(GOLD)
    rewritten = augment_sentences(
        gold.sentences,
        stage.settings["augment"],
        copies=stage.settings["copies"],
        seed=derive(context.settings.seed, stage.name),
        fill_of=runner.fill_of,
        checkpoints=context.store.checkpoints(stage.name, identity),
        stop=context.stop,
        report=context.report,
        stage=stage.name,
    )
    made, facts = augmented_pairs(gold, rewritten)
    if not len(made):
        raise DataError(f"{', '.join(stage.settings['augment'])} changed none of {len(gold)} gold pairs.")
    write_pairs(made, out / "silver.parquet")
    return {"gold": len(gold), **facts}


def _mix(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    *silver, gold = (runner.labelled(name) for name in stage.needs)
    seed = derive(runner.context.settings.seed, stage.name)
    mixed, report = mix_pairs(gold, silver[0] if silver else None, stage.settings, seed)
    write_pairs(mixed, out / "silver.parquet")
    return report


def _prime(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    context, plm = runner.context, runner.context.plms[str(stage.student)]
    torch.manual_seed(derive(context.settings.seed, stage.name, "start"))
    values = {k: v for k, v in stage.settings.items() if k not in OWN_KEYS}
    tuned = values["method"] == "none"
    length = None if tuned else reading_length(plm.path, values["max_length"], tuned=plm.tuned)
    encoder = family("bi").create(
        plm.path,
        compute=context.compute,
        max_length=length,
        pooling=plm.pooled_by(stage.settings["pooling"]),
    )
    fitted = Fitted()
    if not tuned:
        settings = PrimeSettings.model_validate(values)
        texts: Sequence[str] | Pairs = runner.sentences or runner.pairs.sentences
        if settings.method == "pairs":
            texts = _split(runner, stage, runner.pairs)[0]
        # Also beside pairs that are held out: priming has no labels to agree with on these.
        measure = (lambda: context.measure(encoder)) if stage.settings["dev"] else None
        run = _fit(runner, stage, settings, identity, measure)
        fitted = prime_model(encoder, texts, settings, run)
    return _save(runner, encoder, stage, out, fitted)


def _split(runner: Runner, stage: Stage, pairs: Pairs) -> tuple[Pairs, Pairs | None]:
    """Return the pairs that a stage trains on, and those that it is judged on if the models are chosen by these."""
    if "held_out" not in stage.settings:
        return pairs, None
    places = held_out(len(pairs), stage.settings["held_out"], runner.context.settings.seed)
    held = pairs.take(places)
    # Pairs may repeat, and stand there in both orders.
    return without(pairs.take(np.delete(np.arange(len(pairs)), places)), [held])[0], held


def _label(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    context = runner.context
    pairs, teacher = runner.pairs_of(stage.needs[0]), stage.needs[1]
    scorer = family(str(stage.family)).load(context.store.path(teacher), compute=context.compute)
    if stage.settings.get("both_orders") and context.symmetric:
        scorer = BothOrders(scorer)
    scores = score_pairs(
        scorer,
        pairs,
        shard=context.settings.label.shard,
        checkpoints=context.store.checkpoints(stage.name, identity),
        stop=context.stop,
        report=context.report,
        stage=stage.name,
        checkpoint_seconds=CHECKPOINT_SECONDS if context.checkpoint_every is None else 0,
    )
    write_pairs(pairs.with_scores(scores), out / "scores.parquet")
    return {
        "teacher": teacher,
        "pairs": len(scores),
        "mean": float(scores.mean()),
        "sd": float(scores.std()),
    }


def _silver(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    columns: list[Scores] = []
    own: list[Scores] = []
    for name in stage.needs[1:]:
        (columns if is_teacher(name, stage) else own).append(runner.scores(name, "scores"))
    chosen = stage.settings
    devs = _labellers_dev(runner, stage, teachers=True)
    weighted, weights = chosen["combine"] == "dev-weighted", []

    def combine(scores: Sequence[Scores], devs: Mapping[str, float | None]) -> Scores:
        if not weighted:
            return COMBINE[chosen["combine"]](scores)
        weights.append(dev_weights(devs, METRICS[runner.context.metric].binary))
        return weighted_mean(scores, weights[-1])

    taught = combine(columns, devs)
    kept = combine(own, _labellers_dev(runner, stage, teachers=False)) if own else None
    scores = blend(taught, kept, chosen["transform"], chosen["mix"])
    labels = to_labels(scores, clip=chosen["clip"])
    write_pairs(runner.pairs_of(stage.needs[0]).with_scores(labels.values), out / "silver.parquet")
    if labels.clipped:
        logger.info("%s: %d of %d scores clipped.", stage.name, labels.clipped, len(labels.values))
    facts = {
        "rule": labels.rule,
        "transform": chosen["transform"],
        "mix": chosen["mix"] if own else 0.0,
        "clipped": labels.clipped,
        "pairs": len(labels.values),
        "histogram": histogram(labels.values),
    }
    unequal = imbalance(stage.name, devs, weighted=weighted)
    if unequal:
        logger.warning("%s", unequal)
    facts |= dict(zip(("weights", "own_weights"), weights, strict=False))
    return facts | ({"warning": unequal} if unequal else {})


def _distill(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    context, store = runner.context, runner.context.store
    values = {k: v for k, v in stage.settings.items() if k not in OWN_KEYS}
    settings: DistillSettings = type(getattr(context.settings.distill, str(stage.family))).model_validate(
        values
    )
    silver, held = _split(runner, stage, runner.labelled(stage.needs[0]))
    plm = context.plms[str(stage.student)]
    starts = {"base": plm.path, "primed": store.path(stage.needs[1])}
    starts["previous"] = store.path(stage.needs[-1])
    pooling = plm.pooled_by(stage.settings["pooling"]) if settings.start == "base" else None
    if settings.start == "previous" and stage.family == "bi":
        # A cross-encoder's directory does not say how sentences are pooled; the primed one does.
        pooling = family("bi").load(starts["primed"], compute=context.compute).pooling

    def train(seed: int, checkpoints: Checkpoints, limit: float | None) -> tuple[Any, Fitted]:
        torch.manual_seed(derive(seed, stage.name, "start"))
        student = family(str(stage.family)).create(
            starts[settings.start],
            compute=context.compute,
            max_length=reading_length(plm.path, settings.max_length, tuned=plm.tuned),
            pooling=pooling,
            **head_option(settings),
        )

        def agree() -> float:
            assert held is not None
            return agreement(student.score(held), np.asarray(held.scores))

        by_dev = (lambda: context.measure(student)) if stage.settings["dev"] else None
        measure = agree if held is not None else by_dev
        run = _fit(runner, stage, settings, identity, measure)
        run.seed, run.checkpoints, run.limit = seed, checkpoints, limit
        clipped = context.settings.label.clip
        return student, distill_model(
            student, silver, settings, run, symmetric=context.symmetric, clipped=clipped
        )

    checkpoints = context.store.checkpoints(stage.name, identity)
    student, fitted, tried = train_best(settings, context.settings.seed, checkpoints, train)
    trials: Info = {"trials": tried.scores, "trial": tried.kept} if tried else {}
    return {**_save(runner, student, stage, out, fitted), **trials}


def _agree(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    context = runner.context
    places = held_out(len(runner.pairs), stage.settings["held_out"], context.settings.seed)
    held = runner.pairs.take(places)
    scorer = family(str(stage.family)).load(context.store.path(stage.needs[0]), compute=context.compute)

    def part(pairs: Pairs) -> Pairs:  # held out of other pairs when bi-encoders have their own
        return pairs.take(held_out(len(pairs), stage.settings["held_out"], context.settings.seed))

    own, taught = stage.settings.get("own"), None
    if own is None and len(stage.needs) > 2:
        taught = part(runner.labelled(stage.needs[2]))
    seed = derive(context.settings.seed, stage.name)
    scores, facts = judge(scorer, held, taught, seed, own=part(runner.pairs_of(own)) if own else None)
    write_pairs(held.with_scores(scores), out / "scores.parquet")
    return {"model": stage.needs[0], "held_out": len(held), **facts}


def _evaluate(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    context = runner.context
    facts: Info = {}
    if stage.settings.get("raw"):
        plm = context.plms[str(stage.student)]
        scorer = family("bi").create(
            plm.path,
            compute=context.compute,
            max_length=reading_length(plm.path, stage.settings["max_length"], tuned=plm.tuned),
            pooling=plm.pooled_by(stage.settings["pooling"]),
        )
        facts["dev"] = context.measure(scorer) if stage.settings["dev"] else None
    else:
        path = context.store.path(stage.needs[0])
        scorer = family(str(stage.family)).load(path, compute=context.compute)
        facts["model"] = stage.needs[0]
    columns: dict[str, Scores] = {}
    for name, gold in context.tests.items():
        assert gold.scores is not None
        scores = score_pairs(
            scorer, gold, stop=context.stop, report=context.report, stage=f"{stage.name} ({name})"
        )
        columns[name] = scores
        write_pairs(gold.with_scores(scores), out / f"{name}.parquet")
    return {**facts, **_measured(runner, columns, facts.get("model", "the raw start"))}


def _ensemble(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    """Average the scores of the students' starts, or best models; metrics are taken afterwards."""
    chosen = runner.info("select", "select")["chosen"]
    if stage.settings["of"] == "best":
        members = [v["model"] for k, v in sorted(chosen.items()) if k.startswith(f"{stage.family}/")]
    else:
        members = [name.removeprefix("evaluate/") for name in stage.needs[1:]]
    columns = {
        name: mean([runner.scores(f"evaluate/{member}", name) for member in members])
        for name in runner.context.tests
    }
    for name, scores in columns.items():
        write_pairs(runner.context.tests[name].with_scores(scores), out / f"{name}.parquet")
    return {"members": members, **_measured(runner, columns, "the mean of " + ", ".join(members))}


def _select(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    by = stage.settings["by"]
    models = [name for name in stage.needs if not name.startswith("agreement/")]
    facts = {name: runner.info(name, kind_of(name)) for name in models}
    if by != "agreement":
        return {"by": by, "chosen": choose_by(facts, by)}
    judged = {name: runner.info(f"agreement/{name}", "agree") for name in models}
    scores = {name: runner.scores(f"agreement/{name}", "scores") for name in models}
    tuned = {name: plm.tuned for name, plm in runner.context.plms.items()}
    chosen, candidates = choose_by_agreement(facts, judged, scores, tuned)
    return {"by": by, "chosen": chosen, "candidates": candidates}


def _best(runner: Runner, stage: Stage, out: Path, identity: str) -> Info:
    from transenc.card import model_card

    chosen = runner.info("select", "select")["chosen"][f"{stage.family}/{stage.student}"]
    source = runner.context.store.path(chosen["model"])
    for name in manifest(source).files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, out / name)
    plm = runner.context.plms[str(stage.student)]
    card = model_card(
        str(stage.family),
        plm,
        runner.context.settings,
        chosen,
        runner.context.metric,
        setting=setting(runner.trained_on(), runner.context.tests),
        partners=[other for name, other in runner.context.plms.items() if name != stage.student],
        segments=head_of(out) is not None,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    return {**chosen, "family": stage.family, "student": stage.student}


def _shared(runner: Runner, pairs: Pairs) -> dict[str, int]:
    return {name: shared(pairs, test) for name, test in runner.context.tests.items()}


def _labellers_dev(runner: Runner, silver: Stage, *, teachers: bool) -> dict[str, float | None]:
    """Return the development score of each student's teaching model, or own one, in one half-cycle."""
    devs = {}
    for name in silver.needs[1:]:
        if is_teacher(name, silver) != teachers:
            continue
        teacher = runner.info(name, "label")["teacher"]
        facts = runner.info(teacher, kind_of(teacher))
        devs[facts["student"]] = facts["dev"]
    return devs


def _measured(runner: Runner, columns: Mapping[str, Scores], of: str) -> Info:
    """Return each test set's metric, its average precision when gold is binary, and the average of one metric.

    of: whose scores they are, for a warning.
    """
    metrics = {name: runner.context.metric_of(name) for name in columns}
    values: dict[str, float] = {}
    precision: dict[str, float] = {}
    for name, scores in columns.items():
        gold = runner.context.tests[name].scores
        assert gold is not None
        values[name] = quality(metrics[name], scores, gold)
        if scores.min() == scores.max():
            logger.warning(
                "%s scores all %d pairs of %s alike: nothing is told apart.", of, len(scores), name
            )
        if METRICS[metrics[name]].binary:
            precision[name] = float(METRICS["average_precision"](scores, gold))
    # A Spearman correlation and an area under a curve have no common scale.
    average = float(np.mean(list(values.values()))) if len(set(metrics.values())) == 1 else None
    return {"metrics": metrics, "tests": values, "average_precision": precision, "average": average}


def _fit(
    runner: Runner, stage: Stage, settings: FitSettings, identity: str, measure: Callable[[], float] | None
) -> Fit:
    context = runner.context
    return Fit(
        settings,
        context.compute,
        context.settings.seed,
        stage.name,
        checkpoints=context.store.checkpoints(stage.name, identity),
        evaluate=measure,
        stop=context.stop,
        report=context.report,
        checkpoint_every=context.checkpoint_every,
    )


def _save(runner: Runner, scorer: BiEncoder, stage: Stage, out: Path, fitted: Fitted) -> Info:
    scorer.save(out)
    save_history(out, fitted)
    dev = fitted.best if stage.settings["dev"] else None
    if dev is None and stage.settings["dev"]:
        dev = runner.context.measure(scorer)
    return {
        "student": stage.student,
        "family": stage.family,
        "cycle": stage.cycle,
        "dev": dev,
        "best_step": fitted.best_step,
        "method": stage.settings.get("method"),
    } | ({"held_out": fitted.best} if "held_out" in stage.settings else {})


def is_teacher(label: str, silver: Stage) -> bool:
    """Tell the labels of this half-cycle's teachers from the bi-encoder's own that are mixed in."""
    return f"/label-{silver.family}/" in label


def kind_of(model: str) -> str:
    """Return the kind of the stage that made a model, from its name."""
    return "prime" if model.startswith("prime/") else "distill"


def setting(facts: Mapping[str, Any], tests: Mapping[str, Pairs]) -> str:
    """Say whether evaluated pairs were trained on, by what was counted when the training pairs were made."""
    shared, total = sum(facts["test_pairs_shared"].values()), sum(map(len, tests.values()))
    if not total:
        return "nothing was evaluated"
    if not shared:
        return f"inductive: none of the {total:,} test pairs is among the training pairs"
    return (
        f"transductive: {shared:,} of {total:,} test pairs are among the training pairs, without their scores"
    )


WORK: dict[str, Work] = {
    "pairs": _pairs,
    "gold": _gold,
    "augment": _augment,
    "mix": _mix,
    "prime": _prime,
    "label": _label,
    "silver": _silver,
    "distill": _distill,
    "agree": _agree,
    "evaluate": _evaluate,
    "ensemble": _ensemble,
    "select": _select,
    "best": _best,
}
