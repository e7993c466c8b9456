"""Score with an exported engine on onnxruntime, tokenizers and numpy alone: no torch, no transformers."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc import cores
from transenc.errors import ConfigError, DamagedError, MachineError, RefusedError
from transenc.export.mapped import Watched, weightless
from transenc.export.scan import refuse_foreign
from transenc.lines import one_line
from transenc.models.tokens import GPU_TOKENS, Tokens, chunks, collate, tokenize
from transenc.pairs import Index, Pairs, Scores, cosines, texts_of
from transenc.store import MANIFEST, hash_file, manifest

logger = logging.getLogger(__name__)

SIDECAR = "engine.json"
SCHEMA = 2
FAMILIES = ("bi", "cross")
GRAPHS = ("fp32-O2", "fp32", "fp16", "int8")  # in the order in which "auto" takes what an engine has
CPU = "CPUExecutionProvider"
DEVICES = ("auto", "cpu", "cuda", "tensorrt")
# Tokens a run on a CPU. Of 256 to 4,096 (minilm, STS-B, 2 cores) 1,024 and 2,048 were fastest, 4,096 10 % slower.
CPU_BUDGET = 1024
BLOCK = 32768  # texts tokenised at a time; bounds the token arrays of a million pairs
SHORTEST = 3  # tokens that texts may be cut to: one stands before and one after a text


@dataclass(frozen=True)
class Facts:
    """What engine.json says: everything needed to run the graphs except their weights.

    inputs: the graphs' input names. output: the one that is scored. graphs: by name, each with its "file" and
    how it compared with the model. sha256: of each file that decides a score.
    """

    family: str
    pooling: str | None
    max_length: int
    dim: int
    inputs: tuple[str, ...]
    output: str
    pad_id: int
    opset: int
    transenc: str
    source: dict[str, str]
    graphs: dict[str, dict[str, Any]]
    sha256: dict[str, str]


def read_facts(path: Path) -> Facts:
    """Read engine.json; raise DamagedError when it is not what `export_onnx` writes."""
    file = path / SIDECAR
    try:
        raw = json.loads(file.read_bytes())
        if raw.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}; export the model again")
        facts = Facts(**{**raw, "inputs": tuple(raw["inputs"])})
        if facts.family not in FAMILIES:
            raise ValueError(f"family '{facts.family}'")
        for key, least in (("max_length", SHORTEST), ("dim", 1), ("pad_id", 0)):
            value = getattr(facts, key)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
                raise ValueError(f"{key} {value!r}")
        if not all(isinstance(name, str) for name in (*facts.inputs, facts.output)):
            raise ValueError(f"inputs {list(facts.inputs)}, output {facts.output!r}")
        if not isinstance(facts.sha256, dict):
            raise ValueError("its sha256 are not by file")
        if not facts.graphs or set(facts.graphs) - set(GRAPHS):
            raise ValueError(f"graphs {', '.join(sorted(facts.graphs)) or 'none'}")
        needed = {graph["file"] for graph in facts.graphs.values()} | {"tokenizer.json"}
        if needed - set(facts.sha256):
            raise ValueError(f"no sha256 of {', '.join(sorted(needed - set(facts.sha256)))}")
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


def choose(path: Path, facts: Facts, precision: str) -> str:
    """Return the graph of an engine that `precision` names; "auto" takes the fastest exact one."""
    if precision == "auto":
        return next(name for name in GRAPHS if name in facts.graphs)
    if precision not in facts.graphs:
        have = [name for name in GRAPHS if name in facts.graphs]
        raise ConfigError(
            f"The engine {path} has no '{precision}'; it has {', '.join(have)}. "
            "Export again with --precision, or name one of them."
        )
    return precision


@dataclass
class Engine:
    """Score pairs as the model did that it was exported from: cosines (bi) or probabilities (cross).

    graph: the name of the graph that runs. provider: the execution provider of onnxruntime that runs it.
    budget, rows: how many tokens, padding included, and how many texts one run may hold. weights: the files that
    the session reads as it runs.
    """

    family: str
    facts: Facts
    session: Any
    tokenizer: Any
    graph: str = "fp32"
    provider: str = CPU
    budget: int = CPU_BUDGET
    rows: int = BLOCK
    weights: Sequence[Watched] = ()

    @property
    def max_length(self) -> int:
        """Return how many tokens a sentence, or a pair, is cut to."""
        return self.facts.max_length

    def encode(self, sentences: Iterable[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32 unit vectors; only a bi-encoder has them. Raises TypeError for one text alone."""
        if self.family != "bi":
            raise ConfigError("This engine is a cross-encoder: it scores pairs and makes no vectors.")
        return self._rows(texts_of(sentences), (self.facts.dim,))

    def score(self, pairs: Pairs) -> Scores:
        """Return one float32 score per pair; a bi-encoder encodes every distinct sentence once."""
        if self.family == "bi":
            pairs = pairs.take(slice(None))  # narrows the sentences to those that occur
            return cosines(self.encode(pairs.sentences), pairs.left, pairs.right)
        logits = self._rows(list(pairs.rows()), (1,))[:, 0].astype(np.float64)
        # The sigmoid, in a form that neither overflows nor makes ties of very low scores.
        return np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)

    def _rows(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], shape: tuple[int, ...]
    ) -> npt.NDArray[np.float32]:
        rows = np.empty((len(texts), *shape), np.float32)
        self._check_weights()  # a file that was cut would end the process
        for start in range(0, len(texts), BLOCK):
            tokens = tokenize(self.tokenizer, texts[start : start + BLOCK], self.max_length)
            for chunk in chunks(tokens.lengths, self.budget):
                for first in range(0, len(chunk), self.rows):
                    part = chunk[first : first + self.rows]
                    rows[start + part] = self._run(tokens, part)
        self._check_weights()
        return rows

    def _check_weights(self) -> None:
        for file in self.weights:
            file.check()

    def _run(self, tokens: Tokens, chunk: Index) -> npt.NDArray[np.float32]:
        batch = collate(tokens, chunk, pad_id=self.facts.pad_id, names=self.facts.inputs)
        inputs = {name: batch[name] for name in self.facts.inputs}
        try:
            values: npt.NDArray[np.float32] = self.session.run([self.facts.output], inputs)[0]
        except Exception as error:
            # By its name: onnxruntime's own classes are in a private module of it.
            if type(error).__name__ != "InvalidArgument":
                raise
            raise DamagedError(
                f"The {self.graph} graph cannot take these texts: its tokenizer, or a number in {SIDECAR}, is "
                f"not its own. Export the model again. onnxruntime says: {one_line(error)}"
            ) from error
        return values


