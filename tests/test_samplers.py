"""Mining finds each new pair once, the same for the same seed, and the neighbours of a plain search."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import fields
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transenc.errors import ConfigError, DataError, MachineError
from transenc.models.device import Compute
from transenc.pairs import Pairs
from transenc.samplers import mine, semantic, shortlist
from transenc.samplers.approximate import Approximate, approximately_nearest
from transenc.samplers.bm25 import K1, B, Bm25, word_ids
from transenc.samplers.bm25_semantic import Bm25Semantic
from transenc.samplers.given import Given
from transenc.samplers.random import Random
from transenc.samplers.rank_bm25 import RankBm25
from transenc.samplers.semantic import Semantic, nearest
from transenc.samplers.shortlist import Shortlist

MINERS = [Random(), Bm25(), RankBm25(), Semantic(), Approximate(), Bm25Semantic()]
WORDS = (
    "the a cat dog sat on mat river bank money ran fast slow blue Élan naïve 猫 кот can't x2 again".split()
)


def corpus(n, seed=0, longest=9):
    """Make `n` different sentences of few words, so that many scores tie."""
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < n:
        found[" ".join(rng.choice(WORDS, rng.integers(1, longest)))] = None
    return list(found)


def encode(sentences):
    """Embed by counting letters; sentences with the same letters get equal embeddings."""
    rows = np.zeros((len(sentences), 16), np.float32)
    for row, sentence in zip(rows, sentences, strict=True):
        for letter in sentence:
            row[ord(letter) % 16] += 1
        row[0] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def named(sampler):
    """Name a test case after its sampler."""
    return type(sampler).__name__


def unordered(pairs):
    """Return the pairs without the order of their sides."""
    return [frozenset(row) for row in pairs.rows()]


def bm25_scores(sentences):
    """Score every sentence against every other, straight from the formula."""
    words, _ = word_ids(sentences)
    n, mean = len(words), sum(map(len, words)) / len(words) or 1
    df = Counter(word for ids in words for word in set(ids))
    counts = [Counter(ids) for ids in words]
    table = np.zeros((n, n))
    for i, query in enumerate(words):
        for j, tf in enumerate(counts):
            norm = K1 * (1 - B + B * len(words[j]) / mean)
            table[i, j] = sum(log((n + 1) / df[t]) * tf[t] * (K1 + 1) / (tf[t] + norm) for t in query)
    np.fill_diagonal(table, -1)
    return table


def assert_best(left, right, table, k):
    """Check that the neighbours have the k highest positive scores, highest first, up to rounding."""
    for i, row in enumerate(table):
        want = [s for s in sorted(row, reverse=True)[:k] if s > 0]
        got = right[left == i]
        assert len(set(got.tolist())) == len(want) and i not in got
        np.testing.assert_allclose(row[got], want, rtol=1e-5)


def brute_force(embeddings, k, low=-np.inf, high=np.inf):
    """Sort every row by score, then index."""
    exact = np.asarray(embeddings, np.float64)
    columns = []
    for i in range(len(exact)):
        row = (exact * exact[i]).sum(axis=1)
        allowed = [j for j in np.lexsort((np.arange(len(row)), -row)) if j != i and low <= row[j] <= high]
        columns += [(i, j) for j in allowed[:k]]
    return np.asarray(columns, np.int64).reshape(-1, 2).T


@pytest.mark.parametrize("sampler", MINERS, ids=named)
@settings(max_examples=40, deadline=None)
@given(
    sentences=st.lists(st.lists(st.sampled_from([*WORDS, "!", "?"]), max_size=5).map(" ".join), min_size=1),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_mined_pairs_are_new_different_and_unordered(sampler, sentences, seed, data):
    rows = st.lists(st.tuples(st.sampled_from(sentences), st.sampled_from([*sentences, "elsewhere"])))
    gold = data.draw(rows)
    exclude = Pairs.from_rows([a for a, _ in gold], [b for _, b in gold])
    try:
        pairs = mine(sampler, sentences, seed=seed, encode=encode, exclude=exclude)
    except DataError:
        assert len(set(sentences)) < getattr(sampler, "k", 1) + 1
        return
    found = unordered(pairs)
    assert len(set(found)) == len(found)
    assert all(len(pair) == 2 for pair in found)
    assert not set(found) & {frozenset(row) for row in gold}
    assert set(pairs.sentences) <= set(sentences)


@settings(max_examples=60, deadline=None)
@given(sentences=st.lists(st.text(max_size=12), min_size=4, unique=True))
def test_any_text_can_be_mined(sentences):
    for sampler in (Bm25(), RankBm25()):
        left, right = sampler.sample(sentences, np.random.default_rng(0))
        assert_best(left, right, bm25_scores(sentences), 3)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Can't stop, x2", ["can", "t", "stop", "x2"]),
        ("हिन्दी में cafe\u0301s", ["हिन्दी", "में", "cafe\u0301s"]),
        ("می\u200cروم خانه", ["می\u200cروم", "خانه"]),
        ("2021年天气，カメラだ", ["2021", "年", "天", "气", "カメラ", "だ"]),
        ("กินปู", ["กิ", "น", "ปู"]),
        ("한국어 문장!", ["한국어", "문장"]),
    ],
)
def test_words_keep_their_marks_and_need_no_spaces(sentence, words):
    assert list(word_ids([sentence])[1]) == words


def test_bm25_finds_neighbours_where_no_spaces_are_written():
    sentences = [
        "今天天气很好。",
        "我很喜欢吃苹果。",
        "今天天气非常好。",
        "他去年去了北京。",
        "我喜欢吃苹果。",
    ]
    assert unordered(mine(Bm25(k=1), sentences, seed=0))[:2] == [
        frozenset(sentences[::2][:2]),
        frozenset(sentences[1::3]),
    ]


@pytest.mark.parametrize("sampler", MINERS, ids=named)
def test_exclude_works_in_both_orders(sampler):
    sentences = corpus(40)
    every = mine(sampler, sentences, seed=1, encode=encode)
    for gold in (every.take(slice(0, 5)), every.take(slice(0, 5)).flipped()):
        rest = mine(sampler, sentences, seed=1, encode=encode, exclude=gold)
        assert unordered(rest) == unordered(every)[5:]


@pytest.mark.parametrize("sampler", MINERS, ids=named)
def test_the_seed_decides(sampler):
    sentences = corpus(40)
    first, again, other = (mine(sampler, sentences, seed=s, encode=encode) for s in (1, 1, 2))
    assert list(first.rows()) == list(again.rows())
    assert (list(first.rows()) == list(other.rows())) == (not isinstance(sampler, Random))


@pytest.mark.parametrize("sampler", MINERS, ids=named)
def test_max_pairs_keeps_a_seeded_subset_in_order(sampler):
    sentences = corpus(40)
    every = unordered(mine(sampler, sentences, seed=3, encode=encode))
    some = unordered(mine(sampler, sentences, seed=3, encode=encode, max_pairs=10))
    assert len(some) == 10 and some == [pair for pair in every if pair in some]
    assert unordered(mine(sampler, sentences, seed=3, encode=encode, max_pairs=10**6)) == every


@pytest.mark.parametrize("sampler", MINERS, ids=named)
def test_repeated_sentences_change_nothing(sampler):
    sentences = corpus(30)
    twice = mine(sampler, sentences + sentences[::-1], seed=1, encode=encode)
    assert list(twice.rows()) == list(mine(sampler, sentences, seed=1, encode=encode).rows())


@pytest.mark.parametrize("sampler", MINERS, ids=named)
def test_a_small_corpus_is_named_with_its_counts(sampler):
    needed = getattr(sampler, "k", 1) + 1
    sentences = [f"the cat {i}" for i in range(needed)]
    for n in range(needed):
        with pytest.raises(DataError, match=f"has {n} different sentences.*at least {needed};"):
            mine(sampler, sentences[:n] * 2, seed=0, encode=encode)
    assert len(mine(sampler, sentences, seed=0, encode=encode)) == needed * (needed - 1) // 2


def test_no_pair_is_not_an_error_but_warned_of(caplog):
    assert len(mine(Bm25(k=1), ["one two", "three", "!", "?"], seed=0)) == 0
    assert "Bm25 found no new pair among 4" in caplog.text


@pytest.mark.parametrize("columns", [([0, 1], [1, -1]), ([0, 1], [1, 5]), ([0, 1], [1])])
def test_what_a_plugin_returns_is_checked(columns):
    class Plugin:
        def sample(self, sentences, rng, *, encode=None):
            return columns

    with pytest.raises(
        DataError, match="The sampler Plugin returned columns that are no pairs of 5 sentences"
    ):
        mine(Plugin(), corpus(5), seed=0)


def test_max_pairs_must_be_positive():
    with pytest.raises(ConfigError, match="max_pairs"):
        mine(Random(), corpus(5), seed=0, max_pairs=0)


@pytest.mark.parametrize("sampler", [Semantic(), Approximate(), Bm25Semantic()], ids=named)
def test_a_missing_encoder_is_asked_for(sampler):
    with pytest.raises(ConfigError, match="--encoder"):
        mine(sampler, corpus(5), seed=0)


def test_given_pairs_are_not_mined():
    with pytest.raises(ConfigError, match="--pairs"):
        mine(Given(), corpus(5), seed=0)


@pytest.mark.parametrize("sampler", MINERS, ids=named)
def test_every_option_has_a_sentence(sampler):
    assert all(field.metadata["help"].endswith(".") for field in fields(sampler))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Bm25(k=0),
        lambda: RankBm25(k=0),
        lambda: Semantic(k=-1),
        lambda: Approximate(k=0),
        lambda: Approximate(probes=0),
        lambda: Bm25Semantic(k=0),
        lambda: Random(per_sentence=0),
        lambda: Bm25(backend="cupy"),
    ],
)
def test_bad_options_are_refused(build):
    with pytest.raises(ValueError, match="must be"):
        build()


@pytest.mark.parametrize("n", range(2, 10))
def test_random_can_draw_every_pair_once(n):
    left, right = Random(per_sentence=n).sample(["x"] * n, np.random.default_rng(0))
    pairs = {(min(row), max(row)) for row in zip(left.tolist(), right.tolist(), strict=True)}
    assert pairs == {(i, j) for j in range(n) for i in range(j)}
    assert len(left) == len(pairs)


def test_random_draws_all_pairs_equally_often():
    seen = Counter()
    for seed in range(2_000):
        left, right = Random(per_sentence=1).sample(["x"] * 6, np.random.default_rng(seed))
        seen.update((min(row), max(row)) for row in zip(left.tolist(), right.tolist(), strict=True))
    assert len(seen) == 15
    assert all(abs(count - 800) < 120 for count in seen.values())  # 800 expected, sd 22


@pytest.mark.parametrize("sampler", [Bm25(k=4), RankBm25(k=4)], ids=named)
def test_bm25_finds_what_the_formula_says(sampler):
    sentences = corpus(150)
    assert_best(*sampler.sample(sentences, np.random.default_rng(0)), bm25_scores(sentences), 4)


@pytest.mark.parametrize("longest", [4, 12])
def test_bm25_agrees_with_rank_bm25(longest):
    rank_bm25 = pytest.importorskip("rank_bm25")
    sentences = corpus(400, longest=longest)
    words, _ = word_ids(sentences)
    index = rank_bm25.BM25Plus(words, k1=K1, b=B, delta=0)
    table = np.stack([index.get_scores(query) for query in words])
    columns = [sampler.sample(sentences, np.random.default_rng(0)) for sampler in (Bm25(k=5), RankBm25(k=5))]
    (left, right), (oracle_left, oracle_right) = columns
    np.testing.assert_array_equal(left, oracle_left)
    np.testing.assert_allclose(table[left, right], table[oracle_left, oracle_right], rtol=1e-5)


def test_bm25_gives_ties_to_the_earlier_sentence():
    sentences = [f"{'same ' * 3} w{i}" for i in range(60)]  # all equally good for each other
    left, right = Bm25(k=2).sample(sentences, np.random.default_rng(0))
    first = [[j for j in range(3) if j != i][:2] for i in range(60)]
    np.testing.assert_array_equal(right.reshape(-1, 2), first)
    np.testing.assert_array_equal(left, np.repeat(np.arange(60), 2))


@pytest.mark.parametrize("block", [1, 7, 4_096])
def test_bm25_does_not_depend_on_the_block(block, monkeypatch):
    sentences = corpus(90)
    expected = Bm25().sample(sentences, np.random.default_rng(0))
    monkeypatch.setattr("transenc.samplers.bm25.BLOCK", block)
    np.testing.assert_array_equal(Bm25().sample(sentences, np.random.default_rng(0)), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_bm25_numba_and_numpy_give_the_same_pairs(compiled):
    pytest.importorskip("numba")
    # Uncompiled the words read and the documents scored can be counted.
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "01"[not compiled]}
    script = NUMBA_SCRIPT if compiled else COUNT_READ + NUMBA_SCRIPT + REPORT_READ
    assert run(script, environment) == "same\n" * 5


def test_bm25_names_the_package_it_lacks(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pip install numba"):
        Bm25(backend="numba").sample(corpus(9), np.random.default_rng(0))
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MachineError, match="pip install bm25s"):
        Bm25().sample(corpus(9), np.random.default_rng(0))


def test_bm25_tells_that_a_large_corpus_wants_numba(monkeypatch, caplog):
    caplog.set_level("INFO", logger="transenc.samplers.bm25")
    monkeypatch.setattr("transenc.samplers.bm25.SLOW_FROM", 50)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    Bm25().sample(corpus(49), np.random.default_rng(0))
    assert not caplog.records
    Bm25().sample(corpus(50), np.random.default_rng(0))
    (record,) = caplog.records
    assert "50 sentences" in record.getMessage() and 'pip install "transenc[fast]"' in record.getMessage()


def test_bm25_leaves_jax_alone(tmp_path):
    """bm25s would take most of a GPU's memory through it."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise SystemExit('JAX was imported')\n", encoding="utf-8")
    code = (
        "import sys, numpy as np\n"
        "from transenc.samplers.bm25 import Bm25\n"
        "print(Bm25(k=1).sample(['a red cat', 'a red dog', 'tea'], np.random.default_rng(0)))\n"
        "assert 'jax' not in sys.modules\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_bm25_ignores_case_and_sentences_without_words():
    sentences = ["...", "ÉCOLE Été", "été école", "!!!", "Straße", "STRASSE straße"]
    pairs = mine(Bm25(k=1), sentences, seed=0)
    assert list(pairs.rows()) == [("ÉCOLE Été", "été école"), ("Straße", "STRASSE straße")]


@pytest.fixture(params=["fp32", "bf16"])
def arithmetic(request, monkeypatch):
    """Let the search multiply in fp32 or in bf16, which any processor can emulate."""
    monkeypatch.setattr(shortlist, "BF16_FROM", 1)
    monkeypatch.setattr(Compute, "choose", lambda device: Compute(device, request.param))
    return request.param


@pytest.mark.parametrize("tile", [1, 7, 100, 1 << 10])
@pytest.mark.parametrize("limits", [(), (0.8,), (-np.inf, 0.9), (0.5, 0.95)])
def test_semantic_equals_brute_force_for_every_tile(arithmetic, tile, limits):
    embeddings = encode(corpus(120))  # with equal rows, so with ties
    np.testing.assert_array_equal(
        nearest(embeddings, 4, *limits, tile=tile), brute_force(embeddings, 4, *limits)
    )


@pytest.mark.parametrize("tile", [7, 30, 300])
@pytest.mark.parametrize("limits", [(), (0.8,), (-np.inf, 0.9), (0.5, 0.95)])
def test_products_that_err_within_their_slack_find_the_same_neighbours(monkeypatch, tile, limits):
    embeddings, slack = encode(corpus(120)), 0.1
    error = np.random.default_rng(1).choice([-0.049, 0.049], (120, 120))
    wrong = (embeddings @ embeddings.T + error).astype(np.float32)
    products = shortlist.Products(lambda rows, columns: wrong[rows, columns].copy(), slack)
    monkeypatch.setattr(semantic, "products", lambda vectors, k: products)
    found = nearest(embeddings, 4, *limits, tile=tile)
    np.testing.assert_array_equal(found, brute_force(embeddings, 4, *limits))


@pytest.mark.parametrize("tile", [30, 300])
def test_semantic_equals_brute_force_in_a_wide_corpus(arithmetic, tile):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(700, 12)).astype(np.float32)
    embeddings[350:] = embeddings[:350]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_array_equal(nearest(embeddings, 3, tile=tile), brute_force(embeddings, 3))


