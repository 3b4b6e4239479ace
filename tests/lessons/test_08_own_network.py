"""Lesson 08 serves networks that the series never mentions, where no project is."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import nbformat
import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
import torch
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from onnx import TensorProto, helper
from tritonclient.utils import np_to_triton_dtype

import embedded_triton
from conftest import make_model, save_model, started
from embedded_triton.ports import free_ports
from helpers import paths
from new_project import __main__ as new_project

pytestmark = [pytest.mark.server, pytest.mark.slow]

CELLS = nbformat.read(new_project.LESSON, as_version=4).cells
TEXT = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
# All that a reader runs but the failures, which are ours.
PROGRAM = [
    cell.source
    for cell in CELLS
    if "copyable" in cell.metadata.get("tags", ())
    and "raises-exception" not in cell.metadata.tags
]

REST = """
FREE, LABELS = globals().get("FREE", {{}}), globals().get("LABELS", {{}})
TOLERANCE = globals().get("TOLERANCE", 1e-4)
NAME, MAX_BATCH = "mine", 6
FOLDER = Path({folder!r})
HTTP, GRPC, METRICS = {ports}
"""
PAIR = """
class Ranker(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.colours = torch.nn.Linear(3, 16)
        self.shop = torch.nn.Embedding(50, 16)
        self.likes, self.price = torch.nn.Linear(16, 3), torch.nn.Linear(16, 2)

    def forward(self, photo, shop):
        both = self.colours(photo.mean((2, 3))) + self.shop(shop).mean(1)
        return {"likes": self.likes(both), "price": [self.price(both).exp()]}


NETWORK = Ranker()
INPUTS = {"photo": torch.rand(2, 3, 40, 24), "shop": torch.randint(50, (2, 4))}
OUTPUTS = ["likes", "price"]
LABELS = {"likes": ["no", "perhaps", "yes"]}
"""
TEXTS = """
class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(1000, 32, padding_idx=0)
        self.layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.topic = torch.nn.Linear(32, 7)

    def forward(self, tokens, mask):
        states = self.layer(self.words(tokens), src_key_padding_mask=mask == 0)
        return self.topic((states * mask[..., None]).sum(1))


NETWORK = Words()
INPUTS = {"tokens": torch.randint(1, 1000, (2, 12)), "mask": torch.ones(2, 12).long()}
FREE = {"tokens": {1: "length"}, "mask": {1: "length"}}
OUTPUTS = ["topic"]
"""
SEGMENTS = """
import torchvision

NETWORK = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
    weights=None, weights_backbone=None, num_classes=5
)
INPUTS = {"picture": torch.rand(2, 3, 128, 96)}
OUTPUTS = ["classes"]
"""
SCALARS = """
class Scalars(torch.nn.Module):
    def forward(self, flags, weight):
        return flags.to(torch.float32).sum(1) * weight, ~flags


NETWORK = Scalars()
INPUTS = {"flags": torch.rand(2, 5) > 0.5, "weight": torch.rand(2)}
OUTPUTS = ["score", "inverted"]
"""
DTYPES = ["float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"]
TYPES = f"""
class Types(torch.nn.Module):
    def forward(self, a, b, c, d, e, f, g, h):
        return tuple(torch.cat([x, x], dim=1) for x in (a, b, c, d, e, f, g, h))


NETWORK = Types()
INPUTS = {{x: torch.ones(2, 3).to(getattr(torch, x)) for x in {DTYPES}}}
OUTPUTS = [f"twice_{{x}}" for x in INPUTS]
"""


def first_cell(network, folder):
    """The lesson's first cell with another network, a folder and free ports."""
    head = "import torch\nfrom pathlib import Path\ntorch.manual_seed(1)\n"
    return head + network + REST.format(folder=str(folder), ports=tuple(free_ports()))


def run_cells(network, folder, upto="print(config)"):
    """Run the lesson's cells in this process, up to the one that holds a text.

    Returns:
        The names that the cells define.
    """
    names = {}  # and no server is started, unless the text is further down
    exec(first_cell(network, folder), names)
    for cell in PROGRAM[1:]:
        exec(cell, names)
        if upto in cell:
            return names


