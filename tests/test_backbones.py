"""The four backbones as small random models of their real architectures: fetch, train a pair, export, reload, vLLM."""

from __future__ import annotations

import json
from collections import Counter

import family_models
import pytest
import torch
import transformers
from fake_hub import COMMIT, FakeHub
from family_models import CASES, FAMILIES, LAYERS, expand, fetched, pattern, published, tensors

from baselines.batches import encode_pool
from baselines.branches import BranchedModel, is_tied, load_causal_lm, untie
from baselines.lora import attach, merge
from baselines.settings import DataSettings, JointTraining, LoRA, LossSettings, TrainingSettings
from baselines.trainer import train
from baselines.wmss import WMSS
from evaluation.backends import hf
from evaluation.backends.interface import Prompt, Request
from foundation import multimodal
from foundation.hub import fetch
from foundation.locks import hub_entry
from foundation.prompts import PromptFormat, encode_prompt, stop_ids
from foundation.weight_files import INDEX, read_folder, read_index
from replication.actions.published import from_hub
from replication.actions.torch_setup import save_checkpoint
from replication.models import MODELS

TRAINING = TrainingSettings(learning_rate=1e-2, warmup_ratio=0.0, global_batch=4, micro_batch=2,
                            compute_dtype="float32", gradient_checkpointing=False)
QUESTION = "How many apples are left?"


def prompt_of(family):
    model = MODELS[family]
    return PromptFormat(style=model.style, system=model.system, terminator=model.terminator)


def same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def text_names(family):
    names = [name.removeprefix("language_model.") for name in CASES["published"][family]
             if name.startswith(("model.", "lm_head.", "language_model."))]
    return sorted(expand(names, LAYERS[family]))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def source(family, tmp_path_factory):
    return published(family, tmp_path_factory.mktemp("hub") / family)


@pytest.fixture(scope="module")
def base(family, source, tmp_path_factory):
    return fetched(family, source, tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def trained(family, base, examples, tmp_path_factory):
    """One WD-JT update of a pair by the real trainer; the model in memory and the exported strong branch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, local_files_only=True)
    encoded = encode_pool(examples[:4], tokenizer, prompt_of(family), DataSettings(max_length=256), LossSettings())
    model = BranchedModel(WMSS(), load_causal_lm(base), load_causal_lm(base))
    folder = tmp_path_factory.mktemp("trained")
    log = train(model, encoded.rows, tokenizer, TRAINING, seed=0, work=folder / "work", joint=JointTraining())
    assert log.updates == 1
    save_checkpoint(model.strong, tokenizer, folder / "checkpoint", stop_ids(tokenizer, prompt_of(family)))
    return model.strong, folder / "checkpoint"


# ---------------------------------------------------------------------------------------------------------- fetching


def test_published_names_are_those_on_the_hub(family, source):
    found = sorted(read_folder(source))
    towers = 2  # layers of the small vision tower
    expected = [name for p in CASES["published"][family]
                for name in expand([p], towers if p.startswith("vision_tower") else LAYERS[family])]
    assert found == sorted(expected)


@pytest.mark.hub
def test_the_recorded_names_are_those_of_the_repository(family, tmp_path):
    """Reads an index of 100 kB; Gemma's repository asks for a token."""
    (tmp_path / "lock.json").write_text('{"files": {}, "hub": {}}')
    index = fetch(MODELS[family].source.removeprefix("hub:"), INDEX, repo_type="model", lock=tmp_path / "lock.json")
    assert {pattern(name) for name in read_index(index)} == set(CASES["published"][family])


def test_fetching_keeps_every_weight_and_its_dtype_and_a_tied_head_once(family, source, base):
    parts = {name.removeprefix("language_model."): value for name, value in tensors(source).items()
             if not name.startswith(("vision_tower.", "multi_modal_projector."))}
    same(tensors(base), parts)
    assert sorted(parts) == text_names(family)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True,
                                                                    output_loading_info=True)
    assert not any(info.values()) and model.dtype == torch.bfloat16
    assert is_tied(model) == ("lm_head.weight" not in parts) == (family != "qwen3-8b")


