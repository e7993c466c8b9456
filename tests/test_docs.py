"""Links, tables and commands of every page are whole; what pages' code does is tested where their subject is."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import distributions
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer.main
from packaging.specifiers import SpecifierSet

from transenc import registry
from transenc.cli.app import app
from transenc.config import METHODS, OBJECTIVES
from transenc.tasks import declared

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("plugins/*/*.md"),
    ]
)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[str]:
    """Each `transenc ...` of a page, in blocks of code and within lines."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = [line.removeprefix("$ ") for block in FENCED.findall(text) for line in block.splitlines()]
    within = [" ".join(code.split()) for code in re.findall(r"`(transenc [^`]+)`", FENCED.sub("", text))]
    return [line for line in blocks + within if line.startswith("transenc ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_tables_of_a_page_are_whole(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#?)([^)]*)\)", prose(page)):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"
    for table in re.findall(r"(?:^ *\|.*\n)+", prose(page), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_the_commands_of_the_pages_are_understood(line: str) -> None:
    words = [
        word for word in shlex.split(re.sub(r"\[(--.*?)\]", r"\1", line), comments=True)[1:] if word != "..."
    ]
    command: Any = typer.main.get_command(app)
    if words[0].startswith("-") or "|" in words:
        return
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands
        command = command.commands[words.pop(0)]
    if words and "..." not in line:
        command.make_context(command.name, words)  # raises for an option that there is not, or that lacks


NAMES = {
    "augmented-sbert.md": [
        name
        for group in (registry.SAMPLERS, registry.AUGMENTERS)
        for name in registry.names(group)
        if registry.owner(group, name)[0] == "transenc"
    ],
    "method.md": list(METHODS),
    "objectives.md": list(OBJECTIVES),
}


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, names in NAMES.items() for name in names])
def test_what_can_be_named_has_a_row_in_its_page(page: str, name: str) -> None:
    first_columns = re.findall(
        r"^\| (`[^|]*`) \|", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert any(re.search(rf"`{re.escape(name)}[`:]", column) for column in first_columns)


PLACES = re.findall(r"`(\w+)` \(`(\w[\w/]*\.py)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "file"), PLACES)
def test_what_contributors_are_sent_to_is_there(name: str, file: str) -> None:
    assert re.search(rf"^(?: *def )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_of_files_names_each_file_of_a_task() -> None:
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    written: set[str] = set()
    for name in re.findall(r"`(\S+\.tsv)`", text):
        parts = [part.split(",") for part in re.split(r"[{}]", name)]
        written |= {"".join(chosen) for chosen in product(*parts)}
    pool = declared.STS_POOL[0]
    files = [each for each in vars(declared).values() if isinstance(each, declared.File)]
    names = {each.name for each in (*files, *declared.STS_PARTS, *pool)}
    assert len(names) > 15 and names <= written, names - written


def test_the_constraints_can_be_had_with_each_python_that_the_readme_takes_them_with() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    oldest = re.findall(r"with Python (3\.\d+) or newer", readme)
    pinned = {line.lower() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    wanted = {
        f"{each.name}=={each.version}": each.metadata["Requires-Python"] or ""
        for each in distributions()
        if f"{each.name}=={each.version}".lower() in pinned
    }
    assert len(oldest) == 1
    assert [name for name, pythons in wanted.items() if oldest[0] not in SpecifierSet(pythons)] == []
