"""The one door for models from outside: a name becomes a checked local directory.

Nothing is loaded before its files were looked at: no code of a model runs, pickles are refused by content.
"""

from __future__ import annotations

import json
import logging
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from transenc import registry
from transenc.config import to_assignments
from transenc.errors import ConfigError, DamagedError, DataError, MachineError, RefusedError
from transenc.models.layout import SCORER, SENTENCES, said

logger = logging.getLogger(__name__)

MODEL_TYPES = (
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta",
)  # fmt: skip
# Keys that make a loader import or download code (docs/security.md); their presence is refused, not ignored.
CODE_KEYS = (
    "auto_map",
    "custom_pipelines",
    "trust_remote_code",
    "model_file",
    "_attn_implementation_internal",
)
LIMITS = {
    "hidden_size": 16384,
    "num_hidden_layers": 200,
    "vocab_size": 4_000_000,
    "intermediate_size": 131072,
}
MODULES = ("Transformer", "Pooling", "Normalize")  # parts of a sentence encoder's directory (modules.json)
CONFIGS = (  # that transformers or tokenizers read, and that may name code
    "config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json",
    "preprocessor_config.json",
)  # fmt: skip
OTHER_WEIGHTS = ("*.onnx", "*.h5", "*.msgpack", "*.gguf", "openvino_model.xml")
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
    if prompts.is_file() and (default := _json(prompts, dict).get("default_prompt_name")):
        raise ConfigError(
            f"{path} puts a prompt before every text ('{default}', {prompts.name}), which transenc does not. "
            "Set default_prompt_name to null there to use the model without it."
        )
    for module in _json(modules, list):
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
            config = _json(path / _inside(path, module.get("path", "")) / "config.json", dict)
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
        why = "it is not cached and --offline was given" if offline else "the hub cannot be reached"
        raise MachineError(f"No model '{name}' here: {why}.{hint}") from error
    except (HfHubHTTPError, ValueError) as error:
        raise ConfigError(f"No model named '{name}' on the hub.{hint}") from error
    except OSError as error:
        raise MachineError(f"The hub cannot be reached for '{name}': {error}.{hint}") from error
    plm = describe(name, path)
    return Plm(name, path, plm.tuned, plm.pooling, revision=path.name, hub=name)


