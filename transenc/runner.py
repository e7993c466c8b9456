"""Carry out a plan in a run directory: skip what is finished, continue what was begun, do the rest."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transenc import __version__, registry
from transenc.augmenters import Fill
from transenc.config import FitSettings, PrimeSettings
from transenc.cycle import Stage
from transenc.errors import ConfigError, DamagedError, DataError
from transenc.gold_plan import GOLD
from transenc.metrics import METRICS
from transenc.models.bi import BiEncoder
from transenc.pairs import Pairs, join
from transenc.readers import read_pairs, write_pairs
from transenc.scorer import COMBINE, to_labels
from transenc.seeds import derive
from transenc.stages.augment import augment_sentences, augmented_pairs
from transenc.stages.context import Context, family
from transenc.stages.distill import distill_model
from transenc.stages.label import CHECKPOINT_SECONDS, score_pairs
from transenc.stages.mix import histogram, mix_pairs
from transenc.stages.prime import prime_model, save_history
from transenc.store import canonical, fingerprint, manifest, write_file
from transenc.training import Fit, Fitted

logger = logging.getLogger(__name__)

Info = dict[str, Any]
NO_PAIRS = join([])


@dataclass
class Runner:
    """Run stages in order.

    make_pairs: read or mine the training pairs, and say how. digests: fingerprints of what lies outside the run,
    by kind. sentences: what is primed on; None: the sentences of the pairs. mine_with: mine pairs with the
    bi-encoder of a directory. gold: pairs that people labelled. fill_of: loads the masked language model of a name.
    """

    context: Context
    make_pairs: Callable[[], tuple[Pairs, list[str]]]
    digests: Mapping[str, Any]
    sentences: Sequence[str] | None = None
    on_stage: Callable[[Stage, str], None] = lambda stage, what: None
    mine_with: Callable[[Path], tuple[Pairs, list[str]]] | None = None
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
        # A training stage holds weights, the best weights and two moments, and the older checkpoint beside
        # them.
        if stage.kind not in ("prime", "distill", "best"):
            return 0
        weights = sum(
            f.stat().st_size for f in self.context.plms[str(stage.student)].path.glob("*.safetensors")
        )
        return weights * (2 if stage.kind == "best" else 10)

    # One method a kind of stage: inputs on disk -> outputs in `out`, and plain facts about them.

    def _pairs(self, stage: Stage, out: Path, identity: str) -> Info:
        models = [name for name in stage.needs if name != GOLD]
        if models:
            assert self.mine_with is not None
            known = [
                (self.info(n, "prime" if n.startswith("prime/") else "distill")["dev"], n) for n in models
            ]
            # An equal later model does not replace an earlier one, as where models are selected.
            encoder = max(known, key=lambda k: k[0])[1] if stage.settings.get("by") == "dev" else models[-1]
            pairs, said = self.mine_with(self.context.store.path(encoder))
            said = [*said, f"{stage.name}: mined with {encoder}"]
        else:
            pairs, said = self.make_pairs()
        write_pairs(pairs, out / "pairs.parquet")
        return {"pairs": len(pairs), "sentences": len(pairs.sentences), "said": said}

    def _gold(self, stage: Stage, out: Path, identity: str) -> Info:
        assert self.gold is not None
        write_pairs(self.gold, out / "gold.parquet")
        return {"pairs": len(self.gold), "histogram": histogram(self.gold.scores)}

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
        pairs, teacher = self.pairs_of(stage.needs[0]), stage.needs[1]
        scorer = family(str(stage.family)).load(context.store.path(teacher), compute=context.compute)
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
        columns = []
        for name in stage.needs[1:]:
            scored = read_pairs(self.context.store.path(name) / "scores.parquet", scores="required")
            assert scored.scores is not None
            columns.append(scored.scores)
        labels = to_labels(COMBINE[stage.settings["combine"]](columns))
        write_pairs(self.pairs_of(stage.needs[0]).with_scores(labels.values), out / "silver.parquet")
        if labels.clipped:
            logger.info("%s: %d of %d scores clipped.", stage.name, labels.clipped, len(labels.values))
        histogram = np.histogram(labels.values, bins=10, range=(0, 1))[0].tolist()
        return {
            "rule": labels.rule,
            "clipped": labels.clipped,
            "pairs": len(labels.values),
            "histogram": histogram,
        }

    def _distill(self, stage: Stage, out: Path, identity: str) -> Info:
        context, store = self.context, self.context.store
        values = {k: v for k, v in stage.settings.items() if k not in ("pooling", "dev")}
        settings = type(getattr(context.settings.distill, str(stage.family))).model_validate(values)
        silver = self._labelled(stage.needs[0])
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
        fitted = distill_model(student, silver, settings, run, symmetric=context.symmetric)
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
        for group in (registry.SAMPLERS, registry.AUGMENTERS, registry.FAMILIES, registry.PLMS)
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
