"""Write the newest checkpoint as a model directory that transformers' Auto classes load."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from transenc.store import Store, hash_file, verify

from .checkpoints import load_weights, read_state
from .settings import Settings
from .train import new_model, weights_of
from .vocabulary import save_vocabulary, write_json

MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
PRIMING_DROPOUT = 0.1  # what the finished model is fine-tuned with; SimCSE needs it


def pack(run: Path, out: Path, *, random_weights: bool = False) -> dict[str, Any]:
    """Fill `out` with config, fp16 weights and tokenizer; return the facts of the checkpoint.

    random_weights: an untrained model of the same shape and vocabulary instead, with which to tell what training
    gave.
    """
    with Store(run).lock():
        folder = weights_of(run).parent
        verify(run / "vocabulary")
        state = read_state(folder)
        settings = Settings(**state["identity"]["settings"])
        tokenizer = Tokenizer.from_file(str(run / "vocabulary" / "tokenizer.json"))
        torch.manual_seed(settings.seed)
        model = new_model(settings, tokenizer.get_vocab_size())
        if not random_weights:
            load_weights(folder, model)
    save_vocabulary(tokenizer, out, positions=settings.positions)
    write_model(model, out)
    sums = "".join(f"{hash_file(out / name)}  {name}\n" for name in MODEL_FILES)  # for `sha256sum --check`
    (out / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return {
        "step": state["step"],
        "tokens": state["step"] * settings.rows * settings.row_length,
        **state["identity"],
    }


def write_model(model: torch.nn.Module, out: Path) -> None:
    """Write config.json and model.safetensors in half precision, each shared tensor once."""
    # named_parameters lists a tied tensor once; the output layer is tied again on loading.
    weights = {name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # safetensors leaves it readable by its owner alone
    config = model.config.to_dict()
    kept = {name: value for name, value in config.items() if name in CONFIG_KEYS}
    kept |= {
        "architectures": [type(model).__name__],
        "dtype": "float32",  # stored in half precision, but to be trained in full
        "hidden_dropout_prob": PRIMING_DROPOUT,
        "attention_probs_dropout_prob": PRIMING_DROPOUT,
        "classifier_dropout": PRIMING_DROPOUT,
    }
    write_json(out / "config.json", kept)


# The keys that describe the encoder; the rest are defaults that differ between transformers versions.
CONFIG_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)
