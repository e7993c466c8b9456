"""Carry out a plan in a run directory: skip what is finished, continue what was begun, do the rest."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transenc import __version__, registry
from transenc.config import FitSettings, PrimeSettings
from transenc.cycle import Stage
from transenc.errors import ConfigError, DamagedError
from transenc.metrics import METRICS
from transenc.models.bi import BiEncoder
from transenc.pairs import Pairs, Scores
from transenc.readers import read_pairs, write_pairs
from transenc.scorer import COMBINE, BothOrders, blend, to_labels
from transenc.seeds import derive
from transenc.stages.context import Context, family
from transenc.stages.distill import distill_model
from transenc.stages.label import CHECKPOINT_SECONDS, score_pairs
from transenc.stages.prime import prime_model, save_history
from transenc.store import canonical, fingerprint, manifest, write_file
from transenc.training import Fit, Fitted

logger = logging.getLogger(__name__)

Info = dict[str, Any]


@dataclass
class Runner:
    """Run stages in order.

    make_pairs: read or mine the training pairs, and say how. digests: fingerprints of what lies outside the run,
    by kind. sentences: what is primed on; None: the sentences of the pairs.
    """

    context: Context
    make_pairs: Callable[[], tuple[Pairs, list[str]]]
    digests: Mapping[str, Any]
    sentences: Sequence[str] | None = None
    on_stage: Callable[[Stage, str], None] = lambda stage, what: None

    @cached_property
    def pairs(self) -> Pairs:
        """Return the training pairs, from the disk: they are made once in the life of a run."""
        return read_pairs(self.context.store.path("pairs") / "pairs.parquet", scores="ignored")

    def run(self, stages: Sequence[Stage]) -> None:
        """Finish every stage; the same call after a crash continues, and afterwards only verifies."""
        identities = self.identities(stages)
        store = self.context.store
        waiting = [s for s in stages if not store.finished(s.name, identities[s.name])]
        for stage in stages:
            if stage not in waiting:
                self.on_stage(stage, "done before")
                continue
            self.context.stop.check()
            self.on_stage(stage, "start")
            store.log(event="start", stage=stage.name)
            with store.stage(stage.name, identities[stage.name], size=self._size(stage)) as out:
                info = getattr(self, f"_{stage.kind}")(stage, out, identities[stage.name])
                (out / f"{stage.kind}.json").write_bytes(canonical(info))
            store.log(event="finish", stage=stage.name, **info)
            self.on_stage(stage, "finish")

    def identities(self, stages: Sequence[Stage]) -> dict[str, str]:
        """Return each stage's fingerprint: its settings, seed, versions, outside inputs and needs' fingerprints."""
        known: dict[str, str] = {}
        for stage in stages:
            known[stage.name] = fingerprint(
                {
                    "name": stage.name,
                    "kind": stage.kind,
                    "settings": stage.settings,
                    "seed": self.context.settings.seed,
                    "precision": self.context.compute.precision,
                    "outside": self.digests.get(stage.kind, {}),
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
        pairs, said = self.make_pairs()
        write_pairs(pairs, out / "pairs.parquet")
        return {"pairs": len(pairs), "sentences": len(pairs.sentences), "said": said}

    def _prime(self, stage: Stage, out: Path, identity: str) -> Info:
        context, plm = self.context, self.context.plms[str(stage.student)]
        torch.manual_seed(derive(context.settings.seed, stage.name, "start"))
        values = {k: v for k, v in stage.settings.items() if k not in ("pooling", "dev")}
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
            run.changed = encoder.transformer.changed
            fitted = prime_model(encoder, sentences, settings, run)
        return self._save(encoder, stage, out, fitted)

    def _label(self, stage: Stage, out: Path, identity: str) -> Info:
        context = self.context
        teacher = stage.needs[1]
        scorer = family(str(stage.family)).load(context.store.path(teacher), compute=context.compute)
        if stage.settings.get("both_orders") and context.symmetric:
            scorer = BothOrders(scorer)
        scores = score_pairs(
            scorer,
            self.pairs,
            shard=context.settings.label.shard,
            checkpoints=context.store.checkpoints(stage.name, identity),
            stop=context.stop,
            report=context.report,
            stage=stage.name,
            checkpoint_seconds=CHECKPOINT_SECONDS if context.checkpoint_every is None else 0,
        )
        write_pairs(self.pairs.with_scores(scores), out / "scores.parquet")
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
            scored = read_pairs(self.context.store.path(name) / "scores.parquet", scores="required")
            assert scored.scores is not None
            (columns if f"/label-{stage.family}/" in name else own).append(scored.scores)
        chosen, combine = stage.settings, COMBINE[stage.settings["combine"]]
        scores = blend(combine(columns), combine(own) if own else None, chosen["transform"], chosen["mix"])
        labels = to_labels(scores, clip=chosen["clip"])
        write_pairs(self.pairs.with_scores(labels.values), out / "silver.parquet")
        if labels.clipped:
            logger.info("%s: %d of %d scores clipped.", stage.name, labels.clipped, len(labels.values))
        histogram = np.histogram(labels.values, bins=10, range=(0, 1))[0].tolist()
        return {
            "rule": labels.rule,
            "transform": chosen["transform"],
            "mix": chosen["mix"] if own else 0.0,
            "clipped": labels.clipped,
            "pairs": len(labels.values),
            "histogram": histogram,
        }

    def _distill(self, stage: Stage, out: Path, identity: str) -> Info:
        context, store = self.context, self.context.store
        values = {k: v for k, v in stage.settings.items() if k not in ("pooling", "dev")}
        settings = type(getattr(context.settings.distill, str(stage.family))).model_validate(values)
        silver = read_pairs(store.path(stage.needs[0]) / "silver.parquet", scores="required")
        starts = {"base": context.plms[str(stage.student)].path, "primed": store.path(stage.needs[1])}
        starts["previous"] = store.path(stage.needs[-1])
        torch.manual_seed(derive(context.settings.seed, stage.name, "start"))
        pooling = self._pooling(stage) if settings.start == "base" else None
        if settings.start == "previous" and stage.family == "bi":
            # A cross-encoder's directory does not say how sentences are pooled; the primed one does.
            pooling = family("bi").load(starts["primed"], compute=context.compute).pooling
        student = family(str(stage.family)).create(
            starts[settings.start], compute=context.compute, max_length=settings.max_length, pooling=pooling
        )
        run = self._fit(stage, settings, identity, lambda: context.measure(student))
        clipped = context.settings.label.clip
        fitted = distill_model(student, silver, settings, run, symmetric=context.symmetric, clipped=clipped)
        return self._save(student, stage, out, fitted)

    def _evaluate(self, stage: Stage, out: Path, identity: str) -> Info:
        context = self.context
        scorer = family(str(stage.family)).load(context.store.path(stage.needs[0]), compute=context.compute)
        measured: dict[str, float] = {}
        for name, gold in context.tests.items():
            assert gold.scores is not None
            scores = score_pairs(
                scorer, gold, stop=context.stop, report=context.report, stage=f"{stage.name} ({name})"
            )
            measured[name] = float(METRICS[context.metric](scores, gold.scores))
            write_pairs(gold.with_scores(scores), out / f"{name}.parquet")
        average = float(np.mean(list(measured.values())))
        return {"metric": context.metric, "model": stage.needs[0], "tests": measured, "average": average}

    def _select(self, stage: Stage, out: Path, identity: str) -> Info:
        chosen: dict[str, dict[str, Any]] = {}
        for name in stage.needs:
            facts = self.info(name, "prime" if name.startswith("prime/") else "distill")
            key = f"{facts['family']}/{facts['student']}"
            best = chosen.get(key)
            better = best is None or stage.settings["by"] == "last"
            if best is not None and stage.settings["by"] == "dev":
                better = facts["dev"] > best["dev"]  # an equal later model does not replace an earlier one
            if better:
                chosen[key] = {"model": name, "cycle": facts["cycle"], "dev": facts["dev"]}
        return {"by": stage.settings["by"], "chosen": chosen}

    def _best(self, stage: Stage, out: Path, identity: str) -> Info:
        from transenc.card import model_card

        chosen = self.info("select", "select")["chosen"][f"{stage.family}/{stage.student}"]
        source = self.context.store.path(chosen["model"])
        for name in manifest(source).files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)
        plm = self.context.plms[str(stage.student)]
        card = model_card(str(stage.family), plm, self.context.settings, chosen, self.context.metric)
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
            evaluate=measure if stage.settings["dev"] else None,
            stop=context.stop,
            report=context.report,
            checkpoint_every=context.checkpoint_every,
        )

    def _save(self, scorer: BiEncoder, stage: Stage, out: Path, fitted: Fitted) -> Info:
        scorer.save(out)
        save_history(out, fitted)
        dev = fitted.best
        if dev is None and stage.settings["dev"]:
            dev = self.context.measure(scorer)
        return {
            "student": stage.student,
            "family": stage.family,
            "cycle": stage.cycle,
            "dev": dev,
            "best_step": fitted.best_step,
            "method": stage.settings.get("method"),
        }


def environment() -> dict[str, Any]:
    """Return what else decides a run's bits: versions, processor and threads."""
    import tokenizers
    import transformers

    plugins = {
        f"{group}:{name}": " ".join(registry.owner(group, name))
        for group in (registry.SAMPLERS, registry.FAMILIES, registry.PLMS)
        for name in registry.names(group)
    }
    return {
        "transenc": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "plugins": plugins,
    }


def record(context: Context, argv: Sequence[str] | None = None) -> None:
    """Write run.yaml (settings) and run.json (versions, seed, command), or compare with those of an earlier start.

    Raise ConfigError showing the first settings that differ from what the run was begun with.
    """
    import yaml

    root = context.store.root
    settings = context.settings.model_dump(mode="json")
    path = root / "run.yaml"
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        changes = list(differences(before, settings))
        if changes:
            shown = "; ".join(changes[:5]) + (f"; {len(changes) - 5} more" if len(changes) > 5 else "")
            raise ConfigError(
                f"{root} was begun with other settings: {shown}. Use another --run, or the old settings."
            )
    else:
        write_file(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())
    if not (root / "run.json").exists():
        facts = {
            "schema": 1,
            "argv": list(sys.argv if argv is None else argv),
            "device": context.compute.device,
            "precision": context.compute.precision,
            "environment": environment(),
            "plms": {name: {"path": str(p.path), "revision": p.revision} for name, p in context.plms.items()},
        }
        write_file(root / "run.json", canonical(facts))


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List `key: was x, now y` for nested settings."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in {**before, **now}:
            found += differences(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
        return found
    return [] if before == now else [f"{where}: was {before!r}, now {now!r}"]
