"""Engines of several precisions: how they are made, judged, chosen and replaced."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
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
from tests.test_export import Flat, edit, rewrite, scorer_of, signature
from tests.tiny import tiny_plm
from transenc import store
from transenc.errors import ConfigError, DamagedError, Interrupted, MachineError, ParityError, RefusedError
from transenc.export import convert, latency, place, trace
from transenc.export import onnx as export
from transenc.export.engine import Engine, core_count, load_engine, read_facts
from transenc.export.onnx import ExportReport, export_onnx
from transenc.export.parity import Ranks, Remembered, check_parity
from transenc.export.words import LIMITS, word_difference
from transenc.metrics import spearman
from transenc.models.bi import BiEncoder
from transenc.models.cross import CrossEncoder, CrossFamily
from transenc.models.device import Compute
from transenc.models.loading import load_scorer, scorer_digest
from transenc.models.unpadded import ROWS
from transenc.pairs import Pairs, join
from transenc.writers import write_pairs

ALL = ("fp32", "fp16", "int8")
Made = tuple[BiEncoder | CrossEncoder, Path, ExportReport]
GOLD = make_pairs(60, seed=4, scored=True)


@pytest.fixture(scope="module")
def plms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("plms")

    def make(arch: str) -> Path:
        return root / arch if (root / arch).exists() else tiny_plm(root / arch, arch)

    return make


@pytest.fixture(scope="module", params=["bi", "cross"])
def made(
    request: pytest.FixtureRequest, plms: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """A tiny engine with every graph, and with latencies."""
    scorer = scorer_of(plms("bert"), request.param)
    out = tmp_path_factory.mktemp("made") / "engine"
    seconds, latency.SECONDS = latency.SECONDS, 0.01
    # Random heads rank by noise, which rounding disturbs far more than a trained model's scores.
    report = export_onnx(
        scorer,
        out,
        pairs=make_pairs(64),  # as many as the largest batch that is timed
        gold=GOLD,
        precisions=ALL,
        optimize=True,
        max_drop=0.5,
        benchmark=True,
    )
    latency.SECONDS = seconds
    return scorer, out, report


NAMES = {"fp32": "model.onnx", "fp32-O2": "model_O2.onnx", "fp16": "model_fp16.onnx"}


def test_every_precision_has_its_graph_under_the_name_other_tools_know(made: Made) -> None:
    _, out, report = made
    files = {name: Path(graph.file).name for name, graph in report.graphs.items()}
    int8 = files.pop("int8")
    assert files == NAMES
    assert re.fullmatch(r"model_q(u?)int8_(avx2|avx512_vnni|arm64)\.onnx", int8)
    assert {p.name for p in (out / "onnx").iterdir()} == {*NAMES.values(), int8}
    store.verify(out)


@pytest.mark.parametrize("graph", ["fp32", "fp32-O2", "fp16", "int8"])
def test_every_graph_scores_as_its_model_within_its_own_limit(made: Made, graph: str) -> None:
    scorer, out, report = made
    engine = load_engine(out, precision=graph)
    assert (engine.graph, engine.provider) == (graph, "CPUExecutionProvider")
    difference = np.abs(engine.score(GOLD) - scorer.score(GOLD)).max()
    assert difference <= export.TOLERANCE[graph]
    assert report.graphs[graph].parity.worst <= export.TOLERANCE[graph]
    if graph in ("fp16", "int8"):
        assert difference > 1e-6  # it is not fp32 under another name
    ranks = report.graphs[graph].parity.ranks
    assert ranks is not None
    assert (ranks.pairs, ranks.drop) == (60, ranks.model - ranks.engine)


@pytest.mark.parametrize("graph", ["fp32", "fp32-O2", "fp16", "int8"])
def test_every_graph_keeps_the_names_types_and_axes_of_the_contract(made: Made, graph: str) -> None:
    scorer, out, report = made
    model = onnx.load(str(out / report.graphs[graph].file))
    names = list(scorer.transformer.tokenizer.model_input_names)
    assert [signature(v) for v in model.graph.input] == [
        (name, onnx.TensorProto.INT64, ["batch", "sequence"]) for name in names
    ]
    outputs = [(v.name, v.type.tensor_type.elem_type) for v in model.graph.output]
    kinds = {"bi": ["last_hidden_state", "sentence_embedding"], "cross": ["logits"]}[scorer.family]
    assert outputs == [(name, onnx.TensorProto.FLOAT) for name in kinds]
    # sentence-transformers passes what the session asks for, by these names and as int64.
    session = onnxruntime.InferenceSession(
        str(out / report.graphs[graph].file), providers=["CPUExecutionProvider"]
    )
    assert [i.type for i in session.get_inputs()] == ["tensor(int64)"] * len(names)
    assert {o.type for o in session.get_outputs()} == {"tensor(float)"}


def test_int8_is_smaller_and_multiplies_integers(made: Made) -> None:
    scorer, out, report = made
    assert report.graphs["int8"].size < 0.7 * report.graphs["fp32"].size
    model = onnx.load(str(out / report.graphs["int8"].file))
    products = [n.name for n in model.graph.node if n.op_type in convert.QUANTIZED]
    # Of two layers, each: attention, its output, and the two around the GELU. Where the last one computes the first
    # token alone, its queries, keys and values are three products.
    assert len(products) == {"bi": 8, "cross": 10}[scorer.family]
    assert not any("classifier" in name or "pooler" in name for name in products)
    assert "products, word embeddings per row" in report.graphs["int8"].what


def test_int8_words_are_rows_with_a_scale_each(made: Made) -> None:
    scorer, out, report = made
    graph = onnx.load(str(out / report.graphs["int8"].file)).graph
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    (name,) = (n for n in stored if "word_embeddings" in n and n.endswith("_quantized"))
    rows, scales = stored[name], stored[name.replace("_quantized", "_scale")]
    table = scorer.module.get_input_embeddings().weight.detach().numpy()
    assert (rows.dtype, rows.shape, scales.shape) == (np.int8, table.shape, (len(table), 1))
    used = np.abs(table).max(1) > 0
    assert used.sum() < len(used)  # the row of the padding is nought, and stays so
    np.testing.assert_array_equal(np.abs(rows).max(1), np.where(used, 127, 0))
    assert np.all(np.abs(rows * scales - table) <= 0.5001 * scales)
    assert not any(array.dtype == np.float32 and array.shape == table.shape for array in stored.values())


def test_the_card_and_the_json_say_what_was_compared_and_measured(made: Made) -> None:
    _, out, report = made
    card = (out / "README.md").read_text()
    assert f"`{report.graphs['int8'].file}` | {report.graphs['int8'].what} |" in card
    assert "| graph | 1: p50, ms |" in card
    times = json.loads((out / "latency.json").read_text())
    assert set(times) == set(report.graphs)
    assert [t["batch"] for t in times["int8"]["timings"]] == [1, 8, 64]
    assert all(0 < t["p50"] <= t["p95"] for g in times.values() for t in g["timings"])
    assert times["int8"]["throughput"] > 0
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["graphs"]["fp16"]["parity"]["ranks"]


def test_a_graph_is_chosen_by_name_and_an_exact_one_without(made: Made) -> None:
    _, out, _ = made

    def chosen(name: str, **options: str) -> str:
        engine = load_scorer(name, **options)
        assert isinstance(engine, Engine)
        return engine.graph

    assert chosen(str(out)) == "fp32-O2"
    assert chosen(f"{out}:int8") == "int8"
    assert chosen(str(out), precision="fp16") == "fp16"
    assert chosen(f"{out}:fp32", precision="int8") == "fp32"  # what is nearer goes first
    with pytest.raises(ConfigError, match=r"has no 'int4'; it has fp32-O2, fp32, fp16, int8"):
        load_scorer(f"{out}:int4")
    with pytest.raises(ConfigError, match="has no 'bf16'"):
        load_scorer(str(out), precision="bf16")


def test_a_model_is_not_asked_for_the_precision_of_an_engine(plms: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="computes in auto, fp32, bf16, not in 'int8'"):
        load_scorer(str(plms("bert")), precision="int8")


def test_what_runs_an_engine_is_said(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="transenc"):
        load_scorer(f"{made[1]}:int8")
    assert caplog.messages == [f"{made[1]}: int8 on CPUExecutionProvider"]


def test_only_the_graph_that_is_loaded_is_read(made: Made, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(made[1], tmp_path / "copy")
    with (copy / made[2].graphs["int8"].file).open("ab") as file:
        file.write(b"\n")
    load_engine(copy)
    with pytest.raises(DamagedError, match=r"int8_.*\.onnx differs"):
        load_engine(copy, precision="int8")


class Counted:
    """A scorer that keeps the size of each batch and how many of its sentences differ."""

    provider = "CPUExecutionProvider"

    def __init__(self) -> None:
        self.batches: set[tuple[int, int]] = set()

    def score(self, pairs: Pairs) -> Any:
        self.batches.add((len(pairs), len(pairs.take(slice(None)).sentences)))
        return np.zeros(len(pairs), np.float32)


@pytest.mark.parametrize(
    ("number", "batches", "said"),
    [
        (1, [1], "1 pair and throughput over 1 pair (here; there are too few different pairs for 8 and 64"),
        (
            9,
            [1, 8],
            "1 and 8 pairs and throughput over 9 pairs (here; there are too few different pairs for 64",
        ),
        (64, [1, 8, 64], "1, 8 and 64 pairs and throughput over 64 pairs (here"),
    ],
)
def test_a_batch_that_is_timed_holds_as_many_different_pairs_as_its_size(
    monkeypatch: pytest.MonkeyPatch, number: int, batches: list[int], said: str
) -> None:
    """A bi-encoder encodes a sentence once: 64 times one pair would be timed as one."""
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    monkeypatch.setattr(latency, "machine", lambda: "here")
    apart = [f"sentence {i}" for i in range(2 * number)]
    pairs = Pairs.from_rows(apart[:number], apart[number:])
    engine = Counted()
    found = latency.measure(engine, join([pairs, pairs.flipped()]))  # type: ignore[arg-type]
    assert [timing.batch for timing in found.timings] == batches
    assert found.pairs == number
    assert engine.batches == {(size, 2 * size) for size in {*batches, number}}
    assert latency.title({"fp32": found}) == f"Latency of {said}):"
    columns, cells = latency.rows({"fp32": found})
    assert len(columns) == len(cells[0]) == 2 + 2 * len(batches)


# Fusing

FUSIBLE = {
    "bert": 2, "roberta": 2, "distilbert": 2, "electra": 2, "mpnet": 2, "modernbert": 2, "albert": 2, "deberta-v2": 0
}  # fmt: skip


@pytest.mark.parametrize("arch", FUSIBLE)
def test_attention_is_fused_where_there_is_a_fusion_and_said_where_not(
    plms: Callable[[str], Path], tmp_path: Path, arch: str
) -> None:
    scorer = scorer_of(plms(arch), "bi")
    report = export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4), optimize=True)
    fused = report.graphs["fp32-O2"].fused
    attention = sum(fused.get(kind, 0) for kind in convert.ATTENTION)
    assert attention == FUSIBLE[arch]
    assert fused["SkipLayerNormalization"] >= 4
    assert report.graphs["fp32-O2"].parity.worst < 1e-5
    said = [note for note in report.notes if "attention is not fused" in note and arch in note]
    assert len(said) == (attention == 0)


def test_a_fusion_that_an_opset_lacks_is_said_of_that_opset(
    plms: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = scorer_of(plms("modernbert"), "bi")
    report = export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4), optimize=True, opset=20)
    note = "attention is not fused: there is no fusion for 'modernbert' models at opset 20"
    assert report.notes == (note,)
    assert capsys.readouterr().out == ""  # onnxruntime's optimizer prints that it cannot infer shapes there


# The gate


@dataclass
class Skewed:
    """A scorer whose order differs from the other one's by `flips` swapped neighbours."""

    family: str = "cross"
    noise: float = 0.0

    def score(self, pairs: Any) -> Any:
        base = np.array([len(a) + 2 * len(b) for a, b in pairs.rows()], np.float32) / 400
        return (base + self.noise * np.resize([1, -1], len(base))).astype(np.float32)


