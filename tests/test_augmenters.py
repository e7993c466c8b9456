"""Augmenters change what they say they change, the same for the same seed, and name what they lack."""

from __future__ import annotations

import gzip
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from transenc import registry
from transenc.augmenters import as_written, generators, word_spans
from transenc.augmenters.contextual import Insert, Substitute
from transenc.augmenters.noise import Noise
from transenc.augmenters.synonyms import Synonyms, WordNet, read_table
from transenc.augmenters.wordnet import find_wordnet, read_wordnet
from transenc.augmenters.words import Delete, Repeat
from transenc.errors import ConfigError, DataError, MachineError

SENTENCES = ["The big dog runs across the field, quickly!", "Two men play guitars.", "Yes", "...", "42"]
EVERY = ("delete", "insert", "noise", "repeat", "substitute", "synonyms", "wordnet")


class Guess:
    """Stands for a masked language model: the same two words fit everywhere."""

    mask = "[MASK]"

    def words(self, texts, top):
        return [
            [[("small", 0.6), ("dog", 0.3), ("two", 0.1)][:top] for _ in range(t.count(self.mask))]
            for t in texts
        ]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.tsv"
    path.write_text("# mine\nbig\tlarge\thuge\ndog\tDog\thound\nfield\tmeadow\n\n", encoding="utf-8")
    return path


def augmenters(table: Path):
    return [Delete(), Repeat(), Noise(), Synonyms(str(table)), Insert(), Substitute()]


def run(augmenter, sentences=SENTENCES, seed=1, start=0):
    return augmenter.augment(sentences, generators(seed, "x", start, len(sentences)), fill=Guess())


def test_all_are_found_by_name() -> None:
    assert registry.names(registry.AUGMENTERS) == sorted(EVERY)
    assert registry.create(registry.AUGMENTERS, "delete:share=0.4") == Delete(0.4)


def test_every_option_has_a_sentence() -> None:
    for name in EVERY:
        found = fields(registry.load(registry.AUGMENTERS, name))
        assert found and all(field.metadata["help"].endswith(".") for field in found)


def test_the_seed_and_the_place_decide_and_the_neighbours_do_not(table: Path) -> None:
    for augmenter in augmenters(table):
        whole = run(augmenter)
        assert whole == run(augmenter)
        assert [run(augmenter, [s], start=i)[0] for i, s in enumerate(SENTENCES)] == whole
        long = [" ".join(["big dog field"] * 8)] * 4
        assert run(augmenter, long, seed=1) != run(augmenter, long, seed=2)


def test_sentences_with_nothing_to_change_stay(table: Path) -> None:
    for augmenter in augmenters(table):
        assert run(augmenter)[3] == "..."
        assert all(text.strip() for text in run(augmenter))
    assert run(Substitute())[4] == "42"


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_deletion_takes_words_out_and_leaves_at_least_one(share: float) -> None:
    for before, after in zip(SENTENCES, run(Delete(share)), strict=True):
        old, new = before.replace(",", "").split(), after.replace(",", "").split()
        assert set(new) <= set(old)
        assert len(word_spans(before)) < 2 or len(word_spans(before)) > len(word_spans(after)) >= 1


def test_repetition_doubles_words_in_place() -> None:
    after = run(Repeat(0.2))[0].replace(",", "").replace("!", "").split()
    once = [w for i, w in enumerate(after) if i == 0 or after[i - 1] != w]
    assert once == SENTENCES[0].replace(",", "").replace("!", "").split()
    assert len(after) == len(once) + 2


def test_noise_changes_letters_inside_longer_words_only() -> None:
    sentence = "The quick brown foxes jumped over it"
    for seed in range(40):
        after = run(Noise(1.0), [sentence], seed)[0].split()
        for old, new in zip(sentence.split(), after, strict=True):
            assert (old[0], old[-1]) == (new[0], new[-1])
            assert old == new if len(old) < 4 else abs(len(old) - len(new)) <= 1
        assert after != sentence.split()


def test_noise_leaves_numbers_alone() -> None:
    for seed in range(10):
        after = run(Noise(1.0), ["In 2021 it cost 15000 dollars, says no2017"], seed)[0]
        assert after.split()[:5:2] == ["In", "it", "15000"] and "2021" in after and after.endswith(" no2017")


