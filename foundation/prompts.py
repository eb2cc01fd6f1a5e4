"""How a question becomes a prompt and a solution becomes a completion, for training and evaluation alike (App. E.4).

Training, entropies, rollouts and evaluation share this file, so that they cannot drift apart (A-09, A-10, A-16).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal

from foundation.files import canonical_json

Style = Literal["tags", "tag_free"]
Domain = Literal["math", "code", "logic"]

# The paper describes the tag-style system prompt (E.4) but does not print it: the wording is ours.
TAG_SYSTEM_PROMPT = (
    "Reason step by step inside <think> and </think>, then give the final answer inside <answer> and </answer>, "
    "enclosed in \\boxed{}."
)
# Printed in E.4 for Gemma.
TAG_FREE_SYSTEM_PROMPT = (
    "Solve the problem step by step. End your solution with the final answer enclosed in \\boxed{}."
)
# Code and logic have the same two parts. Only the ends of the tag-free ones are printed in E.4.
SYSTEM_PROMPTS: dict[Style, dict[Domain, str]] = {
    "tags": {
        "math": TAG_SYSTEM_PROMPT,
        "code": "Reason step by step inside <think> and </think>, then give the final answer inside <answer> and "
                "</answer>, as one complete Python code block.",
        "logic": "Reason step by step inside <think> and </think>, then give the final answer inside <answer> and "
                 "</answer>, as 'The answer is (X).' with the letter of the option.",
    },
    "tag_free": {
        "math": TAG_FREE_SYSTEM_PROMPT,
        "code": "Solve the problem step by step. Provide clean, correct Python code.",
        "logic": "Solve the problem step by step. End your response with 'The answer is (X).'",
    },
}
_TAGS = re.compile(r"</?(?:think|answer)>\n?")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFormat:
    """What surrounds a question. `system` None means no system message is given to the chat template.

    `terminator` is the token that ends a completion (A-10: the template's end-of-turn token), and `tokenise` says
    whether prompt and completion are tokenised apart (A-16).
    """

    style: Style
    system: str | None
    terminator: str
    tokenise: Literal["separate", "joint"] = "separate"


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of prompt + completion, and how many of them are the prompt."""

    ids: list[int]
    prompt_length: int


def system_prompt(style: Style, domain: Domain) -> str:
    """Return the system prompt for a domain's questions in a model's style (E.4)."""
    return SYSTEM_PROMPTS[style][domain]


def prompt_text(tokenizer: Any, prompt: PromptFormat, question: str) -> str:
    """Return the text that the model sees before it answers, assistant header included."""
    messages = [{"role": "user", "content": question}]
    if prompt.system is not None:
        messages.insert(0, {"role": "system", "content": prompt.system})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def encode_prompt(tokenizer: Any, prompt: PromptFormat, question: str) -> list[int]:
    """Return the token ids of `prompt_text`."""
    text = prompt_text(tokenizer, prompt, question)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def completion_text(prompt: PromptFormat, completion: str) -> str:
    """Return the completion in the model's style: with tags, or with the four tags removed (E.4, Gemma)."""
    return completion if prompt.style == "tags" else _TAGS.sub("", completion).strip()


def encode_example(tokenizer: Any, prompt: PromptFormat, question: str, completion: str) -> EncodedExample:
    """Return prompt + completion + terminator as ids. The completion's mask begins at `prompt_length`."""
    prompt_ids = encode_prompt(tokenizer, prompt, question)
    text = completion_text(prompt, completion)
    if prompt.tokenise == "joint":
        joint = prompt_text(tokenizer, prompt, question) + text
        ids = list(tokenizer(joint, add_special_tokens=False)["input_ids"])
    else:
        ids = prompt_ids + list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return EncodedExample(ids=[*ids, terminator_id(tokenizer, prompt)], prompt_length=len(prompt_ids))


def terminator_id(tokenizer: Any, prompt: PromptFormat) -> int:
    """Return the id of the token that ends a completion.

    Raises:
        ValueError: the tokenizer has no such token (a defect of the model's declaration).
    """
    token_id = tokenizer.convert_tokens_to_ids(prompt.terminator)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no token {prompt.terminator!r} to end a completion with")
    return int(token_id)


def tokenizer_hash(tokenizer: Any) -> str:
    """Return a hash of the vocabulary: token ids mean the same only under the same one."""
    return hashlib.sha256(canonical_json(tokenizer.get_vocab()).encode()).hexdigest()


def stop_ids(tokenizer: Any, prompt: PromptFormat) -> list[int]:
    """Return the ids that end generation: the terminator and the tokenizer's own end-of-text (A-10)."""
    ids = [terminator_id(tokenizer, prompt)]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(int(tokenizer.eos_token_id))
    return ids
