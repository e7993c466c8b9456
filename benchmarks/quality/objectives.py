"""Compare objectives and label settings at equal cost: the same pairs, epochs and batches, over seeds.

Every variant is one half-cycle of an ordinary run. Its stages are kept by fingerprint, so what variants share (the
primed start, the teacher and its labels) is made once a seed; finished variants are in a JSONL file and are skipped.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.cache import fetch, put
from benchmarks.quality.rows import Row, append_row, read_rows
from benchmarks.quality.variants import VARIANTS
from transenc.config import Settings, from_assignments, merge
from transenc.errors import ConfigError, TransencError
from transenc.inputs import settings_for
from transenc.interrupt import StopFlag, stop_on_signals
from transenc.session import Session
from transenc.stage import Stage
from transenc.store import fingerprint


@dataclass(frozen=True)
class Variant:
    """One thing to measure: a family's student under settings given as assignments."""

    family: str
    name: str
    assignments: tuple[str, ...]


def settings_of(options: argparse.Namespace, assignments: Sequence[str], seed: int) -> Settings:
    """Return the settings of one cycle: the recipe, what all variants share, the variant."""
    own = {
        "recipe": options.recipe,
        "plm": [options.plm],
        "task": options.task,
        "cycles": 1,
        "seed": seed,
        "max_pairs": options.max_pairs,
    }
    return settings_for(merge(from_assignments([*options.set, *assignments]), own))


def needed(stages: Sequence[Stage], target: str) -> list[Stage]:
    """Return the stage `target` and all it needs, in order."""
    by_name, wanted = {s.name: s for s in stages}, {target}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted |= set(by_name[stage.name].needs)
    return [s for s in stages if s.name in wanted]


def carry_out(session: Session, stages: Sequence[Stage], cache: Path, keep: set[str]) -> dict[str, float]:
    """Run stages, taking finished ones from the cache and giving it those in `keep`; return their seconds."""
    began: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def on_stage(stage: Stage, what: str) -> None:
        if what == "start":
            began[stage.name] = time.monotonic()
        elif what == "finish":
            seconds[stage.name] = time.monotonic() - began[stage.name]
        print(f"  {stage.name}: {what}", file=sys.stderr, flush=True)

    with session.context.store.lock():
        fetch(session, stages, cache)
        session.runner.run(stages, on_stage=on_stage)
        put(session, [stage for stage in stages if stage.name in keep], cache)
    return seconds


def measure(variant: Variant, seed: int, options: argparse.Namespace, stop: StopFlag) -> Row:
    """Train one student, evaluate it and its start, and return the row."""
    teacher = options.known["cross"][options.teacher] if variant.family == "bi" else []
    settings = settings_of(options, [*teacher, *variant.assignments], seed)
    root = options.work / "runs" / key_of(variant, seed, options)[:16]
    session = Session.open(settings, root=root, data=options.data, offline=True, stop=stop)
    if options.sets:
        unknown = set(options.sets) - set(session.context.tests)
        if unknown:
            raise ConfigError(
                f"No test set {sorted(unknown)[0]}; there are: {', '.join(session.context.tests)}."
            )
        session.context.tests = {name: session.context.tests[name] for name in options.sets}
        digests = {name: session.runner.digests["evaluate"][name] for name in options.sets}
        session.runner.digests = {**session.runner.digests, "evaluate": digests}
    student = session.students[0].name
    target, start = f"cycle-1/distill-{variant.family}/{student}", f"prime/{student}"
    stages = needed(session.stages, f"evaluate/{target}")
    stages += [s for s in session.stages if s.name == f"evaluate/{start}"]
    last = {target, f"evaluate/{target}"}
    keep_student = variant.family == "cross" and variant.name == options.teacher
    keep = {s.name for s in stages} - (set() if keep_student else last)
    seconds = carry_out(session, stages, options.work / "cache", keep)
    info = session.runner.info
    trained, judged = info(target, "distill"), info(f"evaluate/{target}", "evaluate")
    before, begun = info(f"evaluate/{start}", "evaluate"), info(start, "prime")
    shutil.rmtree(root)  # what others can use is in the cache
    return {
        "dev": trained["dev"], "best_step": trained["best_step"], "tests": judged["tests"],
        "average": judged["average"], "start_dev": begun["dev"], "start_tests": before["tests"],
        "start_average": before["average"], "seconds": seconds.get(target),
    }  # fmt: skip


def key_of(variant: Variant, seed: int, options: argparse.Namespace) -> str:
    """Return what tells one measurement from all others."""
    teacher = [options.teacher, *options.known["cross"][options.teacher]] if variant.family == "bi" else []
    shared = [options.plm, options.task, options.recipe, options.max_pairs, options.set, options.sets]
    return fingerprint([variant.family, variant.name, list(variant.assignments), teacher, seed, shared])