def test_the_architectures_have_what_the_real_ones_have(family, base):
    model = transformers.AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    names = {pattern(name) for name, _ in model.named_parameters()}
    assert ("model.layers.N.self_attn.q_norm.weight" in names) == (family != "qwen2.5-3b")
    assert ("model.layers.N.self_attn.q_proj.bias" in names) == (family == "qwen2.5-3b")
    if family == "gemma-3-4b":
        config = model.config
        assert config.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
        assert config.sliding_window == family_models.WINDOW and config.final_logit_softcapping is None
        assert config.rope_parameters["full_attention"] == {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
        assert config.rope_parameters["sliding_attention"]["rope_theta"] == 1e4


def test_the_first_fetch_pins_commit_and_hashes_and_takes_nothing_else(family, source, base, tmp_path, monkeypatch):
    hub, lock = FakeHub(tmp_path / "cache", monkeypatch), tmp_path / "locks/lock.json"
    lock.parent.mkdir()
    lock.write_text('{"files": {}, "hub": {}}')
    hub.files = {path.name: path.read_bytes() for path in source.iterdir() if path.name != "chat_template.jinja"}
    tokens = json.loads(hub.files["tokenizer_config.json"])  # where these repositories keep their template
    if (source / "chat_template.jinja").is_file():
        tokens["chat_template"] = (source / "chat_template.jinja").read_text()
    hub.files |= {"tokenizer_config.json": json.dumps(tokens).encode(), "README.md": b"", "original.bin": b""}
    model = MODELS[family]
    notes = from_hub(model, model.chat_template, tmp_path / "checkpoint", lock)
    entry = hub_entry(model.source.removeprefix("hub:"), lock)
    assert entry and entry.revision == notes["revision"] == COMMIT
    assert sorted(entry.files) == sorted(set(hub.files) - {"README.md", "original.bin"})
    assert all(entry.files.values()) and notes["parameters"] == sum(v.numel() for v in tensors(base).values())
    same(tensors(tmp_path / "checkpoint"), tensors(base))
    # a second fetch needs no network and takes the recorded commit
    hub.online = False
    from_hub(model, model.chat_template, tmp_path / "again", lock)
    same(tensors(tmp_path / "again"), tensors(base))


def test_a_head_that_the_publisher_stored_twice_is_kept_once(tmp_path):
    source = published("qwen3-4b", tmp_path / "hub")
    weights = tensors(source)
    family_models.write_shards(source, weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    assert "lm_head.weight" not in read_folder(fetched("qwen3-4b", source, tmp_path / "checkpoint"))


def test_gemmas_real_config_gives_the_real_text_model():
    """The fields of the published config.json, which leaves the rest to the library's defaults."""
    from replication.actions.published import _skeleton
    from replication.cost.shapes import SHAPES

    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
    config = transformers.Gemma3Config(text_config=text, vision_config={"hidden_size": 1152}).get_text_config()
    model = _skeleton(config)
    assert model.num_parameters() == SHAPES["gemma-3-4b"].parameters
    assert [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"] == [5, 11, 17, 23, 29]
    assert config.rope_parameters["full_attention"]["factor"] == 8.0


# ------------------------------------------------------------------------------------------------- training and export


def test_the_strong_branch_survives_the_export(family, base, trained):
    model, checkpoint = trained
    found, before = tensors(checkpoint), tensors(base)
    assert sorted(found) == text_names(family)
    same(found, {name: value for name, value in model.state_dict().items() if name in found})
    assert {value.dtype for value in found.values()} == {torch.float32}  # the master weights
    assert all(not torch.equal(found[name], before[name].float()) for name in found)
    reloaded = load_causal_lm(checkpoint)
    assert is_tied(reloaded) == is_tied(model)
    ids_BS = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model.eval()(ids_BS).logits, reloaded.eval()(ids_BS).logits)


def test_generation_is_the_same_before_and_after(family, trained, tmp_path):
    model, checkpoint = trained
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    stops = stop_ids(tokenizer, prompt_of(family))
    length = 2 * family_models.WINDOW
    request = Request(prompt=prompt_of(family), max_new_tokens=length, max_prompt_tokens=256, batch_size=1,
                      compute_dtype="float32", keep_token_ids=True)
    hf.generate(checkpoint, [Prompt("p", QUESTION)], request, tmp_path / "records", key="k")
    found = json.loads((tmp_path / "records").read_text().splitlines()[1])["token_ids"]
    ids_BS = torch.tensor([encode_prompt(tokenizer, prompt_of(family), QUESTION)])
    expected = model.eval().generate(ids_BS, attention_mask=torch.ones_like(ids_BS), max_new_tokens=length,
                                     do_sample=False, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id)
    assert found == expected[0, ids_BS.shape[1]:].tolist()


# ---------------------------------------------------------------------------------------------------------- terminators


def test_answers_end_at_the_familys_terminator_and_end_of_text(family, base):
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, local_files_only=True)
    expected = ["<end_of_turn>", "<eos>"] if family == "gemma-3-4b" else ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.convert_ids_to_tokens(stop_ids(tokenizer, prompt_of(family))) == expected


@pytest.mark.parametrize("number", [0, 1])
def test_generation_stops_at_either(family, base, number, tmp_path):
    """A head of one row's direction and its opposite: whatever the hidden state, one of two tokens is the likeliest."""
    model = load_causal_lm(base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, local_files_only=True)
    stops = stop_ids(tokenizer, prompt_of(family))
    untie(model)
    head_VD = model.get_output_embeddings().weight.data.zero_()
    head_VD[stops[number], 0], head_VD[stops[1 - number], 0] = 200.0, -200.0
    save_checkpoint(model, tokenizer, tmp_path / "checkpoint", stops)
    request = Request(prompt=prompt_of(family), max_new_tokens=8, max_prompt_tokens=256, batch_size=8,
                      compute_dtype="float32", keep_token_ids=True)
    questions = [Prompt(str(i), f"{QUESTION} {i}") for i in range(4)]
    hf.generate(tmp_path / "checkpoint", questions, request, tmp_path / "records", key="k")
    rows = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()[1:]]
    assert {row["finish_reason"] for row in rows} == {"stop"} and {row["text"] for row in rows} == {""}
    assert {token for row in rows for token in row["token_ids"]} <= set(stops)


