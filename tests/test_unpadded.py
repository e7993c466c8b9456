"""Sequences that share a row, and a last layer that computes few tokens, have the states of padded batches."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from transenc.models.first_token import last_layer_at
from transenc.models.unpadded import Attention, _positions, states

Batch = dict[str, Tensor]
Make = Callable[[str], Any]


@pytest.fixture(scope="module")
def make() -> Make:
    from transformers import BertConfig, BertModel

    def body(attention: str) -> Any:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        options = {"vocab_size": 60, "max_position_embeddings": 80, "initializer_range": 0.3}
        return BertModel(BertConfig(**sizes, **options, attn_implementation=attention)).eval()

    return body


def padded(batch: int, length: int, *, short: int = 0) -> Batch:
    """Return random tokens; of every other sequence the last `short` are padding."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[::2, length - short :] = 0
    ids = torch.randint(5, 60, (batch, length), generator=torch.Generator().manual_seed(length))
    return {"input_ids": ids * mask, "attention_mask": mask}


def biased(group: Batch) -> Batch:
    """Turn the positions round, and let each query of each sequence see the keys otherwise."""
    mask = group["attention_mask"]
    size = (len(mask), 1, mask.shape[1], mask.shape[1])
    bias = 2 * torch.randn(size, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(mask.shape[1]).flip(0).expand_as(mask)
    return {**group, "attention_mask": bias - 1e4 * (1 - mask[:, None, None]), "position_ids": positions}


def broadcast(group: Batch) -> Batch:
    """Add the same to the attention logits of all queries."""
    return {**group, "attention_mask": -1e4 * (1 - group["attention_mask"][:, None, None])}


BATCHES = {
    "full": padded(3, 6),
    "padded": padded(3, 6, short=2),
    "broadcast": broadcast(padded(3, 6, short=2)),
    "biased": biased(padded(3, 6, short=2)),
}
GROUPS = {
    "full": [padded(3, 4), padded(2, 7), padded(1, 5)],
    "padded": [padded(3, 4), padded(2, 7, short=3), padded(4, 6, short=1)],
    "long": [
        padded(2, 6, short=2),
        padded(2, 70, short=30),
    ],  # of more tokens than a few products are made for
    "biased": [biased(padded(3, 4)), biased(padded(2, 70, short=3))],
}


@pytest.mark.parametrize("first", [False, True], ids=["all", "first"])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_groups_in_one_row_have_the_states_of_each_alone(
    groups: list[Batch], first: bool, make: Make
) -> None:
    body = make("sdpa")
    with torch.no_grad():
        alone = [body(**group).last_hidden_state for group in groups]
        scored = states(body, groups, first=first)
    for found in (scored, states(body, groups, first=first)):  # the second one with gradients
        for group, wanted, given in zip(groups, alone, found, strict=True):
            real = group["input_ids"] != 0
            if first:
                wanted, real = wanted[:, :1], real[:, :1]
            assert given.shape == wanted.shape
            torch.testing.assert_close(given[real], wanted[real], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arch", "pad", "wanted"),
    [
        ("bert", 0, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ("roberta", 0, [[1, 2, 3, 4], [1, 2, 3, 4]]),
        ("roberta", 1, [[2, 1, 3, 1], [2, 3, 1, 4]]),
        ("xlm-roberta", None, [[2, 1, 3, 1], [2, 3, 1, 4]]),
    ],
)
def test_positions_are_those_that_the_architecture_counts(
    arch: str, pad: int | None, wanted: list[list[int]]
) -> None:
    ids = torch.tensor([[7, 1, 8, 1], [5, 6, 1, 9]])  # 1 also stands inside a text
    config = SimpleNamespace(model_type=arch, pad_token_id=pad)
    assert _positions(ids, config).tolist() == wanted


def test_what_is_added_to_attention_takes_the_precision_of_autocast(make: Make) -> None:
    body, groups = make("sdpa"), GROUPS["biased"]
    with torch.no_grad():
        alone = [body(**group).last_hidden_state for group in groups]
        with torch.autocast("cpu", torch.bfloat16):
            found = states(body, groups)
    for group, wanted, given in zip(groups, alone, found, strict=True):
        real = group["input_ids"] != 0
        assert given.dtype == torch.float32
        assert F.cosine_similarity(given[real], wanted[real]).min() > 0.99


@pytest.mark.parametrize(
    "options", [{}, {"scale": 0.9}, {"is_causal": True}], ids=["plain", "scale", "causal"]
)
@pytest.mark.parametrize("gradients", [False, True])
def test_attention_over_a_row_has_the_options_it_is_given(options: dict[str, Any], gradients: bool) -> None:
    shapes = [torch.Size(shape) for shape in ((2, 3), (1, 5))]
    torch.manual_seed(0)
    row = [torch.randn(1, 2, 11, 4, requires_grad=gradients) for _ in range(3)]
    with torch.set_grad_enabled(gradients):
        with Attention(shapes, [None, None]):
            found = F.scaled_dot_product_attention(*row, **options)
        cuts = [(0, 3), (3, 6), (6, 11)]
        each = [F.scaled_dot_product_attention(*(t[:, :, a:b] for t in row), **options) for a, b in cuts]
    torch.testing.assert_close(found, torch.cat(each, 2), atol=1e-6, rtol=1e-5)
    if gradients:
        found, wanted = (torch.autograd.grad(f.square().sum(), row) for f in (found, torch.cat(each, 2)))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_over_anything_but_one_row_is_refused(masked: bool) -> None:
    states = torch.ones(1 if masked else 2, 1, 3, 4)
    mask = torch.ones(3, 3, dtype=torch.bool) if masked else None
    with (
        Attention([torch.Size((1, 3))], [None]),
        pytest.raises(RuntimeError, match="looks at the row as a whole"),
    ):
        F.scaled_dot_product_attention(states, states, states, mask)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("kept", [[0], [2, 0, 3]], ids=str)
def test_a_last_layer_of_some_tokens_gives_their_states(
    kept: list[int], batch: Batch, attention: str, make: Make
) -> None:
    body = make(attention)
    with torch.no_grad():
        wanted = body(**batch).last_hidden_state
        with last_layer_at(body, torch.tensor(kept)):
            found = body(**batch).last_hidden_state
        again = body(**batch).last_hidden_state
    torch.testing.assert_close(found, wanted[:, kept], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(again, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_a_last_layer_of_some_tokens_drops_and_scales_attention_as_the_others_do(
    training: bool, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend, seen = F.scaled_dot_product_attention, []

    def record(*states: Tensor, **options: Any) -> Tensor:
        seen.append((options["dropout_p"], options["scale"]))
        return attend(*states, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    body = make("sdpa").train(training)
    with last_layer_at(body, torch.tensor([0])):
        body(**padded(2, 5))
    assert seen == [(0.1 if training else 0.0, 32**-0.5 * 2)] * 2  # four heads
