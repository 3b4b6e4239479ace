"""Diagrams are legible in any reader's font, and say in words what they show."""

import re

import nbformat
import pytest

from helpers import paths
from tools.lessons import lesson_paths

FIGURES = sorted((paths.NOTEBOOKS / "figures").glob("*.svg"))
# As the figure asks, and the widest font that a system puts in its place.
FONTS = ["", "text { font-family: 'DejaVu Sans' !important }"]
MISTAKES = """() => {
    const box = x => x.getBoundingClientRect();
    const apart = (a, b) => a.right <= b.left || b.right <= a.left
        || a.bottom <= b.top || b.bottom <= a.top;
    const inside = (a, b) => a.left >= b.left && a.right <= b.right
        && a.top >= b.top && a.bottom <= b.bottom;
    const texts = [...document.querySelectorAll('text')];
    const rects = [...document.querySelectorAll('rect')];
    const found = [];
    for (const text of texts) {
        let group = text.parentNode;
        while (!group.querySelector(':scope > rect')) group = group.parentNode;
        if (!inside(box(text), box(group.querySelector(':scope > rect'))))
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


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    yield page
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("font", FONTS, ids=["own font", "wide font"])
@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_every_text_stays_in_its_box(page, path, font):
    page.set_content(f"<style>{font}</style>{path.read_text()}")
    assert page.locator("text").count() > 0
    assert not page.evaluate(MISTAKES)


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
@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_a_figure_is_described_and_not_too_wide(page, path):
    page.goto(path.as_uri())
    for name in "title", "desc":
        assert page.evaluate(f"document.querySelector('svg > {name}').textContent")
    assert page.evaluate("document.documentElement.viewBox.baseVal.width") <= 1000


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
        for picture in re.findall(r"!\[(.*?)\]\((.+?)\)", text)
    ]
    for name, words, target in pictures:
        assert len(words.split()) > 3 or re.search("[一-鿿]", words), (name, target)
    shown = {target.rpartition("/")[2] for _, _, target in pictures}
    assert {path.name for path in FIGURES} <= shown