def test_words_are_whole_where_marks_stand_over_letters_and_no_spaces_between() -> None:
    hindi, chinese = "हिन्दी में लिखा हुआ वाक्य", "今天天气很好"
    for seed in range(10):
        for sentence, kept in ((hindi, hindi.split()), (chinese, list(chinese))):
            after = run(Delete(0.3), [sentence], seed)[0]
            left = after.split() if " " in sentence else list(after)
            assert 0 < len(left) < len(kept) and all(word in kept for word in left)


def test_synonyms_come_from_the_table_with_the_capitals_of_the_word(table: Path) -> None:
    sentence = "Big dogs and a big DOG."
    found = {run(Synonyms(str(table), 1.0), [sentence], seed)[0] for seed in range(20)}
    assert found == {f"{a} dogs and a {b} HOUND." for a in ("Large", "Huge") for b in ("large", "huge")}
    assert as_written("wire fox", "Dog") == "Wire fox"


def test_a_ppdb_table_gives_equivalent_single_words(tmp_path: Path) -> None:
    lines = [
        "[NN] ||| auto ||| car ||| PPDB2.0Score=5 ||| 0-0 ||| Equivalence",
        "[NN] ||| auto ||| vehicle ||| PPDB2.0Score=4 ||| 0-0 ||| ForwardEntailment",
        "[NP] ||| the auto ||| the car ||| PPDB2.0Score=4 ||| 0-0 1-1 ||| Equivalence",
        "[VB] ||| buy ||| purchase ||| Abstract=0 ||| 0-0",
    ]
    path = tmp_path / "ppdb.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert read_table(path) == {"auto": ["car"], "buy": ["purchase"]}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, DataError, "no such file"),
        ("big\n", DataError, ":1: expected word<TAB>synonym"),
        ("a\tb\nx ||| y ||| z\n", DataError, ":2: a PPDB line has at least 4 fields, this one 3"),
        ("dog\tdog\n", ConfigError, "holds no synonyms"),
        ("", ConfigError, "holds no synonyms"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path: Path, content, error, message) -> None:
    path = tmp_path / "t.tsv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message) as caught:
        run(Synonyms(str(path)))
    assert str(path) in str(caught.value)


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    """Two synsets in WordNet's file format, with offsets as there."""
    notice = "  1 This notice is indented, as the licence is.\n"
    first = "{:08d} 06 n 03 car 0 auto 0 motor_car 0 000 | a motor vehicle\n"
    second = "{:08d} 06 n 02 car 1 railcar 0 000 | a wheeled vehicle on rails\n"
    third = "{:08d} 00 s 02 big(a) 0 large 0 000 | above average\n"
    a = len(notice)
    b = a + len(first.format(a))
    (tmp_path / "data.noun").write_text(notice + first.format(a) + second.format(b))
    index = f"{notice}car n 2 1 @ 2 2 {a:08d} {b:08d}  \nauto n 1 1 @ 1 0 {a:08d}  \nan n 1 0 1 0 {a:08d}  \n"
    (tmp_path / "index.noun").write_text(index)
    (tmp_path / "data.adj").write_text(notice + third.format(a))
    (tmp_path / "index.adj").write_text(f"big a 1 0 1 1 {a:08d}  \ncar a 1 0 1 0 {a:08d}  \n")
    for part in ("verb", "adv"):
        (tmp_path / f"data.{part}").write_text(notice)
        (tmp_path / f"index.{part}").write_text(notice)
    return tmp_path


def test_wordnet_gives_the_words_of_the_most_frequent_meaning(wordnet: Path) -> None:
    assert read_wordnet(wordnet) == {
        "car": ["auto", "motor car"],
        "auto": ["car", "motor car"],
        "big": ["large"],
    }
    assert read_wordnet(wordnet, senses=2)["car"] == ["auto", "motor car", "railcar"]
    assert run(WordNet(str(wordnet), 1.0), ["A big tree"])[0] == "A large tree"