def table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Return Markdown: mean and standard deviation over seeds (x 100), and the mean gain over the same start."""
    lines = []
    for family in options.families:
        mine = [r for r in rows if r["family"] == family]
        if not mine:
            continue
        sets = list(mine[0]["tests"])
        teacher = f", taught by the cross-encoder '{options.teacher}'" if family == "bi" else ""
        lines += [
            f"### {family}-encoder from {options.plm}, {options.max_pairs or 'all'} pairs{teacher}",
            "",
            "| variant | seeds | dev | average | over start | " + " | ".join(sets) + " | s |",
            "|---" * (len(sets) + 6) + "|",
        ]
        starts: dict[int, Row] = {r["seed"]: r for r in mine}
        begun = [
            values(starts.values(), "start_average"),
            *([r["start_tests"][name] for r in starts.values()] for name in sets),
        ]
        lines.append(
            f"| start | {len(starts)} | | {spread(begun[0])} | | "
            + " | ".join(spread(v) for v in begun[1:])
            + " | |"
        )
        named: dict[str, list[Row]] = {}
        for row in mine:
            named.setdefault(row["variant"], []).append(row)
        for name, found in named.items():
            gain = [r["average"] - r["start_average"] for r in found]
            cells = [
                name, str(len(found)), spread(values(found, "dev")), spread(values(found, "average")),
                spread(gain, signed=True), *(spread([r["tests"][s] for r in found]) for s in sets),
                f"{statistics.mean(values(found, 'seconds') or [0]):.0f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def values(rows: Any, key: str) -> list[float]:
    """Return a column without what was not measured."""
    return [row[key] for row in rows if row[key] is not None]


def spread(column: Sequence[float], *, signed: bool = False) -> str:
    """Write a mean and, from two values on, the sample standard deviation, both times 100."""
    if not column:
        return ""
    mean = f"{100 * statistics.mean(column):{'+' if signed else ''}.2f}"
    return mean if len(column) < 2 else f"{mean} ± {100 * statistics.stdev(column):.2f}"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality objectives", description=__doc__)
    parser.add_argument("--plm", required=True, help="start: a directory, a hub name or an embedded name")
    parser.add_argument(
        "--work", type=Path, required=True, help="directory for results.jsonl, cache and runs"
    )
    parser.add_argument(
        "--data", type=Path, help="directory of the task's files (else TRANSENC_DATA, else the hub)"
    )
    parser.add_argument("--task", default="sts")
    parser.add_argument("--recipe", default="self", help="what the variants are changes of")
    parser.add_argument("--seeds", default="1,2,3", help="comma separated")
    parser.add_argument("--max-pairs", type=int, help="a seeded sample of this many pairs; default: all")
    parser.add_argument("--families", default="cross,bi", help="which students: cross, bi")
    parser.add_argument(
        "--variants", help="comma separated names; default: all of benchmarks/quality/variants.py"
    )
    parser.add_argument("--teacher", default="primed", help="cross variant that teaches the bi-encoder")
    parser.add_argument("--sets", help="comma separated test sets; default: all of the task")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="setting of all variants; repeat")
    parser.add_argument(
        "--add", action="append", default=[], metavar="FAMILY:NAME=ASSIGNMENT...",
        help="another variant: 'bi:slow=distill.bi.learning_rate=1e-5 label.mix=0.3'; repeat",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the variants and stop")
    options = parser.parse_args(arguments)
    options.seeds = [int(s) for s in options.seeds.split(",")]
    options.families = options.families.split(",")
    options.set = options.set or []
    options.known = {family: dict(variants) for family, variants in VARIANTS.items()}
    options.sets = options.sets.split(",") if options.sets else []
    options.variants = options.variants.split(",") if options.variants else []
    return options


def chosen(options: argparse.Namespace) -> list[Variant]:
    """Return the variants to measure, the teacher's family first; raise ConfigError for a name there is not."""
    for added in options.add:
        where, _, assignments = added.partition("=")
        family, _, name = where.partition(":")
        if family not in options.known or not name or not assignments:
            raise ConfigError(f"--add takes 'bi:NAME=key=value key=value' (or cross:), not '{added}'.")
        options.known[family][name] = assignments.split()
        if options.variants:
            options.variants.append(name)
    unknown = set(options.families) - set(options.known)
    known = {name for family in options.known.values() for name in family}
    unknown |= {*options.variants, options.teacher} - known
    if unknown or options.teacher not in options.known["cross"]:
        wrong = sorted(unknown)[0] if unknown else options.teacher
        raise ConfigError(f"No variant or family '{wrong}'. Variants: {', '.join(sorted(known))}.")
    return [
        Variant(family, name, tuple(assignments))
        for family in options.families
        for name, assignments in options.known[family].items()
        if not options.variants or name in options.variants
    ]


def run(options: argparse.Namespace, stop: StopFlag) -> str:
    """Measure what is not yet in results.jsonl, seed by seed, and return the table of everything asked for."""
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.work / "results.jsonl"
    done = {row["key"]: row for row in read_rows(results)}
    variants = chosen(options)
    rows: list[Row] = []
    for seed in options.seeds:
        for variant in variants:
            key = key_of(variant, seed, options)
            if key not in done:
                stop.check()
                print(f"seed {seed}, {variant.family}: {variant.name}", file=sys.stderr, flush=True)
                facts = measure(variant, seed, options, stop)
                told = {
                    "key": key,
                    "plm": options.plm,
                    "family": variant.family,
                    "variant": variant.name,
                    "seed": seed,
                }
                told |= {"settings": list(variant.assignments), "teacher": options.teacher, **facts}
                told["max_pairs"] = options.max_pairs
                append_row(results, told)
                done[key] = told
            rows.append(done[key])
        (options.work / "table.md").write_text(table(rows, options) + "\n", encoding="utf-8")
    return table(rows, options)


def main(arguments: Sequence[str]) -> int:
    """Run the comparison; stopped by a signal it continues with the same command."""
    options = parse(arguments)
    if options.list:
        for family, variants in VARIANTS.items():
            for name, assignments in variants.items():
                print(f"{family}: {name}: {' '.join(assignments) or '(the recipe as it is)'}")
        return 0
    try:
        with stop_on_signals() as stop:
            print(run(options, stop))
    except TransencError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
