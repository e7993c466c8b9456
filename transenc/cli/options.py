"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one. Engines: tensorrt too.")
]
Precision = Annotated[
    str,
    typer.Option(
        help="fp32, bf16, or auto: bf16 where the hardware is fast at it. Of an engine: fp32, int8, ..."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
# The same as settings, which --set may name as well: None where the option is not given.
PrecisionSetting = Annotated[
    str | None, typer.Option(help="fp32, bf16, or auto (default): bf16 where the hardware is fast at it.")
]
SeedSetting = Annotated[int | None, typer.Option(min=0, help="Seed of everything random; default: 1.")]
PoolingSetting = Annotated[
    str | None, typer.Option(help="cls, mean, or auto (default): the start's own, else cls.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Make no network connection.")]
Data = Annotated[
    Path | None, typer.Option(help="Directory with the tasks' files; else TRANSENC_DATA, else the hub.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, as distill.bi.epochs=2; repeat.", metavar="KEY=VALUE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of text.")]
ScoreRange = Annotated[
    tuple[float, float] | None, typer.Option(help="Lowest and highest gold score, mapped to [0, 1].")
]
SkipBad = Annotated[
    str | None,
    typer.Option(
        help="Skip up to this many bad rows of each file (5, or 2%) instead of stopping at the first."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Other names of the columns of pairs: both sides and the score, as q1,q2,is_duplicate."
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}
