"""Pairs that are mined for bi-encoders alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import make_pairs
from tests.test_gold import ends_alike_when_stopped, inputs_of, run, settings_of
from transenc.agreement import held_out
from transenc.config import build, recipe_layers
from transenc.cycle import plan
from transenc.errors import ConfigError
from transenc.models.bi import BiFamily
from transenc.models.device import Compute
from transenc.pairs import Pairs
from transenc.readers import read_pairs
from transenc.seeds import derive
from transenc.stage import Stage, Student
from transenc.stages.agree import judge
from transenc.stages.select import choose_by_agreement

BOTH: dict[str, Any] = {"plm": ["s0"], "corpus": "c.txt", "cycles": 2, "bi_sampler": "semantic"}


def planned(remine: bool = False, searches: bool = True, **changes: Any) -> dict[str, Stage]:
    settings = build(BOTH | {"remine": remine} | changes)
    stages = plan(
        settings, [Student("s0", "s0", "simcse")], dev=True, bi_mined=True, bi_needs_encoder=searches
    )
    seen: set[str] = set()
    for stage in stages:
        assert set(stage.needs) <= seen
        seen.add(stage.name)
    return {s.name: s for s in stages}


def test_each_family_learns_from_its_own_pairs() -> None:
    stages = planned(label={"mix": 0.5, "transform": "match"})
    assert stages["cycle-1/pairs-bi"].needs == ()  # mined with the start
    assert stages["cycle-1/pairs-bi"].settings["sampler"] == "semantic"
    assert "cycle-2/pairs-bi" not in stages
    assert stages["cycle-2/label-bi/s0"].needs == ("pairs", "cycle-1/distill-bi/s0")
    assert stages["cycle-2/label-cross/s0"].needs == ("cycle-1/pairs-bi", "cycle-2/distill-cross/s0")
    assert stages["cycle-2/label-own/s0"].needs == ("cycle-1/pairs-bi", "cycle-1/distill-bi/s0")
    assert stages["cycle-2/silver-cross"].needs == (
        "cycle-1/pairs-bi", "cycle-2/label-cross/s0", "cycle-2/label-own/s0",
    )  # fmt: skip


def test_the_bi_encoders_own_labels_are_made_only_where_they_are_mixed_in() -> None:
    assert not any("label-own" in name for name in planned())


def test_mining_afresh_looks_again_only_with_samplers_that_search() -> None:
    stages = planned(remine=True)
    assert stages["cycle-2/pairs-bi"].needs == ("prime/s0", "cycle-1/distill-bi/s0")
    assert stages["cycle-2/label-bi/s0"].needs[0] == "pairs"
    assert "cycle-2/pairs-bi" not in planned(remine=True, searches=False, bi_sampler="bm25")
    assert planned(searches=False, select="agreement")["cycle-1/pairs-bi"].needs == ("pairs",)


def test_only_the_default_recipe_from_a_raw_start_mines_so_by_itself() -> None:
    def bi_sampler(name: str, raw: bool, task: str | None = None) -> str | None:
        values: dict[str, Any] = {"plm": ["s0"]}
        for layer in recipe_layers(name, task=task, metric=None, raw=lambda: raw):
            values |= layer
        return build(values).bi_sampler

    assert bi_sampler("best", True) == "semantic:k=3"
    assert bi_sampler("best", False) is bi_sampler("self", True) is bi_sampler("best", True, "demo") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bi_sampler": "kde"},
            "The sampler kde chooses pairs whose labels are like gold ones, which cycles",
        ),
        ({"bi_sampler": "bm25", "remine": True}, "uses none: name --sampler semantic.*or a bi_sampler"),
        ({"bi_sampler": "bm52"}, "bm25"),
    ],
)
def test_samplers_that_cannot_be_used_are_named(changes: dict[str, Any], message: str, plm: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        inputs_of(settings_of("self", plm, task="demo", **changes), plm)


def test_a_bi_encoder_is_held_to_the_bar_of_its_own_pairs() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(60)
    scores = {name: (truth + 0.1 * rng.random(60)).astype(np.float32) for name in ("start", "cross", "bi")}
    models = {
        name: {"student": "s0", "family": family, "cycle": cycle}
        for name, family, cycle in (("start", "bi", 0), ("cross", "cross", 1), ("bi", "bi", 1))
    }
    judged: dict[str, Any] = {
        "start": {"labels": None, "noise": 0.95, "noise_own": 0.85, "words": None},
        "cross": {"labels": 0.96, "noise": 0.9, "words": 0.1},
        "bi": {"labels": 0.9, "noise": 0.9, "words": 0.1},
    }
    candidates = {c["model"]: c for c in choose_by_agreement(models, judged, scores, {"s0": True})[1]}
    assert (candidates["cross"]["needed"], candidates["bi"]["needed"]) == (0.95, 0.85)
    assert candidates["bi"]["learnt"]
    # Of a start that was not tuned, more than words in common tell is asked for.
    judged["bi"]["words"] = 0.92
    raw = {c["model"]: c for c in choose_by_agreement(models, judged, scores, {"s0": False})[1]}
    assert {name: (c["needed"], c["learnt"]) for name, c in raw.items()} == {
        "start": (0.0, True),
        "cross": (0.1, True),
        "bi": (0.92, False),
    }
    del judged["start"]["noise_own"]
    candidates = {c["model"]: c for c in choose_by_agreement(models, judged, scores, {"s0": True})[1]}
    assert candidates["bi"]["needed"] == 0.95
    assert not candidates["bi"]["learnt"]


def judging_seed(root: Path, settings: Any) -> int:
    return derive(settings.seed, f"agreement/prime/{next(root.glob('agreement/prime/*')).name}")


def texts(pairs: Pairs) -> set[frozenset[str]]:
    return {frozenset(row) for row in pairs.rows()}


def test_a_run_without_labels_stops_anywhere_and_ends_with_the_same_bytes(tmp_path: Path, plm: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(make_pairs(60, seed=9).sentences) + "\n")
    settings = settings_of(
        "self", plm, corpus=str(corpus), max_pairs=90, cycles=2, select="agreement", held_out=0.25,
        sampler="random:per_sentence=3", bi_sampler="semantic:k=3",
        label={"mix": 0.5, "transform": "match"},
        distill={"cross": {"epochs": 1, "batch_size": 16}, "bi": {"epochs": 1, "batch_size": 16}},
    )  # fmt: skip
    session, outcome = run(settings, tmp_path / "whole")
    root = tmp_path / "whole"
    assert {best.family for best in outcome.best} == {"bi", "cross"}
    assert any(note.startswith("for bi-encoders: ") for note in session.notes)
    given, own = (
        read_pairs(root / name / "pairs.parquet", scores="ignored") for name in ("pairs", "cycle-1/pairs-bi")
    )
    silver = read_pairs(root / "cycle-1/silver-cross/silver.parquet", scores="required")
    assert texts(silver) == texts(own) != texts(given)
    judged = given.take(held_out(len(given), 0.25, settings.seed))
    assert not texts(judged) & texts(own)
    facts = json.loads(next(root.glob("agreement/cycle-1/distill-bi/*/agree.json")).read_text())
    assert facts["held_out"] == len(judged)
    assert -1 <= facts["labels"] <= 1
    # What a bi-encoder must reach is measured on pairs such as it learns from.
    start = json.loads(next(root.glob("agreement/prime/*/agree.json")).read_text())
    encoder = BiFamily().load(next(root.glob("prime/*")), compute=Compute("cpu", "fp32"))
    alone = judge(
        encoder, own.take(held_out(len(own), 0.25, settings.seed)), None, judging_seed(root, settings)
    )
    assert start["noise_own"] == pytest.approx(alone[1]["noise"]) != start["noise"]
    ends_alike_when_stopped(settings, tmp_path, lambda step: step % 7 == 3)
