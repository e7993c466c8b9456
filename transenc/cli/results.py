"""Show a plan before a run and its results after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transenc.cli.console import figures, note, out, out_json, wide_table
from transenc.cli.gold import show_labels

if TYPE_CHECKING:
    from transenc.outcome import Best, Outcome, Row
    from transenc.session import Session

METRIC_TITLES = {"spearman": "Spearman x 100", "auc": "ROC-AUC x 100"}


def show_plan(session: Session, *, as_json: bool) -> None:
    """Print the stages of a run, what they work on, and where."""
    from transenc.cli.plan import about  # local: torch is behind it

    mines = any(stage.kind == "pairs" for stage in session.stages)
    given, said = session.inputs.make_pairs() if mines else (session.inputs.gold_pairs, [])
    bi_pairs = given
    if session.inputs.mine_bi is not None:
        bi_pairs, bi_said = session.inputs.mine_bi(next(iter(session.context.plms.values())).path)
        said = [*said, f"for bi-encoders: {bi_said[0]}", *bi_said[1:]]
    rows = []
    # The stages that work on the pairs of bi-encoders alone; agreement is judged on the others.
    of_bi: set[str] = set()
    for stage in session.stages:
        if stage.mines_for_bi or (stage.needs and stage.needs[0] in of_bi and stage.kind != "agree"):
            of_bi.add(stage.name)
        pairs = bi_pairs if stage.name in of_bi else given
        rows.append([stage.name, stage.kind, about(stage, session, pairs)])
    if as_json:
        for stage, row in zip(session.stages, rows, strict=True):
            out_json(
                {
                    "stage": stage.name, "kind": stage.kind, "what": row[2], "needs": list(stage.needs),
                    "run": str(session.root), "settings": stage.settings,
                }
            )  # fmt: skip
    else:
        wide_table(["stage", "kind", "what"], rows, title=f"Plan of {session.root}")
    for line in [*said, *session.notes]:
        note(line)


def show_outcome(session: Session, outcome: Outcome, *, as_json: bool) -> None:
    """Print the table start -> each cycle, the best models, what was gained, and the next commands."""
    if as_json:
        show_labels(session, as_json=True)
        for row in outcome.rows:
            out_json(
                {
                    "model": str(row.path), "student": row.student, "family": row.family, "cycle": row.cycle,
                    "dev": row.dev, "held_out": row.held_out, "tests": row.tests, "average": row.average,
                    "average_precision": row.average_precision, "metric": outcome.metric,
                    "metrics": outcome.metrics, "setting": outcome.setting, "selection": outcome.selection,
                }
            )  # fmt: skip
        for row in outcome.raw:
            out_json({"raw": row.student, "dev": row.dev, "tests": row.tests, "average": row.average})
        for row in outcome.ensembles:
            out_json(
                {
                    "ensemble": row.label, "students": row.student, "family": row.family, "tests": row.tests,
                    "average": row.average, "average_precision": row.average_precision,
                }
            )  # fmt: skip
        for best in outcome.best:
            out_json(
                {
                    "best": str(best.path), "student": best.student, "family": best.family, "cycle": best.cycle,
                    "dev": best.dev, "gain": _gain(outcome, best), "reason": best.reason,
                }
            )  # fmt: skip
        for line in [*session.notes, *(f"warning: {text}" for text in outcome.warnings)]:
            note(line)
        return
    many = len(session.students) > 1
    show_labels(session, as_json=False)
    names = list(session.inputs.tests)
    columns = list(dict.fromkeys(c for row in outcome.rows for c in _values(row, names)))
    cells = [
        _cells(row, names, columns, many=many) for row in [*outcome.raw, *outcome.rows, *outcome.ensembles]
    ]
    out("")
    figures(str(session.root), _title(outcome), columns, cells)
    for line in [*session.notes, outcome.setting]:
        out(f"  {line}")
    for line in outcome.warnings:
        out(f"  warning: {line}")
    out("")
    for line in verdicts(outcome):
        out(line)
    out("")
    for line in next_commands(outcome, session.settings.task):
        out(line)


def _title(outcome: Outcome) -> str:
    """Name the metric, or those of the sets that differ from it."""
    kinds = list(dict.fromkeys(outcome.metrics.values())) or [outcome.metric]
    if len(kinds) == 1:
        return METRIC_TITLES.get(kinds[0], kinds[0])
    sets = {kind: [n for n, m in outcome.metrics.items() if m == kind] for kind in kinds}
    return "; ".join(f"{', '.join(found)}: {METRIC_TITLES.get(kind, kind)}" for kind, found in sets.items())


def _values(row: Row, names: list[str]) -> dict[str, float]:
    """Return a row's figures by their column."""
    values = {} if row.dev is None else {"dev": row.dev}
    values |= {} if row.held_out is None else {"held out": row.held_out}
    for name in names:
        values[name] = row.tests[name]
        if name in row.average_precision:
            values[f"{name} AP"] = row.average_precision[name]
    if len(names) > 1 and row.average is not None:
        values["average"] = row.average
    return values


