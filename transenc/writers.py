"""Write pairs as files that read back equal."""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transenc.errors import ConfigError, DataError, MachineError
from transenc.lines import BadRow, show, usable_text, why
from transenc.pairs import Pairs
from transenc.store import replacing


def write_pairs(pairs: Pairs, path: Path, *, told: Path | None = None) -> None:
    """Write pairs, and scores if there are any, as .tsv, .jsonl or .parquet; equal pairs give equal bytes.

    The file appears whole or not at all. What is written reads back equal; text that could not, such as a tab
    in .tsv, and NaN raise DataError. told: what a full disk's error names, where the file is to be moved.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path}: pairs are written as {', '.join(SUFFIXES_OUT)}, not '{path.suffix}'.")
    if pairs.scores is not None and not np.isfinite(pairs.scores).all():
        first = int(np.flatnonzero(~np.isfinite(pairs.scores))[0])
        raise DataError(f"{path}: the score of pair {first + 1} is {pairs.scores[first]}.")
    check_writable(pairs, path)
    try:
        with replacing(path) as file:
            WRITERS[path.suffix](pairs, file)
    except OSError as error:
        raise MachineError(f"{told or path} cannot be written: {why(error)}.") from error


def check_suffix(out: Path) -> None:
    """Raise ConfigError for an --out of which no suffix tells how pairs are written."""
    if out.suffix not in SUFFIXES_OUT:
        raise ConfigError(f"--out must end in one of {', '.join(SUFFIXES_OUT)}, not '{out.name}'.")


def check_writable(pairs: Pairs, path: Path) -> None:
    """Raise DataError for a sentence that a file of this suffix cannot hold; call it before long work, too."""
    for sentence in pairs.sentences:
        try:
            usable_text("it", sentence)
        except BadRow as error:
            raise DataError(f"{path}: sentence {show(sentence)} cannot be written: {error}.") from None
        if path.suffix == ".tsv" and any(c in sentence for c in "\t\n\r"):
            raise DataError(
                f"{path}: sentence {show(sentence)} holds a tab or a line break; write .jsonl or .parquet."
            )


def _numbers(pairs: Pairs) -> list[float]:
    """Return the shortest decimals that read back as the same float32, or nothing for unscored pairs."""
    return [] if pairs.scores is None else [float(str(score)) for score in pairs.scores]


def _write_tsv(pairs: Pairs, file: BinaryIO) -> None:
    numbers = _numbers(pairs)
    file.write(b"sentence1\tsentence2" + (b"\tscore\n" if pairs.scores is not None else b"\n"))
    for i, (first, second) in enumerate(pairs.rows()):
        end = f"\t{numbers[i]!r}\n" if numbers else "\n"
        file.write(f"{first}\t{second}{end}".encode())


def _write_jsonl(pairs: Pairs, file: BinaryIO) -> None:
    numbers = _numbers(pairs)
    for i, (first, second) in enumerate(pairs.rows()):
        # What json.dumps(ensure_ascii=False) writes, which makes an encoder for each row: three times as slow.
        end = f', "score": {numbers[i]!r}}}\n' if numbers else "}\n"
        file.write(f'{{"sentence1": {quoted(first)}, "sentence2": {quoted(second)}{end}'.encode())


def _write_parquet(pairs: Pairs, file: BinaryIO) -> None:
    import pyarrow as pa  # local: heavy
    import pyarrow.parquet as pq

    fields = [("sentence1", pa.string()), ("sentence2", pa.string())]
    schema = pa.schema(fields if pairs.scores is None else [*fields, ("score", pa.float32())])
    with pq.ParquetWriter(file, schema, store_schema=False) as writer:
        for start in range(0, len(pairs), 65536):
            part = slice(start, start + 65536)
            columns = [pa.array(pairs.column(side[part]), pa.string()) for side in (pairs.left, pairs.right)]
            if pairs.scores is not None:
                columns.append(pa.array(pairs.scores[part]))
            writer.write_batch(pa.record_batch(columns, schema=schema))


WRITERS: dict[str, Callable[[Pairs, BinaryIO], None]] = {
    ".tsv": _write_tsv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
SUFFIXES_OUT = tuple(WRITERS)
