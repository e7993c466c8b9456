"""Compare the word embeddings of a graph with the model's, row by row: texts reach few of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# By how much of its largest number a row may differ: not at all, by a rounding to 11 bits, by half of 1 / 127.
LIMITS = {"fp32": 0.0, "fp32-O2": 0.0, "fp16": 2.0**-11, "int8": 0.5 / 127 + 1e-6}

LEAST = 1e-3  # a row of smaller numbers, or of none but 0, is measured as if this were its largest


def word_difference(file: Path, module: Any) -> tuple[float, int] | None:
    """Return the largest difference of a row of word embeddings, as a share of its largest number, and that row.

    None where the graph does not pick rows of a table by `input_ids` alone.
    """
    import onnx

    graph = onnx.load(str(file)).graph
    found = _table(graph)
    if found is None:
        return None
    wanted = module.get_input_embeddings().weight.detach().float().cpu().numpy()
    if found.shape != wanted.shape:
        return float("inf"), 0
    largest = np.maximum(np.abs(wanted).max(1), LEAST)
    differences = np.abs(found - wanted).max(1) / largest
    row = int(np.argmax(differences))
    return float(differences[row]), row


def _table(graph: Any) -> npt.NDArray[np.float32] | None:
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    picked = [
        node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[1] == "input_ids"
    ]
    tables = [name for name in picked if name in tensors]
    if not tables:
        return None
    table: npt.NDArray[np.float32] = numpy_helper.to_array(tensors[tables[0]]).astype(np.float32)
    if tables[0].endswith("_quantized"):  # convert.py stores a scale a row beside it
        table *= numpy_helper.to_array(tensors[f"{tables[0].removesuffix('_quantized')}_scale"])
    return table
