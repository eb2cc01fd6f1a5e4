"""From the files of a published model to a plain checkpoint of the text model, streamed, without loading a weight.

Every weight is accounted for: names and shapes must be those of the architecture that `transformers` builds from the
config. (`from_pretrained` would only warn about a weight that it does not find, and make it up at random.)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from foundation import hub, locks, multimodal
from foundation.errors import InputError
from foundation.weight_files import INDEX, SINGLE, StoredTensor, read_folder, read_index, same_content, write_file
from replication.models import Model

_HEAD = "lm_head.weight"


def from_hub(model: Model, chat_template: str | None, folder: Path, lock: Path = locks.LOCK_PATH, *,
             revision: str | None = None,
             on_progress: Callable[[float], None] = lambda fraction: None) -> dict[str, Any]:
    """Fetch what the model needs, at the recorded commit, and write it as a plain checkpoint.

    Args:
        model: its source is `hub:<repo id>`.
        chat_template: for a tokenizer that ships without one.
        folder: to be written.
        lock: the lock file, which names the commit and gets the hashes.
        revision: the commit of the step; None: what the lock file says, or the newest.
        on_progress: told the fraction of the weights that is here.

    Returns:
        What is worth recording: parameters, repository and commit.

    Raises:
        PrerequisiteError: the hub cannot be reached, or lacks a file.
        InputError: the files are not those of such a model, or not the recorded ones.
    """
    repo_id = model.source.partition(":")[2]
    fetch = partial(hub.fetch_all, repo_id, repo_type="model", lock=lock, revision=revision)
    source = fetch(["config.json"], on_progress=lambda fraction: None)[0].parent
    check_architecture(source, model.architecture)  # before gigabytes are fetched
    companions = multimodal.COMPANIONS[1:] if model.architecture == multimodal.ARCHITECTURE else ()
    fetch(list(dict.fromkeys(("tokenizer.json", "tokenizer_config.json", *companions, INDEX))),
          on_progress=lambda fraction: None)
    fetch(sorted(set(read_index(source / INDEX).values())), on_progress=on_progress)
    notes = text_checkpoint(source, model, chat_template, folder)
    entry = locks.hub_entry(repo_id, lock)
    return {**notes, "repository": repo_id, "revision": revision or (entry.revision if entry else None)}


def check_architecture(source: Path, architecture: str) -> None:
    """Refuse a model of another family.

    Raises:
        InputError: its config names another class, or none.
    """
    try:
        found = json.loads((source / "config.json").read_text(encoding="utf-8")).get("architectures")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{source / 'config.json'} is no model config ({error}); fetch the model again") from error
    if found != [architecture]:
        raise InputError(f"{source} holds a model of architecture {found}, expected was [{architecture!r}]; prompts, "
                         "terminators and the export depend on it, so take the repository that replication/models.py "
                         "names")


def text_checkpoint(source: Path, model: Model, chat_template: str | None, folder: Path) -> dict[str, Any]:
    """Write the text model of a published folder as a plain checkpoint, dtype kept, a tied head once.

    Args:
        source: the published files.
        model: what they should be.
        chat_template: for a tokenizer that ships without one.
        folder: to be written; of a multimodal model it also gets what `foundation.multimodal` puts back.

    Returns:
        Parameters, and size of the vocabulary.

    Raises:
        InputError: a foreign architecture, weights that are missing or too many, or no chat template.
    """
    check_architecture(source, model.architecture)
    config = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
    text_config = config.get_text_config()
    weights, rest = read_folder(source), None
    if model.architecture == multimodal.ARCHITECTURE:
        weights, rest = multimodal.split(weights, source)
    weights = _without_tied_head(weights, text_config, source)
    skeleton = _skeleton(text_config)
    _check_weights(weights, skeleton, source)
    tokenizer = _tokenizer(source, model, chat_template)
    folder.mkdir(parents=True)
    write_file(folder / SINGLE, weights)
    if rest is not None:
        multimodal.keep(weights, rest, source, folder)
    text_config.architectures, text_config.use_cache = [type(skeleton).__name__], True
    text_config.dtype = text_config.dtype or config.dtype
    text_config.save_pretrained(folder)
    transformers.GenerationConfig(eos_token_id=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id,
                                  do_sample=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"parameters": sum(tensor.numbers for tensor in weights.values()), "vocabulary": len(tokenizer)}


def _tokenizer(source: Path, model: Model, chat_template: str | None) -> Any:
    """Return the tokenizer with a chat template, and with the family's end of text as its end token.

    Generation stops at the terminator and at the tokenizer's end token (A-10); both have to be the family's.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
    vocabulary = tokenizer.get_vocab()
    absent = [token for token in (model.terminator, model.end_of_text) if token not in vocabulary]
    if absent:
        raise InputError(f"{source}: the tokenizer has no token {absent[0]!r}, at which answers of {model.title} end; "
                         "it belongs to another model")
    if tokenizer.eos_token != model.end_of_text:
        tokenizer.eos_token = model.end_of_text
    tokenizer.chat_template = tokenizer.chat_template or chat_template
    if tokenizer.chat_template is None:
        raise InputError(f"{source} has a tokenizer without a chat template; prompts cannot be written without one")
    return tokenizer


def _skeleton(config: Any) -> Any:
    """Return the text model without storage for its weights."""
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def _without_tied_head(weights: dict[str, StoredTensor], config: Any, source: Path) -> dict[str, StoredTensor]:
    """Some publishers store a tied head twice.

    Raises:
        InputError: the config ties what differs.
    """
    if not config.tie_word_embeddings or _HEAD not in weights:
        return weights
    if not same_content(weights[_HEAD], weights["model.embed_tokens.weight"]):
        raise InputError(f"{source}: the config ties the head to the embedding, but {_HEAD} differs from it; "
                         "fetch the model again")
    return {name: tensor for name, tensor in weights.items() if name != _HEAD}


def _check_weights(weights: dict[str, StoredTensor], model: Any, source: Path) -> None:
    tied = {_HEAD} if model.config.tie_word_embeddings else set()
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
    found = {name: tensor.shape for name, tensor in weights.items()}
    differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise InputError(
            f"{source} does not hold the weights of {type(model).__name__} as its config describes it: "
            f"{len(differing)} differ, e.g. {name} (expected {expected.get(name, 'not at all')}, found "
            f"{found.get(name, 'not at all')}); fetch the model again"
        )
