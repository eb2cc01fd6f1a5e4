r"""The tiny models: tokenizer and configuration of each family, made on the spot from the generators' own words.

A tokenizer knows whole words (with their leading space), single digits, the answer tags and the sentences that frame
every programming task; any other ASCII text falls back to single characters, so decode(encode(text)) is the text
itself. The families differ as the paper's do: Qwen3 and Gemma-3 text have their own special tokens, chat templates and
layers.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from replication.data import synthetic_code, synthetic_logic, synthetic_problems
from replication.data.synthetic import PROSE_PIECES
from replication.hints import HINT_TEMPLATES
from replication.models import GEMMA_TEMPLATE

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

TAGS = ("<think>", "</think>", "<answer>", "</answer>", r"\boxed{", r"\frac{")
CODE_MARKS = (*synthetic_code.IDIOMS, *synthetic_code.PHRASES)
MAX_LENGTH = 256
INITIAL_SCALE = 0.06
"""Of the random weights: the libraries' 0.02 suits models ten times as wide."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' -}}"
    "{%- if not loop.last or add_generation_prompt -%}{{- '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What the two tiny models do not share. `special` lists all special tokens in the order of their ids."""

    special: tuple[str, ...]
    pad: str
    end: str
    """The tokenizer's end-of-sequence token, which also separates the pretraining texts."""
    unknown: str
    chat_template: str
    config: Callable[[int], PreTrainedConfig]
    start: str | None = None
    """The token that begins every sequence, where there is one."""


def vocabulary(model: str = "tiny") -> list[str]:
    """Return the tokens in the order of their ids: special tokens, tags, marks of programs, characters, words."""
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    marks = sorted({mark for text in _texts() for mark in re.findall(r"\([A-Z]\)", text)})
    words = sorted({word for text in _texts() for word in re.findall(r" ?[A-Za-z]{2,}", text)})
    return [*FAMILIES[model].special, *TAGS, *CODE_MARKS, *characters, *marks, *words]


def _texts() -> Iterator[str]:
    yield from synthetic_problems.all_texts()
    yield from synthetic_code.all_texts()
    yield from synthetic_logic.all_texts()
    yield from PROSE_PIECES
    yield from ("user", "assistant", "system", "model")
    yield from HINT_TEMPLATES.values()  # so that the teacher of SSB reads words, not letters


def _token_pattern(tokens: list[str]) -> str:
    """Return the pattern that cuts a text into tokens: the longest token first, words only as a whole."""
    longest_first = sorted((token for token in tokens if len(token) > 1), key=lambda token: (-len(token), token))
    words = [re.escape(token) for token in longest_first if token[-1] in string.ascii_letters]
    marks = [re.escape(token) for token in longest_first if token[-1] not in string.ascii_letters]
    return f"{'|'.join(marks)}|(?:{'|'.join(words)})(?![A-Za-z])|[\\s\\S]"


def build_tokenizer(directory: Path, model: str = "tiny") -> PreTrainedTokenizerFast:
    """Make a tiny model's tokenizer, save it in `directory` and return it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, family = vocabulary(model), FAMILIES[model]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=family.unknown))
    pattern = Regex(_token_pattern([token for token in tokens if token not in family.special]))
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    backend.decoder = decoders.Fuse()
    named = {family.pad, family.end, family.unknown, family.start}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=family.end, pad_token=family.pad, unk_token=family.unknown,
        bos_token=family.start, extra_special_tokens=[token for token in family.special if token not in named],
        model_max_length=MAX_LENGTH, clean_up_tokenization_spaces=False, chat_template=family.chat_template,
    )
    tokenizer.save_pretrained(directory)
    return tokenizer


def build_config(vocab_size: int, model: str = "tiny") -> PreTrainedConfig:
    """Return the configuration of a tiny model, about 0.8M parameters."""
    return FAMILIES[model].config(vocab_size)


def _qwen3(vocab_size: int) -> PreTrainedConfig:
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=True,
        attention_dropout=0.0, initializer_range=INITIAL_SCALE, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    )


def _gemma3(vocab_size: int) -> PreTrainedConfig:
    """Three layers of four look only `sliding_window` tokens back, as five of six do in Gemma 3."""
    from transformers import Gemma3TextConfig

    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    return Gemma3TextConfig(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=32, max_position_embeddings=MAX_LENGTH,
        sliding_window=SLIDING_WINDOW, layer_types=["sliding_attention"] * 3 + ["full_attention"],
        rope_parameters={"sliding_attention": rope, "full_attention": rope}, tie_word_embeddings=True,
        attention_dropout=0.0, initializer_range=INITIAL_SCALE, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )


SLIDING_WINDOW = 64
FAMILIES = {
    "tiny": Family(special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unk|>"), pad="<|endoftext|>",
                   end="<|im_end|>", unknown="<|unk|>", chat_template=CHAT_TEMPLATE, config=_qwen3),
    "tiny-gemma": Family(special=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"), pad="<pad>",
                         end="<eos>", unknown="<unk>", start="<bos>", chat_template=GEMMA_TEMPLATE, config=_gemma3),
}
"""By the names of replication.models."""
