"""`python -m benchmarks.quality objectives ...`, and the other measurements of COMMANDS."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.quality import chains, coverage, objectives, priming, selection, students

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "objectives": objectives.main,
    "priming": priming.main,
    "students": students.main,
    "chains": chains.main,
    "coverage": coverage.main,
    "selection": selection.main,
}


def main() -> int:
    """Run the measurement that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: python -m benchmarks.quality {{{','.join(COMMANDS)}}} --help", file=sys.stderr)
        return 2
    return COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    raise SystemExit(main())