def test_products_in_bf16_err_by_less_than_their_slack_and_by_some_of_it():
    vectors = clustered(400)
    fast = shortlist.bf16_products(vectors)
    error = np.abs(
        fast.of(slice(0, 400), slice(100, 300)) - vectors.astype(np.float64) @ vectors[100:300].T
    ).max()
    assert fast.slack / 50 < 2 * error <= fast.slack


def test_products_in_bf16_may_err_by_as_much_as_their_slack_allows():
    both = slice(0, 2)
    fast = shortlist.bf16_products(np.full((2, 9), 1 / 3, np.float32))
    error = np.abs(fast.of(both, both) - 1).max()  # a third is rounded up, and so is the sum of its squares
    assert 0.99 * fast.slack < 2 * error <= fast.slack


@pytest.mark.parametrize("spread, expected", [(0.8, "bf16"), (0.01, "fp32")])
def test_bf16_is_used_where_it_tells_neighbours_apart(monkeypatch, spread, expected):
    monkeypatch.setattr(shortlist, "BF16_FROM", 1)
    monkeypatch.setattr(Compute, "choose", lambda device: Compute(device, "bf16"))
    vectors = clustered(1200, spread)
    slack = {"bf16": shortlist.bf16_products(vectors).slack, "fp32": shortlist._rounding(vectors)}
    assert shortlist.products(vectors, 4).slack == slack[expected]


