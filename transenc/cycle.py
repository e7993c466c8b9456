"""Plan a whole run as a list of stages: a pure function of settings, for dry runs, resuming and tests alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transenc import gold_plan
from transenc.config import DistillSettings, Settings
from transenc.stage import Stage, Student, label_settings, model_stages, silver_settings


def plan(
    settings: Settings,
    students: Sequence[Student],
    *,
    tests: bool = False,
    dev: bool = False,
    needs_encoder: bool = False,
    keeps: bool = False,
    bi_mined: bool = False,
    bi_needs_encoder: bool = False,
) -> list[Stage]:
    """Return the stages of a run in order; no file is read and nothing heavy imported.

    tests: whether there is anything to evaluate on. dev: whether development data can select. needs_encoder,
    keeps: whether the sampler compares embeddings, and whether it chooses pairs by their labels. bi_mined,
    bi_needs_encoder: whether pairs are mined for bi-encoders alone, and by comparing embeddings.
    """
    labelled = settings.gold.scenario != "none"
    source = {
        "task": settings.task,
        "pairs": bool(settings.pairs),
        "corpus": bool(settings.corpus),
        "inductive": settings.inductive,
        "sampler": None if settings.pairs else settings.sampler,
        "max_pairs": settings.max_pairs,
    }
    stages = [gold_plan.gold_stage(settings)] if labelled else [Stage("pairs", "pairs", source)]
    first = stages[0].name
    primed = [_primed(settings, student, first, dev=dev) for student in students]
    stages += primed
    teacher = {str(stage.student): stage.name for stage in primed}
    if labelled:
        encoders = gold_plan.encoder_stages(settings, students, needs_encoder=needs_encoder, dev=dev)
        if settings.cycles or settings.gold.scenario != "gold":  # rewritten gold pairs need no others
            stages += [*encoders, Stage("pairs", "pairs", source, (first, *(s.name for s in encoders)))]
        stages += gold_plan.gold_stages(settings, students, keeps=keeps, dev=dev)
        if settings.cycles:
            teacher = {s.name: f"gold/distill-bi/{s.name}" for s in students}
    pairs = bi_pairs = "pairs"
    keep = settings.sampler if labelled and keeps else None
    for cycle in range(1, settings.cycles + 1):
        seen = tuple(s.name for s in stages if s.kind in ("prime", "distill") and s.family == "bi")
        mined = {**source, "by": "dev" if dev else "last"}
        if settings.remine and needs_encoder and (cycle > 1 or labelled):
            pairs = f"cycle-{cycle}/pairs"
            stages.append(Stage(pairs, "pairs", mined, seen, cycle=cycle))
        if not bi_mined:
            bi_pairs = pairs
        elif cycle == 1 or (settings.remine and bi_needs_encoder):
            # At first with the start: pairs that an encoder itself finds near teach it little (docs/results.md).
            miners = seen if bi_needs_encoder and (cycle > 1 or labelled) else ()
            stages.append(_mined_for_bi(settings, cycle, mined, miners))
            bi_pairs = stages[-1].name
        mixed = _own_labels(settings, students, cycle, teacher, pairs, bi_pairs)
        stages += _half_cycle(settings, students, cycle, "bi", "cross", teacher, pairs, dev=dev, keep=keep)
        if bi_pairs != pairs:  # else the half-cycle before has just made them
            stages += mixed
        stages += _half_cycle(
            settings, students, cycle, "cross", "bi", teacher, bi_pairs, mixed, dev=dev, keep=keep
        )
    models = [s for s in stages if s.kind in ("prime", "distill")]
    by = settings.select if settings.select in ("agreement", "last") else "dev" if dev else "last"
    needs = tuple(s.name for s in models)
    if by == "agreement":
        judged = [_judged(settings, s, bi_pairs if bi_pairs != pairs else None) for s in models]
        stages += judged
        needs += tuple(s.name for s in judged)
    stages.append(Stage("select", "select", {"by": by}, needs))
    if tests:
        stages += _evaluations(settings, students, models, dev=dev)
    return stages + _kept(students, models)


def _primed(settings: Settings, student: Student, source: str, *, dev: bool) -> Stage:
    """Return the stage that primes a student on the text of the stage `source`, or takes it as it is."""
    prime = settings.prime.model_copy(update={"method": student.prime})
    chosen: dict[str, Any] = prime.model_dump() if student.prime != "none" else {"method": "none"}
    if student.prime == "pairs" and settings.select == "agreement":  # judged on pairs that it has not learnt
        chosen["held_out"] = settings.held_out
    about = {**chosen, "pooling": settings.pooling, "dev": dev}
    return Stage(f"prime/{student.name}", "prime", about, (source,), student.name, "bi")


def _mined_for_bi(settings: Settings, cycle: int, mined: dict[str, Any], miners: tuple[str, ...]) -> Stage:
    """Return the stage that mines the pairs of bi-encoders alone. miners: stages of the encoders that compare."""
    own = {**mined, "sampler": settings.bi_sampler, "of": "bi"}
    needs: tuple[str, ...] = ()
    if settings.select == "agreement":  # the pairs that are judged on are left out of these, too
        needs, own = ("pairs",), own | {"held_out": settings.held_out}
    return Stage(f"cycle-{cycle}/pairs-bi", "pairs", own, needs + miners, cycle=cycle)


def _evaluations(
    settings: Settings, students: Sequence[Student], models: Sequence[Stage], *, dev: bool
) -> list[Stage]:
    """Return the stages that evaluate raw starts, every model and, of several students, means of their scores."""
    tested = [
        Stage(f"evaluate/{s.name}", "evaluate", {}, (s.name,), s.student, s.family, s.cycle) for s in models
    ]
    stages = [_raw(settings, s, dev=dev) for s in students if s.prime != "none"] + tested
    if len(students) == 1:
        return stages
    starts = [f"evaluate/prime/{s.name}" for s in students]
    for of, family in (("start", "bi"), ("best", "bi"), ("best", "cross")):
        members = [s.name for s in tested if s.family == family and (of == "best" or s.name in starts)]
        if members:  # gold pairs alone teach no cross-encoder
            needs = ("select", *members)
            stages.append(Stage(f"ensemble/{of}-{family}", "ensemble", {"of": of}, needs, family=family))
    return stages


def _kept(students: Sequence[Student], models: Sequence[Stage]) -> list[Stage]:
    """Return the stages that keep the model selected for each family and student."""
    stages = []
    for family in ("bi", "cross"):
        for student in students:
            name = f"best/{family}" if len(students) == 1 else f"best/{family}/{student.name}"
            candidates = tuple(s.name for s in model_stages(models, student.name, family))
            if candidates:  # gold pairs alone teach no cross-encoder
                stages.append(Stage(name, "best", {}, ("select", *candidates), student.name, family))
    return stages


def _raw(settings: Settings, student: Student, *, dev: bool) -> Stage:
    """Return the stage that evaluates a start before it is primed, so that a run shows what priming gave."""
    facts = {"raw": True, "pooling": settings.pooling, "max_length": settings.prime.max_length, "dev": dev}
    return Stage(f"evaluate/raw/{student.name}", "evaluate", facts, (), student.name, "bi")


def _judged(settings: Settings, model: Stage, bi_pairs: str | None) -> Stage:
    """Return the stage that judges a model on the held-out pairs, beside the labels that it learnt from.

    A start has none, but is measured on `bi_pairs`, too: pairs that bi-encoders alone learn from.
    """
    facts: dict[str, Any] = {"held_out": settings.held_out}
    beside = model.needs[:1]
    if model.kind == "prime":
        facts |= {"own": bi_pairs} if bi_pairs else {}
        beside = (bi_pairs,) if bi_pairs else ()
    return Stage(
        f"agreement/{model.name}",
        "agree",
        facts,
        (model.name, "pairs", *beside),
        model.student,
        model.family,
        model.cycle,
    )


def _label_stages(
    settings: Settings,
    students: Sequence[Student],
    cycle: int,
    name: str,
    family: str,
    models: dict[str, str],
    pairs: str,
) -> list[Stage]:
    """Return the stages in which the students' models of a family label the pairs of a stage."""
    facts = label_settings(settings, family)
    return [
        Stage(
            f"cycle-{cycle}/{name}/{s.name}", "label", facts, (pairs, models[s.name]), s.name, family, cycle
        )
        for s in students
    ]


