"""`transenc export`: engines that score the same, faster, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transenc.cli import options

app = typer.Typer(help="Export models as engines, checked against the model.", no_args_is_help=True)


@app.callback()
def export() -> None:
    """Export models as engines, each compared with the model it was made from before it is kept."""


@app.command("onnx")
def onnx(
    out: Annotated[Path, typer.Option(help="Directory for the engine (or for bi/ and cross/ of a run).")],
    model: Annotated[str | None, typer.Option(help="Directory, hub name or minilm.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run whose best models are exported; default: the newest.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Pairs to compare on; default: the demo's development set.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset; default: one that current runtimes read.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest allowed difference of a score.")] = 1e-4,
    json_: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """Export a bi- or cross-encoder to ONNX (fp32); exit 8, and leave nothing, if it disagrees with the model."""
    from transenc import tasks
    from transenc.cli.console import log_to_stderr, note, out_json
    from transenc.cli.console import out as show
    from transenc.errors import ConfigError
    from transenc.export.onnx import export_onnx
    from transenc.models.bi import BiEncoder
    from transenc.models.cross import CrossEncoder
    from transenc.models.loading import load_scorer
    from transenc.readers import read_pairs
    from transenc.runs import models_of

    log_to_stderr()
    if model and run:
        raise ConfigError("Give either --model or --run, not both.")
    if model:
        jobs = [(model, out)]
    else:
        found = models_of(run, say=note)
        root = next(p for p in found[0].parents if p.name == "best")
        jobs = [(str(path), out / path.relative_to(root)) for path in found]
    sample = (
        read_pairs(pairs, scores="ignored") if pairs else tasks.dev(tasks.get("demo"), None, offline=True)
    )
    for name, target in jobs:
        scorer = load_scorer(name, device="cpu", precision="fp32", offline=offline)
        if not isinstance(scorer, BiEncoder | CrossEncoder):
            raise ConfigError(f"{name} is of family '{scorer.family}', which cannot be exported again.")
        card = Path(name) / "README.md"
        report = export_onnx(
            scorer,
            target,
            pairs=sample,
            opset=opset,
            tolerance=tolerance,
            source=name,
            card=card.read_text(encoding="utf-8") if card.is_file() else "",
        )
        if json_:
            out_json({"model": name, **report.as_dict()})
        else:
            worst = f"differs by at most {report.parity.worst:.1e} (tolerance {tolerance:g})"
            number = sum(check.pairs for check in report.parity.checks)
            compared = f"over {number:,} comparisons of up to {report.parity.longest} tokens"
            show(
                f"{target}: {scorer.family}-encoder of {name}, {report.size / 2**20:.0f} MiB, {worst} {compared}"
            )
    if not json_:
        show(f"Next: transenc evaluate demo --model {jobs[0][1]}")
