from __future__ import annotations

import tracemalloc
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import make_pairs
from tests.tiny import ARCHITECTURES, LENGTH, tiny_plm
from transenc import objectives
from transenc.config import METHODS, OBJECTIVES, UNFIT, DistillSettings, PrimeSettings, build
from transenc.errors import ConfigError, DataError, Interrupted
from transenc.interrupt import StopFlag
from transenc.models.bi import BiFamily
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.models.transformer import load_tokenizer
from transenc.pairs import Pairs
from transenc.stages import prime as prime_module
from transenc.stages.distill import distill_model
from transenc.stages.label import score_pairs
from transenc.stages.prime import choose, mean_tokens, no_negatives, prime_model, whitened_embeddings
from transenc.stages.views import (
    delete_tokens,
    drop_heads,
    dropout,
    has_dropout,
    mask_spans,
    repeat_tokens,
)
from transenc.store import Store
from transenc.training import Fit

CPU = Compute("cpu", "fp32")
LONG = "the man is playing a guitar and the woman is eating an apple"


def fitting(settings: Any, stage: str = "stage") -> Fit:
    return Fit(settings, CPU, 1, stage)


def test_short_sentences_are_never_masked_and_long_ones_lose_the_span(plm: Path) -> None:
    torch.manual_seed(0)
    short, long = mask_spans(["a dog runs in the field today"[:29], LONG], load_tokenizer(plm), 5, "char")
    assert short == "a dog runs in the field today"[:29]
    before, after = long.split(" [MASK] ")
    assert LONG.startswith(before)
    assert LONG.endswith(after)
    assert len(before) + len(after) == len(LONG) - 5
    assert "[MASK]" in mask_spans([LONG[:30]], load_tokenizer(plm), 5, "char")[0]


def test_a_span_of_tokens_is_masked_whole(plm: Path) -> None:
    torch.manual_seed(1)
    (masked,) = mask_spans([LONG], load_tokenizer(plm), 2, "token")
    kept = masked.replace(" [MASK] ", " ").split()
    assert len(kept) == len(LONG.split()) - 2
    # One token less than the sentence has can be at two places.
    found = {tuple(masked.split()) for masked in mask_spans([LONG] * 20, load_tokenizer(plm), 13, "token")}
    assert found == {("[MASK]", "apple"), ("the", "[MASK]")}


@pytest.mark.parametrize("span", [14, 50])
def test_a_span_as_long_as_the_sentence_leaves_it_alone(span: int, plm: Path) -> None:
    assert mask_spans([LONG], load_tokenizer(plm), span, "token") == [LONG]


def test_repeated_tokens_stand_beside_themselves_and_special_ones_do_not(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=32)
    tokens = model.transformer.tokens([LONG, "a", "a dog runs"])
    special = model.transformer.tokenizer.all_special_ids
    lengths, few, repeated = set(), set(), set()
    for seed in range(30):
        torch.manual_seed(seed)
        more = repeat_tokens(tokens, np.array([1, 0, 2]), 0.32, special, 512)
        one, two = (more.ids[more.offsets[i] : more.offsets[i + 1]].tolist() for i in (0, 1))
        lengths.add(len(two) - int(tokens.lengths[0]))
        few.add(int(more.lengths[2] - tokens.lengths[2]))
        repeated |= {t for t, after in zip(two, two[1:], strict=False) if t == after}
        assert [t for t, after in zip(two, [*two[1:], -1], strict=True) if t != after] == tokens.ids[
            : tokens.offsets[1]
        ].tolist()
        assert two[0] != two[1]
        assert two[-1] != two[-2]
        assert len(one) <= 4  # of one plain token at most one more
    assert lengths == {0, 1, 2, 3, 4}  # 14 tokens * 0.32
    assert few == {0, 1, 2}  # of three tokens as many as two
    assert repeated == {*tokens.ids[: tokens.offsets[1]].tolist()} - {*special}
    for limit, longest in ((int(tokens.lengths[0]) + 2, 2), (int(tokens.lengths[0]), 0), (3, 0)):
        rows = repeat_tokens(tokens, np.zeros(40, np.int64), 0.32, special, limit)
        assert rows.lengths.max() == int(tokens.lengths[0]) + longest


