"""The glossary and the words in bold, where the notebooks explain them, agree."""

import re

import nbformat

from helpers import paths
from tools.lessons import lesson_paths

GLOSSARY = paths.ROOT / "docs" / "glossary.md"
ROW = re.compile(
    r"^\| ([^|]+) \| ([^|]+) \| \[(\d\d)\]\(\.\./notebooks/(.+?)\) \|$", re.M
)
# In bold for their weight.
NO_TERMS = {
    "You will",
    "You need",
    "business logic scripting",  # under BLS
    "No container and no cluster ran here",
}


def same(word, term):
    """Whether a word in bold is this term, or its plural."""
    return word.removeprefix("the ") in (term.casefold(), f"{term.casefold()}s")


def bold():
    """Words in bold, by the name of the notebook."""
    found = {}
    for path in lesson_paths():
        cells = nbformat.read(path, as_version=4).cells
        prose = "\n".join(x.source for x in cells if x.cell_type == "markdown")
        words = re.findall(r"\*\*([^*]+)\*\*", prose)
        found[path.name] = [x.casefold() for x in words if x not in NO_TERMS]
    return found


def test_every_term_is_explained_where_the_glossary_says():
    explained = bold()
    for term, _, number, name in ROW.findall(GLOSSARY.read_text()):
        assert name.startswith(number)
        assert any(same(word, term) for word in explained[name]), term


def test_every_explained_word_is_in_the_glossary():
    terms = [term for term, *_ in ROW.findall(GLOSSARY.read_text())]
    for name, words in bold().items():
        for word in words:
            assert any(same(word, term) for term in terms), (name, word)


def test_a_word_is_explained_once():
    seen = {}
    for name, words in bold().items():
        for word in words:
            assert word not in seen, f"{word}: in {seen.get(word)} and {name}"
            seen[word] = name


def test_the_terms_are_in_order():
    text = GLOSSARY.read_text()
    terms = [term.casefold() for term, *_ in ROW.findall(text)]
    assert len(terms) == text.count("\n| ") - 2  # less the head of the table
    assert terms == sorted(set(terms))
