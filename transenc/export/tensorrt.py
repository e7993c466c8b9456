"""Build TensorRT engines of an ONNX engine through onnxruntime's provider, and load only those that were built here.

Nothing of this file is imported unless TensorRT is asked for. The build and the run have not been tried on a GPU yet
(docs/engines.md); everything before them is tested without one.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transenc import store
from transenc.errors import ConfigError, DamagedError, MachineError, ParityError
from transenc.export.engine import CPU, SIDECAR, Engine, load_engine, open_session, read_facts
from transenc.export.parity import MAX_DROP, Parity, Remembered, check_parity
from transenc.export.place import commit_at_close, place
from transenc.export.scan import refuse_foreign
from transenc.models.tokens import collate, tokenize
from transenc.pairs import Pairs

FOLDER = "tensorrt"
PROVIDER = "TensorrtExecutionProvider"
SCHEMA = 1
# The provider's switches; int8 takes its ranges from the graph and leaves the rest to fp16.
SWITCHES = {
    "fp32": (),
    "fp16": ("trt_fp16_enable",),
    "bf16": ("trt_bf16_enable",),
    "int8": ("trt_int8_enable", "trt_fp16_enable"),
}
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.25}
GRAPH, QDQ = "onnx/model.onnx", "onnx/model_qdq.onnx"
TOKENS = 16384  # of the largest batch: what bounds the memory that TensorRT plans for
CALIBRATION = 256  # pairs whose activations give int8 its ranges


@dataclass(frozen=True)
class Profile:
    """The (batch, sequence) shapes that an engine is built for: the smallest, the usual and the largest."""

    smallest: tuple[int, int]
    usual: tuple[int, int]
    largest: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Return how many tokens the largest batch holds."""
        return self.largest[0] * self.largest[1]

    def option(self, shape: tuple[int, int], inputs: tuple[str, ...]) -> str:
        """Return a shape for every input as the provider reads it: `input_ids:1x1,attention_mask:1x1`."""
        return ",".join(f"{name}:{shape[0]}x{shape[1]}" for name in inputs)


