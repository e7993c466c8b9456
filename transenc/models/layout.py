"""Write model directories in the layouts that other tools load unchanged (docs/files.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transenc.errors import DataError
from transenc.lines import one_line

if TYPE_CHECKING:
    from transenc.models.transformer import Transformer

# The layout of sentence-transformers 5.2: later majors read it, and so do the servers built on older ones.
LAYOUT_VERSION = "5.2.0"
HEAD = "transenc_head"  # in config.json, where the numbers of a segment head stay with the weights
SCORER = "SegmentScorer"  # the part of modules.json by which sentence-transformers computes that head
SENTENCES = "sentence_*_config.json"  # what sentence-transformers says of how a body reads texts


def head_of(path: Path) -> Any:
    """Return what a model directory says of its segment head, or None where it has none."""
    return said(path, "config.json", HEAD)


def said(path: Path, pattern: str, key: str) -> Any:
    """Return what the first file of that name says of a key; None where there is no such file or key."""
    file = next((found for found in sorted(path.glob(pattern)) if found.is_file()), None)
    if file is None:
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8")).get(key)
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: not a JSON object: {one_line(error)}") from error


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_parts(module: Any, tokenizer: Any, max_length: int, path: Path) -> None:
    from transenc.models.transformer import quiet

    path.mkdir(parents=True, exist_ok=True)
    with quiet():
        module.save_pretrained(path, safe_serialization=True)
        tokenizer.save_pretrained(path)
    # The tokenizer object keeps whatever length and padding it was last used with; the file must say ours.
    config_path = path / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["model_max_length"] = max_length
    # As versions 4 and 5 of transformers both read it.
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    for key in (
        "name_or_path",
        "local_files_only",
        "is_local",
        "max_length",
        "stride",
        "padding_side",  # sentence-transformers would pad on the left, and move the positions
        "truncation_side",
        "truncation_strategy",
        "pad_to_multiple_of",
    ):
        config.pop(key, None)
    _write(config_path, config)
    tokenizer_path = path / "tokenizer.json"
    content = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    content["padding"] = None
    content["truncation"] = None
    _write(tokenizer_path, content)
    model_path = path / "config.json"
    model = json.loads(model_path.read_text(encoding="utf-8"))
    model.pop("_name_or_path", None)  # a path of this machine
    _write(model_path, model)


def save_bi(transformer: Transformer, pooling: str, path: Path, *, card: str) -> None:
    """Write a bi-encoder directory: AutoModel weights, tokenizer, pooling, normalisation."""
    _save_parts(transformer.module, transformer.tokenizer, transformer.max_length, path)
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    _write_modules(path, [(folder, f"sentence_transformers.models.{kind}") for folder, kind in parts])
    _write(
        path / "sentence_bert_config.json", {"max_seq_length": transformer.max_length, "do_lower_case": False}
    )
    _write_facts(path, "SentenceTransformer", similarity_fn_name="cosine")
    (path / "1_Pooling").mkdir()
    config: Any = transformer.module.config
    _write(
        path / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": False,
            "include_prompt": True,
        },
    )
    # 2_Normalize has no settings, but git and some copies drop an empty directory, so nothing is written for it.
    (path / "README.md").write_text(card or _card("sentence-similarity"), encoding="utf-8")


def save_cross(transformer: Transformer, path: Path, *, card: str, segments: bool = False) -> None:
    """Write a cross-encoder directory: a sequence classifier with one label and a sigmoid.

    segments: the head is the line over segments that config.json tells of (`save_segments`).
    """
    config: Any = transformer.module.config
    parts = (transformer.module, transformer.tokenizer, transformer.max_length, path)
    if segments:
        save_segments(*parts)
    else:
        config.num_labels = 1  # also sets id2label and label2id to one entry each
        config.sentence_transformers = {
            "activation_fn": "torch.nn.modules.activation.Sigmoid",
            "version": LAYOUT_VERSION,
        }
        _save_parts(*parts)
    (path / "README.md").write_text(card or _card("text-ranking", segments=segments), encoding="utf-8")


def save_segments(module: Any, tokenizer: Any, max_length: int, path: Path) -> None:
    """Write a cross-encoder with a segment head: the body's weights, and the line in its config.json.

    modules.json names what computes the head in sentence-transformers, which would else put a random classifier on
    the body.
    """
    _save_parts(module, tokenizer, max_length, path)
    _write_modules(path, [("", f"transenc.models.sbert.{SCORER}")])
    _write_facts(path, "CrossEncoder", activation_fn="torch.nn.modules.activation.Sigmoid")


def _write_modules(path: Path, parts: Sequence[tuple[str, str]]) -> None:
    entries = [
        {"idx": i, "name": str(i), "path": folder, "type": kind} for i, (folder, kind) in enumerate(parts)
    ]
    _write(path / "modules.json", entries)


def _write_facts(path: Path, kind: str, **more: str) -> None:
    facts = {
        "model_type": kind,
        "__version__": {"sentence_transformers": LAYOUT_VERSION},
        "prompts": {},
        "default_prompt_name": None,
    }
    _write(path / "config_sentence_transformers.json", facts | more)


def usage(family: str, *, segments: bool = False) -> str:
    """Return the section of a card with the lines that load the directory in which it lies."""
    if family == "bi":
        lines = [
            "from sentence_transformers import SentenceTransformer",
            "",
            'model = SentenceTransformer(".")  # this directory, or its name on a hub',
            'vectors = model.encode(["A man plays a guitar.", "Someone makes music."])',
            "print(model.similarity(vectors[0], vectors[1]))",
        ]
    else:
        # What modules.json names is transenc's, as it is installed.
        trusted = ", trust_remote_code=True" if segments else ""
        lines = [
            "from sentence_transformers import CrossEncoder",
            "",
            f'model = CrossEncoder("."{trusted})  # this directory, or its name on a hub',
            'print(model.predict([("A man plays a guitar.", "Someone makes music.")]))',
        ]
    return "\n".join(["", "## Use", "", "```python", *lines, "```", ""])


def _card(pipeline: str, *, segments: bool = False) -> str:
    family = "bi" if pipeline == "sentence-similarity" else "cross"
    library, more = "sentence-transformers", ""
    if segments:
        library, more = (
            "transenc",
            ". Its segment head is transenc's: CrossEncoder(DIR, trust_remote_code=True)",
        )
    return (
        f"---\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags:\n- sentence-transformers\n- transenc\n---\n\n"
        f"Made by transenc{more}.\n{usage(family, segments=segments)}"
    )
