"""Run benchmarks, each in a process of its own, and write what they print as docs/performance.md.

    python -m benchmarks                                   the quick ones, all claims but a whole cycle
    python -m benchmarks mine_bm25 whole_cycle --full      these, at the sizes of the claims
    python -m benchmarks growth                            time and memory against N
    python -m benchmarks growth --kinds train --limit 150  of one kind of work, with more time for a point
    python -m benchmarks --write docs/performance.md       keep the results beside it, and write all that are kept

With --write, results are kept in a JSON file of the same name, those of each size by themselves, so a table can be
made in several runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import growth
from benchmarks.common import Row, machine, say, show
from transenc import cores

QUICK = (
    "encode",
    "cross_score",
    "train_bi",
    "train_cross",
    "label_memory",
    "mine_bm25",
    "mine_semantic",
    "startup",
)
NAMES = (*QUICK, "whole_cycle", "growth")
HEAD = """# Performance

Made by `python -m benchmarks --write {file}`; nothing here is typed. transenc and what one would otherwise use ran
in turn (A B A B) in one run at equal threads; figures are medians. "Agreement" compares results with the peer's or
the plain path's. A goal that was missed says "no". Another machine gives other figures: trust the ratios.
"""


def rows_of(name: str, options: list[str]) -> list[Row]:
    """Run one benchmark in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-1000:])
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def points(kinds: list[str], options: list[str], kept: dict[str, Any]) -> dict[str, Any]:
    """Run growth in a process of its own; kinds of work that were asked for take the place of kept ones."""
    command = [sys.executable, "-m", "benchmarks.growth", "--json", *kinds, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {**(kept if kinds else {}), **json.loads(done.stdout.splitlines()[-1])}


def render(kept: dict[str, Any], file: Path) -> str:
    """Return the page of all results kept."""
    parts = [HEAD.format(file=file)]
    settings: dict[str, list[str]] = {}
    for name, result in kept.items():
        facts = "; ".join(f"{key} {value}" for key, value in result["machine"].items())
        settings.setdefault(facts, []).append(f"{name} ({result['when']})")
    parts.append(
        "## Measured on\n\n"
        + "\n".join(f"- {', '.join(names)}: {facts}" for facts, names in settings.items())
    )
    table = [
        "| what | transenc | the other | times better | goal | agreement |",
        "|---|---|---|---|---|---|",
    ]
    for key in sorted(kept, key=lambda key: NAMES.index(key.split()[0])):
        for values in kept[key].get("rows", []):
            row = Row(**values)
            other = f"{row.theirs:,.4g} ({row.peer})" if row.theirs is not None else ""
            ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
            cells = (row.what, f"{row.ours:,.4g} {row.unit}", other, ratio, row.goal, row.agreement)
            table.append("| " + " | ".join(cells) + " |")
    parts.append("\n## Claims\n\n" + "\n".join(table))
    if "growth" in kept:
        parts.append("\n## Growth\n\n" + growth.markdown(kept["growth"]["points"]))
        if (plot := file.with_name("growth.svg")).exists():
            parts.append(f"![Time and memory against N]({plot.name})")
    return "\n".join(parts).rstrip() + "\n"


def main() -> None:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--full", action="store_true", help="the sizes of the claims")
    parser.add_argument("--size", help="any other size")
    parser.add_argument("--kinds", default="", help=f"of growth, comma separated: {', '.join(growth.KINDS)}")
    parser.add_argument("--limit", help="of growth: seconds that a point may be expected to take")
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there is {', '.join(NAMES)}")
    cores.limit()  # as the commands do; each benchmark's process inherits it
    options = ["--full"] if arguments.full else ["--size", arguments.size] if arguments.size else []
    store = arguments.write.with_suffix(".json") if arguments.write else None
    kept: dict[str, Any] = json.loads(store.read_text()) if store and store.exists() else {}
    failed = []
    for name in arguments.names or QUICK:
        began = time.monotonic()
        result: dict[str, Any] = {"when": datetime.date.today().isoformat(), "machine": machine()}
        try:
            if name == "growth":
                kinds = [kind for kind in arguments.kinds.split(",") if kind]
                more = ["--limit", arguments.limit] if arguments.limit else []
                more += [option for option in options if option != "--full"]
                result["points"] = points(kinds, more, kept.get(name, {}).get("points", {}))
                if arguments.write:
                    growth.plot(result["points"], arguments.write.with_name("growth.svg"))
                print(growth.markdown(result["points"]))
            else:
                rows = rows_of(name, options)
                result["rows"] = [vars(row) for row in rows]
                show(rows)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            say(f"{name} failed: {error}")
            failed.append(name)
            continue
        say(f"{name}: {time.monotonic() - began:.0f} s")
        kept[" ".join([name] if name == "growth" else [name, *options])] = result
        if store is not None:
            store.write_text(json.dumps(kept, indent=1) + "\n")
            arguments.write.write_text(render(kept, arguments.write))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
