"""How many tokens are read: the text decides where no setting does."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_pairs
from tests.tiny import tiny_plm
from transenc.config import BY_TEXT, build, merge
from transenc.inputs import settings_for
from transenc.lengths import with_lengths
from transenc.models.bi import BiFamily
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.models.intake import describe
from transenc.pairs import Pairs
from transenc.readers import read_pairs
from transenc.runner import Runner
from transenc.session import Session
from transenc.single_stages import distill_to
from transenc.stage import Stage
from transenc.stages.context import Context
from transenc.stages.distill import distill_model
from transenc.store import Store
from transenc.training import Fit

SHORT = ["a dog runs", "a cat sleeps"] * 50


def lengths(
    start: Path, sentences: list[str], changes: dict[str, Any] | None = None
) -> tuple[int | None, ...]:
    settings = build(merge(BY_TEXT, {"plm": [str(start)]}, changes or {}))
    found, said = with_lengths(settings, [start], sentences, ["distill.bi", "distill.cross"])
    distill = found.distill
    assert (said is not None) == (distill.bi.max_length not in (16, 32) or distill.cross.max_length != 64)
    return (
        found.prime.max_length,
        distill.bi.max_length,
        distill.cross.max_length,
        found.gold.teacher.max_length,
    )


@pytest.mark.parametrize("longer", [0, 9], ids=["none", "under a tenth"])
def test_short_texts_are_read_at_the_published_lengths(longer: int, plm: Path) -> None:
    assert lengths(plm, SHORT + ["dog " * 60] * longer) == (32, 32, 64, 64)


def test_long_texts_are_read(plm: Path) -> None:
    long = ["dog " * 38] * 20  # 40 tokens with the special ones
    assert lengths(plm, SHORT + long) == (48, 48, 64, 64)  # the tiny start has positions for 64


def test_no_more_is_read_than_the_start_reads_and_than_a_setting_says(tmp_path: Path) -> None:
    start = tiny_plm(tmp_path / "plm")
    path = start / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 40}))
    long = ["dog " * 50] * 20
    assert lengths(start, long) == (40, 40, 64, 64)
    by_hand = {"distill": {"bi": {"max_length": 16}}}
    assert lengths(start, long, by_hand) == (40, 16, 64, 64)


def test_mirror_bert_keeps_its_own_published_length(plm: Path) -> None:
    assert lengths(plm, ["dog " * 38] * 20, {"prime": {"method": "mirror"}})[:2] == (50, 48)


def test_a_run_on_ones_own_text_takes_lengths_by_it_and_a_task_the_published_ones(
    plm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transenc")
    corpus = tmp_path / "tickets.txt"
    corpus.write_text("\n".join(f"{n} " + "dog " * 40 for n in range(20)), encoding="utf-8")
    values: dict[str, Any] = {"plm": [str(plm)], "recipe": "self"}
    settings = settings_for({**values, "corpus": str(corpus)})
    session = Session.open(settings, root=tmp_path / "run", device="cpu", dry_run=True)
    read = {
        s.kind + str(s.family): s.settings["max_length"] for s in session.stages if "max_length" in s.settings
    }
    assert read == {"primebi": 48, "distillcross": 64, "distillbi": 48}
    assert "prime.max_length=48, distill.bi.max_length=48. Less is faster" in caplog.text
    assert session.settings.distill.bi.max_length == 48  # what run.yaml records, and resuming compares
    assert settings_for({**values, "task": "demo"}).distill.bi.max_length == 32


def test_only_what_a_run_trains_is_named_and_held_to_its_start(
    plm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transenc")
    gold = tmp_path / "gold.tsv"
    rows = "".join(f"{n} {'dog ' * 40}\t{n}\t{n / 20}\n" for n in range(20))
    gold.write_text("sentence1\tsentence2\tscore\n" + rows, encoding="utf-8")
    values: dict[str, Any] = {"plm": [str(plm)], "recipe": "augsbert-gold", "prime": {"method": "none"}}
    values["gold"] = {"source": str(gold), "augment": "noise"}  # by which the bi-encoder alone learns
    settings = settings_for({**values, "distill": {"cross": {"max_length": 500}}})
    session = Session.open(settings, root=tmp_path / "run", device="cpu", dry_run=True)
    assert {stage.group for stage in session.stages} == {None, "distill.bi"}
    Session.open(settings_for(values), root=tmp_path / "other", device="cpu", dry_run=True)
    assert caplog.text.count("so distill.bi.max_length=48. Less is faster") == 2


def test_a_single_training_takes_its_length_by_the_pairs(plm: Path, tmp_path: Path) -> None:
    short = make_pairs(4, scored=True)
    pairs = Pairs.from_rows(
        [f"{a} " + "dog " * 40 for a, _ in short.rows()], [b for _, b in short.rows()], short.scores
    )
    settings = build(merge(BY_TEXT, {"plm": [str(plm)], "distill": {"bi": {"epochs": 1}}}))
    distill_to(settings, "bi", pairs, None, tmp_path / "bi", device="cpu")
    assert json.loads((tmp_path / "bi/sentence_bert_config.json").read_text())["max_seq_length"] > 40


def test_a_pair_is_read_to_where_either_side_may_be_long(tmp_path: Path) -> None:
    start = tiny_plm(tmp_path / "plm")
    path = start / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 256}))
    assert lengths(start, SHORT + ["dog " * 38] * 20) == (48, 48, 96, 96)
    assert lengths(start, SHORT + ["dog " * 60] * 9) == (32, 32, 64, 64)


def test_priming_reads_what_its_corpus_and_the_pairs_ask_for(
    plm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transenc")
    files = {"short": "a dog runs", "long": "dog " * 40}
    for name, text in files.items():
        rows = [f"{n} {text}" for n in range(20)]
        (tmp_path / f"{name}.txt").write_text("\n".join(rows), encoding="utf-8")
        (tmp_path / f"{name}-pairs.txt").write_text(
            "\n".join(f"{row}||{row} b" for row in rows), encoding="utf-8"
        )

    def read(pairs: str, corpus: str) -> tuple[int | None, int | None]:
        values = {"plm": [str(plm)], "recipe": "self", "pairs": str(tmp_path / f"{pairs}-pairs.txt")}
        settings = settings_for({**values, "prime": {"corpus": str(tmp_path / f"{corpus}.txt")}})
        found = Session.open(settings, root=tmp_path / "run", device="cpu", dry_run=True).settings
        return found.prime.max_length, found.distill.bi.max_length

    assert read("short", "short") == (32, 32)
    assert "max_length" not in caplog.text
    assert read("short", "long") == (48, 32)
    assert "tokens or more (of prime.corpus: 44), so prime.max_length=48. Less is faster" in caplog.text
    assert read("long", "short") == (48, 48)  # what is primed labels the pairs


def test_a_sample_of_gold_pairs_has_the_lengths_of_all(plm: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold.tsv"
    rows = "".join(f"{n} {'dog ' * (40 if n % 7 == 0 else 1)}\t{n} cat\t{n / 40}\n" for n in range(40))
    gold.write_text("sentence1\tsentence2\tscore\n" + rows, encoding="utf-8")
    values = {"plm": [str(plm)], "recipe": "augsbert-few", "sampler": "bm25:k=3"}
    found = {
        Session.open(
            settings_for({**values, "seed": seed, "gold": {"source": f"{gold}{sample}"}}),
            root=tmp_path / "run", device="cpu", dry_run=True,
        ).settings.distill.bi.max_length
        for seed, sample in ((1, ""), (1, ":8"), (2, ":8"), (3, ":8"), (4, ":8"))
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.parametrize(
    ("family", "length", "stage", "told"),
    [
        (BiFamily(), 16, "cycle-1/distill-bi/a", "with --set distill.bi.max_length=N, 64 at most."),
        (CrossFamily(), 16, "gold/teacher/a", "with --set gold.teacher.max_length=N, 64 at most."),
        (
            BiFamily(),
            64,
            "cycle-1/distill-bi/a",
            "are cut to 64 tokens; the model has positions for no more.",
        ),
    ],
    ids=["the bi-encoder's", "the gold teacher's", "as many as there are"],
)
def test_what_is_cut_is_told_with_the_setting_that_reads_more_where_one_can(
    family: BiFamily | CrossFamily,
    length: int,
    stage: str,
    told: str,
    plm: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    student = family.create(plm, compute=Compute("cpu", "fp32"), max_length=length)
    long = Pairs.from_rows(["dog " * 80, "cat " * 80], ["a dog", "a cat"], [0.0, 1.0])
    settings = build(BY_TEXT | {"plm": ["a"]}).distill.bi
    distill_model(student, long, settings, Fit(settings, Compute("cpu", "fp32"), 1, stage))
    assert told in caplog.text


@pytest.mark.parametrize("family", [BiFamily(), CrossFamily()], ids=["bi", "cross"])
def test_a_tuned_start_is_trained_on_few_tokens_and_still_reads_its_own(
    family: BiFamily | CrossFamily, plm: Path, tmp_path: Path
) -> None:
    cpu = Compute("cpu", "fp32")
    tuned = tmp_path / "tuned"
    BiFamily().create(plm, compute=cpu, max_length=40, pooling="mean").save(tuned)
    long = Pairs.from_rows(
        ["dog " * 80, "cat " * 80, "a dog"], ["a dog", "a cat", "cat " * 80], [0.0, 1.0, 0.5]
    )
    values = {"seed": 1, "precision": "fp32", "plm": (str(tuned),)}
    short = {"max_length": 12, "epochs": 1, "batch_size": 2}
    settings = build(merge(BY_TEXT, values | {"distill": {family.name: short}}))

    def trained(out: str, start: Path) -> Any:
        changed = settings.model_copy(update={"plm": (str(start),)})
        distill_to(changed, family.name, long, None, tmp_path / out, device="cpu")
        return family.load(tmp_path / out, compute=cpu)

    found, raw = trained("tuned-out", tuned), trained("raw-out", plm)
    assert (found.transformer.max_length, raw.transformer.max_length) == (40, 12)
    # Trained on no more than the setting says: the weights are those of a student that reads as little.
    few = tmp_path / "few"
    BiFamily().create(tuned, compute=cpu, max_length=12, pooling="mean").save(few)
    same = trained("few-out", few)
    assert same.transformer.max_length == 12
    for name, weight in found.module.state_dict().items():
        assert weight.equal(same.module.state_dict()[name]), name
    ends = Pairs.from_rows(["dog " * 20 + "cat"], ["dog " * 20 + "runs"])
    assert found.score(ends) != pytest.approx(same.score(ends), abs=1e-6)


@pytest.mark.parametrize("head", ["classifier", "segments"])
def test_a_cross_encoder_that_is_trained_on_reads_as_many_tokens_as_before(
    head: str, plm: Path, tmp_path: Path
) -> None:
    cpu = Compute("cpu", "fp32")
    start = tmp_path / "start"
    CrossFamily().create(plm, compute=cpu, max_length=40, head=head).save(start)
    values = {"seed": 1, "precision": "fp32", "plm": (str(start),)}
    short = {"max_length": 12, "epochs": 1, "batch_size": 8}
    settings = build(merge(BY_TEXT, values | {"distill": {"cross": short, "bi": short}}))
    pairs = make_pairs(8, scored=True)
    lengths = {}
    for family in (CrossFamily(), BiFamily()):
        out = tmp_path / family.name
        distill_to(settings, family.name, pairs, None, out, keep_head=True, device="cpu")
        lengths[family.name] = family.load(out, compute=cpu).transformer.max_length
    assert lengths == {"cross": 40, "bi": 12}  # of its sentence vectors nobody promised anything


def test_what_a_tuned_start_was_before_priming_is_measured_on_all_that_it_reads(
    plm: Path, tmp_path: Path
) -> None:
    cpu, tuned = Compute("cpu", "fp32"), tmp_path / "tuned"
    BiFamily().create(plm, compute=cpu, max_length=40, pooling="mean").save(tuned)
    rows = [
        (f"{'dog ' * 20}{a}", f"{'dog ' * 20}{b}")
        for a, b in (("cat", "runs"), ("a", "a dog"), ("dog", "cat"))
    ]
    gold = Pairs.from_rows(*map(list, zip(*rows, strict=True)), [0.0, 1.0, 0.5])
    context = Context(
        Store(tmp_path / "run"),
        build({"plm": [str(tuned)], "seed": 1}),
        cpu,
        {"s": describe("s", tuned)},
        tests={"long": gold},
    )
    facts = {"raw": True, "pooling": "auto", "max_length": 12, "dev": False}
    stage = Stage("evaluate/raw/s", "evaluate", facts, (), "s", "bi")
    with context.store.lock():
        Runner(context, lambda: (gold, []), {}).run([stage])
    found = read_pairs(tmp_path / "run" / stage.name / "long.parquet", scores="required")
    assert found.scores == pytest.approx(BiFamily().load(tuned, compute=cpu).score(gold), abs=1e-6)
