"""Score with an exported engine on onnxruntime, tokenizers and numpy alone: no torch, no transformers."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc.errors import ConfigError, DamagedError, MachineError, RefusedError
from transenc.models.tokens import GPU_TOKENS, Tokens, chunks, collate, tokenize
from transenc.pairs import Index, Pairs, Scores, cosines
from transenc.store import hash_file

SIDECAR = "engine.json"
SCHEMA = 1
FAMILIES = ("bi", "cross")
# Tokens a run on a CPU. Of 256 to 4,096 (minilm, STS-B, 2 cores) 1,024 and 2,048 were fastest, 4,096 10 % slower.
CPU_BUDGET = 1024
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # operators that onnxruntime itself carries
BLOCK = 32768  # texts tokenised at a time; bounds the token arrays of a million pairs


@dataclass(frozen=True)
class Facts:
    """What engine.json says: everything needed to run the graph except its weights.

    inputs: the graph's input names. output: the one that is scored. sha256: of each file that decides a
    score.
    """

    family: str
    pooling: str | None
    max_length: int
    dim: int
    graph: str
    inputs: tuple[str, ...]
    output: str
    pad_id: int
    precision: str
    opset: int
    transenc: str
    source: dict[str, str]
    sha256: dict[str, str]
    parity: dict[str, Any] = field(default_factory=dict)


def read_facts(path: Path) -> Facts:
    """Read engine.json; raise DamagedError when it is not what `export_onnx` writes."""
    file = path / SIDECAR
    try:
        raw = json.loads(file.read_bytes())
        if raw.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}; export the model again")
        facts = Facts(**{**raw, "inputs": tuple(raw["inputs"])})
        if facts.family not in FAMILIES or not isinstance(facts.max_length, int) or facts.max_length < 1:
            raise ValueError(f"family '{facts.family}', max_length {facts.max_length!r}")
        needed = {facts.graph, "tokenizer.json"} - set(facts.sha256)
        if needed:
            raise ValueError(f"no sha256 of {', '.join(sorted(needed))}")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is not an engine: it has no {SIDECAR}. Make one: transenc export onnx"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DamagedError(f"{file} cannot be used: {error}") from error
    for name in facts.sha256:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RefusedError(f"{file} names '{name}', which leaves its directory.")
    return facts


@dataclass
class Engine:
    """Score pairs as the model did that it was exported from: cosines (bi) or probabilities (cross)."""

    family: str
    facts: Facts
    session: Any
    tokenizer: Any
    budget: int = CPU_BUDGET

    @property
    def max_length(self) -> int:
        """Return how many tokens a sentence, or a pair, is cut to."""
        return self.facts.max_length

    def encode(self, sentences: list[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32 unit vectors; only a bi-encoder has them."""
        if self.family != "bi":
            raise ConfigError("This engine is a cross-encoder: it scores pairs and makes no vectors.")
        return self._rows(sentences, (self.facts.dim,))

    def score(self, pairs: Pairs) -> Scores:
        """Return one float32 score per pair; a bi-encoder encodes every distinct sentence once."""
        if self.family == "bi":
            pairs = pairs.take(slice(None))  # narrows the sentences to those that occur
            return cosines(self.encode(list(pairs.sentences)), pairs.left, pairs.right)
        logits = self._rows(list(pairs.rows()), (1,))[:, 0].astype(np.float64)
        # The sigmoid, in a form that neither overflows nor makes ties of very low scores.
        return np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)

    def _rows(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], shape: tuple[int, ...]
    ) -> npt.NDArray[np.float32]:
        rows = np.empty((len(texts), *shape), np.float32)
        for start in range(0, len(texts), BLOCK):
            tokens = tokenize(self.tokenizer, texts[start : start + BLOCK], self.max_length)
            for chunk in chunks(tokens.lengths, self.budget):
                rows[start + chunk] = self._run(tokens, chunk)
        return rows

    def _run(self, tokens: Tokens, chunk: Index) -> npt.NDArray[np.float32]:
        batch = collate(tokens, chunk, pad_id=self.facts.pad_id, names=self.facts.inputs)
        values: npt.NDArray[np.float32] = self.session.run(
            [self.facts.output], {name: batch[name] for name in self.facts.inputs}
        )[0]
        return values


