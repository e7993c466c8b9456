from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import make_pairs
from transenc.config import build
from transenc.errors import ConfigError, Interrupted, LockedError, MachineError
from transenc.interrupt import StopFlag
from transenc.readers import read_pairs
from transenc.single import make_directory, output_file, refuse_existing
from transenc.single_label import Scorers, label_to, mine_pairs
from transenc.single_stages import distill_to, prime_to
from transenc.store import Store


def content(path: Path) -> dict[str, str]:
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in path.rglob("*")
        if p.is_file()
    }


def test_distil_compares_seeds_on_development_data(plm: Path, tmp_path: Path) -> None:
    fast = {"batch_size": 8, "max_length": 16, "learning_rate": 1e-3, "dropout": 0.3, "epochs": 4}
    pairs, dev = make_pairs(32, scored=True), make_pairs(12, seed=1, scored=True)

    def trained(name: str, **changes: Any) -> Any:
        facts = {"plm": [str(plm)], "precision": "fp32", "distill": {"cross": {**fast, **changes}}}
        return distill_to(build(facts), "cross", pairs, dev, tmp_path / name, device="cpu")

    plain, tried = trained("plain"), trained("tried", trials=4, trial_share=0.25)
    assert len(tried.history) == len(plain.history)
    assert tried.history[0][1] >= plain.history[0][1]
    with pytest.raises(ConfigError, match=r"trials compares seeds.*--dev FILE"):
        distill_to(
            build({"plm": [str(plm)], "distill": {"cross": {"trials": 2}}}),
            "cross",
            pairs,
            None,
            tmp_path / "no",
        )


@pytest.mark.parametrize("what", ["prime", "prime by pairs", "distill"])
def test_a_stopped_command_continues_to_the_same_bytes(what: str, plm: Path, tmp_path: Path) -> None:
    fast = {"batch_size": 8, "max_length": 16}
    settings = build(
        {
            "plm": [str(plm)],
            "precision": "fp32",
            "prime": {"method": "pairs" if "pairs" in what else "simcse", **fast},
            "distill": {"bi": fast},
        }
    )
    pairs = make_pairs(32 if "pairs" in what else 16, scored=True)

    def work(out: Path, **options: Any) -> Any:
        if what == "prime by pairs":
            return prime_to(settings, pairs, out, device="cpu", **options)
        if what == "prime":
            return prime_to(settings, list(pairs.sentences), out, device="cpu", **options)
        return distill_to(settings, "bi", pairs, None, out, device="cpu", **options)

    before = torch.random.get_rng_state()
    plain = work(tmp_path / "plain")
    assert torch.equal(torch.random.get_rng_state(), before)
    stop = StopFlag()

    def third(progress: Any) -> None:
        if progress.done == 3:
            stop.signum = 15

    with pytest.raises(Interrupted):
        work(tmp_path / "out", stop=stop, report=third)
    assert not (tmp_path / "out").exists()
    seen: list[int] = []
    resumed = work(tmp_path / "out", report=lambda progress: seen.append(progress.done))
    assert seen[0] == 4
    assert resumed == plain
    assert content(tmp_path / "out") == content(tmp_path / "plain")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "plain"]


def test_labels_are_made_from_python_and_continue_where_they_stopped(plm: Path, tmp_path: Path) -> None:
    scorers = Scorers(device="cpu", precision="fp32")
    pairs = make_pairs(16)
    plain = label_to([str(plm)], pairs, tmp_path / "plain.tsv", shard=4, scorers=scorers)
    stop = StopFlag()

    def second(progress: Any) -> None:
        if progress.done == 8:
            stop.signum = 15

    options: dict[str, Any] = {"shard": 4, "scorers": scorers}
    with pytest.raises(Interrupted):
        label_to([str(plm)], pairs, tmp_path / "out.tsv", stop=stop, report=second, **options)
    assert not (tmp_path / "out.tsv").exists()
    seen: list[int] = []
    label_to([str(plm)], pairs, tmp_path / "out.tsv", report=lambda p: seen.append(p.done), **options)
    assert seen[0] == 12
    assert (tmp_path / "out.tsv").read_bytes() == (tmp_path / "plain.tsv").read_bytes()
    assert read_pairs(tmp_path / "out.tsv", scores="required").scores == pytest.approx(plain.labels.values)
    with pytest.raises(ConfigError, match="exists already"):
        label_to([str(plm)], pairs, tmp_path / "out.tsv", **options)


def test_a_sampler_that_chooses_by_labels_needs_gold_ones_from_python_too(plm: Path, tmp_path: Path) -> None:
    scorers, pairs = Scorers(device="cpu", precision="fp32"), make_pairs(12)
    with pytest.raises(ConfigError, match="kde compares with gold labels"):
        mine_pairs(list(pairs.sentences), "kde", scorers, teacher=str(plm))
    with pytest.raises(ConfigError, match="kde compares with gold labels"):
        label_to([str(plm)], pairs, tmp_path / "out.tsv", sampler="kde", scorers=scorers)
    assert not list(tmp_path.iterdir())


