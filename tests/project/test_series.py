"""``make run``: the series from one end to the other, and what a failure looks like."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
import tritonclient.grpc as grpcclient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

import embedded_triton
from conftest import started
from helpers import classifiers, parity, paths
from tools import run_series as series


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project that writes to folders of its own."""
    packages = "tools", "helpers", "embedded_triton", "repository_check"
    for name in *packages, "notebooks", "model_repository", "recordings":
        ignore = shutil.ignore_patterns("model.onnx", "__pycache__")
        shutil.copytree(paths.ROOT / name, tmp_path / name, ignore=ignore)
    (tmp_path / ".venv-triton").symlink_to(embedded_triton.paths.ENVIRONMENT)
    return tmp_path


def run(checkout, *arguments, **variables):
    """Run a module of Python in a checkout."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), **variables},
        capture_output=True,
        text=True,
    )


def run_series(checkout, *arguments, **variables):
    return run(checkout, "tools.run_series", *arguments, **variables)


def write_lesson(checkout, name, *sources):
    """The only lesson of a checkout, of these cells."""
    shutil.rmtree(checkout / "notebooks", ignore_errors=True)
    (checkout / "notebooks").mkdir()
    cells = [nbformat.v4.new_markdown_cell("# 01 · A lesson")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, checkout / "notebooks" / name)


def test_an_output_is_stored_without_paths_of_this_machine():
    new = nbformat.v4.new_output
    printed = new("stream", text=f"in {paths.ROOT}/artifacts\n")
    assert series.tidy(printed).text == "in artifacts\n"
    frames = [f"File {paths.ROOT}/x.py", "ValueError: no"]
    value = f"no {paths.ROOT}/x"
    error = series.tidy(
        new("error", ename="ValueError", evalue=value, traceback=frames)
    )
    assert error.traceback == ["ValueError: no x"]


def test_a_frame_of_a_server_that_ends_with_the_kernel_is_not_stored():
    new = nbformat.v4.new_output
    frame = {"text/html": '<iframe src="http://127.0.0.1:1"></iframe>'}
    assert not series.is_lasting(new("display_data", data=frame))
    assert not series.is_lasting(new("stream", name="stderr", text="a warning"))
    assert series.is_lasting(new("display_data", data={"text/html": "<table>"}))
    assert series.is_lasting(new("stream", text="<iframe"))


def test_the_first_figure_of_several_is_read():
    figures = [
        nbformat.v4.new_output("display_data", data={"image/png": data})
        for data in ("b25l", "dHdv")
    ]
    cell = nbformat.v4.new_code_cell(outputs=figures)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert series.read_first_figure(notebook) == b"one"


def test_a_page_links_to_the_other_pages(monkeypatch, tmp_path):
    monkeypatch.setattr(series, "EXECUTED", tmp_path)
    text = "[next](02_add.ipynb), [solution](solutions/01_add.ipynb)"
    cells = [nbformat.v4.new_markdown_cell(text)]
    series.write_executed(nbformat.v4.new_notebook(cells=cells), "01_x")
    page = (tmp_path / "01_x.html").read_text()
    assert 'href="02_add.html"' in page
    assert 'href="../../notebooks/solutions/01_add.ipynb"' in page


def test_the_lessons_ask_what_they_asked_when_they_were_stored(monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", "resnet50")
    monkeypatch.setenv("TUTORIAL_TRITON", "docker")
    series.answer_as_stored()
    assert os.environ["TUTORIAL_MODEL"] == "efficientnet_lite0"
    assert "TUTORIAL_TRITON" not in os.environ


def test_what_cannot_run_here_is_not_stored_in_place(monkeypatch, capsys, tmp_path):
    def fail(path):
        raise CellExecutionError("", "NoServerError", "no server here")

    monkeypatch.setattr(series, "EXECUTED", tmp_path)
    monkeypatch.setattr(series, "answer_as_stored", lambda: None)
    monkeypatch.setattr(series, "execute", fail)
    monkeypatch.setattr(sys, "argv", ["run_series", "--in-place", "00"])
    assert series.main() == 1
    assert "NoServerError: no server here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.server
def test_resnet50_goes_the_whole_way_with_a_checkpoint(checkout):
    torch.manual_seed(1)
    state = torchvision.models.resnet50(weights=None).state_dict()
    torch.save(state, checkout / "mine.pth")
    variables = {
        "TUTORIAL_MODEL": "resnet50",
        "TUTORIAL_WEIGHTS": str(checkout / "mine.pth"),
    }
    result = run_series(checkout, "01", "05", "07", **variables)
    assert result.returncode == 0, result.stderr
    assert (
        '"weights": "trained weights (mine.pth)"'
        in (checkout / "artifacts/classifier.json").read_text()
    )
    rows = (checkout / "artifacts/predictions.csv").read_text().splitlines()
    assert rows[0] == "picture,prediction,probability" and len(rows) == 9
    assert (checkout / "artifacts/executed/07_classify_from_a_client.html").exists()


@pytest.mark.slow
@pytest.mark.server
def test_resnet50_with_seeded_weights_is_exported_proved_and_served(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(classifiers, "resnet50_checkpoint", lambda: None)
    module, classifier = classifiers.resnet50()
    assert not classifier.trained
    folder = tmp_path / "resnet50" / "1"
    folder.mkdir(parents=True)
    for file in (paths.MODEL_REPOSITORY / "resnet50").glob("*.*"):
        shutil.copy(file, folder.parent)
    torch.onnx.export(
        module,
        (torch.randn(2, 3, 224, 224),),
        folder / "model.onnx",
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        opset_version=20,
        external_data=False,
        verbose=False,
    )
    images = np.random.default_rng(0).standard_normal((3, 3, 224, 224), np.float32)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    with (
        started(tmp_path) as server,
        grpcclient.InferenceServerClient(server.grpc) as client,
    ):
        for size in 1, 3:
            batch = images[:size]
            with torch.inference_mode():
                reference = module(torch.from_numpy(batch)).numpy()
            (logits,) = session.run(None, {"input": batch})
            assert parity.compare(reference, logits)["relative L2"] < 1e-5
            tensor = grpcclient.InferInput("input", batch.shape, "FP32")
            tensor.set_data_from_numpy(batch)
            served = client.infer("resnet50", [tensor]).as_numpy("logits")
            assert np.array_equal(served, logits)


def test_a_failing_notebook_names_its_cell_and_error(checkout):
    write_lesson(checkout, "01_fail.ipynb", "wanted = 1\nwanted / 0")
    result = run_series(checkout)
    assert result.returncode == 1
    assert "01_fail.ipynb failed in the cell" in result.stderr
    assert "wanted / 0" in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr


def test_a_cell_that_does_not_end_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(series, "CELL_TIMEOUT", 1)
    monkeypatch.setattr(series, "EXECUTED", tmp_path)
    write_lesson(tmp_path, "01_wait.ipynb", "import time; time.sleep(15)")
    with pytest.raises(CellTimeoutError):
        series.execute(tmp_path / "notebooks/01_wait.ipynb")


ON_A_MAC = """\
import platform

