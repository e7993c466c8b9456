"""Trace a scorer into one fp32 ONNX graph with exactly the inputs and outputs of the contract (docs/engines.md)."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transenc.errors import ConfigError
from transenc.models.bi import pool
from transenc.models.first_token import last_layer_at
from transenc.models.unpadded import ROWS

SINGLE_FILE = 2**31 - 2**20
OPSET = 17  # the first with LayerNormalization
OPSETS = range(14, 21)  # up to what the TorchScript exporter knows
# Why TorchScript and eager attention: right for every architecture of models/checks.py, ten times faster
# than the dynamo exporter, and the only graphs whose attention onnxruntime's optimizer can fuse.
ATTENTION = "eager"
OUTPUTS = {"bi": ("last_hidden_state", "sentence_embedding"), "cross": ("logits",)}
SCORED = {"bi": "sentence_embedding", "cross": "logits"}
# What the exporter warns of, none of which a user can act on. That traced values may not generalise is
# the reason for the parity check over all lengths.
IGNORED: tuple[tuple[type[Warning], str], ...] = (
    (DeprecationWarning, "You are using the legacy TorchScript-based ONNX export"),
    (DeprecationWarning, "The feature will be removed"),
    (torch.jit.TracerWarning, ""),  # type: ignore[attr-defined]  # public in the docs, not in the stubs
    (UserWarning, "Exporting aten::index operator"),
    (UserWarning, "To copy construct from a tensor"),  # DeBERTa-v2 of transformers
)


class _Graph(nn.Module):
    """Give a scorer's module positional inputs and the outputs of the graph contract."""

    def __init__(self, scorer: Any, names: list[str]) -> None:
        super().__init__()
        self.module = scorer.module
        self.names = names
        self.outputs = getattr(scorer, "graph_outputs", None) or partial(_outputs, scorer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.outputs(self.module, dict(zip(self.names, inputs, strict=True)))


def _outputs(scorer: Any, module: nn.Module, batch: dict[str, Tensor]) -> Any:
    if contract(scorer) == "cross":
        with _spared(scorer, module):
            return module(**batch).logits  # (batch, 1)
    states = module(**batch).last_hidden_state  # (batch, sequence, dim)
    return states, F.normalize(pool(states, batch["attention_mask"], scorer.pooling), dim=-1, eps=1e-12)


def _spared(scorer: Any, module: Any) -> AbstractContextManager[None]:
    """Let the last layer compute the first token alone, if the head reads no other and the architecture allows it."""
    head = getattr(scorer, "head", None)
    if head is None or not head.first or module.config.model_type not in ROWS:
        return nullcontext()
    first = torch.zeros(1, dtype=torch.long, device=scorer.transformer.compute.device)
    return last_layer_at(head.body(module), first)


def contract(scorer: Any) -> str:
    """Tell whether a scorer's graph is that of a bi- or of a cross-encoder; raise ConfigError for neither.

    A family of a plugin says so with `engine = "bi"` or `"cross"` on its scorer, which has a `transformer`, a
    `module` and `save` as the built-in ones do, and may give `graph_outputs(module, batch)` of its own.
    """
    kind = str(getattr(scorer, "engine", scorer.family))
    if kind not in OUTPUTS:
        raise ConfigError(f"The family '{scorer.family}' has no ONNX export. There is: {', '.join(OUTPUTS)}.")
    return kind


@contextmanager
def _exportable(module: Any) -> Iterator[None]:
    """Use the exportable attention and silence the exporter for the block."""
    attention = module.config._attn_implementation
    with torch.no_grad(), warnings.catch_warnings():
        for category, message in IGNORED:
            warnings.filterwarnings("ignore", message, category)
        try:
            module.set_attn_implementation(ATTENTION)
            yield
        finally:
            module.set_attn_implementation(attention)


def trace(scorer: Any, target: Path, opset: int) -> None:
    """Write the scorer's graph to the file `target`; raise ConfigError for an operator that ONNX does not have."""
    names = list(scorer.transformer.tokenizer.model_input_names)
    outputs = OUTPUTS[contract(scorer)]
    axes = {name: {0: "batch", 1: "sequence"} for name in (*names, "last_hidden_state")}
    axes |= {name: {0: "batch"} for name in SCORED.values()}
    scratch = target.with_suffix(".traced")  # the exporter spreads large weights over many files
    scratch.mkdir(parents=True)
    try:
        with _exportable(scorer.module):
            torch.onnx.export(
                _Graph(scorer, names).eval(),
                _example(scorer, names),
                str(scratch / "model.onnx"),
                input_names=names,
                output_names=list(outputs),
                dynamic_axes={name: axes[name] for name in (*names, *outputs)},
                opset_version=opset,
                dynamo=False,
            )
    except (torch.onnx.errors.UnsupportedOperatorError, torch.onnx.errors.SymbolicValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"This model has an operator that cannot be exported at opset {opset}: {reason} "
            "Try a higher --opset, or another model."
        ) from error
    config: Any = scorer.module.config
    shapes: dict[str, list[str | int]] = {
        "last_hidden_state": ["batch", "sequence", config.hidden_size],
        "sentence_embedding": ["batch", config.hidden_size],
        "logits": ["batch", 1],
    }
    _finish_graph(scratch / "model.onnx", target, names, {name: shapes[name] for name in outputs})
    shutil.rmtree(scratch)


def _example(scorer: Any, names: list[str]) -> tuple[Tensor, ...]:
    """Make a batch of 2 x 8 tokens with padding in it, so that the mask is not traced away."""
    ids = torch.full((2, 8), scorer.transformer.pad_id)
    ids[0] = ids[1, :5] = int(scorer.transformer.tokenizer.unk_token_id or 0)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    unknown = set(names) - set(batch)
    if unknown:
        raise ConfigError(f"The tokenizer names {', '.join(sorted(unknown))}, which transenc does not make.")
    return tuple(batch[name].to(scorer.transformer.compute.device) for name in names)


def _finish_graph(traced: Path, target: Path, inputs: list[str], outputs: dict[str, list[str | int]]) -> None:
    """Write the traced graph under its final name, with exactly the inputs and outputs of the contract."""
    import onnx
    from onnx.helper import make_tensor_value_info as declare

    model = onnx.load(str(traced))
    # Declared anew: tracing drops an input that is not used (DeBERTa without token types), which callers still
    # send since the tokenizer makes it, and it loses the dimensions of some outputs.
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(declare(n, onnx.TensorProto.INT64, ["batch", "sequence"]) for n in inputs)
    model.graph.output.extend(declare(n, onnx.TensorProto.FLOAT, shape) for n, shape in outputs.items())
    save_graph(model, target)


def too_large(model: Any) -> bool:
    """Tell whether a graph and its weights exceed what one protobuf file can hold."""
    from onnx.helper import tensor_dtype_to_np_dtype

    # Not `model.ByteSize()`: that serialises the whole, which protobuf refuses to do above 2 GiB.
    weights = sum(
        math.prod(tensor.dims) * tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )
    rest = sum(part.ByteSize() for part in (*model.graph.node, *model.graph.value_info))
    return int(weights + rest) > SINGLE_FILE


def save_graph(model: Any, target: Path) -> None:
    """Write an ONNX model to a file, with its weights beside it (`<name>_data`) where one file cannot hold them."""
    import onnx

    target.parent.mkdir(parents=True, exist_ok=True)
    declared = {opset.domain for opset in model.opset_import}
    for domain in sorted({node.domain for node in model.graph.node} - declared - {"ai.onnx"}):
        model.opset_import.add(domain=domain, version=1)
    options: dict[str, Any] = (
        {"save_as_external_data": True, "location": f"{target.name}_data"} if too_large(model) else {}
    )
    onnx.save(model, str(target), **options)
    if options:  # onnx lets nobody else read them
        target.with_name(f"{target.name}_data").chmod(target.stat().st_mode)
    if not any(opset.domain for opset in model.opset_import):  # the checker knows no operators of onnxruntime
        onnx.checker.check_model(str(target))
