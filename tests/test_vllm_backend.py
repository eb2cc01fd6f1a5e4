"""The vLLM backend against a stand-in with vLLM's recorded interface: what it asks for, and how it survives failures.

vLLM itself needs a GPU, or a CPU build in an environment of its own. Where it is installed, the recorded interface is
compared with it and the backend is run with it.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import vllm_interface
from family_models import fetched, published
from hypothesis import given
from hypothesis import strategies as st

from evaluation.backends import hf
from evaluation.backends import vllm as backend
from evaluation.backends.interface import BACKENDS, Engine, Prompt, Request, Sampling
from evaluation.backends.sequences import PlannedSequence, Slot
from foundation import multimodal
from foundation.errors import GenerationError, InputError, PrerequisiteError
from foundation.prompts import PromptFormat, encode_prompt, stop_ids

ROOT = Path(__file__).parents[1]
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
PROMPTS = [Prompt(f"p{i}", f"What is {i} + {i}{' please' * i}?") for i in range(4)]
WARM = Sampling(n=3, temperature=0.8, top_p=0.95, top_k=50)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    shutil.copy(Path(__file__).with_name("vllm_stand_in.py"), tmp_path / "site" / "vllm.py")
    monkeypatch.setenv("STAND_IN_RECORD", str(vllm_interface.RECORD))
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


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of one problem."""
    monkeypatch.setattr(backend, "CHUNK_SEQUENCES", 3)
    monkeypatch.setattr(backend, "LAST_CHUNKS", 1)


SLOTS = sorted((p.id, i) for p in PROMPTS for i in range(3))


def _slots(rows):
    return sorted((row["id"], row["sample"]) for row in rows)


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
            "model": str(tiny_checkpoint), "tensor_parallel_size": 1, "gpu_memory_utilization": 0.9,
            "dtype": "bfloat16", "seed": request.seed % 2**32,
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
    before = (tmp_path / "records").read_bytes()
    monkeypatch.setattr(multimodal, "wrap", None)  # calling it would fail
    backend.generate(gemma, PROMPTS, request, tmp_path / "records", key="k")
    assert (tmp_path / "records").read_bytes() == before and not list(tmp_path.glob(".*export"))


def test_greedy_is_temperature_0_without_a_seed(stand_in, request_, tiny_checkpoint, tmp_path):
    BACKENDS["vllm"](tiny_checkpoint, PROMPTS[:1], request_(Sampling()), tmp_path / "records", key="k")
    [row] = _rows(tmp_path / "records")
    params = json.loads(row["text"])["params"]
    assert (params["temperature"], params["top_k"], params["seed"], params["stop"]) == (0.0, -1, None, None)
    assert row["seed"] is None and "token_ids" not in row


@pytest.mark.parametrize(("gpus_per_engine", "groups"), [(1, {"4", "5"}), (2, {"4,5"})])
def test_gpus_are_shared_out(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch, gpus_per_engine, groups):
    backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k",
                     engine=Engine(gpus_per_engine=gpus_per_engine))
    told = [json.loads(row["text"]) for row in _rows(tmp_path / "records")]
    assert {t["gpus"] for t in told} <= groups
    assert {t["engine"]["tensor_parallel_size"] for t in told} == {gpus_per_engine}


def test_a_death_keeps_finished_chunks_and_the_next_run_adds_the_rest(stand_in, request_, tiny_checkpoint, tmp_path,
                                                                     monkeypatch, small_chunks):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path, request = tmp_path / "records", request_()
    monkeypatch.setenv("STAND_IN_DIES", str(request.seed_of("p2", 1)))
    with pytest.raises(GenerationError, match=r"exit code 9.*engine-0\.log; 6 sequences.*missing.*samples are kept"):
        backend.generate(tiny_checkpoint, PROMPTS, request, path, key="k")
    kept = _rows(path)
    assert _slots(kept) == SLOTS[:6]
    assert "loaded" in (tmp_path / "records.engine-0.log").read_text()
    with path.open("a") as file:
        file.write('{"id": "p3", "sam')
    monkeypatch.delenv("STAND_IN_DIES")
    fractions = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")  # another number of GPUs
    backend.generate(tiny_checkpoint, PROMPTS, request, path, key="k", on_progress=fractions.append)
    rows = _rows(path)
    assert rows[: len(kept)] == kept and _slots(rows) == SLOTS
    assert fractions == sorted(fractions) and fractions[0] > 0.5 and fractions[-1] == 1
    assert not list(tmp_path.glob("*.log"))


