"""Ctrl-C and SIGTERM as a flag that long work looks at between two steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from transenc.errors import Interrupted


class StopFlag:
    """Remember the first signal; `check` turns it into Interrupted at a safe point."""

    def __init__(self) -> None:
        self.signum: int | None = None

    @property
    def requested(self) -> bool:
        """Tell whether a signal has come."""
        return self.signum is not None

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.signum is not None:
            name = signal.Signals(self.signum).name
            raise Interrupted(f"Stopped by {name}. The same command continues from here.", self.signum)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Catch SIGINT and SIGTERM for the block: the first sets the flag, a second one ends the process at once."""
    flag = StopFlag()

    def handle(signum: int, frame: FrameType | None) -> None:
        if flag.requested:
            os._exit(128 + signum)
        flag.signum = signum

    caught = (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.signal(signum, handle) for signum in caught}
    try:
        yield flag
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)
