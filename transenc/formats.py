"""File formats of sentences and pairs: each opens a path and gives numbered rows and what makes columns of one."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transenc.errors import DataError
from transenc.lines import BadRow, check_file, one_line, show, text_lines

logger = logging.getLogger(__name__)

Column = tuple[str, ...]  # the names that a column may have; the first is the one we write
Line = tuple[int, str | BadRow]
Record = tuple[int, list[str] | BadRow]
Rows = tuple[Iterator[tuple[int, Any]], Callable[[Any], Sequence[object] | None]]


def _plain(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
    """Read a sentence a line, or `a||b` lines."""

    def parse(line: str) -> Sequence[object] | None:
        if len(wanted) == 1:
            return None if not line or line.isspace() else (line,)
        sides = line.split("||")
        if len(sides) != 2:
            raise BadRow(f"not two parts as in a||b but {len(sides)}", "not two parts as in a||b")
        return (*sides, None)

    if len(wanted) == 3 and not optional:
        raise DataError(f"{path}: a||b lines hold no scores; use .tsv, .csv, .jsonl or .parquet.")
    return text_lines(path), parse


def _place(
    path: Path, found: Sequence[str], wanted: Sequence[Column], optional: Sequence[Column]
) -> list[int | None]:
    """Return the place of every wanted column among those found; None for an optional one not there."""
    places = [next((found.index(name) for name in names if name in found), None) for names in wanted]
    if any(place is None and names not in optional for place, names in zip(places, wanted, strict=True)):
        if other := _parted_otherwise(path, found, wanted):
            raise DataError(f"{path}:1: {other}.")
        have = ", ".join(map(show, found[:10])) + (", ..." if len(found) > 10 else "")
        needed = ", ".join(" or ".join(names) for names in wanted if names not in optional)
        way = "rename the columns" if len(wanted) == 1 else "name the columns with --columns"
        way = way[:1].upper() + way[1:] if suffix_of(path) == ".parquet" else f"Add a header line, or {way}"
        raise DataError(f"{path}:1: not the columns needed. Found: {have}. Needed: {needed}. {way}.")
    twice = [name for name, n in Counter(found).items() if n > 1 and any(name in names for names in wanted)]
    if twice:
        raise DataError(f"{path}:1: two columns are named {show(twice[0])}; rename one.")
    return places


def _parted_otherwise(path: Path, found: Sequence[str], wanted: Sequence[Column]) -> str | None:
    """Say what keeps a spreadsheet's header from having the wanted columns: other delimiters, or spaces."""
    own = {".csv": "commas", ".tsv": "tabs"}.get(suffix_of(path))
    if own is None:
        return None
    names = {name for column in wanted for name in column}
    if found[0].lower().startswith("sep="):
        return f"{show(found[0])} is a line for Excel alone: remove it, and part the columns by {own}"
    for sign, delimiters in ((",", "commas"), ("\t", "tabs"), (";", "semicolons")):
        inside = {name.strip(' "') for name in found[0].split(sign)}
        if len(found) == 1 and delimiters != own and names & inside:
            way = {"commas": "name it .csv", "tabs": "name it .tsv"}.get(delimiters, f"part them by {own}")
            return f"the columns are parted by {delimiters}, those of {suffix_of(path)} by {own}: {way}"
    spaced = next((name for name in found if name.strip() in names and name not in names), None)
    return spaced and f"the column {show(spaced)} has spaces around its name: remove them"


NOT_CLOSED = "a quote is not closed on this line, nor well below it (one inside a text is written twice)"
OPEN = "a quote of a line above is still open on this line"
CLOSED = "a quote of a line above is closed on this line"


class OpenQuote(BadRow):
    """A quote that is not closed on its line, so that the text may go on over line breaks."""


