"""`transenc export`: engines that score the same, faster, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from transenc.cli import options
from transenc.cli.help import Command

if TYPE_CHECKING:
    from transenc.export.onnx import ExportReport
    from transenc.export.parity import Parity
    from transenc.pairs import Pairs

app = typer.Typer(help="Export models as engines, checked against the model.", no_args_is_help=True)

Out = Annotated[
    Path | None,
    typer.Option(
        help="Directory for the engine (or for bi/ and cross/ of a run; default: export/ in the run)."
    ),
]
Model = Annotated[str | None, typer.Option(help="Directory, hub name or minilm.")]
Run = Annotated[Path | None, typer.Option(help="Run whose best models are exported; default: the newest.")]
PairsFile = Annotated[
    Path | None,
    typer.Option(
        help="Pairs to compare on; scores in it are people's, for --max-drop. Default: the demo's development set."
    ),
]
Atol = Annotated[
    float | None,
    typer.Option(min=0, help="Largest difference of a score; default: 1e-4, fp16 1e-2, int8 0.25."),
]
MaxDrop = Annotated[float, typer.Option(min=0, help="Largest loss of Spearman (not times 100).")]


@app.callback()
def export() -> None:
    """Export models as engines, each compared with the model it was made from before it is kept."""


@app.command("onnx", cls=Command, short_help="Export a bi- or cross-encoder to ONNX.")
def onnx(
    out: Out = None,
    model: Model = None,
    run: Run = None,
    precision: Annotated[str, typer.Option(help="Of fp32, fp16, int8: one, or several by commas.")] = "fp32",
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Add an fp32 graph with fused attention for onnxruntime.")
    ] = False,
    pairs: PairsFile = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset; default: one that current runtimes read.")
    ] = None,
    atol: Atol = None,
    max_drop: MaxDrop = 0.005,
    columns: options.Columns = None,
    skip_bad: options.SkipBad = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Measure latency and throughput; kept as latency.json.")
    ] = False,
    json_: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """Export a bi- or cross-encoder to ONNX; exit 8, and leave nothing new, if a graph disagrees with the model."""
    from contextlib import ExitStack

    from transenc.cli.console import log_to_stderr, note, out_json
    from transenc.cli.console import out as show
    from transenc.errors import ParityError
    from transenc.export.onnx import export_onnx
    from transenc.interrupt import stop_on_signals
    from transenc.models.loading import load_scorer

    log_to_stderr()
    sample, gold = _pairs(pairs, skip_bad, columns)
    jobs = _jobs(model, run, out, "export")
    reports: list[tuple[str, ExportReport]] = []
    with stop_on_signals() as stop, ExitStack() as hold:  # of a run, both engines are kept or none
        for name, target in jobs:
            scorer = load_scorer(name, device="cpu", precision="fp32", offline=offline)
            card = Path(name) / "README.md"
            try:
                found = export_onnx(
                    scorer,
                    target,
                    pairs=sample,
                    gold=gold,
                    precisions=tuple(filter(None, precision.split(","))),
                    optimize=optimize,
                    opset=opset,
                    tolerance=atol,
                    max_drop=max_drop,
                    source=name,
                    card=card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
                    benchmark=benchmark,
                    check=stop.check,
                    hold=hold,
                )
            except ParityError as error:
                if json_:
                    out_json({"model": name, "error": str(error), "failed": error.numbers})
                raise
            reports.append((name, found))
    for name, report in reports:
        for line in report.notes:
            note(f"note: {line}")
        if json_:
            out_json({"model": name, **report.as_dict()})
        else:
            _show(name, report)
    if not json_:
        show(f"Next: transenc evaluate demo --model {jobs[0][1]}")


@app.command("tensorrt", cls=Command, short_help="Build TensorRT engines for the GPU of this machine.")
def tensorrt(
    out: Out = None,
    model: Annotated[str | None, typer.Option(help="ONNX engine, directory, hub name or minilm.")] = None,
    run: Run = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8.")] = "fp16",
    pairs: PairsFile = None,
    atol: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference of a score; default: that of the precision."),
    ] = None,
    max_drop: MaxDrop = 0.005,
    columns: options.Columns = None,
    skip_bad: options.SkipBad = None,
    device: Annotated[str, typer.Option(help="tensorrt or tensorrt:1: the GPU to build on.")] = "tensorrt",
    json_: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """Build TensorRT engines for the GPU of this machine; exit 8, and leave nothing new, if one disagrees."""
    import tempfile
    from contextlib import ExitStack

    from transenc.cli.console import log_to_stderr, out_json
    from transenc.cli.console import out as show
    from transenc.errors import ConfigError
    from transenc.export.tensorrt import export_tensorrt, find_machine

    log_to_stderr()
    kind, _, number = device.partition(":")
    if kind != "tensorrt" or (number and not number.isdecimal()):
        raise ConfigError(f"--device is tensorrt or tensorrt:1, not '{device}'.")
    machine = find_machine(number or "0")  # before any work
    sample, gold = _pairs(pairs, skip_bad, columns)
    done: list[tuple[str, Path, Parity | None]] = []
    with ExitStack() as hold:  # of a run, both engines are kept or none
        for name, target in _jobs(model, run, out, "export-tensorrt"):
            with tempfile.TemporaryDirectory() as scratch:
                source = Path(name)
                if not (source / "engine.json").is_file():
                    source = Path(scratch) / "engine"
                    _export_plain(name, source, sample, gold, max_drop, offline=offline)
                found = export_tensorrt(
                    source,
                    target,
                    precision=precision,
                    pairs=sample,
                    gold=gold,
                    tolerance=atol,
                    max_drop=max_drop,
                    number=number or "0",
                    hold=hold,
                )
            done.append((name, target, found))
    for name, target, parity in done:
        compared = None if parity is None else parity.as_dict()
        if json_:
            out_json({"model": name, "path": str(target), "gpu": machine.gpu, "parity": compared})
        elif parity is None:
            show(f"{target}: built before of this graph for this {machine.gpu}; kept")
        else:
            show(f"{target}: {precision} engine for {machine.gpu}, differs by at most {parity.worst:.1e}")


def _export_plain(name: str, out: Path, pairs: Pairs, gold: Pairs, max_drop: float, *, offline: bool) -> None:
    from transenc.export.onnx import export_onnx
    from transenc.models.loading import load_scorer

    scorer = load_scorer(name, device="cpu", precision="fp32", offline=offline)
    export_onnx(scorer, out, pairs=pairs, gold=gold, max_drop=max_drop, source=name)


def _jobs(model: str | None, run: Path | None, out: Path | None, folder: str) -> list[tuple[str, Path]]:
    """List what is exported, and where to; `folder` of the run unless `out` is given."""
    from transenc.cli.console import note
    from transenc.errors import ConfigError
    from transenc.runs import models_of

    if model is not None and run is not None:
        raise ConfigError("Give either --model or --run, not both.")
    if model is not None:  # an empty name is refused where models are found
        if out is None:
            raise ConfigError(f"Give --out DIR, the place for the engine of {model}.")
        return [(model, out)]
    found = models_of(run, say=note)
    root = next(p for p in found[0].parents if p.name == "best")
    out = root.parent / folder if out is None else out
    return [(str(path), out / path.relative_to(root)) for path in found]


def _pairs(file: Path | None, skip_bad: str | None, columns: str | None) -> tuple[Pairs, Pairs]:
    """Return the pairs to compare on, and pairs with people's scores: the demo's if those have none."""
    import numpy as np

    from transenc import tasks
    from transenc.errors import ConfigError
    from transenc.readers import SkipBad, column_names, read_pairs

    skip = SkipBad.parse(skip_bad)
    if (skip or columns is not None) and file is None:
        raise ConfigError(
            f"{'--skip-bad' if skip else '--columns'} is for one's own file: give --pairs FILE."
        )
    names = column_names(columns, scored=False, file=file)
    demo = tasks.dev(tasks.get("demo"), None, offline=True)
    assert demo is not None
    if file is None:
        return demo, demo
    scores: Literal["ignored", "optional"] = "ignored" if len(names) == 2 else "optional"
    given = read_pairs(file, scores=scores, skip_bad=skip, columns=names)
    usable = given.scores is not None and len(np.unique(given.scores)) > 1
    return given, given if usable else demo


def _show(name: str, report: ExportReport) -> None:
    from transenc.cli.console import out, table
    from transenc.export import latency

    graphs = report.graphs
    rows: list[list[str]] = []
    for graph_name, graph in graphs.items():
        ranks: Any = graph.parity.ranks
        rows.append(
            [
                graph_name,
                graph.file,
                f"{graph.size / 2**20:.1f}",
                str(sum(graph.fused.get(kind, 0) for kind in ("Attention", "MultiHeadAttention"))),
                f"{graph.parity.worst:.1e}",
                f"{100 * ranks.model:.2f}",
                f"{100 * ranks.engine:.2f}",
                f"{ranks.agreement:.4f}",
            ]
        )
    columns = ["graph", "file", "MiB", "fused attention", "max difference", "model", "engine", "agreement"]
    first = next(iter(graphs.values())).parity
    table(columns, rows, title=f"{report.path}: {report.family}-encoder of {name}")
    if "int8" in graphs:
        out(f"int8: {graphs['int8'].what}")
    number = sum(check.pairs for check in first.checks)
    scored = first.ranks.pairs if first.ranks is not None else 0
    out(
        f"{number:,} comparisons of up to {first.longest} tokens; model and engine: Spearman times 100 with "
        f"{scored:,} scored pairs; agreement: Spearman of engine with model"
    )
    timed = {key: graph.latency for key, graph in graphs.items() if graph.latency is not None}
    if timed:
        table(*latency.rows(timed), title=latency.title(timed))
