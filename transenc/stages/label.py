"""Label pairs with a scorer, shard by shard, so that a killed run continues where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transenc.interrupt import StopFlag
from transenc.pairs import Pairs, Scores, cosines
from transenc.progress import Progress
from transenc.scorer import Scorer, encoder_of, scores_of
from transenc.store import Checkpoints

Rows = npt.NDArray[np.float32]

CHECKPOINT_SECONDS = 60.0


def score_pairs(
    scorer: Scorer,
    pairs: Pairs,
    *,
    shard: int = 2_000,
    checkpoints: Checkpoints | None = None,
    stop: StopFlag | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    stage: str = "label",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Scores:
    """Return a scorer's score of every pair, in shards of fixed bounds that a stopped process continues between.

    A bi-encoder gives a vector to each distinct sentence once; other scorers judge the pairs themselves.
    """
    encode = encoder_of(scorer) if scorer.family == "bi" else None
    if encode is None:

        def judge(start: int, end: int) -> Rows:
            return scores_of(scorer, pairs.take(slice(start, end)))

        return _in_shards(len(pairs), judge, shard, checkpoints, stop, report, stage, checkpoint_seconds)

    pairs = pairs.take(slice(None))  # narrows the sentences to those that occur

    def vectors_of(start: int, end: int) -> Rows:
        return encode(list(pairs.sentences[start:end]))

    vectors = _in_shards(
        len(pairs.sentences), vectors_of, shard, checkpoints, stop, report, stage, checkpoint_seconds
    )
    return cosines(vectors, pairs.left, pairs.right)


def _in_shards(
    n: int,
    work: Callable[[int, int], Rows],
    shard: int,
    checkpoints: Checkpoints | None,
    stop: StopFlag | None,
    report: Callable[[Progress], None],
    stage: str,
    checkpoint_seconds: float,
) -> Rows:
    rows = np.zeros(0, np.float32)
    done = 0

    def keep(part: Rows) -> None:
        nonlocal rows, done
        if done == 0:  # one array for all of them: joining shards would hold every row twice
            rows = np.empty((n, *part.shape[1:]), np.float32)
        rows[done : done + len(part)] = part
        done += len(part)

    latest = checkpoints.latest() if checkpoints else None
    if latest is not None:
        for part in _read_shards(latest, shard):
            keep(part)
    last_checkpoint = time.monotonic()
    while done < n:
        keep(work(done, min(done + shard, n)))
        report(Progress(stage, done, n))
        stopping = stop is not None and stop.requested
        due = stopping or done == n or time.monotonic() - last_checkpoint >= checkpoint_seconds
        if checkpoints is not None and n > shard and due:
            checkpoints.save(done, _writer(rows[:done], done))
            last_checkpoint = time.monotonic()
        if stop is not None and done < n:
            stop.check()
    return rows


def _writer(rows: Rows, done: int) -> Callable[[Path], None]:
    from safetensors.numpy import save_file

    def write(path: Path) -> None:
        save_file({"rows": np.ascontiguousarray(rows)}, path / "rows.safetensors")
        (path / "state.json").write_text(json.dumps({"done": done}), encoding="utf-8")

    return write


def _read_shards(path: Path, shard: int) -> Iterator[Rows]:
    """Yield the rows of a checkpoint shard by shard: whole, it would be in memory beside the array for all rows."""
    from safetensors import safe_open

    done = int(json.loads((path / "state.json").read_text(encoding="utf-8"))["done"])
    with safe_open(path / "rows.safetensors", framework="numpy") as file:
        rows = file.get_slice("rows")
        for start in range(0, done, shard):
            yield rows[start : min(start + shard, done)]
