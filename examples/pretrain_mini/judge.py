"""Judge an encoder as the project will use it: STS by mean pooling, raw and after a few SimCSE steps."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from transenc.errors import DataError

from .corpus import TokenStream, read_sentences, seeded, split_sentences
from .settings import Settings
from .train import held_out_batches, held_out_loss, unigram_loss


def read_scored_pairs(file: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Read a TSV with the columns score, sentence1 and sentence2 (no quoting)."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        scores = np.asarray([float(row["score"]) for row in rows])
        return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows], scores
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: expected tab-separated columns score, sentence1, sentence2 ({error})."
        ) from error


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks with ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation of two arrays."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def mean_pooled(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: list[str], max_length: int = 64
) -> torch.Tensor:
    """Return the mean of the last hidden states over real tokens, (sentences, width)."""
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


@torch.no_grad()
def embed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: list[str]) -> torch.Tensor:
    """Encode in batches of like length; rows come back in the order given."""
    model.eval()
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    out: list[torch.Tensor] = []
    for begin in range(0, len(order), 64):
        out.append(mean_pooled(model, tokenizer, [sentences[index] for index in order[begin : begin + 64]]))
    stacked = torch.cat(out)
    return stacked[torch.argsort(torch.tensor(order))]


def sts_spearman(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path) -> float:
    """Return Spearman x 100 between cosine and gold score."""
    first, second, scores = read_scored_pairs(file)
    cosines = functional.cosine_similarity(embed(model, tokenizer, first), embed(model, tokenizer, second))
    return 100 * spearman(cosines.double().numpy(), scores)


def prime_simcse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: list[str],
    *,
    steps: int,
    rows: int = 64,
    learning_rate: float = 1e-4,
    temperature: float = 0.05,  # SimCSE, section 3
    dropout: float = 0.1,
    seed: int = 0,
) -> None:
    """Train in place with SimCSE: the same sentence under another dropout mask is its positive."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    order = seeded(seed, "simcse").permutation(len(sentences))[: steps * rows]
    torch.manual_seed(seed)
    for step in range(steps):
        chosen = [sentences[index] for index in order[step * rows : (step + 1) * rows]]
        vectors = functional.normalize(mean_pooled(model, tokenizer, chosen + chosen), dim=1)
        similarity = vectors[: len(chosen)] @ vectors[len(chosen) :].T / temperature
        loss = functional.cross_entropy(similarity, torch.arange(len(chosen)))
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"SimCSE loss is {loss.item()} at step {step}.")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / steps) * min(1.0, (step + 1) / max(1, steps // 20))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()


# Plain sentences of our own; none is from a corpus or a benchmark.
FILL_MASK = (
    "The cat sat on the [MASK] and fell asleep.",
    "She opened the [MASK] and walked into the room.",
    "Water boils when it gets very [MASK].",
    "He drank a cup of [MASK] before work.",
    "The children are playing in the [MASK].",
    "My brother is older [MASK] me.",
    "They have lived in this [MASK] for ten years.",
    "Plants need light and [MASK] to grow.",
    "I do not [MASK] what you mean.",
    "The heart pumps [MASK] through the body.",
)


@torch.no_grad()
def fill_mask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentence: str, best: int = 5
) -> list[str]:
    """Return the likeliest pieces at the first [MASK]."""
    ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
    place = int((ids[0] == tokenizer.mask_token_id).nonzero()[0, 0])
    scores = model(input_ids=ids).logits[0, place]
    return tokenizer.convert_ids_to_tokens(scores.topk(best).indices.tolist())


def judge(
    folder: Path,
    sts: Path,
    corpus: list[Path],
    *,
    prime_steps: int = 0,
    prime_rate: float = 3e-4,
    random_weights: bool = False,
    seed: int = 0,
    on_result: Callable[[dict[str, object]], None],
) -> None:
    """Report held-out and unigram loss, fill-mask answers, and STS raw and after SimCSE priming."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(seed)
    model = (
        AutoModelForMaskedLM.from_config(config)
        if random_weights
        else AutoModelForMaskedLM.from_pretrained(folder)
    )
    model = model.float().eval()
    name = {"model": "random weights" if random_weights else folder.name, "seed": seed}

    training, held_out = split_sentences(read_sentences(corpus))
    pieces = tokenizer.backend_tokenizer
    pieces.no_padding()
    pieces.no_truncation()
    # All held-out rows, not the 512 that the training log watches.
    batches = held_out_batches(TokenStream.encode(held_out, pieces), Settings(), pieces, rows=None)
    unigram = unigram_loss(TokenStream.encode(training, pieces), batches, len(pieces.get_vocab()))
    on_result({**name, "held_out": held_out_loss(model, batches, "cpu"), "unigram": unigram})
    if not random_weights:
        for sentence in FILL_MASK:
            on_result({**name, "sentence": sentence, "answers": fill_mask(model, tokenizer, sentence)})

    encoder = model.base_model
    on_result({**name, "sts": sts.name, "stage": "raw", "spearman": sts_spearman(encoder, tokenizer, sts)})
    if prime_steps:
        sentences = [sentence for sentence in dict.fromkeys(training) if len(sentence.split()) >= 5]
        prime_simcse(encoder, tokenizer, sentences, steps=prime_steps, learning_rate=prime_rate, seed=seed)
        primed = {"stage": "primed", "steps": prime_steps, "spearman": sts_spearman(encoder, tokenizer, sts)}
        on_result({**name, "sts": sts.name, **primed})
