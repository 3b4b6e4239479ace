"""The site that ``make site`` builds: links, search and copying, without a network."""

import re
import subprocess
import sys
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup

from helpers import paths
from tools.lessons import lesson_paths

pytestmark = pytest.mark.slow
LESSONS = [path.stem for path in lesson_paths()]
DOCS = [f"docs/{path.stem}" for path in (paths.ROOT / "docs").glob("*.md")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the site, built as the Makefile builds it."""
    folder = tmp_path_factory.mktemp("site")
    makefile = (paths.ROOT / "Makefile").read_text()
    (command,) = re.findall(r"^\t\.venv/bin/sphinx-build (.+)$", makefile, re.M)
    arguments = command.replace("artifacts/site", str(folder)).split()
    build = [sys.executable, "-m", "sphinx", *arguments]
    subprocess.run(build, cwd=paths.ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The parsed pages, by path."""
    return {
        path: BeautifulSoup(path.read_text(), "html.parser")
        for path in sorted(site.rglob("*.html"))
    }


@pytest.fixture
def page(browser):
    """A page that must not ask for anything but files."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    outside = [url for url in asked if not url.startswith(("file:", "data:"))]
    assert not outside


def test_has_every_lesson_and_solution(pages, site):
    found = {str(path.relative_to(site)) for path in pages}
    notebooks = paths.NOTEBOOKS.rglob("[0-9]*.ipynb")
    expected = {path.relative_to(paths.ROOT).with_suffix(".html") for path in notebooks}
    assert set(map(str, expected)) <= found
    pages = "index", "README.zh-CN", *DOCS
    assert {f"{name}.html" for name in pages} <= found


def test_links_lead_somewhere(pages, site):
    ids = {
        path: {x["id"] for x in page.find_all(id=True)} for path, page in pages.items()
    }
    for path, page in pages.items():
        for link in page.find_all(["a", "link", "script", "img"]):
            target = link.get("href") or link.get("src") or "#"
            if re.match(r"[a-z]+:", target):
                assert link.name == "a" or target.startswith("data:"), (path, target)
                continue
            name, _, anchor = target.partition("#")
            to = path
            if name:
                to = (path.parent / unquote(name).partition("?")[0]).resolve()
            assert to.exists(), (path, target)
            if anchor and to in ids:
                assert unquote(anchor) in ids[to], (path, target)


def test_the_contents_and_the_next_page(page, site):
    page.goto(f"{site.as_uri()}/index.html")
    contents = page.locator(".sidebar-tree")
    listed = contents.locator("a").evaluate_all("all => all.map(x => x.href)")
    for name in [*(f"notebooks/{x}" for x in LESSONS), *DOCS]:
        assert f"{site.as_uri()}/{name}.html" in listed
    contents.get_by_text("01 · Export to ONNX").click()
    page.wait_for_url("**/01_export_to_onnx.html")
    page.locator("a.next-page").click()
    page.wait_for_url("**/02_validate_onnx.html")
    page.locator("a.prev-page").click()
    page.wait_for_url("**/01_export_to_onnx.html")


def test_search_finds_a_word(page, site):
    page.goto(f"{site.as_uri()}/index.html")
    page.locator("input.sidebar-search").fill("calibration")
    page.keyboard.press("Enter")
    results = page.locator("#search-results li a")
    results.filter(has_text="09 · Quantise to INT8").first.wait_for()


def test_a_cell_is_copied(page, site):
    page.goto(f"{site.as_uri()}/notebooks/01_export_to_onnx.html")
    cell = page.locator(".cell_input", has_text="def preprocess(").first
    cell.hover()
    cell.locator("button.copybtn").click()
    page.locator("input.sidebar-search").focus()
    page.keyboard.press("Control+v")
    copied = page.locator("input.sidebar-search").input_value()
    assert copied.startswith("# copyable") and "def preprocess(" in copied


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_no_page_is_wider_than_the_window(page, site, scheme, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    lessons = [f"notebooks/{x}" for x in LESSONS]
    for name in ["index", "README.zh-CN", *DOCS, *lessons]:
        page.goto(f"{site.as_uri()}/{name}.html")
        wide = page.evaluate(
            """() => [...document.querySelectorAll('html, .content')]
                .map(x => x.scrollWidth - x.clientWidth)"""
        )
        assert len(wide) == 2 and max(wide) <= 1, name
    bright = page.evaluate(
        """() => getComputedStyle(document.body).backgroundColor
            .match(/\\d+/g).reduce((x, y) => x + +y, 0)"""
    )
    assert (bright < 200) == (scheme == "dark")
