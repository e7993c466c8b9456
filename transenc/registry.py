"""Find samplers, augmenters, families and embedded PLMs by name, importing only the one asked for."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from transenc.errors import ConfigError, MachineError, TransencError, of_machine

SAMPLERS = "transenc.samplers"
FAMILIES = "transenc.families"
PLMS = "transenc.plms"
AUGMENTERS = "transenc.augmenters"
KINDS = {SAMPLERS: "sampler", FAMILIES: "family", PLMS: "plm", AUGMENTERS: "augmenter"}


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


@cache
def _group(group: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        same = found.setdefault(entry.name, [])
        # An editable install can list one distribution twice; only different targets are a clash.
        if all(entry.value != other.value for other in same):
            same.append(entry)
    return found


def names(group: str) -> list[str]:
    """List the names of a group from package metadata alone; nothing is imported."""
    return sorted(_group(group))


def owner(group: str, name: str) -> tuple[str, str]:
    """Return the distribution that owns a name and its version; those that claim it, where there are several."""
    dists = [entry.dist for entry in _group(group).get(name) or [find(group, name)]]
    owned = [(dist.name, dist.version) if dist is not None else ("unknown", "0") for dist in dists]
    first, *others = owned
    return first if not others else (" and ".join(" ".join(one) for one in owned), "(clash)")


def find(group: str, name: str) -> EntryPoint:
    """Find the entry point of a name; raise ConfigError for an unknown or doubly owned one."""
    found = _group(group)
    kind = KINDS[group]
    if name not in found:
        known = sorted(found)
        raise ConfigError(
            f"No {kind} named '{name}'.{did_you_mean(name, known)} Installed: {', '.join(known) or 'none'}."
        )
    owners = found[name]
    if len(owners) > 1:
        who = " and ".join(f"{e.dist.name if e.dist else '?'} ({e.value})" for e in owners)
        raise ConfigError(f"Two packages own the {kind} name '{name}': {who}. Uninstall one of them.")
    return owners[0]


def load(group: str, name: str) -> Any:
    """Import what a name stands for; raise MachineError naming the package when that fails."""
    entry = find(group, name)
    try:
        return entry.load()
    except Exception as error:
        package = entry.dist.name if entry.dist else entry.value
        raise MachineError(f"The plugin '{name}' of package {package} cannot be imported: {error}") from error


@contextmanager
def blaming(what: str, package: str) -> Iterator[None]:
    """Name a plugin and its package in whatever its code raises in the block: MachineError.

    What is raised by transenc's own code, or is the machine's doing, passes as it is.
    """
    try:
        yield
    except TransencError:
        raise
    except Exception as error:
        if package == "transenc" or of_machine(error) is not None:
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise MachineError(f"{what} of package {package} failed: {said} (--debug shows where)") from error


def package_of(plugin: object) -> str:
    """Return the top-level package of an object's class."""
    return type(plugin).__module__.partition(".")[0]


def call(group: str, name: str) -> Any:
    """Call what a name stands for, without arguments; raise MachineError naming its package when that fails."""
    found = load(group, name)
    with blaming(f"The plugin '{name}'", owner(group, name)[0]):
        return found()


def fields(group: str, name: str) -> dict[str, dataclasses.Field[Any]]:
    """Return the options of a backend by name; raise MachineError for a plugin that is no dataclass."""
    factory = load(group, name)
    if not dataclasses.is_dataclass(factory):
        raise MachineError(
            f"The plugin '{name}' of package {owner(group, name)[0]} is no dataclass, whose fields are its options."
        )
    return {f.name: f for f in dataclasses.fields(factory)}


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split `name:option=value,option=value` into the name and its raw options."""
    name, _, rest = spec.partition(":")
    options: dict[str, str] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"'{item}' in '{spec}' is not option=value, as in 'bm25:k=3'.")
        key = key.strip().replace("-", "_")
        if key in options:
            raise ConfigError(f"'{spec}' gives the option '{key}' twice: give it once.")
        options[key] = value.strip()
    return name.strip(), options


def create(group: str, spec: str) -> Any:
    """Build the backend that a spec like `bm25:k=5` names; its dataclass fields are the options."""
    name, raw = parse_spec(spec)
    known = fields(group, name)
    options: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(
                f"'{name}' has no option '{key}'.{did_you_mean(key, list(known))} Its options: {listed}."
            )
        options[key] = _convert(name, key, value, known[key])
    made = load(group, name)
    with blaming(f"The plugin '{name}'", made.__module__.partition(".")[0]):
        try:
            return made(**options)
        except ValueError as error:
            raise ConfigError(f"'{spec}': {error}") from error


def _convert(name: str, key: str, value: str, field: dataclasses.Field[Any]) -> Any:
    # A string where annotations are postponed, as in every backend here; of a plugin it may be the type itself.
    kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    kind = kind.removeprefix("typing.").removeprefix("Optional[")
    try:
        if kind.startswith("bool"):
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        if kind.startswith("int"):
            return int(value)
        if kind.startswith("float"):
            return float(value)
    except (ValueError, KeyError):
        raise ConfigError(f"Option '{key}' of '{name}' takes {kind}, not '{value}'.") from None
    return value
