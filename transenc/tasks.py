"""Benchmarks as declarations: to add one is to add an entry to TASKS.

A file is looked for in the package, in `--data DIR`, in the directory TRANSENC_DATA names, and on the hub.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from transenc.errors import ConfigError, DataError
from transenc.metrics import metric_for
from transenc.pairs import Pairs, join, plain
from transenc.readers import SkipBad, read_pairs, read_sentences
from transenc.registry import did_you_mean

logger = logging.getLogger(__name__)

FOLDERS = ("", "sts", "binary")  # where a file may lie in a data directory


@dataclass(frozen=True)
class Hub:
    """Where the hub keeps a file's content, at a fixed revision, and how it differs from ours.

    columns: its names of the two sides and the score. score_range: its scores for 0 and 1; None: as File's.
    rows: the rows that are this file, from and to (None: the end). note: said when it is used.
    """

    repo: str
    revision: str
    path: str
    columns: tuple[str, ...] = ()
    score_range: tuple[float, float] | None = None
    rows: tuple[int, int | None] = (0, None)
    note: str = ""


@dataclass(frozen=True)
class File:
    """One file of a task: its name, the scores for 0 and 1 (None: unscored), its place on the hub."""

    name: str
    score_range: tuple[float, float] | None = (0, 5)
    hub: Hub | None = None


@dataclass(frozen=True)
class Task:
    """A benchmark.

    test: its scored test pairs, or for a group of tasks the names of its members.
    dev: scored pairs for choosing models. metric: a name of METRICS.
    symmetric: whether (a, b) and (b, a) mean the same.
    pool: ways to have the unlabelled training pairs, the best first, each a list of files. A way is taken if
    all its files are local, the last one in any case, less the files that are neither local nor on the hub.
    corpus: unlabelled sentences to mine pairs from, in place of a pool.
    note: what readers of its results must know.
    """

    name: str
    title: str
    test: File | tuple[str, ...]
    dev: File
    metric: Literal["spearman", "auc"] = "spearman"
    symmetric: bool = True
    pool: tuple[tuple[File, ...], ...] = ()
    corpus: File | None = None
    note: str = ""


def _mteb(name: str, revision: str, path: str = "test.jsonl.gz", note: str = "") -> Hub:
    return Hub(f"mteb/{name}-sts", revision, path, note=note)  # the revisions that MTEB itself pins


def _glue(path: str, *columns: str, rows: tuple[int, int | None] = (0, None), note: str = "") -> Hub:
    # GLUE's QNLI has 0 for entailment, hence its range from 1 to 0.
    turned = (1.0, 0.0) if path.startswith("qnli") else None
    revision = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
    return Hub("nyu-mll/glue", revision, f"{path}-00000-of-00001.parquet", columns, turned, rows, note)


_STS12 = "a0d554a64d88156834ff5ae9920b964011b16384"
_STSB = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"
_QNLI = ("question", "sentence", "label")
_QQP = ("question1", "question2", "label")
_SICK = "the hub's SICK-R is all 9,927 pairs, as in MTEB, not the 4,927 of the official test part"
_MRPC = "GLUE's MRPC has 3,668 train and 408 dev pairs, another cut than the official 4,076"

STS12 = File("sts12-test.tsv", hub=_mteb("sts12", _STS12))
STS13 = File("sts13-test.tsv", hub=_mteb("sts13", "7e90230a92c190f1bf69ae9002b8cea547a64cca"))
STS14 = File("sts14-test.tsv", hub=_mteb("sts14", "6031580fec1f6af667f0bd2da0a551cf4f0b2375"))
STS15 = File("sts15-test.tsv", hub=_mteb("sts15", "ae752c7c21bf194d8b67fd573edf7ae58183cbe3"))
STS16 = File("sts16-test.tsv", hub=_mteb("sts16", "4d8694f8f0e0100860b497b999b3dbed754a0513"))
STSB_TEST = File("stsb-test.tsv", hub=_mteb("stsbenchmark", _STSB))
STSB_DEV = File("stsb-dev.tsv", hub=_mteb("stsbenchmark", _STSB, "validation.jsonl.gz"))
SICKR = File("sickr-test.tsv", (1, 5), _mteb("sickr", "20a6d6f312dd54037fe07a32d58e5e168867909d", note=_SICK))
MRPC_TRAIN = File("mrpc-train.tsv", (0, 1), _glue("mrpc/train", note=_MRPC))
MRPC_DEV = File("mrpc-dev.tsv", (0, 1), _glue("mrpc/validation", note=_MRPC))
MRPC_TEST = File("mrpc-test.tsv", (0, 1), _glue("mrpc/test"))
# The published cut of GLUE's development part: the first 1,000 choose models, the rest measures them.
QNLI_DEV = File("qnli-dev.tsv", (0, 1), _glue("qnli/validation", *_QNLI, rows=(0, 1000)))
QNLI_TEST = File("qnli-test.tsv", (0, 1), _glue("qnli/validation", *_QNLI, rows=(1000, None)))
QNLI_UNLABELLED = File("qnli-unlabelled.tsv", None, _glue("qnli/test", *_QNLI))
# GLUE's development part is cut as QNLI's; the paper takes its pairs from another release of the same questions.
QQP_NOTE = "the rows are the first ones of GLUE's parts, not those of the paper, whose release is another"
QQP_TRAIN = File("qqp-train.tsv", (0, 1), _glue("qqp/train", *_QQP, rows=(0, 10_000), note=QQP_NOTE))
QQP_DEV = File("qqp-dev.tsv", (0, 1), _glue("qqp/validation", *_QQP, rows=(0, 1000)))
QQP_TEST = File("qqp-test.tsv", (0, 1), _glue("qqp/validation", *_QQP, rows=(1000, 11_000)))
SICKR_TRIAL, SICKR_TRAIN = File("sickr-trial.tsv", (1, 5)), File("sickr-train.tsv", (1, 5))

STS_PARTS = (
    *(STS12, STS13, STS14, STS15, STS16, STSB_TEST, STSB_DEV, SICKR),
    File("stsb-train.tsv", hub=_mteb("stsbenchmark", _STSB, "train.jsonl.gz")),
    File("sts12-train.tsv", hub=_mteb("sts12", _STS12, "train.jsonl.gz")),
    *(SICKR_TRAIN, SICKR_TRIAL),
)
STS_POOL = ((File("transenc-pool.tsv", None),), STS_PARTS)
STS_NOTE = "transductive, as published: the pool holds the test pairs, without scores"


def _sts(name: str, title: str, test: File | tuple[str, ...]) -> Task:
    return Task(name, title, test, STSB_DEV, pool=STS_POOL, note=STS_NOTE)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _sts(
            "sts",
            "STS12-16, STS-B and SICK-R, and their average",
            ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"),
        ),
        _sts("sts12", "SemEval 2012 similarity, all subsets joined", STS12),
        _sts("sts13", "SemEval 2013 similarity without SMT, all subsets joined", STS13),
        _sts("sts14", "SemEval 2014 similarity, all subsets joined", STS14),
        _sts("sts15", "SemEval 2015 similarity, all subsets joined", STS15),
        _sts("sts16", "SemEval 2016 similarity, all subsets joined", STS16),
        _sts("stsb", "STS Benchmark", STSB_TEST),
        Task(
            "sickr",
            "SICK relatedness, with its own pairs and trial part",
            SICKR,
            SICKR_TRIAL,
            pool=((SICKR_TRAIN, SICKR_TRIAL, SICKR),),
            note=STS_NOTE,
        ),
        Task(
            "mrpc",
            "Microsoft paraphrases: do two news sentences say the same?",
            MRPC_TEST,
            MRPC_DEV,
            "auc",
            pool=((MRPC_TRAIN, MRPC_DEV, MRPC_TEST),),
            note="transductive, as published; 751 of 1,725 test pairs also occur in STS12's training part",
        ),
        Task(
            "qnli",
            "Does a sentence answer a question?",
            QNLI_TEST,
            QNLI_DEV,
            "auc",
            symmetric=False,
            pool=((QNLI_DEV, QNLI_TEST, QNLI_UNLABELLED),),
            note="transductive, as published; the 10,000 training questions of the paper are not in the pool",
        ),
        Task(
            "qqp",
            "Do two questions ask the same?",
            QQP_TEST,
            QQP_DEV,
            "auc",
            pool=((QQP_TRAIN, QQP_DEV, QQP_TEST),),
            note="transductive, as published: the pool holds the test pairs, without labels",
        ),
        Task(
            "demo",
            "support messages of a fictional service; needs no download",
            File("demo/test.tsv"),
            File("demo/dev.tsv"),
            corpus=File("demo/corpus.txt", None),
            note="written and scored for this project by one author; not for ranking models",
        ),
    )
}

# Scored files that can be trained on as gold, by name.
GOLD: dict[str, File] = {
    file.name.removesuffix(".tsv").replace("/", "-"): file
    for file in (
        *(f for f in STS_PARTS if f.name.endswith(("-train.tsv", "-trial.tsv"))),
        *(STSB_DEV, MRPC_TRAIN, MRPC_DEV, QNLI_DEV, File("demo/dev.tsv")),
    )
}


def gold(name: str, data: Path | None, *, offline: bool = False) -> Pairs:
    """Read the scored pairs of a name in GOLD, scores mapped to [0, 1]."""
    return _read(GOLD[name], data, offline=offline)


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


def locate(file: File, data: Path | None, *, offline: bool = False) -> Path:
    """Return where a file lies, downloading it at need; raise DataError that says how to provide it."""
    return _find(file, data, offline=offline)[0]


def dev(task: Task, data: Path | None, *, offline: bool = False) -> Pairs:
    """Read the development pairs, scores mapped to [0, 1]."""
    return _read(task.dev, data, offline=offline)


def tests(task: Task, data: Path | None, *, offline: bool = False) -> dict[str, Pairs]:
    """Read the test pairs of the task, or of each member of a group, scores mapped to [0, 1].

    The subsets of one year are one list, so a metric over it is the field's "all" aggregation; the value of a
    group is the mean over its members.
    """
    return {name: _read(file, data, offline=offline) for name, file in _test_files(task)}


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


def without(pairs: Pairs, evaluation: Sequence[Pairs]) -> tuple[Pairs, int]:
    """Drop and count the pairs that occur in the others, whatever their order, case and punctuation."""
    held = {key for other in evaluation for key in _keys(other)}
    kept = np.array([key not in held for key in _keys(pairs)], bool)
    return pairs.take(np.flatnonzero(kept)), int(len(pairs) - kept.sum())


def shared(pairs: Pairs, evaluation: Pairs) -> int:
    """Count the evaluation pairs that occur among the pairs, whatever their order, case and punctuation."""
    held = set(_keys(pairs))
    return sum(key in held for key in _keys(evaluation))


def _keys(pairs: Pairs) -> Iterator[tuple[str, str]]:
    keys = [plain(sentence) for sentence in pairs.sentences]
    for i, j in zip(pairs.left, pairs.right, strict=True):
        yield (keys[i], keys[j]) if keys[i] <= keys[j] else (keys[j], keys[i])


def _test_files(task: Task) -> Iterator[tuple[str, File]]:
    if isinstance(task.test, File):
        yield task.name, task.test
    else:
        for member in task.test:
            yield from _test_files(get(member))


def _pool(task: Task, data: Path | None, *, offline: bool) -> Pairs:
    *better, last = task.pool
    for files in better:
        if all(_local(file, data) for file in files):
            logger.info("%s: the pool is %s", task.name, ", ".join(file.name for file in files))
            return join([_read(file, data, scored=False, offline=offline) for file in files])
    files = tuple(file for file in last if file.hub or _local(file, data))
    found = join([_read(file, data, scored=False, offline=offline) for file in files])
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


def _read(file: File, data: Path | None, *, scored: bool = True, offline: bool) -> Pairs:
    path, hub = _find(file, data, offline=offline)
    scores: Literal["required", "ignored"] = "required" if scored else "ignored"
    if hub is None:
        return read_pairs(path, scores=scores, score_range=file.score_range)
    # Nobody can mend a row on the hub, so a few bad ones are skipped, with a warning that counts them.
    skip = SkipBad(1, percent=True)
    between = hub.score_range or file.score_range
    pairs = read_pairs(path, scores=scores, score_range=between, skip_bad=skip, columns=hub.columns)
    return pairs.take(slice(*hub.rows)) if hub.rows != (0, None) else pairs


def _find(file: File, data: Path | None, *, offline: bool) -> tuple[Path, Hub | None]:
    """Return a file's path and, if it came from the hub, its declaration there."""
    path = _local(file, data)
    if path is not None:
        return path, None
    reason = "it is not on the hub"
    if file.hub is not None:
        try:
            path = from_hub(file.hub, offline=offline)
        except DataError as error:
            reason = str(error)
        else:
            level = logging.WARNING if file.hub.note else logging.INFO
            note = f"; {file.hub.note}" if file.hub.note else ""
            logger.log(level, "%s: taken from %s on the hub%s", file.name, file.hub.repo, note)
            return path, file.hub
    looked = ", ".join(str(directory) for directory in _directories(data)) or "none given"
    raise DataError(
        f"{file.name} was not found. Either name a directory that holds it with --data DIR or TRANSENC_DATA "
        f"(searched: {looked}), or let it be fetched from the hub ({reason})."
    )


