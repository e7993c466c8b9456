"""Find and read a task's file: in the package, in `--data DIR`, in the directory TRANSENC_DATA names, on the hub."""

from __future__ import annotations

import logging
import os
from importlib import resources
from pathlib import Path
from typing import Literal

from transenc.errors import DataError
from transenc.pairs import Pairs
from transenc.readers import SkipBad, read_pairs
from transenc.tasks.declared import File, Hub

logger = logging.getLogger(__name__)

FOLDERS = ("", "sts", "binary")  # where a file may lie in a data directory


def locate(file: File, data: Path | None, *, offline: bool = False) -> Path:
    """Return where a file lies, downloading it at need; raise DataError that says how to provide it."""
    return find(file, data, offline=offline)[0]


def read(file: File, data: Path | None, *, scored: bool = True, offline: bool) -> Pairs:
    """Read a file's pairs, with their scores mapped to [0, 1] or without; raise DataError as `locate` does."""
    path, hub = find(file, data, offline=offline)
    scores: Literal["required", "ignored"] = "required" if scored else "ignored"
    if hub is None:
        return read_pairs(path, scores=scores, score_range=file.score_range)
    # Nobody can mend a row on the hub, so a few bad ones are skipped, with a warning that counts them.
    skip = SkipBad(1, percent=True)
    between = hub.score_range or file.score_range
    pairs = read_pairs(path, scores=scores, score_range=between, skip_bad=skip, columns=hub.columns)
    return pairs.take(slice(*hub.rows)) if hub.rows != (0, None) else pairs


def find(file: File, data: Path | None, *, offline: bool) -> tuple[Path, Hub | None]:
    """Return a file's path and, if it came from the hub, its declaration there."""
    path = local(file, data)
    if path is not None:
        return path, None
    reason = "it is not on the hub"
    if file.hub is not None:
        try:
            path = from_hub(file.hub, offline=offline)
        except DataError as error:
            reason = str(error)
        else:
            level = logging.WARNING if file.hub.note else logging.INFO
            note = f"; {file.hub.note}" if file.hub.note else ""
            logger.log(level, "%s: taken from %s on the hub%s", file.name, file.hub.repo, note)
            return path, file.hub
    looked = ", ".join(str(directory) for directory in _directories(data)) or "none given"
    raise DataError(
        f"{file.name} was not found. Either name a directory that holds it with --data DIR or TRANSENC_DATA "
        f"(searched: {looked}), or let it be fetched from the hub ({reason})."
    )


def _directories(data: Path | None) -> list[Path]:
    variable = os.environ.get("TRANSENC_DATA")
    return [*([data] if data else []), *([Path(variable)] if variable else [])]


def local(file: File, data: Path | None) -> Path | None:
    """Return where a file lies on this machine, or None; raise DataError for a directory that is not there."""
    packaged = Path(str(resources.files("transenc"))) / "data" / file.name
    if packaged.is_file():
        return packaged
    for directory in _directories(data):
        if not directory.is_dir():
            raise DataError(f"{directory}: no such data directory (--data or TRANSENC_DATA).")
        for folder in FOLDERS:
            path = directory / folder / file.name
            if path.is_file():
                return path
    return None


def from_hub(hub: Hub, *, offline: bool = False) -> Path:
    """Return a file of a hub dataset from its cache, or download it; raise DataError when neither works.

    HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE work as everywhere; offline makes no connection whatever they say.
    """
    from huggingface_hub import hf_hub_download  # local: heavy
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        found = hf_hub_download(
            hub.repo,
            hub.path,
            repo_type="dataset",
            revision=hub.revision,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            local_files_only=offline or HF_HUB_OFFLINE,
        )
    except Exception as error:  # the hub's client raises its own, the HTTP library's and the system's errors
        why = "not in its cache, and --offline" if offline or HF_HUB_OFFLINE else type(error).__name__
        raise DataError(f"datasets/{hub.repo}/{hub.path}: {why}") from error
    return Path(found)
