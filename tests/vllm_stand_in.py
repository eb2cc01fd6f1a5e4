"""Stands in for the package vllm, with the recorded signatures: what the real classes would refuse is refused.

Answers are what was asked, so that the records show the settings, GPU, seed and limit of every sequence. What goes
wrong is said by the environment:

    STAND_IN_DIES, STAND_IN_RAISES      a seed at which the process dies, or raises
    STAND_IN_ONCE                       a file: the first failure creates it, and nothing fails while it is there
    STAND_IN_START                      `GPU=message`: no engine starts there
    STAND_IN_REASON                     how sequences end
    STAND_IN_SECONDS                    of a call, by GPU: `4=0.5;5=0`
"""

import inspect
import json
import os
import time
from pathlib import Path

SIGNATURES = json.loads(Path(os.environ["STAND_IN_RECORD"]).read_text())["signatures"]


def _bound(name, arguments, keywords):
    """Bind a call to the recorded signature; return every value, defaults included."""
    recorded = SIGNATURES[name]
    parameters = [inspect.Parameter(it, inspect._ParameterKind[kind], default=inspect.Parameter.empty
                                    if default == "<required>" or kind.startswith("VAR") else default)
                  for it, (kind, default, _) in recorded.items()]
    bound = inspect.Signature(parameters).bind(*arguments, **keywords)
    bound.apply_defaults()
    return dict(bound.arguments)


class _Recorded:
    def __init__(self, *arguments, **keywords):
        vars(self).update(_bound(type(self).__name__, arguments, keywords))


class SamplingParams(_Recorded):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        assert self.n >= 1 and self.max_tokens >= 1 and self.temperature >= 0 and 0 < self.top_p <= 1
        assert self.top_k >= -1 and all(isinstance(token, int) for token in self.stop_token_ids)
        assert self.seed is None or 0 <= self.seed < 2**63


class CompletionOutput(_Recorded):
    pass


class RequestOutput(_Recorded):
    pass


def _fails(variable, what):
    once = os.environ.get("STAND_IN_ONCE")
    if os.environ.get(variable) != str(what) or (once and Path(once).exists()):
        return False
    if once:
        Path(once).touch()
    return True


class LLM:
    def __init__(self, *arguments, **keywords):
        given = _bound("LLM", arguments, keywords)
        unknown = set(given["kwargs"]) - set(SIGNATURES["EngineArgs"])
        assert not unknown, f"EngineArgs has no {unknown}"
        gpu, _, message = os.environ.get("STAND_IN_START", "").partition("=")
        if message and gpu in (os.environ["CUDA_VISIBLE_DEVICES"], "any"):
            if given["tensor_parallel_size"] > 1:  # its processes tell their reasons to the log
                print("ERROR [multiproc_executor.py] WorkerProc failed to start:", message, flush=True)
                raise RuntimeError("Engine core initialization failed. See root cause above.")
            raise ValueError(message)
        self.settings = given["kwargs"] | {name: given[name] for name in keywords if name in given}
        self.folder = sorted(os.listdir(given["model"]))
        self.architecture = json.loads(Path(given["model"], "config.json").read_text())["architectures"]
        print("loaded by", os.getpid(), flush=True)

    def generate(self, *arguments, **keywords):
        given = _bound("LLM.generate", arguments, keywords)
        prompts, params = given["prompts"], given["sampling_params"]
        assert len(prompts) == len(params) and given["use_tqdm"] is False
        waits = dict(pair.split("=") for pair in os.environ.get("STAND_IN_SECONDS", "").split(";") if pair)
        time.sleep(float(waits.get(os.environ["CUDA_VISIBLE_DEVICES"], 0)))
        return [self._answer(i, *pair) for i, pair in enumerate(zip(prompts, params, strict=True))]

    def _answer(self, number, prompt, params):
        assert set(prompt) <= set(SIGNATURES["TokensPrompt"])
        ids = prompt["prompt_token_ids"]
        assert len(ids) + params.max_tokens <= self.settings["max_model_len"]
        if _fails("STAND_IN_DIES", params.seed):
            os._exit(9)
        if _fails("STAND_IN_RAISES", params.seed):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        told = {"engine": self.settings, "params": vars(params), "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
                "in_process": os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"], "ids": ids, "process": os.getpid(),
                "architecture": self.architecture, "files": self.folder,
                "pictures": self.settings.get("limit_mm_per_prompt")}
        output = CompletionOutput(index=0, text=json.dumps(told), token_ids=(7, 8, params.stop_token_ids[0]),
                                  cumulative_logprob=None, logprobs=None,
                                  finish_reason=os.environ.get("STAND_IN_REASON", "stop"))
        return RequestOutput(request_id=str(number), prompt=None, prompt_token_ids=ids, prompt_logprobs=None,
                             outputs=[output], finished=True)