def test_a_loss_of_spearman_fails_the_gate_though_no_score_is_far_off() -> None:
    exact = Skewed()
    gold = GOLD.with_scores(exact.score(GOLD))
    within = check_parity(exact, Skewed(noise=0.02), GOLD, tolerance=0.1, gold=gold, max_drop=0.9)
    assert within.ranks is not None
    assert within.ranks.model == 1
    assert 0.005 < within.ranks.drop < 0.9
    with pytest.raises(
        ParityError, match=r"Spearman falls from 1\.0000 to 0\.\d+ on 60 scored pairs"
    ) as caught:
        check_parity(exact, Skewed(noise=0.02), GOLD, tolerance=0.1, gold=gold)
    assert caught.value.numbers["ranks"]["drop"] == pytest.approx(within.ranks.drop)


def test_spearman_is_that_of_both_with_people_and_of_the_engine_with_its_model() -> None:
    model, engine, people = Skewed(), Skewed(noise=0.02), Skewed(noise=0.1).score(GOLD)
    parity = check_parity(model, engine, GOLD, tolerance=0.1, gold=GOLD.with_scores(people), max_drop=1.0)
    exact, other = model.score(GOLD), engine.score(GOLD)
    assert parity.ranks == Ranks(
        len(GOLD),
        pytest.approx(0.02 / exact.max(), rel=1e-3),  # type: ignore[arg-type]
        model=spearman(exact, people),
        engine=spearman(other, people),
        agreement=spearman(other, exact),
        max_drop=1.0,
    )