def test_repeating_tokens_stays_within_the_positions(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=LENGTH)
    settings = build(
        {"plm": ["x"], "prime": {"method": "esimcse", "batch_size": 2, "max_length": LENGTH}}
    ).prime
    prime_model(model, [f"{LONG} " * 9, f"a {LONG} " * 9], settings, fitting(settings))


def test_deleted_tokens_leave_their_share_and_never_nothing(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=32)
    tokens, special = model.transformer.tokens([LONG, "a"]), model.transformer.tokenizer.all_special_ids
    torch.manual_seed(0)
    rows = delete_tokens(tokens, np.array([0, 1] * 200), 0.5, special)
    assert rows.lengths[1::2].tolist() == [3] * 200
    assert rows.lengths[0::2].min() >= 3
    assert rows.lengths[0::2].mean() - 2 == pytest.approx(0.75 * (int(tokens.lengths[0]) - 2), abs=0.5)
    # The share is a sequence's own: of 14 tokens none goes in (1 - 0.5**15) / 7.5 of all cases.
    assert np.mean(rows.lengths[0::2] == tokens.lengths[0]) == pytest.approx(1 / 7.5, abs=0.06)
    for i in range(0, 400, 2):  # in order, each at most once
        rest = iter(tokens.ids[: tokens.offsets[1]].tolist())
        assert all(token in rest for token in rows.ids[rows.offsets[i] : rows.offsets[i + 1]].tolist())


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_heads_drop_in_training_alone_and_the_rest_is_scaled(kind: str, tmp_path: Path) -> None:
    model = BiFamily().create(tiny_plm(tmp_path / kind, kind), compute=CPU, max_length=16, pooling="mean")
    tokens, index = model.transformer.tokens(["a dog runs"]), np.zeros(400, np.int64)
    with torch.no_grad(), dropout(model.module, 0.0):
        model.transformer.padded = True  # as while heads drop: the same way of attention gives the same bits
        plain = model.vectors(tokens, index[:1])
        model.transformer.padded = False
        with drop_heads(model.transformer, 0.5):
            assert model.transformer.padded
            model.module.eval()
            assert torch.equal(model.vectors(tokens, index[:1]), plain)
            model.module.train()
            torch.manual_seed(0)
            dropped = model.vectors(tokens, index)
        assert not model.transformer.padded
        assert len(dropped.round(decimals=5).unique(dim=0)) > 2
        model.module.train()
        torch.testing.assert_close(model.vectors(tokens, index[:1]), plain)


@pytest.mark.parametrize("p", [0.05, 0.2, 0.9])
def test_heads_that_are_left_make_up_for_those_that_dropped(p: float) -> None:
    module = nn.ModuleDict(
        {"attention": nn.ModuleDict({"output": nn.ModuleDict({"dense": nn.Linear(12, 12)})})}
    )
    module.config = SimpleNamespace(num_attention_heads=4, model_type="bert")  # type: ignore[assignment]
    layer: Any = module.get_submodule("attention.output.dense")
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    states = torch.rand(300, 5, 12) + 1
    torch.manual_seed(0)
    with torch.no_grad(), drop_heads(SimpleNamespace(module=module, padded=False), p):  # type: ignore[arg-type]
        found = layer(states)
    seen = set()
    for before, after in zip(states, found, strict=True):
        kept = [
            bool(after[:, 3 * h : 3 * h + 3].any()) for h in range(4)
        ]  # a head goes for all tokens or for none
        seen.add(sum(kept))
        for h in range(4):
            wanted = before[:, 3 * h : 3 * h + 3] * (4 / sum(kept) if kept[h] else 0)
            torch.testing.assert_close(after[:, 3 * h : 3 * h + 3], wanted)
    assert len(seen) > 1
    assert (0 in seen) == (p == 0.9)  # where every head dropped there are zeros, no NaN


def test_a_head_drops_for_a_whole_sequence_at_its_rate() -> None:
    layer = nn.Linear(8, 8, bias=False)
    nn.init.eye_(layer.weight)
    module = nn.ModuleDict({"attention": nn.ModuleDict({"dense": layer})})
    module.config = SimpleNamespace(num_attention_heads=4)  # type: ignore[assignment]
    transformer: Any = SimpleNamespace(module=module, padded=False)
    torch.manual_seed(0)
    with drop_heads(transformer, 0.25):
        states = layer(torch.ones(2000, 3, 8)).view(2000, 3, 4, 2)
    heads = states[:, 0, :, 0]
    assert (states == heads[:, None, :, None]).all()
    assert (heads == 0).float().mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.05)


