"""The README's commands and the examples run as they stand, with a tiny model in place of minilm."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import transenc
from tests.runs import run_command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[list[str]]:
    """The `transenc ...` lines of the first console block below a heading."""
    below = README.partition(f"\n## {heading}\n")[2]
    block = re.search(r"```console\n(.*?)```", below, re.DOTALL)
    assert block, heading
    return [
        shlex.split(line, comments=True)[1:] for line in block[1].splitlines() if line.startswith("transenc ")
    ]


def test_the_commands_of_the_readme_run_one_after_the_other(
    plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples" / "library", tmp_path / "examples" / "library")
    config = tmp_path / "examples" / "library" / "cycle.yaml"
    # A local name `minilm` comes before the embedded one; the run is named after it alike.
    shutil.copytree(plm, tmp_path / "minilm")
    assert "plm: [minilm]" in config.read_text()
    monkeypatch.chdir(tmp_path)
    told = commands("The six commands")
    assert {a[0] for a in told} == {"cycle", "evaluate", "export", "label", "distill", "prime", "backends"}
    for arguments in told:
        code = run_command(*arguments)
        assert code == 0, (arguments, capsys.readouterr().err)
    assert (tmp_path / "my-bi" / "modules.json").is_file()
    python = re.search(r"```python\n(.*?)```", README.partition("\n## In Python\n")[2], re.DOTALL)
    assert python
    capsys.readouterr()
    exec(compile(python[1], "README.md", "exec"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["bi", "cross"]
    assert (tmp_path / "runs" / "mine" / "best" / "cross" / "config.json").is_file()


def test_each_public_name_is_found() -> None:
    assert all(getattr(transenc, name) for name in transenc.__all__)
    assert set(transenc.__all__) <= set(dir(transenc))
    with pytest.raises(AttributeError, match="no attribute 'load_score'"):
        getattr(transenc, "load_score")  # noqa: B009


@pytest.mark.parametrize("arguments", commands("Your own text"), ids=lambda a: " ".join(a)[:60])
def test_the_other_commands_of_the_readme_are_understood(
    arguments: list[str], plm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transenc.session import Session

    for name in ("roberta-base", "bert-base-uncased"):  # local names come before those of the hub
        shutil.copytree(plm, tmp_path / name)

    opened: list[Any] = []

    class Opened(Exception):
        pass

    def stop(*given: Any, **options: Any) -> None:
        opened.append(given[0])
        raise Opened

    monkeypatch.setattr(Session, "open", stop)
    monkeypatch.chdir(tmp_path)
    assert run_command(*arguments) == 1  # the fake stop, past all parsing and checking of settings
    assert opened


def test_every_link_of_the_readme_points_to_a_file() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