def test_bf16_is_not_tried_on_fewer_vectors_than_neighbours(arithmetic):
    vectors = clustered(40)
    assert shortlist.products(vectors, 39).slack == shortlist._rounding(vectors)
    np.testing.assert_array_equal(nearest(vectors, 39), brute_force(vectors, 39))


@pytest.mark.parametrize("limits", [(), (-np.inf, 0.9999)])
def test_semantic_holds_few_candidates_where_all_sentences_are_equal(monkeypatch, limits):
    held = []
    prune = Shortlist._prune

    def watched(self):
        prune(self)
        held.append(self.held)

    monkeypatch.setattr(Shortlist, "_prune", watched)
    embeddings = np.tile(np.float32([0.6, 0.8]), (300, 1))
    np.testing.assert_array_equal(
        nearest(embeddings, 2, *limits, tile=20), brute_force(embeddings, 2, *limits)
    )
    assert len(held) > 10 or limits
    assert max(held) <= shortlist.ROOM * 300 * 2 + 2 * 20 * 20 + 300 * 20


def test_semantic_filters_by_score():
    sentences = corpus(60)
    embeddings = encode(sentences)
    pairs = mine(Semantic(min_score=0.8, max_score=0.9), sentences, seed=0, encode=encode)
    rows = [(sentences.index(a), sentences.index(b)) for a, b in pairs.rows()]
    scores = [float(embeddings[i] @ embeddings[j]) for i, j in rows]
    assert scores and all(0.8 - 1e-6 <= score <= 0.9 + 1e-6 for score in scores)


