"""TensorRT up to the build: what a machine without a GPU can check."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.conftest import make_pairs
from tests.test_export import scorer_of
from tests.tiny import tiny_plm
from transenc import store
from transenc.errors import ConfigError, DamagedError, MachineError, ParityError
from transenc.export import convert, tensorrt
from transenc.export.engine import load_engine, read_facts
from transenc.export.onnx import export_onnx
from transenc.export.tensorrt import Machine, Profile, Sidecar

HERE = Machine("NVIDIA H200", "9.0", "10.9.0", "1.31.1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trt")
    scorer = scorer_of(tiny_plm(root / "plm"), "bi")
    export_onnx(scorer, root / "engine", pairs=make_pairs(6), optimize=True)
    return root / "engine"


@pytest.fixture
def built(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine directory as a build leaves it, but for the engine's content."""
    monkeypatch.setattr(tensorrt, "find_machine", lambda number="0": HERE)
    path = Path(shutil.copytree(made, tmp_path / "engine"))
    folder = path / "tensorrt/fp16"
    folder.mkdir(parents=True)
    (folder / "graph_sm90.engine").write_bytes(b"engine")
    facts = read_facts(path)
    Sidecar(
        HERE,
        "fp16",
        tensorrt.choose_profile(facts.max_length),
        tensorrt.GRAPH,
        facts.sha256[tensorrt.GRAPH],
        {"graph_sm90.engine": store.hash_file(folder / "graph_sm90.engine")},
    ).write(folder.with_suffix(".json"))
    return path


def open_it(path: Path, precision: str = "auto") -> tensorrt.Built:
    facts = read_facts(path)
    return tensorrt.open_built(path, facts.sha256, facts.inputs, "0", precision)


@pytest.mark.parametrize("length", [1, 16, 64, 512, 8192, 32768])
def test_a_profile_holds_every_shape_from_one_token_to_the_longest_text(length: int) -> None:
    profile = tensorrt.choose_profile(length)
    for low, usual, high in zip(profile.smallest, profile.usual, profile.largest, strict=True):
        assert 1 <= low <= usual <= high
    assert profile.largest[1] == length
    assert profile.tokens <= max(tensorrt.TOKENS, length)


