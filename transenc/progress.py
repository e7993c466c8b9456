"""What long work reports of itself while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a stage stands: shown to people, never used to decide."""

    stage: str
    done: int
    total: int
    loss: float | None = None
    metric: float | None = None