def _split_csv(line: str) -> list[str]:
    """Split one line, which is one record unless a quote is open at its end."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        if str(error) == "unexpected end of data":
            raise OpenQuote(NOT_CLOSED) from None
        raise BadRow(str(error)) from None


def _split_on(line: str) -> tuple[list[str], bool]:
    """Split a line on which a quote is open from above; tell whether one is open at its end, too."""
    if '"' not in line:
        return [line], True
    try:
        return _split_csv(f'"{line}'), False
    except OpenQuote:
        return _split_csv(f'"{line}"'), True


def _tsv_records(path: Path) -> Iterator[Record]:
    for number, line in text_lines(path):
        yield number, line if isinstance(line, BadRow) else line.split("\t")


def _csv_records(path: Path) -> Iterator[Record]:
    """Split the lines of a CSV file into records, of which texts in quotes may go on over line breaks."""
    lines = text_lines(path)
    waiting: deque[Line] = deque()  # looked at already
    width = 0  # of the header
    doubtful: list[int] = []

    def following() -> Iterator[Line]:
        while line := waiting.popleft() if waiting else next(lines, None):
            yield line

    for number, line in following():
        found: list[str] | BadRow
        try:
            found = line if isinstance(line, BadRow) else _split_csv(line)
        except BadRow as error:
            found = error
        if isinstance(line, str) and isinstance(found, OpenQuote):
            found, read = _whole(line, following(), width, found)
            if isinstance(found, BadRow):
                waiting.extendleft(reversed(read))
            elif _like_rows([line, *(str(more) for _, more in read)], width):
                doubtful.append(number)
        if not width and isinstance(found, list):
            width = len(found)
        yield number, found
    if doubtful:
        logger.warning(
            "%s:%d: a text in quotes goes on over lines that look like rows (%d such in the file): if its quotes are "
            "stray, double them and quote their cells.",
            path,
            doubtful[0],
            len(doubtful),
        )


def _whole(
    line: str, lines: Iterator[Line], width: int, fault: BadRow
) -> tuple[list[str] | BadRow, list[Line]]:
    """Read on from a line with an open quote to the end of its record; return this and the lines that were read.

    width: how many columns a record has; 0 takes any number. All lines of a record with others are bad rows. After a
    stray quote, of which no text ends well, the first one is, and one that closes the quote. Reads on for as many
    characters a column as csv takes, which is 131,072, and holds no more.
    """
    cells = [[text] for text in _split_csv(f'{line}"')]  # (columns, lines)
    size, still = len(line), True  # of the cell that is open
    read: list[Line] = []
    for number, more in lines:
        read.append((number, more))
        if isinstance(more, BadRow):
            fault = BadRow(f"a quote is open up to line {number}, which cannot be read: {more}", more.kind)
            break
        try:
            parts, still = _split_on(more)
        except BadRow:
            break
        cells[-1].append(parts[0])
        cells += [[text] for text in parts[1:]]
        size = len(more) if 1 < len(parts) and len(cells) <= width else size + len(more) + 1
        if not still or size > csv.field_size_limit():
            break
    if not still and width in (0, len(cells)):
        return ["\n".join(cell) for cell in cells], read
    if not still or 0 < width < len(cells):
        columns = f"{len(cells)} column{'s' * (len(cells) != 1)} up to line {read[-1][0]}"
        fault = BadRow(f"{columns}, the header has {width}", "wrong number of columns")
        read = [(number, BadRow(OPEN if still or number < read[-1][0] else CLOSED)) for number, _ in read]
    # Two quotes in a row stand for one, so a line with an odd number of them closes the text.
    elif read and isinstance(last := read[-1][1], str) and last.count('"') % 2 == 1:
        read[-1] = (read[-1][0], BadRow(CLOSED))
    return fault, read


def _like_rows(lines: Sequence[str], width: int) -> bool:
    """Tell whether three or more lines would each be a row if quotes were nothing special, as stray ones are."""
    return (
        width > 1
        and len(lines) > 2
        and all(len(row := line.split(",")) == width and all(row) for line in lines)
    )


RECORDS = {".tsv": _tsv_records, ".csv": _csv_records}


def _table(
    records: Callable[[Path], Iterator[Record]],
) -> Callable[[Path, Sequence[Column], Sequence[Column]], Rows]:
    def read(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
        rows = records(path)
        number, found = next(rows, (1, []))
        if isinstance(found, BadRow):
            raise DataError(f"{path}:{number}: the header cannot be read: {found}.")
        if found in ([], [""]):
            raise DataError(f"{path}:1: no header; the file is empty or starts with a blank line.")
        places = _place(path, found, wanted, optional)

        def parse(values: Sequence[str]) -> Sequence[object]:
            if len(values) != len(found):
                columns = f"{len(values)} column{'s' * (len(values) != 1)}"
                raise BadRow(f"{columns}, the header has {len(found)}", "wrong number of columns")
            return [None if place is None else values[place] for place in places]

        return rows, parse

    return read


def _refuse_constant(name: str) -> object:
    raise BadRow(f"{name} is not JSON", "not JSON")


def _object(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        twice = next(key for key, n in Counter(key for key, _ in members).items() if n > 1)
        raise BadRow(f"key {show(twice)} occurs twice", "a key occurs twice")
    return found


_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float, object_pairs_hook=_object)


def _jsonl(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
    def parse(line: str) -> Sequence[object]:
        try:
            found = _JSON.decode(line)
        except json.JSONDecodeError as error:
            raise BadRow(f"not JSON: {error.msg} at column {error.colno}", "not JSON") from None
        except RecursionError:
            raise BadRow("nested too deeply") from None
        if not isinstance(found, dict):
            raise BadRow("not a JSON object")
        for names in wanted:
            if names not in optional and not any(name in found for name in names):
                have = ", ".join(map(show, list(found)[:10])) or "none"
                missing = f"no key {' or '.join(map(repr, names))}"
                raise BadRow(f"{missing} (keys: {have})", missing)
        return [next((found[name] for name in names if name in found), None) for names in wanted]

    return text_lines(path), parse


def _damage() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for a file that is no sound Parquet."""
    import pyarrow as pa  # local: heavy

    return (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)


