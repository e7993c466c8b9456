from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_pairs
from tests.tiny import ARCHS, tiny_plm
from transenc.errors import MachineError
from transenc.models import bi, unpadded
from transenc.models.bi import BiEncoder, BiFamily, pool
from transenc.models.cross import CrossEncoder, CrossFamily
from transenc.models.device import Compute
from transenc.models.loading import family_of, load_scorer
from transenc.models.packed import PackedLinear, packs
from transenc.models.tokens import chunks, collate, tokenize
from transenc.models.transformer import Transformer
from transenc.pairs import Pairs

CPU = Compute("cpu", "fp32")


class Segments(CrossFamily):
    """Cross-encoders with the head over segments."""

    def create(self, start: Path, **options: Any) -> Any:
        return super().create(start, **options, head="segments")


@pytest.fixture(params=["bi", "cross", "segments"])
def family(request: pytest.FixtureRequest) -> Any:
    return {"bi": BiFamily, "cross": CrossFamily, "segments": Segments}[request.param]()


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_scores_trains_and_comes_back_from_disk(
    arch: str, family: Any, tmp_path: Path
) -> None:
    plm = tiny_plm(tmp_path / "plm", arch)
    torch.manual_seed(0)
    model = family.create(plm, compute=CPU, max_length=24, pooling="mean")
    pairs = make_pairs(6)
    before = model.score(pairs)
    outputs = model.outputs(model.prepare(pairs), pairs, np.arange(6))
    outputs.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.module.parameters())
    model.save(tmp_path / "saved")
    again = family.load(tmp_path / "saved", compute=CPU)
    assert family_of(tmp_path / "saved") == family.name
    assert again.transformer.max_length == 24
    # Other memory addresses can change the last bit of a vectorised sum.
    np.testing.assert_allclose(again.score(pairs), before, atol=1e-6)
    assert len(np.unique(before)) > 1


