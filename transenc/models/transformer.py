"""A transformer and its tokenizer, run over unpadded sequences in chunks of similar length.

Training and scoring share `rows`, so what is trained is exactly what later scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from transenc.errors import ConfigError, DataError, of_memory
from transenc.models import unpadded
from transenc.models.device import Compute
from transenc.models.layout import HEAD, SENTENCES, said
from transenc.models.packed import packs, scoring_copy
from transenc.models.tokens import (
    CPU_BF16_PASS,
    CPU_BF16_TRAINING_TOKENS,
    CPU_PACKED_TOKENS,
    CPU_PASS,
    CPU_TOKENS,
    CPU_TRAINING_TOKENS,
    GPU_PASS,
    GPU_TOKENS,
    GROUP,
    Ints,
    Tokens,
    chunks,
    collate,
    tokenize,
)
from transenc.models.unpadded import Batch, position_offset
from transenc.pairs import Index


class Head(Protocol):
    """What a family makes of a module: one row a sequence."""

    @property
    def first(self) -> bool:
        """Return whether `rows` reads each sequence's first token alone."""
        return False

    def whole(self, module: Any, batch: Batch) -> Tensor:
        """Return the (batch, ...) rows of a padded batch, of any architecture."""
        ...

    def body(self, module: Any) -> Any:
        """Return the part whose last hidden states `rows` takes."""
        ...

    def inputs(self, module: Any, batch: Batch) -> Batch:
        """Return what the body is given for a padded batch: the batch, unless a head reads it otherwise."""
        return batch

    def rows(self, module: Any, states: Tensor, batch: Batch) -> Tensor:
        """Return the (batch, ...) rows of the body's (batch, length, dim) states."""
        ...


