from __future__ import annotations

import csv
import errno
import gzip
import json
import logging
import os
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transenc import formats, lines
from transenc.errors import ConfigError, DataError, MachineError
from transenc.pairs import Pairs
from transenc.readers import Reject, SkipBad, has_scores, read_pairs, read_sentences
from transenc.writers import SUFFIXES_OUT, WRITERS, write_pairs

HEADER = b"sentence1\tsentence2\tscore\n"
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def in_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(name: str, content: bytes) -> Path:
    path = Path(name)
    path.write_bytes(content)
    return path


def rows_of(pairs: Pairs) -> list[tuple[str, str]]:
    return list(pairs.rows())


# What is read.


def test_tsv_keeps_quotes_order_and_repetitions_and_ignores_other_columns() -> None:
    path = save("p.tsv", b'subset\tscore\tsentence1\tsentence2\nx\t1\t"a\tb"c\ny\t2.5\ta\tb\ny\t2.5\ta\tb\n')
    pairs = read_pairs(path, scores="required")
    assert rows_of(pairs) == [('"a', 'b"c'), ("a", "b"), ("a", "b")]
    assert pairs.scores is not None
    assert pairs.scores.tolist() == [1.0, 2.5, 2.5]
    assert pairs.scores.dtype == np.float32


SAME = {
    "p.tsv": b"sentence1\tsentence2\tscore\na \"b\", c\td\t0.5\ne\tf\t1\n",
    "p.csv": b'score,sentence1,sentence2\n0.5,"a ""b"", c",d\n1,e,f\n',
    "q.csv": b'text1,text2,label,id\n"a ""b"", c",d,.5,7\ne,f,1e0,8',
    "p.jsonl": b'{"text1":"a \\"b\\", c","text2":"d","label":0.5}\n{"sentence1":"e","text2":"f","score":1}',
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("pack", [False, True])
def test_every_text_form_reads_alike_plain_and_packed(name: str, pack: bool) -> None:
    path = save(name + ".gz", gzip.compress(SAME[name])) if pack else save(name, SAME[name])
    pairs = read_pairs(path, scores="required")
    assert rows_of(pairs) == [('a "b", c', "d"), ("e", "f")]
    assert pairs.scores is not None
    assert pairs.scores.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    "text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
@pytest.mark.parametrize("number", [pa.int64(), pa.float32(), pa.float64()], ids=str)
def test_parquet_reads_text_and_number_columns(text: pa.DataType, number: pa.DataType) -> None:
    columns = {
        "extra": [1, 2],
        "label": pa.array([0, 1], number),
        "text1": pa.array(["a", "b"], text),
        "text2": pa.array(["c", "d"], text),
    }
    pq.write_table(pa.table(columns), "p.parquet")
    pairs = read_pairs(Path("p.parquet"), scores="required")
    assert rows_of(pairs) == [("a", "c"), ("b", "d")]
    assert pairs.scores is not None
    assert pairs.scores.tolist() == [0, 1]


def test_parquet_reads_decimal_scores() -> None:
    scores = pa.array([Decimal("4.90"), Decimal("0.10"), Decimal("5.00")])  # as DuckDB types 4.9
    sides = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"]}
    pq.write_table(pa.table(sides | {"score": scores}), "p.parquet")
    found = read_pairs(Path("p.parquet"), scores="required").scores
    np.testing.assert_array_equal(found, np.array([4.9, 0.1, 5.0], np.float32))
    pq.write_table(pa.table(sides | {"score": pa.array([None, *scores.to_pylist()[:2]])}), "q.parquet")
    with pytest.raises(DataError, match="q.parquet:1: the score is missing"):
        read_pairs(Path("q.parquet"), scores="required")


def test_columns_of_other_names_can_be_named() -> None:
    path = save("p.tsv", b"question\tsentence\tlabel\na\tb\t0\nc\td\t1\n")
    pairs = read_pairs(path, scores="required", score_range=(1, 0), columns=("question", "sentence", "label"))
    assert rows_of(pairs) == [("a", "b"), ("c", "d")]
    assert pairs.scores is not None
    assert pairs.scores.tolist() == [1.0, 0.0]


def test_bars_separate_the_two_sides_in_txt() -> None:
    assert rows_of(read_pairs(save("p.txt", b"a|b||c\nd || e\n"), scores="optional")) == [
        ("a|b", "c"),
        ("d ", " e"),
    ]


@pytest.mark.parametrize("content", [b"a\tb\tx\n", b"a\tb\t\n", b"a\tb\t9\n"])
def test_ignored_scores_are_never_parsed(content: bytes) -> None:
    pairs = read_pairs(save("p.tsv", HEADER + content), scores="ignored", score_range=(0, 1))
    assert pairs.scores is None


def test_optional_scores_are_read_where_there_is_a_column() -> None:
    assert read_pairs(save("a.tsv", b"sentence1\tsentence2\na\tb\n"), scores="optional").scores is None
    scored = read_pairs(save("b.tsv", HEADER + b"a\tb\t3\n"), scores="optional").scores
    assert scored is not None
    assert scored.tolist() == [3.0]


def test_a_score_range_is_mapped_to_zero_and_one() -> None:
    path = save("p.tsv", HEADER + b"a\tb\t1\na\tb\t2\na\tb\t5\n")
    scores = read_pairs(path, scores="required", score_range=(1, 5)).scores
    assert scores is not None
    assert scores.tolist() == [0.0, 0.25, 1.0]


@pytest.mark.parametrize(
    "inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\u200b", "\u202e", "\ue000"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_line_feeds_end_lines(inside: str, end: str) -> None:
    text = f"a{inside}b"
    lines = end.join(["sentence1\tsentence2", f"{text}\tc", f"d\te{inside}f"])
    assert rows_of(read_pairs(save("p.tsv", lines.encode()), scores="optional")) == [
        (text, "c"),
        ("d", f"e{inside}f"),
    ]
    assert read_sentences([save("s.txt", f"{text}{end}g".encode())]) == [text, "g"]


def test_a_byte_order_mark_is_dropped_at_the_start_alone() -> None:
    path = save("p.tsv", b"\xef\xbb\xbf" + HEADER + b"\xef\xbb\xbfa\tb\t1\n")
    assert rows_of(read_pairs(path, scores="required")) == [("\ufeffa", "b")]


def test_a_long_text_under_the_limit_is_read() -> None:
    long = "ä" * 900_000
    assert read_sentences([save("s.txt", long.encode())]) == [long]


def test_one_row_and_rows_all_alike_are_read() -> None:
    assert len(read_pairs(save("p.tsv", HEADER + b"a\ta\t1"), scores="required")) == 1
    same = read_pairs(save("q.tsv", HEADER + b"a\ta\t1\n" * 50), scores="required")
    assert len(same) == 50
    assert same.sentences == ["a"]


def test_sentences_are_read_in_order_and_once(caplog: pytest.LogCaptureFixture) -> None:
    paths = [
        save("a.txt", b"one\n\n  \ntwo\none\n"),
        save("b.jsonl.gz", gzip.compress(b'{"sentence":"three"}\n{"text":"two"}\n')),
        save("c.csv", b'id,text\n1,"four, ""4"""\n'),
        save("d.tsv", b"sentence\nfive\n"),
    ]
    pq.write_table(pa.table({"text": ["six", "one"]}), "e.parquet")
    # By name: a command that ran before in this process has quietened it.
    with caplog.at_level(logging.INFO, logger="transenc.readers"):
        found = read_sentences([*paths, Path("e.parquet"), paths[0]])
    assert found == ["one", "two", "three", 'four, "4"', "five", "six"]
    assert "6 different sentences, 6 repeated" in caplog.text
    assert "a.txt: 3 sentences" in caplog.text


def test_lines_of_pairs_are_no_sentences() -> None:
    assert read_sentences(save("s.txt", b"a||b\nc\n||\n")) == ["a||b", "c", "||"]
    with pytest.raises(
        DataError, match=r"^p.txt:1: a\|\|b lines are pairs, where sentences are needed: give it by"
    ):
        read_sentences(save("p.txt", b"a||b\n\nc||d\n"))


# What is refused, each with its line.

DEEP = b'{"sentence1": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
JSON = b'{"sentence1": "a", "sentence2": "b", "score": 1}\n'

BAD = {
    "empty file": ("p.tsv", b"", "p.tsv:1: no header"),
    "empty jsonl": ("p.jsonl", b"", "p.jsonl: no rows"),
    "empty csv": ("p.csv", b"", "p.csv:1: no header"),
    "only newlines": ("p.tsv", b"\n\n\n", "p.tsv:1: no header"),
    "only newlines, jsonl": ("p.jsonl", b"\n\n", "p.jsonl:1: not JSON"),
    "header alone": ("p.tsv", HEADER, "p.tsv: no rows"),
    "blank line": ("p.tsv", HEADER + b"a\tb\t1\n\n", "p.tsv:3: 1 column, the header has 3"),
    "utf-16": ("p.tsv", HEADER.decode().encode("utf-16"), "p.tsv:1: is UTF-16"),
    "utf-16 without a mark": ("p.tsv", HEADER.decode().encode("utf-16-le"), "p.tsv:1: the header cannot"),
    "lone CR": ("p.tsv", HEADER + b"a\tb\rc\td\t1\n", "p.tsv:2: the line holds a lone carriage return"),
    "old Mac file": ("p.tsv", HEADER.replace(b"\n", b"\r") + b"a\tb\t1\r", "p.tsv:1: the header cannot"),
    "bad byte": ("p.tsv", HEADER + b"a\tb\t1\na\xffb\tb\t1\n", "p.tsv:3: byte 0xff at column 2 is not UTF-8"),
    "overlong": ("p.tsv", HEADER + b"\xc0\xaf\tb\t1\n", "p.tsv:2: byte 0xc0 at column 1"),
    "bytes of a surrogate": ("p.tsv", HEADER + b"\xed\xa0\x80\tb\t1\n", "p.tsv:2: byte 0xed at column 1"),
    "surrogate escape": ("p.jsonl", JSON + JSON.replace(b'"a"', b'"\\ud800"'), "p.jsonl:2: sentence1 holds"),
    "NUL": ("p.tsv", HEADER + b"a\0\tb\t1\n", "p.tsv:2: the line holds a NUL"),
    "NUL in CSV": ("p.csv", b"sentence1,sentence2,score\na\0,b,1\n", "p.csv:2: the line holds a NUL"),
    "NUL escape": ("p.jsonl", JSON.replace(b'"b"', b'"\\u0000"'), "p.jsonl:1: sentence2 holds a NUL"),
    "one side": ("p.tsv", HEADER + b"a\n", "p.tsv:2: 1 column, the header has 3"),
    "empty side": ("p.tsv", HEADER + b"\tb\t1\n", "p.tsv:2: sentence1 is empty"),
    "blank side": ("p.tsv", HEADER + "a\t \u3000\t1\n".encode(), "p.tsv:2: sentence2 is empty"),
    "four columns": ("p.tsv", HEADER + b"a\tb\t1\tx\n", "p.tsv:2: 4 columns, the header has 3"),
    "no header": ("p.tsv", b"A man\tA dog\t1.5\n", "p.tsv:1: not the columns needed. Found: 'A man', 'A"),
    "no score column": ("p.tsv", b"sentence1\tsentence2\na\tb\n", "Needed: sentence1 or text1, sentence2"),
    "column twice": ("p.tsv", b"text1\ttext1\ttext2\tscore\n", "p.tsv:1: two columns are named 'text1'"),
    "stray quote": ("p.csv", b'text1,text2,score\n"a,b,1\nc,d,2\ne,f,3\n', "p.csv:2: a quote is not closed"),
    "quote then text": ("p.csv", b'text1,text2,score\na,b,1\n"a"b,c,1\n', "p.csv:3: ',' expected after '\"'"),
    "broken header": ("p.csv", b'"text1,text2,score\na,b,1\n', "p.csv:1: the header cannot be read: a quote"),
    "long field": ("p.csv", b"text1,text2,score\n" + b"a" * 140_000 + b",b,1\n", "p.csv:2: field larger"),
    "score with a decimal comma": ("p.tsv", HEADER + b"a\tb\t,5\n", "',5' is not a number: it takes a decimal point"),
    "Windows-1252": ("p.tsv", HEADER + b"a\xfc\tb\t1\n", "is not UTF-8; if the file is Windows-1252: iconv -f"),
    "semicolons": ("p.csv", b'text1;"text2";score\na;b;1\n', "p.csv:1: the columns are parted by semicolons, "),
    "tabs in CSV": ("p.csv", HEADER + b"a\tb\t1\n", "parted by tabs, those of .csv by commas: name it .tsv"),
    "commas in TSV": ("p.tsv", HEADER.replace(b"\t", b","), "parted by commas, those of .tsv by tabs: name it .csv"),
    "Excel's own line": ("p.csv", b"\xef\xbb\xbfsep=;\r\ntext1;text2\r\n", "1: 'sep=;' is a line for Excel alone"),
    "spaces in the header": ("p.csv", b"text1, text2, score\n", "p.csv:1: the column ' text2' has spaces around its"),
    "score NaN": ("p.tsv", HEADER + b"a\tb\tNaN\n", "p.tsv:2: score 'NaN' is not a number"),
    "score inf": ("p.tsv", HEADER + b"a\tb\tinf\n", "p.tsv:2: score 'inf' is not a number"),
    "score 1e999": ("p.tsv", HEADER + b"a\tb\t1e999\n", "p.tsv:2: score '1e999' is not a finite"),
    "score 1e39": ("p.tsv", HEADER + b"a\tb\t1e39\n", "p.tsv:2: score '1e39' is not a finite"),
    "score 1_0": ("p.tsv", HEADER + b"a\tb\t1_0\n", "p.tsv:2: score '1_0' is not a number"),
    "score 4,5": ("p.tsv", HEADER + b"a\tb\t4,5\n", "p.tsv:2: score '4,5' is not a number"),
    "score in other digits": ("p.tsv", HEADER + "a\tb\t٣\n".encode(), "p.tsv:2: score '٣' is not a number"),
    "score with a space": ("p.tsv", HEADER + b"a\tb\t1 \n", "p.tsv:2: score '1 ' is not a number"),
    "score missing": ("p.tsv", HEADER + b"a\tb\t\n", "p.tsv:2: the score is missing"),
    "score with escapes": ("p.tsv", HEADER + b"a\tb\t\x1b[2J\n", "p.tsv:2: score '\\x1b[2J' is not a number"),
    "JSON NaN": ("p.jsonl", JSON.replace(b"1}", b"NaN}"), "p.jsonl:1: NaN is not JSON"),
    "JSON -Infinity": ("p.jsonl", JSON.replace(b"1}", b"-Infinity}"), "p.jsonl:1: -Infinity is not JSON"),
    "JSON 1e999": ("p.jsonl", JSON.replace(b"1}", b"1e999}"), "p.jsonl:1: score Infinity is not a finite"),
    "JSON long integer": ("p.jsonl", JSON.replace(b"1}", b"9" * 5000 + b"}"), "p.jsonl:1: score Infinity"),
    "JSON text as score": ("p.jsonl", JSON.replace(b": 1}", b': "x"}'), "p.jsonl:1: score 'x' is not a"),
    "JSON true as score": ("p.jsonl", JSON.replace(b"1}", b"true}"), "p.jsonl:1: score true is not a number"),
    "JSON list as score": ("p.jsonl", JSON.replace(b"1}", b"[1]}"), "p.jsonl:1: score a list is not a"),
    "JSON null as score": ("p.jsonl", JSON.replace(b"1}", b"null}"), "p.jsonl:1: the score is missing"),
    "JSON null as text": ("p.jsonl", JSON.replace(b'"a"', b"null"), "p.jsonl:1: sentence1 is missing"),
    "JSON number as text": ("p.jsonl", JSON.replace(b'"a"', b"3"), "p.jsonl:1: sentence1 is not text"),
    "JSON key twice": ("p.jsonl", JSON + JSON.replace(b'"sentence2"', b'"sentence1"'), "p.jsonl:2: key "),
    "JSON deep": ("p.jsonl", JSON + DEEP, "p.jsonl:2: nested too deeply"),
    "JSON list": ("p.jsonl", b'["a", "b", 1]\n', "p.jsonl:1: not a JSON object"),
    "JSON trailing comma": ("p.jsonl", JSON.replace(b"1}", b"1,}"), "p.jsonl:1: not JSON: "),
    "JSON array file": ("p.jsonl", b"[\n" + JSON + b"]\n", "p.jsonl:1: not JSON: "),
    "JSON no key": ("p.jsonl", JSON + b'{"a": 1}', "p.jsonl:2: no key 'sentence1' or 'text1' (keys: 'a')"),
    "one part": ("p.txt", b"a||b\na|b\n", "p.txt:2: not two parts as in a||b but 1"),
    "three parts": ("p.txt", b"a||b||c\n", "p.txt:1: not two parts as in a||b but 3"),
    "gz cut off": ("p.tsv.gz", gzip.compress(HEADER + os.urandom(99))[:40], "p.tsv.gz:1: the gzip file is"),
    "gz without being gz": ("p.tsv.gz", HEADER + b"a\tb\t1\n", "p.tsv.gz:1: is not a sound gzip file"),
    "gz under another name": ("p.tsv", gzip.compress(HEADER), "p.tsv:1: is compressed with gzip; name it"),
    "no Parquet": ("p.parquet", b"PAR1 is not enough PAR1", "p.parquet: cannot be read as Parquet: "),
    "unknown suffix": ("p.json", JSON, "p.json: unknown suffix '.json'. Did you mean '.jsonl'? Known: .tx"),
    "packed Parquet": ("p.parquet.gz", gzip.compress(b"x"), "p.parquet.gz: unknown suffix '.gz'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_refused_with_its_file_and_line(case: str) -> None:
    name, content, message = BAD[case]
    scores = "optional" if name == "p.txt" else "required"
    with pytest.raises(DataError) as caught:
        read_pairs(save(name, content), scores=scores)  # type: ignore[arg-type]
    assert message in str(caught.value).splitlines()[0]


def test_a_score_outside_its_range_is_a_bad_row() -> None:
    path = save("p.tsv", HEADER + b"a\tb\t5\na\tb\t-0.1\na\tb\t5.1\n")
    with pytest.raises(DataError, match=r"p.tsv:3: score '-0.1' lies outside 0 to 5 \(2 bad rows of 3;"):
        read_pairs(path, scores="required", score_range=(0, 5))


@pytest.mark.parametrize("limits", [(1.0, 1.0), (0.0, float("nan")), (float("-inf"), 1.0)])
def test_a_score_range_needs_two_numbers(limits: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="is not two different numbers"):
        read_pairs(save("p.tsv", HEADER), scores="required", score_range=limits)


def test_scores_on_some_rows_alone_are_refused() -> None:
    bare = b'{"text1": "a", "text2": "b"}\n'
    with pytest.raises(DataError, match="p.jsonl:2: the score is missing"):
        read_pairs(save("p.jsonl", JSON + bare), scores="optional")
    with pytest.raises(DataError, match="q.jsonl:2: a score, where the rows above have none"):
        read_pairs(save("q.jsonl", bare + JSON), scores="optional")


def test_bars_cannot_give_required_scores() -> None:
    with pytest.raises(DataError, match="lines hold no scores; use .tsv"):
        read_pairs(save("p.txt", b"a||b\n"), scores="required")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sentence1": ["a"], "sentence2": ["b"]}, "p.parquet:1: not the columns needed"),
        ({"set": [["a", "b"]]}, "sentence2 or text2, score or label. Name the columns with --columns."),
        ({"sentence1": [1], "sentence2": ["b"], "score": [1]}, "column 'sentence1' is int64, not string"),
        ({"sentence1": ["a"], "sentence2": ["b"], "score": ["1"]}, "column 'score' is string, not a number"),
        ({"sentence1": ["a"], "sentence2": ["b"], "score": [True]}, "column 'score' is bool, not a number"),
        ({"sentence1": ["a", None], "sentence2": ["b", "c"], "score": [1, 2]}, "p.parquet:2: sentence1 is"),
        ({"sentence1": ["a"], "sentence2": ["b"], "score": [None, 1.0][:1]}, "column 'score' is null"),
        ({"sentence1": ["a"], "sentence2": ["b"], "score": [float("nan")]}, "p.parquet:1: score NaN is not"),
        ({"sentence1": ["a"], "sentence2": [" "], "score": [1]}, "p.parquet:1: sentence2 is empty"),
        ({"sentence1": ["a\0"], "sentence2": ["b"], "score": [1]}, "p.parquet:1: sentence1 holds a NUL"),
    ],
)  # fmt: skip
def test_parquet_that_does_not_fit_is_refused(table: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(table), "p.parquet")
    with pytest.raises(DataError) as caught:
        read_pairs(Path("p.parquet"), scores="required")
    assert message in str(caught.value)


def test_parquet_text_that_is_not_utf8_costs_its_row() -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"]).buffers())
    pq.write_table(pa.table({"sentence1": broken, "sentence2": ["a", "b"]}), "p.parquet")
    with pytest.raises(DataError, match="p.parquet:2: the text is not UTF-8"):
        read_pairs(Path("p.parquet"), scores="optional")


def test_damaged_parquet_is_refused() -> None:
    write_pairs(Pairs.from_rows(["a" * 50] * 900, [str(i) for i in range(900)]), Path("p.parquet"))
    whole = Path("p.parquet").read_bytes()
    for cut in range(0, len(whole), len(whole) // 20):
        with pytest.raises(DataError, match="p.parquet"):
            read_pairs(save("p.parquet", whole[:cut]), scores="optional")


def test_long_lines_are_bad_rows_in_bounded_memory() -> None:
    with Path("p.tsv").open("wb") as file:
        file.write(HEADER + b"a\tb\t1\n")
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b"\nc\td\t1\n")
    tracemalloc.start()
    pairs = read_pairs(Path("p.tsv"), scores="required", skip_bad=SkipBad(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows_of(pairs) == [("a", "b"), ("c", "d")]
    assert peak < 40 << 20
    with pytest.raises(DataError, match="p.tsv:3: the line is longer than 1048576 characters"):
        read_pairs(Path("p.tsv"), scores="required")


def test_a_gzip_bomb_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "GZIP_FREE", 1 << 20)
    for name, unit in (("line", b"x"), ("lines", b"x\n")):
        path = save(f"{name}.txt.gz", gzip.compress(unit * (1 << 22)))
        with pytest.raises(DataError, match=rf"{name}.txt.gz:\d+: unpacks to over 200 times its size"):
            read_sentences([path])


def test_a_gzip_bomb_is_measured_by_what_was_read_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "GZIP_FREE", 1 << 20)
    padding = gzip.compress(os.urandom(1 << 19).hex().encode())  # the whole is no 200 times its size
    # Python 3.12 and newer read 128 KiB at once: that much of the padding excuses 25 MiB.
    path = save("p.txt.gz", gzip.compress((b"x" * 65535 + b"\n") * 16) * 64 + padding)
    with pytest.raises(DataError, match="unpacks to over 200 times"):
        read_sentences([path])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.tsv", HEADER + b"a\tb\t1\n"),
        ("p.csv", b"text1,text2\na,b\n"),
        ("p.jsonl", b'{"sentence1": "a", "sentence2": "b"}\n'),
    ],
)
def test_pairs_in_the_place_of_sentences_are_told_where_they_belong(name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=f"^{name}:1: pairs, where sentences are needed: give it by --pairs"):
        read_sentences([save(name, content)])


