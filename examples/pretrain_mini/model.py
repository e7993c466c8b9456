"""Build the encoder from transformers' own classes, so that AutoModel loads the result unchanged."""

import numpy as np
import torch
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel
from transformers.models.roberta_prelayernorm import RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM

from .corpus import TokenStream

# Where the layer norm sits decides the class; the two differ in nothing else that matters here.
FAMILIES = {
    "post": (BertConfig, BertForMaskedLM),
    "pre": (RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM),
}


def build_model(
    *,
    norm: str,
    vocabulary_size: int,
    layers: int,
    width: int,
    ffn: int,
    heads: int,
    positions: int,
    dropout: float,
) -> PreTrainedModel:
    """Create an untrained masked language model; the caller seeds torch first."""
    config_class, model_class = FAMILIES[norm]
    config = config_class(
        vocab_size=vocabulary_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        # RoBERTa counts positions from padding_idx + 1.
        max_position_embeddings=positions + (norm == "pre"),
        type_vocab_size=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = model_class(config)
    model.tie_weights()
    return model


def masked_loss(
    model: PreTrainedModel,
    inputs: torch.Tensor,  # (rows, length)
    types: torch.Tensor,  # (rows, length)
    positions: torch.Tensor,  # (masked,) into the flattened rows
    targets: torch.Tensor,  # (masked,)
) -> torch.Tensor:
    """Return the mean cross-entropy at the masked positions alone.

    They are gathered before the vocabulary projection: at a mask rate of 15% that saves 85% of it.
    """
    hidden = model.base_model(
        input_ids=inputs, token_type_ids=types
    ).last_hidden_state  # (rows, length, width)
    gathered = hidden.flatten(0, 1)[positions]  # (masked, width)
    head = model.cls if hasattr(model, "cls") else model.lm_head
    return functional.cross_entropy(head(gathered).float(), targets)


def unigram_log_probabilities(counts: np.ndarray) -> np.ndarray:
    """Return add-one smoothed log frequencies."""
    smoothed = counts + 1.0
    return np.log(smoothed / smoothed.sum())


def output_bias(model: PreTrainedModel) -> torch.nn.Parameter:
    """Return the bias of the vocabulary projection."""
    return model.cls.predictions.bias if hasattr(model, "cls") else model.lm_head.bias


def start_from_counts(
    model: PreTrainedModel, stream: TokenStream, *, window: int, seed: int, std: float
) -> None:
    """Set word embeddings to factorised co-occurrence and the output bias to log frequency.

    PMI is what skip-gram factorises (Levy and Goldberg 2014). With it the first step already knows which
    words keep company, and the long plateau at the unigram loss, where attention has nothing to attend to,
    disappears. It costs under a minute and reads only the training text.
    """
    embeddings = model.get_input_embeddings().weight
    vectors = factorised_pmi(stream, *embeddings.shape, window=window, seed=seed)
    with torch.no_grad():
        embeddings.copy_(vectors * std)
        embeddings[0] = 0.0  # [PAD]
        output_bias(model).copy_(torch.from_numpy(unigram_log_probabilities(stream.counts(len(embeddings)))))


def factorised_pmi(stream: TokenStream, size: int, width: int, *, window: int, seed: int) -> torch.Tensor:
    """Return (size, width) token vectors from positive PMI within `window`, scaled to root mean square 1."""
    ids = stream.ids.astype(np.int64)
    together = np.zeros(size * size, dtype=np.float32)
    within = ids != stream.sep_id
    for distance in range(1, window + 1):
        # A pair is inside one sentence when no [SEP] lies between its two ends.
        within = within[: len(ids) - distance] & (ids[distance:] != stream.sep_id)
        left, right = ids[:-distance][within], ids[distance:][within]
        weight = (window + 1 - distance) / window  # near words count more, as in GloVe and word2vec
        together += np.bincount(left * size + right, minlength=size * size).astype(np.float32) * weight
    matrix = torch.from_numpy(together).view(size, size)
    matrix = matrix + matrix.T
    totals = matrix.sum(1)
    context = totals**0.75  # Levy, Goldberg and Dagan 2015: smoothing the context distribution
    scale = matrix.sum() / (
        totals[:, None].clamp_min(1e-9) * (context / context.sum() * totals.sum()).clamp_min(1e-9)
    )
    matrix = (matrix * scale).clamp_min(1.0).log_()  # positive PMI; 0 where never seen together
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    left_vectors, values, _ = torch.svd_lowrank(matrix, q=width + 16, niter=3)
    torch.random.set_rng_state(generator_state)
    vectors = left_vectors[:, :width] * values[:width].sqrt()
    noise = torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) * 1e-2
    vectors = vectors / vectors.std() + noise  # noise: a token that was never seen still gets a vector
    return vectors / vectors.pow(2).mean(1, keepdim=True).sqrt()
