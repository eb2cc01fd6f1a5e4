"""The methods' settings against the paper: values and sections, and what the paper leaves open.

The defaults stand in `baselines/`, the paper's figures in `replication/paper_values.py`, the open questions in
`replication/assumptions.py`, each typed on its own: here they must agree.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from conftest import SHARED

from baselines import METHODS
from baselines.catalogue import SettingEntry, as_text, settings
from replication.configuration import is_setting, with_changes
from replication.paper import ASSUMPTIONS, HYPERPARAMETERS
from replication.scales import SCALES

SETTINGS: dict[str, SettingEntry] = {entry.name: entry for name, chosen in METHODS.items()
                                     for entry in settings(name, chosen())}
PAPER = SCALES["paper"].configuration

# a section describes these, but prints no value for them
DESCRIBED_ONLY = {"ssb.init": "App. E.6", "wmss.modules": "Table 2", "wmss.weak_checkpoint": "App. B.5"}

# figures of the paper that are no setting's default, with the reason
NO_SETTING = {
    "spin.learning_rate_unstable": "what the paper warns of",
    "spin.sft_epochs": "M1, the shared warm-up", "wmss.warmup_epochs": "M1, the shared warm-up",
    "wmss.weak_driven_epochs": "epochs of the Train phase",
    "ssb.stored_mass": "a remark on the top-20", "ssb.epochs": "epochs of the Train phase",
    "ssb.micro_batch": "hardware", "ssb.accumulation_steps": "hardware", "ssb.num_gpus": "hardware",
    "ssb.gemma_sft_epochs": "ssb.init on a silent base", "ssb.gemma_epochs": "ssb.init on a silent base",
}

# assumptions whose words stand for several settings, or for None: what they say, spelt out
WORDS = {
    "A-05": {"train.adam_beta1": 0.9, "train.adam_beta2": 0.999, "train.adam_epsilon": 1e-8,
             "train.weight_decay": 0.0},
    "A-32": {"spin.max_new_tokens": None},
    "A-36": {"spin.top_p": 1.0, "spin.top_k": 0},
    "A-40": {"dpo.beta": 0.1, "dpo.learning_rate": 5e-7, "dpo.clip_norm": 0.5, "dpo.warmup_ratio": 0.1},
    "A-42": {"dpo.top_p": 1.0},
    "A-50": {"ssb.teacher_top_k": 50},
    "A-51": {"ssb.teacher_context": 16_384, "data.max_length": 4096},
    "A-72": {"wdjt.weak_learning_rate": None},
}


def default_of(name):
    """A setting's value at the paper's scale: a method's, or one that all methods share."""
    if name in SETTINGS:
        return SETTINGS[name].default
    section, _, field_name = name.partition(".")
    return getattr(getattr(PAPER, section), field_name)


@pytest.mark.parametrize("entry", [e for e in SETTINGS.values() if e.place], ids=lambda entry: entry.name)
def test_a_setting_with_a_place_has_the_papers_value_and_section(entry):
    if entry.name in DESCRIBED_ONLY:
        assert (entry.place, entry.paper) == (DESCRIBED_ONLY[entry.name], "")
        return
    printed = HYPERPARAMETERS[entry.paper]
    assert printed.place == entry.place
    if entry.paper == "ssb.loss_mixture":
        assert printed.value == "equal" and entry.default == 1 - entry.default
    else:
        assert math.isclose(printed.value, entry.default, rel_tol=1e-12)


def test_only_settings_with_a_place_name_a_figure_of_the_paper():
    assert [e.name for e in SETTINGS.values() if e.paper and not e.place] == []
    assert [e.name for e in SETTINGS.values() if not (e.place or e.ambiguity)] == []


def test_every_figure_of_a_methods_own_is_a_setting_or_has_a_reason():
    used = {entry.paper for entry in SETTINGS.values()}
    own = {name for name in HYPERPARAMETERS if name.partition(".")[0] in METHODS}
    sweeps = {name for name in own if re.search(r"_sweep_|_fine_|_steps$", name) and name.startswith("wmss.")}
    assert own - used - sweeps == set(NO_SETTING)


