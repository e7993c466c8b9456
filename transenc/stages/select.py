"""Choose the cycle of each student and family that is handed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transenc.agreement import Candidate, choose
from transenc.pairs import Scores

Info = dict[str, Any]


def choose_by(models: Mapping[str, Info], by: str) -> dict[str, Info]:
    """Return, for each family/student, the model with the best development score (`by` dev), or the last one.

    models: what each model's stage recorded, in the order they were made.
    """
    chosen: dict[str, Info] = {}
    for name, facts in models.items():
        key = f"{facts['family']}/{facts['student']}"
        best = chosen.get(key)
        better = best is None or by == "last"
        if best is not None and by == "dev":
            better = facts["dev"] > best["dev"]  # an equal later model does not replace an earlier one
        if better:
            chosen[key] = {"model": name, "cycle": facts["cycle"], "dev": facts["dev"]}
    return chosen


def choose_by_agreement(
    models: Mapping[str, Info],
    judged: Mapping[str, Info],
    scores: Mapping[str, Scores],
    tuned: Mapping[str, bool],
) -> tuple[dict[str, Info], list[Info]]:
    """Return the choice of each family/student without any label, and what was compared.

    models: what each model's stage recorded. judged, scores: its agreement, and its scores of the held-out pairs.
    tuned: whether a student's start was tuned for similarity before.
    """
    candidates = []
    noise: dict[tuple[str, str], float | None] = {}
    for name, facts in models.items():
        student, seen = facts["student"], judged[name]
        if seen["labels"] is None:
            noise[student, "cross"] = seen["noise"]
            noise[student, "bi"] = seen.get("noise_own", seen["noise"])
        # A tuned start is replaced only by models as near to their labels as it is to itself under dropout, a raw
        # one by any that learnt more of them than words in common tell.
        needed = noise[student, facts["family"]] if tuned[student] else seen["words"]
        candidates.append(
            Candidate(
                name, student, facts["family"], facts["cycle"], scores[name], seen["labels"], needed or 0.0
            )
        )
    chosen = {
        key: {
            "model": c.candidate.model, "cycle": c.candidate.cycle, "dev": None,
            "agreement": c.agreement, "reason": c.reason,
        }
        for key, c in choose(candidates).items()
    }  # fmt: skip
    return chosen, [
        {"model": c.model, "labels": c.labels, "needed": c.needed, "learnt": c.learnt} for c in candidates
    ]
