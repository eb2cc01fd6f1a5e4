"""Plots: the same bytes twice, text as text, the paper's series apart from ours, hostile names harmless."""

from __future__ import annotations

import re
import struct
from xml.etree import ElementTree

import pytest
from page_results import HOSTILE, LONG_WORD, WEAK, content, plots, series

from replication import figures
from replication.figure4 import courses
from replication.figures import draw, file_names, has_points, inline
from replication.models import MODELS
from replication.page.render import drawings

SVG = "{http://www.w3.org/2000/svg}"
ALL = {plot["id"]: plot for found in plots().values() for plot in found}


@pytest.fixture(scope="module")
def drawn():
    """Every plot of the made-up results, drawn once."""
    return {name: draw(plot) for name, plot in ALL.items()}


def _plot(*lines, scale="linear", name="a-plot"):
    return {"id": name, "title": "A plot", "x": {"label": "x", "scale": scale}, "y": {"label": "y"},
            "series": list(lines)}


def _texts(svg):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", ["lambda-curve", "pass-at-k-amc23", "entropy-gap"])
def test_the_same_plot_gives_the_same_bytes_without_a_date(drawn, name):
    first, second = drawn[name], draw(ALL[name])
    assert first == second
    assert "<dc:date>" not in first.svg
    assert not re.search(rb"tEXt(Software|Creation)", first.png)


@pytest.mark.parametrize("name", ALL)
def test_a_picture_that_stands_alone_says_what_it_shows_and_of_what(name):
    """As a page's figures are drawn: title, scale and model, in words, whole, the scale once."""
    model = MODELS["tiny"]
    contents = {"figure4": content("figure4", [], plots=[ALL[name] | {"title": ALL[name]["title"] + " (tiny scale)"}])}
    (drawing,) = drawings(contents).values()
    texts = " ".join(_texts(drawing.svg))
    assert ALL[name]["title"] in texts and model.title in texts and texts.count("tiny scale") == 1


def test_a_long_title_is_wrapped_and_a_very_long_one_is_cut():
    title = "Tokens whose negative mass grows under the mixture of both branches, by the weight of the strong logits"
    texts = _texts(draw(_plot(series("a", [(1, 2)])) | {"title": title}).svg)
    assert title in " ".join(texts) and title not in texts
    assert max(map(len, _texts(draw(_plot(series("a", [(1, 2)])) | {"title": LONG_WORD * 9}).svg))) < 70


@pytest.mark.parametrize(("source", "names"), [
    ("Qwen3-4B-Base, for orientation", {"paper, with WD-DS (Qwen3-4B-Base, for orientation)",
                                        "paper, without WD-DS (Qwen3-4B-Base, for orientation)"}),
    ("Qwen3-4B-Base", {"paper, with WD-DS (Qwen3-4B-Base)", "paper, without WD-DS (Qwen3-4B-Base)"}),
    ("Qwen3-8B-Base", set()), ("Gemma-3-4B-PT, for orientation", set()),
])  # fmt: skip
def test_figure_4_names_the_backbone_of_the_papers_curves_and_lends_them_to_no_other(source, names):
    (plot,) = courses({"budget": [], "cells": [], "scale": "tiny", "paper_source": source})
    assert {entry["name"] for entry in plot["series"]} == names
    texts = " ".join(_texts(draw(plot).svg))
    assert all(name in texts for name in names)


@pytest.mark.parametrize("name", ALL)
def test_every_series_and_axis_is_named_in_text(drawn, name):
    plot, texts = ALL[name], " ".join(_texts(drawn[name].svg))
    for label in (plot["x"]["label"], plot["y"]["label"], *(entry["name"] for entry in plot["series"])):
        assert label in texts


def test_the_png_has_the_shape_of_the_svg(drawn):
    drawing = drawn["lambda-curve"]
    width, height = struct.unpack(">II", drawing.png[16:24])
    box = [float(x) for x in ElementTree.fromstring(drawing.svg).get("viewBox").split()]
    assert width / height == pytest.approx(box[2] / box[3], rel=0.01) and width >= 900


def test_a_hostile_name_is_text_and_a_dollar_is_no_formula():
    texts = _texts(draw(_plot(series(HOSTILE, [(1, 2)]), series("$\\frac{1$", [(1, 3)]))).svg)
    assert any("<script>" in text for text in texts) and "$\\frac{1$" in texts


