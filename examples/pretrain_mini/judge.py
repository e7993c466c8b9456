"""Judge a packed model as a language model: held-out loss beside the unigram model's, and gaps in sentences."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .corpus import TokenStream, read_sentences, split_sentences
from .settings import Settings
from .train import held_out_batches, held_out_loss, unigram_loss

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


def judge(folder: Path, corpus: list[Path], *, on_result: Callable[[dict[str, object]], None]) -> None:
    """Report the loss at all masked held-out tokens, the unigram model's at the same, and fill-mask answers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).float().eval()
    training, held_out = split_sentences(read_sentences(corpus))
    pieces = tokenizer.backend_tokenizer
    pieces.no_padding()
    pieces.no_truncation()
    # All held-out rows, not the 512 that the training log watches.
    settings = Settings(row_length=min(Settings.row_length, model.config.max_position_embeddings))
    batches = held_out_batches(TokenStream.encode(held_out, pieces), settings, pieces, rows=None)
    unigram = unigram_loss(TokenStream.encode(training, pieces), batches, len(pieces.get_vocab()))
    on_result({"held_out": held_out_loss(model, batches, "cpu"), "unigram": unigram})
    for sentence in FILL_MASK:
        on_result({"sentence": sentence, "answers": fill_mask(model, tokenizer, sentence)})