def _own_labels(
    settings: Settings,
    students: Sequence[Student],
    cycle: int,
    encoders: dict[str, str],
    pairs: str,
    bi_pairs: str,
) -> list[Stage]:
    """Return the stages in which this cycle's bi-encoders label the pairs that their successors learn from.

    Only for labels that keep some of it. encoders: the model of each student. pairs: what cross-encoders learn from;
    it has those labels anyway.
    """
    if not settings.label.mix and settings.label.transform != "match":
        return []
    name = "label-bi" if bi_pairs == pairs else "label-own"
    return _label_stages(settings, students, cycle, name, "bi", encoders, bi_pairs)


def _half_cycle(
    settings: Settings,
    students: Sequence[Student],
    cycle: int,
    teaching: str,
    learning: str,
    teacher: dict[str, str],
    pairs: str,
    mixed: Sequence[Stage] = (),
    *,
    dev: bool,
    keep: str | None = None,
) -> list[Stage]:
    """Label with every student's teaching model, combine, and train every student's learning model.

    teacher: the newest model of each student, read here and replaced by the new ones. pairs: the stage that holds
    the pairs to label. mixed: stages of bi-encoders' labels, of which the result keeps some. Gold pairs stand beside
    the silver ones wherever there are some. keep: a sampler that chooses silver pairs by their labels.
    """
    at = f"cycle-{cycle}"
    labels = _label_stages(settings, students, cycle, f"label-{teaching}", teaching, teacher, pairs)
    silver = f"{at}/silver-{teaching}"
    combine = silver_settings(settings, own=teaching == "cross")
    scores = [s.name for s in (*labels, *mixed)]
    stages = [
        *labels,
        Stage(silver, "silver", combine, (pairs, *scores), None, teaching, cycle),
    ]
    wanted: DistillSettings = getattr(settings.distill, learning)
    if settings.gold.scenario != "none":
        stages.append(gold_plan.mix_stage(settings, f"{at}/mix-{teaching}", silver, cycle, keep))
        silver = stages[-1].name
        if settings.gold.weight:
            wanted = gold_plan.for_gold(settings, learning, wanted)
    for student in students:
        needs = [silver, f"prime/{student.name}"]
        if wanted.start == "previous":
            needs.append(teacher[student.name])
        name = f"{at}/distill-{learning}/{student.name}"
        chosen = {**wanted.model_dump(), "pooling": settings.pooling, "dev": dev}
        if settings.select == "agreement":
            chosen["held_out"] = settings.held_out
        stages.append(
            Stage(name, "distill", chosen, tuple(dict.fromkeys(needs)), student.name, learning, cycle)
        )
        teacher[student.name] = name
    return stages