def test_the_provider_gets_the_profile_of_every_input_and_the_precision(tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask")
    profile = Profile((1, 1), (32, 16), (64, 128))
    name, options = tensorrt.provider(tmp_path, "int8", profile, names, "1")
    assert name == "TensorrtExecutionProvider"
    assert options["trt_profile_max_shapes"] == "input_ids:64x128,attention_mask:64x128"
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert (options["device_id"], options["trt_engine_cache_path"]) == ("1", str(tmp_path))
    assert (options["trt_int8_enable"], options["trt_fp16_enable"]) == ("1", "1")
    assert "trt_bf16_enable" not in options


def test_the_plain_graph_is_taken_and_a_fused_one_is_not(made: Path) -> None:
    inputs = read_facts(made).inputs
    tensorrt.check_graph(made / "onnx/model.onnx", inputs)
    with pytest.raises(ConfigError, match=r"TensorRT does not know: Attention, BiasGelu.*--precision fp32"):
        tensorrt.check_graph(made / "onnx/model_O2.onnx", inputs)


def test_a_graph_with_fixed_axes_is_refused(made: Path, tmp_path: Path) -> None:
    model = onnx.load(str(made / "onnx/model.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, str(tmp_path / "fixed.onnx"))
    with pytest.raises(ConfigError, match="free batch and sequence"):
        tensorrt.check_graph(tmp_path / "fixed.onnx", read_facts(made).inputs)


def test_int8_for_tensorrt_has_fixed_symmetric_ranges_and_agrees_on_the_cpu(
    made: Path, tmp_path: Path
) -> None:
    model, pairs = load_engine(made, precision="fp32"), make_pairs(12)
    convert.to_qdq(made / "onnx/model.onnx", tmp_path / "qdq.onnx", tensorrt.batches(model, pairs))
    tensorrt.check_graph(tmp_path / "qdq.onnx", read_facts(made).inputs)
    graph = onnx.load(str(tmp_path / "qdq.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") >= 10
    points = {name for node in graph.node if node.op_type == "QuantizeLinear" for name in node.input[2:]}
    zeros = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name in points]
    assert zeros
    assert not any(np.any(zero) for zero in zeros)
    session = tensorrt.open_session(tmp_path / "qdq.onnx", ["CPUExecutionProvider"])
    trial = dataclasses.replace(model, session=session)
    assert tensorrt.check_close(model, trial, pairs)
    assert np.abs(model.score(pairs) - trial.score(pairs)).max() > 1e-5
    assert [p.name for p in tmp_path.iterdir()] == ["qdq.onnx"]


# Machines that lack something


def without_gpu(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError("nvidia-smi")


def test_no_gpu_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", without_gpu)
    with pytest.raises(MachineError, match="there is no GPU 0 here") as caught:
        tensorrt.find_machine()
    assert caught.value.exit_code == 4


def with_gpu(*_: Any, **__: Any) -> Any:
    return types.SimpleNamespace(stdout="NVIDIA H200, 9.0\n")


def test_no_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", with_gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MachineError, match=r'No package tensorrt\. Run: pip install "transenc\[tensorrt\]"'):
        tensorrt.find_machine()


def test_an_onnxruntime_without_the_provider_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", with_gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.9.0"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MachineError, match="cannot use TensorRT here; it has CPUExecutionProvider"):
        tensorrt.find_machine()


def test_gpu_and_versions_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", with_gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.9.0"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [tensorrt.PROVIDER])
    assert tensorrt.find_machine() == dataclasses.replace(HERE, onnxruntime=onnxruntime.__version__)


def test_the_command_stops_before_any_work_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from transenc.cli.app import main

    monkeypatch.setattr(subprocess, "run", without_gpu)
    monkeypatch.setattr(
        sys, "argv", ["transenc", "export", "tensorrt", "--model", "nowhere", "--out", str(tmp_path / "x")]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 4
    assert "TensorRT needs an NVIDIA GPU" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_parses_the_plain_graph(made: Path) -> None:
    trt = pytest.importorskip("tensorrt", reason="the tensorrt package is not installed")
    logger = trt.Logger(trt.Logger.ERROR)
    try:
        builder = trt.Builder(logger)
    except TypeError:
        pytest.skip("tensorrt makes no builder without a GPU")
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(made / "onnx/model.onnx")), parser.get_error(0)
    assert {network.get_input(i).name for i in range(network.num_inputs)} == set(read_facts(made).inputs)


# What was built


def test_a_verified_engine_is_opened_with_its_own_shapes(built: Path) -> None:
    found = open_it(built)
    assert found.graph == "fp32"
    assert found.file == tensorrt.GRAPH
    assert found.provider[1]["trt_engine_cache_path"] == str(built / "tensorrt/fp16")
    assert found.profile == tensorrt.choose_profile(read_facts(built).max_length)


def test_an_engine_that_was_not_built_is_named_with_those_that_were(built: Path, made: Path) -> None:
    with pytest.raises(ConfigError, match="no TensorRT engine for bf16; it has fp16"):
        open_it(built, "bf16")
    with pytest.raises(ConfigError, match=r"it has none\. Build one: transenc export tensorrt"):
        open_it(made)
    with pytest.raises(ConfigError, match="has no TensorRT engine"):
        load_engine(made, device="tensorrt")


@pytest.mark.parametrize(
    "other", [{"gpu": "NVIDIA L4"}, {"capability": "8.9"}, {"tensorrt": "10.8.0"}, {"onnxruntime": "1.30.0"}]
)
def test_another_gpu_or_version_stops_with_the_command_that_rebuilds(
    built: Path, made: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    profile = tensorrt.choose_profile(read_facts(made).max_length)
    assert tensorrt.current(built, made, "fp16", HERE, profile)
    machine = dataclasses.replace(HERE, **other)
    monkeypatch.setattr(tensorrt, "find_machine", lambda number="0": machine)
    with pytest.raises(
        MachineError, match="was built for NVIDIA H200 .*Build it again: transenc export tensorrt"
    ):
        open_it(built)
    assert not tensorrt.current(built, made, "fp16", machine, profile)


def damage_engine(path: Path) -> None:
    (path / "tensorrt/fp16/graph_sm90.engine").write_bytes(b"other")


def add_file(path: Path) -> None:
    (path / "tensorrt/fp16/second.engine").write_bytes(b"not built here")


def remove_file(path: Path) -> None:
    (path / "tensorrt/fp16/graph_sm90.engine").unlink()


def change(**values: Any) -> Any:
    def edit(path: Path) -> None:
        file = path / "tensorrt/fp16.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return edit


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (damage_engine, "is not what was built"),
        (add_file, r"second\.engine is not what was built"),
        (remove_file, "is not what was built"),
        (change(source="0"), "built of another onnx/model.onnx"),
        (change(schema=9), "cannot be used"),
        (change(files={"../../x": "0"}), "outside its directory"),
        (change(profile={"smallest": [1]}), "cannot be used"),
        (change(precision="int2"), "cannot be used"),
    ],
)
def test_what_was_tampered_with_is_not_loaded(built: Path, tamper: Any, told: str) -> None:
    tamper(built)
    with pytest.raises(DamagedError, match=told):
        open_it(built)


class Cpu:
    """A stand-in for the provider: it runs on the CPU and leaves the file that a build leaves."""

    def __init__(self, leaves: bytes, bias: float = 0.0) -> None:
        self.leaves, self.bias = leaves, bias

    def open(self, graph: Path, providers: Any, *, threads: int = 0) -> Any:
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        wanted = providers[0]
        if not isinstance(wanted, str) and self.leaves:
            (Path(wanted[1]["trt_engine_cache_path"]) / "graph.engine").write_bytes(self.leaves)
        bias = self.bias if not isinstance(wanted, str) else 0.0

        class Session:
            def run(self, outputs: Any, inputs: Any) -> Any:
                return [values + bias for values in session.run(outputs, inputs)]

            def __getattr__(self, name: str) -> Any:
                return getattr(session, name)

        return Session()


def build(monkeypatch: pytest.MonkeyPatch, provider: Cpu, source: Path, out: Path, **options: Any) -> Any:
    monkeypatch.setattr(tensorrt, "find_machine", lambda number="0": HERE)
    monkeypatch.setattr(tensorrt, "open_session", provider.open)
    monkeypatch.setattr("transenc.export.engine.open_session", provider.open)
    return tensorrt.export_tensorrt(source, out, precision="fp16", pairs=make_pairs(6), **options)


def test_a_build_is_compared_recorded_and_not_repeated(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    parity = build(monkeypatch, Cpu(b"engine"), made, out)
    assert parity.worst < 1e-5
    found = tensorrt.read_sidecar(out / "tensorrt/fp16.json")
    assert (found.machine, found.source) == (HERE, read_facts(made).sha256[tensorrt.GRAPH])
    assert found.parity["tolerance"] == tensorrt.TOLERANCE["fp16"]
    store.verify(out)
    assert build(monkeypatch, Cpu(b"engine"), made, out) is None
    monkeypatch.setattr(tensorrt, "current", lambda *_: False)
    assert build(monkeypatch, Cpu(b"newer"), made, out) is not None
    assert (out / "tensorrt/fp16/graph.engine").read_bytes() == b"newer"


def test_a_build_that_disagrees_or_ran_elsewhere_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParityError):
        build(monkeypatch, Cpu(b"engine", bias=0.1), made, tmp_path / "out")
    with pytest.raises(MachineError, match="TensorRT built no engine"):
        build(monkeypatch, Cpu(b""), made, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_engine_is_not_replaced(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="out exists already and is no engine"):
        build(monkeypatch, Cpu(b"engine"), made, tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "thesis.tex"]