def test_a_very_long_name_is_cut():
    assert max(map(len, _texts(draw(_plot(series(LONG_WORD, [(1, 2)]))).svg))) < len(LONG_WORD) / 2


def test_a_long_label_of_an_axis_is_wrapped_not_cut():
    label = "mean entropy of the weak side minus the strong side's (nats per token)"
    plot = _plot(series("a", [(1, 2)])) | {"x": {"label": label, "scale": "linear"}}
    assert label in " ".join(" ".join(_texts(draw(plot).svg)).split())


def test_only_the_papers_series_is_dashed():
    dashes = [len(re.findall("stroke-dasharray", draw(_plot(series("a", [(1, 2), (2, 3)], kind))).svg))
              for kind in ("measured", "paper")]
    assert dashes[0] == 0 < dashes[1]


def test_references_differ_in_their_dashes():
    lines = [series(name, [(1, i), (2, i)], "reference") for i, name in enumerate("abcdef")]
    dashes = re.findall(r"stroke-dasharray: ([^;\"]+)", draw(_plot(*lines)).svg)
    assert len(set(dashes)) == 6


def test_intervals_are_drawn():
    bare, barred = (draw(_plot(series("a", [(1, 2), (2, 3)], band=band))).svg for band in (0.0, 0.5))
    assert "LineCollection" in barred and "LineCollection" not in bare


def test_a_doubling_axis_is_marked_at_the_values_of_k():
    texts = _texts(draw(_plot(series("a", [(k, k) for k in (1, 4, 8, 64)]), scale="log2")).svg)
    assert [text for text in texts if text in ("1", "2", "4", "8", "16", "64")][:4] == ["1", "4", "8", "64"]


def test_points_without_a_value_are_left_out():
    gap = {"name": "a", "kind": "measured", "points": [{"x": 1, "y": 2.0}, {"x": 2, "y": None}]}
    assert draw(_plot(gap)).svg == draw(_plot(series("a", [(1, 2.0)]))).svg
    empty = _plot({"name": "a", "kind": "measured", "points": []})
    assert not has_points(empty) and "no points" in _texts(draw(empty).svg)


def test_long_categories_stand_upright():
    short, long = ([f"{word}{i}" for i in range(6)] for word in ("ck-", "official_termnorm_"))
    drawn = [draw(_plot(series("a", [(n, i) for i, n in enumerate(names)]), scale="category")).svg
             for names in (short, long)]
    assert [svg.count("rotate(-90)") for svg in drawn] == [0, 6]


def test_labels_of_points_stand_apart_and_inside():
    from replication.figures import _spread

    assert _spread([0.0, 1.0, 1.01, 1.02], 0.5) == [0.0, 1.0, 1.5, 2.0]
    texts = _texts(draw(ALL["entropy-gap-nats"]).svg)
    assert [texts.count(name) for name in WEAK] == [1] * 5


def test_file_names_are_safe_and_distinct():
    given = [("table9", {"id": "Lambda Curve"}), ("table3", {"id": "lambda-curve"}), ("table3", {"id": "../../etc"}),
             ("table3", {"id": "lambda curve"}), ("theory", {"id": "<>"})]
    names = file_names(given)
    assert names == ["lambda-curve", "table3-lambda-curve", "etc", "table3-lambda-curve-2", "plot"]


def test_two_drawings_share_no_id_on_a_page(drawn):
    both = [inline(drawn["lambda-curve"].svg, prefix, 'a "label"') for prefix in ("one", "two")]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in both]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip(both, ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= own
        ElementTree.fromstring(svg)


def test_a_plot_that_was_drawn_before_is_not_drawn_again(tmp_path, monkeypatch):
    plot = {"id": "p", "title": "t", "x": {"label": "x", "scale": "linear"}, "y": {"label": "y"},
            "series": [{"name": "s", "kind": "measured", "points": [{"x": 1, "y": 2}, {"x": 2, "y": 3}]}]}
    first = figures.drawn(plot, tmp_path)
    monkeypatch.setattr(figures, "draw", lambda plot: pytest.fail("drawn again"))
    assert figures.drawn(plot, tmp_path) == first
    with pytest.raises(pytest.fail.Exception):
        figures.drawn(plot | {"title": "another"}, tmp_path)
