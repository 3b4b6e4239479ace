"""Run the notebooks in order: ``python -m tools.run_series [--in-place] [01 ...]``.

Writes executed copies, an HTML page for each and an index to ``artifacts/executed/``,
and prints the predictions that came back from the server. A lesson that this kind of
machine cannot run is shown with the outputs that are stored in it. With ``--in-place``
the outputs go into the notebooks themselves, for those who change a lesson.
"""

import argparse
import os
import re
import sys
import time
from base64 import b64decode

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbconvert import HTMLExporter

from embedded_triton import NoServerError
from helpers import paths
from helpers.machine import NoTensorRTError
from tools import write_readme
from tools.lessons import lesson_paths

EXECUTED = paths.ARTIFACTS / "executed"
PREDICTING = "07_classify_from_a_client"
PICTURE = paths.ROOT / "docs" / "predictions.png"
CELL_TIMEOUT = 300  # seconds
NOT_HERE = {x.__name__ for x in (NoServerError, NoTensorRTError)}  # skip the lesson
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>PyTorch to Triton</title>
<style>body {{ font: 16px/1.6 sans-serif; margin: 3em auto; max-width: 40em }}</style>
<h1>PyTorch to Triton</h1>
<p>Executed on this machine, the last on {when}.</p>
<ul>
{items}
</ul>
</html>
"""


def answer_as_stored():
    """Make the notebooks ask what they asked when their outputs were stored."""
    os.environ["TUTORIAL_MODEL"] = "efficientnet_lite0"  # the same on every machine
    os.environ.pop("TUTORIAL_TRITON", None)  # they stop the server that they ask


def lessons(numbers=()):
    """Paths of the notebooks in order: all of them, or those with these numbers.

    Raises:
        FileNotFoundError: there is no notebook with such a number.
    """
    every = {path.stem[:2]: path for path in lesson_paths()}
    if unknown := set(numbers) - set(every):
        raise FileNotFoundError(
            f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(every)}"
        )
    return [path for number, path in every.items() if not numbers or number in numbers]


def log_path(path):
    """What libraries print past the notebook goes to this file."""
    return EXECUTED / f"{path.stem}.log"


def execute(path):
    """Run one notebook in a fresh kernel.

    Returns:
        The executed notebook, without the metadata of the run.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised that is not meant to.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
    )
    with log_path(path).open("wb") as log:
        client.execute(stdout=log, stderr=log)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [tidy(x) for x in cell.outputs if is_lasting(x)]
    return notebook


def is_lasting(output):
    """Neither a library's warning nor a frame of a server that ends with the kernel."""
    frame = "<iframe" in output.get("data", {}).get("text/html", "")
    return not frame and output.get("name") != "stderr"


def tidy(output):
    """Take the paths of this machine out of an output, with a traceback's frames."""
    root = f"{paths.ROOT}/"
    if output.output_type == "error":
        output.evalue = output.evalue.replace(root, "")
        output.traceback = [f"{output.ename}: {output.evalue}"]
    elif output.output_type == "stream":
        output.text = output.text.replace(root, "")
    return output


def read_title(notebook):
    """The first heading: ``03 · Build a TensorRT engine``."""
    return re.match(r"# (.+)", notebook.cells[0].source)[1]


def report_failure(path, error):
    """Say which cell failed and how, for a person at a terminal."""
    cell = re.search(r"-{18}\n(.*?)\n-{18}", str(error), re.S)
    print(f"\n{path.name} failed in the cell\n", file=sys.stderr)
    print(cell[1].strip() if cell else error, file=sys.stderr)
    if isinstance(error, CellExecutionError):
        print(f"\n{error.ename}: {error.evalue}", file=sys.stderr)
    print(f"\nWhat libraries printed: {log_path(path)}", file=sys.stderr)


def write_executed(notebook, name):
    """Write the executed notebook and its page; links lead to the other pages."""
    nbformat.write(notebook, EXECUTED / f"{name}.ipynb")
    page, _ = HTMLExporter().from_notebook_node(notebook)
    page = re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', page)
    page = page.replace('href="solutions/', 'href="../../notebooks/solutions/')
    (EXECUTED / f"{name}.html").write_text(page)


def write_index():
    """Write the page that links all lessons executed so far; return its path."""
    items = []
    for path in lesson_paths():
        executed = EXECUTED / path.name
        if executed.exists():
            heading = read_title(nbformat.read(executed, as_version=4))
            items.append(f'<li><a href="{path.stem}.html">{heading}</a>')
    when = time.strftime("%d %B %Y, %H:%M")
    index = EXECUTED / "index.html"
    index.write_text(PAGE.format(when=when, items="\n".join(items)))
    return index


def read_first_figure(notebook):
    """PNG file of the notebook's first figure; that of 07 is the README's picture."""
    figures = [
        output.data["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", ())
    ]
    return b64decode(figures[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--in-place", action="store_true", help="store the outputs in the notebooks"
    )
    parser.add_argument("numbers", nargs="*", help="such as 01 02; all without any")
    arguments = parser.parse_args()
    in_place = arguments.in_place
    if in_place:
        answer_as_stored()
    EXECUTED.mkdir(parents=True, exist_ok=True)
    classified = False
    for path in lessons(arguments.numbers):
        print(f"{path.stem:<30}", end="", flush=True)
        begin = time.monotonic()
        try:
            notebook = execute(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            if getattr(error, "ename", None) in NOT_HERE and not in_place:
                print(f" as stored: {error.evalue}")
                write_executed(nbformat.read(path, as_version=4), path.stem)
                continue
            report_failure(path, error)
            return 1
        seconds = time.monotonic() - begin
        print(f"{seconds:5.0f} s")
        if in_place:
            write_readme.record_run(path, notebook, seconds)
            nbformat.write(notebook, path)
            for solution in path.parent.glob(f"solutions/{path.stem[:2]}_*.ipynb"):
                nbformat.write(execute(solution), solution)
            if path.stem == PREDICTING:
                PICTURE.write_bytes(read_first_figure(notebook))
        else:
            write_executed(notebook, path.stem)
            classified |= path.stem == PREDICTING
    if in_place:
        write_readme.main()
        return 0
    if classified:
        print("\nPredictions that came back from Triton:\n")
        print(pd.read_csv(paths.artifact("predictions.csv")).to_string(index=False))
    print(f"\nThe executed notebooks: {write_index()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