def _parquet(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
    import pyarrow as pa  # local: heavy, and only this format needs it
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    except _damage() as error:
        raise DataError(f"{path}: cannot be read as Parquet: {one_line(error)}") from None
    places = _place(path, schema.names, wanted, optional)
    named = [None if place is None else schema.names[place] for place in places]
    for column, names in zip(named, wanted, strict=True):
        if column is None:
            continue
        kind = schema.field(column).type
        plain = str(kind.value_type if pa.types.is_dictionary(kind) else kind)
        if names in wanted[:2] and plain not in ("string", "large_string", "string_view"):
            raise DataError(f"{path}: column {show(column)} is {kind}, not string.")
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if names in wanted[2:] and not number:
            raise DataError(f"{path}: column {show(column)} is {kind}, not a number.")

    def rows() -> Iterator[tuple[int, Any]]:
        number = 0
        try:
            for batch in file.iter_batches(4096, columns=[name for name in named if name is not None]):
                columns: list[list[Any]] = []
                for name in named:
                    values = None if name is None else batch.column(name)
                    if values is None:
                        columns.append([None] * len(batch))
                    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
                        columns.append(values.to_pylist())
                    elif pa.types.is_decimal(values.type):
                        columns.append(
                            [None if value is None else float(value) for value in values.to_pylist()]
                        )
                    else:  # as bytes: text that is not UTF-8 costs its row, not the file
                        columns.append(values.cast(pa.large_string()).cast(pa.large_binary()).to_pylist())
                for row in zip(*columns, strict=True):
                    number += 1
                    yield number, row
        except _damage() as error:
            raise DataError(f"{path}:{number + 1}: cannot be read as Parquet: {one_line(error)}") from None

    def parse(row: Sequence[object]) -> Sequence[object]:
        try:
            return [value.decode() if isinstance(value, bytes) else value for value in row]
        except UnicodeDecodeError:
            raise BadRow("the text is not UTF-8") from None

    return rows(), parse


FORMATS: dict[str, Callable[[Path, Sequence[Column], Sequence[Column]], Rows]] = {
    ".txt": _plain,
    **{suffix: _table(records) for suffix, records in RECORDS.items()},
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def suffix_of(path: Path) -> str:
    """Return the suffix that tells a file's format, in lower case: what is compressed keeps that of its content."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def columns_of(path: Path) -> list[str]:
    """Return the column names of a table, or the keys of the first line of a .jsonl; none for plain lines.

    Raises DataError for a file that cannot be read.
    """
    check_file(path)
    suffix = suffix_of(path)
    if suffix == ".parquet":
        import pyarrow.parquet as pq  # local: heavy

        try:
            names: list[str] = pq.ParquetFile(path).schema_arrow.names
            return names
        except _damage() as error:  # what is wrong is told where the file is read
            raise DataError(f"{path}: cannot be read as Parquet: {one_line(error)}") from None
    if suffix in RECORDS:
        _, found = next(RECORDS[suffix](path), (1, []))
        return [] if isinstance(found, BadRow) else found
    _, first = next(text_lines(path), (1, ""))
    if suffix != ".jsonl" or isinstance(first, BadRow):
        return []
    try:
        return list(_JSON.decode(first))
    except (BadRow, ValueError, TypeError, RecursionError):  # told where the file is read
        return []
