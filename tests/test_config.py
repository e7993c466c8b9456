from __future__ import annotations

from typing import Any

import pytest

from transenc.config import (
    Settings,
    build,
    check_students,
    from_assignments,
    merge,
    parse_yaml,
    recipe_layers,
    recipes,
    to_assignments,
)
from transenc.errors import ConfigError


def settings(**values: Any) -> Any:
    return build({"plm": ["x"], **values})


def test_the_defaults_are_those_of_the_paper_for_sts() -> None:
    distill = settings().distill
    cross, bi = distill.cross, distill.bi
    assert (cross.learning_rate, cross.batch_size, cross.epochs, cross.max_length) == (2e-5, 32, 1, 64)
    assert (bi.learning_rate, bi.batch_size, bi.epochs, bi.max_length) == (5e-5, 128, 10, 32)
    assert (cross.warmup, bi.warmup, cross.weight_decay, cross.max_grad_norm) == (0.1, 0.0, 0.01, 1.0)
    assert (cross.start, bi.start, cross.both_orders, cross.evaluate_every) == ("base", "primed", None, 200)


def test_a_binary_task_takes_the_papers_epochs_and_cycles() -> None:
    chosen = build(merge(*recipe_layers("self", task="mrpc", metric="auc"), {"plm": ["x"]}))
    assert (chosen.cycles, chosen.distill.cross.epochs, chosen.distill.bi.epochs) == (5, 3, 15)


@pytest.mark.parametrize(
    "key", ["task", "pairs", "corpus", "dev", "bi_sampler", "prime.corpus", "gold.source"]
)
def test_an_empty_name_in_a_file_of_settings_is_refused(key: str) -> None:
    *groups, name = key.split(".")
    values: dict[str, Any] = {name: ""}
    for group in groups:
        values = {group: values}
    with pytest.raises(ConfigError, match=f"Setting '{key}' is '': name one, or leave it out"):
        settings(**values)


def test_mutual_has_the_settings_of_self_for_every_task() -> None:
    for task, metric in ((None, None), ("sts", "spearman"), ("mrpc", "auc")):
        own, mutual = (
            build(merge(*recipe_layers(name, task=task, metric=metric), {"plm": ["x", "y"], "recipe": "r"}))
            for name in ("self", "mutual")
        )
        assert own == mutual


def test_assignments_that_are_written_are_read_back() -> None:
    values = settings(
        pooling="mean", evaluate=["a", "b"], distill={"bi": {"average": "ema:0.99"}}
    ).model_dump()
    assert settings(**{k: v for k, v in from_assignments(to_assignments(values)).items() if k != "plm"}) == (
        build(values)
    )


def test_mutual_needs_two_students() -> None:
    with pytest.raises(ConfigError, match="Recipe 'mutual' needs 2 students and x is one: repeat --plm"):
        check_students("mutual", ["x"])
    check_students("mutual", ["x", "y"])
    check_students("self", ["x"])


def test_one_changed_key_keeps_the_rest_of_its_group() -> None:
    changed = settings(distill={"bi": {"epochs": 2}}).distill
    assert (changed.bi.epochs, changed.bi.batch_size) == (2, 128)
    assert changed.cross == settings().distill.cross


