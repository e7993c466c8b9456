"""What a scorer does not read of long texts is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from transenc.models.bi import BiFamily
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.pairs import Pairs
from transenc.unread import warn_of_unread


@pytest.mark.parametrize(("long", "told"), [(9, 0), (20, 1)], ids=["under a tenth", "a sixth"])
@pytest.mark.parametrize(("family", "what"), [(BiFamily(), "texts"), (CrossFamily(), "pairs")])
def test_texts_longer_than_a_scorer_reads_are_told(
    family: BiFamily | CrossFamily,
    what: str,
    long: int,
    told: int,
    plm: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = family.create(plm, compute=Compute("cpu", "fp32"), max_length=24)
    first = [f"dog {i % 10} {i // 10}" for i in range(100 + long)]
    second = ["a cat sits"] * 100 + ["dog " * 30 + str(i) for i in range(long)]
    warn_of_unread("mine", scorer, Pairs.from_rows(first, second))
    assert len(caplog.messages) == told
    assert (
        not told
        or f"mine reads 24 tokens, and 1{7 if what == 'pairs' else 4}% of the {what} are" in caplog.text
    )


def test_of_plugins_nothing_is_known_whatever_they_have_under_our_names() -> None:
    class Plugin:
        family, max_length, tokenizer = "mine", 8, object()

    warn_of_unread("mine", Plugin(), Pairs.from_rows(["a"], ["b"]))
