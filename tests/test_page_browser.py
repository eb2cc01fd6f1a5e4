"""The report page in a real browser: nothing fails, overflows or overlaps, in light, dark, on a phone and in print.

Needs Chromium (`make browser`) and playwright; skipped, with the reason, where either is absent.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest
from conftest import ROOT
from page_results import all_contents, judged_contents

from replication.models import MODELS
from replication.page import write
from replication.page.sections import SECTIONS

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 700}
PAGES = ["tiny", "qwen3-4b", "committed"]
OPEN_ALL = "document.querySelectorAll('details').forEach(part => { part.open = true; })"

# Every rectangle of visible text, clipped by the containers that scroll; two from different texts must not overlap.
OVERLAPS = """(root) => {
  const clip = (element, r) => {
    for (let e = element; e; e = e.parentElement) {
      if (e.classList && e.classList.contains('scroll')) {
        const c = e.getBoundingClientRect();
        r = {left: Math.max(r.left, c.left), right: Math.min(r.right, c.right), top: r.top, bottom: r.bottom};
      }
    }
    return r;
  };
  const boxes = [];
  for (const scope of document.querySelectorAll(root)) {
    const walker = document.createTreeWalker(scope, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!node.data.trim() || ['SCRIPT', 'STYLE', 'TITLE'].includes(parent.tagName)) continue;
      if (!parent.checkVisibility({contentVisibilityAuto: true})) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      for (const raw of range.getClientRects()) {
        const r = clip(parent, raw);
        if (r.right - r.left > 1 && r.bottom - r.top > 1) boxes.push({...{
          left: r.left, right: r.right, top: r.top, bottom: r.bottom}, node, text: node.data.trim().slice(0, 40)});
      }
    }
  }
  boxes.sort((a, b) => a.top - b.top);
  const found = [];
  for (let i = 0; i < boxes.length; i++)
    for (let j = i + 1; j < boxes.length && boxes[j].top < boxes[i].bottom - 2.5; j++) {
      const a = boxes[i], b = boxes[j];
      if (a.node !== b.node && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2)
        found.push([a.text, b.text, Math.round(a.left), Math.round(a.top)]);
    }
  return {boxes: boxes.length, found: found.slice(0, 10)};
}"""

# Visible text whose contrast with what lies behind it is below 4.5 (WCAG AA).
FAINT = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map(x => x / 255)
      .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return getComputedStyle(e).backgroundColor;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = new Set();
  for (const e of document.querySelectorAll('body *:not(script):not(svg):not(svg *)')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.add(`${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 30)}`);
  }
  return [...found].slice(0, 10);
}"""


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of the system."""
    path = os.environ.get("WMSS_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser ({', '.join(BROWSERS)}); install one with `make browser`, or set WMSS_BROWSER")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage", *as_root])
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The page of the made-up tiny results, that of the judged ones, and the committed one."""
    folder = tmp_path_factory.mktemp("results")
    for contents, model in ((all_contents(), "tiny"), (judged_contents(), "qwen3-4b")):
        for name, content in contents.items():
            path = folder / model / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
    made = {model: write(folder, MODELS[model]).page for model in ("tiny", "qwen3-4b")}
    return made | {"committed": ROOT / "results/tiny/report.html"}


@pytest.fixture
def show(browser, files):
    """Open a page; what the browser complains of, loads or asks is kept in `events`."""
    opened = []

    def _show(viewport=DESKTOP, model="tiny", **options):
        page = browser.new_page(viewport=viewport, **options)
        opened.append(page)
        page.events = []
        page.on("console", lambda message: page.events.append(message.text))
        page.on("pageerror", lambda error: page.events.append(str(error)))
        page.on("dialog", lambda dialog: (page.events.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: page.events.append(request.url) if request.url != page.address else None)
        page.address = files[model].as_uri()
        page.goto(page.address)
        return page

    yield _show
    for page in opened:
        page.close()


@pytest.mark.parametrize("model", ["tiny", "committed"])
def test_the_browser_has_nothing_to_complain_of_and_loads_nothing_else(show, model):
    page = show(model=model)
    page.evaluate(OPEN_ALL)
    assert page.events == []


@pytest.mark.parametrize("model", ["tiny", "committed"])
def test_every_section_and_figure_can_be_seen(show, model):
    page = show(model=model)
    for name, section in SECTIONS.items():
        assert section.optional or page.locator(f"section#{name} h2").is_visible(), name
    drawings = len(list((ROOT / "results/tiny/figures").glob("*.svg"))) if model == "committed" else 9
    assert page.locator("figure svg").count() == drawings > 0
    sizes = page.eval_on_selector_all("figure svg", "all => all.map(e => e.getBoundingClientRect().width)")
    assert min(sizes) > 300


@pytest.mark.parametrize("model", PAGES)
@pytest.mark.parametrize("width", [320, 375, 768, 1280, 1920])
def test_the_page_never_scrolls_sideways(show, width, model):
    page = show({"width": width, "height": 800}, model)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("model", PAGES)
def test_no_text_lies_on_another(show, viewport, model):
    page = show(viewport, model)
    page.evaluate(OPEN_ALL)
    result = page.evaluate(OVERLAPS, "body")
    assert result["boxes"] > 500 and result["found"] == []


def test_the_test_of_overlaps_can_fail(show):
    page = show()
    page.add_style_tag(content=".cells .interval { margin-top: -0.9rem; }")
    assert page.evaluate(OVERLAPS, "#table2")["found"] != []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_a_cell_rests_on_can_be_read_without_a_mouse(show, viewport):
    page = show(viewport)
    line = page.locator("#table2 .legend")
    assert line.is_visible() and "n = 200 questions a cell" in line.inner_text()
    page.emulate_media(media="print")
    assert line.is_visible()


def test_a_wide_table_scrolls_under_its_first_column(show):
    page = show(PHONE)
    left = page.evaluate("""() => {
      const box = document.querySelector('#table1 .scroll');
      const [head, cell] = ['tbody th', 'tbody td'].map(s => box.querySelector(s));
      const before = [head, cell].map(e => e.getBoundingClientRect().left);
      box.scrollLeft = 200;
      const after = [head, cell].map(e => e.getBoundingClientRect().left);
      return {box: box.getBoundingClientRect().left, before, after, wide: box.scrollWidth > box.clientWidth};
    }""")
    assert left["wide"]
    assert abs(left["after"][0] - left["before"][0]) <= 1
    assert left["after"][1] == pytest.approx(left["before"][1] - 200, abs=1)


@pytest.mark.parametrize("model", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(show, scheme, model):
    page = show(model=model, color_scheme=scheme)
    page.evaluate(OPEN_ALL)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) > 128) == (scheme == "light")
    assert page.evaluate(FAINT) == []


def test_figures_lie_on_white_also_in_the_dark(show):
    page = show(color_scheme="dark")
    grounds = page.eval_on_selector_all(".card", "all => all.map(e => getComputedStyle(e).backgroundColor)")
    assert set(grounds) == {"rgb(255, 255, 255)"}


def test_it_prints_with_everything_unfolded(show):
    page = show({"width": 1017, "height": 700}, color_scheme="dark")  # A4 across, less its margins
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#table1 details table").is_visible()
    cut = page.eval_on_selector_all("table", """all => all.filter(e => e.checkVisibility()
      && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.closest('section').id)""")
    assert cut == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert not page.locator("#table1 details table").is_visible()
