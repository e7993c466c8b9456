"""The same work as one would write it on sentence-transformers, everything not named here at its default."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transenc.models.transformer import quiet
from transenc.pairs import Pairs


def bi(path: Path, *, device: str, precision: str = "fp32", max_length: int | None = None) -> Any:
    """Return a SentenceTransformer."""
    from sentence_transformers import SentenceTransformer

    with quiet():
        model = SentenceTransformer(str(path), device=device, model_kwargs=_dtype(precision))
    if max_length is not None:
        model.max_seq_length = max_length
    return model


def cross(path: Path, *, device: str, precision: str = "fp32", max_length: int | None = None) -> Any:
    """Return a CrossEncoder of one label."""
    from sentence_transformers import CrossEncoder

    options: dict[str, Any] = {} if max_length is None else {"max_length": max_length}
    with quiet():
        return CrossEncoder(str(path), num_labels=1, device=device, model_kwargs=_dtype(precision), **options)


def train_bi(
    model: Any, pairs: Pairs, *, batch: int, rate: float, epochs: int = 1, bf16: bool = False
) -> float:
    """Train by cosine MSE and return the mean loss of the steps."""
    from sentence_transformers import SentenceTransformerTrainer as Trainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    return _train(
        Trainer, Arguments, CosineSimilarityLoss(model), model, pairs, batch, rate, epochs, 0.0, bf16
    )


def train_cross(
    model: Any,
    pairs: Pairs,
    *,
    batch: int,
    rate: float,
    epochs: int = 1,
    warmup: float = 0.0,
    bf16: bool = False,
) -> float:
    """Train by binary cross-entropy with soft labels and return the mean loss of the steps."""
    from sentence_transformers.cross_encoder import CrossEncoderTrainer as Trainer
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments as Arguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    loss = BinaryCrossEntropyLoss(model)
    return _train(Trainer, Arguments, loss, model, pairs, batch, rate, epochs, warmup, bf16)


def _train(
    trainer: Any,
    arguments: Any,
    loss: Any,
    model: Any,
    pairs: Pairs,
    batch: int,
    rate: float,
    epochs: int,
    warmup: float,
    bf16: bool,
) -> float:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    assert pairs.scores is not None
    columns = {
        "sentence1": pairs.column(pairs.left),
        "sentence2": pairs.column(pairs.right),
        "label": [float(score) for score in pairs.scores],
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = arguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            num_train_epochs=epochs,
            learning_rate=rate,
            weight_decay=0.01,
            warmup_steps=warmup,
            bf16=bf16,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=str(model.device) == "cpu",
        )
        work = trainer(model=model, args=settings, train_dataset=Dataset.from_dict(columns), loss=loss)
        return float(work.train().training_loss)


def _dtype(precision: str) -> dict[str, Any]:
    import torch

    return {"dtype": torch.bfloat16 if precision == "bf16" else torch.float32}
