from __future__ import annotations

from dataclasses import field, make_dataclass
from importlib.metadata import EntryPoint
from typing import Any, Optional

import pytest

from transenc import registry
from transenc.errors import ConfigError, MachineError


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the installed entry points by those of the test."""

    def use(*entries: tuple[str, str]) -> str:
        found: dict[str, list[EntryPoint]] = {}
        for name, value in entries:
            found.setdefault(name, []).append(EntryPoint(name, value, "transenc.samplers"))
        monkeypatch.setattr(registry, "_group", lambda group: found)
        return registry.SAMPLERS

    return use


def test_two_owners_of_a_name_are_refused_with_both_named(group: Any) -> None:
    name = group(("bm25", "a:A"), ("bm25", "b:B"))
    with pytest.raises(ConfigError, match=r"Two packages own the sampler name 'bm25': .*a:A.*b:B"):
        registry.load(name, "bm25")


def test_a_broken_plugin_fails_only_when_it_is_asked_for(group: Any) -> None:
    name = group(("broken", "no_such_module:X"), ("bm25", "transenc.samplers.bm25:Bm25"))
    assert registry.names(name) == ["bm25", "broken"]
    assert registry.create(name, "bm25:k=2").k == 2
    with pytest.raises(MachineError, match="The plugin 'broken' of package .* cannot be imported"):
        registry.load(name, "broken")


def test_a_plugin_that_is_no_dataclass_is_named_and_not_fatal(group: Any) -> None:
    name = group(("loose", "pathlib:Path"))
    with pytest.raises(MachineError, match="The plugin 'loose' of package .* is no dataclass"):
        registry.create(name, "loose")
    with pytest.raises(MachineError, match="is no dataclass"):  # what `transenc backends` shows
        registry.fields(name, "loose")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "2", 2),
        (float, "0.5", 0.5),
        (bool, "false", False),
        (str, "2", "2"),
        (int | None, "2", 2),
        (Optional[int], "2", 2),  # noqa: UP045
        ("Optional[float]", "2", 2.0),
    ],
)
def test_the_types_of_options_may_be_written_in_any_way(
    kind: Any, value: str, expected: Any, group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = make_dataclass("Plugin", [("x", kind, field(default=None))])
    monkeypatch.setattr(registry, "load", lambda group, name: plugin)
    found = registry.create(group(), f"plugin:x={value}").x
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("bm25", ("bm25", {})),
        ("bm25:k=3", ("bm25", {"k": "3"})),
        ("x:min-score=.5,a=b=c", ("x", {"min_score": ".5", "a": "b=c"})),
    ],
)
def test_a_spec_is_a_name_and_options(spec: str, expected: tuple[str, dict[str, str]]) -> None:
    assert registry.parse_spec(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bm25:k", "is not option=value"),
        ("bm25:k=0", "k must be at least 1"),
        ("bm25:k=1.5", "Option 'k' of 'bm25' takes int, not '1.5'"),
        ("bm25:n=1", r"no option 'n'"),
        ("random:per_sentnce=1", r"Did you mean 'per_sentence'\?"),
        ("semantik", r"No sampler named 'semantik'. Did you mean 'semantic'\? Installed: bm25"),
    ],
)
def test_a_wrong_spec_says_what_would_be_right(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.create(registry.SAMPLERS, spec)


def test_the_families_and_plms_come_through_the_same_door() -> None:
    assert {"bi", "cross"} <= set(registry.names(registry.FAMILIES))
    assert registry.owner(registry.PLMS, "minilm")[0] == "transenc"


def test_a_bug_of_transenc_and_a_full_disk_are_not_blamed_on_a_plugin() -> None:
    for package, error in (("transenc", KeyError("x")), ("mine", OSError(28, "No space left on device"))):
        with pytest.raises(type(error)), registry.blaming("The sampler 'x'", package):
            raise error
