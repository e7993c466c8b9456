"""Write model directories in the layouts that other tools load unchanged (docs/files.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transenc.models.transformer import Transformer

# The layout of sentence-transformers 5.2: later majors read it, and so do the servers built on older ones.
LAYOUT_VERSION = "5.2.0"
HEAD = "transenc_head"  # in config.json, where the numbers of a segment head stay with the weights


def head_of(path: Path) -> Any:
    """Return what a model directory says of its segment head, or None where it has none."""
    return json.loads((path / "config.json").read_text(encoding="utf-8")).get(HEAD)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_parts(transformer: Transformer, path: Path) -> None:
    from transenc.models.transformer import quiet

    path.mkdir(parents=True, exist_ok=True)
    with quiet():
        transformer.module.save_pretrained(path, safe_serialization=True)  # type: ignore[operator]
        transformer.tokenizer.save_pretrained(path)
    # The tokenizer object keeps whatever length and padding it was last used with; the file must say ours.
    config_path = path / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["model_max_length"] = transformer.max_length
    for key in (
        "name_or_path",
        "local_files_only",
        "is_local",
        "max_length",
        "stride",
        "truncation_side",
        "truncation_strategy",
        "pad_to_multiple_of",
    ):
        config.pop(key, None)
    _write(config_path, config)
    tokenizer_path = path / "tokenizer.json"
    tokenizer = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    tokenizer["padding"] = None
    tokenizer["truncation"] = None
    _write(tokenizer_path, tokenizer)
    model_path = path / "config.json"
    model = json.loads(model_path.read_text(encoding="utf-8"))
    model.pop("_name_or_path", None)  # a path of this machine
    _write(model_path, model)


def save_bi(transformer: Transformer, pooling: str, path: Path, *, card: str) -> None:
    """Write a bi-encoder directory: AutoModel weights, tokenizer, pooling, normalisation."""
    _save_parts(transformer, path)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _write(
        path / "modules.json",
        [
            {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{kind}"}
            for i, (folder, kind) in enumerate(modules)
        ],
    )
    _write(
        path / "sentence_bert_config.json", {"max_seq_length": transformer.max_length, "do_lower_case": False}
    )
    _write(
        path / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "__version__": {"sentence_transformers": LAYOUT_VERSION},
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
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
    # 2_Normalize has no settings, but git and some copies drop an empty directory, so nothing is written for
    # it.
    (path / "README.md").write_text(card or _card("sentence-similarity"), encoding="utf-8")


def save_cross(transformer: Transformer, path: Path, *, card: str, segments: bool = False) -> None:
    """Write a cross-encoder directory: a sequence classifier with one label and a sigmoid.

    segments: the head is the line over segments that config.json tells of, which other tools do not know: they get
    the body, and an exported engine has it all.
    """
    config: Any = transformer.module.config
    if not segments:
        config.num_labels = 1  # also sets id2label and label2id to one entry each
        config.sentence_transformers = {
            "activation_fn": "torch.nn.modules.activation.Sigmoid",
            "version": LAYOUT_VERSION,
        }
    _save_parts(transformer, path)
    (path / "README.md").write_text(card or _card("text-ranking", segments=segments), encoding="utf-8")


def _card(pipeline: str, *, segments: bool = False) -> str:
    library, tag, more = "sentence-transformers", "- sentence-transformers\n", ""
    if segments:
        library, tag, more = "transenc", "", ", whose segment head other tools do not know"
    return (
        f"---\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags:\n{tag}- transenc\n---\n\n"
        f"Made by transenc{more}.\n"
    )
