"""The one door for models from outside: a name becomes a checked local directory.

Nothing is loaded before its files were looked at: no code of a model runs, pickles are refused by content.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from transenc import registry
from transenc.config import to_assignments
from transenc.errors import ConfigError, DamagedError, DataError, MachineError
from transenc.models.checks import check, inside, read_json
from transenc.models.layout import SCORER, SENTENCES, said

logger = logging.getLogger(__name__)

MODULES = ("Transformer", "Pooling", "Normalize")  # parts of a sentence encoder's directory (modules.json)
# How the starts of ours that have a package of their own are installed.
PACKAGES = {"mini": "pip install ./plugins/transenc-mini (in transenc's repository)"}
DOWNLOAD = ["*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model", "1_Pooling/*", "tokenizer*"]


@dataclass(frozen=True)
class Plm:
    """A pretrained model on disk.

    name: what the user typed. tuned: trained for sentence similarity already, so priming is skipped by
    default. pooling: how its sentence vectors are made, or None when it does not say. note: one line shown
    with its results. hub: its name on the hub, if it has one.
    """

    name: str
    path: Path
    tuned: bool = False
    pooling: str | None = None
    revision: str | None = None
    note: str = ""
    sha256: dict[str, str] = field(default_factory=dict)
    hub: str | None = None

    def pooled_by(self, setting: str) -> str | None:
        """Return how a bi-encoder begun from it pools; setting: that of the run, where auto is the PLM's own."""
        return self.pooling if setting == "auto" else setting


def resolve(name: str, *, offline: bool = False, judge: bool = False) -> Plm:
    """Find a PLM by local directory, embedded name or hub name, check it and return where it is.

    judge: it is only to score; that of a plugin's family may then be no transformer.
    """
    if not name.strip():  # as of an unset shell variable; its path would be the current directory
        raise ConfigError(
            f"A model has no name: name a local directory, a hub model, or one of: {_embedded()}."
        )
    local = Path(name).expanduser()
    if local.is_dir():
        plm = describe(name, local)
    elif name in registry.names(registry.PLMS):
        plm = embedded(name)
    elif local.exists():
        raise ConfigError(f"{name} is a file; a model is a directory with config.json and model.safetensors.")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"{name} does not exist. Name a local directory, a hub model, or one of: {_embedded()}."
        )
    elif name in PACKAGES:  # of which the hub knows nothing, and whose name there could be anybody's
        raise MachineError(f"'{name}' is not installed. Run: {PACKAGES[name]}")
    else:
        plm = from_hub(name, offline=offline)
    check(plm.path, judge=judge)
    for line in unheeded(plm.path):
        _warn_once(line)
    return plm


def unheeded(path: Path) -> list[str]:
    """Tell what a directory asks of sentence-transformers that transenc does otherwise."""
    lines = []
    prompts = said(path, "config_sentence_transformers.json", "prompts")
    named = sorted(name for name, text in prompts.items() if text) if isinstance(prompts, dict) else []
    if named:
        lines.append(f"{path}: its prompts ({', '.join(named)}) are neither used nor kept.")
    similarity = said(path, "config_sentence_transformers.json", "similarity_fn_name")
    if similarity not in (None, "cosine"):
        lines.append(f"{path}: its scores are cosines here, not its own similarity, {similarity}.")
    if said(path, "config_sentence_transformers.json", "truncate_dim"):
        lines.append(f"{path}: its vectors keep all their dimensions here (truncate_dim).")
    for key in ("tokenizer_args", "processor_kwargs", "config_args"):
        if said(path, SENTENCES, key):
            lines.append(f"{path}: {key} of its {SENTENCES.replace('*', 'bert')} are not applied.")
    if said(path, "tokenizer_config.json", "truncation_side") == "left":
        lines.append(f"{path}: long texts lose their ends here, not their beginnings (truncation_side).")
    theirs = said(path, "config.json", "sentence_transformers")
    activation = (
        said(path, "config_sentence_transformers.json", "activation_fn")
        or (theirs.get("activation_fn") if isinstance(theirs, dict) else None)
        or said(path, "config.json", "sbert_ce_default_activation_function")
    )
    if activation and not str(activation).endswith("Sigmoid"):
        lines.append(
            f"{path}: its scores are sigmoids of its logits here, in the same order but not those of its own "
            f"activation, {str(activation).rpartition('.')[2]}; labels made with it: --transform rank."
        )
    return lines


@cache
def _warn_once(line: str) -> None:
    logger.warning("%s", line)


def _embedded() -> str:
    return ", ".join(registry.names(registry.PLMS)) or "none installed"


def embedded(name: str) -> Plm:
    """Ask the package that carries an embedded PLM where its files are, and verify its weights by sha256."""
    from transenc.store import hash_file

    facts = _facts_of(name)
    path = Path(facts["path"])
    for file, expected in facts["sha256"].items():
        if not (path / file).is_file() or hash_file(path / file) != expected:
            raise DamagedError(
                f"{path / file} is not the file that '{name}' was published with. Reinstall it."
            )
    return Plm(
        name,
        path,
        bool(facts["tuned"]),
        facts.get("pooling"),
        None,
        str(facts.get("card", "")),
        facts["sha256"],
        facts.get("hub"),
    )


def own_settings(names: Sequence[str]) -> dict[str, Any]:
    """Return the settings that the package of an embedded start carries for it: `settings` of its facts.

    They stand over a recipe's and under the user's, because published rates are for models of 110M parameters and
    more. Several starts are trained under one set of settings, so theirs count only when all are equal.
    """
    carried = [_facts(name).get("settings", {}) for name in names]
    return carried[0] if carried and all(c == carried[0] for c in carried) else {}