@dataclass
class Transformer:
    """Hold a Hugging Face module, its tokenizer and the length that texts are cut to, everywhere."""

    module: nn.Module
    tokenizer: Any
    max_length: int
    compute: Compute
    _copy: nn.Module | None = field(default=None, repr=False)
    noisy: bool = False  # scoring keeps dropout on, for measuring how sure the model is
    padded: bool = False  # something in the module counts on a batch axis: sequences may not share a row
    # Scoring switches modes and replaces a layer's forward, so threads take turns; torch itself uses all cores.
    _turn: Any = field(default_factory=RLock, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, path: Path, module: nn.Module, tokenizer: Any, compute: Compute, max_length: int | None = None
    ) -> Transformer:
        """Put what was loaded of a directory on the device.

        max_length: tokens that texts are cut to, at most as many as there are positions; None keeps the directory's.
        """
        config: Any = module.config
        length = own_length(path, config) if max_length is None else min(max_length, position_limit(config))
        return cls(module.to(compute.device), tokenizer, length, compute)

    @property
    def embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        module: Any = self.module
        found: nn.Embedding = module.get_input_embeddings()
        return found

    def cut(self, max_length: int | None) -> int:
        """Return the length that training cuts texts to: `max_length`, or what the model reads if that is less."""
        return self.max_length if max_length is None else min(max_length, self.max_length)

    def tokens(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], max_length: int | None = None
    ) -> Tokens:
        """Tokenise sentences or pairs of sentences once; raise DataError for none, or one that the model has not.

        max_length: what training cuts them to, where that is less than what the model reads.
        """
        length = self.cut(max_length)
        backend = self.tokenizer.backend_tokenizer
        special = backend.num_special_tokens_to_add(len(texts) > 0 and not isinstance(texts[0], str))
        if length <= special:  # tokenizers would leave nothing of a text, or not cut it at all
            raise DataError(
                f"Texts are cut to {length} tokens, and {special} of them are special: nothing of a text is "
                "left. Mend max_seq_length in sentence_bert_config.json, or model_max_length in "
                "tokenizer_config.json, of the model."
            )
        tokens = tokenize(backend, texts, length)
        if len(tokens) and not tokens.lengths.all():
            empty = texts[int(tokens.lengths.argmin())]
            raise DataError(
                f"The tokenizer makes no token of {empty!r}, as its tokenizer.json has no post_processor that puts "
                "special ones around a text. Give it one, or leave out such texts."
            )
        known, last = self.embeddings.num_embeddings, int(tokens.ids.max(initial=0))
        if last >= known:
            raise DataError(
                f"The tokenizer makes the token {self.tokenizer.convert_ids_to_tokens(last)} ({last}), and the model "
                f"has embeddings of {known}: one of the two is another model's."
            )
        return tokens

    def words(self, tokens: Tokens) -> dict[nn.Parameter, Tensor]:
        """Return the weight of the word embeddings, and its sorted rows that sequences and special tokens take."""
        ids = np.union1d(tokens.ids, [self.pad_id, *self.tokenizer.all_special_ids])
        weight: Any = self.embeddings.weight
        return {weight: torch.from_numpy(ids[ids < len(weight)].astype(np.int64))}

    @property
    def budget(self) -> int:
        """Return how many tokens one forward pass may hold."""
        if self.compute.kind != "cpu":
            return GPU_TOKENS
        if torch.is_grad_enabled():
            return CPU_BF16_TRAINING_TOKENS if self.compute.precision == "bf16" else CPU_TRAINING_TOKENS
        return CPU_PACKED_TOKENS if packs(self.compute) else CPU_TOKENS

    @property
    def group_cost(self) -> int:
        """Return what one more group of sequences costs, in tokens of work: a forward pass, unless they share it."""
        if self.unpadded:
            return GROUP
        if self.compute.kind != "cpu":
            return GPU_PASS
        return CPU_BF16_PASS if self.compute.precision == "bf16" else CPU_PASS

    def rows(self, head: Head, tokens: Tokens, index: Index, *, module: nn.Module | None = None) -> Tensor:
        """Run the sequences at `index` and return one row each, in that order.

        The passes share one autograd graph, so the result equals that of one large padded batch, without most of its
        padding.
        """
        module = self.module if module is None else module
        parts, order = [], []
        for group in self.passes(tokens.lengths[index]):
            arrays = [
                collate(tokens, index[chunk], pad_id=self.pad_id, names=self.tokenizer.model_input_names)
                for chunk in group
            ]
            batches = [{name: self.compute.put(array) for name, array in each.items()} for each in arrays]
            if self.unpadded:
                given = [head.inputs(module, batch) for batch in batches]
                states = unpadded.states(head.body(module), given, first=head.first)
                parts += [head.rows(module, *both) for both in zip(states, batches, strict=True)]
            else:
                parts += [head.whole(module, batch) for batch in batches]
            order += group
        back = np.argsort(np.concatenate(order), kind="stable")
        return torch.cat(parts)[self.compute.put(back)]

    @property
    def unpadded(self) -> bool:
        """Return whether sequences of several lengths share a pass."""
        return self.compute.kind == "cpu" and not self.padded and unpadded.fits(self.module.config)

    def passes(self, lengths: Ints) -> list[list[Index]]:
        """Return groups of sequences of similar length, by forward pass."""
        groups = chunks(lengths, self.budget, pass_cost=self.group_cost)
        if not self.unpadded:
            return [[chunk] for chunk in groups]
        passes: list[list[Index]] = []
        room = 0
        for chunk in groups:
            size = len(chunk) * int(lengths[chunk].max())
            if size > room:
                passes.append([])
                room = self.budget
            passes[-1].append(chunk)
            room -= size
        return passes

    @property
    def pad_id(self) -> int:
        """Return the id that padding uses; the attention mask hides it."""
        return int(self.tokenizer.pad_token_id or 0)

    def infer(self, head: Head, tokens: Tokens, *, block: int = 4096) -> np.ndarray[Any, Any]:
        """Run every sequence without gradients or dropout and return float32 rows; threads take turns."""
        rows = np.zeros((0,), np.float32)
        with self._turn:
            module = self._scoring_module()
            with torch.inference_mode(), evaluating(module, noisy=self.noisy):
                for start in range(0, len(tokens), block):
                    index = np.arange(start, min(start + block, len(tokens)))
                    found = self.rows(head, tokens, index, module=module).float().cpu().numpy()
                    if start == 0:  # only now is their width known
                        rows = np.empty((len(tokens), *found.shape[1:]), np.float32)
                    rows[start : start + len(index)] = found
        return rows

    def _scoring_module(self) -> nn.Module:
        if self._copy is None:
            self._copy = scoring_copy(self.module, self.compute)
        return self._copy

    def changed(self) -> None:
        """Forget what was derived from the weights; call it after they changed."""
        self._copy = None


@contextmanager
def evaluating(module: nn.Module, *, noisy: bool = False) -> Iterator[None]:
    """Switch dropout off (on: `noisy`) for the block and restore the mode of every part after it."""
    was = [(part, part.training) for part in module.modules()]
    module.train(noisy)
    try:
        yield
    finally:
        for part, training in was:
            part.training = training


