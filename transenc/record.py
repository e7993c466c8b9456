"""What a run directory says of itself: the settings it was begun with, versions, machine and command."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from transenc import __version__, registry
from transenc.errors import ConfigError, DamagedError
from transenc.lines import one_line
from transenc.stage import OVER_CYCLES
from transenc.stages.context import Context
from transenc.store import canonical, write_file

logger = logging.getLogger(__name__)


def environment() -> dict[str, Any]:
    """Return what else decides a run's bits: versions, processor and threads."""
    import tokenizers
    import transformers

    plugins = {
        f"{group}:{name}": " ".join(registry.owner(group, name))
        for group in (registry.SAMPLERS, registry.AUGMENTERS, registry.FAMILIES, registry.PLMS)
        for name in registry.names(group)
    }
    return {
        "transenc": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "plugins": plugins,
    }


def record(context: Context) -> None:
    """Write run.yaml (settings) and run.json (versions, device, command), or compare with those of an earlier start.

    More cycles than before continue the run: what chooses between all cycles is made again, all else is kept.
    Raise ConfigError showing the first settings that differ otherwise from what the run was begun with.
    """
    import yaml

    root = context.store.root
    settings = context.settings.model_dump(mode="json")
    path = root / "run.yaml"
    written = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode()
    if not path.exists():
        write_file(path, written)
    elif refuse_others(context):
        _reopen(context)
        write_file(path, written)
    if not (root / "run.json").exists():
        facts = {
            "schema": 1,
            "argv": list(sys.argv),
            "device": context.compute.device,
            "precision": context.compute.precision,
            "environment": environment(),
            "plms": {name: {"path": str(p.path), "revision": p.revision} for name, p in context.plms.items()},
        }
        write_file(root / "run.json", canonical(facts))


def warn_of_changes(context: Context) -> None:
    """Warn where a run goes on with another device, other versions or threads than it was begun with."""
    path = context.store.root / "run.json"
    try:
        before = json.loads(path.read_bytes())
        before = {"device": before["device"], **before["environment"]}
    except (OSError, ValueError, KeyError, TypeError):  # for people: nothing is decided by it
        return
    changes = differences(before, {"device": context.compute.device, **environment()})
    if changes:
        logger.warning(
            "%s was begun otherwise: %s. What is still to do may have other last bits than an uninterrupted run.",
            context.store.root,
            "; ".join(changes),
        )


def refuse_others(context: Context) -> bool:
    """Raise ConfigError showing the first settings that differ from what the run was begun with, if it was.

    Return whether more cycles are asked for, which continues a run.
    """
    import yaml

    root = context.store.root
    settings = context.settings.model_dump(mode="json")
    path = root / "run.yaml"
    if not path.exists():
        return False
    way_on = "Remove it and run the same command again."
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise DamagedError(f"{path} cannot be read: {one_line(error)}. {way_on}") from error
    if not isinstance(before, dict):
        raise DamagedError(f"{path} holds no settings. {way_on}")
    if _continues(before, settings):
        return True
    if changes := differences(before, settings):
        shown = "; ".join(changes[:5]) + (f"; {len(changes) - 5} more" if len(changes) > 5 else "")
        raise ConfigError(
            f"{root} was begun with other settings: {shown}. Use another --run, or the old settings."
        )
    return False


def _continues(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether the only difference is that more cycles are asked for, of a run that has some."""
    cycles = before.get("cycles")
    more = isinstance(cycles, int) and 0 < cycles < now["cycles"]
    return more and not differences({**before, "cycles": now["cycles"]}, now)


def _reopen(context: Context) -> None:
    """Remove the stages that look at all cycles, each in one step; the old command could make them again, too."""
    aside = context.store.temporary()
    for name in OVER_CYCLES:
        if context.store.path(name).exists():
            context.store.path(name).rename(aside / name)
    shutil.rmtree(aside)


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List `key: was x, now y` for nested settings."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in {**before, **now}:
            found += differences(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
        return found
    return [] if before == now else [f"{where}: was {before!r}, now {now!r}"]
