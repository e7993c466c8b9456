"""Export a scorer to ONNX: one fp32 graph that other tools load, kept only if it agrees with the model."""

from __future__ import annotations

import dataclasses
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transenc import __version__, store
from transenc.errors import ConfigError, MachineError
from transenc.export.engine import SCHEMA, SIDECAR, Facts, load_engine
from transenc.export.parity import Parity, check_parity
from transenc.models.bi import BiEncoder, pool
from transenc.models.cross import CrossEncoder
from transenc.models.device import Compute
from transenc.models.transformer import evaluating
from transenc.pairs import Pairs

GRAPH = "onnx/model.onnx"
WEIGHTS = "onnx/model.onnx_data"  # beside the graph when both exceed what one protobuf file can hold
FILES = (GRAPH, WEIGHTS, "tokenizer.json")  # what decides a score
SINGLE_FILE = 2**31 - 2**20
OPSET = 17  # the first with LayerNormalization
OPSETS = range(14, 21)  # up to what the TorchScript exporter knows
# Why TorchScript and eager attention: right for every architecture of models/intake.py, ten times faster
# than the dynamo exporter, and the only graphs whose attention onnxruntime's optimizer can fuse.
ATTENTION = "eager"
OUTPUTS = {"bi": ("last_hidden_state", "sentence_embedding"), "cross": ("logits",)}
SCORED = {"bi": "sentence_embedding", "cross": "logits"}
# What the exporter warns about, none of it to be acted on by a user. That traced values may not generalise is
# the reason for the parity check over all lengths.
IGNORED: tuple[tuple[type[Warning], str], ...] = (
    (DeprecationWarning, "You are using the legacy TorchScript-based ONNX export"),
    (DeprecationWarning, "The feature will be removed"),
    (torch.jit.TracerWarning, ""),  # type: ignore[attr-defined]  # public in the docs, not in the stubs
    (UserWarning, "Exporting aten::index operator"),
    (UserWarning, "To copy construct from a tensor"),  # DeBERTa-v2 of transformers
)


@dataclass(frozen=True)
class ExportReport:
    """What was written. size: bytes of graph and weights. sha256: of the graph."""

    path: Path
    family: str
    opset: int
    size: int
    sha256: str
    parity: Parity

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**own, "path": str(self.path), "parity": self.parity.as_dict()}


class _Graph(nn.Module):
    """Give a scorer's module positional inputs and the outputs of the graph contract (docs/files.md)."""

    def __init__(self, module: nn.Module, names: list[str], pooling: str | None) -> None:
        super().__init__()
        self.module = module
        self.names = names
        self.pooling = pooling

    def forward(self, *inputs: Tensor) -> Any:
        batch = dict(zip(self.names, inputs, strict=True))
        if self.pooling is None:
            return self.module(**batch).logits  # (batch, 1)
        states = self.module(**batch).last_hidden_state  # (batch, sequence, dim)
        return states, F.normalize(pool(states, batch["attention_mask"], self.pooling), dim=-1, eps=1e-12)


def export_onnx(
    scorer: BiEncoder | CrossEncoder,
    out: Path,
    *,
    pairs: Pairs,
    opset: int | None = None,
    tolerance: float = 1e-4,
    source: str = "",
    card: str = "",
) -> ExportReport:
    """Write `out`, a directory that sentence-transformers and `load_engine` read, after a comparison.

    pairs: what engine and model are compared on, besides made-up texts of every length. opset: None takes 17.
    tolerance: the largest difference of scores and vectors. source: the model's name, for the record. card:
    the model's README; "" writes a short one. The scorer is left as it was. Raises ConfigError when `out`
    exists and ParityError when the engine disagrees; then, as after any other error, `out` does not exist.
    """
    opset = OPSET if opset is None else opset
    _check_request(scorer, out, opset)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    work.mkdir()
    try:
        identity = _save_layout(scorer, work, card)
        with evaluating(scorer.module):
            _write_graph(scorer, work, opset)
            facts = _facts(scorer, work, opset, {"name": source, "fingerprint": identity})
            _write_facts(work, facts)
            parity = check_parity(_reference(scorer), load_engine(work), pairs, tolerance=tolerance)
        facts = dataclasses.replace(facts, parity=parity.as_dict())
        _write_facts(work, facts)
        with (work / "README.md").open("a", encoding="utf-8") as file:
            file.write(_note(facts, parity))
        size = sum(p.stat().st_size for p in (work / "onnx").iterdir())
        made_of = {"source": identity, "opset": opset, "precision": facts.precision, "transenc": __version__}
        store.commit(work, out, identity=store.fingerprint(made_of), info={"kind": "engine", **made_of})
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ExportReport(out, scorer.family, opset, size, facts.sha256[GRAPH], parity)


def _check_request(scorer: BiEncoder | CrossEncoder, out: Path, opset: int) -> None:
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists already. Choose another place or remove it.")
    if opset not in OPSETS:
        raise ConfigError(f"Opset {opset} is not one of {OPSETS[0]} to {OPSETS[-1]}.")
    if scorer.family not in OUTPUTS:
        raise ConfigError(f"The family '{scorer.family}' has no ONNX export. There is: {', '.join(OUTPUTS)}.")
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MachineError(f'Export needs {" and ".join(missing)}. Run: pip install "transenc[cpu]"')


