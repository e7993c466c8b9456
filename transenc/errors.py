"""The errors a user can meet, each with its documented exit code (docs/exit-codes.md)."""

from __future__ import annotations

import errno
import re
from typing import Any


class TransencError(Exception):
    """Tell the user in one line what is wrong, what exists and the next step."""

    exit_code = 1


class ConfigError(TransencError):
    """A wrong option, setting or name, or a run resumed with other settings."""

    exit_code = 2


class DataError(TransencError):
    """A file or row that cannot be used as it is; the message holds `file:line: reason`."""

    exit_code = 3


class MachineError(TransencError):
    """The machine lacks something: a package, a device, disk space, a permission."""

    exit_code = 4


def of_memory(error: Exception) -> MachineError | None:
    """Return what an error of another library says about memory; None where it is about something else."""
    said = str(error).lower()
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return MachineError("Out of memory. Lower batch sizes or max_pairs and run the same command again.")
    if any(words in said for words in ("out of memory", "can't allocate memory", "cannot allocate memory")):
        return MachineError("Out of memory. Lower batch sizes and run the same command again.")
    # The loader gives no reason where an address space is used up; of a disk without execution it says so.
    if isinstance(error, ImportError) and said.endswith("failed to map segment from shared object"):
        return MachineError(f"Out of memory ({error}). Mend that and run the same command again.")
    return None


def of_machine(error: Exception) -> MachineError | None:
    """Return what an error of another library says about the machine; None where it is a bug."""
    if (found := of_memory(error)) is not None:
        return found
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return MachineError(f"{error.strerror or error}{where}. Mend that and run the same command again.")
    if re.search(r"\(os error \d+\)", str(error)):  # safetensors' and tokenizers' own, which are no OSError
        return MachineError(f"{error}. Mend that and run the same command again.")
    return None


class LockedError(TransencError):
    """Another process works in the same run directory."""

    exit_code = 5


class DamagedError(TransencError):
    """A committed file is missing or differs from its manifest."""

    exit_code = 6


class RefusedError(TransencError):
    """A file that could run code, or that leaves its directory, was refused unread."""

    exit_code = 7


class ParityError(TransencError):
    """An exported engine disagrees with the model it was made from.

    numbers: what was measured, as plain data for JSON.
    """

    exit_code = 8

    def __init__(self, message: str, numbers: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.numbers = numbers or {}


class BelowThresholdError(TransencError):
    """A score lies below `--fail-under`."""

    exit_code = 9


class Interrupted(TransencError):
    """A signal asked the run to stop; everything finished is kept and the same command continues."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