def test_without_limits_any_cosine_is_a_neighbours():
    vectors = np.array([[1, 0], [-1, 0], [-1, 0], [0.6, 0.8]], np.float32)
    vectors[3] *= 1 + 1e-6  # as rounding leaves them, a little too long
    found = Semantic(k=3).sample(list("abcd"), np.random.default_rng(0), encode=lambda s: vectors)
    np.testing.assert_array_equal(found[1].reshape(4, 3), [[3, 1, 2], [2, 3, 0], [1, 3, 0], [0, 1, 2]])
    twins = Semantic(k=1).sample(list("ab"), np.random.default_rng(0), encode=lambda s: vectors[[3, 3]])
    np.testing.assert_array_equal(twins, ([0, 1], [1, 0]))


def test_limits_of_a_score_are_themselves_within_them():
    found = nearest(np.eye(3, dtype=np.float32), 1, 0.0, 0.0)  # all products are exactly 0
    np.testing.assert_array_equal(found, ([0, 1, 2], [1, 0, 0]))


@pytest.mark.parametrize(("rows", "value"), [(9, np.nan), (9, np.inf), (8, 0.5)])
def test_semantic_refuses_a_broken_encoder(rows, value):
    with pytest.raises(DataError, match="embedding"):
        mine(Semantic(), corpus(9), seed=0, encode=lambda s: np.full((rows, 4), value, np.float32))


