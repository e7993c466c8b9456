from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import make_pairs
from tests.test_segments import made
from transenc.card import model_card
from transenc.config import build
from transenc.export.onnx import export_onnx
from transenc.models.bi import BiFamily
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.models.intake import Plm, embedded
from transenc.pairs import Pairs

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


def saved(kind: str, plm: Path) -> Any:
    if kind == "segments":
        return made(plm)
    return {"bi": BiFamily, "cross": CrossFamily}[kind]().create(plm, compute=Compute(), max_length=32)


def run_card(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> float:
    """Run the Python of a card in its directory and return the score that it prints."""
    (python,) = re.findall(r"```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(path)
    capsys.readouterr()
    exec(compile(python, "README.md", "exec"), {})
    return float(re.sub(r"[^\d.e-]", " ", capsys.readouterr().out.replace("tensor", "")).split()[0])


@pytest.mark.parametrize("kind", ["bi", "cross", "segments"])
def test_the_lines_of_a_card_run_beside_it_and_an_engine_has_its_own(
    kind: str, plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = saved(kind, plm)
    family = "bi" if kind == "bi" else "cross"
    settings = build({"plm": ["org/raw"], "pairs": "pairs.tsv"})
    chosen = {"model": CYCLE, "dev": None}
    told = model_card(family, RAW, settings, chosen, "spearman", setting="x", segments=kind == "segments")
    scorer.save(tmp_path / "plain")
    scorer.save(tmp_path / "kept", card=told)
    export_onnx(scorer, tmp_path / "engine", pairs=make_pairs(8), card=told)
    pair = Pairs.from_rows(["A man plays a guitar."], ["Someone makes music."])
    for name in ("plain", "kept", "engine"):
        found = run_card(tmp_path / name, monkeypatch, capsys)
        assert found == pytest.approx(float(scorer.score(pair)[0]), abs=1e-4)


def test_the_front_matter_is_yaml_and_names_the_start_on_the_hub() -> None:
    def front(plm: Plm) -> Any:
        return yaml.safe_load(card(plm).split("---\n")[1])

    assert front(Plm("org/raw", Path("raw"), hub="org/raw")) == {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "base_model": "org/raw",
        "tags": ["sentence-transformers", "transenc", "trans-encoder"],
    }
    assert "base_model" not in front(RAW)  # a directory of one's own
    assert front(embedded("minilm"))["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_one_cycle_is_no_plural() -> None:
    settings = build({"plm": ["org/raw"], "pairs": "pairs.tsv", "cycles": 1})
    told = model_card("bi", RAW, settings, {"model": CYCLE, "dev": None}, "spearman", setting="x")
    assert ", 1 cycle on `pairs.tsv`" in told


def test_what_was_made_is_one_clean_sentence() -> None:
    told = card(TUNED, select="last")
    assert "trained on no label, recipe `self`, 3 cycles on `pairs.tsv`" in told
