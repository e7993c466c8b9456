"""`transenc evaluate`: compare scorers with people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transenc.cli import options

if TYPE_CHECKING:
    from transenc.evaluation import Result
    from transenc.pairs import Pairs


def evaluate(
    task: Annotated[
        str, typer.Argument(metavar="TASK_OR_FILE", help="A task (sts, mrpc, demo, ...) or a scored file.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Directory, hub name, engine or minilm; repeat: their ensemble is shown too."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run whose best models are evaluated; default: the newest.")
    ] = None,
    data: options.Data = None,
    metric: Annotated[str | None, typer.Option(help="spearman, pearson, auc or average_precision.")] = None,
    score_range: options.ScoreRange = None,
    columns: options.Columns = None,
    json_: options.Json = False,
    fail_under: Annotated[
        float | None,
        typer.Option(
            help="Exit 9 if a model's value, at most 1 (of several sets the average), is below this."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for result files in MTEB's shape.")] = None,
    skip_bad: options.SkipBad = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    offline: options.Offline = False,
) -> None:
    """Evaluate models on a task or on one's own scored pairs, with 95% bootstrap intervals."""
    import dataclasses

    from transenc.cli.console import log_to_stderr, note, out_json
    from transenc.cli.console import out as show
    from transenc.errors import BelowThresholdError, ConfigError
    from transenc.evaluation import First, ensemble, measure, score_sets, write_mteb
    from transenc.metrics import LARGE, METRICS
    from transenc.models.loading import load_scorer
    from transenc.pairs import join
    from transenc.runs import models_of
    from transenc.unread import warn_of_unread

    if fail_under is not None and not -1 <= fail_under <= 1:
        raise ConfigError(
            f"--fail-under is a value from -1 to 1, not {fail_under:g}; the table has it times 100."
        )
    log_to_stderr()
    sets, default_metric = _sets(task, data, score_range, skip_bad, columns, offline=offline)
    chosen = metric or default_metric
    # Of binary gold the literature reports both.
    metrics = [chosen] if metric or chosen != "auc" else [chosen, "average_precision"]
    if chosen not in METRICS:
        raise ConfigError(f"--metric is one of {', '.join(METRICS)}, not '{chosen}'.")
    if model and run:
        raise ConfigError("Give either --model or --run, not both.")
    names = list(model) if model else [str(path) for path in models_of(run, say=note)]
    results: list[Result] = []
    scores, first, everything = [], First(), join(list(sets.values()))
    for name in names:
        scorer = load_scorer(name, device=device, precision=precision, offline=offline)
        warn_of_unread(name, scorer, everything)
        scores.append(score_sets(scorer, sets))
        for each in metrics:
            results += measure(name, scorer.family, sets, scores[-1], each, group=task, first=first)
        del scorer
    if model and len(names) > 1:
        for each in metrics:
            both = " + ".join(names)
            results += measure(both, "ensemble", sets, ensemble(scores), each, group=task, first=first)
    if json_:
        for result in results:
            out_json(dataclasses.asdict(result))
    else:
        _show(results)
    if out is not None:
        for name in dict.fromkeys(r.model for r in results):
            folder = write_mteb([r for r in results if r.model == name], name, "local", out)
            note(f"written: {folder}")
    if not json_:
        several = ", of a difference over the same ones" if len({r.model for r in results}) > 1 else ""
        kind = "bootstrap (log-odds, Student's t)" if METRICS[chosen].binary else "percentile bootstrap"
        if any(len(pairs) > LARGE for pairs in sets.values()):
            kind += f", above {LARGE:,} pairs by influence,"
        show(f"{' and '.join(metrics)}, times 100; intervals: 95% {kind} over distinct pairs{several}")
    if fail_under is not None:
        # A model's last result is its average, or its only set.
        finals = {r.model: r for r in results if r.metric == chosen}
        low = [r for r in finals.values() if r.value < fail_under]
        if low:
            raise BelowThresholdError(
                "; ".join(
                    f"{r.model}: {r.task} {r.metric} {_below(r.value, fail_under)} is below {fail_under}"
                    for r in low
                )
            )


def _below(value: float, bound: float) -> str:
    """Return a value with four decimals, or as many more as it takes to read below the bound that it is below."""
    return next(text for digits in (*range(4, 18), 99) if float(text := f"{value:.{digits}f}") < bound)


def _sets(
    task: str,
    data: Path | None,
    score_range: tuple[float, float] | None,
    skip_bad: str | None,
    columns: str | None,
    *,
    offline: bool,
) -> tuple[dict[str, Pairs], str]:
    from transenc import tasks
    from transenc.errors import ConfigError
    from transenc.readers import SkipBad, column_names

    if task not in tasks.names():
        skip = SkipBad.parse(skip_bad)
        names = column_names(columns, scored=True)
        pairs, metric = tasks.scored_file(task, score_range=score_range, skip_bad=skip, columns=names)
        return {Path(task).name: pairs}, metric
    found = tasks.get(task)
    if score_range is not None or skip_bad is not None:
        raise ConfigError("--score-range and --skip-bad are for one's own files; a task says its own range.")
    if columns is not None:
        raise ConfigError("--columns is for one's own files; a task names its own.")
    return dict(tasks.tests(found, data, offline=offline)), found.metric


def _show(results: list[Result]) -> None:
    from transenc.cli.console import table

    rows = []
    for r in results:
        gain = "" if r.gain is None else f"{100 * r.gain:+.2f} ({_ends(r.gain_low, r.gain_high)})"
        value = f"{100 * r.value:.2f}"
        rows.append([r.model, r.family, r.task, r.metric, value, _ends(r.low, r.high), f"{r.n:,}", gain])
    many = len({r.metric for r in results}) > 1
    columns = ["model", "family", "task", "metric", "value", "95% interval", "pairs", "over the first"]
    if not many:
        columns[4] = results[0].metric
    shown = [
        i for i, name in enumerate(columns) if (name != "metric" or many) and any(row[i] for row in rows)
    ]
    table([columns[i] for i in shown], [[row[i] for i in shown] for row in rows])


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}"