def test_semantic_says_once_that_exact_search_is_quadratic(monkeypatch, caplog):
    monkeypatch.setattr(semantic, "MANY", 40)
    caplog.set_level("INFO")
    mine(Semantic(), corpus(39), seed=0, encode=encode)
    assert not caplog.records
    mine(Semantic(), corpus(40), seed=0, encode=encode)
    (record,) = caplog.records
    assert "all 7.8e+02 pairs of 40" in record.getMessage() and "four times" in record.getMessage()
    assert "semantic-approximate" in record.getMessage()


def clustered(n, spread=0.8):
    """Make unit vectors around 30 centres, as sentences of some topics are."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 24))[rng.integers(0, 30, n)] + spread * rng.normal(size=(n, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_approximate_search_finds_most_of_the_exact_neighbours_in_exact_order():
    pytest.importorskip("faiss")
    vectors = clustered(1500)
    exact = set(zip(*map(np.ndarray.tolist, nearest(vectors, 4)), strict=True))
    left, right = approximately_nearest(vectors, 4, probes=2)
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    assert 0.97 < len(found & exact) / len(exact) < 1
    assert (left != right).all() and (np.bincount(left) <= 4).all() and (np.diff(left) >= 0).all()
    scores = (vectors[left].astype(np.float64) * vectors[right]).sum(axis=1)
    assert (np.diff(scores)[left[1:] == left[:-1]] <= 0).all()
    again = approximately_nearest(vectors, 4, probes=2)
    np.testing.assert_array_equal(again, (left, right))


@pytest.mark.parametrize("n, probes", [(300, 16), (1500, 100)])
def test_approximate_search_of_all_cells_is_exact(n, probes):
    vectors = clustered(n)
    np.testing.assert_array_equal(approximately_nearest(vectors, 3, probes=probes), nearest(vectors, 3))


def test_cells_that_hold_fewer_than_are_asked_for_give_what_they_hold(monkeypatch):
    faiss = pytest.importorskip("faiss")
    cells = []

    class Index(faiss.IndexFlatIP):
        """Of the cells' centres, which outlives the search."""

        def __init__(self, dim):
            super().__init__(dim)
            cells.append(self)

    monkeypatch.setattr(faiss, "IndexFlatIP", Index)
    vectors = clustered(1500)
    left, right = approximately_nearest(vectors, 40, probes=1)  # of cells that hold 39 on average
    centres = cells[0].reconstruct_n(0, cells[0].ntotal)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    cell = (vectors @ centres.T).argmax(axis=1)
    assert (cell[left] == cell[right]).all() and (left != right).all()
    found = np.bincount(left, minlength=1500)
    np.testing.assert_array_equal(found, np.minimum(np.bincount(cell)[cell] - 1, 40))
    assert found.min() < 30 and found.max() == 40


