"""Check pretraining in seconds on a made-up corpus: it learns, resumes exactly, refuses what cannot work."""

# ruff: noqa: D103  (a test's name is its sentence)

import gzip
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from transenc.errors import ConfigError, DataError

from . import train
from .__main__ import main
from .corpus import RowOrder, TokenStream, read_sentences, repeat_sentences, seeded, segments, split_sentences
from .masking import mask_rows
from .settings import Settings
from .train import fit, rate_at
from .vocabulary import train_vocabulary

TINY = Settings(
    steps=40,
    rows=8,
    row_length=16,
    learning_rate=3e-3,
    warmup=4,
    layers=2,
    width=32,
    ffn=64,
    heads=2,
    positions=32,
)
TINY_OPTIONS = [
    *("--rows", "8", "--row-length", "16", "--layers", "2", "--width", "32", "--ffn", "64", "--heads", "2"),
    *(
        "--positions",
        "32",
        "--warmup",
        "4",
        "--learning-rate",
        "3e-3",
        "--vocabulary",
        "60",
        "--threads",
        "1",
    ),
]


def made_up_sentences(count: int = 3000) -> list[str]:
    """Build sentences with a grammar that a masked language model can learn."""
    rng = np.random.default_rng(0)
    nouns, verbs, places = ("dog cat bird cow".split(), "sees hears likes".split(), "farm yard town".split())
    drawn = zip(
        *(rng.choice(words, count) for words in (nouns, verbs, nouns, places)), range(count), strict=True
    )
    return [f"the {a} {v} a {b} at the {p} no {i}" for a, v, b, p, i in drawn]


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return made_up_sentences()


@pytest.fixture(scope="module")
def parts(corpus: list[str]) -> tuple[TokenStream, TokenStream, Tokenizer]:
    training, held_out = split_sentences(corpus)
    tokenizer = train_vocabulary(training, 110)
    return TokenStream.encode(training, tokenizer), TokenStream.encode(held_out, tokenizer), tokenizer


@pytest.fixture
def corpus_file(tmp_path: Path, corpus: list[str]) -> Path:
    file = tmp_path / "corpus.txt.gz"
    file.write_bytes(gzip.compress("\n".join(corpus).encode()))
    return file


