"""The module through which sentence-transformers' CrossEncoder loads a segment head (docs/files.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from transenc.errors import ConfigError
from transenc.models.checks import check
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.models.layout import save_segments
from transenc.models.segments import SegmentModel


class SegmentScorer(InputModule):
    """Be the one module of a CrossEncoder: pairs in, `scores` of (batch, 1) logits out, to train or to predict."""

    config_keys = ["max_seq_length"]  # noqa: RUF012 - its base has a list; what is printed of it
    tokenizer: Any

    def __init__(self, model: SegmentModel, tokenizer: Any, max_seq_length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **options: Any,
    ) -> SegmentScorer:
        """Load a directory or a hub name; `dtype` of the option model_kwargs is heeded.

        Raises ConfigError for another backend than torch, and where there is no segment head.
        """
        backend = options.get("backend", "torch")
        if backend != "torch":
            raise ConfigError(
                f"{model_name_or_path} holds weights for torch, not for '{backend}'. Make an engine of it: "
                "transenc export onnx"
            )
        path = Path(
            cls.load_dir_path(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
            or model_name_or_path
        )
        check(path)
        scorer = CrossFamily().load(path, compute=Compute("cpu", "fp32"))
        module = scorer.module
        if not isinstance(module, SegmentModel):
            raise ConfigError(f"{path} has no segment head; CrossEncoder loads it without modules.json.")
        chosen = options.get("model_kwargs") or {}
        dtype = chosen.get("dtype", chosen.get("torch_dtype"))
        if dtype not in (None, "auto"):
            module.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return cls(module, scorer.transformer.tokenizer, scorer.transformer.max_length)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Tokenise pairs of strings, padded, the longer side cut first. Raises ConfigError for a prompt."""
        if prompt:
            raise ConfigError("A segment head compares two sentences as they are: leave out the prompt.")
        left, right = ([str(pair[side]) for pair in inputs] for side in (0, 1))
        tokens = self.tokenizer(
            left,
            right,
            padding=True,
            truncation="longest_first",
            max_length=self.max_seq_length,
            return_tensors="pt",
        )
        return dict(tokens)

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Add the (batch, 1) logits as `scores`."""
        names = [name for name in self.tokenizer.model_input_names if name in features]
        features["scores"] = self.model(**{name: features[name] for name in names}).logits
        return features

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write what `load` reads, as transenc itself does."""
        save_segments(self.model, self.tokenizer, self.max_seq_length, Path(output_path))
