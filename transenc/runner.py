"""Carry out a plan in a run directory: skip what is finished, continue what was begun, do the rest."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transenc import tasks
from transenc.agreement import agreement, held_out
from transenc.augmenters import Fill
from transenc.config import DistillSettings, FitSettings, PrimeSettings
from transenc.cycle import Stage, batches
from transenc.errors import DamagedError, DataError
from transenc.gold_plan import GOLD
from transenc.memory import release
from transenc.metrics import METRICS, quality
from transenc.models.bi import BiEncoder
from transenc.models.device import Compute
from transenc.models.layout import head_of
from transenc.pairs import Pairs, Scores, join
from transenc.parallel import Workers
from transenc.readers import read_pairs
from transenc.record import warn_of_changes
from transenc.scorer import COMBINE, BothOrders, blend, mean, to_labels, weighted_mean
from transenc.seeds import derive
from transenc.stages.agree import judge
from transenc.stages.augment import augment_sentences, augmented_pairs
from transenc.stages.balance import dev_weights, imbalance
from transenc.stages.context import Context, family
from transenc.stages.distill import distill_model, head_option
from transenc.stages.label import CHECKPOINT_SECONDS, score_pairs
from transenc.stages.mix import histogram, mix_pairs
from transenc.stages.prime import prime_model
from transenc.stages.readable import check_readable
from transenc.stages.select import choose_by, choose_by_agreement
from transenc.stages.trials import train_best
from transenc.store import Checkpoints, canonical, fingerprint, manifest
from transenc.training import Fit, Fitted, save_history
from transenc.writers import write_pairs

logger = logging.getLogger(__name__)

Info = dict[str, Any]
OWN_KEYS = ("pooling", "dev", "held_out")  # of a model stage's settings, beside those of its training
NO_PAIRS = join([])


@dataclass
class Runner:
    """Run stages in order.

    make_pairs: read or mine the training pairs, and say how. digests: fingerprints of what lies outside the run,
    by kind. sentences: what is primed on; None: the sentences of the pairs. computes: where students are worked on
    side by side, when there are several. mine_with: mine pairs with the bi-encoder of a directory; mine_bi: those of
    bi-encoders alone. gold: pairs that people labelled. fill_of: loads the masked language model of a name.
    """

    context: Context
    make_pairs: Callable[[], tuple[Pairs, list[str]]]
    digests: Mapping[str, Any]
    sentences: Sequence[str] | None = None
    computes: Sequence[Compute] = ()
    on_stage: Callable[[Stage, str], None] = lambda stage, what: None
    mine_with: Callable[[Path], tuple[Pairs, list[str]]] | None = None
    mine_bi: Callable[[Path], tuple[Pairs, list[str]]] | None = None
    gold: Pairs | None = None
    fill_of: Callable[[str], Fill] | None = None
    _held: tuple[str, Pairs] = field(default=("", NO_PAIRS), init=False, repr=False)

    @property
    def pairs(self) -> Pairs:
        """Return the training pairs, from the disk: they are made once in the life of a run."""
        return self.pairs_of("pairs")

    def pairs_of(self, name: str) -> Pairs:
        """Return the pairs of a finished stage; the last ones asked for stay in memory."""
        if self._held[0] != name:
            self._held = name, read_pairs(self.context.store.path(name) / "pairs.parquet", scores="ignored")
        return self._held[1]

    def run(self, stages: Sequence[Stage]) -> None:
        """Finish every stage; the same call after a crash continues, and afterwards only verifies."""
        identities = self.identities(stages)
        store = self.context.store
        waiting = [s for s in stages if not store.finished(s.name, identities[s.name])]
        if waiting:
            warn_of_changes(self.context)
        together = len(self.computes) > 1 and bool(waiting)
        workers = Workers(self.computes, self.context.stop, self.context.report) if together else None
        with workers.running(self) if workers else nullcontext():
            for batch in batches(stages) if workers else [[s] for s in stages]:
                for stage in batch:
                    if stage not in waiting:
                        self.on_stage(stage, "done before")
                todo = [s for s in batch if s in waiting]
                if not todo:
                    continue
                self.context.stop.check()
                for stage in todo:
                    self.on_stage(stage, "start")
                    store.log(event="start", stage=stage.name)
                if workers and len(todo) > 1:
                    workers.run([(s, identities[s.name]) for s in todo], self._done)
                    continue
                for stage in todo:
                    self._done(stage, self.finish(stage, identities[stage.name]))

    def _done(self, stage: Stage, info: Info) -> None:
        self.context.store.log(event="finish", stage=stage.name, **info)
        self.on_stage(stage, "finish")

    def finish(self, stage: Stage, identity: str) -> Info:
        """Do one stage, commit it, and return the facts about it."""
        with self.context.store.stage(stage.name, identity, size=self._size(stage)) as out:
            info: Info = getattr(self, f"_{stage.kind}")(stage, out, identity)
            (out / f"{stage.kind}.json").write_bytes(canonical(info))
        release()  # two models may not fit
        return info

    def identities(self, stages: Sequence[Stage]) -> dict[str, str]:
        """Return each stage's fingerprint: its settings, seed, precision, outside inputs and needs' fingerprints."""
        known: dict[str, str] = {}
        for stage in stages:
            known[stage.name] = fingerprint(
                {
                    "name": stage.name,
                    "kind": stage.kind,
                    "settings": stage.settings,
                    "seed": self.context.settings.seed,
                    "precision": self.context.compute.precision,
                    "outside": self.digests.get("pairs:bi" if stage.mines_for_bi else stage.kind, {}),
                    "plm": self.digests.get(f"plm:{stage.student}") if stage.student else None,
                    "needs": [known[name] for name in stage.needs],
                }
            )
        return known

    def info(self, name: str, kind: str) -> Info:
        """Read what a finished stage recorded about itself."""
        path = self.context.store.path(name) / f"{kind}.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DamagedError(f"{path} cannot be read: {error}") from error

    def _size(self, stage: Stage) -> int:
        # A training stage holds weights, the best weights, their average and two moments, and the older
        # checkpoint beside them.
        if stage.kind not in ("prime", "distill", "best"):
            return 0
        weights = sum(
            f.stat().st_size for f in self.context.plms[str(stage.student)].path.glob("*.safetensors")
        )
        return weights * (2 if stage.kind == "best" else 12)

    # One method a kind of stage: inputs on disk -> outputs in `out`, and plain facts about them.

    def _pairs(self, stage: Stage, out: Path, identity: str) -> Info:
        own = stage.mines_for_bi
        mine = self.mine_bi if own else self.mine_with
        models = [name for name in stage.needs if name not in (GOLD, "pairs")]
        if models:
            assert mine is not None
            known = [(self.info(n, kind_of(n))["dev"], n) for n in models]
            # An equal later model does not replace an earlier one, as where models are selected.
            encoder = max(known, key=lambda k: k[0])[1] if stage.settings.get("by") == "dev" else models[-1]
            pairs, said = mine(self.context.store.path(encoder))
            said = [*said, f"{stage.name}: mined with {encoder}"]
        elif own:
            assert mine is not None
            pairs, said = mine(next(iter(self.context.plms.values())).path)
        else:
            pairs, said = self.make_pairs()
        if own:
            said = [f"for bi-encoders: {said[0]}", *said[1:]]
        if own and self.context.settings.select == "agreement":
            # What is judged on is trained on by nobody.
            places = held_out(len(self.pairs), self.context.settings.held_out, self.context.settings.seed)
            pairs, _ = tasks.without(pairs, [self.pairs.take(places)])
        check_readable(self.context, pairs)
        if self.context.settings.select == "agreement":
            held_out(len(pairs), self.context.settings.held_out, self.context.settings.seed)  # or refuse, now
        write_pairs(pairs, out / "pairs.parquet")
        # With those made before, which are trained on as well.
        earlier = [self.pairs_of(name) for name in self._pairs_made(before=stage)]
        return {
            "pairs": len(pairs),
            "sentences": len(pairs.sentences),
            "said": said,
            "test_pairs_shared": self._shared(join([pairs, *earlier]) if earlier else pairs),
        }

    def _pairs_made(self, *, before: Stage | None = None) -> list[str]:
        """Return the finished stages that made pairs, all or those that stand before a stage, the newest first."""
        last = self.context.settings.cycles if before is None else before.cycle
        names = ["pairs"]
        for cycle in range(1, last + 1):
            names += [f"cycle-{cycle}/pairs", f"cycle-{cycle}/pairs-bi"]
        if before is not None:
            names = names[: names.index(before.name)]
        return [n for n in reversed(names) if (self.context.store.path(n) / "pairs.json").exists()]

    def _shared(self, pairs: Pairs) -> dict[str, int]:
        return {name: tasks.shared(pairs, test) for name, test in self.context.tests.items()}

    def trained_on(self) -> Info:
        """Return what was recorded with the newest training pairs, or with gold ones when there are no others."""
        made = self._pairs_made()
        return self.info(made[0], "pairs") if made else self.info(GOLD, "gold")

    def _gold(self, stage: Stage, out: Path, identity: str) -> Info:
        assert self.gold is not None
        check_readable(self.context, self.gold)
        write_pairs(self.gold, out / "gold.parquet")
        return {
            "pairs": len(self.gold),
            "histogram": histogram(self.gold.scores),
            "test_pairs_shared": self._shared(self.gold),
        }

    def _augment(self, stage: Stage, out: Path, identity: str) -> Info:
        context = self.context
        gold = self._labelled(GOLD)
        rewritten = augment_sentences(
            gold.sentences,
            stage.settings["augment"],
            copies=stage.settings["copies"],
            seed=derive(context.settings.seed, stage.name),
            fill_of=self.fill_of,
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

    def _mix(self, stage: Stage, out: Path, identity: str) -> Info:
        *silver, gold = (self._labelled(name) for name in stage.needs)
        seed = derive(self.context.settings.seed, stage.name)
        mixed, report = mix_pairs(gold, silver[0] if silver else None, stage.settings, seed)
        write_pairs(mixed, out / "silver.parquet")
        return report

    def _labelled(self, name: str) -> Pairs:
        path = self.context.store.path(name)
        return read_pairs(path / ("gold.parquet" if name == GOLD else "silver.parquet"), scores="required")

    def _prime(self, stage: Stage, out: Path, identity: str) -> Info:
        context, plm = self.context, self.context.plms[str(stage.student)]
        torch.manual_seed(derive(context.settings.seed, stage.name, "start"))
        values = {k: v for k, v in stage.settings.items() if k not in OWN_KEYS}
        tuned = values["method"] == "none"
        length = None if tuned else values["max_length"]
        encoder = family("bi").create(
            plm.path, compute=context.compute, max_length=length, pooling=self._pooling(stage)
        )
        fitted = Fitted()
        if not tuned:
            settings = PrimeSettings.model_validate(values)
            sentences = self.sentences or self.pairs.sentences
            run = self._fit(stage, settings, identity, lambda: context.measure(encoder))
            fitted = prime_model(encoder, sentences, settings, run)
        return self._save(encoder, stage, out, fitted)

    def _label(self, stage: Stage, out: Path, identity: str) -> Info:
        context = self.context
        pairs, teacher = self.pairs_of(stage.needs[0]), stage.needs[1]
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

    def _silver(self, stage: Stage, out: Path, identity: str) -> Info:
        columns: list[Scores] = []
        own: list[Scores] = []
        for name in stage.needs[1:]:
            (columns if is_teacher(name, stage) else own).append(self._scores(name, "scores"))
        chosen = stage.settings
        devs = self._labellers_dev(stage, teachers=True)
        weighted, weights = chosen["combine"] == "dev-weighted", []

        def combine(scores: Sequence[Scores], devs: Mapping[str, float | None]) -> Scores:
            if not weighted:
                return COMBINE[chosen["combine"]](scores)
            weights.append(dev_weights(devs, METRICS[self.context.metric].binary))
            return weighted_mean(scores, weights[-1])

        taught = combine(columns, devs)
        kept = combine(own, self._labellers_dev(stage, teachers=False)) if own else None
        scores = blend(taught, kept, chosen["transform"], chosen["mix"])
        labels = to_labels(scores, clip=chosen["clip"])
        write_pairs(self.pairs_of(stage.needs[0]).with_scores(labels.values), out / "silver.parquet")
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

    def _scores(self, name: str, file: str) -> Scores:
        scored = read_pairs(self.context.store.path(name) / f"{file}.parquet", scores="required").scores
        assert scored is not None
        return scored

    def _labellers_dev(self, silver: Stage, *, teachers: bool) -> dict[str, float | None]:
        """Return the development score of each student's teaching model, or own one, in one half-cycle."""
        devs = {}
        for name in silver.needs[1:]:
            if is_teacher(name, silver) != teachers:
                continue
            teacher = self.info(name, "label")["teacher"]
            facts = self.info(teacher, kind_of(teacher))
            devs[facts["student"]] = facts["dev"]
        return devs

    def _distill(self, stage: Stage, out: Path, identity: str) -> Info:
        context, store = self.context, self.context.store
        values = {k: v for k, v in stage.settings.items() if k not in OWN_KEYS}
        settings: DistillSettings = type(getattr(context.settings.distill, str(stage.family))).model_validate(
            values
        )
        silver = self._labelled(stage.needs[0])
        held: Pairs | None = None
        if "held_out" in stage.settings:
            places = held_out(len(silver), stage.settings["held_out"], context.settings.seed)
            held = silver.take(places)
            # Pairs may repeat, and stand there in both orders.
            silver, _ = tasks.without(silver.take(np.delete(np.arange(len(silver)), places)), [held])
        starts = {"base": context.plms[str(stage.student)].path, "primed": store.path(stage.needs[1])}
        starts["previous"] = store.path(stage.needs[-1])
        pooling = self._pooling(stage) if settings.start == "base" else None
        if settings.start == "previous" and stage.family == "bi":
            # A cross-encoder's directory does not say how sentences are pooled; the primed one does.
            pooling = family("bi").load(starts["primed"], compute=context.compute).pooling

        def train(seed: int, checkpoints: Checkpoints, limit: float | None) -> tuple[Any, Fitted]:
            torch.manual_seed(derive(seed, stage.name, "start"))
            student = family(str(stage.family)).create(
                starts[settings.start],
                compute=context.compute,
                max_length=settings.max_length,
                pooling=pooling,
                **head_option(settings),
            )

            def agree() -> float:
                assert held is not None
                return agreement(student.score(held), np.asarray(held.scores))

            measure = agree if held is not None else lambda: context.measure(student)
            run = self._fit(stage, settings, identity, measure)
            run.seed, run.checkpoints, run.limit = seed, checkpoints, limit
            clipped = context.settings.label.clip
            return student, distill_model(
                student, silver, settings, run, symmetric=context.symmetric, clipped=clipped
            )

        checkpoints = context.store.checkpoints(stage.name, identity)
        student, fitted, tried = train_best(settings, context.settings.seed, checkpoints, train)
        trials: Info = {"trials": tried.scores, "trial": tried.kept} if tried else {}
        return {**self._save(student, stage, out, fitted), **trials}

    def _agree(self, stage: Stage, out: Path, identity: str) -> Info:
        context = self.context
        places = held_out(len(self.pairs), stage.settings["held_out"], context.settings.seed)
        held = self.pairs.take(places)
        scorer = family(str(stage.family)).load(context.store.path(stage.needs[0]), compute=context.compute)

        def part(pairs: Pairs) -> Pairs:  # held out of other pairs when bi-encoders have their own
            return pairs.take(held_out(len(pairs), stage.settings["held_out"], context.settings.seed))

        own, taught = stage.settings.get("own"), None
        if own is None and len(stage.needs) > 2:
            taught = part(self._labelled(stage.needs[2]))
        seed = derive(context.settings.seed, stage.name)
        scores, facts = judge(scorer, held, taught, seed, own=part(self.pairs_of(own)) if own else None)
        write_pairs(held.with_scores(scores), out / "scores.parquet")
        return {"model": stage.needs[0], "held_out": len(held), **facts}

    def _evaluate(self, stage: Stage, out: Path, identity: str) -> Info:
        context = self.context
        facts: Info = {}
        if stage.settings.get("raw"):
            scorer = family("bi").create(
                context.plms[str(stage.student)].path,
                compute=context.compute,
                max_length=stage.settings["max_length"],
                pooling=self._pooling(stage),
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
        return {**facts, **self._measured(columns, facts.get("model", "the raw start"))}

    def _ensemble(self, stage: Stage, out: Path, identity: str) -> Info:
        """Average the scores of the students' starts, or best models; metrics are taken afterwards."""
        chosen = self.info("select", "select")["chosen"]
        if stage.settings["of"] == "best":
            members = [v["model"] for k, v in sorted(chosen.items()) if k.startswith(f"{stage.family}/")]
        else:
            members = [name.removeprefix("evaluate/") for name in stage.needs[1:]]
        columns = {
            name: mean([self._scores(f"evaluate/{member}", name) for member in members])
            for name in self.context.tests
        }
        for name, scores in columns.items():
            write_pairs(self.context.tests[name].with_scores(scores), out / f"{name}.parquet")
        return {"members": members, **self._measured(columns, "the mean of " + ", ".join(members))}

    def _measured(self, columns: Mapping[str, Scores], of: str) -> Info:
        """Return each test set's metric, its average precision when gold is binary, and the average of one metric.

        of: whose scores they are, for a warning.
        """
        metrics = {name: self.context.metric_of(name) for name in columns}
        values: dict[str, float] = {}
        precision: dict[str, float] = {}
        for name, scores in columns.items():
            gold = self.context.tests[name].scores
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

    def _select(self, stage: Stage, out: Path, identity: str) -> Info:
        by = stage.settings["by"]
        models = [name for name in stage.needs if not name.startswith("agreement/")]
        facts = {name: self.info(name, kind_of(name)) for name in models}
        if by != "agreement":
            return {"by": by, "chosen": choose_by(facts, by)}
        judged = {name: self.info(f"agreement/{name}", "agree") for name in models}
        scores = {name: self._scores(f"agreement/{name}", "scores") for name in models}
        tuned = {name: plm.tuned for name, plm in self.context.plms.items()}
        chosen, candidates = choose_by_agreement(facts, judged, scores, tuned)
        return {"by": by, "chosen": chosen, "candidates": candidates}

    def _best(self, stage: Stage, out: Path, identity: str) -> Info:
        from transenc.card import model_card

        chosen = self.info("select", "select")["chosen"][f"{stage.family}/{stage.student}"]
        source = self.context.store.path(chosen["model"])
        for name in manifest(source).files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)
        plm = self.context.plms[str(stage.student)]
        card = model_card(
            str(stage.family),
            plm,
            self.context.settings,
            chosen,
            self.context.metric,
            setting=setting(self.trained_on(), self.context.tests),
            partners=[other for name, other in self.context.plms.items() if name != stage.student],
            segments=head_of(out) is not None,
        )
        (out / "README.md").write_text(card, encoding="utf-8")
        return {**chosen, "family": stage.family, "student": stage.student}

    def _pooling(self, stage: Stage) -> str | None:
        wanted = stage.settings["pooling"]
        return wanted if wanted != "auto" else self.context.plms[str(stage.student)].pooling

    def _fit(self, stage: Stage, settings: FitSettings, identity: str, measure: Callable[[], float]) -> Fit:
        context = self.context
        return Fit(
            settings,
            context.compute,
            context.settings.seed,
            stage.name,
            checkpoints=context.store.checkpoints(stage.name, identity),
            evaluate=measure if stage.settings["dev"] or "held_out" in stage.settings else None,
            stop=context.stop,
            report=context.report,
            checkpoint_every=context.checkpoint_every,
        )

    def _save(self, scorer: BiEncoder, stage: Stage, out: Path, fitted: Fitted) -> Info:
        scorer.save(out)
        save_history(out, fitted)
        dev = fitted.best if stage.settings["dev"] else None
        if dev is None and stage.settings["dev"]:
            dev = self.context.measure(scorer)
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
