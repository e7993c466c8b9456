from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from transenc.card import model_card
from transenc.config import build
from transenc.models.intake import Plm

RAW, TUNED = Plm("org/raw", Path("raw")), Plm("org/tuned", Path("tuned"), tuned=True)
CYCLE, START = "cycle-1/distill-bi/raw", "prime/raw"


def card(plm: Plm, *partners: Plm, select: str = "agreement", model: str = CYCLE) -> str:
    settings = build({"plm": [p.name for p in (plm, *partners)], "pairs": "pairs.tsv", "select": select})
    chosen: dict[str, Any] = {"model": model, "dev": None}
    if select == "agreement":
        chosen["reason"] = "agrees best with the other models of the run"
    return model_card("bi", plm, settings, chosen, "spearman", setting="x", partners=partners)


@pytest.mark.parametrize("select", ["agreement", "last"])
def test_only_raw_starts_make_a_model_without_any_label(select: str) -> None:
    for starts in ((RAW,), (RAW, RAW)):
        told = card(*starts, select=select)
        assert "Made without labels" in told
        assert "o labelled data was used at all" in told
        assert "tuned for similarity" not in told
    for starts in ((TUNED,), (RAW, TUNED), (TUNED, RAW)):
        told = card(*starts, select=select)
        assert "without labels" not in told
        assert "no labelled data" not in told.lower()
        assert "his run learnt from no label" in told
        assert "Start `tuned`: tuned for similarity before, perhaps on labelled pairs" in told


def test_a_card_names_the_partners_of_a_student() -> None:
    assert "Students begun from `tuned` learnt beside it, from the same labels." in card(RAW, TUNED)
    assert "learnt beside it" not in card(TUNED)


def test_a_start_that_was_kept_has_learnt_from_nobody() -> None:
    told = card(RAW, TUNED, model=START)
    assert "tuned" not in told
    assert "Made without labels" in told
