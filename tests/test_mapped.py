"""Weights that are read from where they lie in an engine's file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.external_data_helper import load_external_data_for_model

from tests.conftest import make_pairs
from tests.test_export import scorer_of
from tests.tiny import tiny_plm
from transenc.errors import DamagedError
from transenc.export import wire
from transenc.export.engine import CPU, load_engine, open_session, read_facts
from transenc.export.mapped import weightless
from transenc.export.onnx import export_onnx

GRAPHS = ("fp32", "fp32-O2", "fp16", "int8")


@pytest.fixture(scope="module", params=["bi", "cross"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mapped")
    scorer = scorer_of(tiny_plm(root / "plm", "bert"), request.param)
    export_onnx(
        scorer, root / "engine", pairs=make_pairs(16), precisions=("fp32", "fp16", "int8"), optimize=True,
        max_drop=1.0,
    )  # fmt: skip
    return root / "engine"


@pytest.mark.parametrize("graph", GRAPHS)
def test_each_weight_is_where_the_model_says(engine: Path, graph: str) -> None:
    file = engine / str(read_facts(engine).graphs[graph]["file"])
    small = weightless(file)
    assert small is not None
    model = onnx.load_from_string(small)
    lengths = [int(t.external_data[2].value) for t in model.graph.initializer if t.external_data]
    assert lengths and len(small) <= file.stat().st_size - sum(lengths) + 100 * len(lengths)
    load_external_data_for_model(model, str(file.parent))
    expected = onnx.load(file)
    for tensor in [*model.graph.initializer, *expected.graph.initializer]:
        del tensor.external_data[:]  # what loading leaves of the place
        tensor.ClearField("data_location")  # some have it, at its default
    assert model == expected


@pytest.mark.parametrize("graph", GRAPHS)
def test_scores_are_those_of_the_whole_file_to_the_bit(engine: Path, graph: str) -> None:
    pairs = make_pairs(40, seed=5)
    mapped = load_engine(engine, precision=graph)
    whole = load_engine(engine, precision=graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    whole.session = onnxruntime.InferenceSession(
        str(engine / str(whole.facts.graphs[graph]["file"])), options, providers=[CPU]
    )
    np.testing.assert_array_equal(mapped.score(pairs), whole.score(pairs))


def test_a_linked_file_finds_its_weights(engine: Path, tmp_path: Path) -> None:
    # So lie the files of a hub's cache.
    copy = tmp_path / "engine"
    shutil.copytree(engine, copy)
    graph = copy / "onnx/model.onnx"
    graph.rename(tmp_path / "blob")
    graph.symlink_to(tmp_path / "blob")
    pairs = make_pairs(8)
    np.testing.assert_array_equal(load_engine(copy).score(pairs), load_engine(engine).score(pairs))


def test_what_is_written_into_a_file_in_use_is_an_error_and_what_takes_its_name_is_none(
    engine: Path, tmp_path: Path
) -> None:
    copy, pairs = tmp_path / "engine", make_pairs(8)
    shutil.copytree(engine, copy)
    found = load_engine(copy, precision="fp32")
    before = found.score(pairs)
    graph = copy / str(found.facts.graphs["fp32"]["file"])
    other = tmp_path / "other"
    other.write_bytes(graph.read_bytes()[::-1])
    kept = tmp_path / "kept"
    os.link(graph, kept)
    other.replace(graph)
    np.testing.assert_array_equal(found.score(pairs), before)
    with kept.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    with pytest.raises(DamagedError, match="was written into while its engine was in use"):
        found.score(pairs)


def test_a_file_that_is_cut_while_in_use_is_an_error_and_does_not_end_the_process(
    engine: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(engine, copy)
    found = load_engine(copy, precision="fp32")
    os.truncate(copy / str(found.facts.graphs["fp32"]["file"]), 100)
    with pytest.raises(DamagedError, match="was written into while its engine was in use"):
        found.score(make_pairs(8))


@pytest.mark.parametrize("name", ["tokenizer.json", "onnx/model.onnx"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_file_that_is_replaced_between_its_check_and_its_opening_is_not_used(
    name: str, device: str, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(engine, copy)

    def replaced(graph: Path, providers: Sequence[Any], *, threads: int) -> Any:
        other = tmp_path / "other"
        shutil.copy(copy / name, other)
        other.replace(copy / name)
        return open_session(graph, [CPU], threads=threads)

    monkeypatch.setattr("transenc.export.engine.open_session", replaced)
    with pytest.raises(DamagedError, match=f"{name} was replaced while its engine was loaded. Load it again"):
        load_engine(copy, precision="fp32", device=device)


def test_an_engine_leaves_no_file_open(engine: Path) -> None:
    def opened() -> int:
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(link.is_relative_to(engine) for link in links)

    before = opened()
    found = load_engine(engine, precision="fp32")
    assert opened() == before + 1
    del found
    assert opened() == before


def strangers() -> dict[str, bytes]:
    """Return files that are legal, though our export writes none like them: y = x w, or one more step."""
    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).normal(size=(64, 64)).astype("f4"), "w")
    shape = onnx.numpy_helper.from_array(np.array([-1, 64]), "s")
    shape.doc_string = "no large tensor, but a large field" * 64
    parts = onnx.numpy_helper.from_array(np.array([1] * 64 + [0] * 140), "s")
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    before = onnx.helper.make_node("MatMul", ["x", "w"], ["z"])
    reshape = onnx.helper.make_node("Reshape", ["z", "s"], ["y"])
    split = onnx.helper.make_node("Split", ["z", "s"], ["y", *map(str, range(203))], axis=1)
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [None, None]) for name in "xy")

    def file(nodes: list[onnx.NodeProto], *tensors: onnx.TensorProto, rest: bytes = b"") -> bytes:
        graph = onnx.helper.make_graph(nodes, "g", [x], [y], tensors).SerializeToString() + rest
        version = onnx.helper.make_opsetid("", 17).SerializeToString()
        return wire.content(7, graph) + wire.number(1, 9) + wire.content(8, version)

    numbers = onnx.helper.make_tensor("w", 1, (64, 64), onnx.numpy_helper.to_array(weight).ravel().tolist())
    one, other = weight.SerializeToString(), wire.content(9, weight.raw_data[::-1])
    return {
        "numbers that are not raw": file([product], numbers),
        "raw numbers twice, of which the last count": file([product], rest=wire.content(5, other + one)),
        "a graph in two pieces": file([product]) + wire.content(7, wire.content(5, one)),
        "a small shape with a long description": file([before, reshape], weight, shape),
        "a large tensor that tells shapes": file([before, split], weight, parts),
    }


@pytest.mark.parametrize("name", strangers())
def test_other_files_give_the_scores_of_the_whole_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(strangers()[name])
    whole = onnxruntime.InferenceSession(str(file), providers=[CPU])
    given = {"x": np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)}
    np.testing.assert_array_equal(
        open_session(file, [CPU], threads=1).run(["y"], given)[0], whole.run(["y"], given)[0]
    )


def test_a_file_that_is_no_model_is_damage(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("text", b"not a model"), ("cut", b"\x3a\xff\x01")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DamagedError, match=f"{name} is not an ONNX file"):
            weightless(tmp_path / name)
