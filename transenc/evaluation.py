"""Measure scorers on scored pairs, with ensembles, bootstrap intervals and result files in MTEB's shape."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc.errors import DataError
from transenc.metrics import METRICS, RESAMPLES, interval, log_odds_interval, quality, resampled
from transenc.pairs import Index, Pairs, Scores
from transenc.scorer import Scorer, mean, scores_of
from transenc.store import write_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """One scorer's value on one set: metric in [-1, 1] or [0, 1], its 95% interval, and the number of pairs.

    sets: over how many sets it is an average. gain: by how much it is above the first scorer's value, with the 95%
    interval of that difference over the same pairs; None for the first.
    """

    model: str
    family: str
    task: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    sets: int = 1
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None


@dataclass(frozen=True)
class First:
    """Keep the first scorer's values and their resamples by set, which the others are compared with."""

    known: dict[tuple[str, str], tuple[float, npt.NDArray[np.float64]]] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)

    def told(self, model: str, task: str) -> bool:
        """Tell whether this was asked before; scores are warned of once, whatever the number of metrics."""
        before = (model, task) in self._told
        self._told.add((model, task))
        return before

    def gain(
        self, task: str, metric: str, value: float, resamples: npt.NDArray[np.float64], rarer: int
    ) -> dict[str, Any]:
        """Return by how much a value is above the first scorer's, with its interval; nothing for that one itself.

        rarer: distinct pairs of the rarer of two classes.
        """
        if (task, metric) not in self.known:
            self.known[task, metric] = value, resamples
            return {}
        first, others = self.known[task, metric]
        low, high = _ends(metric, resamples - others, value - first, rarer, difference=True)
        return {"gain": value - first, "gain_low": low, "gain_high": high}


def _ends(
    metric: str,
    resamples: npt.NDArray[np.float64],
    value: float,
    rarer: int,
    *,
    difference: bool = False,
) -> tuple[float, float]:
    if METRICS[metric].binary:
        return log_odds_interval(resamples, value, rarer, difference=difference)
    return interval(resamples, value)


def _units(keys: Index) -> Index | None:
    """Return the number of each distinct key; None where all are distinct."""
    distinct, numbers = np.unique(keys, return_inverse=True)
    return None if len(distinct) == len(keys) else numbers


def measure(
    model: str,
    family: str,
    sets: Mapping[str, Pairs],
    scores: Mapping[str, Scores],
    metric: str,
    *,
    group: str,
    first: First | None = None,
) -> list[Result]:
    """Compare scores with gold on every set, and average the values over the sets when there are several.

    Scores that are all equal are warned of, and their correlation counts as 0. group: the name of that average.
    first: what these scores are compared with; the first that are given with it are kept in it.
    """
    first = first or First()
    results, drawn, rarer = [], [], []
    for name, gold in sets.items():
        assert gold.scores is not None
        try:
            value = quality(metric, scores[name], gold.scores)
        except DataError as error:
            raise DataError(f"{model} on {name}: {error}") from error
        keys, ones = gold.keys(), gold.scores == 1
        rarer.append(min(len(np.unique(keys[each])) for each in (ones, ~ones)))
        if METRICS[metric].binary or scores[name].min() < scores[name].max():
            drawn.append(resampled(METRICS[metric], scores[name], gold.scores, units=_units(keys)))
        else:
            drawn.append(np.zeros(RESAMPLES))
        if scores[name].min() == scores[name].max() and not first.told(model, name):
            logger.warning(
                "%s scores all %d pairs of %s alike: nothing is told apart.", model, len(gold), name
            )
        gain = first.gain(name, metric, value, drawn[-1], rarer[-1])
        ends = _ends(metric, drawn[-1], value, rarer[-1])
        results.append(Result(model, family, name, metric, value, *ends, len(gold), **gain))
    if len(results) > 1:
        average, resamples = float(np.mean([r.value for r in results])), np.mean(drawn, axis=0)
        gain = first.gain(group, metric, average, resamples, min(rarer))
        ends, total = _ends(metric, resamples, average, min(rarer)), sum(r.n for r in results)
        results.append(Result(model, family, group, metric, average, *ends, total, sets=len(results), **gain))
    return results


def score_sets(scorer: Scorer, sets: Mapping[str, Pairs]) -> dict[str, Scores]:
    """Return a scorer's scores of every set."""
    return {name: scores_of(scorer, pairs) for name, pairs in sets.items()}


def ensemble(columns: Sequence[Mapping[str, Scores]]) -> dict[str, Scores]:
    """Average the scores of several scorers, set by set; metrics are taken afterwards."""
    return {name: mean([scores[name] for scores in columns]) for name in columns[0]}


def write_mteb(results: Sequence[Result], model: str, revision: str, out: Path) -> Path:
    """Write `<out>/<model>/<revision>/<Task>.json` and model_meta.json in MTEB's shape; return the directory.

    main_score is the Spearman of cosines (or of a cross-encoder's probabilities), not times 100.
    """
    if not Path(model).name or Path(model).name == "..":
        model = Path(model).resolve().name
    folder = out / " + ".join(map(_folder, model.split(" + "))) / revision
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()  # the first metric of a task is its main one
    for result in results:
        if result.sets > 1 or result.task in seen:
            continue
        seen.add(result.task)
        entry = {
            **{MTEB_KEYS[r.metric]: r.value for r in results if r.task == result.task},
            "main_score": result.value,
            "hf_subset": "default",
            "languages": ["eng-Latn"],
            "interval_95": [result.low, result.high],
        }
        name = MTEB_NAMES.get(result.task, result.task)
        content = {
            "dataset_revision": "local",
            "task_name": name,
            "mteb_version": None,
            "scores": {"test": [entry]},
            "evaluation_time": None,
            "kg_co2_emissions": None,
        }
        write_file(folder / f"{name}.json", (json.dumps(content, indent=2) + "\n").encode())
    meta = {"name": model, "revision": revision, "framework": ["PyTorch"], "similarity_fn_name": "cosine"}
    write_file(folder / "model_meta.json", (json.dumps(meta, indent=2) + "\n").encode())
    return folder


def _folder(model: str) -> str:
    """Return a model's name as that of one directory, which is seen by `ls` and is not another model's."""
    path = Path(model)
    path = path.resolve() if ".." in path.parts else path
    return "__".join(part for part in path.parts if part != path.anchor).lstrip(".")


MTEB_KEYS = {
    "spearman": "cosine_spearman", "pearson": "cosine_pearson", "auc": "max_auc", "average_precision": "max_ap",
}  # fmt: skip
MTEB_NAMES = {
    "sts12": "STS12", "sts13": "STS13", "sts14": "STS14", "sts15": "STS15", "sts16": "STS16",
    "stsb": "STSBenchmark", "sickr": "SICK-R",
}  # fmt: skip
