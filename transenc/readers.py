"""Read the user's sentences and pairs strictly: every row is used or reported as `file:line: reason`."""

from __future__ import annotations

import logging
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from transenc.errors import ConfigError, DataError
from transenc.formats import FORMATS, Column, columns_of, suffix_of
from transenc.lines import BadRow, check_file, show, usable_text
from transenc.pairs import Pairs
from transenc.registry import did_you_mean

logger = logging.getLogger(__name__)

SHOWN = 20  # bad rows listed in an error
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # float() takes "1_0" and "nan"
LARGEST = float(str(np.finfo(np.float32).max))  # as it is written: a little above it, and rounded back to it

SENTENCE = (("sentence", "text"),)
SIDES = (("sentence1", "text1"), ("sentence2", "text2"))
SCORE = ("score", "label")


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
    def parse(cls, text: str | None) -> SkipBad | None:
        """Read `5` or `2%`; None skips nothing."""
        if text is None:
            return None
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


@dataclass
class _Tally:
    """Count rows, collect the bad ones and decide at the end whether they may be skipped."""

    skip_bad: SkipBad | None
    rejects: list[Reject] | None
    rows: int = 0
    bad: int = 0
    first: list[Reject] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def reject(self, path: Path, line: int, error: BadRow) -> None:
        self.bad += 1
        self.kinds[error.kind] += 1
        found = Reject(str(path), line, str(error))
        if len(self.first) <= SHOWN:
            self.first.append(found)
        if self.rejects is not None:
            self.rejects.append(found)

    def finish(self, path: Path, of: str) -> None:
        if not self.rows:
            raise DataError(f"{path}: no {of}; the file is empty or holds only blank lines.")
        if not self.bad:
            return
        count = f"{self.bad} bad {'row' if self.bad == 1 else 'rows'} of {self.rows}"
        if self.skip_bad is not None and self.skip_bad.allows(self.bad, self.rows) and self.bad < self.rows:
            reasons = "; ".join(f"{n} x {kind}" for kind, n in self.kinds.most_common())
            logger.warning("%s: %s skipped: %s", path, count, reasons)
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
    paths: Sequence[Path | str] | Path | str,
    *,
    skip_bad: SkipBad | None = None,
    rejects: list[Reject] | None = None,
) -> list[str]:
    """Read the sentences of one or more files in order, each distinct one once.

    Takes .txt (a sentence a line; blank lines separate and are no rows), .csv and .tsv with a column sentence
    or text, .jsonl with such a key (all also .gz), and .parquet. Raises DataError for more bad rows in a file than
    skip_bad allows (none if None), for a file without a usable row and for one of pairs. rejects: receives every
    bad row.
    """
    sentences: dict[str, None] = {}
    used = 0
    for path in map(Path, [paths] if isinstance(paths, Path | str) else paths):
        tally = _Tally(skip_bad, rejects)
        plain, bars = suffix_of(path) == ".txt", 0
        if _has(SIDES, found := columns_of(path)) and not _has(SENTENCE, found):
            raise DataError(
                f"{path}:1: pairs, where sentences are needed: give it by --pairs, or a file with a column sentence "
                "or text."
            )
        for number, values in _rows(path, SENTENCE, (), tally):
            try:
                text = usable_text("sentence", values[0])
            except BadRow as error:
                tally.reject(path, number, error)
                continue
            sentences.setdefault(text)
            if plain and len(sides := text.split("||")) == 2 and all(sides):
                bars += 1
        if bars and bars == tally.rows - tally.bad:
            raise DataError(
                f"{path}:1: a||b lines are pairs, where sentences are needed: give it by --pairs, or a file with a "
                "sentence a line."
            )
        tally.finish(path, "sentences")
        used += tally.rows - tally.bad
        logger.info("%s: %d sentences", path, tally.rows - tally.bad)
    logger.info("%d different sentences, %d repeated", len(sentences), used - len(sentences))
    return list(sentences)