@pytest.fixture(autouse=True)
def one_thread():
    """Fix the thread count, which decides the last bits of a sum."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def after(steps: int) -> Callable[[], bool]:
    """Ask to stop after so many steps of a process."""
    asked = iter(range(1, steps + 1))
    return lambda: next(asked) == steps


def saved(run: Path) -> dict[str, bytes]:
    (folder,) = (run / "checkpoints" / "pretrain").glob("step-*")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix == ".safetensors"}


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_loss_falls(tmp_path, parts, norm):
    lines = []
    settings = Settings(**{**vars(TINY), "norm": norm, "window": 0, "steps": 120})
    fit(*parts, settings, tmp_path, evaluate_every=20, on_log=lines.append)
    assert lines[-1]["held_out"] < lines[0]["held_out"] - 0.3
    assert lines[-1]["lr"] < settings.learning_rate / 10
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == lines


def test_counts_start_below_a_random_start(tmp_path, parts):
    first = {}
    for window in (0, 3):
        settings = Settings(**{**vars(TINY), "window": window, "steps": 1})
        fit(
            *parts,
            settings,
            tmp_path / str(window),
            on_log=lambda line, w=window: first.update({w: line["held_out"]}),
        )
    assert first[3] < first[0]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_resumed_run_ends_byte_identical(tmp_path, parts, dropout):
    settings = Settings(**{**vars(TINY), "dropout": dropout})
    fit(*parts, settings, tmp_path / "whole")
    fit(*parts, settings, tmp_path / "halves", stopping=after(17))
    fit(*parts, settings, tmp_path / "halves")
    assert saved(tmp_path / "whole") == saved(tmp_path / "halves")


def test_a_damaged_checkpoint_is_not_used(tmp_path, parts, caplog):
    fit(*parts, TINY, tmp_path / "whole")
    fit(*parts, TINY, tmp_path / "torn", stopping=after(17))
    (weights,) = (tmp_path / "torn").rglob("weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    fit(*parts, TINY, tmp_path / "torn")
    assert "weights.safetensors" in caplog.text
    newest = sorted((tmp_path / "torn").rglob("weights.safetensors"))[-1]
    assert newest.read_bytes() == saved(tmp_path / "whole")["weights.safetensors"]


def test_the_end_may_move_while_the_rate_is_constant(tmp_path, parts):
    fit(*parts, TINY, tmp_path, stopping=after(10))
    fit(*parts, Settings(**{**vars(TINY), "steps": 30}), tmp_path, stopping=after(15))
    with pytest.raises(ConfigError, match="planned with steps 30"):
        fit(*parts, TINY, tmp_path)


def test_other_settings_are_refused_by_name(tmp_path, parts):
    fit(*parts, TINY, tmp_path, stopping=after(2))
    with pytest.raises(ConfigError, match=r"mask_rate is 0.15 there, 0.3 here"):
        fit(*parts, Settings(**{**vars(TINY), "mask_rate": 0.3}), tmp_path)


def test_rows_begin_with_a_sentence_and_are_full(parts):
    training, _, tokenizer = parts
    rows = training.rows(32)
    assert (rows[:, 0] == tokenizer.token_to_id("[CLS]")).all()
    assert (rows[:, 1] == tokenizer.token_to_id("the")).all()
    assert (rows != tokenizer.token_to_id("[PAD]")).all()
    types = segments(rows, training.sep_id)
    assert types[:, 0].max() == 0 and types.max() == 1


def test_data_order_is_a_function_of_seed_and_step(parts):
    def rows_at(step: int, seed: int) -> np.ndarray:
        return RowOrder(parts[0], length=16, rows_per_step=8, seed=seed).at(step)

    late = RowOrder(parts[0], length=16, rows_per_step=8, seed=0)
    for step in range(600):
        reached = late.at(step)
    assert (reached == rows_at(599, 0)).all()
    assert (rows_at(3, 0) != rows_at(3, 1)).any()


def test_masking_hides_the_same_number_and_no_special_token(parts):
    rows = parts[0].rows(16)[:8]
    masked = mask_rows(rows, seeded(0), rate=0.3, mask_id=4, specials=5, vocabulary_size=110)
    assert len(masked.positions) == round(0.3 * rows.size)
    assert (masked.targets >= 5).all() and (masked.targets == rows.reshape(-1)[masked.positions]).all()
    kept = np.delete(masked.inputs.reshape(-1), masked.positions)
    assert (kept == np.delete(rows.reshape(-1), masked.positions)).all()
    again = mask_rows(rows, seeded(0), rate=0.3, mask_id=4, specials=5, vocabulary_size=110)
    assert (again.inputs == masked.inputs).all()


def test_equal_sentences_stay_on_one_side(corpus):
    training, held_out = split_sentences(corpus * 2)
    assert not set(training) & set(held_out)
    assert 0.005 < len(held_out) / len(corpus * 2) < 0.05


def test_the_rate_rises_holds_and_falls():
    settings = Settings(steps=100, warmup=10, decay_share=0.4, learning_rate=1.0)
    rates = [rate_at(step, settings) for step in range(100)]
    assert rates[0] == 0.1 and set(rates[9:60]) == {1.0} and rates[99] == pytest.approx(1 / 40)


def test_the_command_trains_and_packs(tmp_path, corpus_file, capsys):
    run, out = tmp_path / "run", tmp_path / "model"
    assert main(["train", str(corpus_file), "--run", str(run), "--steps", "5", *TINY_OPTIONS]) == 0
    assert main(["train", str(corpus_file), "--run", str(run), "--steps", "5", *TINY_OPTIONS]) == 0  # idle
    assert main(["pack", "--run", str(run), "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 5

    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model, loading = AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert model.config.hidden_dropout_prob == 0.1
    assert next(iter(load_file(out / "model.safetensors").values())).dtype == torch.float16
    tokenizer = AutoTokenizer.from_pretrained(out)
    pair = tokenizer("the dog", "the cat")
    pieces = tokenizer.convert_ids_to_tokens(pair["input_ids"])
    first = pieces.index("[SEP]") + 1
    assert pieces[:2] == ["[CLS]", "the"] and pieces[first] == "the" and pieces[-1] == "[SEP]"
    assert pair["token_type_ids"] == [0] * first + [1] * (len(pieces) - first)


def test_judging_tells_a_trained_model_from_random_weights(tmp_path, corpus_file, capsys):
    run = tmp_path / "run"
    command = ["train", str(corpus_file), "--run", str(run), "--steps", "40", *TINY_OPTIONS]
    assert main([*command, "--learning-rate", "1e-2"]) == 0
    found = {}
    for name, more in (("trained", []), ("random", ["--random-weights"])):
        out = tmp_path / name
        assert main(["pack", "--run", str(run), "--out", str(out), *more]) == 0
        capsys.readouterr()
        assert main(["judge", str(out), "--corpus", str(corpus_file)]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == 11 and all(len(line["answers"]) == 5 for line in lines[1:])
        found[name] = lines[0]
    assert found["trained"]["unigram"] == found["random"]["unigram"]
    assert found["trained"]["held_out"] < found["random"]["held_out"] - 0.5


def test_repeated_sentences_lose_words_and_rows_keep_their_length():
    sep = 3
    row = [2, *range(10, 20), sep, *range(20, 26), sep, *range(30, 43)]  # [CLS], two sentences, a cut one
    rows = np.asarray([row] * 400, dtype=np.int32)
    once = repeat_sentences(rows, 0.0, sep, np.random.default_rng(0))
    assert (once == rows).all()
    twice = repeat_sentences(rows, 0.5, sep, np.random.default_rng(0))
    changed = [found.tolist() for found in twice if (found != row).any()]
    assert twice.shape == rows.shape and 150 < len(changed) < 250
    lost = 0
    for found in changed:
        assert found[:12] == row[:12]
        copy = found[12 : found.index(sep, 12)]
        assert set(copy) <= set(range(10, 20)) and copy == sorted(copy)
        lost += 10 - len(copy)
        rest = found[13 + len(copy) :]
        assert rest[:7] == row[12:19]
    assert lost / len(changed) == pytest.approx(2.5, abs=0.4)


def test_a_run_goes_on_from_another_with_other_settings(tmp_path, corpus_file, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["train", str(corpus_file), *TINY_OPTIONS, "--steps", "40", "--run"]
    assert main([*command, str(one), "--until", "10"]) == 0
    capsys.readouterr()
    more = ["--start", str(one), "--repeat", "0.5", "--seed", "1", "--evaluate-every", "1"]
    assert main([*command, str(two), *more, "--until", "1"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (two / "vocabulary" / "tokenizer.json").read_bytes() == (
        one / "vocabulary" / "tokenizer.json"
    ).read_bytes()
    assert main([*command, str(two), *more, "--until", "2"]) == 0  # resumes itself
    assert main([*command, str(one), "--until", "11", "--evaluate-every", "1"]) == 0
    same = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["held_out"] == pytest.approx(same["held_out"], abs=0.15)  # it went on, not anew
    code, error = refused(capsys, *command, two, *more)  # the start has moved on
    assert code == 2 and "start is" in error
    code, error = refused(capsys, *command, tmp_path / "three", "--start", tmp_path)
    assert code == 2 and "holds no checkpoint" in error
    code, error = refused(capsys, *command, tmp_path / "four", "--start", one, "--ffn", "48")
    assert code == 2 and "another shape (ffn is" in error and "48 here" in error
    assert not (tmp_path / "four" / "vocabulary").exists()  # refused before any work


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    """Return exit code and the error lines of a command that must not trace back."""
    code = main([str(word) for word in argv])
    return code, "\n".join(
        line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no sentence"),
        (b"\n \n\n", "holds no sentence"),
        (b"one short line\n", "vocabulary"),
        (b"caf\xe9\n", "not UTF-8"),
    ],
)
def test_bad_text_ends_with_one_line_and_code_3(tmp_path, capsys, content, message):
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    code, error = refused(capsys, "train", file, "--run", tmp_path / "run", *TINY_OPTIONS)
    assert code == 3 and message in error and error.count("\n") == 0


def test_torn_gzip_and_missing_files_end_with_code_3(tmp_path, corpus_file, capsys):
    corpus_file.write_bytes(corpus_file.read_bytes()[:-100])
    for file in (corpus_file, tmp_path / "none.txt"):
        code, error = refused(capsys, "train", file, "--run", tmp_path / "run", *TINY_OPTIONS)
        assert code == 3 and str(file) in error


def test_a_vocabulary_larger_than_the_corpus_allows_ends_with_code_3(tmp_path, corpus_file, capsys):
    options = [*TINY_OPTIONS, "--vocabulary", "5000"]
    code, error = refused(capsys, "train", corpus_file, "--run", tmp_path / "run", *options)
    assert code == 3 and "5000 were asked for" in error


def test_a_corpus_too_small_for_one_step_ends_with_code_3(tmp_path, corpus_file, capsys):
    options = [*TINY_OPTIONS, "--rows", "100000"]
    code, error = refused(capsys, "train", corpus_file, "--run", tmp_path / "run", *options)
    assert code == 3 and "smaller --rows" in error


@pytest.mark.parametrize(
    "option", [("--heads", "3"), ("--steps", "0"), ("--mask-rate", "1"), ("--norm", "side")]
)
def test_bad_settings_end_with_code_2(tmp_path, corpus_file, capsys, option):
    code, error = refused(capsys, "train", corpus_file, "--run", tmp_path / "run", *TINY_OPTIONS, *option)
    assert code == 2 and option[0].strip("-").replace("-", "_") in error


def test_a_checkpoint_of_another_configuration_ends_with_code_2(tmp_path, corpus_file, capsys):
    command = ["train", str(corpus_file), "--run", str(tmp_path / "run"), "--steps", "2", *TINY_OPTIONS]
    assert main(command) == 0
    code, error = refused(capsys, *command, "--width", "64")
    assert code == 2 and "width is 32 there, 64 here" in error


def test_a_signal_ends_with_a_checkpoint_and_its_code(tmp_path, corpus_file, monkeypatch, capsys):
    run = tmp_path / "run"
    command = ["train", str(corpus_file), "--run", str(run), "--steps", "40", *TINY_OPTIONS]
    rate = train.rate_at

    def rate_then_signal(step: int, settings: Settings) -> float:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return rate(step, settings)

    monkeypatch.setattr(train, "rate_at", rate_then_signal)
    code, error = refused(capsys, *command)
    assert code == 128 + signal.SIGTERM and "SIGTERM" in error
    monkeypatch.setattr(train, "rate_at", rate)
    assert main(command) == 0
    # The same vocabulary, since its trainer breaks ties by chance.
    shutil.copytree(run, tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole" / "checkpoints")
    assert main([*command[:2], "--run", str(tmp_path / "whole"), *command[4:]]) == 0
    assert saved(run) == saved(tmp_path / "whole")


def test_packing_without_a_checkpoint_ends_with_code_2(tmp_path, capsys):
    code, error = refused(capsys, "pack", "--run", tmp_path / "run", "--out", tmp_path / "model")
    assert code == 2 and "no checkpoint" in error


def test_sentences_with_odd_line_separators_stay_whole(tmp_path):
    file = tmp_path / "odd.txt"
    file.write_text("one\u2028two\x0cthree\nfour\n", encoding="utf-8", newline="\n")
    assert read_sentences([file]) == ["one\u2028two\x0cthree", "four"]


def test_an_empty_list_of_files_is_refused():
    with pytest.raises(DataError, match="No corpus file"):
        read_sentences([])
