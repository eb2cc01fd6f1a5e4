"""Folders that are not the model they should be: each is refused with what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace

import family_models
import pytest
import torch
from family_models import fetched, published, tensors
from safetensors.torch import load_file, save_file

from foundation import multimodal
from foundation.errors import ArtifactError, InputError
from foundation.weight_files import read_file, read_folder, write_file
from replication.actions.published import text_checkpoint
from replication.models import MODELS


def _text_only(source):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config["text_config"] | {"architectures": ["Gemma3ForCausalLM"]}))


def _no_tower(source):
    family_models.write_shards(source, {name: value for name, value in tensors(source).items()
                                        if not name.startswith("vision_tower.")})


def _renamed(source):
    family_models.write_shards(source, {name.removeprefix("language_model."): value
                                        for name, value in tensors(source).items()})


def _without(source, name):
    weights = tensors(source)
    del weights[name]
    family_models.write_shards(source, weights)


def _mismatched(source):
    path = source / "model-00001-of-00002.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path)


def _cut(source):
    path = source / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _foreign(source):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))


def _other_head(source):
    weights = tensors(source)
    family_models.write_shards(source, weights | {"lm_head.weight": weights["model.embed_tokens.weight"] + 1})


def _other_shape(source):
    weights = tensors(source)
    weights["model.norm.weight"] = torch.ones(33)
    family_models.write_shards(source, weights)


def _no_template(source):
    (source / "chat_template.jinja").unlink()


@pytest.mark.parametrize(("family_name", "harm", "reason"), [
    ("gemma-3-4b", _text_only, r"architecture \['Gemma3ForCausalLM'\], expected was \['Gemma3ForConditionalGen"),
    ("gemma-3-4b", _no_tower, r"no vision_tower\.vision_model\.\* weights; a text-only or renamed copy"),
    ("gemma-3-4b", _renamed, r"no language_model\.\* weights"),
    ("gemma-3-4b", lambda s: (s / "processor_config.json").unlink(), "lacks processor_config.json"),
    ("qwen3-4b", _foreign, r"architecture \['LlamaForCausalLM'\]"),
    ("qwen3-4b", lambda s: (s / "config.json").write_text("[]"), "is no model config"),
    ("qwen3-4b", lambda s: (s / "model-00002-of-00002.safetensors").unlink(),
     r"names 2 shards, 1 of them are missing \(model-00002"),
    ("qwen3-4b", lambda s: (s / "model.safetensors.index.json").unlink(), "has neither model.safetensors nor"),
    ("qwen3-4b", lambda s: (s / "model.safetensors.index.json").write_text('{"weight_map": {}}'),
     "no index of weights"),
    ("qwen3-4b", _mismatched, "which does not hold it"),
    ("qwen3-4b", _cut, "its header speaks of"),
    ("qwen3-4b", lambda s: (s / "model-00001-of-00002.safetensors").write_bytes(b"<html>sign in</html>"),
     "is no whole safetensors file"),
    ("qwen3-4b", lambda s: _without(s, "model.layers.1.mlp.up_proj.weight"),
     r"1 differ, e\.g\. model\.layers\.1\.mlp\.up_proj\.weight \(expected \(64, 32\), found not at all\)"),
    ("qwen3-8b", lambda s: _without(s, "lm_head.weight"), r"lm_head\.weight \(expected .*found not at all"),
    ("qwen3-4b", _other_head, "ties the head to the embedding, but"),
    ("qwen2.5-3b", _other_shape, r"model\.norm\.weight \(expected \(32,\), found \(33,\)\)"),
    ("qwen2.5-3b", _no_template, "without a chat template"),
])
def test_a_folder_that_is_not_the_model_is_refused(family_name, harm, reason, tmp_path):
    source = published(family_name, tmp_path / "hub")
    harm(source)
    with pytest.raises(InputError, match=reason):
        fetched(family_name, source, tmp_path / "checkpoint")


def test_a_tokenizer_of_another_family_is_refused(tmp_path):
    source = published("qwen3-4b", tmp_path / "hub")
    with pytest.raises(InputError, match="no token '<end_of_turn>'"):
        text_checkpoint(source, replace(MODELS["qwen3-4b"], terminator="<end_of_turn>"), None, tmp_path / "checkpoint")


def test_a_text_model_of_other_shapes_is_not_put_back(tmp_path):
    fetched("gemma-3-4b", published("gemma-3-4b", tmp_path / "hub"), tmp_path / "checkpoint")
    weights = load_file(tmp_path / "checkpoint/model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, tmp_path / "checkpoint/model.safetensors")
    with pytest.raises(ArtifactError, match=r"1 weights differ, e\.g\. model\.norm\.weight \(published \[32\]"):
        multimodal.wrap(tmp_path / "checkpoint", tmp_path / "export")
    assert not (tmp_path / "export").exists()


# --------------------------------------------------------------------------------------------------------- weight files


def test_streamed_files_hold_the_same_bytes_under_other_names(tmp_path):
    """Mixed widths, a scalar and an empty tensor; the library reads what was written."""
    before = {"a": torch.randn(3, 5), "b": torch.arange(7, dtype=torch.uint8), "c": torch.tensor(2.0).bfloat16(),
              "d": torch.zeros(0, 4), "e": torch.randn(9).bfloat16()}
    save_file(before, tmp_path / "one.safetensors")
    write_file(tmp_path / "two.safetensors", {f"x.{n}": t for n, t in read_file(tmp_path / "one.safetensors").items()})
    found = load_file(tmp_path / "two.safetensors")
    assert sorted(found) == [f"x.{name}" for name in before]
    assert all(torch.equal(found[f"x.{name}"], value) and found[f"x.{name}"].dtype == value.dtype
               for name, value in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]
    placed = read_file(tmp_path / "two.safetensors")  # readers map the file: each number at a multiple of its width
    assert all(placed[f"x.{name}"].begin % value.element_size() == 0 for name, value in before.items())


def test_a_source_that_is_cut_while_it_is_read_leaves_no_file(tmp_path):
    save_file({"a": torch.zeros(100)}, tmp_path / "one.safetensors")
    found = read_file(tmp_path / "one.safetensors")
    (tmp_path / "one.safetensors").write_bytes((tmp_path / "one.safetensors").read_bytes()[:200])
    with pytest.raises(InputError, match="ended within a tensor"):
        write_file(tmp_path / "two.safetensors", found)
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


@pytest.mark.parametrize("content", [
    b"", b"abc", (9).to_bytes(8, "little") + b"not JSON!", (2).to_bytes(8, "little") + b"[]",
    (40).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1]}}'.ljust(40),
    (2**40).to_bytes(8, "little") + b"{}",
])
def test_what_is_no_weight_file_is_named(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors is no whole safetensors file"):
        read_folder(tmp_path)


def test_an_index_cannot_point_outside_its_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    with pytest.raises(InputError, match="names no shards beside it"):
        read_folder(tmp_path)
