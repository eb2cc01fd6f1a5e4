"""Draws the plots that result files describe (docs/results.md, `plots`): SVG for the page, SVG and PNG for papers.

The same plot gives the same bytes on the same matplotlib: ids are salted with the plot's own, nothing is dated. Text
stays text. Colours are Okabe and Ito's, which the colour-blind can tell apart; series also differ by marker, the
paper's are dashed grey, references thin broken lines, in the colour of the series they are `of` or black.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from foundation.errors import StorageError
from foundation.files import canonical_json, sha256_file, write_atomic

Plot = dict[str, Any]

INCHES_WIDE = 4.7
DOTS_PER_INCH = 200
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4B8A", "#7A6A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BROKEN: tuple[Any, ...] = (":", "-.", (0, (1, 3)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 3)))
"""Lines of references: of the first of a series, of the second, and so on."""
_GREY = "#6b6b6b"
_BLACK = "#222222"
_MAX_NAME = 44
_MAX_KEY = 60
_SCALE = re.compile(r" \(\w+ scale\)$")
_RC = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5, "axes.edgecolor": "#767676", "axes.linewidth": 0.7, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.6, "xtick.color": "#333333",
    "ytick.color": "#333333", "axes.labelcolor": "#222222", "text.color": "#222222", "lines.linewidth": 1.5,
    "lines.markersize": 4.2, "figure.facecolor": "white", "savefig.facecolor": "white", "text.parse_math": False,
}  # fmt: skip


class Drawing(NamedTuple):
    """One plot, drawn."""

    svg: str
    png: bytes


def has_points(plot: Plot) -> bool:
    """Say whether there is anything to draw."""
    return any(True for series in plot["series"] for _ in _points(series))


def drawn(plot: Plot, kept: Path | None = None) -> Drawing:
    """Return a plot's drawing, from the folder `kept` where the very same plot was drawn before by the same code.

    Drawing is what takes longest when all tables are read again and nothing has changed.
    """
    if kept is None:
        return draw(plot)
    own = sha256_file(Path(__file__))
    key = hashlib.sha256(canonical_json([plot, own, metadata.version("matplotlib")]).encode()).hexdigest()
    files = [kept / f"{key}{suffix}" for suffix in (".svg", ".png")]
    if all(file.is_file() for file in files):
        return Drawing(files[0].read_text(encoding="utf-8"), files[1].read_bytes())
    drawing = draw(plot)
    with contextlib.suppress(StorageError):  # keeping it only saves time: a full store must not cost the page
        write_atomic(files[0], drawing.svg)
        write_atomic(files[1], drawing.png)
    return drawing


def draw(plot: Plot) -> Drawing:
    """Draw a plot as SVG (text as text) and PNG (200 dots per inch), with error bars where points have `low`, `high`.

    Above it stand the plot's `title` and what it was measured `about` (scale and model): a picture travels alone.
    Points without `y` are left out; a plot without any is drawn empty.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**_RC, "svg.hashsalt": str(plot["id"])}
    with matplotlib.rc_context(style):
        series = [entry for entry in plot["series"] if any(True for _ in _points(entry))]
        names = ["\n".join(textwrap.wrap(_short(entry["name"], _MAX_KEY), 40)) or "-" for entry in series]
        columns = 1 if any(len(name) > 24 for name in names) else 2 if len(names) < 5 else 3
        columns = 2 if columns == 3 and any(len(name) > 14 for name in names) else columns
        lines = sum(max(name.count("\n") + 1 for name in names[i : i + columns]) for i in range(0, len(names), columns))
        heading = _heading(plot)
        height = 2.95 + 0.175 * lines + 0.15 * len(heading)
        figure = Figure(figsize=(INCHES_WIDE, height), layout="constrained")
        FigureCanvasAgg(figure)
        if heading:
            figure.suptitle("\n".join(heading), x=0.015, ha="left", fontsize=8.5)
        axes = figure.add_subplot()
        _draw_series(axes, plot, series, names)
        _dress(axes, plot, series)
        if series:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False,
                          handlelength=2.4, columnspacing=1.4)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return Drawing(svg.getvalue(), png.getvalue())


def inline(svg: str, prefix: str, label: str) -> str:
    """Return a drawn SVG for use inside HTML: no XML head, ids made unique by `prefix`, `label` read aloud.

    `label` is escaped here; everything else comes from `draw`.
    """
    from html import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(label, quote=True)}" ', 1)


def file_names(plots: list[tuple[str, Plot]]) -> list[str]:
    """Return the stem of each static file, given (result file, plot): the plot's id, made safe and told apart."""
    names: list[str] = []
    for table, plot in plots:
        name = _slug(plot["id"]) or "plot"
        candidates = (name, f"{table}-{name}", *(f"{table}-{name}-{i}" for i in range(2, 2 + len(plots))))
        names.append(next(candidate for candidate in candidates if candidate not in names))
    return names


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]


def _short(name: str, most: int = _MAX_NAME) -> str:
    name = " ".join(name.split())
    return name if len(name) <= most else name[: most - 1] + "…"


def _heading(plot: Plot) -> list[str]:
    """Return the lines above a plot; the scale in a title is not said twice."""
    title, about = " ".join(plot["title"].split()), " ".join((plot.get("about") or "").split())
    if about:
        title = _SCALE.sub("", title)
    return [line for text, most in ((title, 3), (about, 2))
            for line in textwrap.wrap(text, 68, max_lines=most, placeholder=" …")]


def _two_lines(label: str, width: int) -> str:
    return "\n".join(textwrap.wrap(label, width, max_lines=2, placeholder=" …"))


