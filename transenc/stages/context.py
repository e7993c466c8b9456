"""What every stage of a run shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transenc import registry
from transenc.config import Settings
from transenc.interrupt import StopFlag
from transenc.metrics import quality
from transenc.models.device import Compute
from transenc.models.intake import Plm
from transenc.pairs import Pairs
from transenc.progress import Progress
from transenc.scorer import Scorer
from transenc.store import Store


@dataclass
class Context:
    """Hold a run's data, starts and services.

    plms: the start of each student. dev: scored pairs, of a task with gold in [0, 1], or None. tests: the evaluation
    sets by name. metric: a name of METRICS; metrics: those of the tests, where they differ. symmetric: whether
    (a, b) and (b, a) mean the same.
    """

    store: Store
    settings: Settings
    compute: Compute
    plms: Mapping[str, Plm]
    dev: Pairs | None = None
    tests: Mapping[str, Pairs] = field(default_factory=dict)
    metric: str = "spearman"
    metrics: Mapping[str, str] = field(default_factory=dict)
    symmetric: bool = True
    stop: StopFlag = field(default_factory=StopFlag)
    report: Callable[[Progress], None] = lambda progress: None
    checkpoint_every: int | None = None

    def metric_of(self, name: str) -> str:
        """Return the metric of a test set."""
        return self.metrics.get(name, self.metric)

    def measure(self, scorer: Scorer) -> float:
        """Return a scorer's development score; there must be development data."""
        assert self.dev is not None
        assert self.dev.scores is not None
        return quality(self.metric, scorer.score(self.dev), self.dev.scores)


def family(name: str) -> Any:
    """Return the family of a name, ready to create and load scorers."""
    return registry.load(registry.FAMILIES, name)()
