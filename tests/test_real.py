"""Real models on real data: run where TRANSENC_DATA names the files, skipped and counted elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transenc import tasks
from transenc.metrics import spearman
from transenc.models.loading import load_scorer

pytestmark = pytest.mark.skipif("TRANSENC_DATA" not in os.environ, reason="TRANSENC_DATA is not set")


def test_minilm_reaches_its_published_figure_on_the_sts_benchmark() -> None:
    gold = tasks.tests(tasks.get("stsb"), None, offline=True)["stsb"]
    scorer = load_scorer("minilm", device="cpu", precision="fp32", offline=True)
    # 82.03 is what the makers of all-MiniLM-L6-v2 and MTEB report.
    assert gold.scores is not None
    assert 100 * spearman(scorer.score(gold), gold.scores) == pytest.approx(82.03, abs=0.05)


def test_the_task_finds_its_files_by_the_environment_variable() -> None:
    path = tasks.locate(tasks.STSB_TEST, None, offline=True)
    assert Path(os.environ["TRANSENC_DATA"]) in path.parents
