"""Run the notebooks in order: ``python -m helpers.run_series [--in-place]``.

Writes executed copies, an HTML page for each and an index to ``artifacts/executed/``,
and prints the predictions that came back from the server. With ``--in-place`` the
outputs go into the notebooks themselves instead, for who changes a lesson.
"""

import argparse
import os
import re
import sys
import time

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from helpers import paths

EXECUTED = paths.ARTIFACTS / "executed"
CELL_TIMEOUT = 300  # seconds
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>PyTorch to Triton</title>
<style>body {{ font: 16px/1.6 sans-serif; margin: 3em auto; max-width: 40em }}</style>
<h1>PyTorch to Triton</h1>
<p>Executed on this machine, {when}.</p>
<ul>
{items}
</ul>
</html>
"""


def lessons():
    """Paths of the notebooks, in order."""
    return sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))


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
    with (EXECUTED / f"{path.stem}.log").open("wb") as log:
        client.execute(stdout=log, stderr=log)  # what libraries print past the notebook
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [tidy(x) for x in cell.outputs if x.get("name") != "stderr"]
    return notebook


def tidy(output):
    """Take the paths of this machine out of an output, with a traceback's frames."""
    root = f"{paths.ROOT}/"
    if output.output_type == "error":
        output.evalue = output.evalue.replace(root, "")
        output.traceback = [f"{output.ename}: {output.evalue}"]
    elif output.output_type == "stream":
        output.text = output.text.replace(root, "")
    return output


def title(notebook):
    """The first heading: ``03 · Build a TensorRT engine``."""
    return re.match(r"# (.+)", notebook.cells[0].source)[1]


def report_failure(path, error):
    """Say which cell failed and how, for a person at a terminal."""
    number = re.search(r"------------------\n(.*?)\n------------------", str(error), re.S)
    print(f"\n{path.name} failed in the cell\n", file=sys.stderr)
    print((number[1] if number else str(error)).strip(), file=sys.stderr)
    print(f"\n{error.ename}: {error.evalue}", file=sys.stderr)


def write_html(notebook, name):
    """Write the executed notebook and its page; links lead to the other pages."""
    nbformat.write(notebook, EXECUTED / f"{name}.ipynb")
    page, _ = HTMLExporter().from_notebook_node(notebook)
    page = re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', page)
    (EXECUTED / f"{name}.html").write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--in-place", action="store_true", help="store the outputs in the notebooks"
    )
    in_place = parser.parse_args().in_place
    if in_place:  # the classifier of the stored outputs, on every machine
        os.environ["TUTORIAL_MODEL"] = "efficientnet_lite0"
    EXECUTED.mkdir(parents=True, exist_ok=True)
    items = []
    for path in lessons():
        print(f"{path.stem:<30}", end="", flush=True)
        begin = time.monotonic()
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            report_failure(path, error)
            return 1
        seconds = time.monotonic() - begin
        print(f"{seconds:5.0f} s")
        if in_place:
            nbformat.write(notebook, path)
        else:
            write_html(notebook, path.stem)
            items.append(
                f'<li><a href="{path.stem}.html">{title(notebook)}</a>, {seconds:.0f} s'
            )
    if not in_place:
        index = EXECUTED / "index.html"
        when = time.strftime("%d %B %Y, %H:%M")
        index.write_text(PAGE.format(when=when, items="\n".join(items)))
        print("\nPredictions that came back from Triton:\n")
        predictions = pd.read_csv(paths.artifact("predictions.csv"))
        print(predictions.to_string(index=False))
        print(f"\nThe executed notebooks: {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
