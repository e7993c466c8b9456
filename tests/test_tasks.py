from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import close_session, constants

from transenc import tasks
from transenc.errors import ConfigError, DataError
from transenc.pairs import Pairs, shared, without
from transenc.readers import SkipBad

REAL = os.environ.get("TRANSENC_DATA")
needs_data = pytest.mark.skipif(not REAL, reason="TRANSENC_DATA names no directory with the real data")
MEMBERS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data from the environment, an empty hub cache, and a hub that nobody answers for."""
    monkeypatch.delenv("TRANSENC_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def tsv(path: Path, *rows: tuple[str, str, float]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["subset\tscore\tsentence1\tsentence2", *(f"x\t{s}\t{a}\t{b}" for a, b, s in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All STS files with one or two made-up pairs each; SICK runs from 1, the others from 0."""
    root = tmp_path / "data"
    for name in MEMBERS:
        low = 1 if name == "sickr" else 0
        tsv(root / f"sts/{name}-test.tsv", (f"{name} a", f"{name} b", low), (f"{name} c", f"{name} d", 5))
    tsv(root / "sts/stsb-dev.tsv", ("dev a", "dev b", 2.5), ("dev c", "dev d", 5))
    tsv(
        root / "sts/stsb-train.tsv",
        ("train a", "train b", 1),
        ("train b", "train a", 1),
        ("stsb a", "stsb b", 0),
    )
    tsv(root / "sts/sts12-train.tsv", ("train c", "train d", 1), ("  DEV B", "Dev a", 1))
    return root


def rows(pairs: Pairs) -> list[tuple[str, str]]:
    return list(pairs.rows())


# Declarations.


def test_the_names_are_those_of_the_documentation() -> None:
    assert tasks.names() == ["sts", *MEMBERS, "mrpc", "qnli", "qqp", "demo"]
    assert all(tasks.get(name).name == name for name in tasks.names())


@pytest.mark.parametrize(("name", "guess"), [("stssb", "stsb"), ("qqnli", "qnli"), ("dem", "demo")])
def test_an_unknown_name_is_answered_with_the_nearest(name: str, guess: str) -> None:
    with pytest.raises(ConfigError, match=f"No task named '{name}'. Did you mean '{guess}'. Known: sts, "):
        tasks.get(name)


def test_only_qnli_depends_on_the_order_of_a_pair() -> None:
    assert [name for name in tasks.names() if not tasks.get(name).symmetric] == ["qnli"]


def test_classes_are_0_and_1_in_every_file_of_a_task_that_is_measured_by_auc() -> None:
    files = [
        file
        for task in tasks.TASKS.values()
        if task.metric == "auc"
        for file in (task.test, task.dev, *(each for way in task.pool for each in way))
    ]
    assert {file.score_range for file in files if isinstance(file, tasks.File)} == {(0, 1), None}


def test_a_new_task_is_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    test, dev = tasks.File("mine-test.tsv", (0, 1)), tasks.File("mine-dev.tsv", (0, 1))
    monkeypatch.setitem(tasks.TASKS, "mine", tasks.Task("mine", "mine", test, dev, pool=((test,),)))
    tsv(tmp_path / "mine-test.tsv", ("a", "b", 1))
    task = tasks.get("mine")
    assert rows(tasks.tests(task, tmp_path)["mine"]) == rows(tasks.pool(task, tmp_path)) == [("a", "b")]


# Files.


def test_demo_needs_no_data() -> None:
    demo = tasks.get("demo")
    dev, test = tasks.dev(demo, None, offline=True), tasks.tests(demo, None, offline=True)["demo"]
    assert len(dev) == len(test) == 324
    for pairs in (dev, test):
        assert pairs.scores is not None
        assert (pairs.scores.min(), pairs.scores.max()) == (0, 1)
    assert len(tasks.corpus(demo, None, offline=True)) > 1500


@pytest.mark.parametrize("folder", ["", "sts", "binary"])
def test_a_file_may_lie_in_the_directory_or_in_its_folders(folder: str, tmp_path: Path) -> None:
    path = tsv(tmp_path / folder / "stsb-test.tsv", ("a", "b", 5))
    assert tasks.locate(tasks.STSB_TEST, tmp_path, offline=True) == path


