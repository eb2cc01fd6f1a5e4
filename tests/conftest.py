"""Fixtures that several test files share: a small real model with its tokenizer, encoded rows, the real data files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("WMSS_SHARED", ROOT.parent / "shared"))

# before torch is imported anywhere: tests run side by side
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def data_root():
    """The folder of real benchmark and training files, where it is at hand."""
    if not (SHARED / "datasets").is_dir():
        pytest.skip(f"no real data files at {SHARED / 'datasets'}; set WMSS_SHARED to the folder that holds datasets/")
    return SHARED / "datasets"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A checkpoint folder of the tiny architecture with random weights, and its tokenizer."""
    return _random_checkpoint(tmp_path_factory.mktemp("strong") / "checkpoint", seed=1)


@pytest.fixture(scope="session")
def weak_checkpoint(tmp_path_factory):
    """Another one, with other random weights."""
    return _random_checkpoint(tmp_path_factory.mktemp("weak") / "checkpoint", seed=2)


def _random_checkpoint(folder, seed):
    import torch
    import transformers

    from replication import tiny

    folder.mkdir()
    tokenizer = tiny.build_tokenizer(folder)
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_checkpoint):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(tiny_checkpoint, local_files_only=True)


@pytest.fixture(scope="session")
def prompt():
    from foundation.prompts import PromptFormat

    return PromptFormat(style="tags", system=None, terminator="<|im_end|>")


@pytest.fixture(scope="session")
def examples():
    """Generated pool examples as the pool file stores them."""
    from dataclasses import asdict

    from replication.data.synthetic import training_pool

    return [asdict(example) for example in training_pool("math", 64, seed=3)]


@pytest.fixture(scope="session")
def rows(examples, tokenizer, prompt):
    """The same, encoded."""
    from baselines.batches import encode_pool
    from baselines.settings import DataSettings, LossSettings

    return encode_pool(examples, tokenizer, prompt, DataSettings(max_length=256), LossSettings()).rows


@pytest.fixture
def write(tmp_path):
    """Write a method's file; return `file:Mine` and the place of the line marked `# HERE`."""

    from own_method_tools import HEAD as METHOD_HEAD

    def _write(body, name="mine.py"):
        path = tmp_path / name
        path.write_text(METHOD_HEAD + body, encoding="utf-8")
        marked = [i for i, line in enumerate((METHOD_HEAD + body).splitlines(), start=1) if line.endswith("# HERE")]
        return f"{path}:Mine", f"{path}:{marked[0]}" if marked else str(path)

    return _write