@pytest.mark.parametrize("variable", ["STAND_IN_DIES", "STAND_IN_RAISES"])
def test_an_engine_that_fails_once_is_replaced_by_the_others(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch,
                                                             small_chunks, variable):
    request = request_()
    monkeypatch.setenv(variable, str(request.seed_of("p0", 1)))
    monkeypatch.setenv("STAND_IN_ONCE", str(tmp_path / "failed"))
    backend.generate(tiny_checkpoint, PROMPTS, request, tmp_path / "records", key="k")
    rows = _rows(tmp_path / "records")
    assert (tmp_path / "failed").exists() and _slots(rows) == SLOTS
    where = {row["id"]: json.loads(row["text"])["gpus"] for row in rows}
    assert where["p0"] == where["p3"]  # the one that is left


@pytest.mark.parametrize("variable", ["STAND_IN_DIES", "STAND_IN_RAISES"])
def test_what_brings_down_two_engines_leaves_the_others_their_work(stand_in, request_, tiny_checkpoint, tmp_path,
                                                                   monkeypatch, small_chunks, variable):
    request = request_()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv(variable, str(request.seed_of("p1", 0)))
    with pytest.raises(GenerationError, match=r"the engine on GPU .*; 3 sequences of this run are missing; rerun"):
        backend.generate(tiny_checkpoint, PROMPTS, request, tmp_path / "records", key="k")
    assert _slots(_rows(tmp_path / "records")) == [slot for slot in SLOTS if slot[0] != "p1"]


def test_an_engine_that_does_not_start_leaves_its_work_to_the_others(stand_in, request_, tiny_checkpoint, tmp_path,
                                                                     monkeypatch, small_chunks):
    monkeypatch.setenv("STAND_IN_START", "4=Free memory on device is less than desired GPU memory utilization (0.9)")
    backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k")
    rows = _rows(tmp_path / "records")
    assert _slots(rows) == SLOTS and {json.loads(row["text"])["gpus"] for row in rows} == {"5"}


@pytest.mark.parametrize(("message", "advice"), [
    ("Free memory on device cuda:0 (10.0/79.1 GiB) on startup is less than desired GPU memory utilization (0.9, 71.2 "
     "GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
     r"free the GPU of other processes.*engine\.gpu_memory_utilization=0\.5.*engine\.gpus_per_engine=2"),
    ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
     r"too little room.*engine\.gpu_memory_utilization=0\.95.*engine\.gpus_per_engine=2"),
    ("To serve at least one request with the model's max seq len (40960), (5.6 GiB KV cache is needed, which is larger "
     "than the available KV cache memory (1.2 GiB).", r"too little room.*eval\.max_new_tokens"),
    ("CUDA out of memory. Tried to allocate 1.2 GiB.", r"engine\.gpus_per_engine=2"),
])
def test_too_little_memory_names_the_setting_that_helps(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch,
                                                        message, advice):
    monkeypatch.setenv("STAND_IN_START", f"any={message}")
    with pytest.raises(PrerequisiteError, match=rf"vLLM cannot start on GPU 4: .*What helps: .*{advice}"):
        backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k")
    assert _rows(tmp_path / "records") == []


def test_the_reason_of_an_engine_on_several_gpus_is_found_in_its_log(stand_in, request_, tiny_checkpoint, tmp_path,
                                                                     monkeypatch):
    monkeypatch.setenv("STAND_IN_START", "any=torch.OutOfMemoryError: CUDA out of memory.")
    with pytest.raises(PrerequisiteError, match=r"cannot start on GPU 4,5: .*engine\.gpus_per_engine=4"):
        backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k",
                         engine=Engine(gpus_per_engine=2))


