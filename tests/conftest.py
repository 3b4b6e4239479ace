"""What several tests share."""

import shutil
import subprocess
import sys

import nbformat
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

import embedded_triton
from helpers import paths


def triton_processes():
    """Servers, stubs and supervisors of this checkout that are running."""
    found = []
    for process in psutil.process_iter(["pid", "exe", "cmdline"]):
        text = " ".join([process.info["exe"] or "", *(process.info["cmdline"] or ())])
        if str(embedded_triton.paths.ENVIRONMENT) in text:
            found.append((process.info["pid"], text[:120]))
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind():
    """No test may leave a server, a Python stub or a supervisor running."""
    before = triton_processes()  # a reader's JupyterLab may have some
    yield
    assert set(triton_processes()) <= set(before)


@pytest.fixture(scope="session")
def artifacts():
    """The folder of artifacts, filled by the notebooks where it is empty."""
    needed = ["resnet50.onnx", "classifier.onnx", "reference.npz", "classifier.json"]
    models = [paths.MODEL_REPOSITORY / "classifier_onnx/1/model.onnx"]
    if not all(x.exists() for x in [*map(paths.ARTIFACTS.joinpath, needed), *models]):
        series = [sys.executable, "-m", "tools.run_series", "01", "05"]
        subprocess.run(series, check=True, cwd=paths.ROOT)
    return paths.ARTIFACTS


@pytest.fixture(scope="session")
def server(artifacts):
    """A server with the classifier."""
    with embedded_triton.start(models=["classifier_onnx"]) as server:
        yield server


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    names = "chromium", "google-chrome"
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


def taught(notebook, line):
    """What the one cell of a notebook that holds this text defines: a namespace."""
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    (source,) = (cell.source for cell in cells if line in cell.source)
    namespace = {}
    exec(source, namespace)
    return namespace


def make_model(
    nodes,
    inputs,
    outputs,
    initializers=(),
    kind=TensorProto.FLOAT,
    opset=17,
    ir_version=8,
):
    """An ONNX model of these nodes; inputs and outputs are lists of (name, dims)."""
    values = [
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in each]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "test", *values, initializers)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def save_model(repository, name, config, model):
    """Put a model and its config into a repository."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    onnx.save(model, repository / name / "1" / "model.onnx")


@pytest.fixture
def doubling_model():
    """An ONNX model that doubles (batch, 4) float32: quick to load, easy to check."""
    return make_model(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        [("x", ["batch", 4])],
        [("y", ["batch", 4])],
        [numpy_helper.from_array(np.float32(2), "two")],
    )


@pytest.fixture
def make_repository(tmp_path, doubling_model):
    """A function that makes a repository of doubling models from their configs."""

    def make(configs):
        for name, config in configs.items():
            save_model(tmp_path, name, config, doubling_model)
        return tmp_path

    return make
