"""examples/plugin works as an installed distribution, and plugins that do not work get one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import make_pairs
from tests.runs import run_command
from transenc import registry
from transenc.errors import ConfigError, DataError, MachineError
from transenc.models.intake import resolve
from transenc.models.loading import load_scorer
from transenc.samplers import mine
from transenc.samplers.kde import Kde
from transenc.scorer import BothOrders
from transenc.single_label import Scorers, mine_pairs
from transenc.stages.augment import augment_sentences
from transenc.stages.label import score_pairs

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
BROKEN = """
class Returns:
    family = "broken"
    def __init__(self, made): self.made = made
    def score(self, pairs): return self.made(pairs)
def family(made):
    class Family:
        def load(self, path, *, compute): return Returns(made)
    return Family
def fail(pairs): raise RuntimeError("no\\nservice")
raises, short, wide = family(fail), family(lambda pairs: [0.5]), family(lambda pairs: [[0.5]] * len(pairs))
class Bi(Returns):
    family = "bi"
    def encode(self, sentences): return self.made(sentences)
class deaf:
    def load(self, path, *, compute): return Bi(fail)
class flat:
    def load(self, path, *, compute): return Bi(lambda sentences: [0.5])
nan = family(lambda pairs: [float("nan")] * len(pairs))
class nothing:
    def load(self, path, *, compute): return None
class unloadable:
    def load(self, path, *, compute): raise KeyError("weights")
number = 3
def bare(): return {"path": "."}
def none(): return None
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put a distribution's metadata where importlib.metadata finds it, as pip would."""
    site = tmp_path / "site"

    def use(name: str, groups: dict[str, dict[str, str]], source: Path) -> None:
        info = site / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        lines = [
            f"[{g}]\n" + "\n".join(f"{k} = {v}" for k, v in found.items()) for g, found in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.syspath_prepend(source)
        registry._group.cache_clear()

    yield use
    registry._group.cache_clear()
    for module in ("transenc_overlap", "broken_plugin"):
        sys.modules.pop(module, None)


@pytest.fixture
def broken(install: Callable[..., None], tmp_path: Path) -> Callable[[str], str]:
    """Install a package of families of which none works; return the directory of a model of one."""
    (tmp_path / "broken_plugin.py").write_text(BROKEN)
    names = ("raises", "short", "wide", "nan", "nothing", "unloadable", "number", "deaf", "flat")
    families = {name: f"broken_plugin:{name}" for name in names}
    starts = {name: f"broken_plugin:{name}" for name in ("bare", "none")}
    install("broken-plugin", {registry.FAMILIES: families, registry.PLMS: starts}, tmp_path)

    def model(name: str) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"transenc_family": name}))
        return str(tmp_path / name)

    return model


