"""Encoding, scoring and training on a GPU, beside sentence-transformers, and the share of the card's matrix rate.

Encoders of random weights in the sizes of MiniLM-L6, BERT-base and BERT-large: they are as fast as
trained ones.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peers, train_bi, train_cross
from benchmarks.common import Row, in_turn, machine, minilm, pairs, sentences, show, spearman
from benchmarks.limits import matrix_rate, products, share
from benchmarks.training import compete, student
from transenc.config import Distill
from transenc.models.device import Compute


@dataclass(frozen=True)
class Size:
    """An encoder's shape, and how much it is given to encode and to train on."""

    name: str
    layers: int
    width: int
    ffn: int
    heads: int
    sentences: int
    pairs: int


SIZES = (
    Size("MiniLM-L6", 6, 384, 1536, 12, 16_384, 2_048),
    Size("BERT-base", 12, 768, 3072, 12, 8_192, 1_024),
    Size("BERT-large", 24, 1024, 4096, 16, 4_096, 512),
)


def build(size: Size, tokenizer: Path, path: Path) -> Path:
    """Write an encoder of random weights with the tokenizer of another model."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(loaded),
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.ffn,
    )
    BertModel(config).save_pretrained(path)
    loaded.save_pretrained(path)
    return path


def inference(size: Size, path: Path, compute: Compute) -> list[Row]:
    """Encode sentences and score pairs with a cross-encoder, each way."""
    rows: list[Row] = []
    texts = sentences(size.sentences)
    given = pairs(size.sentences // 2).with_scores(None)
    text_pairs = list(given.rows())

    def bi(precision: str) -> Callable[[], Any]:
        model = student("bi", Distill().bi, Compute(compute.device, precision), path)
        return lambda: model.encode(texts)

    def cross(precision: str) -> Callable[[], Any]:
        model = student("cross", Distill().cross, Compute(compute.device, precision), path)
        return lambda: model.score(given)

    def peer_bi(precision: str) -> Callable[[], Any]:
        model = peers.bi(path, device=compute.device, precision=precision, max_length=Distill().bi.max_length)
        return lambda: model.encode(texts)

    def peer_cross(precision: str) -> Callable[[], Any]:
        length = Distill().cross.max_length
        torch.manual_seed(0)
        model = peers.cross(path, device=compute.device, precision=precision, max_length=length)
        return lambda: model.predict(text_pairs)

    for what, ours, theirs, n, units, encoded in (
        ("encode", bi, peer_bi, len(texts), "sentences/s", texts),
        ("cross-score", cross, peer_cross, len(given), "pairs/s", text_pairs),
    ):
        work = {"ours": ours("bf16"), "fp32": ours("fp32"), "bf16": theirs("bf16"), "default": theirs("fp32")}
        seconds, results = in_turn(work)
        family = "bi" if what == "encode" else "cross"
        model = student(family, getattr(Distill(), family), compute, path)
        counts = model.transformer.tokens(encoded).lengths
        operations = products(model.transformer.module.config, counts, first=model.head.first)
        used = share(compute, operations, seconds["ours"])
        if what == "encode":
            mine, plain = ((results[k][:-1] * results[k][1:]).sum(1) for k in ("ours", "fp32"))
        else:
            mine, plain = results["ours"], results["fp32"]
        agreement = (
            f"{counts.mean():.1f} tokens each; {used}; against its fp32: Spearman "
            f"{spearman(mine, plain):.5f}, largest difference {np.abs(mine - plain).max():.1e}"
        )
        rows += beside(f"{what}, {size.name}, {n:,}", units, n, seconds, agreement)
    return rows


def training(size: Size, path: Path, compute: Compute) -> list[Row]:
    """Train one epoch of both families, each way."""
    rows: list[Row] = []
    given = pairs(size.pairs)
    for family, theirs in (("bi", train_bi), ("cross", train_cross)):
        settings = theirs.SETTINGS
        seconds, results, used = compete(
            family, settings, given, compute, partial(theirs.peer, path=path), theirs.train,
            peers={"bf16": True, "default": False}, path=path,
        )  # fmt: skip
        agreement = (
            f"{used}; mean loss {results['ours'][1]:.4f} against {results['default'][1]:.4f} "
            "(other orders and dropout)"
        )
        text = f"train {family}, {size.name}, {len(given):,} pairs, batch {settings.batch_size}"
        rows += beside(text, "pairs/s", len(given), seconds, agreement)
    return rows


def beside(text: str, unit: str, n: int, seconds: Mapping[str, float], agreement: str) -> list[Row]:
    """Return the rows of our seconds for n things beside the peer's, in bf16 and at its defaults."""
    peer = "sentence-transformers"
    return [
        Row(text, unit, n / seconds["ours"], agreement, n / seconds[side], f"{peer} {how}")
        for side, how in (("bf16", "in bf16"), ("default", "at its defaults"))
    ]


def main() -> None:
    """Print every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, help="directory of the tokenizer (that of minilm)")
    parser.add_argument("--shrink", type=int, default=1, help="divide all amounts, for a trial")
    parser.add_argument("--sizes", default=",".join(size.name for size in SIZES))
    arguments = parser.parse_args()
    compute = Compute.choose(precision="bf16")
    rate = matrix_rate(compute) / 1e12
    print(machine()["GPU"], f"bf16 matrix product {rate:.0f} TFLOP/s", flush=True)
    for size in SIZES:
        if size.name not in arguments.sizes.split(","):
            continue
        fewer = Size(
            size.name, size.layers, size.width, size.ffn, size.heads,
            size.sentences // arguments.shrink, size.pairs // arguments.shrink,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = build(fewer, arguments.tokenizer or minilm(), Path(folder))
            show(inference(fewer, path, compute))
            show(training(fewer, path, compute))


if __name__ == "__main__":
    main()
