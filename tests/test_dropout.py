"""The masks that training on a CPU draws: their share, their seed, and attention against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transenc.models.attention import TOKENS, attend, attend_with_gradients
from transenc.models.device import Compute
from transenc.models.dropout import CpuDropout


def test_elements_fall_at_the_asked_rate_and_the_rest_is_scaled() -> None:
    torch.manual_seed(0)
    states = torch.ones(400, 503, requires_grad=True)
    with CpuDropout():
        out = F.dropout(states, 0.1)
    fell = float((out == 0).float().mean())
    assert fell == pytest.approx(0.1, abs=0.003)  # four standard deviations of 201,200 draws
    assert out[out != 0].unique().tolist() == pytest.approx([1 / 0.9], abs=1e-4)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None
    assert torch.equal(states.grad, out.detach())


def test_masks_are_a_function_of_torchs_seed_and_differ_within_a_pass() -> None:
    def masks(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        layer = nn.Dropout(0.5).train()
        with Compute().training_pass():
            return [layer(torch.ones(7, 9)) for _ in range(2)]

    first, again, other = masks(1), masks(1), masks(2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything_fall_as_in_torch(p: float) -> None:
    states = torch.randn(5, 6)
    with CpuDropout():
        assert torch.equal(F.dropout(states, p), states * (1 - p))
        assert torch.equal(F.dropout(states, 0.3, training=False), states)
        F.dropout(states, 1.0, inplace=True)
    assert not states.any()


@pytest.mark.parametrize("kind", [None, "bool", "float"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_attention_without_dropout_is_torchs(kind: str | None, dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, 3, 7, 8).to(dtype) for _ in range(3))
    mask = None
    if kind is not None:
        seen = torch.rand(2, 1, 7, 7) < 0.7
        seen[..., 0] = True
        mask = seen if kind == "bool" else torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -torch.inf)
    plain = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # In fp32 a dropout too rare to hit takes the written-out way, which it would not take at 0.
    with CpuDropout():
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=1e-7)
    assert out.dtype == dtype
    assert torch.allclose(out.float(), plain.float(), atol=atol)


def test_attention_drops_weights_at_the_asked_rate() -> None:
    torch.manual_seed(0)
    query = torch.zeros(8, 4, 64, 16)  # every weight is 1 / 64
    value = torch.eye(64).expand(8, 4, 64, 64)
    with CpuDropout():
        weights = F.scaled_dot_product_attention(query, query, value, dropout_p=0.1)
    assert float((weights == 0).float().mean()) == pytest.approx(0.1, abs=0.004)
    assert float(weights.mean() * 64) == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("kind", [None, "bool", "float"])
@pytest.mark.parametrize(("length", "asked"), [(5, 5), (5, 1), (23, 23), (23, 1), (70, 70)])
def test_scoring_attention_is_torchs(length: int, asked: int, kind: str | None) -> None:
    torch.manual_seed(4)
    batch = 2 * TOKENS // length + 1  # several parts, the last one smaller
    query = torch.randn(batch, 3, asked, 8)
    key, value = (torch.randn(batch, length, 3, 8).transpose(1, 2) for _ in range(2))
    seen = torch.rand(batch, 1, 1, length) < 0.7
    seen[..., 0] = True
    mask = {None: None, "bool": seen, "float": torch.where(seen, torch.randn(seen.shape), -1e4)}[kind]
    for scale in (None, 0.3):
        wanted = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
        torch.testing.assert_close(attend(query, key, value, mask, scale), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [5, 23])
def test_gradients_of_attention_are_torchs_also_of_a_mask_that_learns(length: int) -> None:
    torch.manual_seed(5)
    states = [torch.randn(3, 2, length, 8, requires_grad=True) for _ in range(3)]
    bias = torch.randn(1, 2, length, length, requires_grad=True)  # as position biases are, one for the batch
    outward = torch.randn(3, 2, length, 8)
    wanted = F.scaled_dot_product_attention(*states, bias)
    expected = torch.autograd.grad(wanted, [*states, bias], outward)
    found = attend_with_gradients(*states, bias, None)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    gradients = torch.autograd.grad(found, [*states, bias], outward)
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-3)


def test_gradients_of_attention_under_dropout_are_those_of_the_same_factors() -> None:
    torch.manual_seed(6)
    states = [torch.randn(2, 2, 23, 8, requires_grad=True) for _ in range(3)]
    factors = (torch.rand(4, 23, 23) < 0.8).float() / 0.8
    found = attend_with_gradients(*states, None, 0.5, 0.2, lambda weights, share: factors)
    query, key, value = states
    weights = torch.softmax(query @ key.transpose(-2, -1) * 0.5, -1) * factors.view(2, 2, 23, 23)
    wanted = weights @ value
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    outward = torch.randn(wanted.shape)
    torch.testing.assert_close(
        torch.autograd.grad(found, states, outward),
        torch.autograd.grad(wanted, states, outward),
        atol=1e-4,
        rtol=1e-3,
    )
