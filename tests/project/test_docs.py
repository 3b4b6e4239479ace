"""What the pages of the project name is there, and is called so."""

import json
import re
from hashlib import sha256
from importlib.metadata import distributions

import pytest

from embedded_triton import versions
from helpers import paths
from tools.lessons import lesson_paths

DOCS = paths.ROOT / "docs"
PAGES = [
    *paths.ROOT.glob("*.md"),
    *sorted(DOCS.glob("*.md")),
    *paths.ROOT.glob("recordings/*.md"),
]
ROOMS = (
    "deploy|docs|embedded_triton|helpers|notebooks|recordings|repository_check|tests"
)


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request):
    return request.param


def code(text):
    """What stands between backticks, and indented lines."""
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4,}(\S.+)$", text, re.M)


def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_files_are_where_a_page_says(page):
    pattern = rf"(?:^|\s)((?:{ROOMS})/[\w./-]+)(?:\s|$)"
    for span in code(page.read_text()):
        for name in re.findall(pattern, span):
            assert (paths.ROOT / name).exists(), name


def test_commands_are_those_that_there_are(page):
    makefile = (paths.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for span in code(page.read_text()):
        assert set(re.findall(r"\bmake ([a-z-]+)", span)) <= targets, span
        for module in re.findall(r"(?:-m |^)(tools[.\w]*|repository_check)\b", span):
            name = paths.ROOT / module.replace(".", "/")
            assert name.with_suffix(".py").exists() or name.is_dir(), module


def test_versions_are_the_pins():
    files = [paths.ROOT / f"requirements{x}.txt" for x in ("", "-dev", "-server")]
    pins = set()
    for file in files:
        pins |= set(re.findall(r"^([\w.-]+)==([\w.]+)", file.read_text(), re.M))
    models = json.loads((paths.ROOT / "tests/data/kserve_models.json").read_text())
    pins.add(tuple(models["source"].split("-")[:2]))
    text = "\n".join(page.read_text() for page in PAGES)
    named = re.findall(r"`([a-z-]+)`\s(\d[\d.]+\d)", text)
    assert named and set(named) <= pins


def test_the_container_is_named_once_in_the_table_and_once_in_the_command():
    text = (DOCS / "gpu_and_docker.md").read_text()
    assert re.findall(r"nvcr\.io/[^\s`]+", text) == [versions.CONTAINER.where] * 2


def test_every_setting_is_explained():
    packages = "helpers", "embedded_triton"
    files = [x for y in packages for x in (paths.ROOT / y).rglob("*.py")]
    files += lesson_paths()
    used = {x for y in files for x in re.findall(r"TUTORIAL_[A-Z]+", y.read_text())}
    explained = re.findall(r"^\| `(\w+)`", (DOCS / "settings.md").read_text(), re.M)
    assert set(explained) == used


def test_the_licence_is_the_unmodified_text():
    """The hash is that of www.apache.org/licenses/LICENSE-2.0.txt."""
    found = sha256((paths.ROOT / "LICENSE").read_bytes()).hexdigest()
    assert found.startswith("cfc7749b96f63bd31c3c42b5c471bf75")


def test_every_package_that_is_not_free_is_named():
    text = (DOCS / "licences.md").read_text()
    pinned = (paths.ROOT / "requirements.txt").read_text()
    for package in distributions():
        about = package.metadata
        licence = about.get("License-Expression") or about.get("License") or ""
        short = licence.partition("\n")[0]
        if "proprietary" in short.lower() and f"\n{package.name}==" in pinned:
            assert f"`{package.name}` " in text or f"`{package.name}`," in text
            assert f"| {short} |" in text


def test_pictures_have_their_sources():
    from helpers.images import SAMPLES

    text = (DOCS / "licences.md").read_text()
    for name, (_, source) in SAMPLES.items():
        assert all(part in text for part in (name, *source.split(", ")))
