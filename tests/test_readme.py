"""The README's languages say the same, as far as a program can tell."""

import re

import pytest

from helpers import paths

ENGLISH, CHINESE = (
    (paths.ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md")
)


def sections(text):
    return re.split(r"^(?=#+ )", text, flags=re.M)[1:]


def commands(section):
    """Indented lines, without the comment or description behind them."""
    lines = re.findall(r"^ {4,}(.+)$", section, re.M)
    return [re.split(r" {2,}", line.strip())[0] for line in lines]


def tables(section):
    rows = re.findall(r"^\|.*\|$", section, re.M)
    return [(row.count("|"), re.findall(r"^\| ([\d—]*) \|", row)) for row in rows]


def code(section):
    return sorted(set(re.findall(r"`([^`\n]+)`", section)))


def links(section):
    return [x for x in re.findall(r"\]\(([^)]+)\)", section) if "README" not in x]


def test_the_sections_are_the_same():
    levels = [
        [section.split(" ")[0] for section in sections(text)]
        for text in (ENGLISH, CHINESE)
    ]
    assert levels[0] == levels[1]


@pytest.mark.parametrize(
    "what", [commands, tables, code, links], ids=lambda f: f.__name__
)
def test_each_section_has_the_same(what):
    for one, other in zip(sections(ENGLISH), sections(CHINESE)):
        assert what(one) == what(other), one.splitlines()[0]


def test_links_lead_somewhere():
    for target in links(ENGLISH):
        if "://" not in target:
            assert (paths.ROOT / target).exists(), target


def test_the_map_lists_every_notebook():
    known = [
        f"notebooks/{path.name}" for path in sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    ]
    listed = re.findall(r"^\| \d\d \| \[.+?\]\((.+?)\)", ENGLISH, re.M)
    assert listed == known
