r"""The tiny model: its tokenizer and its Qwen3 configuration, both made on the spot from the generator's own words.

The tokenizer knows whole words (with their leading space), single digits and the answer tags; any other ASCII text
falls back to single characters, so decode(encode(text)) is the text itself.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from replication.data.synthetic import PROSE_PIECES
from replication.data.synthetic_problems import all_texts
from replication.hints import HINT_TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config

PAD, START, END, UNKNOWN = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unk|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", r"\boxed{", r"\frac{")
MAX_LENGTH = 256

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' -}}"
    "{%- if not loop.last or add_generation_prompt -%}{{- '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def vocabulary() -> list[str]:
    """Return the tokens in the order of their ids: special tokens, tags, characters, words."""
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    words = sorted({word for text in _texts() for word in re.findall(r" ?[A-Za-z]{2,}| \([A-Z]\)", text)})
    return [PAD, START, END, UNKNOWN, *TAGS, *characters, *words]


def _texts() -> Iterator[str]:
    yield from all_texts()
    yield from PROSE_PIECES
    yield from ("user", "assistant", "system")
    yield HINT_TEMPLATES["math"]  # so that the teacher of SSB reads words, not letters


def _token_pattern(tokens: list[str]) -> str:
    """Return the pattern that cuts a text into tokens: the longest token first, words only as a whole."""
    longest_first = sorted((token for token in tokens if len(token) > 1), key=lambda token: (-len(token), token))
    words = [re.escape(token) for token in longest_first if token[-1] in string.ascii_letters]
    marks = [re.escape(token) for token in longest_first if token[-1] not in string.ascii_letters]
    return f"{'|'.join(marks)}|(?:{'|'.join(words)})(?![A-Za-z])|[\\s\\S]"


def build_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Make the tiny model's tokenizer, save it in `directory` and return it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary()
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=UNKNOWN))
    pattern = Regex(_token_pattern([token for token in tokens if token not in (PAD, START, END, UNKNOWN)]))
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, pad_token=PAD, unk_token=UNKNOWN, extra_special_tokens=[START],
        model_max_length=MAX_LENGTH, clean_up_tokenization_spaces=False, chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(directory)
    return tokenizer


def build_config(vocab_size: int) -> Qwen3Config:
    """Return the Qwen3 configuration of the tiny model, about 0.8M parameters."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=True,
        attention_dropout=0.0, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    )
