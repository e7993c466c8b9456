from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.conftest import make_pairs
from tests.tiny import ARCHS, WITH_TYPES, tiny_plm
from transenc import store
from transenc.cli.export import _pairs
from transenc.errors import ConfigError, DamagedError, MachineError, ParityError, RefusedError
from transenc.export import onnx as export
from transenc.export import trace, wire
from transenc.export.engine import Engine, Facts, load_engine, read_facts
from transenc.export.onnx import ExportReport, GraphReport, export_onnx
from transenc.export.parity import Check, Ranks, check_parity, ladder
from transenc.export.scan import refuse_foreign
from transenc.models.bi import BiEncoder, BiFamily
from transenc.models.cross import CrossEncoder, CrossFamily
from transenc.models.device import Compute
from transenc.models.loading import load_scorer
from transenc.pairs import Pairs

FAMILIES: dict[str, Any] = {"bi": BiFamily, "cross": CrossFamily}
KINDS = [(arch, family) for arch in ARCHS for family in FAMILIES]
Exported = Callable[[str, str], tuple[BiEncoder | CrossEncoder, Path, ExportReport]]


def scorer_of(path: Path, family: str) -> BiEncoder | CrossEncoder:
    torch.manual_seed(0)
    pooling = "mean" if path.name in ("bert", "mpnet") else "cls"
    made: BiEncoder | CrossEncoder = FAMILIES[family]().create(
        path, compute=Compute("cpu", "fp32"), max_length=None, pooling=pooling
    )
    return made


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export each architecture and family once."""
    root = tmp_path_factory.mktemp("engines")
    done: dict[tuple[str, str], tuple[BiEncoder | CrossEncoder, Path, ExportReport]] = {}

    def export_once(arch: str, family: str) -> tuple[BiEncoder | CrossEncoder, Path, ExportReport]:
        if (arch, family) not in done:
            scorer = scorer_of(tiny_plm(root / "plm" / arch, arch), family)
            out = root / f"{arch}-{family}"
            report = export_onnx(scorer, out, pairs=make_pairs(12, seed=5), source=f"tiny {arch}")
            done[arch, family] = scorer, out, report
        return done[arch, family]

    return export_once


@pytest.fixture
def engine_copy(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported("bert", "cross")[1], tmp_path / "engine"))


def plain(report: ExportReport) -> GraphReport:
    """What is said of the fp32 graph."""
    return report.graphs["fp32"]


def rewrite(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change an engine's graph and record its new hash, as a hostile maker of engines would."""
    model = onnx.load(str(path / "onnx/model.onnx"), load_external_data=False)
    change(model)
    (path / "onnx/model.onnx").write_bytes(model.SerializeToString())
    edit(
        path, lambda raw: raw["sha256"].update({"onnx/model.onnx": store.hash_file(path / "onnx/model.onnx")})
    )


def edit(path: Path, change: Callable[[dict[str, Any]], Any], *, recorded: bool = True) -> None:
    """Change engine.json, and the manifest's record of it, as a hostile maker of engines would."""
    raw = json.loads((path / "engine.json").read_text())
    change(raw)
    (path / "engine.json").write_text(json.dumps(raw))
    if recorded:
        manifest = json.loads((path / "MANIFEST.json").read_text())
        manifest["files"]["engine.json"]["sha256"] = store.hash_file(path / "engine.json")
        (path / "MANIFEST.json").write_text(json.dumps(manifest))


# What is exported


@pytest.mark.parametrize(("arch", "family"), KINDS)
def test_an_engine_agrees_with_its_model(exported: Exported, arch: str, family: str) -> None:
    scorer, out, report = exported(arch, family)
    assert plain(report).parity.worst < 1e-5
    assert plain(report).parity.longest == 64
    engine = load_engine(out)
    other = make_pairs(20, seed=9)
    np.testing.assert_allclose(engine.score(other), scorer.score(other), atol=1e-5)
    assert engine.family == family
    assert engine.max_length == scorer.transformer.max_length
    if isinstance(scorer, BiEncoder):
        sentences = list(other.sentences)
        np.testing.assert_allclose(engine.encode(sentences), scorer.encode(sentences), atol=1e-5)


