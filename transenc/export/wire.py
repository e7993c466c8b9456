"""Read and write the fields of a protobuf message: an ONNX file is one. Done here so that no package is needed."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple


class Field(NamedTuple):
    """A field of a message: its number, and where it begins, where its content does, and where both end.

    low: None if it is a number, which has no content of a length of its own.
    """

    number: int
    begin: int
    low: int | None
    high: int


def fields(data: mmap.mmap, position: int, end: int) -> Iterator[Field]:
    """Yield the fields between two positions; raise ValueError or IndexError where they are none."""
    while position < end:
        begin = position
        tag, position = _varint(data, position)
        wire, low = tag & 7, None
        if wire == 0:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == 2:
            size, low = _varint(data, position)
            position = low + size
            if position > end:
                raise ValueError("a field is longer than its message")
        else:
            raise ValueError(f"wire type {wire}")
        yield Field(tag >> 3, begin, low, position)


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number is too long")


def number(field: int, value: int) -> bytes:
    """Return a field that is a number of at least 0."""
    return _bytes(field << 3) + _bytes(value)


def content(field: int, value: bytes) -> bytes:
    """Return a field that holds text, bytes or a message."""
    return _bytes(field << 3 | 2) + _bytes(len(value)) + value


def _bytes(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
