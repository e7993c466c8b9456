"""Settings as text: YAML, read strictly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from transenc.errors import ConfigError
from transenc.lines import one_line, why


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-5 as the number it looks like (YAML 1.1 wants 2.0e-5) and a key only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands there twice, of which the last would win."""
        keys = [key for key, _ in node.value]
        for place, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:place]]:
                twice = f"the key {key.value!r} stands there twice"
                raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML to plain data; aliases are refused, so that a small file cannot grow without bound."""
    try:
        aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _Loader))
        if not aliases:
            return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}: not valid YAML{place}: {one_line(error.problem or error)}") from error
    except Exception as error:  # of `!!int x` or the date 2026-13-01 what Python's own conversions raise
        raise ConfigError(f"{where}: not valid YAML: {one_line(error)}") from error
    raise ConfigError(f"{where}: YAML aliases are not accepted.")


def load_file(path: Path) -> dict[str, Any]:
    """Read a settings file."""
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {why(error)}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected settings as 'key: value' lines.")
    return raw
