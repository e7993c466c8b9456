"""The model card that goes with each kept model."""

from __future__ import annotations

from typing import Any

from transenc import __version__
from transenc.config import Settings
from transenc.models.intake import Plm


def model_card(
    family: str,
    plm: Plm,
    settings: Settings,
    chosen: dict[str, Any],
    metric: str,
    *,
    setting: str,
    segments: bool = False,
) -> str:
    """Return a card with front matter that model hubs read; it repeats only what the run recorded."""
    pipeline = "sentence-similarity" if family == "bi" else "text-ranking"
    hub = plm.revision is not None
    library = "transenc" if segments else "sentence-transformers"
    front = ["---", f"library_name: {library}", f"pipeline_tag: {pipeline}"]
    front += [f"base_model: {plm.name}"] if hub else []
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
    source = settings.task or settings.pairs or settings.corpus
    gold = settings.gold.source
    made = "Made without labels by Trans-Encoder distillation (Liu et al., ICLR 2022)"
    if gold:
        made = f"Made by Augmented SBERT (Thakur et al., NAACL 2021), learnt from `{gold}`"
    body = [
        f"# {plm.name.rstrip('/').rpartition('/')[2]}, {family}-encoder by transenc {__version__}",
        "",
        f"A {kind}. {made}, recipe `{settings.recipe}`, {settings.cycles} cycles"
        f"{f' on `{source}`' if source else ''}, seed {settings.seed}.",
        "",
        f"Kept: `{chosen['model']}`" + _selection(chosen, metric, labelled=bool(gold)),
        "",
        f"{setting[:1].upper()}{setting[1:]}.",
    ]
    if plm.note:
        body += ["", f"Start: {plm.note}."]
    if chosen["model"].startswith("prime/") and chosen["dev"] is not None:
        body += ["", "No cycle beat the start on development data, so this is the start itself."]
    return "\n".join(front + body) + "\n"


def _selection(chosen: dict[str, Any], metric: str, *, labelled: bool) -> str:
    if chosen["dev"] is not None:
        return f", development {metric} {100 * chosen['dev']:.2f}. Labelled development pairs selected it" + (
            "." if labelled else "; none trained it."
        )
    if "reason" in chosen:
        return f": {chosen['reason']} (--select agreement). No labelled data was used at all."
    if labelled:
        return ", the last one: no labels selected it."
    return ", the last cycle: no labelled data was used at all."
