"""Rewrite the sentences of gold pairs and copy their labels (Augmented SBERT, scenario 1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transenc import registry
from transenc.augmenters import Augmenter, Fill, generators
from transenc.errors import DataError
from transenc.interrupt import StopFlag
from transenc.pairs import Pairs, join, without
from transenc.progress import Progress
from transenc.store import Checkpoints, hash_file

SHARD = 500  # sentences between two looks at signals


def augment_sentences(
    sentences: Sequence[str],
    specs: Sequence[str],
    *,
    copies: int = 1,
    seed: int,
    fill_of: Callable[[str], Fill] | None = None,
    shard: int = SHARD,
    checkpoints: Checkpoints | None = None,
    stop: StopFlag | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    stage: str = "augment",
) -> list[list[str]]:
    """Return the rewritten sentences, a list as long as `sentences` for each augmenter and copy, in this order.

    fill_of: loads the masked language model of a name, or of the run's start for an empty one. Work goes in shards
    of fixed bounds that a stopped process continues between.
    """
    passes = [(spec, copy) for spec in specs for copy in range(copies)]
    done: list[list[str]] = [[]]
    latest = checkpoints.latest() if checkpoints else None
    if latest is not None:
        done = json.loads((latest / "sentences.json").read_text(encoding="utf-8"))
    total = len(passes) * len(sentences)
    built = {spec: registry.create(registry.AUGMENTERS, spec) for spec in specs}
    fills: dict[str, Fill] = {}
    for number, (spec, copy) in enumerate(passes):
        if number < len(done) - 1:
            continue
        augmenter: Augmenter = built[spec]
        fill = None
        if getattr(augmenter, "needs_model", False) and fill_of is not None:
            name = str(getattr(augmenter, "model", ""))
            if name not in fills:
                fills[name] = fill_of(name)
            fill = fills[name]
        while len(done[-1]) < len(sentences):
            start = len(done[-1])
            part = sentences[start : start + shard]
            rngs = generators(seed, f"{spec} {copy}", start, len(part))
            with registry.blaming(f"The augmenter '{spec}'", registry.package_of(augmenter)):
                found = list(augmenter.augment(part, rngs, fill=fill))
            # Else labels would go to other sentences.
            if len(found) != len(part) or not all(isinstance(sentence, str) for sentence in found):
                raise DataError(
                    f"The augmenter '{spec}' made {len(found)} sentences of {len(part)}, not one of each."
                )
            done[-1] += found
            count = number * len(sentences) + len(done[-1])
            report(Progress(stage, count, total))
            if checkpoints is not None and stop is not None and stop.requested and count < total:
                checkpoints.save(count, _writer(done))
            if stop is not None and count < total:
                stop.check()
        if number + 1 < len(passes):
            done.append([])
            if checkpoints is not None:
                checkpoints.save((number + 1) * len(sentences), _writer(done))
    return done if passes else []


def _writer(done: list[list[str]]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / "sentences.json").write_text(json.dumps(done, ensure_ascii=False), encoding="utf-8")

    return write


def augmented_pairs(gold: Pairs, rewritten: Sequence[Sequence[str]]) -> tuple[Pairs, dict[str, int]]:
    """Return gold's pairs with rewritten sentences and gold's labels, and how many of them were left out and why.

    A pair is left out when nothing in it changed, when it is a gold pair, or when it was there before.
    """
    parts, unchanged = [], 0
    for sentences in rewritten:
        first, second = ([sentences[i] for i in side] for side in (gold.left, gold.right))
        part = Pairs.from_rows(first, second, gold.scores if gold.scores is None else gold.scores.tolist())
        changed = [row != old for row, old in zip(part.rows(), gold.rows(), strict=True)]
        unchanged += len(part) - sum(changed)
        parts.append(part.take(np.flatnonzero(changed)))
    every = join(parts)
    fresh, known = without(every, [gold])
    unique = fresh.unique()
    return unique, {
        "made": len(unique),
        "unchanged": unchanged,
        "already_gold": known,
        "repeated": len(fresh) - len(unique),
    }


def outside_files(specs: Sequence[str]) -> dict[str, Any]:
    """Return, for each augmenter, its package and the hashes of the files outside the run that decide its result.

    Raise DataError for a file that is missing.
    """
    found: dict[str, Any] = {}
    for spec in specs:
        augmenter = registry.create(registry.AUGMENTERS, spec)
        files: list[Path] = getattr(augmenter, "files", list)()
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]}: no such file; '{spec}' needs it (transenc backends lists the options)."
            )
        found[spec] = {
            "owner": list(registry.owner(registry.AUGMENTERS, registry.parse_spec(spec)[0])),
            "files": [hash_file(path) for path in files],
        }
    return found
