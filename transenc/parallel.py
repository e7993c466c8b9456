"""Run students' stages of one half-cycle side by side, one process a device.

A process has its own random generators, so each stage gives the bytes that it gives alone.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NoReturn

from transenc.errors import Interrupted, MachineError, TransencError, of_machine
from transenc.interrupt import StopFlag
from transenc.models.device import Compute
from transenc.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

    from transenc.runner import Runner
    from transenc.stage import Stage
    from transenc.stages.context import Context

Info = dict[str, Any]


class SharedStop(StopFlag):
    """A stop flag that the parent process sets."""

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def signum(self) -> int | None:
        """Return the signal that has come, if any."""
        return int(self._value.value) or None

    @signum.setter
    def signum(self, signum: int | None) -> None:
        self._value.value = signum or 0


@dataclass
class Worker:
    """One process that does stages on one device."""

    process: BaseProcess
    pipe: Connection
    busy: Stage | None = None


@dataclass
class Workers:
    """A process for each device, kept for the whole run."""

    computes: Sequence[Compute]
    stop: StopFlag
    report: Callable[[Progress], None]
    signalled: Any = None
    started: list[Worker] = field(default_factory=list)

    @contextmanager
    def running(self, runner: Runner) -> Iterator[Workers]:
        """Start the processes for the block and end them after it."""
        # Spawned, since a forked process cannot use a device that its parent has touched.
        spawn = multiprocessing.get_context("spawn")
        self.signalled = spawn.Value("i", 0)
        try:
            # Ctrl-C, or the end of a service, signals every process. Blocked here, it stays blocked in these from
            # their first moment on: their parent tells them, and waits for their checkpoints.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
            try:
                for compute in self.computes:
                    ours, theirs = spawn.Pipe()
                    given = portable(runner.context, compute, runner.sentences)
                    process = spawn.Process(target=_serve, args=(theirs, given, self.signalled), daemon=True)
                    process.start()
                    theirs.close()
                    self.started.append(Worker(process, ours))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield self
        finally:
            for worker in self.started:
                worker.pipe.close()
            for worker in self.started:
                worker.process.join(timeout=5)
                if worker.process.is_alive():
                    worker.process.kill()
            self.started.clear()

    def run(self, stages: Sequence[tuple[Stage, str]], on_done: Callable[[Stage, Info], None]) -> None:
        """Finish stages with their identities, at most one at a time on a device; raise the first error of any."""
        waiting = list(stages)
        failed: Exception | None = None
        while waiting or any(w.busy for w in self.started):
            for worker in self.started:
                if worker.busy is None and waiting and failed is None and not self.stop.requested:
                    work = waiting.pop(0)
                    try:
                        worker.pipe.send(work)
                        worker.busy = work[0]
                    except ConnectionError:
                        failed = _ended(worker, work[0])
            busy = [w for w in self.started if w.busy is not None]
            if not busy:
                break
            if self.stop.requested or failed is not None:  # the others checkpoint and stop as well
                self.signalled.value = self.stop.signum or signal.SIGTERM
            ready = wait([w.pipe for w in busy], timeout=0.2)
            for worker in [w for w in busy if w.pipe in ready]:
                failed = self._take(worker, on_done) or failed
        self.stop.check()
        if failed is not None:
            raise failed

    def _take(self, worker: Worker, on_done: Callable[[Stage, Info], None]) -> Exception | None:
        """Handle one message of a worker; return the error that it ended its stage with, if it did."""
        assert worker.busy is not None
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, ConnectionError):
            stage, worker.busy = worker.busy, None
            return _ended(worker, stage)
        if kind == "progress":
            self.report(content)
            return None
        if kind == "log":
            logger = logging.getLogger(content.name)
            if logger.isEnabledFor(content.levelno):
                logger.handle(content)
            return None
        stage, worker.busy = worker.busy, None
        if kind == "stopped":
            return None
        if kind == "error":
            assert isinstance(content, Exception)
            return content
        if kind == "bug":
            error, where = content
            assert isinstance(error, Exception)
            error.__cause__ = RuntimeError(where)  # which --debug shows
            return error
        on_done(stage, content)
        return None


def _ended(worker: Worker, stage: Stage) -> MachineError:
    worker.process.join(timeout=5)
    return MachineError(
        f"The process of {stage.name} ended with code {worker.process.exitcode} (out of memory?). "
        "The same command continues from here."
    )


class _Sender(logging.Handler):
    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self.pipe.send(("log", record))


def _serve(pipe: Connection, portable: Callable[[], Runner], signalled: Any) -> None:
    """Do the stages that come through the pipe, until it is closed."""
    logger = logging.getLogger("transenc")
    logger.addHandler(_Sender(pipe))
    logger.setLevel(logging.INFO)
    runner = portable()
    runner.context.stop = SharedStop(signalled)
    # Once the parent has died, sending fails and ends this process before it could disturb the parent's successor.
    runner.context.report = lambda progress: pipe.send(("progress", progress))
    while True:
        try:
            stage, identity = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("done", runner.finish(stage, identity)))
        except Interrupted:
            pipe.send(("stopped", None))
        except TransencError as error:
            pipe.send(("error", error))
        except Exception as error:
            told = of_machine(error) or RuntimeError(f"{type(error).__name__}: {error}")
            pipe.send(("bug", (told, traceback.format_exc())))


@dataclass(frozen=True)
class Portable:
    """What another process needs to do stages: plain data only."""

    context: Context
    sentences: Sequence[str] | None
    threads: int

    def __call__(self) -> Runner:
        """Return the runner in the other process."""
        import torch

        from transenc.runner import Runner

        torch.set_num_threads(self.threads)  # the number decides the bits of sums
        return Runner(self.context, _no_pairs, {}, self.sentences)


def portable(context: Context, compute: Compute, sentences: Sequence[str] | None) -> Portable:
    """Return what another process needs to do stages of this run on its device, without what belongs to this one."""
    import torch

    plain = replace(context, compute=compute, stop=StopFlag(), report=_silent)
    return Portable(plain, sentences, torch.get_num_threads())


def _silent(progress: Progress) -> None:
    pass


def _no_pairs() -> NoReturn:
    raise AssertionError("pairs are made by the first process")