def test_an_order_that_rounding_alone_makes_is_not_held_against_an_engine() -> None:
    @dataclass
    class Tied(Skewed):
        spread: float = 1e-6

        def score(self, pairs: Any) -> Any:
            return (super().score(pairs) * self.spread + 0.99).astype(np.float32)

    gold = GOLD.with_scores(Skewed().score(GOLD))
    passed = check_parity(Tied(), Tied(noise=0.2), GOLD, tolerance=0.1, gold=gold)
    assert passed.ranks is not None
    assert passed.ranks.drop > 0.005
    assert 0 < passed.ranks.scores < 1e-6
    with pytest.raises(ParityError, match=r"Spearman falls from"):  # that of a hundred times the rounding is
        check_parity(Tied(spread=1e-4), Tied(noise=0.2, spread=1e-4), GOLD, tolerance=0.1, gold=gold)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_order_of_small_scores_that_rounding_does_not_make_is_held_against_an_engine(sign: int) -> None:
    class Low(Skewed):
        def score(self, pairs: Any) -> Any:
            return super().score(pairs) * np.float32(sign * 1e-6)

    gold = GOLD.with_scores(sign * Skewed().score(GOLD))
    with pytest.raises(ParityError, match=r"Spearman falls from 1\.0000"):
        check_parity(Low(), Low(noise=0.2), GOLD, tolerance=0.1, gold=gold)