@pytest.fixture(autouse=True)
def only_a_variable_finds_the_server(monkeypatch, tmp_path):
    """The cells run in an empty folder, and cannot import the project."""
    monkeypatch.setenv("TRITONSERVER", str(embedded_triton.paths.TRITONSERVER))
    for name in "helpers", "embedded_triton", "repository_check", "tools":
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize(
    ("network", "config"),
    [
        pytest.param(PAIR, 'dims: [3]  label_filename: "likes.txt"', id="two_inputs"),
        pytest.param(TEXTS, '"tokens"  data_type: TYPE_INT64  dims: [-1]', id="texts"),
        pytest.param(SEGMENTS, "dims: [5, 128, 96]", id="segmentation"),
        pytest.param(
            SCALARS, "dims: [1]  reshape { shape: [ ] }", id="bool_and_scalar"
        ),
    ],
)
def test_only_the_first_cell_is_another(network, config, tmp_path, capsys):
    names = run_cells(network, tmp_path, upto="process.terminate()\nprint(")
    assert config in (tmp_path / "model_repository/mine/config.pbtxt").read_text()
    printed = capsys.readouterr().out
    over_http, over_grpc = printed.split("mine is ready: True")[1].split("gRPC")
    for text in over_http, over_grpc:
        assert text.count(" apart, ") == len(names["OUTPUTS"])
    assert re.search(r"16 clients: \d+ answers a second, (?!1\.0)", printed)
    assert printed.endswith("exit status 0\n")
    assert not [*(tmp_path / "work").iterdir()]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_accepts_the_unit_file(tmp_path):
    names = run_cells(SCALARS, tmp_path, upto="serve.chmod(")
    (cell,) = (x for x in PROGRAM if "[Service]" in x)
    exec("import os, shutil\n" + cell, names)
    (tmp_path / "runtime").mkdir()
    result = subprocess.run(
        ["systemd-analyze", "--user", "verify", tmp_path / "mine.service"],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path / "runtime")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and not result.stderr, result.stderr


@pytest.fixture
def rows():
    """The table of types: a list of columns for each first column."""
    rows = [
        re.findall(
            r"`(\w+(?:[.(]\w+\)?)?)`|(none)", line.replace(", with UTF-8 `bytes`", "")
        )
        for line in re.findall(r"^\| .*`TYPE_.*", TEXT, re.M)
    ]
    return {cells[1]: cells for cells in ([x or y for x, y in row] for row in rows)}


def test_the_table_of_types_is_what_each_tool_says(rows, tmp_path):
    names = run_cells(TYPES, tmp_path, upto="process.terminate()\nprint")
    config = names["config"]
    for tensor in names["session"].get_inputs():
        example = names["make_batch"](1)[tensor.name]
        assert rows[str(example.dtype)] == [
            f"torch.{tensor.name}",
            str(example.dtype),
            tensor.type,
            re.search(rf'"{tensor.name}"  data_type: (\w+)', config)[1],
            np_to_triton_dtype(example.dtype),
        ]
    assert len(rows) == len(DTYPES) + 2  # BF16 and text


def one_identity(repository, kind, data_type):
    """A model that answers with its input, of a type that PyTorch or NumPy lacks."""
    tensors = [("x", ["batch", 2])], [("y", ["batch", 2])]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    config = 'backend: "onnxruntime"\nmax_batch_size: 4\n' + "".join(
        f'{x} [ {{ name: "{y}" data_type: {data_type} dims: [ 2 ] }} ]\n'
        for x, y in (("input", "x"), ("output", "y"))
    )
    save_model(repository, "m", config, make_model(nodes, *tensors, kind=kind))
    return ort.InferenceSession(repository / "m/1/model.onnx").get_inputs()[0].type


def test_the_row_of_texts(rows, tmp_path):
    kind = one_identity(tmp_path, TensorProto.STRING, "TYPE_STRING")
    _, numpy_name, *others = rows["object_"]
    texts = np.array([["Köln".encode(), b""]], getattr(np, numpy_name))
    wire = np_to_triton_dtype(texts.dtype)
    assert others == [kind, "TYPE_STRING", wire]
    with started(tmp_path, models=["m"], check=False) as server:
        for module in httpclient, grpcclient:
            address = server.http if module is httpclient else server.grpc
            tensor = module.InferInput("x", texts.shape, wire)
            tensor.set_data_from_numpy(texts)
            with module.InferenceServerClient(address) as client:
                answer = client.infer("m", [tensor]).as_numpy("y")
            assert (answer == texts).all()


def test_the_row_of_bf16(rows, tmp_path):
    kind = one_identity(tmp_path, TensorProto.BFLOAT16, "TYPE_BF16")
    assert rows["none"] == ["torch.bfloat16", "none", kind, "TYPE_BF16", "BF16"]
    with pytest.raises(
        embedded_triton.TritonServerError, match="unsupported datatype TYPE_BF16"
    ):
        embedded_triton.start(tmp_path, models=["m"], check=False)


