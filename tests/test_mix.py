"""A mix holds its shares exactly, and no pair twice."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_samplers import corpus, encode, unordered
from transenc.errors import ConfigError
from transenc.pairs import Pairs
from transenc.samplers import mine
from transenc.samplers.bm25 import Bm25
from transenc.samplers.mix import Mix, build, owners, parse_mix
from transenc.samplers.random import Random
from transenc.samplers.semantic import Semantic


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("bm25:0.5,random:0.5", [("bm25", 0.5), ("random", 0.5)]),
        ("bm25:3:k=5,backend=numpy,random:1", [("bm25:k=5,backend=numpy", 0.75), ("random", 0.25)]),
        ("bm25:.5:k=5,random:.5:per_sentence=2", [("bm25:k=5", 0.5), ("random:per_sentence=2", 0.5)]),
        ("bm25:0.5,k=5,semantic:0.5", [("bm25:k=5", 0.5), ("semantic", 0.5)]),
        ("bm25:0.5,path=a:b,random:0.5", [("bm25:path=a:b", 0.5), ("random", 0.5)]),
        ("random:1", [("random", 1.0)]),
        ("bm25:0.5 , random :0.5", [("bm25", 0.5), ("random", 0.5)]),
        ("bm25", None),
        ("bm25:k=5", None),
        ("bm25+semantic:k=5", None),
    ],
)
def test_a_spec_names_one_sampler_or_several_in_shares(spec, expected):
    assert parse_mix(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bm25:0.5,random", "'random' in .* neither name:share nor option=value"),
        ("bm25:0.5,random:k=5", "'random:k=5' in .* neither name:share nor option=value"),
        ("bm25:0.5,random:0", "must be above 0"),
        ("bm25:0.5,bm52:0.5", "Did you mean 'bm25'"),
        ("bm25:0.5:q=1,random:0.5", "no option 'q'"),
        ("bm25,random:0.5", "not option=value|No sampler"),
        ("bm25:0.5,kde:0.5", "cannot be a part of a mix"),
    ],
)
def test_a_wrong_mix_is_one_clear_error(spec, message):
    with pytest.raises(ConfigError, match=message):
        build(spec)


def test_a_mix_is_built_from_its_members():
    mix = build("bm25:0.6:k=2,semantic:0.4")
    assert isinstance(mix, Mix)
    assert mix.members == (Bm25(k=2), Semantic())
    assert mix.needs_encoder
    assert not build("bm25:1,random:1").needs_encoder
    assert [owner[0] for owner in owners("bm25:1,random:1")] == ["transenc", "transenc"]


@pytest.mark.parametrize(("spec", "share"), [("bm25:0.5,random:0.5", 0.5), ("bm25:1,random:3", 0.25)])
def test_the_shares_hold_to_the_pair(spec, share):
    sentences = corpus(200)
    lexical = set(unordered(mine(Bm25(), sentences, seed=4)))
    pairs = unordered(mine(build(spec), sentences, seed=4))
    first = round(share * len(pairs))
    assert set(pairs[:first]) <= lexical
    assert not set(pairs[first:]) & lexical  # what both find counts for the first
    assert len(set(pairs)) == len(pairs)


def test_shares_are_kept_to_the_nearest_pair():
    assert Mix("m", (Bm25(), Random()), (0.6, 0.4)).counts([4, 9]) == [4, 3]  # 2.67 of the second


def test_a_mix_is_as_large_as_its_shares_allow_after_gold_pairs_are_left_out():
    sentences = corpus(150)
    gold = mine(Bm25(), sentences, seed=0).take(slice(0, 40))
    free = mine(Bm25(), sentences, seed=0, exclude=gold)
    pairs = mine(build("bm25:0.5,random:0.5:per_sentence=9"), sentences, seed=0, exclude=gold)
    assert len(pairs) == 2 * len(free)
    assert not set(unordered(pairs)) & set(unordered(gold))


def test_members_that_need_no_encoder_are_given_none():
    seen = []

    class Probe(Random):
        def sample(self, sentences, rng, *, encode=None):
            seen.append(encode)
            return super().sample(sentences, rng)

    mix = Mix("probe", (Probe(), Semantic(k=1)), (0.5, 0.5))
    mine(mix, corpus(30), seed=0, encode=encode)
    assert seen == [None]
    with pytest.raises(ConfigError, match="--encoder"):
        mine(mix, corpus(30), seed=0)


def test_the_seed_decides_a_mix():
    first, again, other = (mine(build("bm25:1,random:1"), corpus(60), seed=s) for s in (1, 1, 2))
    assert list(first.rows()) == list(again.rows()) != list(other.rows())


def test_gold_pairs_do_not_come_back_in_another_case():
    sentences = ["A cat sat", " a cat sat", "the cat ran", "The Cat ran ", "a dog sat", "rivers"]
    gold = Pairs.from_rows(["THE CAT RAN"], ["a cat sat"])
    rows = {
        tuple(sorted(s.strip().lower() for s in row))
        for row in mine(Bm25(), sentences, seed=0, exclude=gold).rows()
    }
    assert ("a cat sat", "the cat ran") not in rows
    assert ("a cat sat", "a dog sat") in rows


def test_the_whole_of_a_mix_is_its_members_one_after_the_other():
    sentences = corpus(40)
    mix = Mix("m", (Bm25(k=1), Bm25(k=2)), (0.5, 0.5))
    left, right = mix.sample(sentences, np.random.default_rng(0))
    a, b = (Bm25(k=k).sample(sentences, np.random.default_rng(0)) for k in (1, 2))
    np.testing.assert_array_equal(left, np.concatenate([a[0], b[0]]))
    np.testing.assert_array_equal(right, np.concatenate([a[1], b[1]]))


@pytest.mark.parametrize(
    ("sentences", "who"), [(["a b", "a c", "a d", "a e"], "Random"), (["a", "b", "c", "d"], "Bm25")]
)
def test_an_empty_mix_names_the_member_that_found_no_pair(sentences, who, caplog):
    assert not len(mine(build("bm25:0.5,random:0.5"), sentences, seed=0))
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition(" among")[0] for text in told] == [f"{who} found no new pair"]