def test_nan_fails_the_gate_and_its_numbers_stay_json() -> None:
    gold = GOLD.with_scores(Skewed().score(GOLD))
    with pytest.raises(ParityError) as caught:
        check_parity(Skewed(), Skewed(noise=float("nan")), GOLD, tolerance=0.1, gold=gold)
    assert json.loads(json.dumps(caught.value.numbers, allow_nan=False))["ranks"]["engine"] is None

    class Column(Skewed):
        def score(self, pairs: Any) -> Any:
            return super().score(pairs)[:, None]

    with pytest.raises(ParityError) as caught:  # arrays of another shape are infinitely far
        check_parity(Skewed(), Column(), GOLD, tolerance=0.1)
    assert json.loads(json.dumps(caught.value.numbers, allow_nan=False))["worst"] is None


def test_the_model_is_asked_once_for_all_graphs() -> None:
    class Counting(Skewed):
        asked = 0

        def score(self, pairs: Any) -> Any:
            self.asked += 1
            return super().score(pairs)

    model = Counting()
    remembered = Remembered(model)
    for _ in range(3):
        check_parity(remembered, Skewed(), GOLD, tolerance=0.1)
    assert model.asked == 3  # the pairs, the lengths, the shortest
    turned = Pairs(GOLD.sentences, GOLD.left, GOLD.right[::-1])  # other pairs of the same sentences
    np.testing.assert_array_equal(remembered.score(turned), model.score(turned))
    encoder = Flat()
    remembered = Remembered(encoder)
    for _ in range(3):
        check_parity(remembered, Flat(), GOLD, tolerance=0.1)
    assert encoder.encoded == 3


def test_int8_ways_are_tried_in_turn_and_the_card_names_the_one_taken(
    plms: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    quantise = convert.to_int8
    ways = [choice.what for choice in convert.choices()]
    wanted = next(choice.what for choice in convert.choices() if not choice.outputs)

    def record(source: Path, target: Path, choice: convert.Choice, layers: int) -> tuple[int, int]:
        tried.append(choice.what)
        return quantise(source, target, choice, layers)

    def refuse_first(model: Any, engine: Any, pairs: Any, **options: Any) -> Any:
        if engine.graph == "int8" and tried[-1] != wanted:
            raise ParityError("too far", {"worst": 0.3, "ranks": {"drop": 0.01}})
        return check_parity(model, engine, pairs, **options)

    monkeypatch.setattr(convert, "to_int8", record)
    monkeypatch.setattr(export, "check_parity", refuse_first)
    report = export_onnx(
        scorer_of(plms("bert"), "bi"), tmp_path / "out", pairs=make_pairs(4), precisions=["int8"]
    )
    assert tried == ways[: ways.index(wanted) + 1]
    # What was refused is gone; without fp32 asked for, only the int8 graph is kept.
    assert [p.name for p in (tmp_path / "out/onnx").iterdir()] == [Path(report.graphs["int8"].file).name]
    assert report.graphs["int8"].what.startswith(tried[-1])
    card = (tmp_path / "out/README.md").read_text()
    assert tried[-1] in card
    for way in tried[:-1]:  # what was passed over is told with its numbers
        said = f"int8 of {way} disagrees: largest difference 0.3, Spearman drop 0.01"
        assert said in report.notes
        assert said in card


def test_int8_that_never_passes_leaves_nothing_and_tells_every_number(
    plms: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(
        ParityError, match="No int8 engine agrees with the model .*all layers: largest"
    ) as caught:
        export_onnx(
            scorer_of(plms("bert"), "bi"),
            tmp_path / "out",
            pairs=make_pairs(4),
            gold=GOLD,
            precisions=["fp32", "int8"],
            tolerance=1e-5,
        )
    # Of two layers both are ends, so that the last way would quantise nothing and is passed over.
    assert list(caught.value.numbers["int8"]) == [choice.what for choice in convert.choices()][:-1]
    assert list(tmp_path.iterdir()) == []


def test_fewer_products_are_quantised_from_way_to_way(made: Made) -> None:
    graph = onnx.load(str(made[1] / "onnx/model_O2.onnx")).graph
    left_out = [len(convert._left_out(graph, choice, 2)) for choice in convert.choices()]
    assert left_out == sorted(left_out)
    assert left_out[0] == (2 if made[0].family == "cross" else 0)  # the head stays in fp32
    assert left_out[-1] > 2
    assert [choice.words for choice in convert.choices()] == [True] * (len(left_out) - 1) + [False]


def test_words_that_a_product_reads_too_stay_as_they_are() -> None:
    table = onnx.numpy_helper.from_array(np.ones((5, 4), np.float32), "words")
    nodes = [
        onnx.helper.make_node("Gather", ["words", "input_ids"], ["rows"]),
        onnx.helper.make_node("MatMul", ["words", "other"], ["logits"]),
    ]
    alone = onnx.helper.make_graph(nodes[:1], "alone", [], [], [table])
    shared = onnx.helper.make_graph(nodes, "shared", [], [], [table])
    assert (convert._quantise_words(alone), convert._quantise_words(shared)) == (1, 0)
    assert [node.op_type for node in alone.node] == ["Gather", "Cast", "Gather", "Mul"]
    assert alone.node[-1].output == ["rows"]
    assert [node.op_type for node in shared.node] == ["Gather", "MatMul"]
    assert [tensor.name for tensor in shared.initializer] == ["words"]


@pytest.mark.parametrize(
    ("machine", "flags", "kind"),
    [
        ("x86_64", "flags : fpu avx2 avx512_vnni", "avx512_vnni"),
        ("x86_64", "flags : fpu avx2", "avx2"),
        ("aarch64", "Features : asimd", "arm64"),
    ],
)
def test_the_processor_decides_the_name_and_the_ways(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, kind: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: flags)
    assert convert.cpu() == kind
    assert any(not choice.signed for choice in convert.choices()) == (kind == "avx2")
    assert convert.int8_name(convert.choices()[0]) == f"onnx/model_qint8_{kind}.onnx"


# What goes wrong: one clear error, and the old engine stays


@pytest.fixture
def old(plms: Callable[[str], Path], tmp_path: Path) -> tuple[Any, Path, dict[str, str]]:
    scorer = scorer_of(plms("bert"), "cross")
    export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4), source="old")
    return scorer, tmp_path / "out", store.hash_tree(tmp_path / "out")


