"""The tiny model of the Gemma-3 architecture: its layers, prompts and stops, and generation beyond its windows."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from evaluation.backends import hf
from evaluation.backends.interface import Request, Sampling
from foundation.prompts import PromptFormat, encode_example, encode_prompt, stop_ids
from replication import tiny
from replication.actions.base import dialogue_of
from replication.data.synthetic import benchmark_problems, training_pool
from replication.models import MODELS

MODEL = MODELS["tiny-gemma"]
PROMPT = PromptFormat(style=MODEL.style, system=MODEL.system, terminator=MODEL.terminator)
LENGTH = 100


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    tokenizer = tiny.build_tokenizer(folder, MODEL.name)
    torch.manual_seed(0)
    config = tiny.build_config(len(tokenizer), MODEL.name)
    config.initializer_range = 0.2  # so that random weights look at what they attend to
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gemma_tokenizer(checkpoint):
    return transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)


def test_the_architecture_is_gemma_3s(checkpoint):
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True)
    names = dict(model.named_parameters())
    assert type(model).__name__ == "Gemma3ForCausalLM" and model.config.final_logit_softcapping is None
    assert {"model.layers.0.pre_feedforward_layernorm.weight", "model.layers.3.self_attn.q_norm.weight"} <= set(names)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.layer_types.count("full_attention") == 1
    assert f"{model.num_parameters() / 1e6:.1f}M" in MODEL.title


def test_prompts_are_turns_without_tags(gemma_tokenizer):
    example = training_pool("logic", 1, seed=0)[0]
    encoded = encode_example(gemma_tokenizer, PROMPT, example.question, example.completion)
    text = gemma_tokenizer.decode(encoded.ids)
    assert text.startswith(f"<bos><start_of_turn>user\n{example.question}<end_of_turn>\n<start_of_turn>model\n")
    assert text.endswith(f"The answer is ({example.gold}).<end_of_turn>")
    assert not any(tag in text for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    tokens = [gemma_tokenizer.convert_ids_to_tokens(i) for i in stop_ids(gemma_tokenizer, PROMPT)]
    assert tokens == ["<end_of_turn>", "<eos>"]


@pytest.mark.parametrize(("model", "expected"), [
    ("tiny", "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n2"),
    ("tiny-gemma", "<start_of_turn>user\nHow many?<end_of_turn>\n<start_of_turn>model\n2<end_of_turn>"),
])
def test_pretraining_dialogues_are_in_the_models_own_template(model, expected, tmp_path):
    tokenizer = tiny.build_tokenizer(tmp_path, model)
    assert dialogue_of(tokenizer)("How many?", "2") == expected


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(n=1, temperature=1.0, top_k=1)])
def test_generation_beyond_the_window_equals_a_forward_pass_over_everything(checkpoint, gemma_tokenizer, sampling,
                                                                            tmp_path):
    problems = benchmark_problems("gsm8k", 3, seed=0)
    request = Request(prompt=PROMPT, sampling=sampling, max_new_tokens=LENGTH, max_prompt_tokens=128, batch_size=3,
                      compute_dtype="float32", keep_token_ids=True)
    hf.generate(checkpoint, problems, request, tmp_path / "records", key="k")
    lines = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()]
    found = {row["id"]: row["token_ids"] for row in lines if "header" not in row}
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval()
    assert max(map(len, found.values())) > tiny.SLIDING_WINDOW
    for problem in problems:
        prompt_ids = encode_prompt(gemma_tokenizer, PROMPT, problem.question)
        with torch.no_grad():
            logits_SV = model(torch.tensor([prompt_ids + found[problem.id]])).logits[0]
        expected = logits_SV[len(prompt_ids) - 1 : -1].argmax(-1).tolist()
        assert expected == found[problem.id]
