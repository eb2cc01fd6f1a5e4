"""Gemma-3's published form and the text model that is trained: taking the one apart, putting the other back (App. E.4).

The hub's checkpoint is a `Gemma3ForConditionalGeneration`: a vision tower, a projector, and the language model. Only
the last is trained, as a `Gemma3ForCausalLM`. Their names in the files:

    published                                          trained
    language_model.model.layers.0.mlp.up_proj.weight   model.layers.0.mlp.up_proj.weight
    language_model.lm_head.weight                      lm_head.weight, only where the head was untied
    vision_tower.vision_model. ...                     (not part of it)
    multi_modal_projector. ...                         (not part of it)

A checkpoint of such a model carries a folder `multimodal` with what was published beside the language model. It is
linked from checkpoint to checkpoint, so it takes its space once. `wrap` makes the published form of such a checkpoint,
for vLLM; in it too the untouched part is a link.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from foundation.errors import ArtifactError, InputError
from foundation.files import link_file, link_tree, write_atomic
from foundation.weight_files import INDEX, StoredTensor, read_file, read_folder, write_file

ARCHITECTURE = "Gemma3ForConditionalGeneration"
FOLDER = "multimodal"
REST = "rest.safetensors"
"""Vision tower and projector, as published."""
SHAPES = "language_model.json"
"""Names and shapes of the published language model: what is put back must be just that."""
COMPANIONS = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
              "tokenizer_config.json")
"""What a server needs beside the weights, as published."""
_LANGUAGE = "language_model."
_PARTS = ("vision_tower.vision_model.", "multi_modal_projector.")
_HEAD = "lm_head.weight"
_TEXT_SHARD, _REST_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def split(published: Mapping[str, StoredTensor], where: Path) -> tuple[dict[str, StoredTensor],
                                                                       dict[str, StoredTensor]]:
    """Return the language model's tensors under the names of the trained model, and the rest under its own.

    Raises:
        InputError: a part is missing (a text-only re-upload, say), or a weight belongs to none.
    """
    language = {name.removeprefix(_LANGUAGE): t for name, t in published.items() if name.startswith(_LANGUAGE)}
    rest = {name: t for name, t in published.items() if name.startswith(_PARTS)}
    foreign = [name for name in published if not name.startswith((_LANGUAGE, *_PARTS))]
    missing = [part for part in (_LANGUAGE, *_PARTS) if not any(name.startswith(part) for name in published)]
    if missing or foreign:
        found = f"no {missing[0]}* weights" if missing else f"the weight {foreign[0]}"
        raise InputError(
            f"{where} is no {ARCHITECTURE} as published: it has {found}; a text-only or renamed copy of the model "
            "cannot be put back into the form that vLLM loads, so take the original repository"
        )
    return language, rest


def keep(language: Mapping[str, StoredTensor], rest: Mapping[str, StoredTensor], source: Path,
         checkpoint: Path) -> None:
    """Write a checkpoint's folder `multimodal`: the rest of the published model and the files beside it.

    Raises:
        InputError: one of the files is missing.
        StorageError: the disk is full or refuses the write.
    """
    folder = checkpoint / FOLDER
    folder.mkdir(parents=True)
    write_file(folder / REST, rest)
    shapes = {name: list(tensor.shape) for name, tensor in sorted(language.items())}
    write_atomic(folder / SHAPES, json.dumps(shapes, indent=0) + "\n")
    for name in COMPANIONS:
        if not (source / name).is_file():
            raise InputError(f"{source} lacks {name}, which a server of {ARCHITECTURE} needs; fetch the model again")
        link_file(source / name, folder / name)


def carry(source: str | Path, checkpoint: Path) -> None:
    """Link the folder `multimodal` of the checkpoint that a model was loaded from, if it has one, into its own."""
    folder = Path(source) / FOLDER
    if str(source) and folder.is_dir() and not (checkpoint / FOLDER).exists():
        link_tree(folder, checkpoint / FOLDER)


def is_part(checkpoint: Path) -> bool:
    """Say whether a checkpoint is the language model of a larger one."""
    return (checkpoint / FOLDER).is_dir()


@contextmanager
def published_form(checkpoint: Path, scratch: Path) -> Iterator[Path]:
    """Yield a folder that a server loads: the checkpoint itself, or its published form, removed afterwards.

    Args:
        checkpoint: a plain checkpoint folder.
        scratch: where the published form may lie for a while; what a killed process left there is replaced.

    Raises:
        ArtifactError, StorageError: see `wrap`.
    """
    if not is_part(checkpoint):
        yield checkpoint
        return
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        wrap(checkpoint, scratch)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def wrap(checkpoint: Path, export: Path) -> None:
    """Write the published form of a trained text checkpoint: re-keyed weights plus the untouched rest (App. E.4).

    The text weights are streamed under their published names, in their own dtype; everything else is linked. The
    published config stays as it is, apart from the tie between embedding and head where training has cut it.

    Raises:
        ArtifactError: names or shapes are not those of the published language model.
        StorageError: the disk is full or refuses the write.
    """
    kept = checkpoint / FOLDER
    text, rest = read_folder(checkpoint), read_file(kept / REST)
    _check(text, json.loads((kept / SHAPES).read_text(encoding="utf-8")), checkpoint)
    half = export.with_name(f".{export.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    renamed = {_LANGUAGE + name: tensor for name, tensor in text.items()}
    write_file(half / _TEXT_SHARD, renamed)
    link_file(kept / REST, half / _REST_SHARD)
    places = dict.fromkeys(renamed, _TEXT_SHARD) | dict.fromkeys(rest, _REST_SHARD)
    size = sum(tensor.bytes for tensor in (*renamed.values(), *rest.values()))
    write_atomic(half / INDEX, json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1) + "\n")
    for name in COMPANIONS[1:]:
        link_file(kept / name, half / name)
    config = json.loads((kept / COMPANIONS[0]).read_text(encoding="utf-8"))
    if _HEAD in text:
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    write_atomic(half / COMPANIONS[0], json.dumps(config, indent=2) + "\n")
    template = checkpoint / "chat_template.jinja"
    if template.is_file():
        link_file(template, half / template.name)
    half.rename(export)


def _check(text: Mapping[str, StoredTensor], published: Mapping[str, list[int]], checkpoint: Path) -> None:
    """The head may be new: where the published one is tied, training may have untied it (A-73)."""
    found = {name: list(tensor.shape) for name, tensor in text.items()}
    differing = sorted(name for name in {*found, *published} - {_HEAD} if found.get(name) != published.get(name))
    if differing:
        name = differing[0]
        raise ArtifactError(
            f"{checkpoint} cannot be put back into the model it was taken from: {len(differing)} weights differ, "
            f"e.g. {name} (published {published.get(name, 'not at all')}, here {found.get(name, 'not at all')}); "
            "train from the base checkpoint anew"
        )