def test_whitened_embeddings_make_mean_vectors_white(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=32)
    tokens = model.transformer.tokens(list(make_pairs(300).sentences))
    table = whitened_embeddings(model.module, tokens)
    means = mean_tokens(table, tokens, np.arange(len(tokens)))
    assert means.mean(0).abs().max() < 1e-4
    kept = means.shape[1]
    torch.testing.assert_close(torch.cov(means.T), torch.eye(kept), atol=2e-2, rtol=0)
    # By hand: the first and the last token are special and not counted; an empty sentence has only these.
    row = tokens.ids[tokens.offsets[7] + 1 : tokens.offsets[8] - 1]
    torch.testing.assert_close(means[7], table[torch.from_numpy(row.astype(np.int64))].mean(0))
    empty = model.transformer.tokens([""])
    assert mean_tokens(table, empty, np.array([0])).shape == (1, kept)


@pytest.mark.parametrize("n", [12, 32, 40])
def test_whitening_few_sentences_still_tells_them_apart(n: int, plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=32)
    tokens = model.transformer.tokens(list(make_pairs(n // 2).sentences))
    table: Any = model.module.get_input_embeddings().weight.detach()
    own, means = (
        mean_tokens(words, tokens, np.arange(n))
        for words in (table, whitened_embeddings(model.module, tokens))
    )
    unit = F.normalize(means, dim=1)
    cosines = (unit @ unit.T)[~torch.eye(n, dtype=torch.bool)]
    assert cosines.std() > 0.05  # 4e-8 of plainly whitened vectors of as many dimensions
    # All 32 variances were raised by the same: a quarter of their mean, times how far n is below 4 a dimension.
    before, after = (torch.linalg.eigvalsh(torch.cov(each.T.double())) for each in (own, means))
    raised = before + (32 / n - 1 / 4) / 4 * before.mean()
    torch.testing.assert_close(after, before / raised, atol=1e-3, rtol=0)


def test_whitening_teaches_the_whitened_cosines(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16, pooling="mean")
    sentences = list(make_pairs(200).sentences)
    tokens = model.transformer.tokens(sentences)
    means = mean_tokens(whitened_embeddings(model.module, tokens), tokens, np.arange(len(tokens)))
    wanted = F.normalize(means, dim=1)

    def agreement() -> float:
        found = torch.from_numpy(model.encode(sentences))
        upper = torch.triu_indices(len(found), len(found), 1)
        pair = [(x @ x.T)[upper[0], upper[1]].numpy() for x in (found, wanted)]
        return float(np.corrcoef(*pair)[0, 1])

    before = agreement()
    settings = build(
        {
            "plm": ["x"],
            "prime": {"method": "whitening", "batch_size": 32, "learning_rate": 2e-3, "epochs": 10},
        }
    ).prime
    prime_model(model, sentences, settings, fitting(settings))
    assert agreement() > before + 0.1


def test_whitening_compares_each_view_with_the_whitened_mean_of_its_own_words(
    plm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, start = (BiFamily().create(plm, compute=CPU, max_length=16, pooling="mean") for _ in range(2))
    sentences, index = list(make_pairs(5).sentences), np.arange(10)
    table = whitened_embeddings(model.module, model.transformer.tokens(sentences))
    views, compared = [], []

    def left_out(*given: Any) -> Any:
        views.append(delete_tokens(*given))
        return views[-1]

    def loss(*given: Any) -> Any:
        compared.append(given)
        return objectives.cosine_matrix_mse(*given)

    monkeypatch.setattr(prime_module, "delete_tokens", left_out)
    monkeypatch.setattr(prime_module, "cosine_matrix_mse", loss)
    settings = build({"plm": ["x"], "prime": {"method": "whitening", "batch_size": 10, "epochs": 1}}).prime
    prime_model(model, sentences, settings, fitting(settings))
    assert len(views[0].ids) != len(views[1].ids)
    for view, found, wanted in zip(views[:2], compared[0][:2], compared[0][2:], strict=True):
        torch.testing.assert_close(found, start.vectors(view, index))
        torch.testing.assert_close(wanted, mean_tokens(table, view, index))


def test_unknown_heads_are_refused_by_name() -> None:
    module = nn.Linear(2, 2)
    module.config = SimpleNamespace(num_attention_heads=2, model_type="mystery")  # type: ignore[assignment]
    transformer: Any = SimpleNamespace(module=module)
    with pytest.raises(ConfigError, match="'mystery' model are not known"), drop_heads(transformer, 0.1):
        pass


@pytest.mark.parametrize("method", list(METHODS))
def test_priming_pulls_the_two_views_together(method: str, plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16, pooling="mean")
    settings = build(
        {"plm": ["x"], "prime": {"method": method, "batch_size": 32, "learning_rate": 1e-3, "epochs": 6}}
    ).prime
    pairs = make_pairs(80)
    run = fitting(settings)
    run.report = lambda progress: losses.append(progress.loss)
    losses: list[Any] = []
    prime_model(model, pairs if method == "pairs" else list(pairs.sentences), settings, run)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        ("simcse", objectives.info_nce),
        ("mirror", objectives.nt_xent),
        ("mirror-drophead", objectives.nt_xent),
    ],
)
def test_the_loss_of_priming_is_that_of_its_method_at_its_temperature(
    method: str, loss: Any, plm: Path
) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=24, pooling="mean")
    sentences = list(make_pairs(5).sentences)
    vectors = torch.from_numpy(model.encode(sentences))
    own = {"temperature": 0.3, "dropout": 0.0, "head": False, "span_mask": 0, "drop_heads": 0.0}
    settings = build({"plm": ["x"], "prime": {"method": method, "batch_size": 10, "epochs": 1, **own}}).prime
    run, losses = fitting(settings), []
    run.report = lambda progress: losses.append(progress.loss)
    prime_model(model, sentences, settings, run)
    assert losses == [pytest.approx(loss(vectors, vectors, 0.3).item(), rel=1e-5)]


@pytest.mark.parametrize("repeated", [False, True])
def test_pairs_are_learnt_as_by_multiple_negatives_ranking(repeated: bool, plm: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = BiFamily().create(plm, compute=CPU, max_length=16, pooling="mean")
    model.save(tmp_path / "start")
    pairs = make_pairs(12)
    if repeated:  # where one right side belongs to two left ones, they must not tell it apart
        pairs = Pairs.from_rows(
            [a for a, _ in pairs.rows()], [b for _, b in pairs.take(np.arange(12) // 2).rows()]
        )
    values = {"method": "pairs", "batch_size": 12, "dropout": 0.0, "temperature": 0.04}
    settings = build({"plm": ["x"], "prime": values}).prime
    run, losses = fitting(settings), []
    run.report = lambda progress: losses.append(progress.loss)
    prime_model(model, pairs, settings, run)

    peer = SentenceTransformer(str(tmp_path / "start"), device="cpu", local_files_only=True).eval()
    loss = MultipleNegativesRankingLoss(peer, scale=1 / 0.04)
    features = [peer.preprocess(column) for column in map(list, zip(*pairs.rows(), strict=True))]
    theirs = loss(features, torch.tensor(0))
    if repeated:
        assert losses[0] < theirs.item() - 0.01
    else:
        assert losses == pytest.approx([theirs.item()], abs=1e-5)


def test_what_belongs_to_a_sentence_is_none_of_its_negatives() -> None:
    rows = [("a", "b"), ("c", "d"), ("A!", "e"), ("f", "a"), ("d", "g"), ("h", "i")]
    some = np.arange(5)
    found = no_negatives(Pairs.from_rows(*zip(*rows, strict=True)))(some, some)
    alike = {(i, j) for i, j in zip(*np.nonzero(found), strict=True) if i != j}
    assert found.diagonal().all()
    # To "a" belong "b", "e" and, in the fourth pair, "a" itself; to "d" in the last one that of the second.
    assert alike == {(0, 2), (0, 3), (2, 0), (2, 3), (4, 1)}


def test_pairs_beyond_a_sample_still_tell_what_is_no_negative(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16)
    chain = [f"a man number {i}" for i in range(40)]  # each stands in a pair with all others
    pairs = Pairs.from_rows(*zip(*((a, b) for a in chain for b in chain if a < b), strict=True))
    settings = build({"plm": ["x"], "prime": {"method": "pairs", "max_sentences": 8}}).prime
    with pytest.raises(
        DataError, match="each left side of the 8 pairs stands in a pair with every right one"
    ):
        prime_model(model, pairs, settings, fitting(settings))


@pytest.mark.parametrize("turned", [False, True])
def test_pairs_that_all_share_a_sentence_are_refused_and_one_other_is_enough(turned: bool, plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16)
    rows = [(hub, f"a man number {i}") for i, hub in enumerate(["The hub", "the hub."] * 4)]
    settings = build({"plm": ["x"], "prime": {"method": "pairs"}}).prime

    def losses(given: list[tuple[str, str]]) -> list[tuple[int, float]]:
        pairs = Pairs.from_rows(*zip(*given, strict=True))
        return prime_model(model, pairs.flipped() if turned else pairs, settings, fitting(settings)).losses

    with pytest.raises(DataError, match="of the 8 pairs stands .* so none has a negative. Add pairs about"):
        losses(rows)
    assert losses([*rows, ("a dog", "a cat")])[-1][1] > 0


@pytest.mark.parametrize("arch", ["albert", "modernbert", "bert"])
def test_views_differ_of_models_with_and_without_dropout_of_their_own(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BiFamily().create(tiny_plm(tmp_path / arch, arch), compute=CPU, max_length=16)
    assert has_dropout(model.module) == (arch == "bert")
    apart: list[float] = []
    real = prime_module.info_nce

    def seen(first: Any, second: Any, temperature: float) -> Any:
        if first.requires_grad:  # what is measured at the end has no dropout
            apart.append((first - second).abs().max().item())
        return real(first, second, temperature)

    monkeypatch.setattr(prime_module, "info_nce", seen)
    settings = build({"plm": ["x"], "prime": {"method": "simcse", "batch_size": 8}}).prime
    prime_model(model, list(make_pairs(8).sentences), settings, fitting(settings))
    assert min(apart) > 1e-3
    assert has_dropout(model.module) == (arch == "bert")


def test_the_head_of_priming_is_not_kept(plm: Path, tmp_path: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16, pooling="cls")
    settings = PrimeSettings(method="simcse", batch_size=8)
    prime_model(model, list(make_pairs(8).sentences), settings, fitting(settings))
    model.save(tmp_path / "saved")
    names = set(model.module.state_dict())
    assert not [n for n in names if "head" in n]
    assert names == set(BiFamily().load(tmp_path / "saved", compute=CPU).module.state_dict())


def test_dropout_makes_two_training_views_differ_and_scoring_is_steady(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16, pooling="mean")
    tokens = model.transformer.tokens(["a dog runs"])
    model.module.train()
    with torch.no_grad():
        a, b = model.vectors(tokens, np.array([0, 0]))
        assert not torch.equal(a, b)
        with dropout(model.module, 0.0):
            a, b = model.vectors(tokens, np.array([0, 0]))
        assert torch.equal(a, b)
    np.testing.assert_array_equal(model.encode(["a dog runs"]), model.encode(["a dog runs"]))


def test_dropout_reaches_the_attention_and_the_own_one_comes_back(plm: Path) -> None:
    module = BiFamily().create(plm, compute=CPU, max_length=16).module
    with dropout(module, 0.37):
        assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} == {0.37}
        assert module.config.attention_probs_dropout_prob == 0.37  # type: ignore[union-attr]
        with dropout(module, None):
            assert module.config.hidden_dropout_prob == 0.37  # type: ignore[union-attr]
    assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert module.config.attention_probs_dropout_prob == 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize(("p", "same"), [(0.0, True), (None, False)])
@pytest.mark.parametrize("family", ["bi", "cross"])
def test_without_dropout_nothing_random_is_left_in_a_step(plm: Path, family: str, p: Any, same: bool) -> None:
    silver = make_pairs(8).with_scores(np.linspace(0, 1, 8))
    objective = "cosine_mse" if family == "bi" else "soft_bce"
    settings = DistillSettings(objective=objective, batch_size=16, dropout=p, learning_rate=1e-3)
    trained = []
    for stage in ("one", "another"):  # other seeds of the steps; all pairs are one batch
        torch.manual_seed(0)
        create = BiFamily().create if family == "bi" else CrossFamily().create
        model: Any = create(plm, compute=CPU, max_length=16)
        distill_model(model, silver, settings, fitting(settings, stage))
        assert model.module.config.hidden_dropout_prob == 0.1
        trained.append(model.score(silver))
    assert np.allclose(*trained, atol=1e-6) == same


def test_too_many_sentences_are_sampled_by_seed() -> None:
    sentences = [str(i) for i in range(100)] * 2
    assert choose(sentences, 10, 1).sentences == choose(sentences, 10, 1).sentences
    assert choose(sentences, 10, 1).sentences != choose(sentences, 10, 2).sentences
    assert len(choose(sentences, 1000, 1)) == 100
    chosen = choose(sentences, 10, 1)  # in the order that they had
    assert sorted(chosen.sentences, key=int) == list(chosen.sentences)
    assert chosen.left.tolist() == chosen.right.tolist() == list(range(10))


def test_one_sentence_cannot_be_primed_on(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16)
    settings = PrimeSettings(method="simcse")
    with pytest.raises(DataError, match="needs at least 2 different sentences, not 1"):
        prime_model(model, ["a", "a"], settings, fitting(settings))
    with pytest.raises(DataError, match="needs at least 2 different pairs, not 1"):
        prime_model(model, Pairs.from_rows(["a", "b", "a"], ["b", "a", "a"]), settings, fitting(settings))


@pytest.mark.parametrize(
    ("family", "objective"),
    [(f, name) for f in ("bi", "cross") for name in OBJECTIVES if (name, f) not in UNFIT],
)
def test_a_student_learns_its_labels(family: str, objective: str, plm: Path) -> None:
    pairs = make_pairs(40, scored=True)
    torch.manual_seed(0)
    made = {"bi": BiFamily, "cross": CrossFamily}[family]()
    model = made.create(plm, compute=CPU, max_length=24, pooling="mean")
    settings = DistillSettings(objective=objective, epochs=15, batch_size=8, learning_rate=2e-3)
    before = np.corrcoef(model.score(pairs), pairs.scores)[0, 1]
    run = fitting(settings)
    losses: list[Any] = []
    run.report = lambda progress: losses.append(progress.loss)
    distill_model(model, pairs, settings, run)
    after = np.corrcoef(model.score(pairs), pairs.scores)[0, 1]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    # Losses of the order alone need not make scores proportional to labels.
    by_order = objective in ("cosent", "angle", "listnet", "listmle")
    assert after > max(before, 0.6) if by_order else after > max(before + 0.2, 0.6)


@pytest.mark.parametrize("family", ["bi", "cross"])
def test_the_loss_of_a_step_is_the_objective_that_was_named(family: str, plm: Path) -> None:
    pairs = make_pairs(8).with_scores(np.linspace(0.1, 0.9, 8))  # without ties, which keep the batch's order
    model = {"bi": BiFamily, "cross": CrossFamily}[family]().create(
        plm, compute=CPU, max_length=24, pooling="mean"
    )
    start, labels = deepcopy(model.module.state_dict()), torch.tensor(pairs.scores)
    scores = torch.from_numpy(model.score(pairs))
    for name in (name for name in OBJECTIVES if (name, family) not in UNFIT):
        settings = DistillSettings(objective=name, epochs=1, batch_size=8, both_orders=False, dropout=0.0)
        run, losses = fitting(settings), []
        run.report = lambda progress: losses.append(progress.loss)  # noqa: B023
        model.module.load_state_dict(start)
        distill_model(model, pairs, settings, run)
        taken = {"soft_bce": scores.logit(), "kl": scores.logit()}.get(name, scores)
        if name == "angle":
            model.module.load_state_dict(start)
            model.transformer.changed()
            sides = [model.encode(pairs.column(side)) for side in (pairs.left, pairs.right)]
            taken = torch.from_numpy(np.stack(sides))
        wanted = getattr(objectives, name)(taken, labels).item()
        assert losses == [pytest.approx(wanted, rel=1e-4)], name


@pytest.mark.parametrize(
    ("symmetric", "both", "examples"), [(True, True, 20), (True, False, 10), (False, True, 10)]
)
def test_both_orders_are_trained_only_where_they_mean_the_same(
    symmetric: bool, both: bool, examples: int, plm: Path
) -> None:
    model = CrossFamily().create(plm, compute=CPU, max_length=24)
    settings = DistillSettings(batch_size=1, both_orders=both)
    run = fitting(settings)
    totals: list[int] = []
    run.report = lambda progress: totals.append(progress.total)
    distill_model(model, make_pairs(10, scored=True), settings, run, symmetric=symmetric)
    assert set(totals) == {examples}


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_labels_outside_the_unit_interval_are_refused(bad: float, plm: Path) -> None:
    model = CrossFamily().create(plm, compute=CPU, max_length=24)
    settings = DistillSettings()
    with pytest.raises(DataError, match=r"labels must lie in \[0, 1\]"):
        distill_model(model, Pairs.from_rows(["a"], ["b"], [bad]), settings, fitting(settings))


def test_labels_outside_the_unit_interval_are_learnt_only_to_compare(plm: Path) -> None:
    model = CrossFamily().create(plm, compute=CPU, max_length=24)
    settings = DistillSettings()
    pairs = Pairs.from_rows(["a", "a dog"], ["b", "a cat"], [-0.1, 0.9])
    assert distill_model(model, pairs, settings, fitting(settings), clipped=False).best_step == 1


def test_an_objective_that_does_not_fit_the_student_is_refused(plm: Path) -> None:
    model = CrossFamily().create(plm, compute=CPU, max_length=24)
    settings = DistillSettings(objective="angle")
    with pytest.raises(ConfigError, match="needs one vector a sentence"):
        distill_model(model, make_pairs(4, scored=True), settings, fitting(settings))


@pytest.mark.parametrize("family", ["bi", "cross"])
def test_labelling_stopped_between_shards_continues_without_repeating_one(
    family: str, plm: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = {"bi": BiFamily, "cross": CrossFamily}[family]().create(plm, compute=CPU, max_length=24)
    pairs = make_pairs(20)
    whole = score_pairs(model, pairs, shard=8)
    store, stop, seen = Store(tmp_path / "run"), StopFlag(), []

    def report(progress: Any) -> None:
        seen.append(progress.done)
        if len(seen) == 2:
            stop.signum = 2

    with store.lock():
        checkpoints = store.checkpoints("label", "x")
        with pytest.raises(Interrupted):
            score_pairs(model, pairs, shard=8, checkpoints=checkpoints, stop=stop, report=report)
        assert checkpoints.latest() is not None
        again = score_pairs(
            model, pairs, shard=8, checkpoints=checkpoints, report=lambda progress: seen.append(progress.done)
        )
    np.testing.assert_array_equal(again, whole)
    assert seen == sorted(set(seen))
    np.testing.assert_allclose(whole, model.score(pairs), atol=1e-6)


@pytest.mark.parametrize(
    ("shard", "seconds", "saved"), [(8, 0.0, [8, 16, 20]), (8, 60.0, [20]), (20, 0.0, [])]
)
def test_labels_are_kept_as_often_as_is_asked_and_at_the_end_where_there_are_several_shards(
    shard: int, seconds: float, saved: list[int]
) -> None:
    kept: list[int] = []
    checkpoints: Any = SimpleNamespace(latest=lambda: None, save=lambda done, write: kept.append(done))
    scorer: Any = SimpleNamespace(family="cross", score=lambda pairs: np.zeros(len(pairs)))
    score_pairs(scorer, make_pairs(20), shard=shard, checkpoints=checkpoints, checkpoint_seconds=seconds)
    assert kept == saved


def test_labelling_continues_in_no_more_memory_than_it_began(tmp_path: Path) -> None:
    n, width = 3_000, 512
    vectors = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    texts = [str(i) for i in range(n)]
    pairs = Pairs.from_rows(texts, texts[::-1])
    place, stop = {text: i for i, text in enumerate(pairs.sentences)}, StopFlag()
    encoder: Any = SimpleNamespace(family="bi", encode=lambda batch: vectors[[place[text] for text in batch]])

    def report(progress: Any) -> None:
        stop.signum = 2 if progress.done > 2_500 else None

    with Store(tmp_path / "run").lock():
        checkpoints = Store(tmp_path / "run").checkpoints("label", "x")
        with pytest.raises(Interrupted):
            score_pairs(encoder, pairs, shard=100, checkpoints=checkpoints, stop=stop, report=report)
        assert checkpoints.latest() is not None
        peaks: list[int] = []
        tracemalloc.start()
        again = score_pairs(
            encoder,
            pairs,
            shard=100,
            checkpoints=checkpoints,
            report=lambda progress: peaks.append(tracemalloc.get_traced_memory()[1]),
        )
        tracemalloc.stop()
    np.testing.assert_array_equal(again, score_pairs(encoder, pairs))
    assert peaks[0] < 1.5 * vectors.nbytes