@pytest.mark.parametrize(("arch", "family"), KINDS)
def test_a_graph_keeps_its_contract(exported: Exported, arch: str, family: str) -> None:
    scorer, out, _ = exported(arch, family)
    model = onnx.load(str(out / "onnx/model.onnx"))
    names = ["input_ids", *(["token_type_ids"] if arch in WITH_TYPES else []), "attention_mask"]
    assert names == list(scorer.transformer.tokenizer.model_input_names)
    token = (onnx.TensorProto.INT64, ["batch", "sequence"])
    assert [signature(v) for v in model.graph.input] == [(name, *token) for name in names]
    dim = 32
    outputs: dict[str, list[tuple[str, list[str | int]]]] = {
        "bi": [("last_hidden_state", ["batch", "sequence", dim]), ("sentence_embedding", ["batch", dim])],
        "cross": [("logits", ["batch", 1])],
    }
    assert [signature(v) for v in model.graph.output] == [
        (name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs[family]
    ]
    assert {o.domain for o in model.opset_import} == {""}
    assert [p.name for p in (out / "onnx").iterdir()] == ["model.onnx"]


def signature(value: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]


COMMON = {
    "MANIFEST.json", "README.md", "config.json", "engine.json", "onnx/model.onnx", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip
BI = {
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
}


@pytest.mark.parametrize(("family", "files"), [("bi", COMMON | BI), ("cross", COMMON)])
def test_an_engine_directory_holds_no_other_weights(exported: Exported, family: str, files: set[str]) -> None:
    _, out, report = exported("bert", family)
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == files
    store.verify(out)
    facts = read_facts(out)
    assert facts.sha256["onnx/model.onnx"] == store.hash_file(out / "onnx/model.onnx") == plain(report).sha256
    assert facts.source["name"] == "tiny bert"
    assert facts.graphs == json.loads(json.dumps(report.as_dict()))["graphs"]
    assert "Exported from `tiny bert`" in (out / "README.md").read_text()


def test_sentence_transformers_runs_the_graph(exported: Exported) -> None:
    pytest.importorskip(
        "optimum", reason="its ONNX backend needs optimum, no release of which works with transformers 5"
    )
    from sentence_transformers import SentenceTransformer

    scorer, out, _ = exported("bert", "bi")
    assert isinstance(scorer, BiEncoder)
    sentences = list(make_pairs(6).sentences)
    found = SentenceTransformer(str(out), backend="onnx", device="cpu").encode(sentences)
    np.testing.assert_allclose(found, scorer.encode(sentences), atol=1e-5)


def test_the_scorer_is_left_as_it_was(plm: Path, tmp_path: Path, pairs: Pairs) -> None:
    scorer = scorer_of(plm, "cross")
    module: Any = scorer.module
    before = scorer.score(pairs)
    module.train()
    module.base_model.embeddings.eval()
    modes = [part.training for part in module.modules()]
    attention = module.config._attn_implementation
    export_onnx(scorer, tmp_path / "out", pairs=pairs)
    assert [part.training for part in module.modules()] == modes
    assert module.config._attn_implementation == attention == "sdpa"
    assert (scorer.score(pairs) == before).all()


def test_equal_exports_are_equal_bytes(exported: Exported, tmp_path: Path) -> None:
    scorer, _, report = exported("bert", "bi")
    again = export_onnx(scorer, tmp_path / "again", pairs=make_pairs(12, seed=5), source="tiny bert")
    assert plain(again).sha256 == plain(report).sha256
    assert (tmp_path / "again/MANIFEST.json").read_bytes() == (report.path / "MANIFEST.json").read_bytes()


@pytest.mark.parametrize("opset", [14, 20])
def test_other_opsets_agree_as_well(exported: Exported, tmp_path: Path, opset: int) -> None:
    scorer, _, _ = exported("bert", "cross")
    report = export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4), opset=opset)
    model = onnx.load(str(tmp_path / "out/onnx/model.onnx"))
    assert [o.version for o in model.opset_import] == [report.opset] == [opset]


