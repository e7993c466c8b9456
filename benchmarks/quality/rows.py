"""Measurements as JSON lines: what a stopped comparison has already is not measured again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read finished measurements; a half line that a killed process left is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            print(f"{path}: passing over a broken line", file=sys.stderr)
    return rows


def append_row(path: Path, row: Row) -> None:
    """Add one measurement durably, on a line of its own."""
    broken = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if broken else "") + json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