def test_saved_models_score_the_same_in_sentence_transformers(family: Any, plm: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    model = family.create(plm, compute=CPU, max_length=16, pooling="mean")
    model.save(tmp_path / "saved")
    pairs = make_pairs(20)
    if family.name == "bi":
        peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        assert peer.max_seq_length == 16
        a, b = (peer.encode(pairs.column(side)) for side in (pairs.left, pairs.right))
        theirs = (a * b).sum(1)
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    else:
        ours = {"trust_remote_code": True} if isinstance(family, Segments) else {}  # its head is ours
        theirs = CrossEncoder(str(tmp_path / "saved"), device="cpu", **ours).predict(list(pairs.rows()))
    np.testing.assert_allclose(model.score(pairs), theirs, atol=2e-6)


def test_a_start_that_pads_on_the_left_is_saved_to_pad_on_the_right(plm: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    shutil.copytree(plm, tmp_path / "left")
    told = tmp_path / "left/tokenizer_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"padding_side": "left"}))
    model = BiFamily().create(tmp_path / "left", compute=CPU, max_length=32)
    model.save(tmp_path / "saved")
    texts = ["a dog", "two dogs eat in the big house"]
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(texts)
    np.testing.assert_allclose(theirs, model.encode(texts), atol=1e-5)


def test_a_saved_cross_encoder_is_a_plain_transformers_classifier(plm: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = CrossFamily().create(plm, compute=CPU, max_length=16)
    model.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (len(config["id2label"]), len(config["label2id"])) == (1, 1)
    assert config["sentence_transformers"]["activation_fn"].endswith("Sigmoid")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer.model_max_length == 16
    peer = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    pairs = make_pairs(5)
    batch = tokenizer(
        pairs.column(pairs.left),
        pairs.column(pairs.right),
        padding=True,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        theirs = torch.sigmoid(peer(**batch).logits[:, 0]).numpy()
    np.testing.assert_allclose(model.score(pairs), theirs, atol=1e-6)


def test_a_saved_bi_encoder_is_a_plain_transformers_model(plm: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = BiFamily().create(plm, compute=CPU, max_length=16, pooling="cls")
    model.save(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    peer = AutoModel.from_pretrained(tmp_path / "saved").eval()
    pairs = make_pairs(5)
    batch = tokenizer(list(pairs.sentences), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = peer(**batch).last_hidden_state[:, 0]
    theirs = torch.nn.functional.normalize(states, dim=-1).numpy()
    np.testing.assert_allclose(model.encode(list(pairs.sentences)), theirs, atol=1e-6)


BF16 = pytest.mark.skipif(
    Compute.choose("cpu").precision != "bf16", reason="needs a CPU that multiplies bf16 fast"
)


@pytest.mark.parametrize(
    ("precision", "atol"), [("fp32", 1e-6), pytest.param("bf16", 1e-2, marks=BF16)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("avx512", [False, True])
def test_packed_linear_layers_score_as_the_plain_ones_do(
    family: Any, plm: Path, precision: str, atol: float, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": avx512})
    compute = Compute("cpu", precision)
    pairs, model = make_pairs(30), family.create(plm, compute=compute, max_length=32)
    scores = model.score(pairs)
    module = model.transformer._scoring_module()
    packed = [part for part in module.modules() if isinstance(part, PackedLinear)]
    assert bool(packed) == packs(compute)
    assert not (packed and precision == "fp32" and avx512)
    assert not any(isinstance(part, PackedLinear) for part in model.module.modules())
    words = [each.get_input_embeddings().weight for each in (module, model.module)]
    assert (words[0] is words[1]) == (precision == "fp32")  # what needs no other form is shared
    assert not packs(Compute("cuda", precision))  # another device keeps its layers
    model.transformer._copy = copy.deepcopy(model.module).to(
        torch.bfloat16 if precision == "bf16" else torch.float32
    )
    np.testing.assert_allclose(model.score(pairs), scores, atol=atol)


def test_scoring_in_bf16_rounds_no_angles_of_positions(tmp_path: Path) -> None:
    model = BiFamily().create(tiny_plm(tmp_path, "modernbert"), compute=Compute("cpu", "bf16"), max_length=32)
    module = model.transformer._scoring_module()
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    angles = {name: buffer for name, buffer in model.module.named_buffers() if buffer.is_floating_point()}
    assert angles
    torch.testing.assert_close({name: dict(module.named_buffers())[name] for name in angles}, angles)
    assert all(p.dtype == torch.float32 for p in model.module.parameters())


def test_weights_that_change_are_packed_anew(family: Any, plm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": False})
    pairs, model = make_pairs(30), family.create(plm, compute=CPU, max_length=32)
    before = model.score(pairs)
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(1.5)
    model.transformer.changed()
    after = model.score(pairs)
    assert np.abs(after - before).max() > 1e-3
    model.transformer._copy = model.module
    np.testing.assert_allclose(model.score(pairs), after, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_never_changes_a_vector(plm: Path, pooling: str) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=32, pooling=pooling)
    sentences = ["a dog", "the cat is sitting on the big red chair in the house with many people"]
    together = model.encode(sentences)
    alone = np.concatenate([model.encode([s]) for s in sentences])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def outputs_and_gradients(model: Any, pairs: Pairs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.module.eval()  # which elements dropout takes depends on the passes
    model.module.zero_grad()
    outputs = model.outputs(model.prepare(pairs), pairs, np.arange(len(pairs)))
    outputs.square().sum().backward()
    found = {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}
    return outputs.detach(), found


@pytest.mark.parametrize("budget", [24, 100_000])
@pytest.mark.parametrize("arch", ARCHS)
def test_training_passes_equal_one_padded_batch(
    arch: str, budget: int, family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pairs = make_pairs(16)
    model = family.create(tiny_plm(tmp_path, arch), compute=CPU, max_length=32, pooling="mean")
    with monkeypatch.context() as plain:
        plain.setattr(Transformer, "passes", lambda self, lengths: [[np.arange(len(lengths))]])
        plain.setattr(Transformer, "unpadded", False)
        wanted, gradients = outputs_and_gradients(model, pairs)
    monkeypatch.setattr(Transformer, "budget", budget)
    lengths = model.prepare(pairs).lengths
    passes = model.transformer.passes(lengths)
    assert sorted(i for group in passes for chunk in group for i in chunk) == list(range(len(lengths)))
    shared = sum(len(group) > 1 for group in passes)
    assert model.transformer.unpadded == (arch in unpadded.ROWS)
    assert shared == 0 or arch in unpadded.ROWS
    assert shared or arch not in unpadded.ROWS or budget == 24
    outputs, found = outputs_and_gradients(model, pairs)
    torch.testing.assert_close(outputs, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", [BiFamily, CrossFamily])
@pytest.mark.parametrize("arch", unpadded.ROWS)
def test_the_last_layer_computes_only_the_tokens_that_are_read(
    arch: str, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pairs = make_pairs(16)
    model = kind().create(tiny_plm(tmp_path, arch), compute=CPU, max_length=32, pooling="cls")
    last = model.head.body(model.module).encoder.layer[-1]
    rows: list[int] = []
    last.intermediate.register_forward_hook(lambda layer, given, states: rows.append(states.shape[1]))
    outputs, gradients = outputs_and_gradients(model, pairs)
    few, scores = sum(rows), model.score(pairs)
    texts = 2 * len(pairs) if model.family == "bi" else len(pairs)
    assert few == texts
    assert "forward" not in vars(last)  # other users of the module get all tokens again
    monkeypatch.setattr(type(model.head), "first", False)
    rows.clear()
    wanted, expected = outputs_and_gradients(model, pairs)
    assert sum(rows) > 5 * few
    torch.testing.assert_close(outputs, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(scores, model.score(pairs), atol=1e-5)


@pytest.mark.parametrize("arch", unpadded.ROWS)
def test_layers_hand_on_states_in_the_precision_of_autocast(arch: str, family: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pairs = make_pairs(16)
    model = family.create(tiny_plm(tmp_path, arch), compute=CPU, max_length=32, pooling="mean")
    body = model.head.body(model.module)
    given: list[torch.dtype] = []
    for layer in body.encoder.layer:
        # A layer's own attention and feed-forward blocks add to what they were given, so these see every sum.
        layer.attention.output.register_forward_hook(lambda part, inputs, states: given.append(states.dtype))
        layer.output.register_forward_hook(lambda part, inputs, states: given.append(states.dtype))
    wanted, gradients = outputs_and_gradients(model, pairs)
    assert set(given) == {torch.float32}
    given.clear()
    with Compute("cpu", "bf16").autocast():
        outputs, found = outputs_and_gradients(model, pairs)
    assert set(given) == {torch.bfloat16}
    assert not body.embeddings._forward_hooks
    assert not torch.equal(outputs, wanted)
    torch.testing.assert_close(outputs.float(), wanted, atol=2e-2, rtol=0)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    ours, theirs = (torch.cat([g[n].flatten() for n in gradients]) for g in (found, gradients))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99


@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_special_tokens_in_a_text_have_the_positions_that_the_architecture_gives(
    arch: str, tmp_path: Path
) -> None:
    model = BiFamily().create(tiny_plm(tmp_path, arch), compute=CPU, max_length=32, pooling="mean")
    pad = model.transformer.tokenizer.pad_token
    sentences = [f"a {pad} dog {pad}{pad} runs", "the cat is sitting on the big red chair", "dog"]
    assert model.transformer.unpadded
    found = model.encode(sentences)
    model.transformer.padded = True
    np.testing.assert_allclose(model.encode(sentences), found, atol=1e-6)


def test_a_model_of_one_token_type_is_given_none(family: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tiny_plm(tmp_path / "plm", "roberta")
    config = tmp_path / "plm" / "tokenizer_config.json"
    raw = json.loads(config.read_text())
    del raw["model_input_names"]
    config.write_text(json.dumps(raw | {"tokenizer_class": "BertTokenizer"}))  # as klue/roberta-base has it
    model = family.create(tmp_path / "plm", compute=CPU, max_length=32)
    assert "token_type_ids" in AutoTokenizer.from_pretrained(tmp_path / "plm").model_input_names
    pairs = make_pairs(6)
    assert np.isfinite(model.score(pairs)).all()
    model.save(tmp_path / "saved")  # for tools that ask the tokenizer
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "saved").model_input_names
    np.testing.assert_allclose(
        family.load(tmp_path / "saved", compute=CPU).score(pairs), model.score(pairs), atol=1e-6
    )


def test_sequences_of_one_row_are_refused_where_attention_would_mix_them(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=32)
    module: Any = model.module
    module.set_attn_implementation("eager")
    assert not model.transformer.unpadded
    module.config._attn_implementation = "sdpa"
    for layer in module.encoder.layer:
        layer.attention.self.config = copy.deepcopy(module.config)
        layer.attention.self.config._attn_implementation = "eager"
    with pytest.raises(RuntimeError, match="did not go through"):
        model.encode(["a dog", "the cat is sitting on the chair"])


def test_the_refreshed_students_begin_exactly_at_their_starts(plm: Path) -> None:
    from transformers import AutoModel

    original = AutoModel.from_pretrained(plm).state_dict()
    bi = BiFamily().create(plm, compute=CPU, max_length=16).module.state_dict()
    cross = CrossFamily().create(plm, compute=CPU, max_length=16).module.state_dict()
    for name, tensor in original.items():
        assert torch.equal(bi[name], tensor)
        assert torch.equal(cross[f"bert.{name}"], tensor)


def test_a_cosine_is_the_same_in_both_orders_and_one_for_a_copy(plm: Path) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16, pooling="mean")
    pairs = make_pairs(8)
    np.testing.assert_array_equal(model.score(pairs), model.score(pairs.flipped()))
    same = Pairs.from_rows(["a dog runs"], ["a dog runs"])
    assert model.score(same)[0] == pytest.approx(1, abs=1e-6)


class Stand:
    """In place of a transformer: tokens are texts, and `infer` makes their rows."""

    module = None

    def __init__(self, infer: Any) -> None:
        self.infer = infer

    def tokens(self, texts: Any) -> Any:
        return texts


def test_pairs_and_vectors_that_are_many_blocks_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def lengths(head: Any, texts: Any) -> Any:
        return np.array([len(left) - len(right) for left, right in texts], np.float32)

    pairs, places = make_pairs(50), np.random.default_rng(0).integers(0, 50, 2 * 32768 + 5)
    scores = CrossEncoder(Stand(lengths)).score(pairs.take(places))  # type: ignore[arg-type]
    wanted = 1 / (1 + np.exp(-lengths(None, pairs.rows()).astype(np.float64)))
    np.testing.assert_allclose(scores, wanted[places], atol=1e-6)
    monkeypatch.setattr(bi, "BLOCK", 2)
    rows = np.array([[1, 3], [0.1, 0], [0, 0]] * 3, np.float32)
    vectors = BiEncoder(Stand(lambda head, texts: rows.copy()), "mean").encode(["a"] * 9)  # type: ignore[arg-type]
    np.testing.assert_allclose(vectors, [[0.1**0.5, 0.9**0.5], [1, 0], [0, 0]] * 3, atol=1e-6)


def test_each_distinct_sentence_is_encoded_once(plm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BiFamily().create(plm, compute=CPU, max_length=16)
    seen: list[str] = []
    real = model.transformer.tokens

    def count(texts: list[str]) -> Any:
        seen.extend(texts)
        return real(texts)

    monkeypatch.setattr(model.transformer, "tokens", count)
    model.score(Pairs.from_rows(["a", "a", "b", "a"], ["b", "dog", "a", "dog"]))
    assert sorted(seen) == ["a", "b", "dog"]


def test_scoring_no_pairs_gives_no_scores(family: Any, plm: Path) -> None:
    model = family.create(plm, compute=CPU, max_length=16)
    assert model.score(Pairs.from_rows([], [])).shape == (0,)


def test_a_model_scores_the_same_from_several_threads(family: Any, plm: Path) -> None:
    model = family.create(plm, compute=CPU, max_length=32, pooling="cls")
    given = [make_pairs(20 + 7 * n, seed=n) for n in range(4)]
    wanted = [model.score(pairs) for pairs in given]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [model.score(pairs) for pairs in given], range(8)):
            for scores, alone in zip(found, wanted, strict=True):
                np.testing.assert_allclose(scores, alone, atol=1e-6)


def test_an_empty_sentence_and_a_very_long_one_get_scores(family: Any, plm: Path) -> None:
    model = family.create(plm, compute=CPU, max_length=16)
    scores = model.score(Pairs.from_rows(["", "dog " * 100_000], ["a dog", "\u200b"]))
    assert np.isfinite(scores).all()


def test_a_plm_that_is_not_an_encoder_yet_is_pooled_by_its_mean(plm: Path) -> None:
    assert load_scorer(str(plm), device="cpu").pooling == "mean"  # type: ignore[attr-defined]


def test_chunks_hold_every_sequence_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    groups = chunks(lengths, 128)
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    assert all(len(g) == 1 or len(g) * lengths[g].max() <= 128 for g in groups)
    padded = sum(len(g) * lengths[g].max() for g in groups)
    assert padded / lengths.sum() < 1.10


@pytest.mark.parametrize("n", [1, 2, 37, 300])
@pytest.mark.parametrize("pass_cost", [0, 7, 40])
def test_chunks_cost_as_little_as_any_split_of_the_sorted_sequences(n: int, pass_cost: int) -> None:
    lengths = np.random.default_rng(n).integers(1, 40, n)
    widest = np.sort(lengths)[::-1]
    least = [0]
    for j in range(1, n + 1):
        least.append(min(least[i] + widest[i] * (j - i) + pass_cost for i in range(j)))
    groups = chunks(lengths, 1_000_000, pass_cost=pass_cost)
    assert sorted(np.concatenate(groups).tolist()) == list(range(n))
    assert sum(len(g) * lengths[g].max() + pass_cost for g in groups) == least[-1]


def test_chunks_of_nothing_are_none_and_those_of_empty_sequences_hold_them() -> None:
    assert chunks(np.zeros(0, np.int64), 128) == []
    assert sorted(np.concatenate(chunks(np.array([0, 3, 0]), 128)).tolist()) == [0, 1, 2]


def test_arrays_reach_a_gpu_through_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        calls.append("pinned")
        return tensor

    def to(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        calls.append((*args, options))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    assert torch.equal(Compute("cuda:1").put(np.arange(3)), torch.arange(3))
    assert calls == ["pinned", ("cuda:1", {"non_blocking": True})]


def test_collate_pads_with_the_mask_saying_so(plm: Path) -> None:
    from transenc.models.transformer import load_tokenizer

    tokens = tokenize(load_tokenizer(plm).backend_tokenizer, ["a dog", "a"], 16)
    batch = collate(
        tokens, np.array([1, 0]), pad_id=9, names=["input_ids", "attention_mask", "token_type_ids"]
    )
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["input_ids"][0, 3] == 9
    assert all(a.dtype == np.int64 for a in batch.values())


@pytest.mark.parametrize("pair", [False, True])
def test_blocks_of_texts_are_bounded_by_their_characters(pair: bool, plm: Path) -> None:
    from transenc.models.transformer import load_tokenizer

    class Watched:
        def __init__(self, backend: Any) -> None:
            self.backend, self.blocks = backend, []

        def __getattr__(self, name: str) -> Any:
            return getattr(self.backend, name)

        def encode_batch_fast(self, texts: list[Any]) -> Any:
            self.blocks.append([len("".join(text)) for text in texts])
            return self.backend.encode_batch_fast(texts)

    backend: Any = Watched(load_tokenizer(plm).backend_tokenizer)
    words = ["dog " * n for n in (1, 2, 500, 1, 0, 3, 40, 40, 1)]
    texts: Any = [(w, "a cat") for w in words] if pair else words
    whole = tokenize(backend, texts, 16)
    assert len(backend.blocks) == 1
    backend.blocks.clear()
    found = tokenize(backend, texts, 16, block=4, characters=200)
    for name in ("ids", "types", "offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert all(len(block) == 1 or (sum(block) <= 200 and len(block) <= 4) for block in backend.blocks)
    assert len(backend.blocks) < len(texts)


def test_pairs_longer_than_the_limit_lose_the_end_of_the_longer_side(plm: Path) -> None:
    from transenc.models.transformer import load_tokenizer

    backend = load_tokenizer(plm).backend_tokenizer
    tokens = tokenize(backend, [("dog " * 50, "a cat")], 12)
    assert tokens.lengths.tolist() == [12]
    assert backend.decode(tokens.ids.tolist()).endswith("a cat")


def test_mean_pooling_ignores_padding_by_the_mask() -> None:
    states = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert pool(states, torch.tensor([[1, 1, 0]]), "mean").item() == 2.0
    assert pool(states, torch.tensor([[1, 1, 0]]), "cls").item() == 1.0


@pytest.mark.parametrize(("device", "precision"), [("cuda:0", "fp32"), ("cuda:1", "bf16")])
def test_the_card_that_is_asked_for_decides_on_bf16(
    device: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = ["cuda:0"]

    @contextmanager
    def chosen(name: str) -> Iterator[None]:
        current.append(name)
        yield
        current.pop()

    monkeypatch.setattr(torch, "zeros", lambda *shape, device: torch.ones(*shape))
    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: current[-1] == "cuda:1")
    assert Compute.choose(device) == Compute(device, precision)


@pytest.mark.skipif(torch.backends.mps.is_built(), reason="torch has Apple's GPUs here")
@pytest.mark.parametrize(("device", "why"), [("mps", ""), ("hpu", r" \(No module named 'torch\.hpu'\)")])
def test_a_device_that_torch_was_not_built_for_is_told_in_a_short_line(device: str, why: str) -> None:
    with pytest.raises(MachineError, match=rf"^No device '{device}' here{why}\. There is: cpu[^.]*\.$"):
        Compute.choose(device)


@pytest.mark.parametrize("part", ["AutoTokenizer", "AutoModel"])
def test_a_model_that_memory_does_not_hold_is_not_called_unusable(
    part: str, plm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(f"transformers.{part}.from_pretrained", load)
    with pytest.raises(MachineError, match="Out of memory"):
        load_scorer(str(plm), device="cpu", precision="fp32")