def test_another_failure_to_start_is_shown_with_its_log(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_START", "any=unsupported architecture")
    with pytest.raises(GenerationError, match=r"ValueError: unsupported architecture; more in .*engine-0\.log"):
        backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k")
    assert "Traceback" in (tmp_path / "records.engine-0.log").read_text()


def test_a_slow_engine_is_given_less(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch, small_chunks):
    monkeypatch.setenv("STAND_IN_SECONDS", "4=3;5=0")
    prompts = [Prompt(f"p{i}", f"What is {i} + 1?") for i in range(8)]
    backend.generate(tiny_checkpoint, prompts, request_(), tmp_path / "records", key="k")
    told = [json.loads(row["text"])["gpus"] for row in _rows(tmp_path / "records")]
    assert len(told) == 24 and told.count("5") > told.count("4")


def test_an_interrupt_ends_the_engines_at_once(stand_in, request_, tiny_checkpoint, tmp_path, monkeypatch,
                                               small_chunks):
    def interrupt(fraction):
        raise KeyboardInterrupt

    monkeypatch.setenv("STAND_IN_SECONDS", "4=600;5=0")
    with pytest.raises(KeyboardInterrupt):
        backend.generate(tiny_checkpoint, PROMPTS, request_(), tmp_path / "records", key="k", on_progress=interrupt)
    assert multiprocessing.active_children() == []
    assert len(_rows(tmp_path / "records")) == 3  # what came before is kept


def test_engines_die_with_their_parent(stand_in, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "4=600")
    script = """if __name__ == "__main__":
    import sys
    from pathlib import Path
    from evaluation.backends import vllm
    from evaluation.backends.interface import Prompt, Request
    from foundation.prompts import PromptFormat
    request = Request(prompt=PromptFormat(style="tags", system=None, terminator="<|im_end|>"), max_new_tokens=4,
                      max_prompt_tokens=100, batch_size=1, compute_dtype="float32")
    vllm.generate(Path(sys.argv[1]), [Prompt("p", "What is 1 + 1?")], request, Path(sys.argv[2]), key="k")
"""
    (tmp_path / "parent.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(tiny_checkpoint),
                               str(tmp_path / "records")], env=environment)
    log, deadline = tmp_path / "records.engine-0.log", time.monotonic() + 60
    while not (log.exists() and "loaded by" in log.read_text()):
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    engine = int(log.read_text().split("loaded by")[1].split()[0])
    parent.kill()
    parent.wait()
    while Path(f"/proc/{engine}").exists() and "Z" not in Path(f"/proc/{engine}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline, "the engine outlived its parent"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------------- chunks


def _sequences(samples):
    return [PlannedSequence(slot=Slot(f"p{i}", s), prompt_ids=[1], limit=1, seed=None)
            for i, n in enumerate(samples) for s in range(n)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 16))
def test_chunks_hold_everything_once_in_order_and_whole_problems(samples, count):
    todo = _sequences(samples)
    chunks = backend.form_chunks(todo, count)
    assert [s for chunk in chunks for s in chunk] == todo
    assert all(0 < len(chunk) <= backend.CHUNK_SEQUENCES for chunk in chunks)
    homes = [{s.slot.id for s in chunk} for chunk in chunks]
    assert sum(map(len, homes)) == len(samples)  # no problem on two engines


def test_a_problem_larger_than_a_chunk_is_cut():
    assert [len(c) for c in backend.form_chunks(_sequences([5000]), 8)] == [2048, 2048, 904]


