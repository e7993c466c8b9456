"""Carry out a plan in a run directory: skip what is finished, continue what was begun, do the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transenc.augmenters import Fill
from transenc.errors import DamagedError
from transenc.gold_plan import GOLD
from transenc.kinds import WORK, Info
from transenc.memory import release
from transenc.models.device import Compute
from transenc.pairs import Pairs, Scores, join
from transenc.parallel import Workers
from transenc.readers import read_pairs
from transenc.record import warn_of_changes
from transenc.seeds import random_state_kept
from transenc.stage import Stage, batches
from transenc.stages.context import Context
from transenc.store import canonical, fingerprint

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

    def run(
        self, stages: Sequence[Stage], *, on_stage: Callable[[Stage, str], None] = lambda stage, what: None
    ) -> None:
        """Finish every stage; the same call after a crash continues, and afterwards only verifies.

        on_stage: is told "done before", or "start" and "finish", of each.
        """
        identities = self.identities(stages)
        store = self.context.store
        waiting = {s.name for s in stages if not store.finished(s.name, identities[s.name])}
        if waiting:
            warn_of_changes(self.context)

        def done(stage: Stage, info: Info) -> None:
            store.log(event="finish", stage=stage.name, **info)
            on_stage(stage, "finish")

        together = len(self.computes) > 1 and bool(waiting)
        workers = Workers(self.computes, self.context.stop, self.context.report) if together else None
        with workers.running(self) if workers else nullcontext():
            for batch in batches(stages) if workers else [[s] for s in stages]:
                todo = [stage for stage in batch if stage.name in waiting]
                for stage in batch:
                    if stage not in todo:
                        on_stage(stage, "done before")
                if todo:
                    self.context.stop.check()
                for stage in todo:
                    on_stage(stage, "start")
                    store.log(event="start", stage=stage.name)
                if workers and len(todo) > 1:
                    workers.run([(s, identities[s.name]) for s in todo], done)
                    continue
                for stage in todo:
                    done(stage, self.finish(stage, identities[stage.name]))

    @random_state_kept()
    def finish(self, stage: Stage, identity: str) -> Info:
        """Do one stage, commit it, and return the facts about it."""
        with self.context.store.stage(stage.name, identity, size=self._size(stage)) as out:
            info: Info = WORK[stage.kind](self, stage, out, identity)
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

    def pairs_made(self, *, before: Stage | None = None) -> list[str]:
        """Return the finished stages that made pairs, all or those that stand before a stage, the newest first."""
        last = self.context.settings.cycles if before is None else before.cycle
        names = ["pairs"]
        for cycle in range(1, last + 1):
            names += [f"cycle-{cycle}/pairs", f"cycle-{cycle}/pairs-bi"]
        if before is not None:
            names = names[: names.index(before.name)]
        return [n for n in reversed(names) if (self.context.store.path(n) / "pairs.json").exists()]

    def trained_on(self) -> Info:
        """Return what was recorded with the newest training pairs, or with gold ones when there are no others."""
        made = self.pairs_made()
        return self.info(made[0], "pairs") if made else self.info(GOLD, "gold")

    def labelled(self, name: str) -> Pairs:
        """Return the pairs of a finished stage with their labels, gold or silver."""
        path = self.context.store.path(name)
        return read_pairs(path / ("gold.parquet" if name == GOLD else "silver.parquet"), scores="required")

    def scores(self, name: str, file: str) -> Scores:
        """Return the scores that a finished stage wrote to one of its files."""
        scored = read_pairs(self.context.store.path(name) / f"{file}.parquet", scores="required").scores
        assert scored is not None
        return scored