def test_a_tokenizer_with_another_end_token_gets_the_familys(tmp_path):
    source = published("qwen2.5-3b", tmp_path / "hub")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(source)
    base = fetched("qwen2.5-3b", source, tmp_path / "checkpoint")
    assert transformers.AutoTokenizer.from_pretrained(base).eos_token == "<|endoftext|>"


def test_gemma_gets_the_fallback_template_and_the_others_keep_their_own(family, source, base):
    own, written = (transformers.AutoTokenizer.from_pretrained(folder).chat_template for folder in (source, base))
    assert written == (MODELS[family].chat_template if own is None else own)
    assert (own is None) == (family == "gemma-3-4b")
    if family == "gemma-3-4b":
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        text = tokenizer.decode(encode_prompt(tokenizer, prompt_of(family), QUESTION))
        assert text == (f"<bos><start_of_turn>user\n{MODELS[family].system}\n\n{QUESTION}<end_of_turn>\n"
                        "<start_of_turn>model\n")


# ----------------------------------------------------------------------------------------------- what vLLM is given


@pytest.fixture(scope="module")
def exported(family, trained, tmp_path_factory):
    """The folder that the vLLM backend hands to vLLM."""
    _, checkpoint = trained
    with multimodal.published_form(checkpoint, tmp_path_factory.mktemp("export") / "form") as folder:
        yield folder
    assert folder == checkpoint or not folder.exists()


def test_exported_names_are_those_on_the_hub(family, source, exported):
    assert sorted(read_folder(exported)) == sorted(read_folder(source))


def vllm_names(family, names):
    """Map names as vLLM's loader does: stacked parameters, then prefixes; count what goes into each parameter."""
    loaded = Counter()
    for name in names:
        shard = None
        for part, (packed, number) in CASES["stacked"].items():
            if f"{part}." in name:
                name, shard = name.replace(part, packed, 1), number
        for old, new in CASES["vllm"][family]["prefixes"].items():
            if name.startswith(old):
                name = name.replace(old, new, 1)
        loaded[name, shard] += 1
    return loaded


def test_exported_names_fill_each_parameter_of_vllms_class_once(family, exported):
    layers = {True: 2, False: LAYERS[family]}
    parameters = [name for p in CASES["vllm"][family]["parameters"]
                  for name in expand([p], layers[p.startswith("vision_tower")])]
    shards = {"qkv_proj": ("q", "k", "v"), "gate_up_proj": (0, 1)}
    wanted = Counter((name, shard) for name in parameters
                     for shard in next((s for packed, s in shards.items() if f".{packed}." in name), (None,)))
    assert vllm_names(family, read_folder(exported)) == wanted