def test_what_is_no_file_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo("f.txt")
    Path("d.txt").mkdir()
    Path("loop.txt").symlink_to("loop.txt")
    expected = {
        "f.txt": "is a pipe or a device",
        "/dev/zero": "is a pipe or a device",
        "d.txt": "is a directory",
        "gone.txt": "no such file.",
        "*.nothing.txt": "the pattern matches nothing",
        "loop.txt": "cannot be read",
        "nul\0.txt": "cannot be read",
        "x" * 300 + ".txt": "cannot be read",
    }
    for name, message in expected.items():
        with pytest.raises(DataError, match=message):
            read_pairs(Path(name), scores="optional")
        with pytest.raises(DataError, match=message):
            read_sentences([Path(name)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused() -> None:
    path = save("p.txt", b"a||b")
    path.chmod(0)
    with pytest.raises(DataError, match="p.txt: cannot be read"):
        read_pairs(path, scores="optional")


def test_a_file_without_sentences_is_refused_beside_others() -> None:
    with pytest.raises(DataError, match=r"b.txt: no sentences"):
        read_sentences([save("a.txt", b"a"), save("b.txt", b"\n \n")])


# Bad rows as a whole.


def test_all_bad_rows_are_counted_and_twenty_more_listed() -> None:
    path = save("p.tsv", HEADER + b"a\tb\t1\n" + b"a\tb\tx\n" * 30)
    with pytest.raises(DataError) as caught:
        read_pairs(path, scores="required")
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "p.tsv:3: score 'x' is not a number (30 bad rows of 31; fix them or pass --skip-bad 30)"
    )
    assert lines[1] == "p.tsv:4: score 'x' is not a number"
    assert lines[-1] == "and 9 more"
    assert len(lines) == 22


def test_bad_rows_within_the_limit_are_skipped_counted_and_handed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = save("p.tsv", HEADER + b"a\tb\t1\na\tb\tx\na\tb\ty\n\tb\t1\n")
    rejects: list[Reject] = []
    pairs = read_pairs(path, scores="required", skip_bad=SkipBad(3), rejects=rejects)
    assert len(pairs) == 1
    assert rejects == [
        Reject("p.tsv", 3, "score 'x' is not a number"),
        Reject("p.tsv", 4, "score 'y' is not a number"),
        Reject("p.tsv", 5, "sentence1 is empty"),
    ]
    assert "3 bad rows of 4 skipped: 2 x the score is not a number; 1 x sentence1 is empty" in caplog.text


@pytest.mark.parametrize("text", ["1", "24%"])
def test_bad_rows_beyond_the_limit_are_refused(text: str) -> None:
    path = save("s.jsonl", b'{"text": "a"}\n' * 6 + b"x\n" * 2)
    assert read_sentences([path], skip_bad=SkipBad.parse("25%")) == ["a"]
    with pytest.raises(
        DataError, match=rf"s.jsonl:7: .* \(2 bad rows of 8; more than --skip-bad {text} allows\)"
    ):
        read_sentences([path], skip_bad=SkipBad.parse(text))


def test_bad_rows_count_in_each_file_of_sentences() -> None:
    paths = [save("a.txt", b"one\n\xff\n"), save("b.txt", b"two\n\xff\n")]
    assert read_sentences(paths, skip_bad=SkipBad(1)) == ["one", "two"]
    worse = save("c.txt", b"three\n\xff\n\xff\n")
    with pytest.raises(DataError, match=r"c.txt:2: .* \(2 bad rows of 3; more than --skip-bad 1 allows\)"):
        read_sentences([save("d.txt", b"four\n" * 9), worse], skip_bad=SkipBad(1))
    with pytest.raises(DataError, match="c.txt:2"):  # other files make its share no smaller
        read_sentences([Path("d.txt"), worse], skip_bad=SkipBad.parse("20%"))


def test_a_csv_text_in_quotes_goes_on_over_line_breaks() -> None:
    texts = b'"first,\n\n""said"" she,he\r\nlast",c,1\r\n"e","f,\n""",0\na,"\nb"," \n1"\n'
    path = save("p.csv", b'"text\n1",text2,label\na,b,1\n' + texts + b'5" nail,d,0\n')
    rejects: list[Reject] = []
    pairs = read_pairs(
        path, scores="required", columns=["text\n1", "text2", "label"], skip_bad=SkipBad(1), rejects=rejects
    )
    long = 'first,\n\n"said" she,he\nlast'
    assert rows_of(pairs) == [("a", "b"), (long, "c"), ("e", 'f,\n"'), ('5" nail', "d")]
    assert [(reject.line, reject.reason) for reject in rejects] == [(10, "score ' \\n1' is not a number")]


def test_a_csv_text_over_lines_with_a_quote_inside_a_later_cell_is_read() -> None:
    path = save("p.csv.gz", gzip.compress(b'text1,text2\n"a\nb",5" nail\nc,d\n'))
    assert rows_of(read_pairs(path, scores="ignored")) == [("a\nb", '5" nail'), ("c", "d")]


def test_a_csv_text_over_lines_is_read_and_a_stray_quote_takes_its_own_line_alone() -> None:
    torn = b'"first,\nmiddle one,middle two\n""said"" she,he\nlast",c\n'
    rejects: list[Reject] = []
    path = save("p.csv", b"text1,text2\na,b\n" + torn + b'c,d\n"stray,x\ne,f\n6" nail,"g"\nh,i\n')
    pairs = read_pairs(path, scores="ignored", skip_bad=SkipBad(2), rejects=rejects)
    long = 'first,\nmiddle one,middle two\n"said" she,he\nlast'
    assert rows_of(pairs) == [("a", "b"), (long, "c"), ("c", "d"), ("e", "f"), ("h", "i")]
    assert [reject.line for reject in rejects] == [8, 10]
    assert "is not closed on this line" in rejects[0].reason
    assert "is closed on this line" in rejects[1].reason


@pytest.mark.parametrize("ends", [b'",c,x\n', b'","\n",""\n'])
def test_all_lines_of_a_csv_record_with_other_columns_are_bad_rows(ends: bytes) -> None:
    rejects: list[Reject] = []
    path = save("p.csv", b'text1,text2\na,b\n"first\nmiddle one,middle two' + ends + b"c,d\n")
    pairs = read_pairs(path, scores="ignored", skip_bad=SkipBad(9), rejects=rejects)
    assert rows_of(pairs) == [("a", "b"), ("c", "d")]
    last = 4 + ends.count(b"\n") - 1
    assert [reject.line for reject in rejects] == list(range(3, last + 1))
    assert rejects[0].reason == f"3 columns up to line {last}, the header has 2"
    assert [("still open" in reject.reason) for reject in rejects[1:]] == [True] * (last - 4) + [False]


@pytest.mark.parametrize(("byte", "said"), [(b"\xe9", "not UTF-8; if"), (b"\0", "a NUL byte")])
def test_a_text_over_lines_of_which_one_cannot_be_read_names_that_line(byte: bytes, said: str) -> None:
    path = save("x.csv", b'sentence1,sentence2\nd,e\n"a\ncaf' + byte + b'\nb",c\n')
    with pytest.raises(
        DataError, match=rf"x\.csv:3: a quote is open up to line 4, which cannot.*{said}"
    ) as told:
        read_pairs(path, scores="ignored")
    assert "twice" not in str(told.value)


def test_rows_that_stray_quotes_may_have_joined_are_told(caplog: pytest.LogCaptureFixture) -> None:
    joined = b'7,"tall\n8,fine\n9,nail of 6"\n'
    fine = b'1,"one\ntwo, three"\n2,"one\ntwo"\n'
    path = save("s.csv", b"id,text\n" + fine + joined * 2)
    assert read_sentences(path) == ["one\ntwo, three", "one\ntwo", "tall\n8,fine\n9,nail of 6"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "s.csv:6: a text in quotes goes on over lines that look like rows (2 such in the file): if its quotes are "
        "stray, double them and quote their cells."
    ]


def test_an_open_quote_is_followed_as_far_as_a_cell_may_be_long() -> None:
    fine, long = (b'text\n"' + b"x" * 99_999 + b"\n" + b"y" * n + b'\nz"\nw\n' for n in (30_000, 40_000))
    assert len(read_sentences(save("s.csv", fine))) == 2
    rejects: list[Reject] = []
    assert read_sentences(save("s.csv", long), skip_bad=SkipBad(1), rejects=rejects) == [
        "y" * 40_000,
        'z"',
        "w",
    ]
    assert rejects[0].line == 2 and rejects[0].reason.startswith("a quote is not closed")


def test_quotes_that_never_end_are_read_in_one_pass_and_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split, asked = formats._split_csv, 0

    def count(line: str) -> list[str]:
        nonlocal asked
        asked += 1
        return split(line)

    monkeypatch.setattr(formats, "_split_csv", count)
    lines = 20_000
    path = save("p.csv", b"text1,text2\na,b\n" + b'a","b\n' * lines)
    tracemalloc.start()
    with pytest.raises(DataError, match=f"{lines} bad rows of {lines + 1}"):
        read_pairs(path, scores="ignored")
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    assert asked < 4 * lines


CELLS = st.text(st.sampled_from('ab,"\n'), max_size=6).filter(lambda text: bool(text.strip()))


@settings(FUZZ)
@given(
    st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1)),
    st.data(),
)
def test_what_a_spreadsheet_writes_is_read_as_others_read_it(
    table: list[list[str]], data: st.DataObject
) -> None:
    names = [f"n{i}" for i in range(len(table[0]))]
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    with Path("p.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
        writer.writerows([names, *table])
    options = pc.ParseOptions(newlines_in_values=True)
    strings = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    other = pc.read_csv("p.csv", parse_options=options, convert_options=strings).to_pydict()
    assert [other[name] for name in names] == [list(column) for column in zip(*table, strict=True)]
    rows, parse = formats.FORMATS[".csv"](Path("p.csv"), [(name,) for name in names], ())
    assert [parse(row) for _, row in rows] == table


def test_a_stray_quote_takes_no_later_line_than_the_first_with_a_quote() -> None:
    path = save("p.csv", b'text1,text2\n"stray,x\ne,f\n"g","h"\n6" nail,i\n')
    pairs = read_pairs(path, scores="ignored", skip_bad=SkipBad(1))
    assert rows_of(pairs) == [("e", "f"), ("g", "h"), ('6" nail', "i")]


def test_a_file_of_bad_rows_alone_is_refused_whatever_the_limit() -> None:
    with pytest.raises(DataError, match=r"1 bad row of 1; no row can be used"):
        read_pairs(save("p.txt", b"a"), scores="optional", skip_bad=SkipBad.parse("100%"))


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "101%", "nan%", "%", "5 %", "1e3"])
def test_skip_bad_takes_a_count_or_a_share(text: str) -> None:
    with pytest.raises(ConfigError, match="--skip-bad"):
        SkipBad.parse(text)