def _directories(data: Path | None) -> list[Path]:
    variable = os.environ.get("TRANSENC_DATA")
    return [*([data] if data else []), *([Path(variable)] if variable else [])]


def _local(file: File, data: Path | None) -> Path | None:
    packaged = Path(str(resources.files("transenc"))) / "data" / file.name
    if packaged.is_file():
        return packaged
    for directory in _directories(data):
        if not directory.is_dir():
            raise DataError(f"{directory}: no such data directory (--data or TRANSENC_DATA).")
        for folder in FOLDERS:
            path = directory / folder / file.name
            if path.is_file():
                return path
    return None


def from_hub(hub: Hub, *, offline: bool = False) -> Path:
    """Return a file of a hub dataset from its cache, or download it; raise DataError when neither works.

    HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE work as everywhere; offline makes no connection whatever they say.
    """
    from huggingface_hub import hf_hub_download  # local: heavy
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        found = hf_hub_download(
            hub.repo,
            hub.path,
            repo_type="dataset",
            revision=hub.revision,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            local_files_only=offline or HF_HUB_OFFLINE,
        )
    except Exception as error:  # the hub's client raises its own, the HTTP library's and the system's errors
        why = "not in its cache, and --offline" if offline or HF_HUB_OFFLINE else type(error).__name__
        raise DataError(f"datasets/{hub.repo}/{hub.path}: {why}") from error
    return Path(found)