def test_epochs_of_the_phases_are_the_papers():
    def epochs(name, **changes):
        return [phase.epochs for phase in METHODS[name](**changes).phases() if hasattr(phase, "epochs")]

    assert epochs("wmss") == [HYPERPARAMETERS["wmss.weak_driven_epochs"].value]
    assert epochs("spin") == [HYPERPARAMETERS["spin.epochs"].value]
    assert epochs("ssb") == [HYPERPARAMETERS["ssb.epochs"].value]
    assert epochs("ssb", init="sft_epoch1") == [HYPERPARAMETERS["ssb.gemma_epochs"].value]


# ------------------------------------------------------------------------------------------------- open questions


@pytest.mark.parametrize("entry", [e for e in SETTINGS.values() if e.ambiguity], ids=lambda entry: entry.name)
def test_an_open_question_named_on_a_setting_is_an_assumption_with_that_default(entry):
    assumption = ASSUMPTIONS[entry.ambiguity]
    assert assumption.field is not None and is_setting(assumption.field)
    same_name = entry.name.partition(".")[2] == assumption.field.partition(".")[2]
    if entry.ambiguity in WORDS:
        assert WORDS[entry.ambiguity][entry.name] == entry.default
    elif entry.name == assumption.field or same_name:  # undial.init is answered as neftune.init
        assert entry.value in (assumption.default, as_text(_number(assumption.default)))
        assert _values((entry.value, *entry.other_readings)) == _values(assumption.options)


@pytest.mark.parametrize("assumption", ASSUMPTIONS.values(), ids=lambda assumption: assumption.id)
def test_an_assumption_is_a_setting_with_that_default_or_says_why_not(assumption):
    if assumption.field is None:
        assert "no setting" in assumption.reason or assumption.id >= "A-90"
        return
    if assumption.id >= "A-90":
        pytest.skip("evaluation")
    assert is_setting(assumption.field), assumption.field
    if assumption.id in WORDS:
        assert assumption.field in WORDS[assumption.id]
        assert {name: default_of(name) for name in WORDS[assumption.id]} == WORDS[assumption.id]
    else:
        assert _values((assumption.default,)) == _values((as_text(default_of(assumption.field)),))


@pytest.mark.parametrize("assumption", [a for a in ASSUMPTIONS.values() if a.field and a.id not in WORDS
                                        and a.id < "A-90"], ids=lambda assumption: assumption.id)
def test_every_reading_of_an_assumption_can_be_chosen(assumption):
    for option in assumption.options:
        with_changes(PAPER_WITH_ROOM, [f"{assumption.field}={option}"])
    section, _, name = assumption.field.partition(".")
    if section not in ("train", "loss", "data", "prompt"):
        return
    hint = get_type_hints(type(getattr(PAPER, section)))[name]
    if get_origin(hint) is Literal:  # `none` is an addition of ours: no system prompt anywhere
        assert set(get_args(hint)) - {"none"} == set(assumption.options) - {"none"}


PAPER_WITH_ROOM = dataclasses.replace(
    SCALES["paper"].configuration, data=dataclasses.replace(SCALES["paper"].configuration.data, max_length=8192))


@pytest.mark.parametrize("assumption", [a for a in ASSUMPTIONS.values() if a.field in SETTINGS],
                         ids=lambda assumption: assumption.id)
def test_a_setting_names_the_question_it_answers(assumption):
    assert SETTINGS[assumption.field].ambiguity == assumption.id


def test_dpo_takes_from_spin_what_the_paper_leaves_open():
    for name in ("beta", "learning_rate", "clip_norm", "warmup_ratio", "subset", "top_p"):
        assert SETTINGS[f"dpo.{name}"].default == SETTINGS[f"spin.{name}"].default, name


def test_the_method_notes_name_the_same_defaults():
    """methods.md prints each default in bold; where that is a value of the setting, it is ours."""
    notes = SHARED / "methods.md"
    if not notes.is_file():
        pytest.skip("the method notes are not at hand")
    compared = 0
    for line in notes.read_text(encoding="utf-8").splitlines():
        found = re.match(r"\| (A-\d\d) \|.*\*\*([^*]+)\*\*", line)
        assumption = ASSUMPTIONS.get(found.group(1)) if found else None
        if assumption is None or assumption.id in WORDS or found.group(2) not in assumption.options:
            continue
        assert found.group(2) == assumption.default, assumption.id
        compared += 1
    assert compared >= 30


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _values(texts):
    return {_number(text) for text in texts}