def test_weights_too_large_for_one_file_go_beside_the_graph(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, _, _ = exported("bert", "bi")
    monkeypatch.setattr(trace, "SINGLE_FILE", 1000)
    out = tmp_path / "out"
    export_onnx(scorer, out, pairs=make_pairs(4))
    assert sorted(p.name for p in (out / "onnx").iterdir()) == ["model.onnx", "model.onnx_data"]
    assert (
        len({p.stat().st_mode for p in (out / "onnx").iterdir()}) == 1
    )  # whoever may read one, may the other
    with (out / "onnx/model.onnx_data").open("r+b") as file:
        file.seek(64)
        file.write(b"\1\2\3\4")
    with pytest.raises(DamagedError, match=r"onnx/model\.onnx_data differs"):
        load_engine(out)


def test_a_graph_too_large_for_one_file_is_measured_without_making_one_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 2 GiB protobuf tells no size: it would serialise the whole for that, and refuses to."""
    huge = onnx.TensorProto(name="words", data_type=onnx.TensorProto.FLOAT, dims=[2**15, 2**14])
    graph = onnx.helper.make_graph([], "huge", [], [], [huge])
    assert trace.too_large(onnx.helper.make_model(graph))
    huge.data_type = onnx.TensorProto.FLOAT16
    assert not trace.too_large(onnx.helper.make_model(onnx.helper.make_graph([], "half", [], [], [huge])))

    monkeypatch.setattr(trace, "SINGLE_FILE", 8000)
    weight = onnx.numpy_helper.from_array(np.ones(4000, np.float32), "weight")
    output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [4000])
    node = onnx.helper.make_node("Identity", ["weight"], ["output"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], [output], [weight]))
    trace.save_graph(model, tmp_path / "model.onnx")
    assert not model.graph.initializer[0].raw_data  # onnx takes them out of the model that it saves
    assert trace.too_large(model)


def test_types_for_fp16_are_inferred_from_file_to_file(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx infers no types of a model above 2 GiB that is in memory."""
    scorer, _, _ = exported("bert", "bi")

    def refuse(model: Any, *_: Any, **__: Any) -> Any:
        raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB")

    monkeypatch.setattr("onnxruntime.transformers.float16.infer_shapes", refuse)
    report = export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4), precisions=["fp16"])
    assert report.graphs["fp16"].parity.worst < 1e-2


# What is refused, and that nothing is left then


def test_a_broken_engine_is_not_kept(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, _, _ = exported("bert", "bi")
    finish = trace._finish_graph

    def perturb(traced: Path, target: Path, *contract: Any) -> None:
        finish(traced, target, *contract)
        model = onnx.load(str(target))
        weight = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        values = onnx.numpy_helper.to_array(weight).copy()
        values[:, 0] += 0.05  # not a whole row: layer norm would remove that
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, str(target))

    monkeypatch.setattr(trace, "_finish_graph", perturb)
    with pytest.raises(ParityError, match=r"differ by up to .* vectors by up to") as caught:
        export_onnx(scorer, tmp_path / "out", pairs=make_pairs(8))
    assert caught.value.exit_code == 8
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_refused(exported: Exported, tmp_path: Path, pairs: Pairs) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="out exists already and is no engine"):
        export_onnx(exported("bert", "bi")[0], tmp_path / "out", pairs=pairs)


def test_an_unknown_opset_is_refused(exported: Exported, tmp_path: Path, pairs: Pairs) -> None:
    with pytest.raises(ConfigError, match="Opset 99 is not one of 14 to 20"):
        export_onnx(exported("bert", "bi")[0], tmp_path / "out", pairs=pairs, opset=99)


def test_a_missing_package_names_its_install_command(
    exported: Exported, tmp_path: Path, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, _, _ = exported("bert", "bi")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"onnx and onnxruntime\. Run: pip install \"transenc\[cpu\]\""):
        export_onnx(scorer, tmp_path / "out", pairs=pairs)


# The engine