def _points(series: Plot) -> Iterator[Plot]:
    return (point for point in series["points"] if point.get("y") is not None)


def _categories(series: list[Plot]) -> list[str]:
    return list(dict.fromkeys(str(point["x"]) for entry in series for point in _points(entry)))


def _draw_series(axes: Any, plot: Plot, series: list[Plot], names: list[str]) -> None:
    categories = _categories(series) if plot["x"].get("scale") == "category" else None
    measured = [entry for entry in series if entry.get("kind", "measured") == "measured"]
    colours = {entry["name"]: PALETTE[place % 8] for place, entry in enumerate(measured)}
    drawn: dict[str, int] = {}
    for entry, name in zip(series, names, strict=True):
        kind, of = entry.get("kind", "measured"), entry.get("of", "")
        number = drawn[kind + of] = drawn.get(kind + of, -1) + 1
        spread = 0.07 * (number - (len(measured) - 1) / 2) if kind == "measured" else 0.0
        points = list(_points(entry))
        if categories is None:
            points.sort(key=lambda point: point["x"])
        xs = [point["x"] if categories is None else categories.index(str(point["x"])) + spread for point in points]
        _draw_one(axes, xs, points, name, kind, number, colours.get(of, _BLACK))


def _draw_one(axes: Any, xs: list[float], points: list[Plot], name: str, kind: str, number: int,
              reference_colour: str) -> None:
    ys = [point["y"] for point in points]
    if kind == "paper":
        style: dict[str, Any] = {"color": _GREY, "linestyle": "--", "marker": MARKERS[number % 8],
                                 "markerfacecolor": "white"}
    elif kind == "reference":
        style = {"color": reference_colour, "linestyle": BROKEN[number % len(BROKEN)], "linewidth": 1.1,
                 "marker": MARKERS[number % 8] if len(xs) == 1 else ""}
    else:
        style = {"color": PALETTE[number % 8], "marker": MARKERS[number % 8]}
    axes.plot(xs, ys, label=name, zorder={"paper": 2, "reference": 2.2}.get(kind, 3), **style)
    barred = [(x, point) for x, point in zip(xs, points, strict=True)
              if point.get("low") is not None and point.get("high") is not None]
    if not barred:
        return
    lows, highs = [point["low"] for _, point in barred], [point["high"] for _, point in barred]
    if len(barred) > 8 and len(barred) == len(xs):
        axes.fill_between(xs, lows, highs, color=style["color"], linewidth=0,
                          alpha=0.08 if kind == "reference" else 0.16)
    else:
        axes.vlines([x for x, _ in barred], lows, highs, color=style["color"], linewidth=1.0, alpha=0.75)


def _dress(axes: Any, plot: Plot, series: list[Plot]) -> None:
    axes.set_xlabel(_two_lines(plot["x"].get("label", ""), 50))
    axes.set_ylabel(_two_lines(plot["y"].get("label", ""), 34))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=2.5, width=0.7)
    axes.grid(axis="x", visible=False)
    scale = plot["x"].get("scale", "linear")
    if scale == "log2":
        _log2_axis(axes, series)
    elif scale == "category":
        _category_axis(axes, _categories(series))
    else:
        _whole_ticks(axes, [point["x"] for entry in series for point in _points(entry)])
        _label_points(axes, series)
    if not series:
        axes.text(0.5, 0.5, "no points", ha="center", va="center", transform=axes.transAxes)


def _label_points(axes: Any, series: list[Plot]) -> None:
    """Write labels that points share above the axes, upright and apart; a series' own name stands in the key."""
    names = {entry["name"] for entry in series}
    label_at = {point["x"]: _short(point["label"]) for entry in series for point in _points(entry)
                if point.get("label") and point["label"] not in names}
    if not label_at:
        return
    low, high = axes.get_xlim()
    step = (high - low) * 0.045
    places = _spread(sorted(label_at), step)
    shift = min(0.0, high - places[-1])  # the last label stays inside
    for x, place in zip(sorted(label_at), places, strict=True):
        axes.annotate(label_at[x], xy=(x, 1.0), xycoords=("data", "axes fraction"), xytext=(place + shift, 1.09),
                      textcoords=("data", "axes fraction"), rotation=90, ha="center", va="bottom", fontsize=8,
                      arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": _GREY, "shrinkA": 0, "shrinkB": 0,
                                  "relpos": (0.5, 0.0)})
    axes.set_xlim(low, high)


def _spread(xs: list[float], step: float) -> list[float]:
    """Move sorted places to the right until each is `step` from the one before."""
    places: list[float] = []
    for x in xs:
        places.append(max(x, places[-1] + step) if places else x)
    return places


def _whole_ticks(axes: Any, xs: list[float]) -> None:
    """Epochs and the like have no halves."""
    from matplotlib.ticker import MaxNLocator

    if xs and all(float(x).is_integer() for x in xs) and 0 < max(xs) - min(xs) <= 10:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _log2_axis(axes: Any, series: list[Plot]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    xs = sorted({point["x"] for entry in series for point in _points(entry)})
    ticks = xs if len(xs) <= 9 else xs[:: -(-len(xs) // 9)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])


def _category_axis(axes: Any, categories: list[str]) -> None:
    room = max(4, 52 // max(1, len(categories)))  # characters of a label before it meets its neighbour
    labels = ["\n".join(textwrap.wrap(_short(name), room, break_long_words=False)) for name in categories]
    upright = any(len(line) > room for label in labels for line in label.split("\n"))
    if upright:
        labels = [_short(name) if len(name) <= 24 else name[:23] + "…" for name in categories]
    axes.set_xticks(range(len(categories)), labels, rotation=90 if upright else 0)
    axes.margins(x=0.08)