def test_the_recorded_mapping_is_vllms_own(family):
    pytest.importorskip("vllm")
    import importlib

    entry = CASES["vllm"][family]
    found = getattr(importlib.import_module(f"vllm.model_executor.models.{entry['module']}"), entry["class"])
    packed = {}
    for part, (name, _) in CASES["stacked"].items():
        packed.setdefault(name.removeprefix("."), []).append(part.removeprefix("."))
    assert found.packed_modules_mapping == packed
    mapper = getattr(found, "hf_to_vllm_mapper", None)
    assert (mapper.orig_to_new_prefix if mapper else {}) == entry["prefixes"]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """Published Gemma, its text checkpoint, and a text checkpoint changed by training (weights doubled)."""
    folder = tmp_path_factory.mktemp("gemma")
    source = published("gemma-3-4b", folder / "hub", seed=4)
    base = fetched("gemma-3-4b", source, folder / "base")
    model = load_causal_lm(base, "bf16_pure")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    save_checkpoint(model, tokenizer, folder / "trained", [1])
    return source, base, folder / "trained"


def test_gemmas_export_is_the_published_class_with_the_trained_text_and_the_untouched_rest(gemma, tmp_path):
    source, _, trained = gemma
    multimodal.wrap(trained, tmp_path / "export")
    found, before = tensors(tmp_path / "export"), tensors(source)
    text = {f"language_model.{name}": value for name, value in tensors(trained).items()}
    same(found, text | {name: value for name, value in before.items() if name not in text})
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "export/config.json").read_text()) == json.loads((source / "config.json").read_text())
    for name in multimodal.COMPANIONS[1:]:
        assert (tmp_path / "export" / name).read_bytes() == (source / name).read_bytes()


def test_gemmas_export_computes_what_the_text_model_computes(gemma, tmp_path):
    _, _, trained = gemma
    multimodal.wrap(trained, tmp_path / "export")
    whole, info = transformers.Gemma3ForConditionalGeneration.from_pretrained(
        tmp_path / "export", dtype=torch.float32, local_files_only=True, output_loading_info=True)
    assert not any(info.values())
    ids_BS = torch.arange(10, 10 + 3 * family_models.WINDOW)[None]
    text = load_causal_lm(trained).eval()
    torch.testing.assert_close(whole.eval()(ids_BS).logits, text(ids_BS).logits, rtol=1e-5, atol=1e-5)


def test_the_untouched_rest_takes_its_space_once(gemma, tmp_path):
    _, base, trained = gemma
    multimodal.wrap(trained, tmp_path / "export")
    places = [base / multimodal.FOLDER / multimodal.REST, trained / multimodal.FOLDER / multimodal.REST,
              tmp_path / "export/model-00002-of-00002.safetensors"]
    assert len({path.stat().st_ino for path in places}) == 1
    assert {path.name for path in (trained / multimodal.FOLDER).iterdir()} == {multimodal.REST, multimodal.SHAPES,
                                                                                *multimodal.COMPANIONS}


def test_a_second_training_and_merged_adapters_carry_the_rest_too(gemma, tmp_path):
    _, _, trained = gemma
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    model = load_causal_lm(trained)
    save_checkpoint(merge(attach(model, LoRA(rank=2, alpha=2, targets=("q_proj", "v_proj")))), tokenizer,
                    tmp_path / "checkpoint", [1])
    assert multimodal.is_part(tmp_path / "checkpoint")
    multimodal.wrap(tmp_path / "checkpoint", tmp_path / "export")


def test_an_untied_head_is_exported_beside_the_embedding(gemma, tmp_path):
    _, _, trained = gemma
    model = load_causal_lm(trained)
    untie(model)
    model.get_output_embeddings().weight.data.mul_(2)
    save_checkpoint(model, transformers.AutoTokenizer.from_pretrained(trained), tmp_path / "checkpoint", [1])
    multimodal.wrap(tmp_path / "checkpoint", tmp_path / "export")
    config = json.loads((tmp_path / "export/config.json").read_text())  # vLLM ties by what it says
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False
    whole = transformers.Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "export", dtype=torch.float32)
    ids_BS = torch.arange(10, 30)[None]
    torch.testing.assert_close(whole.eval()(ids_BS).logits, model.eval()(ids_BS).logits, rtol=1e-5, atol=1e-5)


def test_what_a_killed_process_left_is_replaced_and_the_form_is_gone_afterwards(gemma, tmp_path):
    _, _, trained = gemma
    (tmp_path / "form").mkdir()
    (tmp_path / "form/model-00001-of-00002.safetensors").write_text("half")
    with pytest.raises(RuntimeError), multimodal.published_form(trained, tmp_path / "form") as folder:
        assert len(read_folder(folder)) > 0
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
