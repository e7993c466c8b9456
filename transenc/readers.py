"""Read the user's sentences and pairs strictly: every row is used or reported as `file:line: reason`.

Only a line feed (or a carriage return and a line feed) ends a line, so U+2028, U+0085 and form feeds stay
inside a sentence.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import math
import os
import re
import stat
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from transenc.errors import ConfigError, DataError, MachineError
from transenc.pairs import Pairs
from transenc.registry import did_you_mean

logger = logging.getLogger(__name__)

LINE_LIMIT = 1 << 20  # characters; a longer line is a bad row and is never held in memory
TOO_LONG = f"the line is longer than {LINE_LIMIT} characters"
SHOWN = 20  # bad rows listed in an error
GZIP_RATIO = 200  # what unpacks to more than 256 MiB and 200 times its size is a bomb, not text
GZIP_FREE = 1 << 28
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # float() takes "1_0" and "nan"
UNTEXT = re.compile("[\x00\ud800-\udfff]")  # NUL and lone surrogates
LARGEST = float(str(np.finfo(np.float32).max))  # as it is written: a little above it, and rounded back to it

SENTENCE = (("sentence", "text"),)
SIDES = (("sentence1", "text1"), ("sentence2", "text2"))
SCORE = ("score", "label")

Column = tuple[str, ...]  # the names that a column may have; the first is the one we write


class Reject(NamedTuple):
    """A row that cannot be used."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class SkipBad:
    """How many bad rows may be skipped: a number, or a share of all rows in percent."""

    limit: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> SkipBad:
        """Read `5` or `2%`."""
        number = text.removesuffix("%")
        percent = number != text
        if not NUMBER.fullmatch(number) or not 0 <= float(number) <= (100 if percent else math.inf):
            raise ConfigError(f"--skip-bad takes a number of rows or a share, as 5 or 2%, not '{text}'.")
        if not percent and not number.isdigit():
            raise ConfigError(f"--skip-bad {text} is not a whole number of rows.")
        return cls(float(number) if percent else int(number), percent)

    def allows(self, bad: int, rows: int) -> bool:
        """Tell whether that many bad rows of all rows are within the limit."""
        return bad * 100 <= self.limit * rows if self.percent else bad <= self.limit

    def __str__(self) -> str:
        return f"{self.limit:g}%" if self.percent else f"{self.limit:g}"


class _BadRow(Exception):
    """Why a row cannot be used; `kind` is the reason without the row's own content, to count by."""

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.kind = kind or reason


@dataclass
class _Tally:
    """Count rows, collect the bad ones and decide at the end whether they may be skipped."""

    skip_bad: SkipBad | None
    rejects: list[Reject] | None
    rows: int = 0
    bad: int = 0
    first: list[Reject] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def reject(self, path: Path, line: int, error: _BadRow) -> None:
        self.bad += 1
        self.kinds[error.kind] += 1
        found = Reject(str(path), line, str(error))
        if len(self.first) <= SHOWN:
            self.first.append(found)
        if self.rejects is not None:
            self.rejects.append(found)

    def finish(self, paths: Sequence[Path]) -> None:
        names = ", ".join(map(str, paths))
        if not self.rows:
            raise DataError(f"{names}: no rows; the file is empty or holds only blank lines.")
        if not self.bad:
            return
        count = f"{self.bad} bad {'row' if self.bad == 1 else 'rows'} of {self.rows}"
        if self.skip_bad is not None and self.skip_bad.allows(self.bad, self.rows) and self.bad < self.rows:
            reasons = "; ".join(f"{n} x {kind}" for kind, n in self.kinds.most_common())
            logger.warning("%s: %s skipped: %s", names, count, reasons)
            return
        it = "it" if self.bad == 1 else "them"
        if self.bad == self.rows:
            advice = "no row can be used"
        elif self.skip_bad is None:
            advice = f"fix {it} or pass --skip-bad {self.bad}"
        else:
            advice = f"more than --skip-bad {self.skip_bad} allows"
        head, *rest = [f"{r.file}:{r.line}: {r.reason}" for r in self.first]
        more = self.bad - 1 - len(rest)
        last = [f"and {more} more"] if more else []
        raise DataError("\n".join([f"{head} ({count}; {advice})", *rest, *last]))


