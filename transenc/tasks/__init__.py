"""The data of tasks: test and development pairs, pools, corpora, and users' own scored files in their place."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from transenc.errors import ConfigError, DataError
from transenc.metrics import metric_for
from transenc.pairs import Pairs, join, without
from transenc.readers import SkipBad, read_pairs, read_sentences
from transenc.registry import did_you_mean
from transenc.tasks.declared import GOLD, STS12, STSB_DEV, STSB_TEST, TASKS, File, Hub, Task
from transenc.tasks.files import from_hub, local, locate, read

__all__ = [
    "GOLD", "STS12", "STSB_DEV", "STSB_TEST", "TASKS", "File", "Hub", "Task", "corpus", "dev", "development",
    "evaluation", "from_hub", "get", "gold", "locate", "names", "pool", "scored_file", "tests",
]  # fmt: skip

logger = logging.getLogger(__name__)


def gold(name: str, data: Path | None, *, offline: bool = False) -> Pairs:
    """Read the scored pairs of a name in GOLD, scores mapped to [0, 1]."""
    return read(GOLD[name], data, offline=offline)


def names() -> list[str]:
    """List the tasks."""
    return list(TASKS)


def get(name: str) -> Task:
    """Return a task; raise ConfigError naming the known ones."""
    if name not in TASKS:
        raise ConfigError(
            f"No task named '{name}'.{did_you_mean(name, names())} Known: {', '.join(names())}."
        )
    return TASKS[name]


def dev(task: Task, data: Path | None, *, offline: bool = False) -> Pairs:
    """Read the development pairs, scores mapped to [0, 1]."""
    return read(task.dev, data, offline=offline)


def tests(task: Task, data: Path | None, *, offline: bool = False) -> dict[str, Pairs]:
    """Read the test pairs of the task, or of each member of a group, scores mapped to [0, 1].

    The subsets of one year are one list, so a metric over it is the field's "all" aggregation; the value of a
    group is the mean over its members.
    """
    return {name: read(file, data, offline=offline) for name, file in _test_files(task)}


def evaluation(
    given: Sequence[str],
    data: Path | None,
    *,
    offline: bool = False,
    skip_bad: SkipBad | None = None,
    columns: Sequence[str] = (),
) -> tuple[dict[str, Pairs], dict[str, str]]:
    """Read the test pairs of tasks and of scored files, and the name of the metric of each set.

    skip_bad, columns: of the scored files; those of tasks are strict.
    """
    sets: dict[str, Pairs] = {}
    metrics: dict[str, str] = {}
    files: dict[str, Path] = {}
    for name in given:
        if name in TASKS:
            found = tests(TASKS[name], data, offline=offline)
            metric: str = TASKS[name].metric
        else:
            pairs, metric = scored_file(name, skip_bad=skip_bad, columns=columns)
            path = Path(name)
            if path.name in sets and files.get(path.name) != path:
                raise ConfigError(
                    f"{path} and {files.get(path.name, 'a task')} would both be called '{path.name}' in the results; "
                    "rename one of them."
                )
            found, files[path.name] = {path.name: pairs}, path
        sets |= found
        metrics |= dict.fromkeys(found, metric)
    return sets, metrics


def development(
    given: str,
    data: Path | None,
    *,
    offline: bool = False,
    skip_bad: SkipBad | None = None,
    columns: Sequence[str] = (),
) -> tuple[Pairs, str]:
    """Read the development pairs of a task, or a scored file, and return them with their metric.

    skip_bad, columns: of the scored file; those of tasks are strict.
    """
    if given in TASKS:
        return dev(TASKS[given], data, offline=offline), TASKS[given].metric
    return scored_file(given, skip_bad=skip_bad, columns=columns)


def scored_file(
    given: str,
    *,
    score_range: tuple[float, float] | None = None,
    skip_bad: SkipBad | None = None,
    columns: Sequence[str] = (),
) -> tuple[Pairs, str]:
    """Read one's own scored pairs; all gold being 0 or 1, their metric is auc, else spearman."""
    path = Path(given)
    if not path.exists() and not path.suffix:
        get(given)  # a name without a file is a task misspelt, and is answered as such
    pairs = read_pairs(path, scores="required", score_range=score_range, skip_bad=skip_bad, columns=columns)
    assert pairs.scores is not None
    return pairs, metric_for(pairs.scores)


def corpus(task: Task, data: Path | None, *, offline: bool = False) -> list[str]:
    """Read the unlabelled sentences of a task that has some."""
    if task.corpus is None:
        having = ", ".join(name for name, other in TASKS.items() if other.corpus)
        raise ConfigError(f"Task '{task.name}' has no corpus; give --corpus FILE. Tasks with one: {having}.")
    return read_sentences([locate(task.corpus, data, offline=offline)])


def pool(task: Task, data: Path | None, *, inductive: bool = False, offline: bool = False) -> Pairs:
    """Read or put together the unlabelled training pairs of a task.

    inductive: drop every pair that also occurs, in either order, in the task's development or test files; how
    many is logged (`without` returns it).
    """
    if not task.pool:
        having = ", ".join(name for name, other in TASKS.items() if other.pool)
        raise ConfigError(f"Task '{task.name}' has no pairs to train on. Tasks with some: {having}.")
    found = _pool(task, data, offline=offline)
    if inductive:
        evaluation = [dev(task, data, offline=offline), *tests(task, data, offline=offline).values()]
        found, dropped = without(found, evaluation)
        logger.info("%s: %d pool pairs dropped since they are evaluation pairs", task.name, dropped)
        if not len(found):
            raise DataError(f"Every pair of the pool of '{task.name}' is an evaluation pair; none is left.")
    return found


def _test_files(task: Task) -> Iterator[tuple[str, File]]:
    if isinstance(task.test, File):
        yield task.name, task.test
    else:
        for member in task.test:
            yield from _test_files(get(member))


def _pool(task: Task, data: Path | None, *, offline: bool) -> Pairs:
    *better, last = task.pool
    for files in better:
        if all(local(file, data) for file in files):
            logger.info("%s: the pool is %s", task.name, ", ".join(file.name for file in files))
            return join([read(file, data, scored=False, offline=offline) for file in files])
    files = tuple(file for file in last if file.hub or local(file, data))
    found = join([read(file, data, scored=False, offline=offline) for file in files])
    # Repetitions go, other orders stay, as in the reference (src/data.py compares sentence1 + sentence2).
    _, first = np.unique(found.left * len(found.sentences) + found.right, return_index=True)
    found = found.take(np.sort(first))
    parts = ", ".join(file.name for file in files)
    missing = ", ".join(file.name for way in better for file in way)
    logger.log(
        logging.WARNING if better else logging.INFO,
        "%s: the pool is the %d different pairs of %s%s",
        *(task.name, len(found), parts, f", for want of {missing}" if better else ""),
    )
    return found
