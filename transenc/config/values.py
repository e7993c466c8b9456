"""From what a user gave, nested plain values, to settings: merged layer by layer, checked, validated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from transenc.config.settings import (
    METHODS,
    Distill,
    Frozen,
    GoldSettings,
    LabelSettings,
    PrimeSettings,
    Settings,
    check_objective,
    listed,
)
from transenc.config.text import parse_yaml
from transenc.errors import ConfigError
from transenc.registry import did_you_mean


def merge(*layers: Mapping[str, Any], group: type[Frozen] = Settings, where: str = "") -> dict[str, Any]:
    """Merge nested settings; later layers win, key by key. Raise ConfigError for a value in the place of a group."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            inner = group.model_fields[key].annotation if key in group.model_fields else None
            # Python 3.10 calls list[str] a type too, and then refuses to say of what.
            if get_origin(inner) or not (isinstance(inner, type) and issubclass(inner, Frozen)):
                merged[key] = value
                continue
            if not isinstance(value, Mapping):
                first = next(iter(inner.model_fields))
                raise ConfigError(
                    f"Setting '{where}{key}' is {value!r}, and it is a group of settings: name one of them, such "
                    f"as {where}{key}.{first} ({key}: {{{first}: ...}} in a file)."
                )
            merged[key] = merge(merged.get(key, {}), value, group=inner, where=f"{where}{key}.")
    return merged


def from_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn `distill.bi.epochs=2` strings into nested settings."""
    nested: dict[str, Any] = {}
    for item in assignments:
        key, equals, value = item.partition("=")
        if not equals or not all(key.split(".")) or not key.isprintable():
            raise ConfigError(f"--set takes key=value, such as distill.bi.epochs=2, not {item!r}.")
        parsed: Any = parse_yaml(value, f"--set {key}")
        for part in reversed(key.strip().replace("-", "_").split(".")):
            parsed = {part: parsed}
        nested = merge(nested, parsed)
    return nested


def to_assignments(values: Mapping[str, Any], group: str = "") -> list[str]:
    """Turn nested settings into the `distill.bi.epochs=2` strings that `from_assignments` reads."""
    found: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += to_assignments(value, f"{group}{key}.")
        else:
            found.append(f"{group}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return found


def check_used(
    given: Mapping[str, Any], used: Sequence[str], command: str, options: Mapping[str, str] | None = None
) -> None:
    """Raise ConfigError for a setting that a command would ignore; used: the settings and groups that it reads.

    options: settings within these that the command does not read, and the option that stands in their place.
    """

    def names(values: Mapping[str, Any], group: str) -> Iterator[str]:
        for key, value in values.items():
            yield from names(value, f"{group}{key}.") if isinstance(value, Mapping) else [group + key]

    for name in names(given, ""):
        if options and name in options:
            raise ConfigError(
                f"`transenc {command}` does not use the setting '{name}': give {options[name]}."
            )
        if not any(name == one or name.startswith(f"{one}.") for one in used):
            raise ConfigError(
                f"`transenc {command}` does not use the setting '{name}'. It uses: {', '.join(used)}."
            )


def check_once(given: Mapping[str, Any], changed: Mapping[str, Any], group: str = "") -> None:
    """Raise ConfigError for a setting that an option and --set give different values."""
    for key, value in given.items():
        other = changed.get(key, value)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            check_once(value, other, f"{group}{key}.")
        elif listed(value) != listed(other):
            raise ConfigError(
                f"Setting '{group}{key}' is {value!r} by its option and {other!r} by --set: give one of them."
            )


def check_primed_on(method: str, *, pairs: bool) -> None:
    """Raise ConfigError for a method of priming that takes the other: pairs of texts, or sentences."""
    if pairs != (method == "pairs"):
        takes = "sentences: give --corpus FILE in place of" if pairs else "pairs of texts: give"
        raise ConfigError(f"Priming by '{method}' takes {takes} --pairs FILE, or another --method.")


def build(values: Mapping[str, Any]) -> Settings:
    """Complete and validate settings; raise ConfigError naming the first wrong key and what would be right."""
    # Nested groups are merged key by key over their defaults, so that one changed key does not reset its
    # group.
    defaults = {
        "prime": PrimeSettings().model_dump(),
        "label": LabelSettings().model_dump(),
        "distill": Distill().model_dump(),
        "gold": GoldSettings().model_dump(),
    }
    prime = values.get("prime")
    method = prime.get("method") if isinstance(prime, Mapping) else None
    try:
        settings = Settings.model_validate(merge(defaults, {"prime": METHODS.get(str(method), {})}, values))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    for family in ("cross", "bi"):
        check_objective(getattr(settings.distill, family).objective, family)
    check_objective(settings.gold.teacher.objective, "cross", "gold.teacher")
    if settings.distill.bi.head != "classifier":
        raise ConfigError(
            "Setting 'distill.bi.head': only a cross-encoder has a head; set distill.cross.head."
        )
    return settings


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        *groups, key = [str(p) for p in first["loc"]]
        model: type[BaseModel] = Settings
        for group in groups:
            model = model.model_fields[group].annotation  # type: ignore[assignment]
        known = list(model.model_fields)
        return f"No setting named {where!r}.{did_you_mean(key, known)} There are: {', '.join(known)}.{more}"
    said = first["msg"].removeprefix("Value error, ")  # pydantic's words before ours
    return f"Setting {where!r} is {first.get('input')!r}: {said}.{more}"
