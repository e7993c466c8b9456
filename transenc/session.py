"""Open a run directory for given settings, run its plan, and read back what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transenc.config import Settings, check_students
from transenc.cycle import Stage, Student, plan, student_names
from transenc.digests import pairs_digest, plm_digest
from transenc.errors import ConfigError
from transenc.gold import check_thresholds
from transenc.inputs import Inputs, find_plms, gather, students_of
from transenc.interrupt import StopFlag
from transenc.kinds import setting
from transenc.models.device import Compute
from transenc.models.intake import about_own_settings
from transenc.pairs import Pairs, shared
from transenc.progress import Progress
from transenc.readers import SkipBad, read_sentences
from transenc.record import record, refuse_others
from transenc.runner import Runner
from transenc.runs import RUNS
from transenc.samplers.mix import build
from transenc.stages.augment import outside_files
from transenc.stages.context import Context
from transenc.stages.fill import find_masked_lm, model_digests
from transenc.stages.readable import check_lengths
from transenc.store import Store, canonical, refuse_file, write_file


@dataclass(frozen=True)
class Row:
    """One model of a run: its place, development score and test scores (Spearman or AUC, not times 100)."""

    label: str
    student: str
    family: str
    cycle: int
    path: Path
    dev: float | None
    tests: dict[str, float]
    average: float | None
    average_precision: dict[str, float] = field(default_factory=dict)
    held_out: float | None = None


@dataclass(frozen=True)
class Best:
    """The model kept for one student and family, and the directory of the stage that made it."""

    student: str
    family: str
    path: Path
    cycle: int
    dev: float | None
    model: Path
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a finished run holds.

    metrics: of each test set. setting: whether evaluated pairs were trained on. selection: what chose the models, and
    whether labels did. ensembles: the students' mean scores, by family. raw: starts before they
    were primed. warnings: what a reader must know.
    """

    rows: list[Row]
    best: list[Best]
    metric: str
    selected_by: str
    metrics: dict[str, str] = field(default_factory=dict)
    setting: str = ""
    selection: str = ""
    ensembles: list[Row] = field(default_factory=list)
    raw: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


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
        skip = SkipBad.parse(settings.skip_bad) if settings.skip_bad else None
        given = settings.prime.corpus
        sentences = read_sentences([Path(given)], skip_bad=skip) if given else None
        by_dev = settings.select == "dev" and inputs.dev is not None
        _check_labels_wanted(settings, dev=by_dev)
        gold = inputs.gold
        if gold is not None:
            found = {"labels": "binary" if gold.binary else "graded"}
            settings = settings.model_copy(update={"gold": settings.gold.model_copy(update=found)})
            check_thresholds(settings)
            sentences = sentences or list(inputs.sentences)
        sampler = build(settings.sampler)
        stages = plan(
            settings,
            students,
            tests=bool(inputs.tests),
            dev=by_dev,
            needs_encoder=inputs.mine_with is not None and bool(getattr(sampler, "needs_encoder", False)),
            keeps=hasattr(sampler, "keep"),
            bi_mined=inputs.mine_bi is not None,
            bi_needs_encoder=inputs.bi_needs_encoder,
        )
        tried = _tried(settings)
        if tried and not any(stage.settings.get("trials", 1) > 1 for stage in stages):
            raise ConfigError(
                f"{tried[0]}.trials tries seeds of a model that this run does not train: leave it out."
            )
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
        check_lengths(context)
        if dry_run:  # a real run compares when it begins to write
            refuse_others(context)
        dev = pairs_digest(inputs.dev) if by_dev else None
        digests: dict[str, Any] = {
            "pairs": inputs.source,
            "pairs:bi": inputs.bi_source,
            "prime": {"dev": dev, "sentences": sentences, "metric": inputs.metric},
            "distill": {"dev": dev, "symmetric": inputs.symmetric, "metric": inputs.metric},
            "evaluate": {name: pairs_digest(gold) for name, gold in inputs.tests.items()},
        }
        digests.update(
            {f"plm:{s.name}": plm_digest(p.path) for s, p in zip(students, plms, strict=True)}
            if not dry_run
            else {}
        )
        if gold is not None:
            digests["gold"] = pairs_digest(gold.pairs)
        if settings.gold.augment:
            digests["augment"] = outside_files(settings.gold.augment) | model_digests(
                settings.gold.augment, settings.plm[0], offline=offline
            )
        runner = Runner(context, inputs.make_pairs, digests, sentences, computes, mine_with=inputs.mine_with)
        runner.mine_bi = inputs.mine_bi
        runner.gold = gold.pairs if gold is not None else None
        runner.fill_of = lambda name: find_masked_lm(
            name or settings.plm[0], compute=compute, offline=offline
        )
        notes = [*inputs.said, selection(settings, inputs.dev, inputs.tests)]
        notes += [f"{name}: {plm.note}" for name, plm in context.plms.items() if plm.note]
        notes += about_own_settings(settings.plm, settings.model_dump())
        return cls(settings, root, inputs, students, stages, context, runner, notes)

    def run(
        self,
        *,
        on_stage: Callable[[Stage, str], None] = lambda stage, what: None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> Outcome:
        """Carry out the plan; the same call on the same directory continues it."""
        self.context.report = report
        self.runner.on_stage = on_stage
        with self.context.store.lock():
            record(self.context)
            self.runner.run(self.stages)
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
        rows, best, raw = [], [], []
        tested = {s.needs[0]: s.name for s in self.stages if s.kind == "evaluate" and s.needs}
        for stage in self.stages:
            if stage.settings.get("raw"):
                facts = self.runner.info(stage.name, "evaluate")
                raw.append(
                    Row(
                        "raw", str(stage.student), "bi", 0, self.root, facts["dev"],
                        facts["tests"], facts["average"], facts["average_precision"],
                    )
                )  # fmt: skip
        for stage in self.stages:
            if stage.kind not in ("prime", "distill"):
                continue
            facts = self.runner.info(stage.name, stage.kind)
            results = self.runner.info(tested[stage.name], "evaluate") if stage.name in tested else {}
            label = f"cycle {stage.cycle}" if stage.cycle else start_label(str(facts.get("method")))
            label = gold_label(stage, self.settings) or label
            rows.append(
                Row(
                    label,
                    str(stage.student),
                    str(stage.family),
                    stage.cycle,
                    self.context.store.path(stage.name),
                    facts["dev"],
                    results.get("tests", {}),
                    results.get("average"),
                    results.get("average_precision", {}),
                    facts.get("held_out"),
                )
            )
        ensembles, warnings = [], []
        for stage in self.stages:
            path = self.context.store.path(stage.name)
            if stage.kind == "best":
                facts = self.runner.info(stage.name, "best")
                best.append(
                    Best(
                        str(stage.student), str(stage.family), path, facts["cycle"], facts["dev"],
                        self.context.store.path(facts["model"]), facts.get("reason", ""),
                    )
                )  # fmt: skip
            elif stage.kind == "ensemble":
                facts = self.runner.info(stage.name, "ensemble")
                label = "mean of starts" if stage.settings["of"] == "start" else "mean of best"
                names = "+".join(s.name for s in self.students)
                ensembles.append(
                    Row(
                        label, names, str(stage.family), 0, path, None,
                        facts["tests"], facts["average"], facts["average_precision"],
                    )
                )  # fmt: skip
            elif stage.kind == "silver":
                warnings += [w for w in [self.runner.info(stage.name, "silver").get("warning")] if w]
        context = self.context
        by = self.runner.info("select", "select")["by"]
        metrics = {name: context.metric_of(name) for name in context.tests}
        said = setting(self.runner.trained_on(), context.tests)
        chosen_by = selection(self.settings, context.dev, context.tests)
        return Outcome(rows, best, context.metric, by, metrics, said, chosen_by, ensembles, raw, warnings)


def selection(settings: Settings, dev: Pairs | None, tests: Mapping[str, Pairs]) -> str:
    """Say what chooses checkpoints and cycles, and whether labels do."""
    if settings.select == "agreement":
        return "no labels: agreement on held-out unlabelled pairs selects checkpoints and cycles"
    if settings.gold.source and dev is None:
        return "no development data: the last model is kept (--select last)"
    if settings.select == "last":
        last = "model" if settings.gold.source else "cycle"
        return f"no labels: the last {last} is kept (--select last)"
    if dev is None:
        return "no development data: the last cycle is kept (--select agreement chooses without labels)"
    both, total = sum(shared(dev, test) for test in tests.values()), sum(map(len, tests.values()))
    among = f"; {both:,} of the {total:,} test pairs are among them, so they helped to select" if both else ""
    return f"{len(dev):,} labelled development pairs select checkpoints and cycles{among}"


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


def _tried(settings: Settings) -> list[str]:
    """Return the groups of settings that ask for several seeds."""
    groups = {
        "distill.cross": settings.distill.cross,
        "distill.bi": settings.distill.bi,
        "gold.teacher": settings.gold.teacher,
    }
    return [name for name, chosen in groups.items() if chosen.trials > 1]


def gold_label(stage: Stage, settings: Settings) -> str | None:
    """Name the row of a model that gold pairs taught; None for others."""
    kind = stage.name.rpartition("/")[0]
    if kind in ("gold/encoder", "gold/teacher"):
        return "gold alone"
    if kind not in ("gold/distill-bi", "gold/distill-cross"):
        return None
    gold = settings.gold
    if gold.weight == 0:
        return "silver alone"
    if gold.scenario == "gold":
        return "gold and rewritten" if gold.augment else "gold alone"
    return "gold and silver"


def start_label(method: str) -> str:
    """Name a run's first row."""
    return "start" if method == "none" else f"primed ({method})"


def default_root(settings: Settings) -> Path:
    """Return runs/<plm>[+<plm>...]-<task, or the name of the pairs', corpus' or gold's file>[-<recipe with gold>]."""
    first, *more = settings.corpora or (None,)
    source = settings.pairs or first or settings.gold.source
    what = settings.task or (Path(source).name.partition(".")[0] if source else "run")
    what += f"+{len(more)}" if more and source == first else ""
    scenario = "" if settings.gold.scenario == "none" else f"-{settings.recipe}"
    return RUNS / f"{'+'.join(student_names(settings.plm))}-{what}{scenario}"