def test_wordnet_files_with_windows_line_ends_are_read_alike(wordnet: Path) -> None:
    expected = read_wordnet(wordnet)
    for file in wordnet.glob("*.*"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_wordnet(wordnet) == expected


def test_wordnet_is_looked_for_and_asked_for(wordnet: Path, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setattr("transenc.augmenters.wordnet._places", lambda: iter([wordnet]))
    assert find_wordnet() == wordnet
    monkeypatch.setattr("transenc.augmenters.wordnet._places", lambda: iter([]))
    with pytest.raises(MachineError, match="wordnet-base"):
        find_wordnet()
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match="index.noun is missing"):
        find_wordnet(str(empty))
    (wordnet / "data.noun").write_text("other\n")
    with pytest.raises(DataError, match="do not belong together"):
        read_wordnet(wordnet)


def test_the_environment_names_wordnet(wordnet: Path, monkeypatch) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(wordnet))
    assert find_wordnet() == wordnet


def test_insertion_puts_expected_words_between_others() -> None:
    for seed in range(10):
        after = run(Insert(share=0.3, top=1), ["The dog runs home."], seed)[0]
        words = after.removesuffix(".").split()
        assert [w for w in words if w != "small"] == ["The", "dog", "runs", "home"]
        assert words[0] == "The" and words.count("small") == 1


def test_substitution_never_puts_back_the_word_itself() -> None:
    found = {run(Substitute(share=1.0, top=2), ["Dog 7"], seed)[0] for seed in range(30)}
    assert found == {"Small 7", "Two 7"}


@pytest.mark.parametrize("augmenter", [Insert(), Substitute()])
def test_a_sentence_that_holds_the_mask_itself_stays(augmenter: Insert | Substitute) -> None:
    sentences = ["Fill [MASK] in every single row", "Two men play"]
    before, after = run(augmenter, sentences)
    assert before == sentences[0] and after != sentences[1]


def test_contextual_augmenters_ask_for_a_model() -> None:
    with pytest.raises(ConfigError, match="model=NAME"):
        Insert().augment(["a b"], generators(0, "x", 0, 1))


@pytest.mark.parametrize(
    "spec",
    ["delete:share=0", "repeat:share=1.5", "noise:share=-1", "synonyms", "wordnet:senses=0", "insert:top=0"],
)
def test_bad_options_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        registry.create(registry.AUGMENTERS, spec)


def test_a_masked_language_model_fills_gaps_with_whole_words(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertForMaskedLM

    from tests.tiny import tiny_tokenizer
    from transenc.models.device import Compute
    from transenc.models.masked_lm import load_masked_lm
    from transenc.models.transformer import quiet

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    with quiet():
        BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_masked_lm(tmp_path, "tiny", Compute("cpu", "fp32"))
    long = "dog " * 30 + "[MASK]"  # the gap is beyond the model's length
    found = model.words(["the [MASK] runs [MASK]", "no gap", long], 5)
    assert [len(gaps) for gaps in found] == [2, 0, 0]
    assert all(word.isalpha() and not word.startswith("##") for word, _ in found[0][0])
    assert [p for _, p in found[0][0]] == sorted((p for _, p in found[0][0]), reverse=True)
    assert len(model.words(["the [MASK]"], 10**6)[0][0]) > 5  # all words, if there are not so many
    alone = model.words(["the [MASK] runs [MASK]"], 5)[0]
    assert [w for w, _ in alone[0]] == [w for w, _ in found[0][0]]
    after = Substitute().augment(["the dog runs"], generators(0, "x", 0, 1), fill=model)[0]
    assert len(after.split()) == 3 and after != "the dog runs"
    assert Insert().augment(["dog " * 30], generators(3, "x", 0, 1), fill=model)[0].count("dog") == 30
    weights = load_file(tmp_path / "model.safetensors")
    weights["cls.predictions.transform.dense.weight"] = torch.ones(8, 16)  # which would be drawn at random
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="transform.dense.weight, or has it in another shape"):
        load_masked_lm(tmp_path, "tiny", Compute("cpu", "fp32"))


def test_a_model_without_a_masked_language_model_head_is_refused(plm: Path) -> None:
    from transenc.models.device import Compute
    from transenc.models.masked_lm import load_masked_lm

    with pytest.raises(ConfigError, match="is no masked language model"):
        load_masked_lm(plm, "tiny", Compute("cpu", "fp32"))


def test_np_generators_differ_between_sentences() -> None:
    first, second = generators(1, "x", 0, 2)
    assert isinstance(first, np.random.Generator)
    assert first.random() != second.random()