def unchanged(out: Path, before: dict[str, str]) -> bool:
    return store.hash_tree(out) == before and [p.name for p in out.parent.iterdir()] == ["out"]


def test_a_new_engine_takes_the_place_of_an_old_one(old: Any) -> None:
    scorer, out, before = old
    export_onnx(scorer, out, pairs=make_pairs(4), source="new", opset=18)
    assert read_facts(out).source["name"] == "new"
    assert store.hash_tree(out) != before
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    store.verify(out)


def test_a_failed_gate_leaves_the_old_engine(old: Any) -> None:
    scorer, out, before = old
    with pytest.raises(ParityError, match="fp32: The engine disagrees"):
        export_onnx(scorer, out, pairs=make_pairs(4), tolerance=0.0)
    assert unchanged(out, before)


@pytest.mark.parametrize("extra", [-50_000, 5_000])  # the layout does not fit, the graph does not fit
def test_a_full_disk_is_one_error_and_leaves_the_old_engine(
    old: Any, tmp_path: Path, extra: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transenc.cli.app import main

    scorer, out, before = old
    model = tmp_path.parent / f"{tmp_path.name}-model"
    scorer.save(model)
    monkeypatch.setattr(sys, "argv", ["transenc", "export", "onnx", "--model", str(model), "--out", str(out)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    allowed = (model / "model.safetensors").stat().st_size + extra  # bytes a file may have
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, limits[1]))
    try:
        with pytest.raises(SystemExit) as stop:
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    told = capsys.readouterr().err.splitlines()
    assert stop.value.code == 4, told
    assert "File too large" in told[-1]
    assert unchanged(out, before)


def test_a_model_directory_without_weights_is_one_error_and_leaves_the_old_engine(
    old: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transenc.cli.app import main

    scorer, out, before = old
    model = tmp_path.parent / f"{tmp_path.name}-model"
    scorer.save(model)
    (model / "model.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["transenc", "export", "onnx", "--model", str(model), "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 3
    assert capsys.readouterr().err == f"transenc: {model} holds no weights: model.safetensors is missing.\n"
    assert unchanged(out, before)


def test_too_little_space_is_said_before_any_work(old: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, out, before = old
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(MachineError, match="0 MiB free"):
        export_onnx(scorer, out, pairs=make_pairs(4))
    assert unchanged(out, before)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_an_interruption_leaves_the_old_engine(old: Any, calls: int) -> None:
    scorer, out, before = old
    left = iter(range(calls))

    def check() -> None:
        if next(left, None) == calls - 1:
            raise Interrupted("Stopped by SIGTERM.", signal.SIGTERM)

    with pytest.raises(Interrupted):
        export_onnx(scorer, out, pairs=make_pairs(4), precisions=["fp32"], optimize=True, check=check)
    assert unchanged(out, before)


def test_what_a_killed_export_left_is_mended(tmp_path: Path) -> None:
    dead = 2**22 + 1  # above the largest process id
    (tmp_path / f".out.{dead}.tmp").mkdir()
    (tmp_path / f".out.{os.getppid()}.tmp").mkdir()  # someone at work
    (tmp_path / f".out.{os.getpid()}.tmp").mkdir()  # of an earlier process of this number, in a container
    (tmp_path / f".out.{dead}.tmp.ready").mkdir()
    (tmp_path / ".out.old").mkdir()  # killed between two renames: the old engine lies aside
    (tmp_path / ".out.old/engine.json").touch()
    with place.place(tmp_path / "out", size=1):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".out.{os.getppid()}.tmp", "out"]
    assert (tmp_path / "out/engine.json").exists()


def test_an_engine_that_was_replaced_is_removed_by_the_next_export(old: Any) -> None:
    _, out, before = old
    shutil.copytree(out, out.with_name(".out.old"))  # killed after the two renames
    with place.place(out, size=1):
        pass
    assert unchanged(out, before)


OTHERS = (".out.old", ".out.notes.tmp.4194305", ".out.4194305.tmp.bak", ".out.lock")


def test_what_only_looks_like_a_leftover_is_let_be(tmp_path: Path) -> None:
    for name in OTHERS[1:]:
        (tmp_path / name).mkdir()
    with place.place(tmp_path / "out", size=1):
        pass
    assert {p.name for p in tmp_path.iterdir()} == set(OTHERS[1:])


@pytest.mark.parametrize("there", [False, True])
def test_what_is_no_engine_under_the_name_of_an_old_one_is_refused(old: Any, there: bool) -> None:
    scorer, out, before = old
    aside = out.with_name(".out.old")
    aside.mkdir()
    (aside / "thesis.tex").write_text("years of work")
    if not there:
        shutil.rmtree(out)
    with pytest.raises(ConfigError, match=r"\.out\.old exists already and is no engine"):
        export_onnx(scorer, out, pairs=make_pairs(4))
    assert (aside / "thesis.tex").read_text() == "years of work"
    assert {p.name for p in out.parent.iterdir()} == {".out.old", *(["out"] if there else [])}
    assert not there or store.hash_tree(out) == before


def test_two_exports_to_one_place_do_not_meet(old: Any) -> None:
    scorer, out, before = old
    with place.place(out, size=1):
        code = (
            "import sys; from pathlib import Path; from transenc.export.place import place\n"
            "with place(Path(sys.argv[1]), size=1): pass\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
        told = done.stderr.splitlines()[-1]
        assert told.startswith("transenc.errors.LockedError: Another process exports to"), done.stderr
    assert unchanged(out, before)
    export_onnx(scorer, out, pairs=make_pairs(4), source="new")
    assert read_facts(out).source["name"] == "new"


def test_an_engine_is_replaced_from_inside_it(old: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, out, _ = old
    monkeypatch.chdir(out)
    export_onnx(scorer, Path(), pairs=make_pairs(4), source="new")
    monkeypatch.chdir(out.parent)
    assert read_facts(out).source["name"] == "new"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("arch", ROWS)
def test_the_last_layer_of_a_classifier_s_graph_computes_first_tokens_alone(
    plms: Callable[[str], Path], tmp_path: Path, arch: str
) -> None:
    scorer = scorer_of(plms(arch), "cross")
    trace.trace(scorer, tmp_path / "model.onnx", 17)
    model = onnx.load(str(tmp_path / "model.onnx"))
    config = scorer.module.config
    grow = [config.hidden_size, config.intermediate_size]
    weights = {tensor.name for tensor in model.graph.initializer if list(tensor.dims) == grow}
    inner = [n.output[0] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = {entry.name: np.ones((3, 7), np.int64) for entry in session.get_inputs()}
    lengths = [found.shape[1] for found in session.run(inner, batch)]
    assert lengths == [7] * (config.num_hidden_layers - 1) + [1]


def test_an_operator_that_onnx_lacks_is_named(plms: Callable[[str], Path], tmp_path: Path) -> None:
    class Strange(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config = inner, inner.config
            self.base_model = inner.base_model
            self.set_attn_implementation = inner.set_attn_implementation

        def forward(self, **batch: Any) -> Any:
            out = self.inner(**batch)
            out.logits = torch.special.erfcx(out.logits)
            return out

    scorer = scorer_of(plms("bert"), "cross")
    scorer = replace(scorer, transformer=replace(scorer.transformer, module=Strange(scorer.module)))
    with pytest.raises(ConfigError, match=r"cannot be exported at opset 17: .*erfcx"):
        trace.trace(scorer, tmp_path / "onnx/model.onnx", 17)


def test_a_length_that_no_engine_has_is_said_of_the_model(
    plms: Callable[[str], Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(plms("bert"), tmp_path / "model"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 2}))
    with pytest.raises(
        ConfigError, match=r"short-model cuts texts to 2 tokens, and an engine takes 3 or more"
    ):
        export_onnx(scorer_of(model, "bi"), tmp_path / "out", pairs=make_pairs(4), source="short-model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_opset_too_old_and_an_unknown_precision_are_refused(
    plms: Callable[[str], Path], tmp_path: Path
) -> None:
    scorer = scorer_of(plms("bert"), "bi")
    with pytest.raises(ConfigError, match="Opset 11 is not one of 14 to 20"):
        export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4), opset=11)
    with pytest.raises(ConfigError, match="No precision 'bf16' for an engine. There is: fp32, fp16, int8"):
        export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4), precisions=["fp32", "bf16"])
    assert list(tmp_path.iterdir()) == []


def test_weights_of_every_graph_go_beside_it_and_stay_in_the_directory(
    plms: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "SINGLE_FILE", 1000)
    out, scorer = tmp_path / "out", scorer_of(plms("bert"), "bi")
    report = export_onnx(scorer, out, pairs=make_pairs(4), precisions=ALL, optimize=True)
    graphs = {Path(graph.file).name for graph in report.graphs.values()}
    assert {p.name for p in (out / "onnx").iterdir()} == graphs | {f"{name}_data" for name in graphs}
    for name in report.graphs:
        load_engine(out, precision=name)
    int8 = report.graphs["int8"].file

    def escape(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.external_data)
        next(e for e in tensor.external_data if e.key == "location").value = "../../secret"

    model = onnx.load(str(out / int8), load_external_data=False)
    escape(model)
    (out / int8).write_bytes(model.SerializeToString())
    edit(out, lambda raw: raw["sha256"].update({int8: store.hash_file(out / int8)}))
    with pytest.raises(RefusedError, match="leaves its directory"):
        load_engine(out, precision="int8")


def test_a_family_of_a_plugin_says_which_contract_its_graph_keeps(
    plms: Callable[[str], Path], tmp_path: Path
) -> None:
    @dataclass
    class Sharper(CrossEncoder):
        family: str = "sharper"
        engine: str = "cross"

        def graph_outputs(self, module: Any, batch: Any) -> Any:
            return module(**batch).logits

    scorer = Sharper(scorer_of(plms("bert"), "cross").transformer)
    report = export_onnx(scorer, tmp_path / "out", pairs=make_pairs(4))
    assert (report.family, load_engine(tmp_path / "out").family) == ("sharper", "cross")
    with pytest.raises(ConfigError, match="The family 'poly' has no ONNX export"):
        export_onnx(replace(scorer, family="poly", engine="poly"), tmp_path / "no", pairs=make_pairs(4))


# The session


def test_threads_are_as_many_as_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert core_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert core_count() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert core_count() == 0  # onnxruntime's own: a thread per physical core
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert core_count() == 0


# The documentation

DOCS = (Path(__file__).parents[1] / "docs/engines.md").read_text(encoding="utf-8")


def test_the_code_of_the_documentation_scores_the_same(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer, out, _ = made
    block = re.search(r"```python\n(.*?)```", DOCS, re.DOTALL)
    assert block
    assert block[1].count("\n") < 36
    namespace: dict[str, Any] = {}
    exec(compile(block[1].replace('"engines/bi"', repr(str(out))), "engines.md", "exec"), namespace)
    assert float(capsys.readouterr().out.strip("[]\n")) == pytest.approx(
        float(scorer.score(type(GOLD).from_rows(["A man plays a guitar."], ["Someone makes music."]))[0]),
        abs=1e-5,
    )
    left, right = GOLD.column(GOLD.left), GOLD.column(GOLD.right)
    np.testing.assert_allclose(namespace["score"](left, right), scorer.score(GOLD), atol=1e-5)


def test_the_workflow_of_the_documentation_is_valid_and_its_commands_exist() -> None:
    import yaml

    block = re.search(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    assert block
    steps = yaml.safe_load(block[1])["jobs"]["export"]["steps"]
    lines = [step["run"] for step in steps if "run" in step]
    assert [line.split()[:2] for line in lines if line.startswith("transenc")] == [
        ["transenc", "export"],
        ["transenc", "evaluate"],
    ]


def test_a_hostile_graph_is_refused_in_every_precision(made: Made, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(made[1], tmp_path / "copy")
    rewrite(copy, lambda model: setattr(model.graph.node[3], "domain", "evil.ops"))
    with pytest.raises(RefusedError, match="evil"):
        load_engine(copy, precision="fp32")


def test_an_engine_that_lies_aside_is_found(made: Made, tmp_path: Path) -> None:
    scorer, out, _ = made
    shutil.copytree(out, tmp_path / ".engine.old")  # an export was killed between two renames
    found = load_scorer(str(tmp_path / "engine:fp16"))
    assert isinstance(found, Engine)
    assert found.graph == "fp16"
    assert scorer_digest(str(tmp_path / "engine:fp16")) == scorer_digest(f"{out}:fp16")
    assert scorer_digest(str(tmp_path / "engine:fp16")) != scorer_digest(f"{out}:fp32")


def test_an_engine_is_not_exported_again(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an engine already"):
        export_onnx(load_engine(made[1]), tmp_path / "out", pairs=make_pairs(4))
    with pytest.raises(ConfigError, match="--precision fp32 as well"):
        export_onnx(made[0], tmp_path / "out", pairs=make_pairs(4), precisions=["fp16"], optimize=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": 7}, "vectors of .* says 7"),
        ({"dim": "x"}, "dim 'x'"),
        ({"pad_id": None}, "pad_id None"),
        ({"max_length": True}, "max_length True"),
        ({"max_length": 2}, "max_length 2"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_damage(
    change: dict[str, Any], named: str, plms: Callable[[str], Path], tmp_path: Path
) -> None:
    export_onnx(scorer_of(plms("bert"), "bi"), tmp_path / "out", pairs=make_pairs(4))
    edit(tmp_path / "out", lambda raw: raw.update(change))
    with pytest.raises(DamagedError, match=named):
        load_engine(tmp_path / "out")


def test_a_segment_head_is_exported_in_every_precision(plms: Callable[[str], Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    scorer = CrossFamily().create(
        plms("bert"), compute=Compute("cpu", "fp32"), max_length=32, head="segments"
    )
    report = export_onnx(
        scorer, tmp_path / "out", pairs=make_pairs(8), gold=GOLD, precisions=ALL, optimize=True, max_drop=0.5
    )
    assert set(report.graphs) == {"fp32", "fp32-O2", "fp16", "int8"}


@pytest.mark.parametrize("name", ["fp32", "fp32-O2", "fp16", "int8"])
def test_one_word_that_no_text_has_is_compared(name: str, made: Made, tmp_path: Path) -> None:
    """Texts reach few rows of a vocabulary: a wrong one beyond them would pass all other comparisons."""
    scorer, out, report = made
    file = tmp_path / "graph.onnx"
    shutil.copyfile(out / report.graphs[name].file, file)
    assert word_difference(file, scorer.module)[0] <= LIMITS[name]  # type: ignore[index]

    def spoil(model: onnx.ModelProto) -> None:
        picked = next(
            n.input[0] for n in model.graph.node if n.op_type == "Gather" and n.input[1] == "input_ids"
        )
        tensor = next(t for t in model.graph.initializer if t.name == picked)
        table = onnx.numpy_helper.to_array(tensor).copy()
        table[41] = table[40]
        tensor.CopyFrom(onnx.numpy_helper.from_array(table, picked))

    model = onnx.load(str(file))
    spoil(model)
    onnx.save(model, str(file))
    difference, row = word_difference(file, scorer.module)  # type: ignore[misc]
    assert row == 41
    assert difference > 2 * LIMITS[name]


def test_a_graph_with_another_word_is_no_engine(
    plms: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "word_difference", lambda file, module: (0.5, 17))
    with pytest.raises(ParityError, match=r"fp32: the embedding of word 17 differs .* 0.5 of its largest"):
        export_onnx(scorer_of(plms("bert"), "bi"), tmp_path / "out", pairs=make_pairs(4))
    assert not (tmp_path / "out").exists()


# The command

Command = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `transenc export onnx` and return its exit code and the lines of stdout and stderr."""
    from transenc.cli.app import main

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["transenc", "export", "onnx", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        shown = capsys.readouterr()
        return int(stop.value.code or 0), shown.out.splitlines(), shown.err.splitlines()

    return run


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A file of four scored pairs."""
    write_pairs(make_pairs(4, scored=True), tmp_path / "few.tsv")
    return tmp_path / "few.tsv"


def test_of_a_run_both_engines_are_kept_or_none(
    plms: Callable[[str], Path], tmp_path: Path, few: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for family in ("bi", "cross"):
        scorer_of(plms("bert"), family).save(tmp_path / family)
        (tmp_path / family / "best.json").write_text("{}")
        store.commit(tmp_path / family, run / "best" / family, identity="")
    whole = store.hash_tree(run)

    def refuse_cross(model: Any, engine: Any, pairs: Any, **options: Any) -> Any:
        if engine.family == "cross":
            raise ParityError("The engine disagrees. No engine was kept.", {"worst": 1.0})
        return check_parity(model, engine, pairs, **options)

    with monkeypatch.context() as patched:
        patched.setattr(export, "check_parity", refuse_cross)
        code, out, _ = command("--run", run, "--pairs", few, "--json")
    assert code == 8
    (line,) = map(json.loads, out)  # of the one that failed: nothing was made of the other
    assert (line["model"], "path" in line) == (str(run / "best/cross"), False)
    assert store.hash_tree(run) == whole
    assert [p.name for p in run.iterdir()] == ["best"]

    code, out, told = command("--run", run, "--pairs", few, "--json")
    assert code == 0, told
    assert [json.loads(line)["path"] for line in out] == [str(run / "export" / f) for f in ("bi", "cross")]
    for family in ("bi", "cross"):
        assert store.verify(run / "export" / family).info["kind"] == "engine"
    assert {p.name for p in (run / "export").iterdir()} == {"bi", "cross"}


def test_a_card_that_is_not_utf_8_is_kept_as_far_as_it_can_be_read(
    plms: Callable[[str], Path], tmp_path: Path, few: Path, command: Command
) -> None:
    model = Path(shutil.copytree(plms("bert"), tmp_path / "model"))
    (model / "README.md").write_bytes("Modèle de Zoë".encode("latin-1"))
    code, _, told = command("--model", model, "--pairs", few, "--out", tmp_path / "out", "--json")
    assert code == 0, told
    assert "Mod\ufffdle de Zo\ufffd" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_bad_rows_of_the_pairs_are_skipped_as_the_error_advises(
    plms: Callable[[str], Path], tmp_path: Path, few: Path, command: Command
) -> None:
    with few.open("a", encoding="utf-8") as file:
        file.write("a row without a second sentence\n")
    arguments = ("--model", plms("bert"), "--pairs", few, "--out", tmp_path / "out", "--json")
    code, _, told = command(*arguments)
    assert (code, "pass --skip-bad 1" in " ".join(told)) == (3, True), told
    code, out, told = command(*arguments, "--skip-bad", "1")
    assert code == 0, told
    assert json.loads(out[0])["graphs"]["fp32"]["parity"]["checks"][0]["pairs"] == 4
    code, _, told = command("--model", plms("bert"), "--out", tmp_path / "out", "--skip-bad", "1")
    assert (code, told) == (2, ["transenc: --skip-bad is for one's own file: give --pairs FILE."])
