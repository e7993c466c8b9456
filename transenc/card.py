"""The model card that goes with each kept model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transenc import __version__
from transenc.config import Settings
from transenc.models.intake import Plm
from transenc.models.layout import usage

TUNED = "tuned for similarity before, perhaps on labelled pairs: what those taught is in this model"


def model_card(
    family: str,
    plm: Plm,
    settings: Settings,
    chosen: dict[str, Any],
    metric: str,
    *,
    setting: str,
    partners: Sequence[Plm] = (),
    segments: bool = False,
) -> str:
    """Return a card with front matter that model hubs read; it repeats only what the run recorded.

    partners: the starts of the run's other students, which learnt from the same labels.
    """
    pipeline = "sentence-similarity" if family == "bi" else "text-ranking"
    library = "transenc" if segments else "sentence-transformers"
    front = ["---", f"library_name: {library}", f"pipeline_tag: {pipeline}"]
    front += [f"base_model: {plm.hub}"] if plm.hub else []
    front += [
        "tags:",
        "- sentence-transformers",
        "- transenc",
        "- trans-encoder",
        "---",
        "",
    ]
    learnt = settings.distill.cross.objective
    learnt = "binary cross-entropy" if learnt == "soft_bce" else f"`{learnt}`"
    kind = (
        "bi-encoder: one unit vector a sentence, cosine as the score"
        if family == "bi"
        else f"cross-encoder: one logit a pair; apply a sigmoid (trained with {learnt} on soft labels)"
    )
    if segments:
        kind += (
            ". The logit is a line over the cosine of both segments' mean states (config.json, transenc_head), which "
            "transenc and the engines that it exports compute, and sentence-transformers where transenc is: "
            "`CrossEncoder(DIR, trust_remote_code=True)`"
        )
    source = settings.task or settings.pairs or ", ".join(settings.corpora)
    gold = settings.gold.source
    starts = [plm] if chosen["model"].startswith("prime/") else [plm, *partners]
    carried = any(start.tuned for start in starts)
    made = "Made without labels by Trans-Encoder distillation (Liu et al., ICLR 2022)"
    if carried:
        made = "Made by Trans-Encoder distillation (Liu et al., ICLR 2022), trained on no label"
    if gold:
        made = f"Made by Augmented SBERT (Thakur et al., NAACL 2021), learnt from `{gold}`"
    body = [
        f"# {_short(plm)}, {family}-encoder by transenc {__version__}",
        "",
        f"A {kind}. {made}, recipe `{settings.recipe}`, {settings.cycles} cycle{'s' * (settings.cycles != 1)}"
        f"{f' on `{source}`' if source else ''}, seed {settings.seed}.",
        "",
        f"Kept: `{chosen['model']}`" + _selection(chosen, metric, labelled=bool(gold), carried=carried),
        "",
        f"{setting[:1].upper()}{setting[1:]}.",
    ]
    if starts[1:]:
        others = ", ".join(f"`{_short(start)}`" for start in starts[1:])
        body += ["", f"Students begun from {others} learnt beside it, from the same labels."]
    for start in starts:
        if note := start.note or (TUNED if start.tuned else ""):
            body += ["", f"Start `{_short(start)}`: {note}."]
    if chosen["model"].startswith("prime/") and chosen["dev"] is not None:
        body += ["", "No cycle beat the start on development data, so this is the start itself."]
    return "\n".join(front + body) + "\n" + usage(family, segments=segments)


def _short(plm: Plm) -> str:
    """Return the last part of a start's name: directories of one's own stay private."""
    return plm.name.rstrip("/").rpartition("/")[2]


def _selection(chosen: dict[str, Any], metric: str, *, labelled: bool, carried: bool) -> str:
    none = "this run learnt from no label" if carried else "no labelled data was used at all"
    if chosen["dev"] is not None:
        return f", development {metric} {100 * chosen['dev']:.2f}. Labelled development pairs selected it" + (
            "." if labelled else "; none trained it."
        )
    if "reason" in chosen:
        return f": {chosen['reason']} (--select agreement). {none[:1].upper()}{none[1:]}."
    if labelled:
        return ", the last one: no labels selected it."
    return f", the last cycle: {none}."
