"""Weigh partners of mutual distillation by what they are worth, and say when they are unequal."""

from __future__ import annotations

from collections.abc import Mapping

from transenc.errors import ConfigError

UNEQUAL = 0.05  # difference in development score from which a weaker partner is named


def dev_weights(devs: Mapping[str, float | None], binary: bool) -> list[float]:
    """Return one weight a student, of sum 1: its development score less that of chance.

    binary: chance is an AUC of 0.5, else a correlation of 0. Students no better than chance get 0; when all are, the
    weights are equal.
    """
    missing = [student for student, dev in devs.items() if dev is None]
    if missing:
        raise ConfigError(f"label.combine=dev-weighted needs development scores; {missing[0]} has none.")
    above = [max(0.0, (dev or 0.0) - (0.5 if binary else 0.0)) for dev in devs.values()]
    total = sum(above)
    return [value / total for value in above] if total > 0 else [1 / len(above)] * len(above)


def imbalance(stage: str, devs: Mapping[str, float | None], *, weighted: bool = False) -> str | None:
    """Name the weakest teacher of a half-cycle when it is far below the best (Trans-Encoder, section 5.1).

    weighted: teachers are weighed by their development scores already.
    """
    known = {student: dev for student, dev in devs.items() if dev is not None}
    if len(known) < 2:
        return None
    best, worst = max(known, key=lambda s: known[s]), min(known, key=lambda s: known[s])
    gap = known[best] - known[worst]
    if gap <= UNEQUAL:
        return None
    way_on = ": --set label.combine=dev-weighted, or leave it out"
    if weighted:
        way_on = ", even with label.combine=dev-weighted: leave it out if it does"
    return (
        f"{stage}: {worst} teaches with {100 * known[worst]:.2f} on development data, {100 * gap:.2f} below {best} "
        f"({100 * known[best]:.2f}); a weak partner can pull the stronger one down{way_on}"
    )
