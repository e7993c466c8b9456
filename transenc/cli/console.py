"""The only place that prints: results to stdout, progress and notices to stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transenc.progress import Progress
    from transenc.stage import Stage

PLAIN_SECONDS = 10.0
NAME = 16  # characters that a table leaves to its first column, at least
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed


def visible(text: str) -> str:
    """Return a text with its control characters written as JSON writes them: a stranger's text may hold any."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def out(text: str) -> None:
    """Print a line of results."""
    _write(visible(text) + "\n")


def _write(text: str) -> None:
    # As stderr does by itself: a stream of few characters (LC_ALL, PYTHONIOENCODING) is no reason to lose results.
    coding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(coding, "backslashreplace").decode(coding))
    sys.stdout.flush()


def out_json(value: Any) -> None:
    """Print one JSON object on one line."""
    # Where stdout takes not every character, they are escaped as JSON does, so that it parses.
    whole = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")
    out(json.dumps(value, ensure_ascii=not whole, allow_nan=False))


def note(text: str) -> None:
    """Print a line of notice."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table whose first column is text, folded where a terminal is narrow; the others are shown whole."""
    from rich.box import SIMPLE
    from rich.cells import cell_len
    from rich.table import Table

    shown = Table(box=SIMPLE, pad_edge=False)
    for i, column in enumerate(columns):
        if i == 0:
            shown.add_column(column, overflow="fold", min_width=NAME)
        else:
            width = max(cell_len(cell) for cell in (column, *(row[i] for row in rows)))
            shown.add_column(column, justify="right", no_wrap=True, min_width=width)
    _print_table(shown, rows, title, whole=True)


def figures(root: str, about: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of models and their figures; where nothing was measured, whose they would be alone."""
    if columns:
        table(["model", *columns], rows, title=f"{root}  ({about})")
    else:
        out(root)


def wide_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table of texts that wrap."""
    from rich.box import SIMPLE
    from rich.table import Table

    _print_table(Table(*columns, box=SIMPLE, pad_edge=False), rows, title, whole=False)


def _print_table(shown: Any, rows: Sequence[Sequence[str]], title: str | None, *, whole: bool) -> None:
    """Print a table of these rows; whole: wider than the terminal, or a file's 160, if it must be."""
    from rich.console import Console
    from rich.markup import escape

    for row in rows:
        shown.add_row(*(escape(visible(cell)) for cell in row))
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else 160, highlight=False)
    if whole:
        needed = Console(width=10_000).measure(shown)
        console.width = max(console.width, needed.minimum if terminal else needed.maximum)
    with console.capture() as captured:  # printing itself, rich would take a closed pipe for its own affair
        console.print(shown)
    if title:
        out(title)  # rich would wrap a title to the width of its table
    _write(captured.get())


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        note(prefix + record.getMessage())


def log_to_stderr() -> None:
    """Show the library's log as plain lines on stderr."""
    logger = logging.getLogger("transenc")
    if not any(isinstance(h, _Handler) for h in logger.handlers):
        logger.addHandler(_Handler())
        logger.setLevel(logging.INFO)
        # Which files were read, and how many rows were used, is told by the commands themselves.
        logging.getLogger("transenc.readers").setLevel(logging.WARNING)


class Reporter:
    """Show how a run proceeds: a live bar on a terminal, elsewhere a plain line every few seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0
        self.last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._label = ""
        self._first: tuple[Progress, float] | None = None  # of the stage, and when it came
        self._live = sys.stderr.isatty()

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Keep the bar on screen for the block."""
        if not self._live:
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        with Progress(*columns, console=Console(file=sys.stderr), transient=True) as self._bar:
            yield

    def stage(self, stage: Stage, what: str) -> None:
        """Tell that a stage starts, finishes or was done before."""
        if what in ("start", "done before"):
            self.number += 1
        self.last, self._first = time.monotonic(), None
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
                self._task = None
            if what == "start":
                self._label = f"[{self.number}/{self.total}] {stage.name}"
                self._task = self._bar.add_task(self._label, total=None, facts="")
        elif what == "start":
            note(f"[{self.number}/{self.total}] {stage.name}")

    def progress(self, progress: Progress) -> None:
        """Tell how far the current stage is."""
        facts = "" if progress.loss is None else f"loss {progress.loss:.4f}"
        if progress.metric is not None:
            facts += f"  best so far {100 * progress.metric:.2f}"
        if self._bar is not None:
            label = self._label or progress.stage  # `label` and `distill` have no stages
            if self._task is None:
                self._task = self._bar.add_task(label, total=None, facts="")
            self._bar.update(
                self._task, description=label, completed=progress.done, total=progress.total, facts=facts
            )
            return
        now = time.monotonic()
        if self._first is None or self._first[0].stage != progress.stage:
            self._first = progress, now  # before it, a model may have been loaded, or a checkpoint taken up
        first, began = self._first
        if now - self.last >= PLAIN_SECONDS and progress.done > first.done:
            self.last = now
            left = (now - began) / (progress.done - first.done) * (progress.total - progress.done)
            note(f"    {progress.done:,}/{progress.total:,}  {facts}  about {left:.0f} s left")
