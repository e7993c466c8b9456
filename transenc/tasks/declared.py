"""Benchmarks as declarations: to add one is to add an entry to TASKS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
