"""Check the files of a model directory before anything loads it: no code runs, pickles are refused by content."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from transenc.errors import ConfigError, DataError, RefusedError

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
CONFIGS = (  # that transformers or tokenizers read, and that may name code
    "config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json",
    "preprocessor_config.json",
)  # fmt: skip
OTHER_WEIGHTS = ("*.onnx", "*.h5", "*.msgpack", "*.gguf", "openvino_model.xml")


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
        models = sorted(
            str(found.parent)
            for pattern in ("*", "best/*", "best/*/*")
            for name in ("config.json", "engine.json")
            for found in path.glob(f"{pattern}/{name}")
            # Parts of a sentence encoder, such as 1_Pooling, have a config.json as well.
            if name == "engine.json" or any(found.parent.glob("*.safetensors"))
        )
        if models:
            raise ConfigError(f"{path} is no model itself. It holds: {', '.join(models)}.")
    config = read_json(path / "config.json", dict)
    for name in CONFIGS:
        if (path / name).is_file():
            _refuse_code(read_json(path / name, dict), path / name)
    bare = judge and bool(config.get("transenc_family")) and config.get("model_type") is None
    _check_config(config, path / "config.json", bare=bare)
    for file in _weights(path, bare=bare):
        check_safetensors(file)


def _check_config(config: dict[str, Any], file: Path, *, bare: bool) -> None:
    """Refuse what transenc would compute otherwise than meant. bare: there need be no architecture."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES and not bare:
        raise ConfigError(f"{file}: model_type '{kind}' is not one of {', '.join(MODEL_TYPES)}.")
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise ConfigError(
            f"{file}: position_embedding_type '{positions}' is no longer computed by transformers; "
            "'absolute' is."
        )
    if config.get("quantization_config"):
        raise ConfigError(
            f"{file}: the weights are quantised (quantization_config), which transenc does not undo. "
            "Name the model that they were made of, or save it after dequantize() of transformers."
        )
    for key, limit in LIMITS.items():
        value = config.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= limit:
            raise DataError(f"{file}: {key} is {value!r}; expected a whole number up to {limit}.")


def _weights(path: Path, *, bare: bool) -> list[Path]:
    """List the files of weights, those of an index included. bare: there need be none."""
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
        shards = read_json(index, dict).get("weight_map")
        if not isinstance(shards, dict):
            raise DataError(f"{index}: weight_map is not a JSON object.")
        for shard in sorted(set(map(str, shards.values()))):
            if not (path / inside(path, shard)).is_file():
                raise DataError(f"{path / shard} is missing: the model directory is incomplete.")
            if not shard.endswith(".safetensors"):
                raise RefusedError(f"{index} names {shard}; weights are read from .safetensors files alone.")
            weights.append(path / shard)
    return list(dict.fromkeys(weights))


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
    tensors = dict(header) if isinstance(header, dict) else {}
    tensors.pop("__metadata__", None)
    end = 0
    for name, entry in tensors.items():
        match entry:
            case {"data_offsets": [int(), int(last)]}:
                end = max(end, last)
            case _:
                raise DataError(f"{path} has a damaged header: it does not say where the tensor {name} lies.")
    if not tensors or end + 8 + length != size:
        raise DataError(f"{path} is cut short or has bytes left over; download it again.")
    for name, entry in tensors.items():
        if name.endswith("weight") and str(entry.get("dtype"))[:1] in ("I", "U"):
            # Their scales are beside them, or nowhere: transformers would take the whole numbers for the weights.
            raise DataError(
                f"{path}: the weight {name} is {entry['dtype']}, whole numbers, as quantised ones are. transenc does "
                "not undo that: name the model that they were made of."
            )


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


def inside(base: Path, name: str) -> str:
    """Return a relative path that a directory names; raise RefusedError for one that leaves it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RefusedError(f"{base} names '{name}', which leaves its directory.")
    return name


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON object (dict) or list of a model directory; raise DataError for anything else."""
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
