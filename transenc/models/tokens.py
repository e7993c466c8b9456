"""Token sequences without padding, and how they are grouped into batches that waste little of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from transenc.pairs import Index

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = npt.NDArray[np.int64]

# Tokens a forward pass holds, padding included. On a CPU, fp32 passes stay in cache; a GPU wants to be filled, and so
# do oneDNN's products of packed weights (packed.py) and a CPU's bf16 units.
CPU_TOKENS = 1024
CPU_PACKED_TOKENS = 4096
CPU_TRAINING_TOKENS = 1024
CPU_BF16_TRAINING_TOKENS = 4096
GPU_TOKENS = 65536
# What starting a forward pass costs, in tokens of work: padding is taken where it is cheaper. In fp32 on a CPU 16
# leaves 2 % of padding in a batch of 128 pairs and 6 % in one of 32 (STS), as first-fit packing into rows does. In
# bf16 a token costs a quarter and a pass the same (docs/speed.md). On a GPU it is an estimate, never measured.
CPU_PASS = 16
CPU_BF16_PASS = 96
GPU_PASS = 2048
GROUP = 32  # the same of a group that shares a pass with others (unpadded.py): only attention runs once more


@dataclass(frozen=True, eq=False)  # arrays have no one truth value
class Tokens:
    """Hold n token sequences end to end: `ids[offsets[i]:offsets[i + 1]]` is sequence i, special tokens included."""

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int8]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Return the (n,) token counts."""
        return np.diff(self.offsets)


# Before tokenizers 0.23 nothing may be set while another thread encodes; a tokenizer itself uses all cores.
_TURN = Lock()


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    max_length: int,
    *,
    block: int = 8192,
    characters: int = 1 << 20,
) -> Tokens:
    """Tokenise sentences, or pairs of them, cut to `max_length` tokens with the special ones (longest side first).

    Work goes in blocks, since the tokenizer's own result objects are many times larger than the ids, and made of
    whole texts before these are cut. block, characters: what one holds at most, or a single text.
    """
    with _TURN:
        return _tokenized(tokenizer, texts, max_length, block, characters)


def _tokenized(
    tokenizer: Tokenizer,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    max_length: int,
    block: int,
    characters: int,
) -> Tokens:
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    ids, types = [np.zeros(0, np.int32)], [np.zeros(0, np.int8)]
    lengths: list[int] = []
    sizes = np.cumsum([0] + [len(t) if isinstance(t, str) else len(t[0]) + len(t[1]) for t in texts])
    end = 0
    while end < len(texts):
        start, fitting = end, int(np.searchsorted(sizes, sizes[end] + characters, side="right")) - 1
        end = max(start + 1, min(start + block, fitting))
        # The fast one leaves out where in the text a token stands.
        found = tokenizer.encode_batch_fast(list(texts[start:end]))
        ids.append(np.concatenate([np.asarray(encoding.ids, np.int32) for encoding in found]))
        types.append(np.concatenate([np.asarray(encoding.type_ids, np.int8) for encoding in found]))
        lengths += [len(encoding) for encoding in found]
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Tokens(np.concatenate(ids), np.concatenate(types), offsets)


def chunks(lengths: Ints, budget: int, *, pass_cost: int = CPU_PASS) -> list[Index]:
    """Group sequences of similar length for the least work, each group, padded, of at most `budget` tokens.

    Returns positions into `lengths`; every one occurs once. A sequence longer than the budget stands alone.
    pass_cost: what one more group costs, in tokens; padding is taken where it is cheaper than that.
    """
    order = np.argsort(-lengths, kind="stable")
    # Sequences of one length belong together, so groups can only end where the length changes.
    widths, counts = np.unique(lengths, return_counts=True)
    widths = np.maximum(widths[::-1], 1)
    ends = np.concatenate([[0], np.cumsum(counts[::-1])])
    least = np.zeros(len(ends), np.int64)  # the least cost of the ends[j] longest sequences
    begins = np.zeros(len(ends), np.int64)  # where their last group begins
    for j in range(1, len(ends)):
        padded = widths[:j] * (ends[j] - ends[:j])
        cost = least[:j] + padded + pass_cost * -(-padded // budget)
        begins[j] = cost.argmin()
        least[j] = cost[begins[j]]
    groups: list[Index] = []
    j = len(widths)
    while j > 0:
        i = begins[j]
        size = max(1, budget // int(widths[i]))
        groups += [order[k : min(k + size, ends[j])] for k in range(ends[i], ends[j], size)]
        j = i
    return groups


def collate(tokens: Tokens, index: Index, *, pad_id: int, names: Sequence[str]) -> dict[str, Ints]:
    """Pad the sequences at `index` into the (batch, longest) int64 arrays that the model's input names ask for."""
    lengths = tokens.lengths[index]
    width = int(lengths.max()) if len(index) else 0
    inside = np.arange(width) < lengths[:, None]
    # Past its end a row reads whatever follows; `inside` hides it.
    where = np.minimum(tokens.offsets[index][:, None] + np.arange(width), max(len(tokens.ids) - 1, 0))
    batch = {
        "input_ids": np.where(inside, tokens.ids[where], pad_id).astype(np.int64),
        "attention_mask": inside.astype(np.int64),
    }
    if "token_type_ids" in names:
        batch["token_type_ids"] = np.where(inside, tokens.types[where], 0).astype(np.int64)
    return batch