def test_a_name_that_the_network_uses_inside_is_found(tmp_path):
    network = """
NETWORK = torch.nn.Sequential(torch.nn.Embedding(9, 2), torch.nn.ReLU())
INPUTS = {"token": torch.ones(2, 3).long()}
OUTPUTS = ["embedding"]
"""
    with pytest.raises(onnx.checker.ValidationError, match="'embedding' has been used"):
        run_cells(network, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["likes", "price"]', '["likes"]', "forward returns 2 tensors: name each"),
        ('LABELS = {"likes"', 'LABELS = {"loves"', "unknown names"),
        (".exp()", ".flatten()", "axis 0 of price is not the batch"),
        ("self.likes(both),", "self.likes(both).squeeze(),", "squeeze.. takes"),
    ],
)
def test_what_the_first_cell_got_wrong_is_said(old, new, message, tmp_path):
    assert old in PAIR
    with pytest.raises(AssertionError, match=message):
        run_cells(PAIR.replace(old, new), tmp_path)


def test_a_network_that_takes_a_dict_ends_as_the_lesson_says(tmp_path):
    network = SCALARS.replace("self, flags, weight", "self, both").replace(
        "return", "flags, weight = both.values()\n        return"
    )
    message = "too many positional arguments"
    with pytest.raises(torch.onnx.OnnxExporterError, match=message):
        run_cells(network, tmp_path)
    assert f'"{message}"' in TEXT


def test_nothing_starts_where_a_port_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        network = SCALARS
        names = run_cells(network, tmp_path, upto="def check_ports")
        names["METRICS"] = port
        (start,) = (x for x in PROGRAM if "subprocess.Popen(" in x)
        with pytest.raises(OSError, match="Address already in use"):
            exec(start, names)
    assert not (tmp_path / "server.log").exists()


def test_a_server_that_does_not_start_says_why(tmp_path):
    names = run_cells(SCALARS, tmp_path, upto="def check_ports")
    names["model_file"].unlink()
    for text in "subprocess.Popen(", "http_client = ", "def wait_until_ready":
        (cell,) = (x for x in PROGRAM if text in x)
        if "def wait" in text:
            with pytest.raises(RuntimeError, match="failed to stat file") as error:
                exec(cell, names)
        else:
            exec(cell, names)
    assert "+--" not in str(error.value) and len(str(error.value).splitlines()) < 9


def test_the_server_ends_with_a_killed_notebook(tmp_path):
    cells = PROGRAM[1 : 1 + next(i for i, x in enumerate(PROGRAM) if "def wait_" in x)]
    end = "import os\nprint(process.pid, flush=True)\nos.kill(os.getpid(), 9)"
    program = "\n".join([first_cell(SCALARS, tmp_path), *cells, end])
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    psutil.wait_procs([psutil.Process(int(result.stdout.split()[-1]))], timeout=20)
    assert not psutil.pid_exists(int(result.stdout.split()[-1]))


# ------------------------------------------------------------------- make project


def test_the_project_passes_its_own_smoke_test(tmp_path):
    folder = tmp_path / "mine"
    new_project.write_project(folder)
    assert len((folder / "README.md").read_text().splitlines()) <= 14
    text = "\n".join(file.read_text() for file in folder.glob("*.py"))
    imported = re.findall(r"^(?:from|import) (\w+)", text, re.M)
    assert not {"helpers", "embedded_triton", "repository_check"} & {*imported}
    assert str(paths.ROOT) not in text + (folder / "serve.sh").read_text()
    result = subprocess.run(
        [sys.executable, folder / "smoke_test.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("exit status 0\n")

    with pytest.raises(SystemExit, match="is there already: name a new folder"):
        new_project.write_project(folder)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("!pip install more", "not plain Python"),
        ("import no_such_package", "no_such_package, which pip did not install"),
        ("raise ValueError", "export.py failed, so nothing was written"),
    ],
)
def test_a_project_is_written_whole_or_not_at_all(
    first, message, tmp_path, monkeypatch
):
    notebook = nbformat.read(new_project.LESSON, as_version=4)
    cell = next(x for x in notebook.cells if x.cell_type == "code")
    cell.source = f"{first}\n{cell.source}"
    changed = tmp_path / "changed.ipynb"
    nbformat.write(notebook, changed)
    monkeypatch.setattr(new_project, "LESSON", changed)
    with pytest.raises(SystemExit, match=message):
        new_project.write_project(tmp_path / "mine")
    assert {*tmp_path.iterdir()} == {changed, tmp_path / "work"}