def test_a_result_committed_before_a_crash_is_only_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def make(work: Path, checkpoints: object) -> None:
        made.append(1)
        (work / "model").write_text("weights")

    real = Path.rename

    def crash(self: Path, target: Path) -> Path:
        if self.name == "result":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        make_directory(tmp_path / "out", {"a": 1}, make)
    monkeypatch.undo()
    make_directory(tmp_path / "out", {"a": 1}, make)
    assert made == [1]
    assert (tmp_path / "out" / "model").read_text() == "weights"


def test_an_existing_output_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        make_directory(tmp_path / "out", {}, lambda work, checkpoints: None)


def test_of_two_commands_at_once_the_later_takes_nothing_of_the_earlier(tmp_path: Path) -> None:
    out, other = tmp_path / "out.tsv", tmp_path / "model"
    for path in (out, other):
        refuse_existing(path)  # both have looked
    with output_file(out) as (store, result):
        result.write_text("the earlier")
        with pytest.raises(LockedError, match="is in use by pid .* or name another --out"), store.lock():
            pass
    with pytest.raises(ConfigError, match=r"out\.tsv exists already\. .* remove it\.$"), output_file(out):
        raise AssertionError("work that would be lost")
    assert out.read_text() == "the earlier"

    def make(work: Path, checkpoints: object) -> None:
        other.mkdir()
        (other / "mine").write_text("the earlier")

    with pytest.raises(ConfigError, match="model exists already"):
        make_directory(other, {}, make)
    late = tmp_path / "late.tsv"
    # What is removed is not named as left.
    with (
        pytest.raises(ConfigError, match=r"late\.tsv exists already\. .* remove it\.$"),
        output_file(late) as (_, at),
    ):
        at.write_text("the later")
        late.write_text("the earlier")
    assert late.read_text() == (other / "mine").read_text() == "the earlier"
    assert not list(tmp_path.glob(".*.tsv.work"))


def test_work_goes_while_it_is_locked_or_the_next_process_would_lose_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def locked(path: Path, **options: Any) -> None:
        with pytest.raises(LockedError), Store(tmp_path / ".out.tsv.work").lock():
            pass
        seen.append(path.name)

    with output_file(tmp_path / "out.tsv") as (_, result):
        result.write_text("whole")
        monkeypatch.setattr("transenc.single.shutil.rmtree", locked)
    assert seen == [".out.tsv.work"]


def test_a_file_whose_command_was_killed_at_its_end_is_there_and_what_is_left_is_named(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.tsv"
    out.write_text("whole")
    (tmp_path / ".out.tsv.work" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"out\.tsv exists already\. .*\.out\.tsv\.work is left of a call"):
        refuse_existing(out)


def test_a_command_killed_after_its_last_rename_is_done(tmp_path: Path) -> None:
    def make(work: Path, checkpoints: Any) -> None:
        (work / "a").write_text("a")

    make_directory(tmp_path / "out", {"x": 1}, make)
    (tmp_path / ".out.work").mkdir()
    make_directory(tmp_path / "out", {"x": 1}, make)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / ".out.work").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        make_directory(tmp_path / "out", {"x": 2}, make)
    (tmp_path / "out" / "MANIFEST.json").write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        make_directory(tmp_path / "out", {"x": 1}, make)


def test_a_file_is_durable_before_its_checkpoints_go_and_leaves_no_part_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tsv"
    with pytest.raises(KeyboardInterrupt), output_file(out) as (_, path):
        path.write_text("a part")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == [".out.tsv.work"]
    synced: list[list[str]] = []
    monkeypatch.setattr(
        "transenc.single.sync", lambda path: synced.append(sorted(p.name for p in path.iterdir()))
    )
    with output_file(out) as (_, path):
        path.write_text("whole")
    assert synced == [[".out.tsv.work", "out.tsv"]]
    assert [p.name for p in tmp_path.iterdir()] == ["out.tsv"]


def test_a_failure_leaves_nothing_but_work_that_can_be_continued(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), output_file(tmp_path / "out.tsv") as (_, path):
        path.write_text("a part")
        raise ConfigError("no such model")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError), output_file(tmp_path / "out.tsv") as (store, _):
        store.checkpoints("scores", "x").save(1, lambda work: None)
        raise ConfigError("no such second model")
    with output_file(tmp_path / "out.tsv") as (store, path):
        assert store.checkpoints("scores", "x").latest() is not None
        path.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["out.tsv"]


def test_a_place_where_nothing_can_be_made_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="link exists already"):
        refuse_existing(tmp_path / "link")
    refuse_existing(tmp_path / "new" / "one.tsv")
    with pytest.raises(ConfigError, match="file is a file, so .*one.tsv cannot lie in it"):
        refuse_existing(tmp_path / "file" / "new" / "one.tsv")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(MachineError, match="may not be written to"):
        refuse_existing(tmp_path / "new" / "one.tsv")
    assert not (tmp_path / "new").exists()