def read_sentences(
    paths: Sequence[Path], *, skip_bad: SkipBad | None = None, rejects: list[Reject] | None = None
) -> list[str]:
    """Read the sentences of one or more files in order, each distinct one once.

    Takes .txt (a sentence a line; blank lines separate and are no rows), .csv and .tsv with a column sentence
    or text, .jsonl with such a key (all also .gz), and .parquet. Raises DataError for more bad rows than
    skip_bad allows (none if None) and for files without a usable row. rejects: receives every bad row.
    """
    tally = _Tally(skip_bad, rejects)
    sentences: dict[str, None] = {}
    for path in paths:
        before, used = tally.rows, tally.bad
        for number, values in _rows(path, SENTENCE, (), tally):
            try:
                sentences.setdefault(_text("sentence", values[0]))
            except _BadRow as error:
                tally.reject(path, number, error)
        if tally.rows == before:
            raise DataError(f"{path}: no sentences; the file is empty or holds only blank lines.")
        logger.info("%s: %d sentences", path, tally.rows - before - (tally.bad - used))
    tally.finish(paths)
    repeated = tally.rows - tally.bad - len(sentences)
    logger.info("%d different sentences, %d repeated", len(sentences), repeated)
    return list(sentences)


def read_pairs(
    path: Path,
    *,
    scores: Literal["required", "optional", "ignored"],
    score_range: tuple[float, float] | None = None,
    skip_bad: SkipBad | None = None,
    rejects: list[Reject] | None = None,
    columns: Sequence[str] = (),
) -> Pairs:
    """Read the pairs of a file, in order and with repetitions.

    Takes TSV (no quoting), CSV (a record is one line), JSONL and Parquet with sentence1, sentence2[, score],
    or text1, text2[, label], and .txt of `a||b` lines; the text forms also as .gz.

    scores: "ignored" never looks at them; with "optional" either all rows have one or none.
    score_range: its ends become 0 and 1, so (1, 0) turns labels round, and a score outside is a bad row; None
    keeps finite scores as they are.
    skip_bad, rejects: as for read_sentences. columns: other names of the two sides and the score.
    """
    low, high = score_range or (0.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high) and low != high):
        raise ConfigError(f"The score range {low:g} to {high:g} is not two different numbers.")
    names: tuple[Column, ...] = tuple((c,) for c in columns) or (*SIDES, SCORE)
    wanted = names[:2] if scores == "ignored" else names
    optional = (names[2],) if scores == "optional" else ()
    tally = _Tally(skip_bad, rejects)
    ids: dict[str, int] = {}
    left, right, values = array("q"), array("q"), array("f")
    scored: bool | None = None if scores == "optional" else scores == "required"
    for number, row in _rows(path, wanted, optional, tally):
        try:
            first, second = _text(names[0][0], row[0]), _text(names[1][0], row[1])
            found = scores != "ignored" and row[2] is not None
            if scored is not None and found != scored:
                raise _BadRow("the score is missing" if scored else "a score, where the rows above have none")
            if found:
                values.append(_score(row[2], score_range))
        except _BadRow as error:
            tally.reject(path, number, error)
            continue
        scored = found
        left.append(ids.setdefault(first, len(ids)))
        right.append(ids.setdefault(second, len(ids)))
    tally.finish([path])
    logger.info("%s: %d pairs of %d different sentences", path, len(left), len(ids))
    gold = np.array(values, np.float32) if scored else None
    return Pairs(list(ids), np.array(left, np.int64), np.array(right, np.int64), gold)


def columns_of(path: Path) -> list[str]:
    """Return the column names of a table, or the keys of the first line of a .jsonl; none for plain lines.

    Raises DataError for a file that cannot be read.
    """
    _check_file(path)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix == ".parquet":
        import pyarrow.parquet as pq  # local: heavy

        try:
            names: list[str] = pq.ParquetFile(path).schema_arrow.names
            return names
        except (OSError, ValueError) as error:  # what is wrong is told where the file is read
            raise DataError(f"{path}: cannot be read as Parquet: {_line(error)}") from None
    first = next((line for _, line in _lines(path)), "")
    if isinstance(first, _BadRow):
        return []
    try:
        if suffix == ".jsonl":
            keys: list[str] = list(_JSON.decode(first))
            return keys
        split = {".tsv": _split_tsv, ".csv": _split_csv}.get(suffix)
        return split(first) if split else []
    except (_BadRow, ValueError, TypeError, RecursionError):  # told where the file is read
        return []


def has_scores(path: Path) -> bool:
    """Tell whether a file has a column of scores or labels."""
    return any(name in SCORE for name in columns_of(path))


def is_table_of_pairs(path: Path) -> bool:
    """Tell whether a file has a column for each of two sides."""
    found = columns_of(path)
    return all(any(name in names for name in found) for names in SIDES)