def load_engine(
    path: Path, *, device: str = "auto", precision: str = "auto", verify: bool = True, threads: int = 0
) -> Engine:
    """Load an engine directory without importing torch.

    device: "auto" and "cpu" run on the CPU, "cuda" or "cuda:1" on that GPU or not at all, "tensorrt" through
    the engine that `export tensorrt` built. precision: which of its graphs; "auto" takes fp32 if there is one.
    verify: compare the sha256 of graph and tokenizer with engine.json, and its own with the manifest, if there
    is one. threads: 0 takes the cores this process may use. Raises DamagedError, RefusedError (a graph that
    reaches outside its directory), ConfigError (no such graph) or MachineError (no onnxruntime, or no such
    provider in it).
    """
    facts = read_facts(path)
    if verify:
        _check_sidecar(path)
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not (kind in DEVICES[2:] and number.isdecimal())):
        raise ConfigError(f"No device '{device}' for an engine. There is: auto, cpu, cuda, cuda:1, tensorrt.")
    budget, rows = CPU_BUDGET if kind in ("auto", "cpu") else GPU_TOKENS, BLOCK
    providers: list[Any] = [CPU]
    if kind == "tensorrt":
        from transenc.export import tensorrt

        built = tensorrt.open_built(path, facts.sha256, facts.inputs, number or "0", precision)
        name, file = built.graph, built.file
        providers, budget, rows = [built.provider], built.profile.tokens, built.profile.largest[0]
    else:
        name = choose(path, facts, precision)
        file = str(facts.graphs[name]["file"])
    if kind == "cuda":
        # TF32 rounds products to 10 bits, which parity to 1e-4 does not survive.
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number or "0", "use_tf32": "0"}))
    with ThreadPoolExecutor(1) as other:  # hashing 90 MB takes as long as the imports do
        checked = other.submit(_check_files, path, file, facts, verify=verify)
        with suppress(ImportError):  # open_session says what is missing
            import onnxruntime  # noqa: F401
        from tokenizers import Tokenizer

        watched = checked.result()  # nothing is opened before it
        opened = other.submit(open_session, path / file, providers, threads=threads)
        try:
            tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the library raises no narrower one
            opened.result()
            raise DamagedError(f"{path / 'tokenizer.json'} cannot be used: {one_line(error)}") from error
        session = opened.result()
    for each in watched:
        each.check_loaded()
    names = {i.name for i in session.get_inputs()}
    if names != set(facts.inputs) or facts.output not in {o.name for o in session.get_outputs()}:
        raise DamagedError(f"{path / file} has other inputs or outputs than {path / SIDECAR} says.")
    shape = next(o.shape for o in session.get_outputs() if o.name == facts.output)
    width = facts.dim if facts.family == "bi" else 1
    if len(shape) != 2 or (isinstance(shape[-1], int) and shape[-1] != width):
        found = f"vectors of {shape[-1]} numbers" if len(shape) == 2 else f"arrays of shape {shape}"
        raise DamagedError(
            f"{path / file} makes {found}; {path / SIDECAR} says {width}, of a {facts.family}-encoder."
        )
    # 0 is also what stands in where a tokenizer has no padding.
    if facts.pad_id and tokenizer.id_to_token(facts.pad_id) is None:
        raise DamagedError(
            f"{path / SIDECAR} pads with {facts.pad_id}, which {path / 'tokenizer.json'} has not."
        )
    provider = str(session.get_providers()[0])
    logger.debug("%s: %s on %s", path, name, provider)
    weights = watched[1:] if provider == CPU else []  # others have copied them
    return Engine(facts.family, facts, session, tokenizer, name, provider, budget, rows, weights)