platform.system, platform.machine = lambda: "Darwin", lambda: "arm64"
platform.libc_ver = lambda: ("", "")
import embedded_triton

embedded_triton.start(models=[])"""


def test_a_lesson_without_a_server_is_shown_as_stored_and_the_next_one_runs(checkout):
    write_lesson(checkout, "01_serve.ipynb", ON_A_MAC, "1 / 0")
    shutil.copy(checkout / "notebooks/01_serve.ipynb", checkout / "01_serve.ipynb")
    noise = "import sys; print('noise', file=sys.stderr)"
    write_lesson(checkout, "02_add.ipynb", f"{noise}\n1 + 1")
    shutil.move(checkout / "01_serve.ipynb", checkout / "notebooks")
    result = run_series(checkout)
    assert result.returncode == 0, result.stderr
    first, second, *_ = result.stdout.splitlines()
    assert re.match(r"01_serve +as stored: the embedded server needs Linux", first)
    assert re.match(r"02_add +\d+ s", second)
    executed = checkout / "artifacts/executed"
    notebook = nbformat.read(executed / "02_add.ipynb", as_version=4)
    (output,) = notebook.cells[1].outputs  # what libraries log is left out
    assert output.data["text/plain"] == "2"
    index = (executed / "index.html").read_text()
    assert "02_add.html" in index and "01_serve.html" in index


def test_nbval_skips_the_rest_of_a_lesson_without_a_server(checkout):
    write_lesson(checkout, "01_serve.ipynb", "1 + 1;", ON_A_MAC, "1 / 0")
    for name in "conftest.py", "pyproject.toml":
        shutil.copy(paths.ROOT / name, checkout)
    (checkout / "tests/data").mkdir(parents=True)
    sanitize = "tests/data/nbval_sanitize.cfg"
    shutil.copy(paths.ROOT / sanitize, checkout / sanitize)
    result = run(checkout, "pytest", "--nbval", "notebooks")
    assert "1 passed, 2 skipped" in result.stdout, result.stdout
    reason = "the embedded server needs Linux on x86-64"
    assert re.search(rf"SKIPPED \[\d\].*: {reason}", result.stdout)


def test_an_unknown_number_is_refused(checkout):
    result = run_series(checkout, "77")
    assert result.returncode != 0
    assert "no notebook 77; there are 00, 01" in result.stderr