def _text(name: str, value: object) -> str:
    if value is None:
        raise _BadRow(f"{name} is missing")
    if not isinstance(value, str):
        raise _BadRow(f"{name} is not text")
    if not value or value.isspace():
        raise _BadRow(f"{name} is empty")
    if UNTEXT.search(value):
        raise _BadRow(f"{name} holds a NUL or a lone surrogate, which no tokenizer can read")
    return value


def _score(value: object, score_range: tuple[float, float] | None) -> float:
    if isinstance(value, str):
        if not value:
            raise _BadRow("the score is missing")
        if not NUMBER.fullmatch(value):
            raise _BadRow(f"score {_show(value)} is not a number", "the score is not a number")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _BadRow(f"score {_show(value)} is not a number", "the score is not a number")
    number = float(value)
    if not abs(number) <= LARGEST:
        raise _BadRow(f"score {_show(value)} is not a finite 32-bit number", "the score is not finite")
    if score_range is None:
        return number
    low, high = score_range
    if not min(low, high) <= number <= max(low, high):
        limits = f"{min(low, high):g} to {max(low, high):g}"
        raise _BadRow(f"score {_show(value)} lies outside {limits}", f"the score lies outside {limits}")
    return (number - low) / (high - low)


def _show(value: object) -> str:
    """Show the start of a value from a file, with nothing in it that a terminal would obey."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    return json.dumps(value)


# Formats. Each opens a path and returns its numbered rows and a function that makes columns of one row.

Rows = tuple[Iterator[tuple[int, Any]], Callable[[Any], Sequence[object] | None]]


def _rows(
    path: Path, wanted: Sequence[Column], optional: Sequence[Column], tally: _Tally
) -> Iterator[tuple[int, Sequence[object]]]:
    """Yield (line, columns) of every readable row; count all rows and reject the others."""
    _check_file(path)
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in FORMATS or (suffix == ".parquet" and name.endswith(".gz")):
        known = list(FORMATS)
        raise DataError(
            f"{path}: unknown suffix '{path.suffix}'.{did_you_mean(suffix, known)} "
            f"Known: {', '.join(known)} (all but .parquet also with .gz)."
        )
    lines, parse = FORMATS[suffix](path, wanted, optional)
    for number, line in lines:
        try:
            if isinstance(line, _BadRow):
                raise line
            values = parse(line)
        except _BadRow as error:
            tally.rows += 1
            tally.reject(path, number, error)
            continue
        if values is not None:
            tally.rows += 1
            yield number, values


def _check_file(path: Path) -> None:
    """Refuse what is not a readable regular file; pipes and devices are not even opened."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        pattern = "; the pattern matches nothing" if any(c in str(path) for c in "*?[") else ""
        raise DataError(f"{path}: no such file{pattern}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{_show(str(path))}: cannot be read: {_why(error)}.") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a directory; name a file in it.")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is a pipe or a device; write its content to a file first.")


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unpacked, io.BufferedReader(unpacked, 1 << 16) as buffered:
                yield buffered
        elif start == b"\x1f\x8b":
            raise DataError(f"{path}:1: is compressed with gzip; name it {path.name}.gz.")
        else:
            yield raw


def _lines(path: Path) -> Iterator[tuple[int, str | _BadRow]]:
    """Yield numbered lines, holding at most one of LINE_LIMIT characters."""
    limit, number, size = 4 * LINE_LIMIT + 2, 0, 0  # a character has up to 4 bytes
    packed = path.name.lower().endswith(".gz")
    try:
        ceiling = max(GZIP_FREE, GZIP_RATIO * path.stat().st_size) if packed else math.inf
        with _opened(path) as file:
            while raw := file.readline(limit):
                number += 1
                size += len(raw)
                part = raw
                while len(part) == limit and not part.endswith(b"\n") and size <= ceiling:
                    part = file.readline(limit)  # the rest of a line that is too long
                    size += len(part)
                if size > ceiling:
                    raise DataError(f"{path}:{number}: unpacks to over {GZIP_RATIO} times its size.")
                yield number, _decode(path, number, raw) if part is raw else _BadRow(TOO_LONG)
    except (EOFError, zlib.error):
        raise DataError(f"{path}:{number + 1}: the gzip file is cut off or damaged.") from None
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}:{number + 1}: is not a sound gzip file: {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_why(error)}.") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a text file, also .gz; raise DataError as `file:line: reason` for a bad one."""
    _check_file(path)
    for number, line in _lines(path):
        if isinstance(line, _BadRow):
            raise DataError(f"{path}:{number}: {line}.")
        yield number, line