def load_tokenizer(path: Path) -> Any:
    """Load a fast tokenizer from a checked local directory, with the names of what its model reads."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer  # seconds to import

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if (short := of_memory(error)) is not None:
            raise short from error
        pieces = next((file.name for file in sorted(path.glob("*.model"))), None)
        if pieces and not (path / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
            raise DataError(
                f"{path}: its tokenizer is {pieces} alone, without tokenizer.json. Run: pip install sentencepiece"
            ) from error
        raise DataError(f"{path}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ConfigError(
            f"{path} has no fast tokenizer (tokenizer.json); convert it with a current transformers."
        )
    # transformers makes a tokenizer of special tokens alone where the files of one are missing.
    files = dict(tokenizer.vocab_files_names)
    whole = files.pop("tokenizer_file", "tokenizer.json")
    lacking = [name for name in files.values() if not (path / name).is_file()]
    if lacking and not (path / whole).is_file():
        raise DataError(
            f"{path} has no words for its tokenizer ({whole}, or {' and '.join(files.values())}): "
            "copy the tokenizer's files of its pretrained model there."
        )
    tokenizer.backend_tokenizer.no_padding()  # what was on as it was saved; here sequences are padded by `collate`
    types = said(path, "config.json", "type_vocab_size")
    if types == 1 and "token_type_ids" in tokenizer.model_input_names:
        # Of a pair it would give type 1, for which such a model has no embedding: RoBERTa with a BERT's tokenizer.
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
    if said(path, SENTENCES, "do_lower_case"):
        # sentence-transformers lowers texts before it tokenizes them; here the tokenizer does, also when it is saved.
        backend = tokenizer.backend_tokenizer
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return tokenizer


def load_module(path: Path, auto: str, *, new_head: bool = False, **options: Any) -> nn.Module:
    """Load fp32 weights through the transformers Auto class `auto` from a checked local directory.

    new_head: what stands on the body may be missing or of another shape, as the three labels of an NLI model, and is
    then drawn from torch's generator. Raises DataError for weights that are so otherwise; transformers would draw
    those as well.
    """
    import transformers

    try:
        with quiet():
            module, found = getattr(transformers, auto).from_pretrained(
                path,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below: they are listed apart from those that are missing
                **options,
            )
    except Exception as error:
        if (short := of_memory(error)) is not None:
            raise short from error
        raise DataError(f"{path}: its model cannot be loaded: {_first_line(error)}") from error
    spare = set(_may_be_missing(module, new_head=new_head))
    for name, there, wanted in sorted(found["mismatched_keys"]):
        if name not in spare:
            raise DataError(
                f"{path}: its weight {name} is {tuple(there)}, and its config.json makes it {tuple(wanted)}: "
                "one of the two files is another model's."
            )
    missing = sorted(set(found["missing_keys"]) - spare)
    if missing:
        others = sorted(found["unexpected_keys"])
        there = f" (it has {others[0]} and {len(others) - 1} more that are not used)" if others else ""
        raise DataError(
            f"{path}: its weights lack {missing[0]} and {len(missing) - 1} more{there}. The file is incomplete, or "
            "was saved under other names: save it with save_pretrained."
        )
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise DataError(f"{path}: the weight {name} holds NaN or infinity.")
    # A head is added anew or not at all; what a start says of its own must not be saved with another one.
    module.config.__dict__.pop(HEAD, None)
    return module.eval()  # type: ignore[no-any-return]


def _may_be_missing(module: Any, *, new_head: bool) -> list[str]:
    """Name the weights that nothing here reads, a bare body's pooler, or that a new head has."""
    body = module.base_model
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if body is module:
        return [name for name in names if name.startswith("pooler.")]
    within = f"{module.base_model_prefix}."
    return (
        [n for n in names if not n.startswith(within) or n.startswith(f"{within}pooler.")] if new_head else []
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars and its report of newly made heads, which here are always intended."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def position_limit(config: Any) -> int:
    """Return how many tokens the model has positions for."""
    positions = int(getattr(config, "max_position_embeddings", 512) or 512)
    return positions - position_offset(config)


def own_length(path: Path, config: Any) -> int:
    """Return the length a model directory was saved with, at most what it has positions for."""
    limit = position_limit(config)
    # What sentence-transformers says goes before what the tokenizer does, as there.
    for file, key in ((SENTENCES, "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        value = said(path, file, key)
        if isinstance(value, int | float) and value > 0:
            return int(min(value, limit))
    return limit