def test_one_engine_gets_large_chunks_and_many_get_short_last_ones():
    assert [len(c) for c in backend.form_chunks(_sequences([8] * 1000), 1)] == [2048, 2048, 2048, 1856]
    sizes = [len(c) for c in backend.form_chunks(_sequences([8] * 2500), 8)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 1248 and max(sizes[-8:]) == 128


@pytest.mark.parametrize("seed", range(5))
def test_no_gpu_is_idle_for_long_at_the_end(seed):
    """Handed to whoever is free, chunks whose problems take very different times end almost together."""
    import numpy as np

    draw = np.random.default_rng(seed)
    chunks = backend.form_chunks(_sequences([8] * 2500), 8)
    work = [draw.lognormal(0, 1, size=len(chunk) // 8).sum() for chunk in chunks]
    ends = [0.0] * 8
    for seconds in work:
        ends[ends.index(min(ends))] += seconds
    assert max(ends) < 1.06 * sum(work) / 8


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
                         engine=Engine(gpus_per_engine=gpus_per_engine))


@pytest.mark.parametrize(("sampling", "reason"), [
    (Sampling(temperature=0.005), "vLLM would raise temperature 0.005"),
    (Sampling(temperature=1.0, top_k=999), "top_k 999 exceeds"),
])
def test_what_vllm_would_change_in_silence_is_refused(stand_in, request_, tiny_checkpoint, tmp_path, sampling, reason):
    with pytest.raises(InputError, match=reason):
        backend.generate(tiny_checkpoint, PROMPTS, request_(sampling), tmp_path / "records", key="k")
    assert not (tmp_path / "records").exists()


# ----------------------------------------------------------------------------------------------- the package itself


def test_the_record_has_what_the_backend_uses():
    recorded = json.loads(vllm_interface.RECORD.read_text())["signatures"]
    assert all(set(used) <= set(recorded[name]) for name, used in vllm_interface.USED.items())
    assert recorded["LLM"]["kwargs"][0] == "VAR_KEYWORD"


@needs_vllm
def test_the_record_is_the_installed_package():
    recorded, found = json.loads(vllm_interface.RECORD.read_text())["signatures"], vllm_interface.installed()
    for name, used in vllm_interface.USED.items():
        for parameter in used:
            kind, default, _ = recorded[name][parameter]
            there = found["signatures"][name][parameter]
            assert there[0] == kind, f"{name}({parameter}) of vllm {found['version']}"
            assert there[1] == default or parameter in vllm_interface.PASSED, f"{name}({parameter})"


@pytest.fixture(scope="session")
def checkpoint_for_vllm(tmp_path_factory):
    """A random model with heads of a size that vLLM's attention has."""
    import torch
    import transformers

    from replication import tiny

    folder = tmp_path_factory.mktemp("vllm") / "checkpoint"
    folder.mkdir()
    tokenizer = tiny.build_tokenizer(folder)
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id)).save_pretrained(folder)
    return folder


@needs_vllm
@pytest.mark.slow
def test_the_real_engine_answers_greedily_as_the_reference_does(request_, checkpoint_for_vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    request = request_(Sampling(), compute_dtype="float32", keep_token_ids=True)
    for name, generate in (("hf", hf.generate), ("vllm", backend.generate)):
        generate(checkpoint_for_vllm, PROMPTS, request, tmp_path / name, key="k")
    ours, theirs = ({row["id"]: row for row in _rows(tmp_path / name)} for name in ("vllm", "hf"))
    assert ours == theirs


@needs_vllm
@pytest.mark.slow
def test_the_real_engine_draws_from_each_samples_own_seed(request_, checkpoint_for_vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    request = request_(keep_token_ids=True, stop=("What",), compute_dtype="float32")
    backend.generate(checkpoint_for_vllm, PROMPTS, request, tmp_path / "all", key="k")
    backend.generate(checkpoint_for_vllm, PROMPTS[2:], request, tmp_path / "two", key="k")
    everything = {(row["id"], row["sample"]): row for row in _rows(tmp_path / "all")}
    assert len({tuple(row["token_ids"]) for row in everything.values()}) == len(everything) == 12
    assert all(everything[row["id"], row["sample"]] == row for row in _rows(tmp_path / "two"))
    assert not any("What" in row["text"] for row in everything.values())
