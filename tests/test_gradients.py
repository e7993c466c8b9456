from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.conftest import make_pairs
from transenc import gradients
from transenc.config import DistillSettings, FitSettings
from transenc.errors import Interrupted
from transenc.gradients import RowGradients
from transenc.interrupt import StopFlag
from transenc.models.bi import BiFamily
from transenc.models.device import Compute
from transenc.progress import Progress
from transenc.stages.distill import distill_model
from transenc.store import Store
from transenc.training import Fit, fit


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_training_by_rows_equals_training_by_tables(
    plm: Path, monkeypatch: pytest.MonkeyPatch, weight_decay: float, share: float
) -> None:
    """With the share 1.0 the optimizer has the rows of words that occur, else whole tables."""
    monkeypatch.setattr(gradients, "SHARE", share)
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


def embedded(
    words: list[int], decay: float, *, known: bool, stop: StopFlag, store: Store | None = None
) -> Any:
    """Train a table of 20 words on examples of one word each; return its weights before and after."""
    torch.manual_seed(0)
    table = nn.Embedding(20, 3)
    start, ids = table.weight.detach().clone(), torch.tensor(words)
    run = Fit(
        FitSettings(epochs=3, batch_size=2, learning_rate=0.1, weight_decay=decay), Compute(), 1, "stage"
    )
    run.words, run.stop = {table.weight: ids.unique()} if known else None, stop
    run.checkpoints = store and store.checkpoints("stage", "x")

    def loss_of(index: Any) -> torch.Tensor:
        return (table(ids[torch.from_numpy(index)]) - 1).square().sum()

    def count(progress: Progress) -> None:
        if store and progress.done == 2 and not run.checkpoints.latest():  # type: ignore[union-attr]
            stop.signum = 2

    run.report = count
    fit(table, len(words), loss_of, run)
    return start, table.weight.detach()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_words_that_do_not_occur_only_decay(monkeypatch: pytest.MonkeyPatch, decay: float) -> None:
    monkeypatch.setattr(gradients, "LARGE", 1)
    words = [3, 7, 7, 19]
    start, trained = embedded(words, decay, known=True, stop=StopFlag())
    _, whole = embedded(words, decay, known=False, stop=StopFlag())
    torch.testing.assert_close(trained, whole)
    others = torch.ones(20, dtype=torch.bool)
    others[words] = False
    assert (trained[~others] - start[~others]).abs().min() > 0.1
    assert torch.equal(trained[others], start[others]) == (decay == 0)


def test_a_resumed_training_of_words_that_occur_equals_the_uninterrupted_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gradients, "LARGE", 1)
    words, store = [3, 7, 7, 19, 0], Store(tmp_path / "run")
    _, plain = embedded(words, 0.1, known=True, stop=StopFlag())
    with store.lock():
        with pytest.raises(Interrupted):
            embedded(words, 0.1, known=True, stop=StopFlag(), store=store)
        saved = load_file(store.checkpoints("stage", "x").latest() / "optimizer.safetensors")  # type: ignore[operator]
        assert saved["weight/exp_avg"].shape == (4, 3)
        _, resumed = embedded(words, 0.1, known=True, stop=StopFlag(), store=store)
    assert torch.equal(plain, resumed)


def test_a_word_that_was_not_said_to_occur_and_another_use_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gradients, "LARGE", 1)
    table = nn.Embedding(9, 3)
    by_rows = RowGradients(table, {table.weight: torch.tensor([1, 2])})
    with by_rows.sparse():
        states = table(torch.tensor([1, 4]))
    states.sum().backward()  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="no example was said to have"):
        by_rows.gather()
    table.weight.grad = None
    with by_rows.sparse():
        states = table(torch.tensor([1, 2]))
    (states @ table.weight.T).sum().backward()  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="otherwise"):
        by_rows.gather()


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
