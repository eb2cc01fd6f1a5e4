"""What stands first on the page: what was run, what is measured, the main comparison, the audit, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from replication.models import Model
from replication.page import counts, mixture
from replication.page.numbers import count_text, p_text, value_text
from replication.page.reading import VERDICTS
from replication.page.sections import SECTIONS
from replication.paper_tables import METHODS
from replication.scales import SCALES

Content = dict[str, Any]

ANCHOR, OURS = METHODS[0], METHODS[-1]
_ROUNDING, _UNLIKE, _READ = "recomputed", "differs", "wording"  # kinds of findings that are no disagreement of figures
_HEADLINE_TABLES = ("table1", "table4", "table5")


def facts(contents: Mapping[str, Content]) -> list[tuple[str, str]]:
    """Return the numbers of the strip at the top: (number, what it counts)."""
    statuses = Counter(cell["status"] for content in contents.values() for cell in content.get("cells") or [])
    tables = sum(name.startswith("table") for name in contents)
    all_tables = sum(name.startswith("table") for name in SECTIONS)
    found = [(f"{tables} of {all_tables}", "tables"), *_trainings(contents)]
    found += [(f"{statuses[status]:,}", f"cells {status}") for status in ("measured", "missing", "failed")]
    return found


def _trainings(contents: Mapping[str, Content]) -> list[tuple[str, str]]:
    """Count trainings by id where the files list them, else the trained rows of the largest table."""
    origins = [content.get("provenance") or {} for content in contents.values()]
    listed = {step for origin in origins for step in origin.get("trainings") or []}
    if listed:
        return [(f"{len(listed):,}", "trainings")]
    rows = max((len(content.get("budget") or []) for content in contents.values()), default=0)
    return [(f"{rows:,}", "trained rows in the largest table")] if rows else []


def sentences(contents: Mapping[str, Content], model: Model) -> list[tuple[str, list[str]]]:
    """Return the summary as (heading, sentences)."""
    parts = [("Mixed settings", mixture.sentences(contents)),
             ("Main comparison", _main_comparison(contents)), ("Order of the methods", _orders(contents)),
             ("Against the paper", _verdicts(contents, model)), ("Audit of the paper's numbers", _audit(contents))]
    return [(title, lines) for title, lines in parts if lines]


def run_text(contents: Mapping[str, Content], model: Model) -> str:
    """Say in one sentence what was run and on what."""
    shown = [*_ranges("Table", contents), *_ranges("Figure", contents),
             *(SECTIONS[name].place.lower() for name, content in contents.items()
               if content.get("cells") and not name.startswith(("table", "figure")))]
    span = counts.graded_span(contents)
    questions = "" if span is None else f" Each graded cell rests on {counts.span_text(span)} questions."
    listed = _listed(shown) if shown else "nothing yet"
    return f"{model.title} was measured for {listed}.{questions}"


def _ranges(word: str, contents: Mapping[str, Content]) -> list[str]:
    """Return `Tables 1 to 3`, `Table 7`: consecutive numbers joined."""
    numbers = sorted(int(name.removeprefix(word.lower())) for name in contents if name.startswith(word.lower()))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [f"{word} {run[0]}" if len(run) == 1 else f"{word}s {run[0]} to {run[-1]}" for run in runs]


def scale_warning(model: Model) -> str:
    """Return what must be said of every number at a scale that is not the paper's; empty at the paper's."""
    if model.scale == "paper":
        return ""
    note = SCALES[model.scale].note
    return (f"Nothing on this page is a replication of the paper's numbers. This is the {note.partition(';')[0]}. It "
            f"shows that the code runs from end to end and what it measures there; the paper's values "
            f"({model.context}) stand beside it for orientation and are not judged.")


def _main_comparison(contents: Mapping[str, Content]) -> list[str]:
    lines = []
    for name in _HEADLINE_TABLES:
        content = contents.get(name)
        for found in (content or {}).get("comparisons") or []:
            averaged = found["column"].rstrip().endswith("Avg.")
            if content is None or not averaged or (found["row"], found["against"]) != (OURS, ANCHOR):
                continue
            lines.append(_compared(found, name, content))
    if lines:
        spread = " How far trainings lie apart at this scale is in the intervals of Table 9." * ("table9" in contents)
        lines.append(f"Each row is one training: intervals and p values speak of the questions, not of a second "
                     f"training.{spread}")
    if not lines and any(name in contents for name in _HEADLINE_TABLES):
        lines.append(f"{OURS} was not compared with {ANCHOR} on a whole average.")
    return lines


def _compared(found: Content, name: str, content: Content) -> str:
    domain = "Logic" if name == "table5" and found["column"] == "Avg." else found["column"].removesuffix(" Avg.")
    size = value_text(abs(found["difference"]), "%")
    way = "above" if found["difference"] > 0 else "below"
    values = {cell["row"]: cell["value"] for cell in content["cells"]
              if cell["column"] == found["column"] and cell["status"] == "measured"}
    scores = ""
    if OURS in values and ANCHOR in values:
        scores = f" ({value_text(values[OURS], '%')} against {value_text(values[ANCHOR], '%')})"
    text = f"{domain}: {OURS} is {size} points {way} {ANCHOR}{scores}"
    if found.get("ci95"):
        low, high = found["ci95"]
        text += f", 95 % interval {value_text(low, '%', sign=True)} to {value_text(high, '%', sign=True)}"
        told = "excludes" if low > 0 or high < 0 else "includes"
        text += f", which {told} zero"
    p = p_text(found.get("p"))
    return text + (f"; p {p if p.startswith('<') else '= ' + p}" if p else "") + f" ({SECTIONS[name].place})."


def _orders(contents: Mapping[str, Content]) -> list[str]:
    return [f"{SECTIONS[name].place}, {found['column']}: {found['text'].rstrip('.')}." for name in _HEADLINE_TABLES
            for found in (contents.get(name) or {}).get("ordering") or []]


def _verdicts(contents: Mapping[str, Content], model: Model) -> list[str]:
    counted = Counter(cell["judgement"]["verdict"] for content in contents.values()
                      for cell in content.get("cells") or [] if cell.get("judgement"))
    if counted:
        parts = ", ".join(f"{counted[verdict]:,} {verdict}" for verdict in VERDICTS)
        return [f"Cells judged against the published value: {sum(counted.values()):,} ({parts})."]
    if model.scale == "paper":
        return ["No cell was judged against the paper."]
    return []


def _audit(contents: Mapping[str, Content]) -> list[str]:
    content = contents.get("audit")
    if content is None:
        return []
    kinds = Counter(found["kind"] for found in content.get("findings") or [])
    checked = {kind: n for kind, n in (content.get("checked") or {}).items() if isinstance(n, int)}
    rounding, unlike, read = (kinds.pop(kind, 0) for kind in (_ROUNDING, _UNLIKE, _READ))
    compared = checked.pop(_UNLIKE, 0)
    text = f"{sum(kinds.values()):,} do not come out" if checked else count_text(sum(kinds.values()), "finding")
    if checked:
        text = f"{count_text(sum(checked.values()), 'check')} of printed numbers and statements, of which {text}"
    parts = [f"{kind} {kinds[kind]:,}" + (f" of {checked[kind]:,}" if kind in checked else "")
             for kind in dict.fromkeys([*checked, *kinds])]
    lines = [text + (f" ({', '.join(parts)})." if parts else ".")]
    if rounding:
        lines.append(f"A further {rounding:,} {'comes' if rounding == 1 else 'come'} out only within the rounding of "
                     f"{'its' if rounding == 1 else 'their'} parts, or with further digits cut off.")
    if compared:
        lines.append(f"{unlike:,} of {count_text(compared, 'comparison')} of runs that are not the same differ, "
                     "as such runs may.")
    if read:
        lines.append(f"{count_text(read, 'pair')} of passages {'describes' if read == 1 else 'describe'} one thing "
                     "differently.")
    return [" ".join(lines)]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
