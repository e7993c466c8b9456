"""Check that the installed package offers what its entry point promises."""

import hashlib
from importlib.metadata import entry_points

import pytest

import transenc_mini

WEIGHTS = "model.safetensors"


def test_the_entry_point_names_the_function():
    (found,) = entry_points(group="transenc.plms", name="mini")
    assert found.load() is transenc_mini.plm


def test_every_listed_file_has_its_digest():
    model = transenc_mini.plm()
    for name, digest in model["sha256"].items():
        assert hashlib.sha256((model["path"] / name).read_bytes()).hexdigest() == digest
    assert {WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json"} <= set(model["sha256"])


def test_the_weights_are_small_and_the_card_is_one_line():
    model = transenc_mini.plm()
    assert (model["path"] / WEIGHTS).stat().st_size <= 24_000_000
    assert model["card"].strip() == model["card"] and len(model["card"].splitlines()) == 1
    assert model["tuned"] is False and model["pooling"] == "mean"


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_transformers_loads_it_unchanged(auto):
    transformers = pytest.importorskip("transformers")
    path = transenc_mini.plm()["path"]
    model, loading = getattr(transformers, auto).from_pretrained(path, output_loading_info=True)
    # Only layers that masked-LM pretraining cannot know may be new: the pooler and the classifier.
    assert all(
        name.startswith(("pooler.", "bert.pooler.", "classifier.")) for name in loading["missing_keys"]
    )
    assert not loading["mismatched_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    batch = tokenizer([("A first sentence.", "And a second one.")], padding="max_length", return_tensors="pt")
    assert batch["input_ids"].shape == (1, 128) and len(tokenizer) == model.config.vocab_size
    assert sorted(set(batch["token_type_ids"][0].tolist())) == [0, 1]
    model.float()(**batch)


def test_it_has_learned_to_fill_a_gap():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = transenc_mini.plm()["path"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForMaskedLM.from_pretrained(path).float().eval()
    batch = tokenizer("My brother is older [MASK] me.", return_tensors="pt")
    place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        best = model(**batch).logits[0, place].topk(10).indices.tolist()
    assert "than" in tokenizer.convert_ids_to_tokens(best)