def _save_layout(scorer: BiEncoder | CrossEncoder, work: Path, card: str) -> str:
    """Write the model directory without its weights, and return the fingerprint of the whole of it."""
    scorer.save(work, card=card)
    hashes = store.hash_tree(work)
    hashes.pop("README.md", None)
    for weights in [*work.glob("*.safetensors"), *work.glob("*.safetensors.index.json")]:
        weights.unlink()
    return store.fingerprint(hashes)


def _reference(scorer: BiEncoder | CrossEncoder) -> BiEncoder | CrossEncoder:
    """Return the scorer in fp32: the engine's precision, not that of the machine it was trained on."""
    compute = Compute(scorer.transformer.compute.device, "fp32")
    return dataclasses.replace(
        scorer, transformer=dataclasses.replace(scorer.transformer, compute=compute, _copy=None)
    )


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


def _write_graph(scorer: BiEncoder | CrossEncoder, work: Path, opset: int) -> None:
    names = list(scorer.transformer.tokenizer.model_input_names)
    outputs = OUTPUTS[scorer.family]
    axes = {name: {0: "batch", 1: "sequence"} for name in (*names, "last_hidden_state")}
    axes |= {name: {0: "batch"} for name in SCORED.values()}
    scratch = work / "scratch"  # the exporter spreads large weights over many files
    scratch.mkdir()
    with _exportable(scorer.module):
        torch.onnx.export(
            _Graph(scorer.module, names, getattr(scorer, "pooling", None)).eval(),
            _example(scorer, names),
            str(scratch / "model.onnx"),
            input_names=names,
            output_names=list(outputs),
            dynamic_axes={name: axes[name] for name in (*names, *outputs)},
            opset_version=opset,
            dynamo=False,
        )
    config: Any = scorer.module.config
    shapes: dict[str, list[str | int]] = {
        "last_hidden_state": ["batch", "sequence", config.hidden_size],
        "sentence_embedding": ["batch", config.hidden_size],
        "logits": ["batch", 1],
    }
    _finish_graph(scratch / "model.onnx", work, names, {name: shapes[name] for name in outputs})
    shutil.rmtree(scratch)


def _example(scorer: BiEncoder | CrossEncoder, names: list[str]) -> tuple[Tensor, ...]:
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


def _finish_graph(traced: Path, work: Path, inputs: list[str], outputs: dict[str, list[str | int]]) -> None:
    """Write the traced graph under its final name, with exactly the inputs and outputs of the contract."""
    import onnx
    from onnx.helper import make_tensor_value_info as declare

    model = onnx.load(str(traced))
    # Declared anew: tracing drops an input that is not used (DeBERTa without token types), which callers still
    # send since the tokenizer makes it, and it loses the dimensions of some outputs.
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(declare(n, onnx.TensorProto.INT64, ["batch", "sequence"]) for n in inputs)
    model.graph.output.extend(declare(n, onnx.TensorProto.FLOAT, shape) for n, shape in outputs.items())
    (work / "onnx").mkdir()
    large = model.ByteSize() > SINGLE_FILE
    options: dict[str, Any] = {"save_as_external_data": True, "location": Path(WEIGHTS).name} if large else {}
    onnx.save(model, str(work / GRAPH), **options)
    onnx.checker.check_model(str(work / GRAPH))


def _facts(scorer: BiEncoder | CrossEncoder, work: Path, opset: int, source: dict[str, str]) -> Facts:
    config: Any = scorer.module.config
    return Facts(
        family=scorer.family,
        pooling=getattr(scorer, "pooling", None),
        max_length=scorer.transformer.max_length,
        dim=int(config.hidden_size),
        graph=GRAPH,
        inputs=tuple(scorer.transformer.tokenizer.model_input_names),
        output=SCORED[scorer.family],
        pad_id=scorer.transformer.pad_id,
        precision="fp32",
        opset=opset,
        transenc=__version__,
        source=source,
        sha256={name: store.hash_file(work / name) for name in FILES if (work / name).is_file()},
    )


def _write_facts(work: Path, facts: Facts) -> None:
    (work / SIDECAR).write_bytes(store.canonical({"schema": SCHEMA, **dataclasses.asdict(facts)}))


def _note(facts: Facts, parity: Parity) -> str:
    made_of = f" from `{facts.source['name']}`" if facts.source["name"] else ""
    return (
        f"\n## ONNX engine\n\n`{facts.graph}` (fp32, opset {facts.opset}) was exported{made_of} by transenc "
        f"{facts.transenc}. Over {sum(c.pairs for c in parity.checks)} pairs of up to {parity.longest} tokens it "
        f"differs from the model by at most {parity.worst:.1e}. Inputs: {', '.join(facts.inputs)}; output: "
        f"`{facts.output}`; texts are cut to {facts.max_length} tokens.\n"
    )