def _decode(path: Path, number: int, raw: bytes) -> str | _BadRow:
    if number == 1:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{path}:1: is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8.")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        where = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        return _BadRow(f"{where} is not UTF-8", "the line is not UTF-8")
    if len(text) > LINE_LIMIT:
        return _BadRow(TOO_LONG)
    if "\0" in text:
        return _BadRow("the line holds a NUL byte; is this a text file?")
    if "\r" in text:
        return _BadRow("the line holds a lone carriage return; end lines with \\n or \\r\\n")
    return text


def _plain(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
    """Read a sentence a line, or `a||b` lines."""

    def parse(line: str) -> Sequence[object] | None:
        if len(wanted) == 1:
            return None if not line or line.isspace() else (line,)
        sides = line.split("||")
        if len(sides) != 2:
            raise _BadRow(f"not two parts as in a||b but {len(sides)}", "not two parts as in a||b")
        return (*sides, None)

    if len(wanted) == 3 and not optional:
        raise DataError(f"{path}: a||b lines hold no scores; use .tsv, .csv, .jsonl or .parquet.")
    return _lines(path), parse


def _place(
    path: Path, found: Sequence[str], wanted: Sequence[Column], optional: Sequence[Column]
) -> list[int | None]:
    """Return the place of every wanted column among those found; None for an optional one not there."""
    places = [next((found.index(name) for name in names if name in found), None) for names in wanted]
    if any(place is None and names not in optional for place, names in zip(places, wanted, strict=True)):
        have = ", ".join(map(_show, found[:10])) + (", ..." if len(found) > 10 else "")
        needed = ", ".join(" or ".join(names) for names in wanted if names not in optional)
        raise DataError(
            f"{path}:1: not the columns needed. Found: {have}. Needed: {needed}. "
            "Add a header line, or rename the columns."
        )
    twice = [name for name, n in Counter(found).items() if n > 1 and any(name in names for names in wanted)]
    if twice:
        raise DataError(f"{path}:1: two columns are named {_show(twice[0])}; rename one.")
    return places


def _split_tsv(line: str) -> list[str]:
    return line.split("\t")


def _split_csv(line: str) -> list[str]:
    """Split one line, which is one record: a stray quote cannot swallow the lines after it."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        reason = str(error)
        if reason == "unexpected end of data":
            reason = "a quote is not closed on this line (text with line breaks: use .jsonl)"
        raise _BadRow(reason) from None


def _table(split: Callable[[str], list[str]]) -> Callable[[Path, Sequence[Column], Sequence[Column]], Rows]:
    def read(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
        lines = _lines(path)
        number, header = next(lines, (1, ""))
        try:
            if isinstance(header, _BadRow):
                raise header
            found = split(header)
        except _BadRow as error:
            raise DataError(f"{path}:{number}: the header cannot be read: {error}.") from None
        if not header:
            raise DataError(f"{path}:1: no header; the file is empty or starts with a blank line.")
        places = _place(path, found, wanted, optional)

        def parse(line: str) -> Sequence[object]:
            values = split(line)
            if len(values) != len(found):
                columns = f"{len(values)} column{'s' * (len(values) != 1)}"
                raise _BadRow(f"{columns}, the header has {len(found)}", "wrong number of columns")
            return [None if place is None else values[place] for place in places]

        return lines, parse

    return read


def _refuse_constant(name: str) -> object:
    raise _BadRow(f"{name} is not JSON", "not JSON")


def _object(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        twice = next(key for key, n in Counter(key for key, _ in members).items() if n > 1)
        raise _BadRow(f"key {_show(twice)} occurs twice", "a key occurs twice")
    return found


_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float, object_pairs_hook=_object)


def _jsonl(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
    def parse(line: str) -> Sequence[object]:
        try:
            found = _JSON.decode(line)
        except json.JSONDecodeError as error:
            raise _BadRow(f"not JSON: {error.msg} at column {error.colno}", "not JSON") from None
        except RecursionError:
            raise _BadRow("nested too deeply") from None
        if not isinstance(found, dict):
            raise _BadRow("not a JSON object")
        for names in wanted:
            if names not in optional and not any(name in found for name in names):
                have = ", ".join(map(_show, list(found)[:10])) or "none"
                missing = f"no key {' or '.join(map(repr, names))}"
                raise _BadRow(f"{missing} (keys: {have})", missing)
        return [next((found[name] for name in names if name in found), None) for names in wanted]

    return _lines(path), parse


def _parquet(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Rows:
    import pyarrow as pa  # local: heavy, and only this format needs it
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)
    try:
        file = pq.ParquetFile(path)
    except damage as error:
        raise DataError(f"{path}: cannot be read as Parquet: {_line(error)}") from None
    schema = file.schema_arrow
    places = _place(path, schema.names, wanted, optional)
    named = [None if place is None else schema.names[place] for place in places]
    for column, names in zip(named, wanted, strict=True):
        if column is None:
            continue
        kind = schema.field(column).type
        plain = str(kind.value_type if pa.types.is_dictionary(kind) else kind)
        if names in wanted[:2] and plain not in ("string", "large_string", "string_view"):
            raise DataError(f"{path}: column {_show(column)} is {kind}, not string.")
        if names in wanted[2:] and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise DataError(f"{path}: column {_show(column)} is {kind}, not a number.")

    def rows() -> Iterator[tuple[int, Any]]:
        number = 0
        try:
            for batch in file.iter_batches(4096, columns=[name for name in named if name is not None]):
                columns = []
                for name in named:
                    values = None if name is None else batch.column(name)
                    if values is None:
                        columns.append([None] * len(batch))
                    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
                        columns.append(values.to_pylist())
                    else:  # as bytes: text that is not UTF-8 costs its row, not the file
                        columns.append(values.cast(pa.large_string()).cast(pa.large_binary()).to_pylist())
                for row in zip(*columns, strict=True):
                    number += 1
                    yield number, row
        except damage as error:
            raise DataError(f"{path}:{number + 1}: cannot be read as Parquet: {_line(error)}") from None

    def parse(row: Sequence[object]) -> Sequence[object]:
        try:
            return [value.decode() if isinstance(value, bytes) else value for value in row]
        except UnicodeDecodeError:
            raise _BadRow("the text is not UTF-8") from None

    return rows(), parse


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


FORMATS: dict[str, Callable[[Path, Sequence[Column], Sequence[Column]], Rows]] = {
    ".txt": _plain,
    ".tsv": _table(_split_tsv),
    ".csv": _table(_split_csv),
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


# Writing.


def write_pairs(pairs: Pairs, path: Path) -> None:
    """Write pairs, and scores if there are any, as .tsv, .jsonl or .parquet; equal pairs give equal bytes.

    The file appears whole or not at all. What is written reads back equal; text that could not, such as a tab
    in .tsv, and NaN raise DataError.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path}: pairs are written as {', '.join(SUFFIXES_OUT)}, not '{path.suffix}'.")
    if pairs.scores is not None and not np.isfinite(pairs.scores).all():
        first = int(np.flatnonzero(~np.isfinite(pairs.scores))[0])
        raise DataError(f"{path}: the score of pair {first + 1} is {pairs.scores[first]}.")
    for sentence in pairs.sentences:
        try:
            _text("it", sentence)
        except _BadRow as error:
            raise DataError(f"{path}: sentence {_show(sentence)} cannot be written: {error}.") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            WRITERS[path.suffix](pairs, file, path)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {_why(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _numbers(pairs: Pairs) -> list[float]:
    """Return the shortest decimals that read back as the same float32, or nothing for unscored pairs."""
    return [] if pairs.scores is None else [float(str(score)) for score in pairs.scores]


def _write_tsv(pairs: Pairs, file: BinaryIO, path: Path) -> None:
    for sentence in pairs.sentences:
        if any(c in sentence for c in "\t\n\r"):
            raise DataError(
                f"{path}: sentence {_show(sentence)} holds a tab or a line break; write .jsonl or .parquet."
            )
    numbers = _numbers(pairs)
    file.write(b"sentence1\tsentence2" + (b"\tscore\n" if pairs.scores is not None else b"\n"))
    for i, (first, second) in enumerate(pairs.rows()):
        end = f"\t{numbers[i]!r}\n" if numbers else "\n"
        file.write(f"{first}\t{second}{end}".encode())


def _write_jsonl(pairs: Pairs, file: BinaryIO, path: Path) -> None:
    numbers = _numbers(pairs)
    for i, (first, second) in enumerate(pairs.rows()):
        row: dict[str, object] = {"sentence1": first, "sentence2": second}
        if numbers:
            row["score"] = numbers[i]
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _write_parquet(pairs: Pairs, file: BinaryIO, path: Path) -> None:
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


WRITERS: dict[str, Callable[[Pairs, BinaryIO, Path], None]] = {
    ".tsv": _write_tsv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
SUFFIXES_OUT = tuple(WRITERS)
