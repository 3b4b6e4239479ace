"""The READMEs say what holds now, and the same, as far as a program can tell."""

import re

import nbformat
import pytest

from helpers import engine, paths
from tools import run_series, write_readme
from tools.lessons import lesson_paths

STALE = "is not what `python -m tools.write_readme` writes"
ENGLISH, CHINESE = (
    (paths.ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md")
)


@pytest.mark.parametrize("path", write_readme.PAGES, ids=lambda path: path.name)
def test_the_numbers_of_a_page_hold(path):
    text = path.read_text()
    assert write_readme.PAGES[path](text) == text, f"{path.name} {STALE}"


def test_the_readmes_are_short():
    for text in ENGLISH, CHINESE:
        assert len(text.splitlines()) <= 100


@pytest.mark.parametrize("path", lesson_paths(), ids=lambda path: path.stem)
def test_the_times_of_a_notebook_hold(path):
    notebook = nbformat.read(path, as_version=4)
    first = write_readme.fill_lesson(path).cells[0].source
    assert first == notebook.cells[0].source, STALE
    measured = write_readme.read_runs()[path.stem]
    assert write_readme.code_digest(notebook) == measured["code"], (
        f"the code changed after its time was measured: "
        f"python -m tools.run_series --in-place {path.stem[:2]}"
    )


def test_the_picture_is_that_of_notebook_07():
    path = paths.NOTEBOOKS / "07_classify_from_a_client.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert run_series.PICTURE.read_bytes() == run_series.read_first_figure(notebook)


def test_its_two_figures_are_those_that_were_measured():
    pytorch = engine.read_recording("pytorch")["latency ms"]
    fast = pytorch["PyTorch FP16, channels last"]["64"]
    ratio = fast / engine.read_recording("resnet50_fp16")["latency ms"]["64"]
    table = (paths.ROOT / "docs" / "benchmark.md").read_text()
    row = r"\| images/s over gRPC / in this process \| ([\d.]+)"
    served = 100 * float(re.search(row, table)[1])
    for text in ENGLISH, CHINESE:
        assert f" {ratio:.1f}" in text and f"  {served:.0f} %" in text


def test_a_time_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="0 times; expected it once"):
        write_readme.replace("a few", "7", "some minutes")
    with pytest.raises(ValueError, match="2 times; expected it once"):
        write_readme.replace("a", "b", "a a")


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="0 tables begin with x"):
        write_readme.fill_table(
            "| a | b |\n| --- | --- |\n| 1 | 2 |\n", "x", [[None, 3]]
        )


def test_a_table_of_other_rows_is_named():
    with pytest.raises(ValueError, match="has 1 rows; expected 2"):
        write_readme.fill_table("| a |\n| --- |\n| 1 |\n", r"\| a", [[2], [3]])


def test_a_table_of_other_columns_is_refused():
    with pytest.raises(ValueError, match="2 cells; expected 1"):
        write_readme.fill_table("| a | b |\n| --- | --- |\n| 1 | 2 |\n", r"\| a", [[3]])


def test_cells_are_replaced_and_kept():
    text = "| a | b | c |\n| --- | --- | --- |\n| x | 1 | |\n| | | 2 |\nafter\n"
    filled = write_readme.fill_table(text, r"\| a", [[None, 3, None], [None] * 3])
    assert filled == text.replace("1", "3")


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


def test_the_map_lists_every_notebook():
    known = [
        f"notebooks/{path.name}" for path in sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    ]
    listed = re.findall(r"^\| \d\d \| \[.+?\]\((.+?)\)", ENGLISH, re.M)
    assert listed == known


def test_a_part_takes_as_long_as_its_lessons():
    left = 0
    for row in re.findall(r"^\| (?:\*\*\d\*\*|\d\d) \|.+$", ENGLISH, re.M):
        _, number, _, _, read, *_ = row.split("|")
        if "*" in number:
            assert left == 0
            left = 2 * int(read)
        left -= int(read)
    assert left == 0