def _inside(base: Path, name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RefusedError(f"{base} names '{name}', which leaves its directory.")
    return name


def _json(path: Path, kind: type) -> Any:
    if not path.is_file():
        raise DataError(f"{path} is missing: the model directory is incomplete.")
    if path.stat().st_size > 256 * 2**20:
        raise RefusedError(f"{path} is larger than 256 MiB.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected a JSON {'object' if kind is dict else 'list'}.")
    return value


def _refuse_weightless(path: Path) -> None:
    """Raise DataError for a directory without weights, naming those of another form that it has."""
    others = sorted(
        file.relative_to(path).as_posix()
        for pattern in OTHER_WEIGHTS
        for file in (*path.glob(pattern), *path.glob(f"*/{pattern}"))
    )
    if others:
        raise DataError(
            f"{path} has its weights as {others[0]} alone, which transenc does not read: model.safetensors is "
            "missing. Name the model that it was made of."
        )
    raise DataError(f"{path} holds no weights: model.safetensors is missing.")


def check(path: Path, *, judge: bool = False) -> None:
    """Refuse a model directory that could run code, is incomplete, or is of an unknown architecture.

    judge: that of a plugin's family need neither have an architecture nor weights.
    """
    if (path / "adapter_config.json").is_file():
        # Without peft transformers leaves it out; with it, it loads the model that the adapter names, unchecked.
        raise ConfigError(
            f"{path} holds an adapter (adapter_config.json), which transenc does not apply. Merge it into its model "
            "first (merge_and_unload of peft, then save_pretrained)."
        )
    if not (path / "config.json").is_file():
        inside = sorted(
            str(found.parent)
            for pattern in ("*", "best/*", "best/*/*")
            for name in ("config.json", "engine.json")
            for found in path.glob(f"{pattern}/{name}")
            # Parts of a sentence encoder, such as 1_Pooling, have a config.json as well.
            if name == "engine.json" or any(found.parent.glob("*.safetensors"))
        )
        if inside:
            raise ConfigError(f"{path} is no model itself. It holds: {', '.join(inside)}.")
    config = _json(path / "config.json", dict)
    for name in CONFIGS:
        if (path / name).is_file():
            _refuse_code(_json(path / name, dict), path / name)
    kind = config.get("model_type")
    bare = judge and bool(config.get("transenc_family")) and kind is None
    if kind not in MODEL_TYPES and not bare:
        raise ConfigError(
            f"{path / 'config.json'}: model_type '{kind}' is not one of {', '.join(MODEL_TYPES)}."
        )
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise ConfigError(
            f"{path / 'config.json'}: position_embedding_type '{positions}' is no longer computed by transformers; "
            "'absolute' is."
        )
    if config.get("quantization_config"):
        raise ConfigError(
            f"{path / 'config.json'}: the weights are quantised (quantization_config), which transenc does not undo. "
            "Name the model that they were made of, or save it after dequantize() of transformers."
        )
    for key, limit in LIMITS.items():
        value = config.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= limit:
            raise DataError(
                f"{path / 'config.json'}: {key} is {value!r}; expected a whole number up to {limit}."
            )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickles = sorted(
            p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
        )
        if pickles:
            raise RefusedError(
                f"{path} has only {pickles[0]}, a pickle that can run code. Convert it to "
                "model.safetensors first (save_pretrained of a current transformers, on a machine that trusts it)."
            )
        if not bare:
            _refuse_weightless(path)
    if (path / "model.safetensors.index.json").is_file():
        index = path / "model.safetensors.index.json"
        shards = _json(index, dict).get("weight_map")
        if not isinstance(shards, dict):
            raise DataError(f"{index}: weight_map is not a JSON object.")
        for shard in sorted(set(map(str, shards.values()))):
            if not (path / _inside(path, shard)).is_file():
                raise DataError(f"{path / shard} is missing: the model directory is incomplete.")
            if not shard.endswith(".safetensors"):
                raise RefusedError(f"{index} names {shard}; weights are read from .safetensors files alone.")
            weights.append(path / shard)
    for file in dict.fromkeys(weights):
        check_safetensors(file)


def _refuse_code(value: Any, where: Path) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            code = key in CODE_KEYS and inner not in (None, False)
            if code or (key.endswith("attn_implementation") and "/" in str(inner)):
                raise RefusedError(
                    f"{where} sets '{key}', which loads code. transenc runs no code of a model."
                )
            _refuse_code(inner, where)
    elif isinstance(value, list):
        for inner in value:
            _refuse_code(inner, where)


def check_safetensors(path: Path) -> None:
    """Refuse a weights file whose content is not safetensors, whatever its name."""
    if not path.resolve().is_file():
        raise DataError(f"{path} is not a file.")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else math.inf
        if length > min(size - 8, 100 * 2**20):
            pickle = head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
            if pickle:
                raise RefusedError(f"{path} is a pickle named .safetensors; it can run code and is refused.")
            raise DataError(f"{path} is not a safetensors file, or it is cut short.")
        try:
            header = json.loads(file.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} has a damaged header: {error}") from error
    ends = (
        [e["data_offsets"][1] for k, e in header.items() if k != "__metadata__"]
        if isinstance(header, dict)
        else []
    )
    if not ends or max(ends) + 8 + length != size:
        raise DataError(f"{path} is cut short or has bytes left over; download it again.")
    for name, entry in header.items():
        if name.endswith("weight") and str(entry.get("dtype"))[:1] in ("I", "U"):
            # Their scales are beside them, or nowhere: transformers would take the whole numbers for the weights.
            raise DataError(
                f"{path}: the weight {name} is {entry['dtype']}, whole numbers, as quantised ones are. transenc does "
                "not undo that: name the model that they were made of."
            )
