"""What several tests share."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import onnx
import psutil
import pytest
import tritonclient.http as httpclient
from filelock import FileLock
from google.protobuf import json_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import triton_to_np_dtype

import embedded_triton
from embedded_triton import installation
from helpers import paths, triton_config
from helpers.null_model import write_null_model

NEEDS_A_SERVER = {"artifacts", "server", "null_server"}  # the first runs 05, which does


def pytest_collection_modifyitems(items):
    """Mark a test by the fixtures that it uses: ``make check`` leaves these out."""
    for item in items:
        if NEEDS_A_SERVER & set(item.fixturenames):
            item.add_marker("server")
        if "browser" in item.fixturenames:
            item.add_marker("slow")


def triton_processes():
    """Servers, stubs and supervisors of this checkout that these tests started.

    Tests may run in several processes (pytest-xdist), each with a variable of its own,
    which what it starts inherits.
    """
    found = []
    for process in psutil.process_iter(["pid", "exe", "cmdline", "environ"]):
        text = " ".join([process.info["exe"] or "", *(process.info["cmdline"] or ())])
        worker = (process.info["environ"] or {}).get("PYTEST_XDIST_WORKER")
        ours = worker == os.environ.get("PYTEST_XDIST_WORKER")
        if ours and str(embedded_triton.paths.ENVIRONMENT) in text:
            found.append((process.info["pid"], text[:120]))
    return found


@contextmanager
def started(*arguments, **options):
    """A server for a test that is not about stopping: killed at the end.

    A stop takes 2 to 3 seconds: Triton's Python backend sleeps for one before it ends a
    stub, and the server looks once a second whether all models are gone.
    """
    server = embedded_triton.start(*arguments, **options)
    try:
        yield server
    finally:
        if server.pid:
            os.kill(server.pid, signal.SIGKILL)
        server.stop()


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind():
    """No test may leave a server, a Python stub or a supervisor running."""
    before = triton_processes()  # a reader's JupyterLab may have some
    yield
    deadline = time.monotonic() + 5  # a killed process is there for a moment
    while left := set(triton_processes()) - set(before):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.fixture(scope="session")
def artifacts():
    """The folder of artifacts, filled by the notebooks where it is empty."""
    needed = ["resnet50.onnx", "classifier.onnx", "reference.npz", "classifier.json"]
    models = [paths.MODEL_REPOSITORY / "classifier_onnx/1/model.onnx"]
    paths.ARTIFACTS.mkdir(exist_ok=True)
    with FileLock(paths.ARTIFACTS / ".lock"):
        files = [*map(paths.ARTIFACTS.joinpath, needed), *models]
        if not all(x.exists() for x in files):
            series = [sys.executable, "-m", "tools.run_series", "01", "05"]
            subprocess.run(series, check=True, cwd=paths.ROOT)
    return paths.ARTIFACTS


@pytest.fixture(scope="session")
def server(artifacts):
    """A server with the classifier."""
    with started(models=["classifier_onnx"]) as server:
        yield server


NULL_CONFIG = """\
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
"""
POLICY = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"


@pytest.fixture(scope="session")
def null_server(tmp_path_factory):
    """Models that answer with zeros: ``nothing``; ``sleeping``, which takes 50 ms; and
    ``slow``, which takes as long and has a short queue."""
    repository = tmp_path_factory.mktemp("repository")
    limited = NULL_CONFIG.replace("dynamic_batching { }", POLICY)
    write_null_model(repository, "nothing", NULL_CONFIG)
    write_null_model(repository, "sleeping", NULL_CONFIG, seconds=0.05)
    write_null_model(repository, "slow", limited, seconds=0.05)
    with started(repository) as server:
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


def taught(notebook, line, **names):
    """What the one cell of a notebook that holds this text defines: a namespace.

    Args:
        names: what the cells before it defined, as far as this one needs it.
    """
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    (source,) = (cell.source for cell in cells if line in cell.source)
    exec(source, names)
    return names


@pytest.fixture(scope="session")
def connect():
    """Lesson 17's function that connects a client which asks again."""
    names = taught("17_scale_out", "class Client(")
    return taught("17_scale_out", "def connect(", **names)["connect"]


def wait_for(condition, seconds=30):
    """Ask until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


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


def parse_graph(graph):
    """An ONNX model of a graph in the text form of ``onnx.parser``."""
    head = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>'
    return onnx.parser.parse_model(f"{head} g {graph}")


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


DOUBLE = 'backend: "onnxruntime"\n'  # the config of ``doubling_model``


def ask_to_double(server, values):
    """What the model ``double`` of a server answers over HTTP to (batch, 4) float32."""
    tensor = httpclient.InferInput("x", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    with httpclient.InferenceServerClient(server.http) as client:
        return client.infer("double", [tensor]).as_numpy("y")


@pytest.fixture
def make_repository(tmp_path, doubling_model):
    """A function that makes a repository of doubling models from their configs."""

    def make(configs):
        for name, config in configs.items():
            save_model(tmp_path, name, config, doubling_model)
        return tmp_path

    return make


class FakeTensor:
    """A tensor of a request or of an answer, as a Python model sees it."""

    def __init__(self, name, values, on_gpu=False):
        self.values, self.on_gpu = values, on_gpu
        self.name, self.is_cpu = lambda: name, lambda: not on_gpu

    def as_numpy(self):
        assert not self.on_gpu
        return self.values

    def to_dlpack(self):
        return self.values.__dlpack__()


class FakeRequest:
    """A request for these outputs, with arrays or ``FakeTensor`` as inputs."""

    def __init__(self, *outputs, **inputs):
        self.inputs = lambda: [
            x if isinstance(x, FakeTensor) else FakeTensor(name, x)
            for name, x in inputs.items()
        ]
        self.requested_output_names = lambda: {*outputs}


class FakeModelError(Exception):
    """In place of ``TritonModelException``."""


PB_UTILS = SimpleNamespace(
    TritonModelException=FakeModelError,
    TritonError=str,
    Tensor=FakeTensor,
    InferenceResponse=lambda tensors=(), error=None: (
        error or {x.name(): x.values for x in tensors}
    ),
    triton_string_to_numpy=lambda x: triton_to_np_dtype(x.removeprefix("TYPE_")),
    Logger=SimpleNamespace(log_warn=print),
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START=1,
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_END=2,
    TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
)


@pytest.fixture
def load_backend(monkeypatch, tmp_path):
    """A function that imports a stand-in backend from a folder as the server has it.

    There is no server: what Triton gives to a Python model is a fake.
    """
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", PB_UTILS)
    copied = []

    def load(name):
        for file in installation.backend_files(name):
            copied.append(shutil.copy(file, tmp_path))
        file = tmp_path / "model.py"
        spec = importlib.util.spec_from_file_location("backend", file)
        backend = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(backend)
        return backend

    yield load
    for file in copied:
        sys.modules.pop(Path(file).stem, None)


def read_config(text):
    """The text of a config as Triton gives it to a model: a dict."""
    return json_format.MessageToDict(
        triton_config.parse(text),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
