"""Tiny random PLM directories of every architecture, made in code in a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LENGTH = 64  # tokens a tiny model has positions for
WORDS = (
    "a the is are in on at of to and with man woman boy girl child people dog cat horse bird car train "
    "plane bike street water field house room ball guitar piano food bread apple play plays playing run "
    "runs running eat eats eating sit sits sitting walk walks walking ride rides riding cut cuts cutting "
    "big small young old red blue green black white two three many some not no new says said market price "
    "rose fell stock company year good bad"
).split()
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

# Special tokens by their part, in the order of their ids: BERT's, and those of the RoBERTa line.
BERT_STYLE = {"pad": "[PAD]", "unk": "[UNK]", "begin": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}
ROBERTA_STYLE = {"begin": "<s>", "pad": "<pad>", "end": "</s>", "unk": "<unk>", "mask": "<mask>"}
DISENTANGLED: dict[str, Any] = {
    "relative_attention": True,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
# What differs from BERT: the transformers config class, its own options, and the special tokens.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "bert": ("BertConfig", {}, BERT_STYLE),
    "roberta": ("RobertaConfig", {"type_vocab_size": 1}, ROBERTA_STYLE),
    "distilbert": ("DistilBertConfig", {}, BERT_STYLE),
    "mpnet": ("MPNetConfig", {}, ROBERTA_STYLE),
    "electra": ("ElectraConfig", {"embedding_size": 16}, BERT_STYLE),
    "deberta-v2": (
        "DebertaV2Config",
        # As DeBERTa-v3; the buckets are fewer than the positions, as there, so that far ones are merged.
        {**DISENTANGLED, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        BERT_STYLE,
    ),
    "deberta": ("DebertaConfig", DISENTANGLED, BERT_STYLE),
    "modernbert": (
        "ModernBertConfig",
        {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3},
        BERT_STYLE,
    ),
    "xlm-roberta": ("XLMRobertaConfig", {"type_vocab_size": 1}, ROBERTA_STYLE),
    "camembert": ("CamembertConfig", {"type_vocab_size": 1}, ROBERTA_STYLE),
    "albert": ("AlbertConfig", {"embedding_size": 16}, BERT_STYLE),
}
ARCHS = tuple(ARCHITECTURES)
WITH_TYPES = ("bert", "electra", "deberta-v2", "deberta", "albert")  # models that read token_type_ids
OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")  # models whose positions start after the padding id


def vocabulary(special: dict[str, str]) -> dict[str, int]:
    """Return the special tokens, some whole words, and letters that every other word is made of."""
    tokens = [*special.values(), *WORDS, *LETTERS, *(f"##{c}" for c in LETTERS), *".,?!'-"]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def tiny_tokenizer(arch: str = "bert") -> Any:
    """Return a lower-casing WordPiece tokenizer with the special tokens of an architecture."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ARCHITECTURES[arch][2]
    begin, end = special["begin"], special["end"]
    vocab = vocabulary(special)
    backend = Tokenizer(models.WordPiece(vocab, unk_token=special["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The RoBERTa line puts two separators between the sentences and knows one token type.
    second = f"{end}:0 $B:0 {end}:0" if special is ROBERTA_STYLE else "$B:1 " + f"{end}:1"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin}:0 $A:0 {end}:0",
        pair=f"{begin}:0 $A:0 {end}:0 {second}",
        special_tokens=[(begin, vocab[begin]), (end, vocab[end])],
    )
    names = ["input_ids", *(["token_type_ids"] if arch in WITH_TYPES else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=names,
        model_max_length=LENGTH,
        pad_token=special["pad"],
        unk_token=special["unk"],
        cls_token=begin,
        sep_token=end,
        mask_token=special["mask"],
    )


def tiny_plm(path: Path, arch: str = "bert", seed: int = 0) -> Path:
    """Write a random two-layer PLM (hidden 32) of an architecture and return its directory.

    The weights are large for a random start, so that different sentences get different vectors.
    """
    import torch
    import transformers

    from transenc.models.transformer import quiet

    name, own, special = ARCHITECTURES[arch]
    vocab = vocabulary(special)
    options: dict[str, Any] = {
        "vocab_size": len(vocab),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": LENGTH + (2 if arch in OFFSET else 0),
        "pad_token_id": vocab[special["pad"]],
        "bos_token_id": vocab[special["begin"]],
        "eos_token_id": vocab[special["end"]],
        "initializer_range": 0.2,
    }
    if arch == "distilbert":
        options |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            del options[key]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(transformers, name)(**(options | own))
        model = transformers.AutoModel.from_config(config)
    path.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(path)
    tiny_tokenizer(arch).save_pretrained(path)
    return path
