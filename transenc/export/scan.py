"""Read what an ONNX file refers to, before anything loads it: operator libraries and files of weights."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from transenc.errors import DamagedError, RefusedError
from transenc.export.wire import fields

DOMAINS = ("", "ai.onnx.ml", "com.microsoft")  # operators that onnxruntime itself carries

# The parts of an ONNX file (onnx.proto) through which it can name an operator library or another file:
# message, field number, and the message, or in lower case the text, held there.
_PARTS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Opset", 20: "Training", 25: "Function"},
    "Opset": {1: "domain"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 9: "Opset", 10: "domain", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute", 7: "domain"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {1: "key", 2: "value"},
}


def refuse_foreign(graph: Path) -> list[str]:
    """Refuse a graph with operators from elsewhere or weights outside its directory, before anything loads it.

    Returns the files beside it that hold weights.
    """
    folder = graph.resolve().parent
    with graph.open("rb") as file:
        if not graph.stat().st_size:
            raise DamagedError(f"{graph} is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                found = set(_texts(data))
            except (IndexError, ValueError) as error:
                raise DamagedError(f"{graph} is not an ONNX file: {error}") from error
    for kind, text in sorted(found):
        if kind != "location" and text not in DOMAINS:
            raise RefusedError(f"{graph} uses operators of '{text}', which would run code from elsewhere.")
        if kind == "location" and (folder / text).resolve().parent != folder:
            raise RefusedError(f"{graph} keeps weights in '{text}', which leaves its directory.")
    used, declared = ({text for kind, text in found if kind == part} for part in ("Node", "Opset"))
    if not used or not used <= declared:  # declared last: a file that was cut where a field ends lacks some
        raise DamagedError(f"{graph} is cut short: it lacks operators, or which versions of them it uses.")
    return sorted(text for kind, text in found if kind == "location")


def _texts(data: mmap.mmap) -> Iterator[tuple[str, str]]:
    """Yield ("location", path), and the domain of every node, operator set and function with that message's name."""
    stack = [("Model", 0, len(data))]
    while stack:  # not recursion: a hostile file could nest deeper than Python's own stack
        kind, start, end = stack.pop()
        entry: dict[str, str] = {}
        for number, _, low, high in fields(data, start, end):
            part = _PARTS[kind].get(number)
            if part is None or low is None:
                continue
            if part[0].isupper():
                stack.append((part, low, high))
            else:
                entry[part] = data[low:high].decode()
        if kind in ("Node", "Opset", "Function"):
            name = entry.get("domain", "")
            yield kind, "" if name == "ai.onnx" else name  # two names of one
        if entry.get("key") == "location":
            yield "location", entry.get("value", "")
