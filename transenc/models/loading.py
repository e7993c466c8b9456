"""Turn what the user names (a directory, a hub name, an engine, an embedded PLM) into a scorer."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from transenc import registry
from transenc.digests import check_committed, plm_digest
from transenc.errors import ConfigError, MachineError
from transenc.models.family import Family
from transenc.models.layout import HEAD
from transenc.scorer import Scorer
from transenc.store import fingerprint, hash_file

logger = logging.getLogger(__name__)

ENGINE = "engine.json"
PRECISIONS = ("auto", "fp32", "bf16")


def family_of(path: Path) -> str:
    """Tell which family a checked model directory belongs to, from its files alone."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    declared = config.get("transenc_family")  # families of plugins name themselves
    if declared:
        return str(declared)
    if config.get(HEAD):
        return "cross"
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        architectures = [""]
    return "cross" if str(architectures[0]).endswith("ForSequenceClassification") else "bi"


def load_scorer(
    name: str | Path, *, device: str = "auto", precision: str = "auto", offline: bool = False
) -> Scorer:
    """Load a scorer by directory, hub name, exported engine or embedded name.

    precision: "auto", "fp32" or "bf16"; of an engine, which of its graphs ("fp32", "int8", ...; `DIR:int8` says
    the same and goes first). An engine is loaded without importing torch.
    """
    name = str(name)
    path, graph = _graph_of(name)
    graph = graph or precision
    if (path / ENGINE).is_file():
        from transenc.export.engine import load_engine

        engine = load_engine(path, device=device, precision=graph)
        logger.info("%s: %s on %s", path, engine.graph, engine.provider)
        return engine
    from transenc.models.checks import check
    from transenc.models.intake import resolve

    if precision not in PRECISIONS:
        if path.is_dir():
            check(path)  # the directory above several engines is no model, and they are named
        raise ConfigError(
            f"The model {name} computes in {', '.join(PRECISIONS)}, not in '{precision}'. "
            "Other precisions are engines': transenc export onnx"
        )
    plm = resolve(name, offline=offline, judge=True)
    check_committed(plm.path)
    from transenc.models.device import Compute

    compute = Compute.choose(device, precision)
    name_of_family = family_of(plm.path)
    if name_of_family not in registry.names(registry.FAMILIES):
        raise ConfigError(
            f"{name} is of the family '{name_of_family}', which is not installed. "
            f"Installed: {', '.join(registry.names(registry.FAMILIES))}."
        )
    package = registry.owner(registry.FAMILIES, name_of_family)[0]
    family: Family = registry.call(registry.FAMILIES, name_of_family)
    with registry.blaming(f"The family '{name_of_family}'", package):
        scorer = family.load(plm.path, compute=compute)
    if not callable(getattr(scorer, "score", None)) or not isinstance(getattr(scorer, "family", None), str):
        raise MachineError(
            f"The family '{name_of_family}' of package {package} made a {type(scorer).__name__} of {name}, which is "
            "no scorer: it lacks `score` or `family`."
        )
    return scorer


def scorer_digest(name: str, *, offline: bool = False) -> str:
    """Return the fingerprint of the files that `load_scorer` would read, and of the graph that a name asks for."""
    path, graph = _graph_of(name)
    if (path / ENGINE).is_file():
        # engine.json has the sha256 of the files that are loaded.
        return fingerprint([hash_file(path / ENGINE), graph])
    from transenc.models.intake import resolve

    return plm_digest(resolve(name, offline=offline, judge=True).path)


def _graph_of(name: str) -> tuple[Path, str | None]:
    """Split DIR:GRAPH; there is no graph in the name of what exists."""
    path, graph = Path(name).expanduser(), None
    if ":" in name and not path.exists():
        directory, _, graph = name.rpartition(":")
        path = Path(directory).expanduser()
    old = path.with_name(f".{path.name}.old") if path.name else path
    # An export that was killed at the moment of replacing it has left it under that name.
    return (old if not path.exists() and (old / ENGINE).is_file() else path), graph