def choose_profile(max_length: int) -> Profile:
    """Choose shapes for texts of up to `max_length` tokens: large batches of short texts, small ones of long texts.

    One profile serves all lengths, so that the largest batch fits with the longest text.
    """
    batch = max(1, min(512, TOKENS // max_length))
    return Profile((1, 1), (min(64, batch), min(32, max_length)), (batch, max_length))


@dataclass(frozen=True)
class Machine:
    """What a TensorRT engine is bound to."""

    gpu: str
    capability: str
    tensorrt: str
    onnxruntime: str


def find_machine(number: str = "0") -> Machine:
    """Return the GPU and the versions of TensorRT and onnxruntime; raise MachineError naming what is missing."""
    try:
        asked = ["nvidia-smi", f"--id={number}", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
        shown = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
        gpu, _, capability = shown.strip().splitlines()[0].rpartition(",")
    except (OSError, subprocess.SubprocessError, IndexError):
        raise MachineError(
            f"TensorRT needs an NVIDIA GPU, and there is no GPU {number} here (nvidia-smi). "
            "Use an ONNX engine: transenc export onnx."
        ) from None
    try:
        import onnxruntime
        import tensorrt  # also loads its libraries, which are not on the loader's path
    except ImportError as error:
        raise MachineError(f'No package {error.name}. Run: pip install "transenc[tensorrt]"') from None
    available = onnxruntime.get_available_providers()
    if PROVIDER not in available:
        raise MachineError(
            f"onnxruntime cannot use TensorRT here; it has {', '.join(available)}. "
            'Run: pip uninstall onnxruntime && pip install "transenc[tensorrt]"'
        )
    return Machine(gpu.strip(), capability.strip(), str(tensorrt.__version__), str(onnxruntime.__version__))


def check_graph(graph: Path, inputs: tuple[str, ...]) -> None:
    """Raise ConfigError unless TensorRT can take the graph: standard operators, int64 inputs with both axes free."""
    import onnx

    refuse_foreign(graph)
    model = onnx.load(str(graph), load_external_data=False)
    own = sorted({node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    dynamic = sorted(
        {n.op_type for n in model.graph.node if n.op_type in ("DynamicQuantizeLinear", "MatMulInteger")}
    )
    if own or dynamic:
        raise ConfigError(
            f"{graph} has operators that TensorRT does not know: {', '.join(own + dynamic)}. "
            "Export the plain graph: transenc export onnx --precision fp32"
        )
    found = {value.name: value.type.tensor_type for value in model.graph.input}
    free = all(
        kind.elem_type == onnx.TensorProto.INT64
        and [bool(d.dim_param) for d in kind.shape.dim] == [True, True]
        for kind in found.values()
    )
    if set(found) != set(inputs) or not free:
        raise ConfigError(
            f"{graph} has other inputs than int64 {', '.join(inputs)} with free batch and sequence."
        )


def provider(
    folder: Path, precision: str, profile: Profile, inputs: tuple[str, ...], number: str
) -> tuple[str, Any]:
    """Return the execution provider with its options; `folder` holds the built engine."""
    options = {
        "device_id": number,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_profile_min_shapes": profile.option(profile.smallest, inputs),
        "trt_profile_opt_shapes": profile.option(profile.usual, inputs),
        "trt_profile_max_shapes": profile.option(profile.largest, inputs),
        **dict.fromkeys(SWITCHES[precision], "1"),
    }
    return PROVIDER, options


@dataclass(frozen=True)
class Sidecar:
    """What lies beside a built engine as `<precision>.json`; files: sha256 by name. source: sha256 of the graph."""

    machine: Machine
    precision: str
    profile: Profile
    graph: str
    source: str
    files: dict[str, str]
    parity: dict[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_bytes(store.canonical({"schema": SCHEMA, **dataclasses.asdict(self)}))


def read_sidecar(file: Path) -> Sidecar:
    """Read a sidecar; raise DamagedError when it is not what `export_tensorrt` writes."""
    try:
        raw = json.loads(file.read_bytes())
        if raw.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        shapes = {key: (int(a), int(b)) for key, (a, b) in raw.pop("profile").items()}
        found = Sidecar(machine=Machine(**raw.pop("machine")), profile=Profile(**shapes), **raw)
        if found.precision not in SWITCHES or not found.files:
            raise ValueError(f"precision '{found.precision}', {len(found.files)} files")
        if any(Path(name).name != name for name in found.files):
            raise ValueError("it names a file outside its directory")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DamagedError(f"{file} cannot be used: {error}. Build the engine again.") from error
    return found


@dataclass(frozen=True)
class Built:
    """A verified TensorRT engine: the graph it stands for, the provider that loads it, its shapes."""

    graph: str
    file: str
    provider: tuple[str, Any]
    profile: Profile


def open_built(
    path: Path, sha256: Mapping[str, str], inputs: tuple[str, ...], number: str, precision: str
) -> Built:
    """Return the engine built in `path` for this GPU and these versions, every file of it verified.

    Raise ConfigError where none was built, DamagedError for a changed file, and MachineError where GPU or
    versions differ: an engine only runs where it was built.
    """
    have = sorted(p.stem for p in (path / FOLDER).glob("*.json"))
    wanted = next((p for p in SWITCHES if p in have), "") if precision == "auto" else precision
    if wanted not in have:
        raise ConfigError(
            f"{path} has no TensorRT engine{f' for {wanted}' if wanted else ''}; it has "
            f"{', '.join(have) or 'none'}. Build one: transenc export tensorrt --model {path} --out DIR"
        )
    folder = path / FOLDER / wanted
    found = read_sidecar(folder.with_suffix(".json"))
    if sha256.get(found.graph) != found.source:
        raise DamagedError(f"{folder} was built of another {found.graph}. Build the engine again.")
    present = {p.name: store.hash_file(p) for p in folder.iterdir()} if folder.is_dir() else {}
    for name in sorted(set(present) | set(found.files)):
        if present.get(name) != found.files.get(name):
            raise DamagedError(f"{folder / name} is not what was built. Build the engine again.")
    here = find_machine(number)
    if found.machine != here:
        raise MachineError(
            f"{folder} was built for {_name(found.machine)}; here is {_name(here)}. "
            f"Build it again: transenc export tensorrt --model {path} --out {path}"
        )
    name = "int8" if found.graph == QDQ else "fp32"
    return Built(name, found.graph, provider(folder, wanted, found.profile, inputs, number), found.profile)


def _name(machine: Machine) -> str:
    return f"{machine.gpu} ({machine.capability}), TensorRT {machine.tensorrt}, onnxruntime {machine.onnxruntime}"


def current(out: Path, source: Path, precision: str, machine: Machine, profile: Profile) -> bool:
    """Tell whether `out` holds an engine of this source, precision, shapes, GPU and versions."""
    file = out / FOLDER / f"{precision}.json"
    if not file.is_file() or precision == "int8":  # its graph depends on the pairs it was calibrated with
        return False
    try:
        found = read_sidecar(file)
        hashes = read_facts(out).sha256, read_facts(source).sha256
    except (DamagedError, ConfigError):
        return False
    same = found.machine == machine and found.profile == profile
    return same and hashes[0].get(GRAPH) == hashes[1].get(GRAPH) == found.source


def export_tensorrt(
    source: Path,
    out: Path,
    *,
    precision: str,
    pairs: Pairs,
    gold: Pairs | None = None,
    tolerance: float | None = None,
    max_drop: float = MAX_DROP,
    number: str = "0",
    hold: ExitStack | None = None,
) -> Parity | None:
    """Write `out`: the ONNX engine `source` and a TensorRT engine built of its fp32 graph, after comparing them.

    The ONNX engine on the CPU is what it is compared with. hold: as in `export_onnx`. Returns None where `out`
    is of this graph, GPU and versions already. Raises MachineError without GPU or package, ConfigError for a
    graph that TensorRT cannot take, ParityError when they disagree; `out` is then what it was before.
    """
    if precision not in SWITCHES:
        raise ConfigError(f"No precision '{precision}' for TensorRT. There is: {', '.join(SWITCHES)}.")
    facts = read_facts(source)
    if "fp32" not in facts.graphs:
        raise ConfigError(f"{source} has no fp32 graph. Export it: transenc export onnx --precision fp32")
    check_graph(source / GRAPH, facts.inputs)
    profile, machine = choose_profile(facts.max_length), find_machine(number)
    if current(out, source, precision, machine, profile):
        return None
    model = load_engine(source, device="cpu", precision="fp32")
    size = sum((source / name).stat().st_size for name in facts.sha256)
    with ExitStack() as own:
        work = (hold or own).enter_context(place(out, size=4 * size))
        shutil.copytree(
            source, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FOLDER, store.MANIFEST)
        )
        graph = GRAPH
        if precision == "int8":
            graph = _calibrated(model, work, pairs)
            facts = read_facts(work)
        folder = work / FOLDER / precision
        folder.mkdir(parents=True)
        session = open_session(work / graph, [provider(folder, precision, profile, facts.inputs, number)])
        # The engine is built when the first batch comes.
        batch = next(iter(batches(model, pairs.take(slice(0, 1)))))
        session.run([facts.output], batch)
        files = {p.name: store.hash_file(p) for p in sorted(folder.iterdir())}
        if not any(name.endswith(".engine") for name in files):
            raise MachineError(f"TensorRT built no engine of {source / graph}; onnxruntime ran it elsewhere.")
        sidecar = Sidecar(machine, precision, profile, graph, facts.sha256[graph], files)
        sidecar.write(folder.with_suffix(".json"))
        built = load_engine(work, device=f"tensorrt:{number}", precision=precision)
        limit = TOLERANCE[precision] if tolerance is None else tolerance
        parity = check_parity(Remembered(model), built, pairs, tolerance=limit, gold=gold, max_drop=max_drop)
        dataclasses.replace(sidecar, parity=parity.as_dict()).write(folder.with_suffix(".json"))
        made_of = {
            "source": facts.sha256[graph],
            "precision": precision,
            "machine": dataclasses.asdict(machine),
        }
        info = {"kind": "tensorrt", **made_of}
        commit_at_close(hold or own, work, out, identity=store.fingerprint(made_of), info=info)
    return parity


def batches(engine: Engine, pairs: Pairs) -> Iterator[dict[str, Any]]:
    """Yield the arrays that the engine's graph takes for the pairs, a text at a time."""
    facts = engine.facts
    texts: Any = list(pairs.sentences) if engine.family == "bi" else list(pairs.rows())
    tokens = tokenize(engine.tokenizer, texts, facts.max_length)
    for i in range(len(tokens)):
        arrays = collate(tokens, np.asarray([i]), pad_id=facts.pad_id, names=facts.inputs)
        yield {name: arrays[name] for name in facts.inputs}


def _calibrated(model: Engine, work: Path, pairs: Pairs) -> str:
    """Add an int8 graph with fixed ranges, measured on the pairs, to the engine in `work`; return its name.

    Raise ParityError when it is far from the model on the CPU already: then no build can mend it.
    """
    from transenc.export.convert import to_qdq

    to_qdq(work / GRAPH, work / QDQ, batches(model, pairs.take(slice(0, CALIBRATION))))
    raw = json.loads((work / SIDECAR).read_bytes())
    raw["sha256"][QDQ] = store.hash_file(work / QDQ)
    (work / SIDECAR).write_bytes(store.canonical(raw))
    trial = dataclasses.replace(model, session=open_session(work / QDQ, [CPU]))
    if not check_close(model, trial, pairs):
        raise ParityError(
            f"int8 with fixed ranges disagrees with {work / GRAPH} by more than {TOLERANCE['int8']}."
        )
    return QDQ


def check_close(model: Engine, trial: Engine, pairs: Pairs) -> bool:
    """Tell whether two engines' scores of some pairs differ by no more than int8 may."""
    sample = pairs.take(slice(0, CALIBRATION))
    return bool(abs(model.score(sample) - trial.score(sample)).max() <= TOLERANCE["int8"])
