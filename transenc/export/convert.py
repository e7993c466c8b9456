"""Make other graphs of an fp32 graph: fused, fp16, int8. Each is compared with the model before it is kept."""

from __future__ import annotations

import io
import logging
import platform
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transenc.export.attention import AttentionFusion
from transenc.export.trace import save_graph, too_large

ATTENTION = ("Attention", "MultiHeadAttention", "QAttention")
FUSED = (
    *ATTENTION, "SkipLayerNormalization", "LayerNormalization", "BiasGelu", "Gelu", "FastGelu"
)  # fmt: skip
QUANTIZED = ("QAttention", "MatMulInteger")


def fuse(source: Path, target: Path, config: Any) -> dict[str, int]:
    """Join the operators of attention, GELU and layer normalisation; return how many nodes of each kind there are.

    config: the model's transformers config, for its number of heads. No approximation is used: the result
    must stay within the tolerance of fp32.
    """
    with _quiet():
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model

        options = FusionOptions("bert")
        # Embeddings are a fraction of a percent of the time, and their fusion fixes the types of the inputs.
        options.enable_embed_layer_norm = False
        heads = int(config.num_attention_heads)
        optimizer = optimize_model(
            str(source),
            "bert",
            num_heads=heads,
            hidden_size=int(config.hidden_size),
            optimization_options=options,
            opt_level=0,
        )
        model = optimizer.model
        if AttentionFusion(model, heads).run():
            optimizer.prune_graph()
            optimizer.topological_sort()
    _keep_signature(model, source)
    save_graph(model, target)
    counts = Counter(node.op_type for node in model.graph.node)
    return {name: counts[name] for name in FUSED if counts[name]}


def to_fp16(source: Path, target: Path) -> None:
    """Store weights and compute in half precision, with fp32 inputs and outputs as the contract has them."""
    with _quiet(), warnings.catch_warnings():
        # It warns of values that are cut to the range of fp16, which is for the comparison to judge.
        warnings.simplefilter("ignore")
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        # By its path: types are then inferred from file to file, in memory that cannot be done above 2 GiB.
        model = convert_float_to_float16(str(source), keep_io_types=True)
        OnnxModel(model).topological_sort()  # its casts come last, behind what reads them
    save_graph(model, target)


def _keep_signature(model: Any, source: Path) -> None:
    """Declare the inputs and outputs of the source again: an input that is not used gets lost on the way."""
    import onnx

    graph = onnx.load(str(source), load_external_data=False).graph
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(graph.input)
    model.graph.output.extend(graph.output)


@dataclass(frozen=True)
class Choice:
    """One way of making a graph int8.

    what: for the card. outputs, ends: whether the matrices after the GELU, and those of the first and the last
    layer, are quantised too. words: whether word embeddings are. signed: int8 weights, else uint8.
    """

    what: str
    outputs: bool = True
    ends: bool = True
    words: bool = True
    signed: bool = True


def choices() -> list[Choice]:
    """List the ways of making int8 graphs on this machine, the fastest first."""
    ways = [
        Choice("all layers"),
        Choice("all matrices but those after the GELU", outputs=False),
        Choice(
            "all matrices but those after the GELU and of the first and last layer, words in fp32",
            outputs=False, ends=False, words=False,
        ),
    ]  # fmt: skip
    if cpu() != "avx2":
        return ways
    # Without VNNI, products of 8-bit weights with 8-bit activations overflow 16 bits unless the weights have
    # 7 bits (onnxruntime's documentation, "Quantize ONNX models"); uint8 weights keep 8 and are slower.
    return [*ways[:1], Choice("all layers, 8-bit unsigned weights", signed=False), *ways[1:]]


