"""The benchmarks tell what they measured: ratios, goals, exponents, and the page made of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.__main__ import render
from benchmarks.common import Row, in_turn, pairs, sentences
from benchmarks.growth import exponent, markdown, plot
from benchmarks.limits import products

ENCODE = Row("encode", "sentences/s", 420.0, "Spearman 1", 300.0, "the peer", ratio_goal=1.4)
MINE = Row("mine", "s", 12.6, "same", 23800.0, "the slow one", less=True, ratio_goal=2000)
MEMORY = Row("label", "MiB", 700.0, "same", less=True, most=2048)


def test_a_ratio_says_how_many_times_better_whatever_the_unit() -> None:
    assert ENCODE.ratio == pytest.approx(1.4)
    assert MINE.ratio == pytest.approx(1888.9, abs=0.1)
    assert MEMORY.ratio is None


@pytest.mark.parametrize(
    ("row", "goal"),
    [
        (ENCODE, ">= 1.4x: yes"),
        (MINE, ">= 2000x: no"),
        (MEMORY, "<= 2048: yes"),
        (dataclasses.replace(MEMORY, ours=2049.0), "<= 2048: no"),
        (dataclasses.replace(ENCODE, ratio_goal=None), ""),
    ],
)
def test_a_goal_is_told_with_whether_it_was_reached(row: Row, goal: str) -> None:
    assert row.goal == goal


def test_sides_run_in_turn_and_the_last_results_are_kept() -> None:
    calls: list[str] = []

    def side(name: str) -> int:
        calls.append(name)
        return len(calls)

    seconds, results = in_turn({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3)
    assert calls == ["a", "b"] * 3
    assert results == {"a": 5, "b": 6}
    assert all(value >= 0 for value in seconds.values())


def test_what_is_prepared_is_new_in_each_round() -> None:
    made: list[object] = []

    def prepare() -> object:
        made.append(object())
        return made[-1]

    _, results = in_turn({"a": lambda given: given}, rounds=2, prepare={"a": prepare})
    assert len(made) == 2
    assert results["a"] is made[1]


def test_the_text_is_distinct_seeded_and_as_long_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.common.DATA", None)
    few, many = sentences(50), sentences(3000)  # more than the demo has
    assert len(set(many)) == 3000
    assert many[:50] == few
    assert few != sentences(50, seed=1)
    given = pairs(40)
    assert len(given) == 40 and given.scores is not None


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    ns = [1e3, 1e4, 1e5]
    assert exponent(ns, [n**power / 7 for n in ns]) == pytest.approx(power)


def test_the_page_holds_what_was_measured(tmp_path: Path) -> None:
    result = {"when": "2026-01-02", "machine": {"CPU": "one"}}
    points = [{"n": n, "seconds": n / 1000, "mib": 10.0} for n in (1000, 10_000, 100_000)]
    kept = {
        "encode": {**result, "rows": [vars(ENCODE)]},
        "mine_bm25 --full": {**result, "rows": [vars(MINE)]},
        "label_memory": {**result, "rows": [vars(MEMORY)]},
        "growth": {**result, "points": {"encode": points}},
    }
    page = render(kept, tmp_path / "performance.md")
    assert "| encode | 420 sentences/s | 300 (the peer) | 1.40 | >= 1.4x: yes | Spearman 1 |" in page
    assert "| label | 700 MiB |  |  | <= 2048: yes | same |" in page
    assert page.index("| label |") < page.index("| mine |")
    assert "mine_bm25 --full (2026-01-02), label_memory (2026-01-02), growth (2026-01-02): CPU one" in page
    assert "| 1 s, 10 MiB |" in page
    assert "| 1.00 | 0.00 |" in page


def test_results_are_kept_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    for options, ours in (([], 1.0), (["--full"], 2.0), (["--size", "7"], 3.0), ([], 4.0)):
        row = dataclasses.replace(MINE, what=f"mine {options}", ours=ours)
        monkeypatch.setattr(command, "rows_of", lambda name, given, row=row: [row])
        monkeypatch.setattr("sys.argv", ["benchmarks", "mine_bm25", *options, "--write", str(page)])
        command.main()
    kept = json.loads(page.with_suffix(".json").read_text())
    assert {key: result["rows"][0]["ours"] for key, result in kept.items()} == {
        "mine_bm25": 4.0,
        "mine_bm25 --full": 2.0,
        "mine_bm25 --size 7": 3.0,
    }
    assert page.read_text().count("| mine [") == 3


def test_growth_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [{"n": n, "seconds": n / 1000, "mib": 10.0} for n in (1000.0, 10_000.0)]
    plot({"encode": points, "train": []}, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().count("<path") > 10
    assert "encode N sentences" in markdown({"encode": points})


def test_products_are_those_that_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24
    )
    config._attn_implementation = "eager"  # torch does not count its fused attention on a CPU
    body = BertModel(config, add_pooling_layer=False).eval()
    lengths = np.array([5, 9])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for length in lengths:
            body(input_ids=torch.ones((1, int(length)), dtype=torch.long))
    assert products(config, lengths) == counter.get_total_flops()
