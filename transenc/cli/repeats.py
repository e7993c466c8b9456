"""Run `transenc cycle` with several seeds and show how far they differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transenc.config import Settings


def run_seeds(
    settings: Settings,
    seeds: str,
    *,
    parent: Path | None,
    where: dict[str, Any],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run each seed below one directory, continue what was begun, and print and write the summary."""
    from transenc.cli.console import Reporter, note
    from transenc.cli.results import show_plan
    from transenc.interrupt import stop_on_signals
    from transenc.repeats import parse_seeds, reproduce, seed_root, summarise
    from transenc.session import Session, default_root
    from transenc.store import canonical, refuse_file, write_file

    numbers = parse_seeds(seeds)
    root = parent or default_root(settings).with_name(f"{default_root(settings).name}-seeds")
    refuse_file(root)
    commands = {n: reproduce(sys.argv[1:], n, root) for n in numbers}
    results: dict[int, dict[str, Any]] = {}
    with stop_on_signals() as stop:
        for count, n in enumerate(numbers, start=1):
            chosen = settings.model_copy(update={"seed": n})
            session = Session.open(chosen, root=seed_root(root, n), stop=stop, dry_run=dry_run, **where)
            if dry_run:
                show_plan(session, as_json=as_json)
                continue
            note(f"seed {n} ({count} of {len(numbers)}): {session.root}")
            reporter = Reporter(len(session.stages))
            with reporter.showing():
                outcome = session.run(on_stage=reporter.stage, report=reporter.progress)
            # As it was written, so that a seed that was done before looks the same.
            results[n] = json.loads((session.root / "results.json").read_text(encoding="utf-8"))
            del outcome
            write_file(root / "summary.json", canonical(summarise(results, commands)))
    if results:
        show_summary(root, summarise(results, commands), as_json=as_json)


def show_summary(root: Path, summary: dict[str, Any], *, as_json: bool) -> None:
    """Print each seed's figures, their mean and standard deviation, and the command that repeats each."""
    from transenc.cli.console import figures, out, out_json

    if as_json:
        out_json(summary)
        return
    columns = list(dict.fromkeys(c for values in summary["models"].values() for c in values))
    rows = []
    n = len(summary["seeds"])
    for name, spread in summary["models"].items():
        for seed, values in summary["per_seed"][name].items():
            rows.append([f"{name}, seed {seed}", *(_percent(values.get(c)) for c in columns)])
        rows.append([f"{name}, mean of {n}", *(_spread(spread.get(c, {})) for c in columns)])
        if gain := summary["gains"].get(name):
            rows.append(
                [f"{name}, over start, mean of {n}", *(_spread(gain.get(c, {}), "+") for c in columns)]
            )
    out("")
    figures(str(root), "x 100; ± is the standard deviation over seeds", columns, rows)
    out(f"  {summary['selection']}")
    for seed, said in summary["settings"].items():
        out(f"  seed {seed}: {said}")
    out("")
    out(f"Written: {root / 'summary.json'}. Each seed alone, elsewhere:")
    for command in summary["commands"].values():
        out(f"  {command}")


def _spread(found: dict[str, float | None], sign: str = "") -> str:
    mean, sd = _percent(found.get("mean"), sign), found.get("sd")
    return mean if sd is None else f"{mean} ±{100 * sd:.2f}"


def _percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.2f}"