@pytest.mark.parametrize("fails", [False, True])
def test_approximate_search_uses_the_cores_it_may_and_leaves_faiss_its_own(monkeypatch, fails):
    faiss = pytest.importorskip("faiss")
    used, before = [], faiss.omp_get_max_threads()

    class Index(faiss.IndexIVFFlat):
        def train(self, vectors):
            used.append(faiss.omp_get_max_threads())
            if fails:
                raise MemoryError
            super().train(vectors)

    monkeypatch.setattr(faiss, "IndexIVFFlat", Index)
    monkeypatch.setattr("transenc.samplers.approximate.threads", lambda: 2)
    try:
        faiss.omp_set_num_threads(3)
        with pytest.raises(MemoryError) if fails else nullcontext():
            approximately_nearest(clustered(1500), 3, probes=2)
        assert (used, faiss.omp_get_max_threads()) == ([2], 3)
    finally:
        faiss.omp_set_num_threads(before)


def test_approximate_search_names_the_package_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MachineError, match="pip install faiss-cpu"):
        approximately_nearest(clustered(1500), 3, probes=2)


def test_the_union_is_bm25_then_semantic():
    sentences = corpus(50)
    pairs = unordered(mine(Bm25Semantic(k=2), sentences, seed=0, encode=encode))
    lexical = unordered(mine(Bm25(k=2), sentences, seed=0))
    assert pairs[: len(lexical)] == lexical
    assert set(pairs) == {*lexical, *unordered(mine(Semantic(k=2), sentences, seed=0, encode=encode))}