def to_int8(source: Path, target: Path, choice: Choice, layers: int) -> tuple[int, int]:
    """Quantise weights of matrix products per channel, their inputs at run time, and word embeddings per row.

    Word embeddings are most of a small model's file; no product reads them. layers: how many the model has, to find
    the first and the last. Returns how many products and how many tables of words became int8.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    marked = target.with_suffix(".marked.onnx")
    model = onnx.load(str(source))
    model.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")  # it would ask for that on stderr
    # Types of tensors that the fusion made cannot be inferred, and stale ones stop the quantiser.
    del model.graph.value_info[:]
    left_out = _left_out(model.graph, choice, layers)
    save_graph(model, marked)
    with _quiet():
        quantize_dynamic(
            marked,
            target,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=True,
            reduce_range=choice.signed and cpu() == "avx2",
            weight_type=QuantType.QInt8 if choice.signed else QuantType.QUInt8,
            nodes_to_exclude=left_out,
            use_external_data_format=too_large(model),
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    for file in target.parent.glob(f"{marked.name}*"):
        file.unlink()
    made = onnx.load(str(target))
    target.unlink()
    target.with_name(f"{target.name}.data").unlink(missing_ok=True)
    del made.metadata_props[:]
    tables = _quantise_words(made.graph) if choice.words else 0
    _keep_signature(made, source)
    save_graph(made, target)
    return sum(node.op_type in QUANTIZED for node in made.graph.node), tables


def _left_out(graph: Any, choice: Choice, layers: int) -> list[str]:
    """Return the names of the nodes that stay in fp32."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    nodes = [
        node
        for node in graph.node
        if node.op_type == "Attention" or (node.op_type == "MatMul" and node.input[1] in shapes)
    ]
    # Products of one row a text are the head of a cross-encoder: no time to gain there, and all of the score to lose.
    # The quantiser renames them so.
    names = {f"{node.name}_MatMul" for node in graph.node if node.op_type == "Gemm"}
    if not choice.outputs:  # the one product of a layer that makes many features few
        names |= {
            n.name for n in nodes if n.op_type == "MatMul" and shapes[n.input[1]][0] > shapes[n.input[1]][1]
        }
    if not choice.ends:
        count = max(1, len(nodes) // layers)
        # A last layer that computes the first token alone has more (models/first_token.py).
        last = len(nodes) - count * (layers - 1)
        names |= {n.name for n in (*nodes[:count], *nodes[-last:])}
    return sorted(names)


def _quantise_words(graph: Any) -> int:
    """Store the tables that `input_ids` pick rows of as int8 and a scale a row; return how many there are."""
    import numpy as np
    from onnx import TensorProto, numpy_helper
    from onnx.helper import make_node

    tables = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    readers = Counter(name for node in graph.node for name in node.input)
    nodes, found = [], 0
    for node in graph.node:
        name = node.input[0] if node.op_type == "Gather" and node.input[1] == "input_ids" else ""
        if name not in tables or readers[name] > 1:  # what a product reads too stays as it is
            nodes.append(node)
            continue
        table = numpy_helper.to_array(tables[name])
        largest = np.abs(table).max(1, keepdims=True)
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        stored = {f"{name}_quantized": np.rint(table / scales).astype(np.int8), f"{name}_scale": scales}
        graph.initializer.remove(tables[name])
        graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in stored.items())
        rows, numbers, factors = (f"{node.output[0]}_{part}" for part in ("int8", "float", "scale"))
        nodes += [
            make_node("Gather", [f"{name}_quantized", "input_ids"], [rows]),
            make_node("Cast", [rows], [numbers], to=TensorProto.FLOAT),
            make_node("Gather", [f"{name}_scale", "input_ids"], [factors]),
            make_node("Mul", [numbers, factors], [node.output[0]]),
        ]
        found += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def cpu() -> str:
    """Return the kind of processor that int8 graphs are made for, as their file names have it."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].split())
    except OSError:
        flags = set()
    return "avx512_vnni" if "avx512_vnni" in flags else "avx2"


def int8_name(choice: Choice) -> str:
    """Return the file name that other tools look for: model_qint8_avx512_vnni, model_quint8_avx2, ..."""
    return f"onnx/model_{'qint8' if choice.signed else 'quint8'}_{cpu()}.onnx"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what onnxruntime's tools log and print, which is for their authors, off the user's terminal."""
    handlers, disabled = list(logging.root.handlers), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()):  # --json has that for itself
            yield
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers  # logging.warning() adds one


def to_qdq(source: Path, target: Path, batches: Iterator[dict[str, Any]]) -> None:
    """Quantise matrix products with ranges fixed beforehand, in the form that TensorRT reads (QuantizeLinear pairs).

    batches: arrays for the graph's inputs, from which the ranges of activations are taken.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    marked = target.with_suffix(".marked.onnx")
    model = onnx.load(str(source))
    model.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    save_graph(model, marked)
    with _quiet():
        quantize_static(
            marked,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=too_large(model),
            # TensorRT knows symmetric ranges only, and products of two activations stay as they are.
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "MatMulConstBOnly": True},
        )
    for file in target.parent.glob(f"{marked.name}*"):
        file.unlink()
