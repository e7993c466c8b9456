from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_pairs
from tests.test_single import content
from tests.tiny import ARCHITECTURES, WITH_TYPES, tiny_plm
from transenc.cli.app import main
from transenc.config import build
from transenc.errors import ConfigError, DataError, Interrupted
from transenc.export.onnx import export_onnx
from transenc.interrupt import StopFlag
from transenc.models.bi import BiFamily
from transenc.models.cross import CrossEncoder, CrossFamily
from transenc.models.device import Compute
from transenc.models.layout import head_of
from transenc.models.loading import family_of, load_scorer
from transenc.models.packed import scoring_copy
from transenc.models.segments import APART, HIDDEN, SegmentModel, logistic_line
from transenc.pairs import Pairs
from transenc.single_stages import distill_to
from transenc.writers import write_pairs

CPU = Compute("cpu", "fp32")


def made(plm: Path) -> CrossEncoder:
    """A new cross-encoder with the head, fitted to the labels of a few pairs."""
    model = CrossFamily().create(plm, compute=CPU, max_length=32, head="segments")
    pairs = make_pairs(40, scored=True)
    assert pairs.scores is not None
    model.calibrate(model.prepare(pairs), pairs.scores)
    return model


def by_hand(model: CrossEncoder, left: str, right: str) -> float:
    """The score of one pair alone, its sides found by their lengths, its mask and positions filled in loops."""
    head, tokenizer = model.module, model.transformer.tokenizer
    assert isinstance(head, SegmentModel)
    batch = dict(tokenizer(left, right, return_tensors="pt"))
    length, first = batch["input_ids"].shape[1], len(tokenizer(left)["input_ids"])  # with its separator
    if head.apart is not None:
        mask, positions = torch.zeros(1, 1, length, length), torch.zeros(1, length, dtype=torch.long)
        for i in range(length):
            positions[0, i] = head.apart.offset + (i if i < first else i - first + head.apart.begin)
            for j in range(length):
                if i and j and (i < first) != (j < first):
                    mask[0, 0, i, j] = -2.0
        batch |= {"attention_mask": mask, "position_ids": positions}
    with torch.no_grad():
        states = head.body.eval()(**batch).last_hidden_state[0]
    cosine = F.cosine_similarity(states[:first].mean(0), states[first:].mean(0), dim=0)
    return torch.sigmoid(head.slope * cosine + head.shift).item()


@pytest.mark.parametrize("arch", ["bert", "roberta", "mpnet", "deberta-v2"])
def test_the_logit_is_a_line_over_the_cosine_of_the_segments(arch: str, tmp_path: Path) -> None:
    model = made(tiny_plm(tmp_path / "plm", arch))
    assert isinstance(model.module, SegmentModel)
    assert (model.module.apart is None) == (arch == "deberta-v2")
    pairs = make_pairs(10, seed=3)
    wanted = [by_hand(model, left, right) for left, right in pairs.rows()]
    np.testing.assert_allclose(model.score(pairs), wanted, atol=1e-5)  # in padded batches
    assert np.std(wanted) > 0