def test_the_example_is_listed_mines_labels_and_is_evaluated(
    install: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(project["name"], project["entry-points"], EXAMPLE)
    assert run_command("backends", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["kind"], r["name"]) for r in rows if r["package"].startswith("transenc-overlap")] == [
        ("sampler", "following"),
        ("family", "overlap"),
    ]
    corpus, out, model = tmp_path / "corpus.txt", tmp_path / "out.tsv", str(EXAMPLE / "overlap")
    corpus.write_text("the cat sat\nthe cat ran\na dog ran\n")
    assert (
        run_command(
            "label", "--corpus", str(corpus), "--sampler", "following", "--teacher", model, "--out", str(out)
        )
        == 0
    )
    assert [line.split("\t")[-1] for line in out.read_text().splitlines()[1:]] == ["0.5", "0.2"]
    capsys.readouterr()
    assert run_command("evaluate", "demo", "--model", model) == 0
    assert " overlap " in capsys.readouterr().out
    assert run_command("export", "onnx", "--model", model, "--out", str(tmp_path / "engine")) == 2
    assert "The family 'overlap' has no ONNX export" in capsys.readouterr().err
    assert run_command("cycle", "--plm", model, "--corpus", str(corpus), "--dry-run") == 2
    assert "model_type 'None'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "The family 'broken' of package broken_plugin failed: RuntimeError: no service"),
        (
            "short",
            r"The family 'broken' of package broken_plugin returned scores of shape \(1,\) for 4 pairs",
        ),
        ("deaf", "The family 'bi' of package broken_plugin failed: RuntimeError: no service"),
        (
            "flat",
            r"The family 'bi' of package broken_plugin returned vectors of shape \(1,\) for 8 sentences",
        ),
        ("wide", r"returned scores of shape \(4, 1\) for 4 pairs"),
        (
            "nothing",
            "The family 'nothing' of package broken-plugin made a NoneType of .*, which is no scorer",
        ),
        ("unloadable", "The family 'unloadable' of package broken-plugin failed: KeyError: 'weights'"),
        (
            "number",
            "The plugin 'number' of package broken-plugin failed: TypeError: 'int' object is not callable",
        ),
    ],
)
def test_a_family_that_does_not_work_is_named(broken: Callable[[str], str], name: str, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        score_pairs(load_scorer(broken(name)), make_pairs(4))


def test_a_start_that_leaves_out_facts_is_named(broken: Callable[[str], str]) -> None:
    with pytest.raises(
        MachineError, match=r"The start 'bare' of package broken-plugin does not say its tuned, sha256"
    ):
        resolve("bare")
    with pytest.raises(
        MachineError, match=r"'none' of package broken-plugin does not say its path, tuned, sha256"
    ):
        resolve("none")


def test_only_judges_may_lack_weights_and_pickles_are_refused_all_the_same(
    broken: Callable[[str], str],
) -> None:
    from transenc.errors import RefusedError

    model = broken("nan")
    with pytest.raises(ConfigError, match="model_type 'None' is not one of"):
        resolve(model)
    (Path(model) / "weights.bin").write_bytes(b"\x80\x04")
    with pytest.raises(RefusedError, match="a pickle that can run code"):
        load_scorer(model)


@dataclass(frozen=True)
class Plugin:
    made: Any

    def sample(self, sentences: Any, rng: Any, *, encode: Any = None) -> Any:
        return self.made()

    def augment(self, sentences: Any, rngs: Any, *, fill: Any = None) -> Any:
        return self.made()


def fail() -> None:
    raise LookupError("the service\nis down")


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (fail, MachineError, "The sampler Plugin of package tests failed: LookupError: the service is down"),
        (lambda: None, MachineError, "The sampler Plugin of package tests failed: TypeError"),
        (
            lambda: [(0, 1), (1, 2), (2, 0)],
            MachineError,
            "The sampler Plugin of package tests failed: ValueError",
        ),
        (lambda: (["a"], ["b"]), DataError, "columns that are no pairs of 3 sentences"),
        (lambda: ([0.5], [1.0]), DataError, "columns that are no pairs of 3 sentences"),
        (lambda: (np.zeros((2, 2), int),) * 2, DataError, "columns that are no pairs of 3 sentences"),
    ],
)
def test_a_sampler_that_does_not_work_is_named(made: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mine(Plugin(made), ["a", "b", "c"], seed=0)


def test_those_behind_a_wrapper_of_ours_are_named_too(
    broken: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = load_scorer(broken("raises"))
    with pytest.raises(MachineError, match="'broken' of package broken_plugin failed"):
        score_pairs(BothOrders(judge), make_pairs(4))
    monkeypatch.setattr(Kde, "_sampler", lambda self: Plugin(fail))
    with pytest.raises(MachineError, match="The sampler Plugin of package tests failed: LookupError"):
        mine(Kde(), ["a", "b", "c"], seed=0)


def test_a_model_that_fails_in_a_search_is_named(broken: Callable[[str], str], tmp_path: Path) -> None:
    deaf = broken("deaf")
    with pytest.raises(MachineError, match="The family 'bi' of package broken_plugin failed: RuntimeError"):
        mine_pairs(["a", "b", "c"], "semantic:k=1", Scorers(), teacher=deaf)


def test_a_sampler_may_find_nothing() -> None:
    assert len(mine(Plugin(lambda: ([], [])), ["a", "b", "c"], seed=0)) == 0


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (
            fail,
            MachineError,
            "The augmenter 'mine' of package tests failed: LookupError: the service is down",
        ),
        (lambda: None, MachineError, "The augmenter 'mine' of package tests failed: TypeError"),
        (lambda: [1, 2], DataError, "The augmenter 'mine' made 2 sentences of 2, not one of each"),
    ],
)
def test_an_augmenter_that_does_not_work_is_named(
    made: Any, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "create", lambda group, spec: Plugin(made))
    with pytest.raises(error, match=message):
        augment_sentences(["a", "b"], ["mine"], seed=0)


def test_a_clash_of_names_ends_neither_the_list_nor_the_record_of_a_run(
    install: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transenc.record import environment

    install(
        "rival", {registry.SAMPLERS: {"bm25": "rival:Bm25"}, registry.FAMILIES: {"bi": "rival:Bi"}}, tmp_path
    )
    assert len(entry_points(group=registry.FAMILIES, name="bi")) > 1
    assert run_command("backends") == 0
    assert "rival 0.1" in capsys.readouterr().out
    assert "rival 0.1 and transenc" in environment()["plugins"]["transenc.samplers:bm25"]
    with pytest.raises(ConfigError, match="Two packages own the sampler name 'bm25'"):
        registry.create(registry.SAMPLERS, "bm25")