def _cells(row: Row, names: list[str], columns: list[str], *, many: bool) -> list[str]:
    label = f"{row.label}, {row.family}" + (f", {row.student}" if many else "")
    values = _values(row, names)
    return [label, *(f"{100 * values[column]:.2f}" if column in values else "" for column in columns)]


def next_commands(outcome: Outcome, task: str | None) -> list[str]:
    """Name the commands that go on with the best student's models; a cross-encoder that lost teaches nothing.

    task: what was evaluated; without any, one's own scored pairs tell what the models are over their start.
    """
    bi, cross = _better(outcome, "bi"), _better(outcome, "cross")
    assert bi is not None  # a student begins as one
    gain = _gain(outcome, cross) if cross else None
    teacher = bi if cross is None or (gain is not None and gain <= 0) else cross
    both = f" --model {bi.path}" + (f" --model {cross.path}" if cross else "")
    own = [
        "  FILE.tsv: 100 pairs or more that you score, below the line sentence1 <tab> sentence2 <tab> score",
        f'  in Python: transenc.load_scorer("{bi.path}").encode(texts)',
    ]
    before = f" --model {_start(outcome, bi.student).path}"
    return [
        "Next:",
        f"  transenc evaluate {task}{both}" if task else f"  transenc evaluate FILE.tsv{before}{both}",
        *([] if task else own),
        f"  transenc export onnx --model {bi.path} --out engine-bi",
        f"  transenc label --pairs FILE.tsv --teacher {teacher.path} --out scored.tsv",
    ]


def _better(outcome: Outcome, family: str) -> Best | None:
    """Return the model of a family that is best on development data; the first where no labels selected."""
    by_dev = outcome.selected_by == "dev"
    found = [best for best in outcome.best if best.family == family]
    return max(found, key=lambda b: b.dev if by_dev and b.dev is not None else 0.0, default=None)


def _start(outcome: Outcome, student: str) -> Row:
    return next(row for row in outcome.rows if row.student == student and row.cycle == 0)


def _gain(outcome: Outcome, best: Best) -> float | None:
    """Return what a model gained over its student's start on development data; None where no labels selected."""
    start = _start(outcome, best.student)
    if outcome.selected_by != "dev" or best.dev is None or start.dev is None:
        return None
    return best.dev - start.dev


def verdicts(outcome: Outcome) -> list[str]:
    """Say for each student and family which model was kept and whether it gained anything over the start."""
    lines = []
    for best in outcome.best:
        start, gain = _start(outcome, best.student), _gain(outcome, best)
        row = next(
            r for r in outcome.rows
            if r.student == best.student and r.path == best.model
        )  # fmt: skip
        origin = row.label
        line = f"best {best.family}: {best.path}  ({origin}"
        if gain is not None:
            if row is start:
                line += "; no cycle beat the start on development data, so the start is kept)"
            elif gain <= 0:
                line += f"; {100 * gain:+.2f} on dev: it does NOT beat the start, prefer the best bi-encoder)"
            else:
                line += f"; {100 * gain:+.2f} on dev over the start"
                if row.average is not None and start.average is not None:
                    line += f", {100 * (row.average - start.average):+.2f} on test"
                line += ")"
        elif best.reason:
            line += f"; {best.reason}; no label was read)"
        else:
            taught = row.cycle == 0 and row is not start
            line += "; kept as the last, " if taught else "; the last cycle, chosen without labels)"
            line += "without development data)" if taught else ""
        lines.append(line)
    return lines
