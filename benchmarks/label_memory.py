"""Memory and time of `transenc label`, the whole process: N pairs over N / 10 sentences.

The model is a random encoder of one layer with minilm's 384 dimensions, since memory, not the model, is measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Row, main, minilm, sentences
from transenc.pairs import Pairs
from transenc.readers import read_pairs
from transenc.writers import write_pairs

QUICK, FULL = 100_000, 1_000_000
MOST_MIB = 2048.0


def small_model(folder: Path) -> Path:
    """Write a random one-layer BERT with minilm's tokenizer and width."""
    import torch
    from transformers import BertConfig, BertModel

    shutil.copytree(
        minilm(), folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "onnx", "openvino")
    )
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=1, num_attention_heads=6, intermediate_size=384)
    BertModel(config).save_pretrained(folder)
    return folder


def random_pairs(n: int) -> Pairs:
    """Return n random pairs over n / 10 sentences."""
    texts = sentences(max(20, n // 10))
    rng = np.random.default_rng(0)
    left = rng.integers(0, len(texts), n)
    return Pairs(texts, left, (left + rng.integers(1, len(texts), n)) % len(texts))


def label(model: Path, pairs: Path, out: Path) -> tuple[float, float, str]:
    """Run the command; return its seconds, its peak memory in MiB and what it said last on stderr."""
    command = [sys.executable, "-m", "transenc", "label", "--teacher", str(model), "--pairs", str(pairs)]
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [*command, "--out", str(out), "--offline"], stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read().decode().strip().splitlines()
    if child.returncode:
        raise RuntimeError(f"transenc label failed: {said[-1:]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, said[-1] if said else ""


def run(size: int) -> list[Row]:
    """Label `size` pairs, and 100 of them to know what the program and its model take."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = small_model(folder / "model")
        pairs = random_pairs(size)
        write_pairs(pairs, folder / "all.parquet")
        write_pairs(pairs.take(slice(100)), folder / "few.parquet")
        _, base, _ = label(model, folder / "few.parquet", folder / "few-out.parquet")
        seconds, peak, said = label(model, folder / "all.parquet", folder / "all-out.parquet")
        few = read_pairs(folder / "few-out.parquet", scores="required").scores
        labelled = read_pairs(folder / "all-out.parquet", scores="required").scores
        assert few is not None
        assert labelled is not None
        same = np.abs(labelled[:100] - few).max()
    what = f"label {size:,} pairs over {len(pairs.sentences):,} sentences: memory above the program and its model"
    agreement = (
        f"the first 100 labelled alone differ by {same:.1e}; {len(labelled):,} labels, {seconds:.0f} s, "
        f"peak {peak:,.0f} MiB" + (f"; last notice: {said}" if said else "")
    )
    return [Row(what, "MiB", peak - base, agreement, less=True, most=MOST_MIB)]


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