def load_engine(path: Path, *, device: str = "auto", verify: bool = True) -> Engine:
    """Load an engine directory without importing torch.

    device: "auto" and "cpu" run on the CPU, "cuda" or "cuda:1" on that GPU or not at all. verify: compare the
    sha256 of graph and tokenizer with engine.json. Raises DamagedError, RefusedError (a graph that reaches
    outside its directory) or MachineError (no onnxruntime, or no CUDA in it).
    """
    facts = read_facts(path)
    for name in facts.sha256:
        file = path / name
        if not file.is_file():
            raise DamagedError(f"{file} is missing. Export the model again.")
        if verify and hash_file(file) != facts.sha256[name]:
            raise DamagedError(f"{file} differs from what {path / SIDECAR} recorded. Export the model again.")
    for name in refuse_foreign(path / facts.graph):
        if (Path(facts.graph).parent / name).as_posix() not in facts.sha256:
            raise RefusedError(
                f"{path / facts.graph} keeps weights in '{name}', which {SIDECAR} does not list."
            )
    from tokenizers import Tokenizer

    session = _session(path / facts.graph, device)
    names = {i.name for i in session.get_inputs()}
    if names != set(facts.inputs) or facts.output not in {o.name for o in session.get_outputs()}:
        raise DamagedError(f"{path / facts.graph} has other inputs or outputs than {path / SIDECAR} says.")
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    return Engine(
        facts.family, facts, session, tokenizer, GPU_TOKENS if device.startswith("cuda") else CPU_BUDGET
    )


def _session(graph: Path, device: str) -> Any:
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ConfigError(f"No device '{device}' for an engine. There is: auto, cpu, cuda, cuda:1, ...")
    try:
        import onnxruntime
    except ImportError:
        raise MachineError('Engines run on onnxruntime. Run: pip install "transenc[cpu]"') from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: a warning here is about speed, and stderr is the user's
    providers: list[Any] = ["CPUExecutionProvider"]
    if kind == "cuda":
        available = onnxruntime.get_available_providers()
        if "CUDAExecutionProvider" not in available:
            raise _no_cuda(available)
        # TF32 rounds products to 10 bits, which parity to 1e-4 does not survive.
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number or "0", "use_tf32": "0"}))
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        version = onnxruntime.__version__
        raise DamagedError(f"{graph} cannot be loaded by onnxruntime {version}: {reason}") from error
    if kind == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise _no_cuda(session.get_providers())  # listed as available, but its libraries did not load
    return session


def _no_cuda(available: list[str]) -> MachineError:
    return MachineError(
        f"onnxruntime cannot use CUDA here; it has {', '.join(available)}. "
        'Run: pip uninstall onnxruntime && pip install "transenc[gpu]", or use --device cpu.'
    )


# The parts of an ONNX file (onnx.proto) through which it can name an operator library or another file:
# message, field number, and the message, or in lower case the text, held there. Read here so that no package
# is needed.
_PARTS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Opset", 20: "Training", 25: "Function"},
    "Opset": {1: "domain"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 9: "Opset", 10: "domain", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute", 7: "domain"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {1: "key", 2: "value"},
}


def refuse_foreign(graph: Path) -> list[str]:
    """Refuse a graph with operators from elsewhere or weights outside its directory, before anything loads it.

    Returns the files beside it that hold weights.
    """
    folder = graph.resolve().parent
    with graph.open("rb") as file:
        if not graph.stat().st_size:
            raise DamagedError(f"{graph} is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                found = set(_texts(data))
            except (IndexError, ValueError) as error:
                raise DamagedError(f"{graph} is not an ONNX file: {error}") from error
    for kind, text in sorted(found):
        if kind == "domain" and text not in DOMAINS:
            raise RefusedError(f"{graph} uses operators of '{text}', which would run code from elsewhere.")
        if kind == "location" and (folder / text).resolve().parent != folder:
            raise RefusedError(f"{graph} keeps weights in '{text}', which leaves its directory.")
    return sorted(text for kind, text in found if kind == "location")


def _texts(data: mmap.mmap) -> Iterator[tuple[str, str]]:
    """Yield ("domain", name) and ("location", path) wherever an ONNX file holds them."""
    stack = [("Model", 0, len(data))]
    while stack:  # not recursion: a hostile file could nest deeper than Python's own stack
        kind, start, end = stack.pop()
        entry: dict[str, str] = {}
        for number, low, high in _fields(data, start, end):
            part = _PARTS[kind].get(number)
            if part is None:
                continue
            if part[0].isupper():
                stack.append((part, low, high))
            elif part == "domain":
                yield part, data[low:high].decode()
            else:
                entry[part] = data[low:high].decode()
        if entry.get("key") == "location":
            yield "location", entry.get("value", "")


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, end) of the length-delimited fields of a protobuf message."""
    while position < end:
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == 2:
            size, position = _varint(data, position)
            if position + size > end:
                raise ValueError("a field is longer than its message")
            yield tag >> 3, position, position + size
            position += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number is too long")
