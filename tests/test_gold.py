"""Gold labels are read strictly, never contradicted by silver ones, and teach through all three scenarios."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import make_pairs
from tests.runs import SMALL, content
from transenc.cli.gold import told
from transenc.config import Settings, build, merge, recipe_layers
from transenc.cycle import plan
from transenc.errors import ConfigError, DataError, Interrupted
from transenc.gold import Gold, read_gold, without_tests
from transenc.inputs import check_silver, gather
from transenc.interrupt import StopFlag
from transenc.models.device import Compute
from transenc.models.intake import resolve
from transenc.outcome import Outcome
from transenc.pairs import Pairs
from transenc.readers import has_scores, is_table_of_pairs, read_pairs
from transenc.session import Session
from transenc.stage import Student
from transenc.stages.augment import augment_sentences, augmented_pairs, outside_files
from transenc.stages.mix import mix_pairs
from transenc.store import Store
from transenc.writers import write_pairs

TEACHER = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 32}
RECIPES = ("augsbert-gold", "augsbert-few", "augsbert-domain")


def settings_of(recipe: str, plm: Any = "s0", **changes: Any) -> Settings:
    layers = recipe_layers(recipe, task=None, metric=None)
    small = {k: v for k, v in SMALL.items() if k != "pooling"}
    small["distill"] = {"bi": {"epochs": 1, "max_length": 16}, "cross": SMALL["distill"]["cross"]}
    return build(merge(*layers, small, {"plm": [str(plm)], "gold": {"teacher": TEACHER}}, changes))


@pytest.fixture
def gold_file(tmp_path: Path) -> Path:
    path = tmp_path / "gold.tsv"
    write_pairs(make_pairs(16, seed=5, scored=True), path)
    return path


def rows_file(path: Path, scores: list[float]) -> Path:
    write_pairs(Pairs.from_rows([f"a {i}" for i in range(len(scores))], ["b"] * len(scores), scores), path)
    return path


# Reading.


@pytest.mark.parametrize(
    ("scores", "source", "error", "message"),
    [
        ([0.0, 3.0, 4.5], "", DataError, r"from 0 to 4.5 do not lie in \[0, 1\].*--gold-range 0 5"),
        ([-0.5, 0.5], "", DataError, "--gold-range -1 1"),
        ([0.5, 0.5], "", DataError, "all 2 gold labels are 0.5"),
        ([0.1, 0.5], ":3", ConfigError, "has only 2 pairs"),
        ([0.1, 0.5], ":1", ConfigError, ":N for a sample of N pairs"),
        ([0.1, 0.5], ":x", ConfigError, ":N for a sample of N pairs"),
    ],
)
def test_bad_gold_is_one_error_that_names_the_file(tmp_path, scores, source, error, message) -> None:
    path = rows_file(tmp_path / "mine.tsv", scores)
    with pytest.raises(error, match=message) as caught:
        read_gold(settings_of("augsbert-few", gold={"source": f"{path}{source}"}), data=None)
    assert str(path) in str(caught.value)


def test_an_empty_side_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "g.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\t0.5\nc\t\t1\n")
    with pytest.raises(DataError, match="g.tsv:3: sentence2 is empty"):
        read_gold(settings_of("augsbert-few", gold={"source": str(path)}), data=None)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'stsb-train'.*mrpc-train"):
        read_gold(settings_of("augsbert-few", gold={"source": "stsb-trian:5"}), data=None)
    with pytest.raises(ConfigError, match="has its own score range"):
        read_gold(settings_of("augsbert-few", gold={"source": "demo-dev", "score_range": [0, 5]}), data=None)


def test_a_name_with_a_number_is_a_seeded_sample_of_a_tasks_pairs() -> None:
    first, again, other = (
        read_gold(settings_of("augsbert-few", seed=s, gold={"source": "demo-dev:40"}), data=None)
        for s in (1, 1, 2)
    )
    assert len(first.pairs) == 40 and not first.binary
    assert list(first.pairs.rows()) == list(again.pairs.rows()) != list(other.pairs.rows())
    assert "40 gold pairs of demo-dev, a seeded sample of 324" in first.said[0]


def test_the_range_maps_labels_and_binary_ones_are_seen(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "b.tsv", [1, 5, 5, 1])
    gold = read_gold(
        settings_of("augsbert-few", gold={"source": str(path), "score_range": [1, 5]}), data=None
    )
    assert gold.binary and gold.pairs.scores is not None
    assert gold.pairs.scores.tolist() == [0, 1, 1, 0]
    assert gold.said == [f"4 gold pairs of {path}: binary, 50 % of them 1"]
    with pytest.raises(ConfigError, match="labels between 0 and 1"):
        graded = rows_file(tmp_path / "c.tsv", [0, 0.5])
        read_gold(settings_of("augsbert-few", gold={"source": str(graded), "labels": "binary"}), data=None)


def test_test_pairs_are_not_learnt_and_shared_development_pairs_are_said() -> None:
    gold = make_pairs(6, seed=3, scored=True)
    kept = without_tests(
        Gold(gold, False, []), gold.take(slice(0, 1)), {"t": gold.take(slice(4, 6)).flipped()}
    )
    assert list(kept.pairs.rows()) == list(gold.rows())[:4]
    assert kept.said[0].startswith("2 of the gold pairs are test pairs")
    assert kept.said[1].startswith("1 gold pairs are development pairs too")
    with pytest.raises(
        DataError, match="Every gold pair is a test pair of t, and .* other pairs with --evaluate"
    ):
        without_tests(Gold(gold, False, []), None, {"t": gold})


# What goes together.


def inputs_of(settings: Settings, plm: Path) -> Any:
    return gather(settings, data=None, offline=True, plm=resolve(str(plm)), compute=Compute("cpu", "fp32"))


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("augsbert-few", {}, "learns from labels: give --gold"),
        ("augsbert-domain", {"gold": {"source": "demo-dev"}}, "needs sentences of the target"),
        (
            "self",
            {"gold": {"source": "demo-dev"}, "task": "demo"},
            "--gold is used by the recipes augsbert-gold",
        ),
        ("self", {"gold": {"augment": ["delete"]}, "task": "demo"}, "--augment rewrites gold pairs"),
        ("self", {"cycles": 0, "task": "demo"}, "cycles is 0"),
        ("self", {"select": "agreement", "remine": True, "task": "demo"}, "which --remine does not leave"),
        (
            "augsbert-few",
            {"select": "agreement", "gold": {"source": "demo-dev"}},
            "which --gold does not leave: take --select dev or last",
        ),
        (
            "augsbert-domain",
            {"dev": "dev.tsv", "gold": {"source": "demo-dev"}, "task": "demo"},
            "reads no label of its target: leave out --dev",
        ),
        ("self", {"sampler": "kde", "task": "demo"}, "give --gold with --recipe augsbert-few"),
        ("self", {"remine": True, "task": "demo"}, "uses none: name --sampler semantic"),
        ("augsbert-gold", {"sampler": "kde", "gold": {"source": "demo-dev"}}, "has no teacher"),
        (
            "augsbert-few",
            {"gold": {"source": "demo-dev", "augment": ["delete"]}},
            "belongs to recipe augsbert-gold",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(recipe, changes, message, plm: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        inputs_of(settings_of(recipe, plm, **changes), plm)


def test_a_corpus_with_too_few_sentences_is_named(tmp_path: Path, plm: Path, gold_file: Path) -> None:
    corpus = tmp_path / "few.txt"
    corpus.write_text("one\ntwo\n")
    inputs = inputs_of(
        settings_of("augsbert-few", plm, corpus=str(corpus), gold={"source": str(gold_file)}), plm
    )
    with pytest.raises(DataError, match="few.txt: The corpus has 2 different sentences.*needs at least 4"):
        inputs.make_pairs()


def test_remining_given_pairs_is_refused(plm: Path, gold_file: Path) -> None:
    settings = settings_of(
        "augsbert-few", plm, remine=True, pairs=str(gold_file), gold={"source": "demo-dev"}
    )
    with pytest.raises(ConfigError, match="give --corpus"):
        inputs_of(settings, plm)


@pytest.mark.parametrize("option", ["corpus", "pairs"])
def test_labels_of_the_target_are_ignored_and_that_is_said(option: str, plm: Path, gold_file: Path) -> None:
    settings = settings_of("augsbert-domain", plm, gold={"source": "demo-dev:50"}, **{option: str(gold_file)})
    inputs = inputs_of(settings, plm)
    assert f"the labels of {gold_file} are ignored; the last model is kept" in inputs.said
    assert inputs.dev is None
    pairs, _ = inputs.make_pairs()
    assert pairs.scores is None
    assert set(pairs.sentences) <= set(read_pairs(gold_file, scores="ignored").sentences)


def test_target_pairs_that_are_all_gold_are_refused_before_anything_is_trained(
    plm: Path, gold_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target.tsv"
    rows = [f"{b} .\t{a}\n" for a, b in read_pairs(gold_file, scores="ignored").rows()]
    target.write_text("sentence1\tsentence2\n" + "".join(rows))
    settings = settings_of("augsbert-domain", plm, gold={"source": str(gold_file)}, pairs=str(target))
    with pytest.raises(DataError, match=rf"All {len(rows)} pairs to label are gold pairs.*--pairs"):
        check_silver(settings, inputs_of(settings, plm))
    target.write_text(f"sentence1\tsentence2\n{rows[0]}a\tb\n")
    inputs = inputs_of(settings, plm)
    assert len(inputs.make_pairs()[0]) == 2
    check_silver(settings, inputs)
    assert inputs.make_pairs() is inputs.make_pairs()  # put together once
    also = settings.model_copy(update={"gold": settings.gold.model_copy(update={"weight": 1.0})})
    assert len(inputs_of(also, plm).make_pairs()[0]) == 2


def test_the_target_of_a_task_gives_sentences_and_no_development_labels(plm: Path) -> None:
    inputs = inputs_of(settings_of("augsbert-domain", plm, task="demo", gold={"source": "demo-dev:50"}), plm)
    assert inputs.dev is None and set(inputs.tests) == {"demo"}
    assert "no target label is read; the last model is kept, and test labels only measure it" in inputs.said


def test_gold_pairs_are_never_mined_again(plm: Path, gold_file: Path) -> None:
    inputs = inputs_of(settings_of("augsbert-few", plm, gold={"source": str(gold_file)}), plm)
    gold = {frozenset(row) for row in read_pairs(gold_file, scores="ignored").rows()}
    mined, _ = inputs.make_pairs()
    assert len(mined) and not {frozenset(row) for row in mined.rows()} & gold


# Gold and silver together.

MIX = {"keep": None, "hard": None, "weight": 1.0, "silver_weight": 1.0}


def test_a_silver_copy_of_a_gold_pair_is_dropped_in_either_order_and_case() -> None:
    gold = Pairs.from_rows(["A cat", "x"], ["a dog", "y"], [0.9, 0.1])
    silver = Pairs.from_rows(["a dog ", "p"], ["a CAT", "q"], [0.2, 0.5])
    mixed, report = mix_pairs(gold, silver, MIX, 1)
    assert list(mixed.rows()) == [("A cat", "a dog"), ("x", "y"), ("p", "q")]
    assert report["silver_also_gold"] == 1
    assert report["histograms"] == {
        "gold": [0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        "silver": [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        "kept": [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    }


@pytest.mark.parametrize(
    ("weight", "silver_weight", "sizes"), [(3, 1, (30, 20)), (0, 1, (0, 20)), (1.5, 0.25, (15, 5))]
)
def test_weights_say_how_often_pairs_are_seen(
    weight: float, silver_weight: float, sizes: tuple[int, int]
) -> None:
    gold, silver = make_pairs(10, seed=1, scored=True), make_pairs(20, seed=2, scored=True)
    mixed, _ = mix_pairs(gold, silver, {**MIX, "weight": weight, "silver_weight": silver_weight}, 1)
    rows = list(mixed.rows())
    known = set(gold.rows())
    assert (sum(row in known for row in rows), sum(row not in known for row in rows)) == sizes
    times = np.unique([" ".join(row) for row in rows if row in known], return_counts=True)[1]
    assert not len(times) or times.max() <= np.ceil(weight)  # a fraction's pairs are different ones
    again, _ = mix_pairs(gold, silver, {**MIX, "weight": weight, "silver_weight": silver_weight}, 1)
    assert list(again.rows()) == rows


def test_hard_labels_are_silvers_alone() -> None:
    gold = Pairs.from_rows(["a", "b"], ["c", "d"], [0.0, 1.0])
    silver = Pairs.from_rows(["e", "f"], ["g", "h"], [0.5, 0.2])
    mixed, _ = mix_pairs(gold, silver, {**MIX, "hard": 0.5}, 1)
    assert mixed.scores is not None and mixed.scores.tolist() == [0, 1, 1, 0]  # from the threshold on


def test_kde_chooses_silver_pairs_and_tells_the_divergence() -> None:
    rng = np.random.default_rng(0)
    gold = Pairs.from_rows(map(str, range(300)), map(str, range(300, 600)), rng.beta(2, 2, 300))
    silver = Pairs.from_rows(map(str, range(600, 1600)), map(str, range(1600, 2600)), rng.beta(1, 4, 1000))
    _, report = mix_pairs(gold, silver, {**MIX, "keep": "kde"}, 1)
    assert report["kept_pairs"] == report["rule"]["kept"] < 1000
    assert report["rule"]["kl_kept"] < report["rule"]["kl_offered"]


def test_a_teacher_that_learnt_nothing_is_said() -> None:
    gold = make_pairs(20, seed=1, scored=True)
    flat = make_pairs(30, seed=2).with_scores(np.linspace(0.49, 0.51, 30, dtype=np.float32))
    _, report = mix_pairs(gold, flat, MIX, 1)
    assert any("the silver labels hardly differ" in line for line in told(report))
    _, report = mix_pairs(gold, make_pairs(30, seed=2, scored=True), MIX, 1)
    assert told(report) == []


def test_nothing_left_is_an_error() -> None:
    gold = make_pairs(4, scored=True)
    with pytest.raises(DataError, match="No pair is left"):
        mix_pairs(gold, gold, {**MIX, "weight": 0}, 1)


# Rewriting.


def test_rewritten_pairs_keep_their_labels_and_only_new_ones_are_kept() -> None:
    gold = Pairs.from_rows(["a b", "c d", "e"], ["f", "g", "h"], [0.1, 0.2, 0.3])
    first = ["b", "c d", "e", "f", "g", "h"]  # in the order of gold's sentences
    second = ["a", "C D", "e", "f", "g", "h2"]
    made, facts = augmented_pairs(gold, [first, second, first])
    assert list(made.rows()) == [("b", "f"), ("a", "f"), ("e", "h2")]
    assert made.scores is not None
    np.testing.assert_allclose(made.scores, [0.1, 0.1, 0.3])
    assert facts == {"made": 3, "unchanged": 4, "already_gold": 1, "repeated": 1}


def test_rewriting_continues_where_it_was_stopped(tmp_path: Path) -> None:
    sentences = [f"{s} again" for s in make_pairs(20).sentences]
    whole = augment_sentences(sentences, ["delete", "noise"], copies=2, seed=3, shard=7)
    assert len(whole) == 4 and all(len(part) == len(sentences) for part in whole)
    assert whole[0] != whole[1]
    stop, runs = StopFlag(), 0
    store = Store(tmp_path / "run")
    with store.lock():
        while True:
            shards = 0
            runs += 1

            def count(progress: Any) -> None:
                nonlocal shards
                shards += 1
                stop.signum = 15 if shards == 4 else None

            try:
                found = augment_sentences(
                    sentences, ["delete", "noise"], copies=2, seed=3, shard=7, stop=stop, report=count,
                    checkpoints=store.checkpoints("augment", "key"),
                )  # fmt: skip
                break
            except Interrupted:
                stop.signum = None
    assert found == whole and runs > 2


@pytest.mark.parametrize("made", [["a"], ["a", "b", "c"]])
def test_an_augmenter_that_makes_more_or_fewer_sentences_is_refused(
    made: list[str], monkeypatch: Any
) -> None:
    class Plugin:
        def augment(self, sentences: Any, rngs: Any, *, fill: Any = None) -> list[str]:
            return made

    monkeypatch.setattr("transenc.stages.augment.registry.create", lambda group, spec: Plugin())
    with pytest.raises(DataError, match=f"'mine' made {len(made)} sentences of 2, not one of each"):
        augment_sentences(["one", "two"], ["mine"], seed=1)


def test_a_missing_synonym_table_is_named_before_any_work(tmp_path: Path, plm: Path, gold_file: Path) -> None:
    spec = f"synonyms:table={tmp_path / 'none.tsv'}"
    with pytest.raises(DataError, match="none.tsv: no such file"):
        outside_files([spec])
    settings = settings_of("augsbert-gold", plm, gold={"source": str(gold_file), "augment": [spec]})
    with pytest.raises(DataError, match="none.tsv: no such file"):
        Session.open(settings, root=tmp_path / "run", offline=True)
    assert not (tmp_path / "run").exists()


# Plans.


def names_of(settings: Settings, n: int = 1, **facts: bool) -> list[str]:
    students = [Student(f"s{i}", f"s{i}", "none") for i in range(n)]
    return [s.name for s in plan(settings, students, tests=False, dev=True, **facts)]


def test_scenario_1_is_gold_rewritten() -> None:
    settings = settings_of("augsbert-gold", gold={"source": "g"})
    assert names_of(settings) == [
        "gold/pairs", "prime/s0", "gold/augment", "gold/mix", "gold/distill-bi/s0", "select", "best/bi",
    ]  # fmt: skip
    alone = settings_of("augsbert-gold", gold={"source": "g", "augment": []})
    assert "gold/augment" not in names_of(alone)


def test_scenario_2_is_gold_cross_then_silver_then_bi_and_goes_on_in_cycles() -> None:
    few = settings_of("augsbert-few", gold={"source": "g"}, cycles=1)
    assert names_of(few) == [
        "gold/pairs", "prime/s0", "pairs", "gold/teacher/s0", "gold/label-cross/s0", "gold/silver-cross", "gold/mix",
        "gold/distill-bi/s0",
        "cycle-1/label-bi/s0", "cycle-1/silver-bi", "cycle-1/mix-bi", "cycle-1/distill-cross/s0",
        "cycle-1/label-cross/s0", "cycle-1/silver-cross", "cycle-1/mix-cross", "cycle-1/distill-bi/s0",
        "select", "best/bi", "best/cross",
    ]  # fmt: skip


def test_a_semantic_sampler_searches_with_the_bi_encoder_that_gold_taught() -> None:
    few = settings_of("augsbert-few", gold={"source": "g"}, sampler="semantic")
    stages = {s.name: s for s in plan(few, [Student("s0", "s0", "none")], dev=True, needs_encoder=True)}
    assert stages["pairs"].needs == ("gold/pairs", "gold/encoder/s0")


def test_every_cycle_mines_with_the_better_bi_encoder_when_asked() -> None:
    settings = build({"plm": ["s0"], "corpus": "c.txt", "cycles": 3, "remine": True, "sampler": "semantic"})
    stages = plan(settings, [Student("s0", "s0", "none")], dev=True, needs_encoder=True)
    by_name = {s.name: s for s in stages}
    assert "cycle-1/pairs" not in by_name
    assert by_name["cycle-3/pairs"].needs == ("prime/s0", "cycle-1/distill-bi/s0", "cycle-2/distill-bi/s0")
    assert (
        by_name["cycle-2/label-bi/s0"].needs[0] == by_name["cycle-2/silver-cross"].needs[0] == "cycle-2/pairs"
    )
    seen: set[str] = set()
    for stage in stages:
        assert set(stage.needs) <= seen
        seen.add(stage.name)


@pytest.mark.parametrize("students", ["bi", "cross", "both"])
def test_bi_or_cross_or_both_learn_from_gold_and_silver(students: str) -> None:
    names = names_of(settings_of("augsbert-few", gold={"source": "g", "students": students}))
    assert ("gold/distill-bi/s0" in names) == (students != "cross")
    assert ("gold/distill-cross/s0" in names) == (students != "bi")


def test_binary_gold_changes_the_loss_of_the_bi_encoder_and_hardens_silver() -> None:
    few = settings_of("augsbert-few", gold={"source": "g", "labels": "binary", "threshold": 0.4})
    stages = {s.name: s for s in plan(few, [Student("s0", "s0", "none")], dev=True)}
    assert stages["gold/distill-bi/s0"].settings["objective"] == "contrastive"
    assert stages["gold/teacher/s0"].settings["objective"] == "soft_bce"
    assert stages["gold/mix"].settings["hard"] == 0.4
    more = settings_of("augsbert-few", gold={"source": "g", "labels": "binary"}, cycles=1)
    by_name = {s.name: s for s in plan(more, [Student("s0", "s0", "none")], dev=True)}
    assert by_name["cycle-1/mix-bi"].settings["hard"] is None
    assert by_name["cycle-1/distill-bi/s0"].settings["objective"] == "contrastive"
    alone = settings_of("augsbert-few", gold={"source": "g", "labels": "binary", "weight": 0.0}, cycles=1)
    by_name = {s.name: s for s in plan(alone, [Student("s0", "s0", "none")], dev=True)}
    assert by_name["cycle-1/distill-bi/s0"].settings["objective"] == "cosine_mse"


def test_a_sampler_that_chooses_by_labels_does_so_in_every_cycle() -> None:
    few = settings_of("augsbert-few", gold={"source": "g"}, sampler="kde", cycles=1)
    stages = {s.name: s for s in plan(few, [Student("s0", "s0", "none")], dev=True, keeps=True)}
    mixed = {name: s.settings["keep"] for name, s in stages.items() if s.kind == "mix"}
    assert mixed == dict.fromkeys(("gold/mix", "cycle-1/mix-bi", "cycle-1/mix-cross"), "kde")


@pytest.mark.parametrize(
    ("sampler", "gold", "refused"),
    [
        ("kde:threshold=0.6", {}, True),
        ("kde", {"threshold": 0.4}, True),
        ("kde:threshold=0.4", {"threshold": 0.4}, False),
        ("kde:threshold=0.6", {"silver": "soft"}, False),  # no label becomes 1
        ("kde:rule=kde", {"threshold": 0.4}, False),  # nor is any class kept
    ],
)
def test_labels_are_balanced_as_of_the_score_that_makes_them_1(
    sampler: str, gold: dict[str, Any], refused: bool, tmp_path: Path, plm: Path
) -> None:
    graded = make_pairs(16, seed=5, scored=True)
    assert graded.scores is not None
    write_pairs(graded.with_scores((graded.scores > 0.3).astype(np.float32)), tmp_path / "gold.tsv")
    asked = {"source": str(tmp_path / "gold.tsv"), **gold}
    settings = settings_of("augsbert-few", plm, sampler=sampler, gold=asked)
    context = pytest.raises(ConfigError, match="gold.threshold.*give both one") if refused else nullcontext()
    with context:
        Session.open(settings, root=tmp_path / "run", offline=True, device="cpu")


# Whole runs.


def run(
    settings: Settings, root: Path, stop: StopFlag | None = None, report: Any = None
) -> tuple[Session, Outcome]:
    session = Session.open(settings, root=root, offline=True, stop=stop, device="cpu", checkpoint_every=2)
    return session, session.run(**({"report": report} if report else {}))


def ends_alike_when_stopped(settings: Settings, parent: Path, at: Callable[[int], bool]) -> None:
    """Stop a run at these reports of progress, continue it, and compare it with the one in `parent`/whole."""
    stop, steps, stops = StopFlag(), 0, 0

    def count(progress: Any) -> None:
        nonlocal steps
        steps += 1
        stop.signum = 15 if at(steps) else stop.signum

    while True:
        try:
            run(settings, parent / "stopped", stop, count)
            break
        except Interrupted:
            stop.signum = None
            stops += 1
    assert stops
    whole, stopped = (
        {k: v for k, v in content(parent / which).items() if k != "run.yaml"}
        for which in ("whole", "stopped")
    )
    assert whole == stopped


def facts(root: Path, name: str, kind: str) -> dict[str, Any]:
    return dict(json.loads((root / name / f"{kind}.json").read_text()))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_stops_anywhere_and_ends_with_the_same_bytes(recipe, tmp_path, plm, gold_file) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(make_pairs(12, seed=9).sentences) + "\n")
    changes: dict[str, Any] = {"gold": {"source": str(gold_file), "weight": 2.0}, "max_pairs": 20}
    if recipe == "augsbert-gold":
        changes["gold"]["augment"] = ["delete", "noise"]
    else:
        changes["corpus"] = str(corpus)
    if recipe == "augsbert-few":
        changes |= {"sampler": "bm25:0.5,semantic:0.5", "cycles": 1, "remine": True}
    settings = settings_of(recipe, plm, **changes)
    session, outcome = run(settings, tmp_path / "whole")
    assert outcome.best[0].family == "bi"
    assert facts(tmp_path / "whole", "gold/mix", "mix")["gold_pairs"] == 16
    if recipe == "augsbert-few":
        assert (tmp_path / "whole/cycle-1/pairs/pairs.parquet").is_file()
        assert any("mined with gold/encoder/" in note for note in session.notes)
    ends_alike_when_stopped(settings, tmp_path, lambda step: step in (3, 8))


def test_kde_is_applied_to_the_labels_of_the_gold_teacher(tmp_path: Path, plm: Path) -> None:
    settings = settings_of(
        "augsbert-few", plm, sampler="kde:candidates=random:per_sentence=2", gold={"source": "demo-dev:30"}
    )
    run(settings, tmp_path / "run")
    report = facts(tmp_path / "run", "gold/mix", "mix")
    assert report["rule"]["rule"] == "kde"
    assert report["kept_pairs"] == report["rule"]["kept"]


@pytest.mark.parametrize(
    ("name", "text", "scored", "paired"),
    [
        ("a.tsv", "sentence1\tsentence2\tscore\na\tb\t1\n", True, True),
        ("a.csv", "text1,text2,label\na,b,1\n", True, True),
        ("a.jsonl", '{"sentence1": "a", "sentence2": "b"}\n', False, True),
        ("a.tsv", "sentence\tlabel\na\t1\n", True, False),
        ("a.txt", "a\nb\n", False, False),
        ("a.jsonl", "[1]\n", False, False),
        ("a.csv", '"open\n', False, False),
    ],
)
def test_a_file_is_known_by_its_columns(
    tmp_path: Path, name: str, text: str, scored: bool, paired: bool
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert (has_scores(path), is_table_of_pairs(path)) == (scored, paired)


def test_a_parquet_file_is_known_by_its_columns(tmp_path: Path) -> None:
    write_pairs(make_pairs(3, scored=True), tmp_path / "a.parquet")
    assert has_scores(tmp_path / "a.parquet") and is_table_of_pairs(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        has_scores(tmp_path / "b.parquet")
