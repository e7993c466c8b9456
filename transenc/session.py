"""Open a run directory for given settings, run its plan, and read back what came out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transenc.config import Settings, check_students
from transenc.cycle import plan
from transenc.digests import pairs_digest, plm_digest
from transenc.errors import ConfigError
from transenc.gold import check_thresholds
from transenc.inputs import Inputs, check_silver, find_plms, gather, selected_by, students_of
from transenc.interrupt import StopFlag
from transenc.lengths import with_lengths
from transenc.models.device import Compute
from transenc.models.intake import about_own_settings
from transenc.outcome import Best, Outcome, Row, read_outcome, selection
from transenc.progress import Progress
from transenc.readers import SkipBad, read_sentences
from transenc.record import record, refuse_others
from transenc.runner import Runner
from transenc.runs import RUNS
from transenc.samplers.mix import build
from transenc.stage import Stage, Student, student_names
from transenc.stages.augment import outside_files
from transenc.stages.context import Context
from transenc.stages.fill import find_masked_lm, model_digests
from transenc.stages.readable import check_lengths
from transenc.store import Store, canonical, refuse_file, write_file

logger = logging.getLogger(__name__)


@dataclass
class Session:
    """A run that was checked and planned, ready to be carried out."""

    settings: Settings
    root: Path
    inputs: Inputs
    students: list[Student]
    stages: list[Stage]
    context: Context
    runner: Runner
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        root: Path | None = None,
        data: Path | None = None,
        device: str = "auto",
        devices: Sequence[str] = (),
        offline: bool = False,
        stop: StopFlag | None = None,
        dry_run: bool = False,
        checkpoint_every: int | None = None,
    ) -> Session:
        """Check the settings, find the starts, read the data and plan; nothing is written.

        devices: where the students of a half-cycle are worked on side by side; `device` is then the first of them.
        """
        computes = [Compute.choose(name, settings.precision) for name in devices]
        compute = computes[0] if computes else Compute.choose(device, settings.precision)
        if len({c.precision for c in computes}) > 1:
            raise ConfigError("--devices of several kinds compute differently: add --precision fp32.")
        check_students(settings.recipe, settings.plm)
        root = root or default_root(settings)
        refuse_file(root)
        plms = find_plms(settings, offline=offline)
        students = students_of(settings, plms)
        inputs = gather(settings, data=data, offline=offline, plm=plms[0], compute=compute)
        skip = SkipBad.parse(settings.skip_bad)
        given = settings.prime.corpus
        sentences = read_sentences([Path(given)], skip_bad=skip) if given else None
        settings = settings.model_copy(update={"select": selected_by(settings, inputs)})
        by_dev = settings.select == "dev" and inputs.dev is not None
        _check_labels_wanted(settings, dev=by_dev)
        _check_positives(settings, inputs)
        gold = inputs.gold
        if gold is not None:
            found = {"labels": "binary" if gold.binary else "graded"}
            settings = settings.model_copy(update={"gold": settings.gold.model_copy(update=found)})
            check_thresholds(settings)
            sentences = sentences or list(inputs.sentences)
        planned = _plan(settings, students, inputs, dev=by_dev)
        used = list(dict.fromkeys(stage.group for stage in planned if stage.group))
        texts, other = inputs.texts or inputs.sentences, (sentences or ()) if given else ()
        settings, longer = with_lengths(settings, [plm.path for plm in plms], texts, used, other)
        stages = _plan(settings, students, inputs, dev=by_dev)
        tried = _tried(settings)
        if tried and not any(stage.settings.get("trials", 1) > 1 for stage in stages):
            raise ConfigError(
                f"{tried[0]}.trials tries seeds of a model that this run does not train: leave it out."
            )
        check_silver(settings, inputs)
        context = Context(
            store=Store(root),
            settings=settings,
            compute=compute,
            plms={student.name: plm for student, plm in zip(students, plms, strict=True)},
            dev=inputs.dev,
            tests=inputs.tests,
            metric=inputs.metric,
            metrics=inputs.metrics,
            symmetric=inputs.symmetric,
            stop=stop or StopFlag(),
            checkpoint_every=checkpoint_every,
        )
        check_lengths(context, used)
        if dry_run:  # a real run compares when it begins to write
            refuse_others(context)
        digests = _digests(settings, inputs, sentences, dev=by_dev, offline=offline)
        if not dry_run:  # hashing every start takes seconds
            digests |= {f"plm:{name}": plm_digest(plm.path) for name, plm in context.plms.items()}
        runner = Runner(
            context,
            inputs.make_pairs,
            digests,
            sentences,
            computes,
            mine_with=inputs.mine_with,
            mine_bi=inputs.mine_bi,
            gold=None if gold is None else gold.pairs,
            fill_of=lambda name: find_masked_lm(name or settings.plm[0], compute=compute, offline=offline),
        )
        notes = [*inputs.said, selection(settings, inputs.dev, inputs.tests)]
        notes += [f"{name}: {plm.note}" for name, plm in context.plms.items() if plm.note]
        notes += about_own_settings(settings.plm, settings.model_dump())
        if settings.prime.method == "pairs":
            tested = bool(inputs.tests) and not settings.inductive
            notes.append(
                "prime.method=pairs takes every pair as one that belongs together, whatever its score"
                + (", also any that is tested on: --inductive leaves these out" if tested else "")
            )
        if longer:
            logger.info("%s", longer)
        return cls(settings, root, inputs, students, stages, context, runner, notes)

    def run(
        self,
        *,
        on_stage: Callable[[Stage, str], None] = lambda stage, what: None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> Outcome:
        """Carry out the plan; the same call on the same directory continues it."""
        self.context.report = report
        with self.context.store.lock():
            record(self.context)
            self.runner.run(self.stages, on_stage=on_stage)
            made = [stage.name for stage in self.stages if stage.kind == "pairs"]
            said = [line for name in made for line in self.runner.info(name, "pairs")["said"]]
            self.notes = [*said, *self.notes]
            outcome = self.outcome()
            write_file(self.root / "results.json", canonical(self.results(outcome)))
            return outcome

    def results(self, outcome: Outcome) -> dict[str, Any]:
        """Return everything that was measured as plain data: what results.json holds."""
        settings = self.settings
        described = (
            "recipe",
            "task",
            "pairs",
            "corpus",
            "cycles",
            "seed",
            "select",
            "inductive",
            "max_pairs",
            "remine",
        )

        def row(found: Row | Best) -> dict[str, Any]:
            plain = asdict(found)
            return plain | {
                key: value.relative_to(self.root).as_posix()
                for key, value in plain.items()
                if isinstance(value, Path)
            }

        return {
            "schema": 1,
            "plm": list(settings.plm),
            **{key: getattr(settings, key) for key in described},
            "gold": settings.gold.source,
            "setting": outcome.setting,
            "selection": outcome.selection,
            "selected_by": outcome.selected_by,
            "metric": outcome.metric,
            "metrics": outcome.metrics,
            "rows": [row(found) for found in outcome.rows],
            "best": [row(found) for found in outcome.best],
            "ensembles": [row(found) for found in outcome.ensembles],
            "raw": [row(found) | {"path": None} for found in outcome.raw],
            "warnings": outcome.warnings,
        }

    def outcome(self) -> Outcome:
        """Read the results of a finished run."""
        return read_outcome(self.runner, self.stages, self.students)


def _plan(settings: Settings, students: Sequence[Student], inputs: Inputs, *, dev: bool) -> list[Stage]:
    sampler = build(settings.sampler)
    return plan(
        settings,
        students,
        tests=bool(inputs.tests),
        dev=dev,
        needs_encoder=inputs.mine_with is not None and bool(getattr(sampler, "needs_encoder", False)),
        keeps=hasattr(sampler, "keep"),
        bi_mined=inputs.mine_bi is not None,
        bi_needs_encoder=inputs.bi_needs_encoder,
    )


def _digests(
    settings: Settings, inputs: Inputs, sentences: Sequence[str] | None, *, dev: bool, offline: bool
) -> dict[str, Any]:
    """Return the fingerprints of what lies outside the run, but for its starts, by kind of stage."""
    judge = pairs_digest(inputs.dev) if dev else None
    digests: dict[str, Any] = {
        "pairs": inputs.source,
        "pairs:bi": inputs.bi_source,
        "prime": {"dev": judge, "sentences": sentences, "metric": inputs.metric},
        "distill": {"dev": judge, "symmetric": inputs.symmetric, "metric": inputs.metric},
        "evaluate": {name: pairs_digest(test) for name, test in inputs.tests.items()},
    }
    if inputs.gold is not None:
        digests["gold"] = pairs_digest(inputs.gold.pairs)
    if settings.gold.augment:
        digests["augment"] = outside_files(settings.gold.augment) | model_digests(
            settings.gold.augment, settings.plm[0], offline=offline
        )
    return digests


def _check_labels_wanted(settings: Settings, *, dev: bool) -> None:
    """Refuse settings that compare models when there is nothing to compare them by."""
    if settings.label.combine == "dev-weighted" and not dev:
        raise ConfigError(
            "label.combine=dev-weighted weighs students by labelled development pairs, and there are none: give "
            "--dev FILE (or a --task that has some) with --select dev, or take label.combine=mean."
        )
    tried = _tried(settings)
    if tried and not dev and settings.select != "agreement":
        way_on = "give --dev FILE, or --select agreement."
        if settings.gold.scenario == "domain":
            way_on = f"recipe {settings.recipe} reads no label of its target. Leave it out."
        elif settings.gold.source:
            way_on = "give --dev FILE (or a --task that has some) with --select dev."
        raise ConfigError(
            f"{tried[0]}.trials compares seeds, and there is nothing to compare them by: {way_on}"
        )


def _check_positives(settings: Settings, inputs: Inputs) -> None:
    """Refuse priming by pairs where a run is given none that belong together, or is to prime on other text."""
    if settings.prime.method != "pairs":
        return
    if settings.prime.corpus:
        raise ConfigError("prime.method=pairs primes on the pairs of the run: leave prime.corpus out.")
    if settings.gold.source or "sampler" in inputs.source:
        kind = "has labels" if settings.gold.source else "mines its pairs, most of which do not"
        raise ConfigError(
            f"prime.method=pairs takes pairs that belong together, and this run {kind}: give --pairs FILE alone or a "
            "--task that has pairs, or prime first, by `transenc prime --pairs FILE`."
        )


def _tried(settings: Settings) -> list[str]:
    """Return the groups of settings that ask for several seeds."""
    groups = {
        "distill.cross": settings.distill.cross,
        "distill.bi": settings.distill.bi,
        "gold.teacher": settings.gold.teacher,
    }
    return [name for name, chosen in groups.items() if chosen.trials > 1]


def default_root(settings: Settings) -> Path:
    """Return runs/<plm>[+<plm>...]-<task, or the name of the pairs', corpus' or gold's file>[-<recipe with gold>]."""
    first, *more = settings.corpora or (None,)
    source = settings.pairs or first or settings.gold.source
    what = settings.task or (Path(source).name.partition(".")[0] if source else "run")
    what += f"+{len(more)}" if more and source == first else ""
    scenario = "" if settings.gold.scenario == "none" else f"-{settings.recipe}"
    return RUNS / f"{'+'.join(student_names(settings.plm))}-{what}{scenario}"
