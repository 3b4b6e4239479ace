"""Diagrams are legible at any width that a page gives them, and described in words."""

import re

import nbformat
import pytest

from helpers import paths
from tools import draw_figures, write_readme
from tools.lessons import lesson_paths

FIGURES = sorted((paths.NOTEBOOKS / "figures").glob("*.svg"))
# As the figure asks, and the widest font that a system puts in its place.
FONTS = ["", "text { font-family: 'DejaVu Sans' !important }"]
WIDTHS = [355, 600]  # a phone of 390 pixels, and a diagram's own
OWN_BOX = """
    const ownBox = text => {
        let group = text.parentNode;
        while (!group.querySelector(':scope > rect')) group = group.parentNode;
        return group.querySelector(':scope > rect');
    };"""
MISTAKES = (
    f"() => {{{OWN_BOX}"
    + """
    const box = x => x.getBoundingClientRect();
    const apart = (a, b) => a.right <= b.left || b.right <= a.left
        || a.bottom <= b.top || b.bottom <= a.top;
    const inside = (a, b) => a.left >= b.left && a.right <= b.right
        && a.top >= b.top && a.bottom <= b.bottom;
    const texts = [...document.querySelectorAll('text')];
    const rects = [...document.querySelectorAll('rect')];
    const found = [];
    for (const text of texts) {
        if (!inside(box(text), box(ownBox(text))))
            found.push(`${text.textContent}: leaves its box`);
        for (const rect of rects)
            if (!inside(box(text), box(rect)) && !apart(box(text), box(rect)))
                found.push(`${text.textContent}: crosses an edge`);
        for (const other of texts)
            if (other !== text && !apart(box(text), box(other)))
                found.push(`${text.textContent}: lies over ${other.textContent}`);
    }
    return found;
}"""
)


# How far the darker of two colours is from the lighter, as WCAG 2 defines it.
SMALL_OR_PALE = (
    f"() => {{{OWN_BOX}"
    + """
    const light = colour => {
        const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(x => x / 255)
            .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const fill = x => light(getComputedStyle(x).fill);
    const scale = document.querySelector('svg').getScreenCTM().a;
    const found = [];
    for (const text of document.querySelectorAll('text')) {
        const size = scale * parseFloat(getComputedStyle(text).fontSize);
        if (size < 10) found.push(`${text.textContent}: ${size} pixels`);
        const both = [fill(text), fill(ownBox(text))];
        const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (contrast < 4.5) found.push(`${text.textContent}: contrast ${contrast}`);
    }
    return found;
}"""
)


@pytest.fixture(params=["light", "dark"])
def page(browser, request):
    page = browser.new_page(
        viewport={"width": 1000, "height": 800}, color_scheme=request.param
    )
    yield page
    page.close()


def test_the_figures_are_those_that_the_tool_draws(tmp_path):
    draw_figures.draw(tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in FIGURES}


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("font", FONTS, ids=["own font", "wide font"])
@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_every_text_is_legible_and_stays_in_its_box(page, path, font, width):
    style = f"{font} svg {{ width: {width}px; height: auto }}"
    page.set_content(f"<style>{style}</style>{path.read_text()}")
    assert page.locator("text").count() > 0
    assert not page.evaluate(MISTAKES)
    assert not page.evaluate(SMALL_OR_PALE)


@pytest.mark.slow
def test_a_text_that_leaves_its_box_is_found(page):
    page.set_content(
        '<svg viewBox="0 0 300 90"><rect width="300" height="90"/><g>'
        '<rect x="10" y="10" width="40" height="30"/>'
        '<text x="12" y="30">much too long</text></g></svg>'
    )
    assert page.evaluate(MISTAKES) == [
        "much too long: leaves its box",
        "much too long: crosses an edge",
    ]


@pytest.mark.slow
def test_small_and_pale_texts_are_found(page):
    page.set_content(
        '<svg viewBox="0 0 300 90" width="150"><rect width="300" height="90" '
        'fill="#fff"/><text x="9" y="30" font-size="16" fill="#aaa">x</text></svg>'
    )
    assert [x[:11] for x in page.evaluate(SMALL_OR_PALE)] == [
        "x: 8 pixels",
        "x: contrast",
    ]


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_a_figure_says_in_words_what_it_shows(path):
    for name in "title", "desc":
        (text,) = re.findall(rf"<{name} .*?>(.+?)</{name}>", path.read_text())
        assert len(text.split()) > 3


def test_the_lessons_on_the_path_are_those_that_there_are():
    texts = re.findall(
        r">(?:check )?(\d\d)<", (FIGURES[0].parent / "path.svg").read_text()
    )
    assert texts and set(texts) <= {path.stem[:2] for path in lesson_paths()}


def test_every_picture_in_a_text_has_words_in_its_place():
    texts = {path.name: path.read_text() for path in paths.ROOT.glob("*.md")}
    texts |= {
        path.name: path.read_text() for path in (paths.ROOT / "docs").glob("*.md")
    }
    for path in lesson_paths():
        cells = nbformat.read(path, as_version=4).cells
        texts[path.name] = "\n".join(
            cell.source for cell in cells if cell.cell_type == "markdown"
        )
    pictures = [
        (name, *picture)
        for name, text in texts.items()
        for picture in write_readme.PICTURE.findall(text)
    ]
    for name, words, target in pictures:
        assert len(words.split()) > 3 or re.search("[一-鿿]", words), (name, target)
    shown = {target.rpartition("/")[2] for _, _, target in pictures}
    assert {path.name for path in FIGURES} <= shown


def test_every_figure_that_a_cell_draws_has_words_in_its_place():
    for path in sorted(paths.NOTEBOOKS.rglob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            drawn = any(
                "image/png" in x.get("data", ()) for x in cell.get("outputs", ())
            )
            words = cell.metadata.get("alt", "").split()
            assert drawn == (len(words) > 5), (path.name, cell.source)