# Writing.

SENTENCES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda text: not text.isspace()
)
SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.lists(st.tuples(SENTENCES, SENTENCES, SCORES), min_size=1, max_size=8)


@FUZZ
@given(ROWS, st.sampled_from(SUFFIXES_OUT), st.booleans())
def test_what_is_written_reads_back_equal(
    rows: list[tuple[str, str, float]], suffix: str, scored: bool
) -> None:
    first, second, scores = zip(*rows, strict=True)
    pairs = Pairs.from_rows(first, second, scores if scored else None)
    path = Path("out" + suffix)
    try:
        write_pairs(pairs, path)
    except DataError as error:
        assert suffix == ".tsv"
        assert "holds a tab or a line break; write .jsonl" in str(error)
        assert any(c in text for text in pairs.sentences for c in "\t\n\r")
        return
    before = path.read_bytes()
    back = read_pairs(path, scores="optional")
    assert sorted(back.sentences) == sorted(pairs.sentences)
    assert rows_of(back) == rows_of(pairs)
    assert (back.scores is None) == (not scored)
    if scored:
        np.testing.assert_array_equal(back.scores, pairs.scores)
    write_pairs(back, path)
    assert path.read_bytes() == before


def test_scores_are_written_as_the_shortest_decimals() -> None:
    pairs = Pairs.from_rows(["a", "b"], ["c", "d"], [0.1, 1 / 3])
    write_pairs(pairs, Path("p.tsv"))
    assert Path("p.tsv").read_text() == "sentence1\tsentence2\tscore\na\tc\t0.1\nb\td\t0.33333334\n"
    write_pairs(pairs, Path("p.jsonl"))
    assert json.loads(Path("p.jsonl").read_text().splitlines()[1])["score"] == 0.33333334