def run(script, env):
    """Run a script in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


NUMBA_SCRIPT = """
import numpy as np
from transenc.samplers import bm25
bm25.BLOCK = 64  # several blocks, so several threads
rng = np.random.default_rng(0)

def texts(n, words, skew, longest):
    share = 1 / np.arange(1, words + 1) ** skew
    draw = lambda: rng.choice(words, rng.integers(0, longest), p=share / share.sum())
    return list({" ".join(map(str, draw())): None for _ in range(n)})

# Words in plenty and few, all ties and hardly any, more and fewer than have a bit of their own.
for sentences, k in (
    (texts(500, 10, 0.0, 8), 3),
    (texts(500, 300, 1.2, 20), 5),
    (texts(400, 90, 0.5, 6), 1),
    (texts(300, 200, 1.0, 12), 60),
    (texts(400, 150, 0.0, 25), 2),
):
    columns = [bm25.Bm25(k, backend=backend).sample(sentences, rng) for backend in ("numpy", "numba")]
    print("same" if np.array_equal(*columns) else columns)
"""

COUNT_READ = """
from collections import Counter
from contextlib import nullcontext
from transenc.samplers import maxscore
did = Counter()

def find(given, query, asked, m, scratch, find=maxscore._find):
    count, read, least = find(given, query, asked, m, scratch)
    did.update(words=m, read=read, found=count)
    return count, read, least

def score(*arguments, score=maxscore._score):
    did["scored"] += 1
    return score(*arguments)

maxscore._find, maxscore._score = find, score
"""

REPORT_READ = """
assert did["read"] < 0.9 * did["words"] and did["scored"] < 0.5 * did["found"], did
"""

HASH_SCRIPT = """
import sys
from transenc.samplers import mine
from transenc.samplers.bm25 import Bm25
from transenc.samplers.bm25_semantic import Bm25Semantic
from transenc.samplers.given import Given
from transenc.samplers.random import Random
from transenc.samplers.rank_bm25 import RankBm25
assert not {"torch", "bm25s", "rank_bm25", "numba"} & set(sys.modules), "heavy import"
sentences = [f"{a} {b} {c}" for a in "xyz" for b in "abcd" for c in ("the cat", "a dog", "", a)]
for sampler in (Random(), Bm25(), RankBm25()):
    print(list(mine(sampler, sentences, seed=5, max_pairs=20).rows()))
"""


def test_pairs_do_not_depend_on_the_hash_seed_and_nothing_heavy_is_imported():
    first, second = (run(HASH_SCRIPT, {**os.environ, "PYTHONHASHSEED": seed}) for seed in "12")
    assert first == second
