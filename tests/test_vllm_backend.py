"""The vLLM backend against a stand-in with vLLM's real names: what it asks for, and how it survives kills.

vLLM itself needs a GPU. The stand-in refuses any keyword that the real classes do not have, and answers with what it
was asked, so that the records show the engine's settings, device, seed and limit of every sequence.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from family_models import fetched, published

from evaluation.backends import vllm as backend
from evaluation.backends.interface import BACKENDS, Prompt, Request, Sampling
from foundation import multimodal
from foundation.errors import GenerationError, InputError, PrerequisiteError
from foundation.prompts import PromptFormat, encode_prompt, stop_ids

STAND_IN = '''
import json, os
from dataclasses import dataclass

@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False

@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: tuple[int, ...]
    cumulative_logprob: float | None = None
    logprobs: object = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True

class LLM:
    def __init__(self, model, *, tokenizer=None, tensor_parallel_size=1, dtype="auto", seed=0,
                 enable_prefix_caching=None, gpu_memory_utilization=0.9, max_model_len=None, generation_config="auto",
                 enforce_eager=False, limit_mm_per_prompt=None):
        self.folder = sorted(os.listdir(model))
        self.architecture = json.load(open(os.path.join(model, "config.json")))["architectures"]
        self.pictures = limit_mm_per_prompt
        self.settings = {"model": model, "tensor_parallel_size": tensor_parallel_size, "dtype": dtype, "seed": seed,
                         "enable_prefix_caching": enable_prefix_caching, "max_model_len": max_model_len,
                         "generation_config": generation_config}
        self.calls = 0

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None, priority=None):
        self.calls += 1
        assert len(prompts) == len(sampling_params)
        return [self.answer(i, prompt, params) for i, (prompt, params) in enumerate(zip(prompts, sampling_params))]

    def answer(self, number, prompt, params):
        ids = prompt["prompt_token_ids"]
        if os.environ.get("STAND_IN_DIES") == str(params.seed):
            os._exit(9)
        told = {"engine": self.settings, "params": vars(params), "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
                "in_process": os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"], "ids": ids, "process": os.getpid(),
                "architecture": self.architecture, "files": self.folder, "pictures": self.pictures}
        outputs = [CompletionOutput(index=i, text=json.dumps(told), token_ids=(7, 8, params.stop_token_ids[0]),
                                    finish_reason=os.environ.get("STAND_IN_REASON", "stop")) for i in range(params.n)]
        return RequestOutput(str(number), None, ids, outputs)
'''
PROMPTS = [Prompt(f"p{i}", f"What is {i} + {i}{' please' * i}?") for i in range(4)]
WARM = Sampling(n=3, temperature=0.8, top_p=0.95, top_k=50)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "vllm.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")


@pytest.fixture
def request_(prompt):
    def request(sampling=WARM, **changes):
        settings = {"max_new_tokens": 20, "max_prompt_tokens": 100, "batch_size": 2, "compute_dtype": "bfloat16",
                    "seed": 2**33 + 5}
        return Request(prompt=prompt, sampling=sampling, **settings | changes)
    return request


def _rows(path):
    return [json.loads(line) for line in path.read_text().split("\n")[1:-1]]


def test_every_sample_is_a_request_with_its_own_seed_and_limit(stand_in, request_, tiny_checkpoint, tokenizer, prompt,
                                                               tmp_path):
    request = request_(max_total_tokens=40, stop=("\n\n",), keep_token_ids=True)
    backend.generate(tiny_checkpoint, PROMPTS, request, tmp_path / "records", key="k")
    rows = _rows(tmp_path / "records")
    assert {(row["id"], row["sample"]) for row in rows} == {(p.id, i) for p in PROMPTS for i in range(3)}
    stops = stop_ids(tokenizer, prompt)
    for row in rows:
        question = next(p.question for p in PROMPTS if p.id == row["id"])
        ids = encode_prompt(tokenizer, prompt, question)
        told = json.loads(row["text"])
        assert told["ids"] == ids and row["prompt_tokens"] == len(ids)
        assert told["params"] | {
            "n": 1, "temperature": 0.8, "top_p": 0.95, "top_k": 50, "max_tokens": min(20, 40 - len(ids)),
            "stop": ["\n\n"], "stop_token_ids": stops, "seed": request.seed_of(row["id"], row["sample"]),
        } == told["params"]
        assert row["seed"] == told["params"]["seed"] and row["token_ids"] == [7, 8, stops[0]]
        assert row["new_tokens"] == 3 and row["finish_reason"] == "stop"
        longest = max(min(40, len(encode_prompt(tokenizer, prompt, p.question)) + 20) for p in PROMPTS)
        assert told["engine"] == {
            "model": str(tiny_checkpoint), "tensor_parallel_size": 1, "dtype": "bfloat16", "seed": request.seed % 2**32,
            "enable_prefix_caching": True, "max_model_len": longest, "generation_config": "vllm"}
        assert told["in_process"] == "0"
    assert len({row["seed"] for row in rows}) == len(rows)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    return fetched("gemma-3-4b", published("gemma-3-4b", folder / "hub"), folder / "checkpoint")


def test_gemma_is_given_in_its_published_form_without_room_for_pictures(stand_in, request_, gemma, tmp_path):
    prompt = PromptFormat(style="tag_free", system=None, terminator="<end_of_turn>")
    request = replace(request_(Sampling(), keep_token_ids=True), prompt=prompt)
    (tmp_path / "out").mkdir()
    backend.generate(gemma, PROMPTS, request, tmp_path / "out/records", key="k")
    rows = _rows(tmp_path / "out/records")
    assert len(rows) == len(PROMPTS)
    for row in rows:
        told = json.loads(row["text"])
        assert told["architecture"] == ["Gemma3ForConditionalGeneration"] and told["pictures"] == {"image": 0}
        assert {"model.safetensors.index.json", "processor_config.json", "tokenizer.json"} <= set(told["files"])
        assert told["params"]["stop_token_ids"] == [5, 1]  # <end_of_turn>, <eos>
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["records"]


def test_other_models_are_given_as_they_are(stand_in, request_, tiny_checkpoint, tmp_path):
    backend.generate(tiny_checkpoint, PROMPTS[:1], request_(Sampling()), tmp_path / "records", key="k")
    told = json.loads(_rows(tmp_path / "records")[0]["text"])
    assert told["engine"]["model"] == str(tiny_checkpoint) and told["pictures"] is None


def test_a_finished_request_writes_no_published_form(stand_in, request_, gemma, tmp_path, monkeypatch):
    prompt = PromptFormat(style="tag_free", system=None, terminator="<end_of_turn>")
    request = replace(request_(Sampling()), prompt=prompt)
    backend.generate(gemma, PROMPTS, request, tmp_path / "records", key="k")
    monkeypatch.setattr(multimodal, "wrap", None)
    backend.generate(gemma, PROMPTS, request, tmp_path / "records", key="k")


def test_greedy_is_temperature_0_without_a_seed(stand_in, request_, tiny_checkpoint, tmp_path):
    BACKENDS["vllm"](tiny_checkpoint, PROMPTS[:1], request_(Sampling()), tmp_path / "records", key="k")
    [row] = _rows(tmp_path / "records")
    params = json.loads(row["text"])["params"]
    assert (params["temperature"], params["top_k"], params["seed"], params["stop"]) == (0.0, -1, None, None)
    assert row["seed"] is None and "token_ids" not in row


@pytest.mark.parametrize(("gpus_per_engine", "groups"), [(1, {"4", "5"}), (2, {"4,5"})])
def test_gpus_are_shared_out(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch, gpus_per_engine, groups):
    backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k",
                     gpus_per_engine=gpus_per_engine)
    told = [json.loads(row["text"]) for row in _rows(tmp_path / "records")]
    assert {t["gpus"] for t in told} <= groups
    assert {t["engine"]["tensor_parallel_size"] for t in told} == {gpus_per_engine}


def test_a_death_keeps_finished_chunks_and_the_next_run_adds_the_rest(stand_in, request_, tiny_checkpoint, tmp_path,
                                                                     monkeypatch):
    monkeypatch.setattr(backend, "CHUNK_SEQUENCES", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path, request = tmp_path / "records", request_()
    monkeypatch.setenv("STAND_IN_DIES", str(request.seed_of("p2", 1)))
    with pytest.raises(GenerationError, match="finished samples are kept"):
        backend.generate(tiny_checkpoint, PROMPTS, request, path, key="k")
    kept = _rows(path)
    assert 0 < len(kept) <= 6
    with path.open("a") as file:
        file.write('{"id": "p3", "sam')
    monkeypatch.delenv("STAND_IN_DIES")
    fractions = []
    backend.generate(tiny_checkpoint, PROMPTS, request, path, key="k", on_progress=fractions.append)
    rows = _rows(path)
    assert rows[: len(kept)] == kept
    assert sorted((row["id"], row["sample"]) for row in rows) == [(p.id, i) for p in PROMPTS for i in range(3)]
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_an_aborted_sequence_is_an_error_not_a_record(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_REASON", "abort")
    with pytest.raises(GenerationError, match="'abort'"):
        backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k")
    assert _rows(tmp_path / "records") == []


def test_without_vllm_the_reader_learns_how_to_get_it(request_, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(PrerequisiteError, match="pip install vllm"):
        backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k")


@pytest.mark.parametrize(("gpus", "gpus_per_engine", "reason"), [
    ("", 1, r"needs 1 GPU\(s\), found 0"), ("0,1", 4, r"needs 4 GPU\(s\), found 2")])
def test_too_few_gpus_are_a_missing_prerequisite(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch, gpus,
                                                 gpus_per_engine, reason):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    with pytest.raises(PrerequisiteError, match=reason):
        backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k",
                         gpus_per_engine=gpus_per_engine)


@pytest.mark.parametrize(("sampling", "reason"), [
    (Sampling(temperature=0.005), "vLLM would raise temperature 0.005"),
    (Sampling(temperature=1.0, top_k=999), "top_k 999 exceeds"),
])
def test_what_vllm_would_change_in_silence_is_refused(stand_in, request_, tiny_checkpoint, tmp_path, sampling, reason):
    with pytest.raises(InputError, match=reason):
        backend.generate(tiny_checkpoint, PROMPTS, request_(sampling), tmp_path / "records", key="k")
    assert not (tmp_path / "records").exists()
