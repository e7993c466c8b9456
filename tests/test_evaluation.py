from __future__ import annotations

from pathlib import Path

import pytest

from transenc.evaluation import Result, write_mteb


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("runs/a/best/bi", "runs__a__best__bi"),
        ("./runs/a/best/bi", "runs__a__best__bi"),
        ("/models/a", "models__a"),
        ("org/name", "org__name"),
        ("engines/bi:int8", "engines__bi:int8"),
        ("./a + ./b", "a + b"),
        (".cache/a", "cache__a"),
    ],
)
def test_a_model_has_a_visible_directory_of_its_name(model: str, folder: str, tmp_path: Path) -> None:
    result = Result(model, "bi", "demo", "spearman", 0.5, 0.4, 0.6, 9)
    assert write_mteb([result], model, "local", tmp_path) == tmp_path / folder / "local"
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_models_of_one_name_in_two_places_have_a_directory_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = Result("m", "bi", "demo", "spearman", 0.5, 0.4, 0.6, 9)
    folders = [write_mteb([result], model, "local", Path("out")) for model in ("m", "../m", "..", ".")]
    assert len(set(folders)) == 4
    assert not list(Path("out").glob(".*"))