def about_own_settings(names: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Say which of the settings that embedded starts carry hold in a run, or do not since its starts are unlike.

    settings: of the run, nested as in run.yaml.
    """
    used, lines = to_assignments(settings), []
    taken = bool(own_settings(names))
    for name in dict.fromkeys(names):
        carried = to_assignments(_facts(name).get("settings", {}))
        if taken and (held := [one for one in carried if one in used]):
            lines.append(f"{name} has settings of its own, over those of the recipe: {', '.join(held)}")
        elif not taken and (left := [one for one in carried if one not in used]):
            lines.append(
                f"{name} has settings of its own, which unlike starts do not share and so are not taken: "
                f"{', '.join(left)}"
            )
    return lines


def is_tuned(name: str, *, offline: bool = False) -> bool:
    """Tell whether a start was trained for sentence similarity before; an embedded one's weights are not read."""
    facts = _facts(name)
    return bool(facts["tuned"]) if facts else resolve(name, offline=offline).tuned


def _facts(name: str) -> dict[str, Any]:
    """Return what the package of an embedded start says about it; nothing for others, local directories first."""
    if name not in registry.names(registry.PLMS) or Path(name).expanduser().is_dir():
        return {}
    return _facts_of(name)


def _facts_of(name: str) -> dict[str, Any]:
    """Return what the package of an embedded start says about it; raise MachineError naming what it leaves out."""
    facts = registry.call(registry.PLMS, name)
    wanted: dict[str, Any] = {"path": (str, os.PathLike), "tuned": bool, "sha256": dict}
    wrong = [
        key
        for key, kind in wanted.items()
        if not isinstance(facts, dict) or not isinstance(facts.get(key), kind)
    ]
    if wrong:
        raise MachineError(
            f"The start '{name}' of package {registry.owner(registry.PLMS, name)[0]} does not say its "
            f"{', '.join(wrong)} (CONTRIBUTING.md)."
        )
    return dict(facts)


def describe(name: str, path: Path) -> Plm:
    """Read from a directory whether it is a sentence encoder already, and how it pools."""
    modules = path / "modules.json"
    if not modules.is_file():
        return Plm(name, path)
    pooling = None
    prompts = path / "config_sentence_transformers.json"
    if prompts.is_file() and (default := read_json(prompts, dict).get("default_prompt_name")):
        raise ConfigError(
            f"{path} puts a prompt before every text ('{default}', {prompts.name}), which transenc does not. "
            "Set default_prompt_name to null there to use the model without it."
        )
    for module in read_json(modules, list):
        if not isinstance(module, dict) or not isinstance(module.get("path", ""), str):
            raise DataError(f"{modules}: a part of the model is no JSON object with a path.")
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == SCORER:
            return Plm(name, path)  # a cross-encoder, whose body is no sentence encoder
        if kind not in MODULES:
            raise ConfigError(
                f"{path} has a part that transenc does not compute: {kind or 'unnamed'} (modules.json). It takes "
                f"{', '.join(MODULES)}; a copy of the directory without modules.json is its transformer alone."
            )
        if kind == "Transformer" and module.get("path"):
            raise ConfigError(
                f"{path} keeps its transformer in {module['path']}, as sentence-transformers did before version 2. "
                "Save it anew: SentenceTransformer(DIR).save_pretrained(NEW) of a current one."
            )
        if kind == "Pooling":
            config = read_json(path / inside(path, module.get("path", "")) / "config.json", dict)
            pooling = _pooling_mode(config, path)
    # Cross-encoders have a modules.json as well since sentence-transformers 5.4.
    tuned = said(path, prompts.name, "model_type") != "CrossEncoder"
    return Plm(name, path, tuned=tuned, pooling=pooling)


def _pooling_mode(config: dict[str, Any], path: Path) -> str:
    on = [key for key, value in config.items() if key.startswith("pooling_mode") and value is True]
    newer = config.get("pooling_mode")  # a name, or a list of them
    if newer in ("cls", "mean"):
        return str(newer)
    for key, mode in (("pooling_mode_cls_token", "cls"), ("pooling_mode_mean_tokens", "mean")):
        if on == [key]:
            return mode
    raise ConfigError(
        f"{path} pools by {', '.join(on) or newer or 'nothing known'}; transenc supports cls and mean."
    )


def from_hub(name: str, *, offline: bool) -> Plm:
    """Download (or find in the cache) the safe files of a hub model."""
    known = registry.names(registry.PLMS)
    hint = f"{registry.did_you_mean(name, known)} Embedded: {_embedded()}; otherwise give a local directory."
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "TRUE", "ON", "on", "yes")
    from huggingface_hub import snapshot_download  # heavy, and only needed for hub names
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(name, allow_patterns=DOWNLOAD, local_files_only=offline))
    except LocalEntryNotFoundError as error:
        why = "the hub cannot be reached"
        if offline:
            why = "it is not cached and --offline or HF_HUB_OFFLINE is set"
        raise MachineError(f"No model '{name}' here: {why}.{hint}") from error
    except (HfHubHTTPError, ValueError) as error:
        raise ConfigError(f"No model named '{name}' on the hub.{hint}") from error
    except OSError as error:
        raise MachineError(f"The hub cannot be reached for '{name}': {error}.{hint}") from error
    plm = describe(name, path)
    return Plm(name, path, plm.tuned, plm.pooling, revision=path.name, hub=name)