def test_jsonl_lines_are_those_of_the_json_module() -> None:
    texts = ['"\\/\b\f\n\r\t', "\x01\x1f\x7f\x85", "é\u2028\U0001f600<&'"]
    scores = [1e-30, -0.0, 1 / 3]
    pairs = Pairs.from_rows(texts, texts[::-1], scores)
    for each in (pairs, pairs.with_scores(None)):
        write_pairs(each, Path("p.jsonl"))
        numbers = [] if each.scores is None else [{"score": float(str(score))} for score in each.scores]
        rows = [{"sentence1": a, "sentence2": b} for a, b in each.rows()]
        lines = [row | number for row, number in zip(rows, numbers or [{}] * 3, strict=True)]
        written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        assert Path("p.jsonl").read_bytes().decode() == written


@pytest.mark.parametrize("suffix", SUFFIXES_OUT)
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (Pairs.from_rows(["a", "b"], ["c", "d"], [1.0, float("nan")]), "the score of pair 2 is nan"),
        (Pairs.from_rows([" "], ["c"]), "cannot be written: it is empty"),
        (Pairs.from_rows(["\ud800"], ["c"]), "cannot be written"),
    ],
)
def test_pairs_that_cannot_be_read_back_are_not_written(pairs: Pairs, suffix: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_pairs(pairs, Path("p" + suffix))
    assert not list(Path().iterdir())


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing() -> None:
    path = save("p.tsv", b"old")
    with pytest.raises(DataError, match=r"'a\\tb' holds a tab"):
        write_pairs(Pairs.from_rows(["x", "a\tb"], ["c", "d"]), path)
    assert path.read_bytes() == b"old"
    assert list(Path().iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_the_machines_error() -> None:
    with pytest.raises(MachineError, match="gone/p.tsv cannot be written: No such file or directory"):
        write_pairs(Pairs.from_rows(["a"], ["b"]), Path("gone/p.tsv"))


def test_an_unknown_suffix_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match="p.csv: pairs are written as .tsv, .jsonl, .parquet"):
        write_pairs(Pairs.from_rows(["a"], ["b"]), Path("p.csv"))


# Any bytes at all.

PIECES = st.sampled_from(
    [HEADER, b"sentence1,sentence2,score\n", JSON, b"a\tb\t1\n", b"a||b\n", b'"', b"\n", b"\r\n", b"\0",
     b"\xff", b"\\", b"{", b"}", b"[", b"NaN", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b",", b"\t"]
)  # fmt: skip
BYTES = st.one_of(
    st.binary(max_size=200), st.lists(st.one_of(PIECES, st.binary(max_size=5)), max_size=12).map(b"".join)
)
NAMES = ["p.tsv", "p.csv", "p.jsonl", "p.txt", "p.txt.gz", "p.tsv.gz", "p.parquet"]


@settings(FUZZ, max_examples=150)  # of each
@pytest.mark.parametrize("name", NAMES)
@given(content=BYTES, pack=st.booleans(), skip=st.sampled_from([None, SkipBad(100, percent=True)]))
def test_any_bytes_become_rows_or_one_error(
    name: str, content: bytes, pack: bool, skip: SkipBad | None
) -> None:
    path = save(name, gzip.compress(content) if pack else content)
    for read in (
        lambda: len(read_pairs(path, scores="required", skip_bad=skip)),
        lambda: len(read_pairs(path, scores="ignored", skip_bad=skip)),
        lambda: len(read_sentences([path], skip_bad=skip)),
    ):
        try:
            assert read() > 0
        except DataError as error:
            assert str(error).startswith(name + ":")


@FUZZ
@given(data=st.data())
def test_any_change_to_a_parquet_file_becomes_rows_or_one_error(data: st.DataObject) -> None:
    write_pairs(Pairs.from_rows(list("abcd"), list("efgh"), [0, 1, 2, 3]), Path("p.parquet"))
    content = bytearray(Path("p.parquet").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pairs(save("p.parquet", bytes(content)), scores="optional")
    except DataError as error:
        assert str(error).startswith("p.parquet:")


def test_whatever_pyarrow_says_of_a_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:  # as of a footer with a flipped bit
        raise pa.ArrowNotImplementedError("type: \x0f\x1b[31m of\nmore than 64 bits")

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    path = save("p.parquet", b"PAR1")
    for read in (lambda: read_pairs(path, scores="optional"), lambda: has_scores(path)):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value) == ("p.parquet: cannot be read as Parquet: type: [31m of more than 64 bits")


def test_a_full_disk_names_the_file_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pairs: Pairs, file: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(WRITERS, ".tsv", full)
    with pytest.raises(MachineError, match="^mine.tsv cannot be written: .*[Nn]o space left"):
        write_pairs(Pairs.from_rows(["a"], ["b"]), tmp_path / "part.tsv", told=Path("mine.tsv"))
    assert not list(tmp_path.iterdir())


def test_a_row_that_is_bad_otherwise_leaves_no_quote_open(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text('sentence1,sentence2\n"a" b,c\n6" tall,foo\nok,fine\n')
    found = read_pairs(file, scores="ignored", skip_bad=SkipBad(1))
    assert list(found.rows()) == [('6" tall', "foo"), ("ok", "fine")]