def read_pairs(
    path: Path | str,
    *,
    scores: Literal["required", "optional", "ignored"],
    score_range: tuple[float, float] | None = None,
    skip_bad: SkipBad | None = None,
    rejects: list[Reject] | None = None,
    columns: Sequence[str] = (),
) -> Pairs:
    """Read the pairs of a file, in order and with repetitions.

    Takes TSV (no quoting), CSV (texts in quotes may have line breaks), JSONL and Parquet with sentence1,
    sentence2[, score], or text1, text2[, label], and .txt of `a||b` lines; the text forms also as .gz.

    scores: "ignored" never looks at them; with "optional" either all rows have one or none.
    score_range: its ends become 0 and 1, so (1, 0) turns labels round, and a score outside is a bad row; None
    keeps finite scores as they are.
    skip_bad, rejects: as for read_sentences. columns: other names of the two sides and the score.
    """
    path = Path(path)
    low, high = score_range or (0.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high) and low != high):
        raise ConfigError(f"The score range {low:g} to {high:g} is not two different numbers.")
    names: tuple[Column, ...] = _named(columns) or (*SIDES, SCORE)
    wanted = names[:2] if scores == "ignored" else names
    optional = (names[2],) if scores == "optional" else ()
    tally = _Tally(skip_bad, rejects)
    ids: dict[str, int] = {}
    left, right, values = array("q"), array("q"), array("f")
    scored: bool | None = None if scores == "optional" else scores == "required"
    for number, row in _rows(path, wanted, optional, tally):
        try:
            first, second = usable_text(names[0][0], row[0]), usable_text(names[1][0], row[1])
            found = scores != "ignored" and row[2] is not None
            if scored is not None and found != scored:
                raise BadRow("the score is missing" if scored else "a score, where the rows above have none")
            if found:
                values.append(_score(row[2], score_range))
        except BadRow as error:
            tally.reject(path, number, error)
            continue
        scored = found
        left.append(ids.setdefault(first, len(ids)))
        right.append(ids.setdefault(second, len(ids)))
    tally.finish(path, "rows")
    logger.info("%s: %d pairs of %d different sentences", path, len(left), len(ids))
    gold = np.array(values, np.float32) if scored else None
    return Pairs(list(ids), np.array(left, np.int64), np.array(right, np.int64), gold)


def column_names(given: str | None, *, scored: bool, file: Path | None = None) -> tuple[str, ...]:
    """Return the names that --columns gives to the two sides and the score, which only `scored` pairs need.

    Raises ConfigError for names that are not that many, and for any that are meant for a `file` without columns.
    """
    if given is None:
        return ()
    if file is not None and suffix_of(file) == ".txt":
        raise ConfigError(f"{file}: a||b lines have no columns that --columns could name: leave it out.")
    names = tuple(name.strip() for name in given.split(","))
    if not all(names) or len(set(names)) < len(names) or len(names) not in ((3,) if scored else (2, 3)):
        wanted = "both sides and the score, as q1,q2,is_duplicate" if scored else "both sides, as q1,q2"
        raise ConfigError(f"--columns names the columns of {wanted}, not '{given}'.")
    return names


def has_scores(path: Path, columns: Sequence[str] = ()) -> bool:
    """Tell whether a file has a column of scores or labels; columns: as for read_pairs."""
    return any(name in (columns[2:] or SCORE) for name in columns_of(path))


def is_table_of_pairs(path: Path, columns: Sequence[str] = ()) -> bool:
    """Tell whether a file has a column for each of two sides; columns: as for read_pairs."""
    return _has((_named(columns) or SIDES)[:2], columns_of(path))


def _has(wanted: Sequence[Column], found: Sequence[str]) -> bool:
    """Tell whether each wanted column is found, by any of its names."""
    return all(any(name in found for name in names) for names in wanted)


def _named(columns: Sequence[str]) -> tuple[Column, ...]:
    return tuple((name,) for name in columns)


def _score(value: object, score_range: tuple[float, float] | None) -> float:
    if isinstance(value, str):
        if not value:
            raise BadRow("the score is missing")
        if not NUMBER.fullmatch(value):
            if NUMBER.fullmatch(value.replace(",", ".")):
                raise BadRow(
                    f"score {show(value)} is not a number: it takes a decimal point", "a decimal comma"
                )
            raise BadRow(f"score {show(value)} is not a number", "the score is not a number")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRow(f"score {show(value)} is not a number", "the score is not a number")
    number = float(value)
    if not abs(number) <= LARGEST:
        raise BadRow(f"score {show(value)} is not a finite 32-bit number", "the score is not finite")
    if score_range is None:
        return number
    low, high = score_range
    if not min(low, high) <= number <= max(low, high):
        limits = f"{min(low, high):g} to {max(low, high):g}"
        raise BadRow(f"score {show(value)} lies outside {limits}", f"the score lies outside {limits}")
    return (number - low) / (high - low)


def _rows(
    path: Path, wanted: Sequence[Column], optional: Sequence[Column], tally: _Tally
) -> Iterator[tuple[int, Sequence[object]]]:
    """Yield (line, columns) of every readable row; count all rows and reject the others."""
    check_file(path)
    suffix = suffix_of(path)
    if suffix not in FORMATS or (suffix == ".parquet" and path.name.lower().endswith(".gz")):
        known = list(FORMATS)
        raise DataError(
            f"{path}: unknown suffix '{path.suffix}'.{did_you_mean(suffix, known)} "
            f"Known: {', '.join(known)} (all but .parquet also with .gz)."
        )
    lines, parse = FORMATS[suffix](path, wanted, optional)
    for number, line in lines:
        try:
            if isinstance(line, BadRow):
                raise line
            values = parse(line)
        except BadRow as error:
            tally.rows += 1
            tally.reject(path, number, error)
            continue
        if values is not None:
            tally.rows += 1
            yield number, values
