"""`python -m baselines list`: what it prints is what the methods declare, and docs/methods.md is the same."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys

import pytest
from conftest import ROOT
from rich.console import Console

from baselines import METHODS
from baselines.__main__ import main, markdown, show
from baselines.catalogue import as_text, entries
from baselines.phases import Phase
from replication.configuration import with_changes
from replication.rows import known_rows
from replication.scales import SCALES

ENTRIES = entries(METHODS)

OWN_METHOD = '''
from dataclasses import dataclass
from baselines.interface import Method, setting

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    title = "Mine"
    strength: float = setting(0.25, place="my notes")

    def loss(self, batch, strong, other):
        return strong.hidden_ND.sum() * self.strength
'''


def printed(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_page_of_methods_is_up_to_date():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == markdown(ENTRIES), "write it again with: make docs"


def test_every_setting_and_every_row_is_listed(capsys):
    code, text, _ = printed(capsys, "list")
    assert code == 0
    first_words = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert set(known_rows(METHODS)) - set(METHODS) <= first_words
    for name, chosen in METHODS.items():
        for f in dataclasses.fields(chosen):
            value = getattr(chosen(), f.name)
            if not dataclasses.is_dataclass(value):
                assert f"{name}.{f.name}" in first_words
    assert {"wdjt.mix_weight", "wdds.alpha", "wdds.dtype"} <= first_words


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_listed_value_is_what_the_command_line_takes(entry):
    for setting in entry.settings:
        configuration = with_changes(SCALES["tiny"].configuration, [f"{setting.name}={setting.value}"])
        assert configuration.methods == (f"{setting.name}={setting.value}",)
        for reading in setting.other_readings:
            if " " not in reading:  # words that describe a number are no values
                with_changes(SCALES["tiny"].configuration, [f"{setting.name}={reading}"])


def test_a_line_says_value_source_other_readings_and_scale(capsys):
    _, text, _ = printed(capsys, "list", "spin", "ssb")
    (line,) = [line for line in text.splitlines() if line.strip().startswith("spin.global_batch")]
    assert line.split("  ")[1:] and all(part in line for part in ("512", "App. E.5, A-31", "64", "shared batch"))
    (line,) = [line for line in text.splitlines() if line.strip().startswith("ssb.init")]
    assert all(part in line for part in ("base", "App. E.6", "silent base: sft_epoch1"))
    assert "baselines/spin.py: SPIN.pair_loss" in text and "NEFTune" not in text


def test_every_phase_has_words():
    for chosen in METHODS.values():
        for phase in chosen().phases():
            assert isinstance(phase, Phase)
    assert not any(text.startswith(("Train(", "Sample(", "Score(")) for entry in ENTRIES for text in entry.phases)


def test_it_fits_a_terminal_of_100_columns():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    show(ENTRIES, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    for entry in ENTRIES:
        for setting in entry.settings:  # name and value are never broken
            assert any(line.split()[:2] == [setting.name, setting.value] for line in lines), setting.name


def test_piped_output_is_plain(capsys):
    _, text, _ = printed(capsys, "list")
    assert "\x1b" not in text and not any(line.endswith(" ") for line in text.splitlines())


def test_without_a_command_it_says_how_to_use_it(capsys):
    code, text, _ = printed(capsys)
    assert code == 0 and text.startswith("usage: python -m baselines") and "list" in text


def test_an_unknown_method_is_an_error_that_lists_the_known_ones(capsys):
    code, text, error = printed(capsys, "list", "sfft")
    assert code == 2 and text == "" and "'sfft'" in error and "neftune" in error


def test_a_method_of_ones_own_is_listed_too(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(OWN_METHOD)
    code, text, _ = printed(capsys, "list", "sft", "--method", f"{tmp_path / 'mine.py'}:Mine")
    assert code == 0 and "mine.py: Mine.loss" in text
    assert any(line.split() == ["mine.strength", "0.25", "my", "notes"] for line in text.splitlines())


def test_values_are_written_as_on_the_command_line():
    assert [as_text(v) for v in (None, True, 5e-7, 20_000, "eq9")] == ["none", "true", "5e-07", "20000", "eq9"]


def test_listing_loads_nothing_heavy():
    program = ("import sys; from baselines.__main__ import main; main(['list']); main(['list', '--markdown'])\n"
               "assert not {'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