def test_the_option_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("option", "variable"):
        tsv(tmp_path / name / "stsb-test.tsv", (name, name, 5))
    tsv(tmp_path / "variable/stsb-dev.tsv", ("dev", "dev", 5))
    monkeypatch.setenv("TRANSENC_DATA", str(tmp_path / "variable"))
    assert tasks.locate(tasks.STSB_TEST, None).parent.name == "variable"
    assert tasks.locate(tasks.STSB_TEST, tmp_path / "option").parent.name == "option"
    assert tasks.locate(tasks.STSB_DEV, tmp_path / "option").parent.name == "variable"


def test_a_data_directory_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such data directory"):
        tasks.dev(tasks.get("sts"), tmp_path / "gone", offline=True)


@pytest.mark.parametrize("offline", [True, False])
def test_a_file_that_cannot_be_had_is_named_with_both_ways(
    hub: Server, tmp_path: Path, offline: bool
) -> None:
    with pytest.raises(DataError) as caught:
        tasks.dev(tasks.get("sts"), tmp_path, offline=offline)
    message = str(caught.value)
    assert message.startswith(
        "stsb-dev.tsv was not found. Either name a directory that holds it with --data DIR"
    )
    assert "TRANSENC_DATA" in message
    assert "the hub (datasets/mteb/stsbenchmark-sts/validation.jsonl.gz: " in message
    assert ("not in its cache, and --offline)" if offline else "EntryNotFoundError)") in message


# What a task reads.


def test_scores_are_mapped_by_each_files_own_range(data: Path) -> None:
    found = tasks.tests(tasks.get("sts"), data, offline=True)
    assert tuple(found) == MEMBERS
    for pairs in found.values():
        assert pairs.scores is not None
        assert pairs.scores.tolist() == [0, 1]
    assert tuple(tasks.tests(tasks.get("sickr"), data, offline=True)) == ("sickr",)
    assert tasks.dev(tasks.get("stsb"), data, offline=True).scores.tolist() == [0.5, 1]  # type: ignore[union-attr]


def test_sick_alone_has_its_own_pairs_and_development_part(data: Path) -> None:
    tsv(data / "sickr-trial.tsv", ("trial a", "trial b", 1), ("trial c", "trial d", 3))
    tsv(data / "sickr-train.tsv", ("train a", "train b", 1))
    task = tasks.get("sickr")
    assert tasks.dev(task, data, offline=True).scores.tolist() == [0, 0.5]  # type: ignore[union-attr]
    found = rows(tasks.pool(task, data, offline=True))
    assert {first.split()[0] for first, _ in found} == {"train", "trial", "sickr"}


def test_qqp_is_cut_from_its_files_on_the_hub(hub: Server) -> None:
    columns = {
        "question1": [f"q{i}" for i in range(1002)],
        "question2": [f"r{i}" for i in range(1002)],
        "label": [i % 2 for i in range(1002)],
    }
    hub.files["nyu-mll/glue/qqp/validation-00000-of-00001.parquet"] = parquet(**columns)
    hub.files["nyu-mll/glue/qqp/train-00000-of-00001.parquet"] = parquet(
        question1=["a"], question2=["b"], label=[1]
    )
    qqp = tasks.get("qqp")
    test = tasks.tests(qqp, None)["qqp"]
    assert test.scores is not None
    assert test.scores.tolist() == [0, 1]  # 1 is a duplicate, as it stands
    assert (len(tasks.dev(qqp, None)), len(tasks.pool(qqp, None))) == (1000, 1003)