def test_mirror_brings_its_published_values_and_yields_to_the_user() -> None:
    prime = settings(prime={"method": "mirror", "batch_size": 50}).prime
    assert (prime.temperature, prime.span_mask, prime.head, prime.batch_size) == (0.04, 5, False, 50)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("distill.bi.learning_rate=2e-5", 2e-5),
        ("distill.bi.learning_rate=.5", 0.5),
        ("distill.bi.epochs=3", 3),
    ],
)
def test_assignments_are_read_as_the_numbers_they_look_like(assignment: str, value: object) -> None:
    key = assignment.split("=")[0].rpartition(".")[2]
    assert getattr(build(merge({"plm": ["x"]}, from_assignments([assignment]))).distill.bi, key) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cycels": 2}, r"No setting named 'cycels'. Did you mean 'cycles'\?"),
        ({"distill": {"bi": {"epoch": 2}}}, r"No setting named 'distill.bi.epoch'. Did you mean 'epochs'\?"),
        ({"cycles": -1}, "'cycles' is -1: Input should be greater than or equal to 0"),
        ({"cycles": "3"}, "'cycles' is '3': Input should be a valid integer"),
        ({"corpus": 3}, "'corpus' is 3: name a file of sentences, or a list of them."),
        ({"corpus": ["a.txt", 3]}, r"'corpus' is \['a.txt', 3\]: name a file of sentences"),
        ({"seed": True}, "'seed' is True: Input should be a valid integer"),
        ({"distill": {"bi": {"learning_rate": float("nan")}}}, "'distill.bi.learning_rate' is nan"),
        ({"select": "best"}, "'select' is 'best': Input should be 'auto', 'dev', 'last' or 'agreement'"),
        ({"distill": {"bi": {"objective": "cosin_mse"}}}, "Did you mean 'cosine_mse'"),
        ({"plm": []}, "'plm' is"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"plm": ["x"], **values})


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"distill": 3}], r"'distill' is 3, and it is a group .* such as distill.cross \(distill: {cross: "),
        ([from_assignments(["prime.epochs=2"]), {"prime": None}], "'prime' is None, .* such as prime.epochs"),
        (
            [{"distill": {"bi": "x"}}, {"distill": {"bi": {"epochs": 2}}}],
            "'distill.bi' is 'x', .* distill.bi.epochs",
        ),
        ([{"gold": {"teacher": []}}], r"'gold.teacher' is \[\], .* such as gold.teacher.epochs"),
    ],
)
def test_a_value_in_the_place_of_a_group_of_settings_is_refused(
    layers: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        merge({"plm": ["x"]}, *layers)
    if len(layers) == 1:
        with pytest.raises(ConfigError, match=message):
            build({"plm": ["x"], **layers[0]})


@pytest.mark.parametrize(
    "text",
    ["a: &x [1]\nb: *x", "a: !!python/object/apply:os.system ['true']", "a: [", "a: b: c",
     "a: 2026-13-01", "a: !!int x", "a: !!bool x", "a: " + "9" * 5000],
    ids=["alias", "object", "open", "colon", "month", "number", "truth", "digits"],
)  # fmt: skip
def test_yaml_that_is_broken_or_more_than_data_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="run.yaml"):
        parse_yaml(text, "run.yaml")


def test_an_unknown_recipe_names_the_close_one() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'self'\?"):
        recipe_layers("slef", task=None, metric=None)


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("task", [None, "sts", "mrpc", "demo"])
@pytest.mark.parametrize("raw", [False, True])
def test_every_recipe_is_valid_for_every_kind_of_task_and_start(
    name: str, task: str | None, raw: bool
) -> None:
    metric = {"mrpc": "auc"}.get(str(task), "spearman")
    build(merge(*recipe_layers(name, task=task, metric=metric, raw=lambda: raw), {"plm": ["x"]}))


def test_best_gives_a_raw_start_the_published_cross_encoder_and_a_tuned_one_the_segment_head() -> None:
    def best(task: str | None, *, raw: bool) -> Settings:
        return build(
            merge(*recipe_layers("best", task=task, metric="spearman", raw=lambda: raw), {"plm": ["x"]})
        )

    published = build(merge(*recipe_layers("self", task=None, metric=None), {"plm": ["x"]}))
    assert best("sts", raw=True).distill.cross == published.distill.cross
    assert best("sts", raw=True).sampler == published.sampler
    assert best("sts", raw=False).distill.cross.head == "segments"
    assert best("sts", raw=True).distill.bi == best("sts", raw=False).distill.bi
    assert best("demo", raw=True).distill == best("demo", raw=False).distill  # too small for a new head
    assert best("demo", raw=True).label == best("demo", raw=False).label


@pytest.mark.parametrize("text", ["cycles", "=3", "a..b=1", ".a=1", "a\nb=[1"])
def test_an_assignment_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set takes key=value"):
        from_assignments([text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a: [1,\n2",
            "run.yaml: not valid YAML at line 2, column 2: expected ',' or ']', but got '<stream end>'",
        ),
        (
            "a: 1\nb:\n  c: 1\n  c: 2\n",
            "run.yaml: not valid YAML at line 4, column 3: the key 'c' stands there twice",
        ),
        ("a: 2026-13-01", "run.yaml: not valid YAML: month must be in 1..12"),
    ],
)
def test_wrong_yaml_is_told_by_its_line_and_column(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    assert str(caught.value) == said