def test_no_torch_is_imported_to_score(exported: Exported) -> None:
    _, out, _ = exported("bert", "bi")
    code = (
        "import sys; from pathlib import Path; from transenc.export.engine import load_engine\n"
        "from transenc.pairs import Pairs\n"
        "engine = load_engine(Path(sys.argv[1]))\n"
        "assert engine.score(Pairs.from_rows(['a man'], ['a dog'])).shape == (1,)\n"
        "heavy = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not heavy & {'torch', 'transformers', 'onnx', 'scipy', 'pydantic'}, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_load_scorer_finds_an_engine(exported: Exported) -> None:
    _, out, _ = exported("bert", "cross")
    assert isinstance(load_scorer(str(out)), Engine)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_pairs_give_no_scores(exported: Exported, family: str) -> None:
    assert load_engine(exported("bert", family)[1]).score(Pairs.from_rows([], [])).shape == (0,)


def test_a_cross_encoder_has_no_vectors(exported: Exported) -> None:
    with pytest.raises(ConfigError, match="makes no vectors"):
        load_engine(exported("bert", "cross")[1]).encode(["a man"])


def test_very_low_logits_neither_overflow_nor_tie(exported: Exported) -> None:
    class Session:
        def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
            return [np.array([[-80.0], [-60.0], [0.0], [900.0]], np.float32)]

    engine = replace(load_engine(exported("bert", "cross")[1]), session=Session())
    scores = engine.score(Pairs.from_rows(["a", "a", "a", "a"], ["a", "a", "a", "a"]))
    assert 0 < scores[0] < scores[1] < scores[2] == 0.5
    assert scores[3] == 1


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json"])
def test_a_tampered_file_is_named(engine_copy: Path, name: str) -> None:
    with (engine_copy / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(DamagedError, match=f"{name} differs"):
        load_engine(engine_copy)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(engine_copy: Path, name: str) -> None:
    (engine_copy / name).unlink()
    with pytest.raises(DamagedError, match=f"{name} is missing"):
        load_engine(engine_copy)


def test_a_directory_without_an_engine_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="transenc export onnx"):
        load_engine(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.clear(),
        lambda raw: raw.update(schema=1),
        lambda raw: raw.update(family="poly"),
        lambda raw: raw.update(max_length=0),
        lambda raw: raw.update(sha256=[]),
        lambda raw: raw.update(graphs={}),
        lambda raw: raw.update(graphs={"int4": {"file": "onnx/model.onnx"}}),
        lambda raw: raw.update(surprise=1),
        lambda raw: raw["sha256"].pop("onnx/model.onnx"),
        lambda raw: raw["graphs"]["fp32"].pop("file"),
        lambda raw: raw.update(output=["logits"]),
        lambda raw: raw.update(inputs=[["input_ids"]]),
        lambda raw: raw.update(sha256=list(raw["sha256"])),
        lambda raw: raw.update(max_length=2**70),
    ],
)
def test_a_sidecar_that_is_not_ours_is_damaged(
    engine_copy: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    edit(engine_copy, change)
    with pytest.raises(DamagedError, match=r"engine\.json cannot be used"):
        load_engine(engine_copy)


@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        ("bi", {"family": "cross"}, "vectors of 32 numbers; .* says 1, of a cross-encoder"),
        ("cross", {"family": "bi"}, "vectors of 1 numbers; .* says 32, of a bi-encoder"),
        ("bi", {"output": "last_hidden_state"}, "arrays of shape"),
        ("bi", {"pad_id": 10**6}, "pads with 1000000, which .*tokenizer.json has not"),
    ],
)
def test_a_sidecar_of_another_engine_is_damaged(
    exported: Exported, tmp_path: Path, family: str, change: dict[str, Any], told: str
) -> None:
    copy = Path(shutil.copytree(exported("bert", family)[1], tmp_path / "engine"))
    edit(copy, lambda raw: raw.update(change))
    with pytest.raises(DamagedError, match=told):
        load_engine(copy)


def test_a_sidecar_changed_by_hand_is_damaged(engine_copy: Path) -> None:
    edit(engine_copy, lambda raw: raw.update(max_length=4), recorded=False)
    with pytest.raises(DamagedError, match=r"engine\.json differs from what .*MANIFEST\.json recorded"):
        load_engine(engine_copy)
    assert load_engine(engine_copy, verify=False).max_length == 4
    (engine_copy / "MANIFEST.json").unlink()  # copied without it, an engine is its own witness
    assert load_engine(engine_copy).max_length == 4


def test_a_word_that_the_graph_lacks_is_damage(exported: Exported, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported("bert", "bi")[1], tmp_path / "engine"))
    words = json.loads((copy / "tokenizer.json").read_text())
    words["model"]["vocab"]["dog"] = 5000
    (copy / "tokenizer.json").write_text(json.dumps(words))
    edit(copy, lambda raw: raw["sha256"].update({"tokenizer.json": store.hash_file(copy / "tokenizer.json")}))
    engine = load_engine(copy)
    engine.score(Pairs.from_rows(["a man"], ["a cat"]))
    with pytest.raises(DamagedError, match="fp32 graph cannot take these texts: its tokenizer") as caught:
        engine.score(Pairs.from_rows(["a man"], ["a dog"]))
    assert "\n" not in str(caught.value)


