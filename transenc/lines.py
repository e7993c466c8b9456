"""Lines of text files as they are: numbered, of bounded length, each usable or a bad row with its reason.

Only a line feed (or a carriage return and a line feed) ends a line, so U+2028, U+0085 and form feeds stay
inside a sentence.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from transenc.errors import DataError

LINE_LIMIT = 1 << 20  # characters; a longer line is a bad row and is never held in memory
TOO_LONG = f"the line is longer than {LINE_LIMIT} characters"
# What unpacks to more than 32 MiB, and 200 times as much as was read of it, is a bomb, not text.
GZIP_RATIO = 200
GZIP_FREE = 1 << 25
UNTEXT = re.compile("[\x00\ud800-\udfff]")  # NUL and lone surrogates


class BadRow(Exception):
    """Why a row cannot be used; `kind` is the reason without the row's own content, to count by."""

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.kind = kind or reason


def check_file(path: Path) -> None:
    """Refuse what is not a readable regular file; pipes and devices are not even opened."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        pattern = "; the pattern matches nothing" if any(c in str(path) for c in "*?[") else ""
        raise DataError(f"{path}: no such file{pattern}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{show(str(path))}: cannot be read: {why(error)}.") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a directory; name a file in it.")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is a pipe or a device; write its content to a file first.")


def why(error: Exception) -> str:
    """Return the reason of an error of the operating system, else its text."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class _Bomb(Exception):
    """Why a file is not unpacked further."""


class _Unpacked(gzip.GzipFile):
    """A gzip file that raises _Bomb instead of going on for ever."""

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__(fileobj=packed)
        self.packed = packed

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes unpacked."""
        data = super().read(size)
        if self.tell() > max(GZIP_FREE, GZIP_RATIO * self.packed.tell()):
            raise _Bomb
        return data


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        if path.name.lower().endswith(".gz"):
            with _Unpacked(raw) as unpacked, io.BufferedReader(unpacked, 1 << 16) as buffered:
                yield buffered
        elif start == b"\x1f\x8b":
            raise DataError(f"{path}:1: is compressed with gzip; name it {path.name}.gz.")
        else:
            yield raw


def text_lines(path: Path) -> Iterator[tuple[int, str | BadRow]]:
    """Yield numbered lines, holding at most one of LINE_LIMIT characters."""
    limit, number = 4 * LINE_LIMIT + 2, 0  # a character has up to 4 bytes
    try:
        with _opened(path) as file:
            while raw := file.readline(limit):
                number += 1
                part = raw
                while len(part) == limit and not part.endswith(b"\n"):
                    part = file.readline(limit)  # the rest of a line that is too long
                yield number, _decode(path, number, raw) if part is raw else BadRow(TOO_LONG)
    except _Bomb:
        raise DataError(f"{path}:{number + 1}: unpacks to over {GZIP_RATIO} times its size.") from None
    except (EOFError, zlib.error):
        raise DataError(f"{path}:{number + 1}: the gzip file is cut off or damaged.") from None
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}:{number + 1}: is not a sound gzip file: {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {why(error)}.") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a text file, also .gz; raise DataError as `file:line: reason` for a bad one."""
    check_file(path)
    for number, line in text_lines(path):
        if isinstance(line, BadRow):
            raise DataError(f"{path}:{number}: {line}.")
        yield number, line


def _decode(path: Path, number: int, raw: bytes) -> str | BadRow:
    if number == 1:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{path}:1: is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8.")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        where = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        way = "if the file is Windows-1252: iconv -f WINDOWS-1252 -t UTF-8"
        return BadRow(f"{where} is not UTF-8; {way}", "the line is not UTF-8")
    if len(text) > LINE_LIMIT:
        return BadRow(TOO_LONG)
    if "\0" in text:
        return BadRow("the line holds a NUL byte; is this a text file?")
    if "\r" in text:
        return BadRow("the line holds a lone carriage return; end lines with \\n or \\r\\n")
    return text


def usable_text(name: str, value: object) -> str:
    """Return a text that a tokenizer can read; raise BadRow for anything else."""
    if value is None:
        raise BadRow(f"{name} is missing")
    if not isinstance(value, str):
        raise BadRow(f"{name} is not text")
    if not value or value.isspace():
        raise BadRow(f"{name} is empty")
    if UNTEXT.search(value):
        raise BadRow(f"{name} holds a NUL or a lone surrogate, which no tokenizer can read")
    return value


def show(value: object) -> str:
    """Show the start of a value from a file, without control characters that a terminal would obey."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    return json.dumps(value)


def one_line(error: Exception | str) -> str:
    """Return the start of an error's text without line breaks and other control characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