@pytest.mark.parametrize("more", [[], ["--set", "distill.cross.head=classifier"]])
def test_distil_keeps_the_head_of_its_start_unless_another_is_named(
    more: list[str], plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(plm).save(tmp_path / "start")
    write_pairs(make_pairs(40, scored=True), tmp_path / "pairs.tsv")
    given = ["--pairs", str(tmp_path / "pairs.tsv"), "--family", "cross", "--start", str(tmp_path / "start")]
    given += ["--out", str(tmp_path / "out"), "--set", "distill.cross.batch_size=8", *more]
    monkeypatch.setattr(sys, "argv", ["transenc", "distill", *given])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert (head_of(tmp_path / "out") is None) == bool(more)


@pytest.mark.parametrize("arch", WITH_TYPES)
def test_a_separator_in_the_text_does_not_end_a_sentence_where_there_are_types(
    arch: str, tmp_path: Path
) -> None:
    model = made(tiny_plm(tmp_path / "plm", arch))
    left, right = "a man [SEP] is running", "two dogs [SEP] eat"
    for _ in range(2):
        scored = model.score(Pairs.from_rows([left], [right])).item()
        assert scored == pytest.approx(by_hand(model, left, right), abs=1e-5)
        model.save(tmp_path / "saved")
        model = CrossFamily().load(tmp_path / "saved", compute=CPU)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["transenc_head"].pop("typed") is True  # a head of before goes by the separator
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    before = CrossFamily().load(tmp_path / "saved", compute=CPU)
    assert abs(before.score(Pairs.from_rows([left], [right])).item() - scored) > 1e-3
    pairs = make_pairs(10, seed=3)
    np.testing.assert_allclose(before.score(pairs), model.score(pairs), atol=1e-6)


@pytest.mark.parametrize("arch", [name for name in ARCHITECTURES if name in APART])
def test_bodies_that_are_told_apart_read_a_first_sentence_as_if_it_were_alone(
    arch: str, tmp_path: Path
) -> None:
    model = made(tiny_plm(tmp_path / "plm", arch))
    assert isinstance(model.module, SegmentModel)
    apart, body, tokenizer = model.module.apart, model.module.body.eval(), model.transformer.tokenizer
    assert apart is not None
    alone = tokenizer("a man is running", return_tensors="pt")
    both = tokenizer("a man is running", "two dogs eat", return_tensors="pt")
    first, length = alone["input_ids"].shape[1], both["input_ids"].shape[1]
    mask = torch.zeros(1, 1, length, length)
    mask[:, :, :first, first:] = HIDDEN
    at = apart.offset + torch.arange(length).unsqueeze(0)
    with torch.no_grad():
        states = body(**{**both, "attention_mask": mask, "position_ids": at}).last_hidden_state[0, :first]
        torch.testing.assert_close(states, body(**alone).last_hidden_state[0], atol=1e-5, rtol=1e-5)
        one = tokenizer("dogs", return_tensors="pt")["input_ids"]
        shifted = body(input_ids=one, position_ids=at[:, 1 : 1 + one.shape[1]]).last_hidden_state
        assert (shifted - body(input_ids=one).last_hidden_state).abs().max() > 1e-3  # positions are read


def test_a_head_that_was_saved_without_it_reads_plainly(plm: Path, tmp_path: Path) -> None:
    made(plm).save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["transenc_head"].pop("apart") == {"across": -2.0, "begin": 1, "offset": 0}
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    model = CrossFamily().load(tmp_path / "saved", compute=CPU)
    assert isinstance(model.module, SegmentModel)
    assert model.module.apart is None
    pairs = make_pairs(5, seed=3)
    np.testing.assert_allclose(model.score(pairs), [by_hand(model, *row) for row in pairs.rows()], atol=2e-6)


def test_the_line_is_the_one_of_least_cross_entropy() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    x = rng.uniform(0.6, 0.9, 300)
    y = np.clip(1 / (1 + np.exp(-(12 * x - 9))) + rng.normal(0, 0.05, 300), 0, 1)

    def loss(line: Any) -> float:
        z = line[0] * x + line[1]
        return float(np.mean(np.logaddexp(0, z) - y * z))

    best = minimize(loss, [5.0, -4.0], method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(logistic_line(x, y, ridge=0.0), best, rtol=1e-4)
    assert np.allclose(logistic_line(x, y), best, rtol=0.1)  # the ridge changes little


@pytest.mark.parametrize("labels", ["reversed", "constant", "zeros"])
def test_more_similar_segments_never_score_lower(labels: str) -> None:
    x = np.linspace(0.5, 0.9, 50)
    y = {"reversed": 1 - x, "constant": np.full(50, 0.3), "zeros": np.zeros(50)}[labels]
    slope, shift = logistic_line(x, y)
    assert slope >= 1
    assert np.isfinite(shift)
    if labels == "constant":
        assert 1 / (1 + np.exp(-(slope * x + shift))) == pytest.approx(0.3, abs=0.1)


def test_a_line_over_equal_cosines_is_finite() -> None:
    assert np.isfinite(logistic_line(np.ones(5), np.full(5, 0.5))).all()


def test_a_new_head_is_fitted_to_pairs_from_the_first_to_the_last(
    plm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transenc.models.cross.CALIBRATE", 3)
    model = CrossFamily().create(plm, compute=CPU, max_length=32, head="segments")
    pairs = make_pairs(9, scored=True)
    assert pairs.scores is not None
    labels = 1.4 * pairs.scores - 0.2  # as cosines, some are below 0
    before = model.score(pairs).astype(np.float64)
    cosines, some = np.log(before / (1 - before)), [0, 4, 8]  # of slope 1 and shift 0
    model.calibrate(model.prepare(pairs), labels)
    slope, shift = logistic_line(cosines[some], np.clip(labels[some], 0, 1))
    assert labels[some].min() < 0 < labels[some].max()
    np.testing.assert_allclose(model.score(pairs), 1 / (1 + np.exp(-(slope * cosines + shift))), atol=1e-4)


def test_scores_in_bf16_follow_a_line_that_was_fitted_after_the_first_of_them(plm: Path) -> None:
    model = CrossFamily().create(plm, compute=Compute("cpu", "bf16"), max_length=32, head="segments")
    pairs = make_pairs(9, scored=True)
    assert pairs.scores is not None
    before = model.score(pairs)
    model.calibrate(model.prepare(pairs), 0.1 * pairs.scores)
    assert (model.score(pairs) < before - 0.2).all()


def test_scoring_in_bf16_does_not_round_the_line(plm: Path) -> None:
    model = made(plm)
    assert isinstance(model.module, SegmentModel)
    with torch.no_grad():
        model.module.slope.fill_(12.03)  # between two numbers of bf16, 12 and 12.0625
        model.module.shift.fill_(-9.97)
    made_for_speed: Any = scoring_copy(model.module, Compute("cpu", "bf16"))
    assert made_for_speed.body.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    line = [made_for_speed.slope.item(), made_for_speed.shift.item()]
    assert line == pytest.approx([12.03, -9.97], abs=1e-5)


def test_it_comes_back_from_disk_and_is_known_for_a_cross_encoder(plm: Path, tmp_path: Path) -> None:
    model = made(plm)
    model.save(tmp_path / "saved")
    pairs = make_pairs(10)
    again = load_scorer(str(tmp_path / "saved"), device="cpu", precision="fp32")
    assert family_of(tmp_path / "saved") == again.family == "cross"
    np.testing.assert_allclose(again.score(pairs), model.score(pairs), atol=1e-6)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]  # what other tools can load of it
    assert "library_name: transenc" in (tmp_path / "saved" / "README.md").read_text()


def test_a_head_that_was_trained_is_kept_and_can_be_left(plm: Path, tmp_path: Path) -> None:
    model = made(plm)
    model.save(tmp_path / "saved")
    kept = CrossFamily().create(tmp_path / "saved", compute=CPU, max_length=32, head="segments")
    pairs = make_pairs(10, scored=True)
    assert pairs.scores is not None
    kept.calibrate(kept.prepare(pairs), 1 - pairs.scores)  # has no effect: it is not new
    np.testing.assert_allclose(kept.score(pairs), model.score(pairs), atol=1e-6)
    bi = BiFamily().create(tmp_path / "saved", compute=CPU, max_length=32, pooling="mean")
    bi.save(tmp_path / "bi")
    assert family_of(tmp_path / "bi") == "bi"
    torch.manual_seed(0)
    plain = CrossFamily().create(tmp_path / "saved", compute=CPU, max_length=32)
    plain.save(tmp_path / "plain")
    assert "transenc_head" not in (tmp_path / "plain" / "config.json").read_text()
    loaded = load_scorer(str(tmp_path / "plain"), device="cpu", precision="fp32")
    np.testing.assert_allclose(loaded.score(pairs), plain.score(pairs), atol=1e-6)


def test_it_learns_labels_that_its_start_cannot_tell(plm: Path, tmp_path: Path) -> None:
    pairs = make_pairs(64, scored=True)
    settings = build(
        {
            "plm": [str(plm)],
            "precision": "fp32",
            "distill": {"cross": {"head": "segments", "learning_rate": 3e-3, "epochs": 4, "batch_size": 8}},
        }
    )
    fitted = distill_to(settings, "cross", pairs, None, tmp_path / "out", device="cpu")
    scores = load_scorer(str(tmp_path / "out"), device="cpu", precision="fp32").score(pairs)
    start = made(plm).score(pairs)
    assert pairs.scores is not None
    assert np.mean((scores - pairs.scores) ** 2) < 0.7 * np.mean((start - pairs.scores) ** 2)
    assert np.isfinite(fitted.losses[-1][1])


def test_a_stopped_training_continues_to_the_same_bytes(plm: Path, tmp_path: Path) -> None:
    pairs = make_pairs(24, scored=True)
    settings = build(
        {
            "plm": [str(plm)],
            "precision": "fp32",
            "distill": {"cross": {"head": "segments", "batch_size": 8, "max_length": 32}},
        }
    )
    plain = distill_to(settings, "cross", pairs, None, tmp_path / "plain", device="cpu")
    stop = StopFlag()

    def third(progress: Any) -> None:
        if progress.done == 3:
            stop.signum = 15

    with pytest.raises(Interrupted):
        distill_to(settings, "cross", pairs, None, tmp_path / "out", device="cpu", stop=stop, report=third)
    assert distill_to(settings, "cross", pairs, None, tmp_path / "out", device="cpu") == plain
    assert content(tmp_path / "out") == content(tmp_path / "plain")


@pytest.mark.parametrize("arch", ["bert", "roberta", "mpnet", "deberta-v2"])
def test_its_engine_scores_the_same(arch: str, tmp_path: Path) -> None:
    model = made(tiny_plm(tmp_path / "plm", arch))
    report = export_onnx(model, tmp_path / "engine", pairs=make_pairs(8), optimize=True)
    assert set(report.graphs) == {"fp32", "fp32-O2"}
    pairs = make_pairs(12, seed=5)
    engine = load_scorer(str(tmp_path / "engine"))
    np.testing.assert_allclose(engine.score(pairs), model.score(pairs), atol=1e-5)


def test_bad_heads_are_named(plm: Path, tmp_path: Path) -> None:
    made(plm).save(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    config = json.loads(path.read_text())
    for broken in (
        "segments",
        {"name": "other"},
        {**config["transenc_head"], "slope": None},
        {**config["transenc_head"], "apart": {"across": 1}},
    ):
        path.write_text(json.dumps({**config, "transenc_head": broken}))
        with pytest.raises(DataError, match=r"config.json: its transenc_head cannot be used"):
            CrossFamily().load(tmp_path / "saved", compute=CPU)
    with pytest.raises(ConfigError, match="only a cross-encoder has a head"):
        build({"plm": ["x"], "distill": {"bi": {"head": "segments"}}})
    with pytest.raises(ConfigError, match="'distill.cross.head'"):
        build({"plm": ["x"], "distill": {"cross": {"head": "other"}}})


def test_a_tokenizer_without_a_separator_is_refused(plm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transenc.models.cross as module

    real = module.load_tokenizer

    def without(path: Path) -> Any:
        tokenizer = real(path)
        tokenizer.sep_token = None
        return tokenizer

    monkeypatch.setattr(module, "load_tokenizer", without)
    with pytest.raises(ConfigError, match=r"no separator.*distill\.cross\.head=classifier"):
        CrossFamily().create(plm, compute=CPU, max_length=32, head="segments")