def test_a_sidecar_cannot_name_files_elsewhere(engine_copy: Path) -> None:
    edit(engine_copy, lambda raw: raw["sha256"].update({"../secret": "0"}))
    with pytest.raises(RefusedError, match=r"'\.\./secret', which leaves"):
        load_engine(engine_copy)


def test_operators_from_elsewhere_are_refused(engine_copy: Path) -> None:
    rewrite(engine_copy, lambda model: setattr(model.graph.node[3], "domain", "evil.ops"))
    with pytest.raises(RefusedError, match=r"operators of 'evil\.ops'"):
        load_engine(engine_copy)


def test_operators_hidden_in_a_subgraph_are_refused(engine_copy: Path) -> None:
    def hide(model: onnx.ModelProto) -> None:
        inner = onnx.helper.make_node("Do", [], ["x"], domain="evil.ops")
        branch = onnx.helper.make_graph([inner], "branch", [], [])
        model.graph.node[3].attribute.append(onnx.helper.make_attribute("then_branch", branch))

    rewrite(engine_copy, hide)
    with pytest.raises(RefusedError, match=r"operators of 'evil\.ops'"):
        load_engine(engine_copy)


@pytest.mark.parametrize(
    ("location", "reason"),
    [("../../secret", "leaves its directory"), ("/etc/passwd", "leaves"), ("weights", "does not list")],
)
def test_weights_elsewhere_are_refused(engine_copy: Path, location: str, reason: str) -> None:
    def point(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    rewrite(engine_copy, point)
    with pytest.raises(RefusedError, match=reason):
        load_engine(engine_copy)


@pytest.mark.parametrize("content", [b"", b"\x0b", b"PK\x03\x04" * 8, b"\xff" * 64])
def test_what_is_no_graph_is_damaged(engine_copy: Path, content: bytes) -> None:
    (engine_copy / "onnx/model.onnx").write_bytes(content)
    with pytest.raises(DamagedError):
        load_engine(engine_copy, verify=False)


def test_a_cut_graph_is_damaged_at_every_length(engine_copy: Path) -> None:
    whole = (engine_copy / "onnx/model.onnx").read_bytes()
    # What precedes the end of a field reads as a file of its own.
    ends = [field.high for field in wire.fields(whole, 0, len(whole))]
    assert len(ends) > 3
    for cut in [*range(1, len(whole), len(whole) // 7), *ends[:-1]]:
        (engine_copy / "onnx/model.onnx").write_bytes(whole[:cut])
        with pytest.raises(DamagedError):
            refuse_foreign(engine_copy / "onnx/model.onnx")


@pytest.mark.parametrize("device", ["tpu", "cpu:1", "cuda:x", "tensorrt:x"])
def test_an_unknown_device_is_refused(engine_copy: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=f"No device '{device}'"):
        load_engine(engine_copy, device=device)


@pytest.mark.parametrize("listed", [True, False])
def test_cuda_is_used_or_refused_but_never_replaced(
    engine_copy: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    class Fallen:  # what a GPU build does on a machine without CUDA: it lists the provider and drops it
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"] if listed else ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(MachineError, match=r"it has CPUExecutionProvider\. .*transenc\[gpu\]"):
        load_engine(engine_copy, device="cuda")


class Sums:
    """In place of a session: a logit of each text, the sum of its ids."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        self.shapes.append(inputs["input_ids"].shape)
        return [(inputs["input_ids"] * inputs["attention_mask"]).sum(1, keepdims=True) / np.float32(1000)]


@pytest.mark.parametrize(("budget", "rows"), [(64, 2), (40, 100)])
def test_texts_that_are_many_runs_and_blocks_keep_their_places(
    budget: int, rows: int, plm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(plm / "tokenizer.json"))
    facts = Facts(*("cross", None, 32, 1, ("input_ids", "attention_mask"), "logits", 0, 17, ""), {}, {}, {})
    pairs = make_pairs(20)
    ids = [sum(tokenizer.encode(*row).ids) / 1000 for row in pairs.rows()]
    monkeypatch.setattr("transenc.export.engine.BLOCK", 7)
    session = Sums()
    scores = Engine("cross", facts, session, tokenizer, budget=budget, rows=rows).score(pairs)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-np.array(ids))), atol=1e-6)
    assert 1 < max(texts for texts, _ in session.shapes) <= rows
    assert max(texts * length for texts, length in session.shapes) <= budget


# The comparison itself, on scorers of one line


class Plain:
    """Score a pair by its lengths, plus `error(pairs)`."""

    family = "cross"
    max_length = 64

    def __init__(self, error: Callable[[Pairs], Any] = lambda pairs: 0.0) -> None:
        self.error = error

    def score(self, pairs: Pairs) -> Any:
        lengths = np.array([len(a) + len(b) for a, b in pairs.rows()], np.float32)
        return ((lengths % 7) / 7 + self.error(pairs)).astype(np.float32)


@dataclass
class Flat:
    """Score all pairs alike, by vectors of which all but the first have an `error`."""

    family: str = "bi"
    error: float = 0.0
    encoded: int = 0
    max_length: int = 64

    def score(self, pairs: Pairs) -> Any:
        return np.full(len(pairs), 0.5, np.float32)

    def encode(self, sentences: list[str]) -> Any:
        self.encoded += 1
        vectors = np.full((len(sentences), 4), 0.5, np.float32)
        vectors[1:] += self.error
        return vectors


LAST = list(make_pairs(10).rows())[-1]


def longer_than(words: int) -> Callable[[Pairs], Any]:
    return lambda pairs: np.array([0.1 * (len(a.split()) > words) for a, _ in pairs.rows()])


@pytest.mark.parametrize(
    ("check", "error"),
    [
        ("batches", lambda pairs: 0.1),
        ("one at a time", lambda pairs: 0.1 * (len(pairs) == 1)),
        ("one at a time", lambda pairs: 0.1 * (len(pairs) == 1 and next(pairs.rows()) == LAST)),
        ("lengths", longer_than(60)),
        ("shortest", lambda pairs: np.array([0.1 * (a == "") for a, _ in pairs.rows()])),
        ("batches", lambda pairs: np.nan),
    ],
)
def test_a_disagreement_is_found_and_placed(check: str, error: Callable[[Pairs], Any]) -> None:
    with pytest.raises(ParityError, match=f"in '{check}'"):
        check_parity(Plain(), Plain(error), make_pairs(10), tolerance=0.05)


def test_a_small_difference_is_within_tolerance() -> None:
    parity = check_parity(Plain(), Plain(lambda pairs: 1e-3), make_pairs(10), tolerance=0.05)
    assert 0 < parity.worst < 0.01
    assert [check.name for check in parity.checks] == ["batches", "one at a time", "lengths", "shortest"]
    assert json.loads(json.dumps(parity.as_dict()))["worst"] == parity.worst


def test_vectors_that_differ_fail_the_gate_though_all_scores_agree() -> None:
    with pytest.raises(
        ParityError, match=r"in 'batches', 10 pairs, scores differ by up to 0, vectors by up to 0\.1"
    ):
        check_parity(Flat(), Flat(error=0.1), make_pairs(10), tolerance=0.05)
    near = check_parity(Flat(), Flat(error=0.01), make_pairs(10), tolerance=0.05)
    assert [check.vectors is None for check in near.checks] == [False, True, False, False]
    assert near.worst == pytest.approx(0.01)
    crosses = check_parity(Flat("cross"), Flat("cross", 0.1), make_pairs(10), tolerance=0.05)
    assert crosses.worst == 0


def test_a_difference_as_large_as_is_allowed_passes() -> None:
    assert Check("name", 9, 0.5, 0.5).within(0.5)
    assert not Check("name", 9, 0.5, 0.6).within(0.5)
    assert Ranks(9, 1.0, model=0.75, engine=0.5, agreement=0.9, max_drop=0.25).within


def test_texts_of_every_length_bucket_are_made() -> None:
    made = ladder(make_pairs(10), 64)
    lengths = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    rows = [(len(left.split()), len(right.split())) for left, right in made.rows()]
    assert rows == [*zip(lengths, [*lengths[1:], 1], strict=True), *((n, 1) for n in lengths)]
    assert len({text.split()[0] for text in made.sentences}) > 6


def test_columns_of_pairs_to_compare_on_need_no_score(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("q1\tq2\tother\na\tb\tx\nc\td\ty\n")
    given, gold = _pairs(file, None, "q1,q2")
    assert list(given.rows()) == [("a", "b"), ("c", "d")]
    assert gold.scores is not None
    with pytest.raises(ConfigError, match="a||b lines have no columns"):
        _pairs(tmp_path / "pairs.txt", None, "q1,q2")
