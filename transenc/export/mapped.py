"""Let onnxruntime take the weights of an engine from where they lie in its file, instead of a copy of a copy."""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path

from transenc.errors import DamagedError
from transenc.export.wire import Field, content, fields, number

# Bytes from which on a tensor stays in the file. onnxruntime wants the small ones, which tell shapes, in the model.
LEAST = 1024
MODEL_GRAPH, GRAPH_INITIALIZER = 7, 5  # numbers of onnx.proto
TENSOR_RAW, TENSOR_EXTERNAL, TENSOR_LOCATION = 9, 13, 14
KEY, VALUE = 1, 2  # of an entry of a tensor's place


def weightless(graph: Path) -> bytes | None:
    """Return the model of an ONNX file with each weight replaced by its place in that file: a few hundred kB.

    Loaded so, minilm's file opens in less than half of the time and needs half of the memory: onnxruntime maps it,
    where it else parses the whole of it into messages and then copies those. None if the file leaves weights to
    another one already. Raises DamagedError for what is no ONNX file.
    """
    try:
        with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            parts = []
            for field in fields(data, 0, len(data)):
                if field.number != MODEL_GRAPH or field.low is None:
                    parts.append(data[field.begin : field.high])
                    continue
                inner = _graph(data, field.low, field.high, graph.name)
                if inner is None:
                    return None
                parts.append(content(MODEL_GRAPH, inner))
    except (IndexError, ValueError) as error:
        raise DamagedError(f"{graph} is not an ONNX file: {error}") from error
    return b"".join(parts)


def _graph(data: mmap.mmap, begin: int, end: int, name: str) -> bytes | None:
    """Return the content of a graph with its weights by place; None if one has a place already."""
    parts = []
    for field in fields(data, begin, end):
        placed = None
        if field.number == GRAPH_INITIALIZER and field.low is not None:
            tensor = list(fields(data, field.low, field.high))
            if any(part.number == TENSOR_EXTERNAL for part in tensor):
                return None
            placed = _by_place(data, tensor, name)
        parts.append(placed or data[field.begin : field.high])
    return b"".join(parts)


def _by_place(data: mmap.mmap, tensor: list[Field], name: str) -> bytes | None:
    """Return a tensor as a field of its graph with its place instead of its numbers; None if it keeps these."""
    raws = [part for part in tensor if part.number == TENSOR_RAW]
    if len(raws) != 1:  # kept otherwise, or replaced by a later field
        return None
    [raw] = raws
    if raw.low is None or raw.high - raw.low < LEAST:
        return None
    place = {"location": name, "offset": str(raw.low), "length": str(raw.high - raw.low)}
    entries = [content(KEY, key.encode()) + content(VALUE, value.encode()) for key, value in place.items()]
    parts = [
        data[part.begin : part.high] for part in tensor if part.number not in (TENSOR_RAW, TENSOR_LOCATION)
    ]
    parts += [content(TENSOR_EXTERNAL, entry) for entry in entries]
    return content(GRAPH_INITIALIZER, b"".join(parts) + number(TENSOR_LOCATION, 1))


class Watched:
    """A file that decides scores: which one is named, and that nobody writes into it while an engine reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # By handle: once it is loaded, a file that takes its name does not matter.
        self._handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self._found = _state(os.fstat(self._handle))

    def check_loaded(self) -> None:
        """Raise DamagedError if its name is another file's by now, or it was written into: either may be loaded."""
        try:
            same = _state(self.path.stat()) == self._found
        except OSError:
            same = False
        if not same:
            raise DamagedError(f"{self.path} was replaced while its engine was loaded. Load it again.")

    def check(self) -> None:
        """Raise DamagedError if something was written into the file since it was opened."""
        if _state(os.fstat(self._handle)) != self._found:
            raise DamagedError(
                f"{self.path} was written into while its engine was in use, so its scores may be of two models. Load "
                "it again, and replace engines as `transenc export` does: by another directory of that name."
            )


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
