"""Puts the page together: one HTML text with style, script and figures inside, every text escaped by the template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from replication import figures
from replication.figures import Drawing
from replication.models import MODELS, Model
from replication.page import counts, mixture, provenance, summary
from replication.page.numbers import count_text
from replication.page.sections import SECTIONS, absent, published_models
from replication.page.tables import TableView, table_view
from replication.paper import ASSUMPTIONS

Content = dict[str, Any]

_LONG_WORD = 24
_HERE = Path(__file__).resolve().parent / "templates"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069"
                          r"\ud800-\udfff\ufffe\uffff]")


def drawings(contents: Mapping[str, Content], kept: Path | None = None) -> dict[str, Drawing]:
    """Draw every plot of the result files, by the stem of its static file; `kept` holds what was drawn before."""
    return {name: figures.drawn(plot, kept) for name, _, plot in _plots(_in_order(contents))
            if figures.has_points(plot)}


def render(contents: Mapping[str, Content], model: Model, *, skipped: Sequence[str] = (),
           drawn: Mapping[str, Drawing] | None = None) -> str:
    """Return the page of a model's result files (name -> content, checked by replication.page.reading).

    `skipped` are remarks on files that were left out; `drawn` the drawings, made here where they are not given. The
    same input gives the same text. Nothing in it is loaded from elsewhere.
    """
    contents = _in_order(contents)
    drawn = drawings(contents) if drawn is None else drawn
    common = provenance.common_notes(contents)
    mixed = mixture.mixture(contents)
    sections = [_section(name, contents, model, drawn, common) | {"mixed": mixed.get(name, "")} for name in SECTIONS
                if name in contents or not SECTIONS[name].optional]
    return _template("page.html").render(
        model=model, warning=summary.scale_warning(model), facts=summary.facts(contents),
        run_text=summary.run_text(contents, model) if contents else "",
        summary=summary.sentences(contents, model), sections=sections, common_notes=common,
        departures=provenance.departures(contents), assumptions=list(ASSUMPTIONS.values()),
        origins=provenance.origins(contents), settings=provenance.settings(contents),
        steps=provenance.steps(contents), skipped=[_printable(line) for line in skipped],
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
    )


def _in_order(contents: Mapping[str, Content]) -> dict[str, Content]:
    return {name: _printable(contents[name]) for name in SECTIONS if name in contents}


def _printable(value: Any) -> Any:
    """Replace what HTML forbids or what would turn the text around (control and direction characters)."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    return [_printable(entry) for entry in value] if isinstance(value, list) else value


def _plots(contents: Mapping[str, Content]) -> list[tuple[str, str, figures.Plot]]:
    found = [(table, plot | {"about": _about(content)}) for table, content in contents.items()
             for plot in content.get("plots") or []]
    return [(name, table, plot) for name, (table, plot) in zip(figures.file_names(found), found, strict=True)]


def _about(content: Content) -> str:
    """Say in a figure, which may be shown alone, at what scale and with what model it was measured."""
    owner = MODELS.get(str(content.get("model")))
    named = [f"{content['scale']} scale"] if content.get("scale") else []
    return ", ".join([*named, owner.title] if owner else named)


def _section(name: str, contents: Mapping[str, Content], model: Model, drawn: Mapping[str, Drawing],
             common: list[str]) -> dict[str, Any]:
    section = SECTIONS[name]
    content = contents.get(name)
    if content is None:
        why, command = absent(section, model)
        return {"name": name, "place": section.place, "title": section.title, "absent": why, "command": command,
                "state": "not there"}
    view = table_view(content)
    owner = MODELS.get(content.get("model") or model.name, model)
    footnotes = content.get("footnotes") or []
    about = section.of_the_paper
    return {
        "state": _state(view, content), "sizes": counts.legend(content),
        "name": name, "scale": content.get("scale") or "",
        "place": content.get("place") or section.place, "title": content.get("title") or section.title,
        "absent": None, "view": view, "owner": None if owner.name == model.name else owner,
        "context": _printed_for(content, owner),
        "plots": [_plot(file, plot, drawn) for file, table, plot in _plots(contents) if table == name],
        "notes": [note for note in provenance.own_notes(content) if note not in common] + footnotes * about,
        "footnotes": footnotes * (not about), "orders": content.get("ordering") or [],
        "heading": content.get("heading") or "", "findings": _findings(content),
        "checked": content.get("checked") or {},
        "note": _other_model(name, owner, model),
    }


def _printed_for(content: Content, owner: Model) -> str:
    source: str = content.get("paper_source") or owner.context
    return source.removesuffix(", for orientation")


def _state(view: TableView, content: Content) -> str:
    """Say in a few words, for the list of contents, what a section holds."""
    found, plots = content.get("findings"), content.get("plots") or []
    if found is not None:
        return count_text(len(found), "finding")
    if not view.columns:
        return count_text(sum(map(figures.has_points, plots)), "figure")
    others = [f"{view.counts[status]} {status}" for status in ("missing", "failed") if view.counts[status]]
    return ", ".join([count_text(view.counts["measured"], "cell"), *others])


def _other_model(name: str, owner: Model, model: Model) -> str:
    if owner.name == model.name:
        return ""
    printed = published_models(name)
    of = f"The paper prints this table for {', '.join(printed)}; measured" if printed else "Measured"
    return f"{of} here with {owner.title}."


def _plot(file: str, plot: figures.Plot, drawn: Mapping[str, Drawing]) -> dict[str, Any]:
    from markupsafe import Markup

    svg = Markup(figures.inline(drawn[file].svg, file, plot["title"])) if file in drawn else None
    kinds = {series.get("kind", "measured") for series in plot["series"]}
    legend = [text for kind, text in (("paper", "dashed grey: the paper's"), ("reference", "thin broken: reference"))
              if kind in kinds]
    if any(point.get("low") is not None for series in plot["series"] for point in series["points"]):
        legend.append("bars or bands: 95 % intervals")
    return {"id": file, "title": plot["title"], "svg": svg, "legend": "; ".join(legend)}


def _findings(content: Content) -> list[tuple[str, str, list[Content]]]:
    """Return (kind and what it means, how many of how many, findings)."""
    kinds: dict[str, list[Content]] = {}
    for found in content.get("findings") or []:
        value = found.get("value")
        shown = f"{value:.10g}" if isinstance(value, float) else value
        kinds.setdefault(found["kind"], []).append({**found, "value": "" if shown is None else str(shown)})
    checked, meaning = content.get("checked") or {}, content.get("kinds") or {}
    among = {kind: f" among {n:,} checked" for kind, n in checked.items() if isinstance(n, int)}
    return [(f"{kind}, {meaning[kind]}" if kind in meaning else kind,
             count_text(len(found), "finding") + among.get(kind, ""), found) for kind, found in kinds.items()]


def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["breakable"] = _breakable
    environment.filters["with_code"] = _with_code
    return environment.get_template(name)


def _with_code(text: str) -> Any:
    """Set what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # a lone backtick is one
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else escape(part)
                           for i, part in enumerate(parts))


def _breakable(text: str) -> Any:
    """Let very long words break inside a table's cell; shorter ones stay whole."""
    from markupsafe import Markup

    pieces = re.split(rf"(\S{{{_LONG_WORD},}})", str(text))
    return Markup("").join(Markup("<wbr>").join(piece[i : i + 12] for i in range(0, len(piece), 12))
                           if len(piece) >= _LONG_WORD and not piece[:1].isspace() and " " not in piece else piece
                           for piece in pieces)
