"""What is compared: names, and the settings (as `--set` takes them) by which each leaves the recipe."""

from __future__ import annotations

_PRIMED = "distill.cross.start=primed"


def _cross(*assignments: str) -> list[str]:
    return [_PRIMED, *assignments]


# The student is the cross-encoder, the teacher the start.
CROSS: dict[str, list[str]] = {
    "published": [],
    "unclipped": ["label.clip=false"],
    "primed": _cross(),
    "segments": _cross("distill.cross.head=segments"),
    "segments lr 1e-4": _cross("distill.cross.head=segments", "distill.cross.learning_rate=1e-4"),
    "segments, no dropout": _cross(
        "distill.cross.head=segments", "distill.cross.learning_rate=5e-5", "distill.cross.dropout=0.0"
    ),
    "primed cosine_mse": _cross("distill.cross.objective=cosine_mse"),
    "primed cosent": _cross("distill.cross.objective=cosent"),
    "primed listnet": _cross("distill.cross.objective=listnet"),
    "primed listmle": _cross("distill.cross.objective=listmle"),
    "primed margin_mse": _cross("distill.cross.objective=margin_mse"),
    "primed kl": _cross("distill.cross.objective=kl"),
    "primed rank": _cross("label.transform=rank"),
    "primed ema": _cross("distill.cross.average=ema:0.99"),
    "primed last": _cross("distill.cross.average=last:0.3"),
    "primed lr 5e-5": _cross("distill.cross.learning_rate=5e-5"),
    "primed lr 1e-4": _cross("distill.cross.learning_rate=1e-4"),
}

# The student is the bi-encoder, its teacher the cross-encoder of the variant that --teacher names.
BI: dict[str, list[str]] = {
    "published": [],
    "both orders": ["label.both_orders=true"],
    "mix": ["label.mix=0.5"],
    "match": ["label.transform=match"],
    "match mix": ["label.transform=match", "label.mix=0.5"],
    "ema": ["distill.bi.average=ema:0.99"],
    "last": ["distill.bi.average=last:0.3"],
    "lr 2e-5": ["distill.bi.learning_rate=2e-5"],
    "no dropout": ["distill.bi.dropout=0.0"],
    "cosent": ["distill.bi.objective=cosent"],
    "angle": ["distill.bi.objective=angle"],
    "listnet": ["distill.bi.objective=listnet"],
    "listmle": ["distill.bi.objective=listmle"],
    "margin_mse": ["distill.bi.objective=margin_mse"],
    "cosent mix": ["distill.bi.objective=cosent", "label.mix=0.5"],
    "gentle": [
        *("label.both_orders=true", "label.transform=match", "label.mix=0.5"),
        *("distill.bi.learning_rate=2e-5", "distill.bi.average=ema:0.99", "distill.bi.keep_start=true"),
    ],
}
VARIANTS = {"cross": CROSS, "bi": BI}
