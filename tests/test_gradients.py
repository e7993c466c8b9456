from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import make_pairs
from transenc import gradients
from transenc.config import DistillSettings
from transenc.gradients import RowGradients
from transenc.models.bi import BiFamily
from transenc.models.device import Compute
from transenc.stages.distill import distill_model
from transenc.training import Fit


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_training_by_rows_equals_training_by_tables(
    plm: Path, monkeypatch: pytest.MonkeyPatch, weight_decay: float
) -> None:
    silver = make_pairs(24, scored=True)
    settings = DistillSettings(
        objective="cosine_mse",
        batch_size=4,
        learning_rate=1e-3,
        weight_decay=weight_decay,
        max_grad_norm=0.05,
    )
    trained = []
    for large in (0, 10**9):
        monkeypatch.setattr(gradients, "LARGE", large)
        model = BiFamily().create(plm, compute=Compute("cpu", "fp32"), max_length=16, pooling="mean")
        distill_model(model, silver, settings, Fit(settings, Compute("cpu", "fp32"), 1, "stage"))
        assert not any(m.sparse for m in model.module.modules() if isinstance(m, nn.Embedding))
        trained.append({name: w.detach().numpy() for name, w in model.module.named_parameters()})
    start = BiFamily().create(plm, compute=Compute("cpu", "fp32"), max_length=16).module
    for name, w in start.named_parameters():
        if "key.bias" not in name:  # whose gradient is 0 but for rounding, which AdamW makes large
            np.testing.assert_allclose(trained[0][name], trained[1][name], atol=1e-5, err_msg=name)
        if "word_embeddings" in name:
            assert np.abs(trained[0][name] - w.detach().numpy()).max() > 1e-4


def test_gradients_of_several_passes_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "LARGE", 1)
    table = nn.Embedding(6, 2, padding_idx=0)
    shared = nn.Embedding(6, 2)
    shared.weight = table.weight
    by_rows = RowGradients(nn.ModuleList([table, shared]))
    buffers = set()
    for ids in ([[1, 1, 0], [2]], [[4], [1, 4]], [[5], [5]]):
        weight = torch.arange(1.0, 3.0)
        with by_rows.sparse():
            loss = sum(
                (part(torch.tensor(row)) * weight).sum()
                for part, row in zip((table, shared), ids, strict=True)
            )
        table.weight.grad = None
        loss.backward()  # type: ignore[union-attr]
        by_rows.gather()
        wanted = torch.zeros(6, 2)
        for row in ids:
            for i in row:
                wanted[i] += weight if i else 0.0
        assert table.weight.grad is not None
        torch.testing.assert_close(table.weight.grad.to_dense(), wanted)
        assert not table.weight.grad.is_sparse
        buffers.add(table.weight.grad.data_ptr())
    assert len(buffers) == 1  # no new table a step


def test_a_table_with_another_use_keeps_its_dense_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "LARGE", 1)
    table = nn.Embedding(5, 3)
    by_rows = RowGradients(table)
    with by_rows.sparse():
        states = table(torch.tensor([1, 2]))
    (states @ table.weight.T).sum().backward()  # type: ignore[no-untyped-call]
    by_rows.gather()
    found = table.weight.grad
    table.weight.grad = None
    states = table(torch.tensor([1, 2]))
    (states @ table.weight.T).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, table.weight.grad)
