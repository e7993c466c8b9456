"""A segment head in sentence-transformers' CrossEncoder (docs/files.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_pairs
from tests.test_segments import made
from tests.tiny import ARCHITECTURES, tiny_plm
from transenc.errors import ConfigError
from transenc.export.onnx import export_onnx
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.models.intake import resolve
from transenc.models.segments import SegmentModel
from transenc.pairs import Pairs

CPU = Compute("cpu", "fp32")


def peer(path: Path, **options: Any) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(path), device="cpu", trust_remote_code=True, local_files_only=True, **options)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_cross_encoder_scores_as_transenc_does(arch: str, tmp_path: Path) -> None:
    model = made(tiny_plm(tmp_path / "plm", arch))
    model.save(tmp_path / "saved")
    theirs = peer(tmp_path / "saved")
    assert theirs.max_seq_length == model.transformer.max_length == 32
    long = Pairs.from_rows(["a man is running " * 20, "one"], ["two dogs eat", "a guitar " * 30])
    for pairs in (make_pairs(20, seed=2), long):
        np.testing.assert_allclose(theirs.predict(list(pairs.rows())), model.score(pairs), atol=5e-6)
    one = next(pairs.rows())
    assert theirs.predict(one) == pytest.approx(model.score(pairs)[0], abs=5e-6)


def test_code_is_imported_only_where_the_caller_allows_it(plm: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    made(plm).save(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"transenc\.models\.sbert\.SegmentScorer.*(?s:.)*trust_remote_code"):
        CrossEncoder(str(tmp_path / "saved"), device="cpu")


def test_what_was_trained_there_scores_the_same_here(plm: Path, tmp_path: Path) -> None:
    made(plm).save(tmp_path / "saved")
    theirs = peer(tmp_path / "saved")
    before = theirs.predict([("a man is running", "a man runs")])
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    scores = theirs(theirs.preprocess([("a man is running", "a man runs")]))["scores"]
    scores.sum().backward()
    assert all(p.grad is not None for p in (theirs[0].model.slope, theirs[0].model.shift))
    optimizer.step()
    theirs.save_pretrained(str(tmp_path / "trained"))
    pairs = make_pairs(20, seed=2)
    after = theirs.predict(list(pairs.rows()))
    assert abs(theirs.predict([("a man is running", "a man runs")]) - before).item() > 1e-3
    ours = CrossFamily().load(tmp_path / "trained", compute=CPU)
    assert isinstance(ours.module, SegmentModel)
    np.testing.assert_allclose(ours.score(pairs), after, atol=5e-6)
    np.testing.assert_allclose(peer(tmp_path / "trained").predict(list(pairs.rows())), after, atol=1e-6)


def test_options_of_the_peer(plm: Path, tmp_path: Path) -> None:
    made(plm).save(tmp_path / "saved")
    half = peer(tmp_path / "saved", model_kwargs={"dtype": "bfloat16"})
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    rows = list(make_pairs(20, seed=2).rows())
    np.testing.assert_allclose(half.predict(rows), peer(tmp_path / "saved").predict(rows), atol=0.05)
    with pytest.raises(ConfigError, match="not for 'onnx'.*export onnx"):
        peer(tmp_path / "saved", backend="onnx")
    with pytest.raises(ConfigError, match="leave out the prompt"):
        half.predict(rows, prompt="query: ")


def test_a_directory_of_another_head_is_refused(plm: Path, tmp_path: Path) -> None:
    model = made(plm)
    model.save(tmp_path / "saved")
    CrossFamily().create(plm, compute=CPU, max_length=16).save(tmp_path / "plain")
    for name in ("modules.json", "config_sentence_transformers.json"):
        (tmp_path / "plain" / name).write_bytes((tmp_path / "saved" / name).read_bytes())
    with pytest.raises(ConfigError, match="has no segment head"):
        peer(tmp_path / "plain")


def test_it_is_a_start_like_any_other_and_its_engine_needs_no_code(plm: Path, tmp_path: Path) -> None:
    model = made(plm)
    model.save(tmp_path / "saved")
    assert not resolve(str(tmp_path / "saved")).tuned
    export_onnx(model, tmp_path / "engine", pairs=make_pairs(20, seed=2))
    assert not (tmp_path / "engine" / "modules.json").exists()
    assert not (tmp_path / "engine" / "config_sentence_transformers.json").exists()