def test_evaluation_takes_tasks_and_files_and_gives_each_its_metric(data: Path, tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t0\n")
    sets, metrics = tasks.evaluation(["stsb", str(tmp_path / "own.tsv")], data, offline=True)
    assert metrics == {"stsb": "spearman", "own.tsv": "auc"}
    assert [len(pairs) for pairs in sets.values()] == [2, 2]


def test_bad_rows_of_scored_files_are_skipped_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text("sentence1\tsentence2\tscore\na dog\ta cat\t0\na dog\ta cat\tx\na\tb\t1\n")
    sets, _ = tasks.evaluation([str(path)], None, skip_bad=SkipBad(1))
    dev, _ = tasks.development(str(path), None, skip_bad=SkipBad(1))
    assert len(sets["own.tsv"]) == len(dev) == 2
    for read in (lambda: tasks.evaluation([str(path)], None), lambda: tasks.development(str(path), None)):
        with pytest.raises(DataError, match="own.tsv:3: score 'x'"):
            read()


def test_two_sets_of_one_name_are_refused_unless_they_are_one_file(data: Path, tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t0\n")
    first, second = (str(tmp_path / folder / "test.tsv") for folder in "ab")
    with pytest.raises(ConfigError, match=r"b/test.tsv and .*a/test.tsv would both be called 'test.tsv'"):
        tasks.evaluation([first, second], None)
    assert list(tasks.evaluation([first, first], None)[0]) == ["test.tsv"]


def test_evaluation_pairs_are_counted_in_either_order_and_case() -> None:
    pairs = Pairs.from_rows(["a", "c"], ["b", "d"])
    assert shared(pairs, Pairs.from_rows(["B ", "c", "x"], ["A", "d", "y"])) == 2


def test_the_given_pool_is_preferred(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "sts/transenc-pool.tsv").write_text("source\tsentence1\tsentence2\nx\ta\tb\nx\ta\tb\ny\tb\ta\n")
    with caplog.at_level(logging.INFO):
        found = tasks.pool(tasks.get("sts"), data, offline=True)
    assert rows(found) == [("a", "b"), ("a", "b"), ("b", "a")]
    assert found.scores is None
    assert "sts: the pool is transenc-pool.tsv" in caplog.text


def test_without_it_the_pool_is_all_different_pairs_of_the_parts(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tsv(data / "sickr-trial.tsv", ("trial a", "trial b", 1))
    found = rows(tasks.pool(tasks.get("sts"), data, offline=True))
    assert len(found) == len(set(found)) == 7 * 2 + 2 + 2 + 2 + 1
    assert found[:2] == [("sts12 a", "sts12 b"), ("sts12 c", "sts12 d")]
    assert ("trial a", "trial b") in found
    assert {("train a", "train b"), ("train b", "train a")} <= set(found)
    assert "for want of transenc-pool.tsv" in caplog.text


def test_the_inductive_pool_holds_no_evaluation_pair(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = tasks.pool(tasks.get("sts"), data, inductive=True, offline=True)
    assert rows(found) == [("train a", "train b"), ("train b", "train a"), ("train c", "train d")]
    assert "17 pool pairs dropped since they are evaluation pairs" in caplog.text


def test_without_ignores_order_case_punctuation_and_spaces() -> None:
    pairs = Pairs.from_rows(["A ", "b.", "c", "e", "!"], ["B", "a", "d", "f  g", "?"], [1, 2, 3, 4, 5])
    others = [Pairs.from_rows(["a"], [" 'b'"]), Pairs.from_rows(["F g", "!!"], ["E", "?"])]
    kept, dropped = without(pairs, others)
    assert rows(kept) == [("c", "d"), ("!", "?")]
    assert kept.scores is not None
    assert kept.scores.tolist() == [3, 5]
    assert dropped == 3


def test_an_inductive_pool_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(
        tasks.TASKS, "mine", tasks.Task("mine", "", tasks.STS12, tasks.STSB_DEV, pool=((tasks.STS12,),))
    )
    tsv(tmp_path / "sts12-test.tsv", ("a", "b", 1))
    tsv(tmp_path / "stsb-dev.tsv", ("a", "c", 1))
    with pytest.raises(DataError, match="none is left"):
        tasks.pool(tasks.get("mine"), tmp_path, inductive=True)


def test_what_a_task_lacks_is_told_with_those_that_have_it() -> None:
    with pytest.raises(
        ConfigError, match="Task 'sts' has no corpus; give --corpus FILE. Tasks with one: demo."
    ):
        tasks.corpus(tasks.get("sts"), None)
    with pytest.raises(ConfigError, match="Task 'demo' has no pairs to train on. Tasks with some: sts, "):
        tasks.pool(tasks.get("demo"), None)


# The hub, imitated.


class Server(ThreadingHTTPServer):
    """Answer for datasets as the hub does: HEAD with ETag and commit, GET with the content."""

    files: dict[str, bytes]
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        _, _, owner, repo, _, revision, path = self.path.split("/", 6)
        content = self.server.files.get(f"{owner}/{repo}/{path}")
        self.send_response(200 if content is not None else 404)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", revision)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    close_session()
    server.shutdown()
    thread.join()
    server.server_close()


def jsonl(*found: Mapping[str, object]) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in found).encode())


def parquet(**columns: list[object]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def test_sts_is_fetched_once_and_then_read_without_a_connection(
    hub: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (*MEMBERS[:5], "stsbenchmark", "sickr"):
        for part in ("train", "validation", "test"):
            pair = {"sentence1": f"{name} {part} a", "sentence2": f"{name} {part} b", "score": 5.0}
            hub.files[f"mteb/{name}-sts/{part}.jsonl.gz"] = jsonl(pair)
    sts = tasks.get("sts")
    found = tasks.tests(sts, None)
    assert rows(found["sickr"]) == [("sickr test a", "sickr test b")]
    assert rows(tasks.dev(sts, None)) == [("stsbenchmark validation a", "stsbenchmark validation b")]
    assert (
        "sickr-test.tsv: taken from mteb/sickr-sts on the hub; the hub's SICK-R is all 9,927" in caplog.text
    )
    assert len(tasks.pool(sts, None)) == 7 + 1 + 2  # tests, dev, the train parts of STS-B and STS12
    assert "for want of transenc-pool.tsv" in caplog.text
    assert all("/resolve/" in path and "/resolve/main/" not in path for path in hub.asked)
    hub.asked.clear()
    assert rows(tasks.tests(sts, None, offline=True)["sts12"]) == rows(found["sts12"])
    assert rows(tasks.tests(sts, None)["sts12"]) == rows(found["sts12"])
    assert hub.asked == []


def test_offline_asks_nobody(hub: Server) -> None:
    with pytest.raises(DataError, match="not in its cache, and --offline"):
        tasks.tests(tasks.get("sts"), None, offline=True)
    assert hub.asked == []


def test_glue_is_cut_and_its_labels_are_turned(hub: Server) -> None:
    n = 1003
    hub.files["nyu-mll/glue/qnli/validation-00000-of-00001.parquet"] = parquet(
        question=[f"q{i}" for i in range(n)],
        sentence=[f"s{i}" for i in range(n)],
        label=[i % 2 for i in range(n)],
    )
    hub.files["nyu-mll/glue/qnli/test-00000-of-00001.parquet"] = parquet(
        question=["q"], sentence=["s"], label=[-1]
    )
    qnli = tasks.get("qnli")
    dev, test = tasks.dev(qnli, None), tasks.tests(qnli, None)["qnli"]
    assert len(dev) == 1000
    assert rows(test) == [("q1000", "s1000"), ("q1001", "s1001"), ("q1002", "s1002")]
    assert test.scores is not None
    np.testing.assert_array_equal(test.scores, [1, 0, 1])
    assert len(tasks.pool(qnli, None)) == n + 1
    assert rows(tasks.pool(qnli, None, inductive=True)) == [("q", "s")]


# The real data, where there is some.


@needs_data
def test_the_sts_files_have_the_published_counts() -> None:
    found = tasks.tests(tasks.get("sts"), Path(str(REAL)), offline=True)
    counts = {name: len(pairs) for name, pairs in found.items()}
    assert counts == dict(zip(MEMBERS, (3108, 1500, 3750, 3000, 1186, 1379, 4927), strict=True))
    assert len(tasks.dev(tasks.get("sts"), Path(str(REAL)), offline=True)) == 1500


@needs_data
@pytest.mark.parametrize(
    ("name", "pool", "inductive"), [("sts", 37_063, 18_996), ("mrpc", 5_801, 3_562), ("qnli", 10_924, 5_458)]
)
def test_the_pools_have_their_counts(name: str, pool: int, inductive: int) -> None:
    task, directory = tasks.get(name), Path(str(REAL))
    assert len(tasks.pool(task, directory, offline=True)) == pool
    assert len(tasks.pool(task, directory, inductive=True, offline=True)) == inductive
