"""The command line and its one error boundary."""

from __future__ import annotations

import gc
import os
import re
import sys
import traceback

import typer

from transenc import cores
from transenc.cli import backends, cycle, distill, evaluate, export, label, prime
from transenc.cli.console import note
from transenc.cli.help import Command
from transenc.errors import ConfigError, TransencError, of_machine

SHOWN = 200  # characters of a word of an error that has more than a path may
LONG = re.compile(r"\S{4097,}")

app = typer.Typer(
    name="transenc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing boxes around help would take longer than all the rest of it
    help="Turn a pretrained language model and unlabelled sentences into a bi-encoder and a cross-encoder.",
)
app.command("cycle", cls=Command, short_help="Run the whole method: pairs, labels, training, evaluation.")(
    cycle.cycle
)
app.command(
    "prime", cls=Command, short_help="Prime a bi-encoder on sentences or on pairs that belong together."
)(prime.prime)
app.command("label", cls=Command, short_help="Score pairs, given or mined, with one or several models.")(
    label.label
)
app.command("distill", cls=Command, short_help="Train a bi- or cross-encoder on scored pairs.")(
    distill.distill
)
app.command("evaluate", cls=Command, short_help="Compare models with people, on tasks or your own pairs.")(
    evaluate.evaluate
)
export.app.rich_markup_mode = None
app.add_typer(export.app, name="export", short_help="Export models as checked engines.")
app.command(
    "backends",
    cls=Command,
    short_help="List what can be named: samplers, starts, objectives, recipes, tasks.",
)(backends.backends)


def _version(value: bool) -> None:
    if value:
        from transenc import __version__
        from transenc.cli.console import out

        out(f"transenc {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Turn a pretrained language model and unlabelled sentences into a bi-encoder and a cross-encoder."""
    if debug:
        os.environ["TRANSENC_DEBUG"] = "1"


def _fill_streams() -> None:
    """Give closed standard streams (`>&-`) to the null device; else the next files that are opened would be these."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)  # for the processes of --devices as well
    os.close(handle)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def main() -> None:
    """Run the command line; an expected error is one line on stderr and its documented exit code."""
    _fill_streams()
    # Imports make hundreds of thousands of objects and no garbage; Python looks for it among every 700 new ones.
    gc.set_threshold(20_000, 10, 10)
    # The tokenizer's thread pool is not used around forks here; this only silences its warning about them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    cores.limit()  # torch and numpy do not see a container's limit
    if "--offline" in sys.argv:  # the hub's client asks for it when it is imported
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        _check_utf8(sys.argv)
        app(prog_name="transenc")  # of `python -m transenc` no shell could make a completion
    except TransencError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Stopped.", 130)
    except SystemExit as left:
        # Where the reader has gone (`| head`), the command line's library ends with 1, as after a bug.
        if left.code == 1 and isinstance(left.__context__, BrokenPipeError):
            sys.exit(141)
        raise
    except Exception as error:
        if (found := of_machine(error)) is not None:
            _fail(str(found), found.exit_code)
        name = type(error).__name__
        _fail(f"internal error, please report it: {name}: {error} (--debug shows where)", 1)


def _check_utf8(arguments: list[str]) -> None:
    """Refuse arguments that no result, manifest or line of output could name."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode("utf-8", "backslashreplace")
            raise ConfigError(f"'{shown}' is not UTF-8: rename that file or directory.") from None


def _fail(message: str, code: int) -> None:
    try:
        if os.environ.get("TRANSENC_DEBUG"):
            traceback.print_exc()
        # Of a word that no path or setting is as long as, the beginning tells which it is.
        note(f"transenc: {LONG.sub(lambda found: found[0][:SHOWN] + '...', message)}")
    except OSError:
        # A full disk, a reader that is gone: Python would try again at its end, and exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(code)