def _check_sidecar(path: Path) -> None:
    """Raise DamagedError if the manifest, where there is one, records another engine.json."""
    if not (path / MANIFEST).is_file():
        return
    entry = manifest(path).files.get(SIDECAR)
    if not isinstance(entry, dict) or entry.get("sha256") != hash_file(path / SIDECAR):
        raise DamagedError(
            f"{path / SIDECAR} differs from what {path / MANIFEST} recorded. Export the model again."
        )


def _check_files(path: Path, file: str, facts: Facts, *, verify: bool) -> list[Watched]:
    """Compare what decides a score with engine.json; return its files, the tokenizer first, watched since before."""
    found = [_check_file(path, each, facts, verify=verify) for each in ("tokenizer.json", file)]
    for weights in refuse_foreign(path / file):
        beside = (Path(file).parent / weights).as_posix()
        if beside not in facts.sha256:
            raise RefusedError(f"{path / file} keeps weights in '{weights}', which {SIDECAR} does not list.")
        found.append(_check_file(path, beside, facts, verify=verify))
    return found


def _check_file(path: Path, name: str, facts: Facts, *, verify: bool) -> Watched:
    if not (path / name).is_file():
        raise DamagedError(f"{path / name} is missing. Export the model again.")
    watched = Watched(path / name)
    if verify and hash_file(path / name) != facts.sha256[name]:
        raise DamagedError(
            f"{path / name} differs from what {path / SIDECAR} recorded. Export the model again."
        )
    return watched


def open_session(graph: Path, providers: Sequence[Any], *, threads: int = 0) -> Any:
    """Open a graph on the first of `providers`, or raise MachineError: never quietly on another one."""
    try:
        import onnxruntime
    except ImportError:
        raise MachineError('Engines run on onnxruntime. Run: pip install "transenc[cpu]"') from None
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    available = onnxruntime.get_available_providers()
    if wanted not in available:
        raise _missing(wanted, available)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: a warning here is about speed, and stderr is the user's
    options.intra_op_num_threads = threads or core_count()
    session = None
    if wanted == CPU:
        graph = graph.resolve()  # a hub's cache has links, which onnxruntime does not follow to weights
        if (model := weightless(graph)) is not None:
            folder = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(folder, str(graph.parent))
            # What takes a large tensor for a shape needs it in the model: that one is loaded whole.
            with suppress(Exception):
                session = onnxruntime.InferenceSession(model, options, providers=list(providers))
    try:
        if session is None:
            session = onnxruntime.InferenceSession(str(graph), options, providers=list(providers))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        version = onnxruntime.__version__
        raise DamagedError(f"{graph} cannot be loaded by onnxruntime {version}: {reason}") from error
    if session.get_providers()[0] != wanted:  # listed as available, but its libraries did not load
        raise _missing(wanted, session.get_providers())
    return session


def core_count() -> int:
    """Return how many threads a run should have; 0 leaves it to onnxruntime: one per physical core.

    Only what holds the process to fewer cores than the machine has is counted here. onnxruntime does not see
    it, and threads that spin on a core they share are many times slower than fewer threads.
    """
    allowed = cores.allowed()
    return cores.asked() or (allowed if allowed < (os.cpu_count() or 1) else 0)


def _missing(wanted: str, available: Sequence[str]) -> MachineError:
    name = wanted.removesuffix("ExecutionProvider")
    extra = "gpu" if name == "CUDA" else "tensorrt"
    return MachineError(
        f"onnxruntime cannot use {name} here; it has {', '.join(available)}. "
        f'Run: pip uninstall onnxruntime && pip install "transenc[{extra}]", or use --device cpu.'
    )
