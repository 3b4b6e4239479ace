"""Numbers in READMEs, docs and notebooks: ``python -m tools.write_readme`` writes them.

They come from the notebooks themselves, from ``embedded_triton.versions`` and from
``recordings/two_cores/``; a test says when they are stale.
"""

import json
import re
import sys
from hashlib import sha256

import nbformat

from embedded_triton import versions
from helpers import machine, paths
from repository_check import servers
from tools import benchmark
from tools.lessons import lesson_paths

RUNS = paths.TWO_CORES / "series.json"

# Silent reading of English non-fiction: Brysbaert 2019, doi 10.1016/j.jml.2019.104047.
WORDS_PER_MINUTE = 238
# Our own estimates, in seconds.
LINE_OF_CODE, LINE_OF_OUTPUT, FIGURE = 3, 1, 20
PICTURE = re.compile(r"!\[(.*?)\]\((.+?)\)")  # its words, and its file

# Rows of a README: a lesson, and a part of the series with the sums of its lessons.
LESSON = re.compile(
    r"^(\| \d\d \| \[.+?\]\(notebooks/(.+?)\.ipynb\) \|[^|]+\|)[^|]*\|[^|]*\|", re.M
)
PART = re.compile(r"^(\| \*\*\d\*\* \|[^|]+\|[^|]+\|)([^|]*)\|([^|]*)\|", re.M)


def minutes_to_read(notebook):
    """Prose, code and outputs of a notebook, to the nearest 5 minutes.

    Args:
        notebook: an ``nbformat`` node.
    """
    seconds = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose, figures = PICTURE.subn("", cell.source)
            seconds += len(prose.split()) * 60 / WORDS_PER_MINUTE + figures * FIGURE
            continue
        seconds += len(cell.source.splitlines()) * LINE_OF_CODE
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                seconds += FIGURE
            else:
                text = output.get("text") or data.get("text/plain", "")
                seconds += len(text.splitlines()) * LINE_OF_OUTPUT
    return max(5, 5 * round(seconds / 300))


def code_digest(notebook):
    """Changes with any code cell, so that a run of other code is known as old."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return sha256("\0".join(cells).encode()).hexdigest()[:16]


def read_runs():
    """What ``record_run`` stored: a dict for each notebook, by its name."""
    return json.loads(RUNS.read_text()) if RUNS.exists() else {}


def record_run(path, notebook, seconds):
    """Store how long a notebook took on this machine."""
    run = {
        "seconds": round(seconds, 1),
        "processor": machine.processor(),
        "code": code_digest(notebook),
    }
    content = dict(sorted({**read_runs(), path.stem: run}.items()))
    RUNS.write_text(json.dumps(content, indent=1) + "\n")


def format_duration(seconds):
    """``40 seconds``, ``2.5 minutes``; rounded up."""
    if seconds <= 90:
        return f"{-10 * (-seconds // 10):.0f} seconds"
    return f"{half_minutes(seconds)} minutes"


def half_minutes(seconds):
    """``2.5``; rounded up."""
    return f"{-(-seconds // 30) / 2:g}"


def replace(pattern, by, text):
    """``re.sub`` for what stands in a text exactly once.

    Raises:
        ValueError: it does not.
    """
    text, found = re.subn(pattern, by, text)
    if found != 1:
        raise ValueError(f"found {pattern!r} {found} times; expected it once")
    return text


def fill_table(text, header, rows):
    """One table of a Markdown text, with the cells of each row that are not None.

    Raises:
        ValueError: there is not one such table, or it has other rows or columns.
    """
    found = list(re.finditer(rf"^{header}.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.M))
    if len(found) != 1:
        raise ValueError(f"{len(found)} tables begin with {header}; expected one")
    lines = found[0][1].splitlines()
    if len(lines) != len(rows):
        raise ValueError(
            f"the table {header} has {len(lines)} rows; expected {len(rows)}"
        )
    table = ""
    for line, new in zip(lines, rows):
        old = line.removeprefix("|").removesuffix("|").split("|")
        if len(old) != len(new):
            raise ValueError(f"{line} has {len(old)} cells; expected {len(new)}")
        cells = [y.strip() if x is None else x for x, y in zip(new, old)]
        table += "|" + "|".join(f" {x} " if x else " " for x in cells) + "|\n"
    return text[: found[0].start(1)] + table + text[found[0].end(1) :]


def fill_part(rows):
    """One part of the table of lessons, with their times and the sums of these."""
    names = [lesson[2] for lesson in LESSON.finditer(rows)]
    files = [paths.NOTEBOOKS / f"{name}.ipynb" for name in names]
    read = [minutes_to_read(nbformat.read(file, as_version=4)) for file in files]
    run = [read_runs()[name]["seconds"] for name in names]
    times = {x: f" {y} | {z:.0f} |" for x, y, z in zip(names, read, run)}
    rows = PART.sub(rf"\g<1> {sum(read)} | {sum(run):.0f} |", rows)
    return LESSON.sub(lambda lesson: lesson[1] + times[lesson[2]], rows)


def fill_readme(text):
    """A README, in either language, with the times that hold now."""
    before, *parts = re.split(r"(?=^\| \*\*\d)", text, flags=re.M)
    text = before + "".join(map(fill_part, parts))
    minutes = half_minutes(float(PART.search(text)[3]))
    pattern = r"(path itself takes |路径本身需要 )[\d.]+( minutes| 分钟)"
    text = replace(pattern, rf"\g<1>{minutes}\2", text)
    stored = [read_runs()[path.stem]["processor"] for path in lesson_paths()]
    machines = "; ".join(sorted(set(stored)))
    return replace(r"`[^`]+ GB of memory`", f"`{machines}`", text)


def fill_versions(text):
    """The page about containers, with the versions that meet in each server."""
    each = (
        (versions.CONTAINER, servers.CONTAINER),
        (versions.EMBEDDED, servers.EMBEDDED),
    )
    rows = [
        [
            None,
            f"`{server.where}`",
            server.triton,
            server.tensorrt or "—",
            reads.onnxruntime,
            reads.ir_version,
            reads.opset,
        ]
        for server, reads in each
    ]
    return fill_table(text, r"\| \| where \| Triton", rows)


def fill_benchmark(text):
    """The page about the benchmark, with what it measured on two cores."""
    measured = json.loads((paths.TWO_CORES / "benchmark.json").read_text())
    ratios = benchmark.summarise(measured["ratios"]).to_numpy()
    rows = [[None, *(f"{x:.2f}" for x in row)] for row in ratios]
    return fill_table(text, r"\| .*ResNet-50", rows)


PAGES = {
    paths.ROOT / "README.md": fill_readme,
    paths.ROOT / "README.zh-CN.md": fill_readme,
    paths.ROOT / "docs" / "gpu_and_docker.md": fill_versions,
    paths.ROOT / "docs" / "benchmark.md": fill_benchmark,
}


def fill_lesson(path):
    """A notebook with its times in **You need**."""
    notebook = nbformat.read(path, as_version=4)
    times = (
        f"{minutes_to_read(notebook)} minutes to read, "
        f"{format_duration(read_runs()[path.stem]['seconds'])} to run"
    )
    first = notebook.cells[0]
    pattern = r"\d+ minutes to read, [\d.]+ \w+ to run"
    first.source = replace(pattern, times, first.source)
    return notebook


def main():
    for path in lesson_paths():
        nbformat.write(fill_lesson(path), path)
    for path, fill in PAGES.items():
        path.write_text(fill(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
