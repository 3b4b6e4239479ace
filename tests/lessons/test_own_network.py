"""A network that the series never mentions, served by cells copied from it."""

import re
import subprocess
import sys

import nbformat
import pytest

import embedded_triton
from helpers import paths

pytestmark = [pytest.mark.server, pytest.mark.slow]

# The cells to copy, by a line of each, as docs/your_own_network.md lists them.
CELLS = (
    ("01_export_to_onnx", "resnet50.eval()"),
    ("01_export_to_onnx", "def export(network, path):"),
    ("05_write_triton_config", 'name: "mine"'),
    ("06_serve_with_triton", "command = ["),
    ("06_serve_with_triton", "ready = False"),
    ("06_serve_with_triton", "tensor.set_data_from_numpy("),
    ("06_serve_with_triton", "process.terminate()"),
)
# The lines to change wherever one serves a network of one's own ...
SERVE = {
    '"--model-repository=../model_repository",': (
        '"--model-repository=../artifacts/my_repository",'
    ),
    '"--load-model=classifier_onnx",': '"--load-model=mine",',
    'print("ready:", client.is_model_ready("classifier_onnx"))': (
        'print("ready:", client.is_model_ready("mine"))'
    ),
    'logits = client.infer("classifier_onnx", [tensor]).as_numpy("logits")': (
        'logits = client.infer("mine", [tensor]).as_numpy("logits")'
    ),
}
MODEL = (
    "resnet50 = torchvision.models.resnet50(weights=None)"
    '  # "IMAGENET1K_V2" downloads 98 MB'
)
INPUT = 'input [ { name: "input"  data_type: TYPE_FP32  dims: [ 3, 224, 224 ] } ]'
OUTPUT = 'output [ { name: "logits"  data_type: TYPE_FP32  dims: [ 1000 ] } ]'
# ... and those that say what network it is, with an input to compare PyTorch on.
NETWORKS = {
    "of pictures": (
        {
            MODEL: "resnet50 = torchvision.models.regnet_y_400mf(num_classes=7)",
            OUTPUT: OUTPUT.replace("1000", "7"),
        },
        "torch.zeros(1, 3, 224, 224)",
    ),
    "of text": (
        {
            MODEL: (
                "resnet50 = torch.nn.Sequential(torch.nn.Embedding(100, 16), "
                "torch.nn.Flatten(), torch.nn.Linear(12 * 16, 4))"
            ),
            "(torch.randn(2, 3, 224, 224),),": "(torch.randint(100, (2, 12)),),",
            INPUT: 'input [ { name: "input"  data_type: TYPE_INT64  dims: [ 12 ] } ]',
            OUTPUT: OUTPUT.replace("1000", "4"),
            'tensor = httpclient.InferInput("input", [1, 3, 224, 224], "FP32")': (
                'tensor = httpclient.InferInput("input", [1, 12], "INT64")'
            ),
            "tensor.set_data_from_numpy(np.zeros((1, 3, 224, 224), np.float32))": (
                "tensor.set_data_from_numpy(np.zeros((1, 12), np.int64))"
            ),
        },
        "torch.zeros(1, 12, dtype=torch.int64)",
    ),
}


def cell(notebook, line):
    """The one copyable cell of a notebook that holds a line."""
    content = nbformat.read(paths.NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
    (source,) = (
        x.source
        for x in content.cells
        if "copyable" in x.metadata.get("tags", ()) and line in x.source
    )
    return source


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_of_ones_own_is_served_with_ten_lines_changed(network, tmp_path):
    own, example = NETWORKS[network]
    changes = SERVE | own
    assert len(changes) <= 10
    program = "\n".join(cell(*x) for x in CELLS)
    for old, new in changes.items():
        assert len(re.findall(rf"^ *{re.escape(old)}$", program, re.M)) == 1, old
        program = program.replace(old, new)
    program += (
        f"\nexpected = resnet50({example}).detach().numpy()"
        "\nprint('as PyTorch:', np.abs(logits - expected).max() < 1e-4)"
    )
    for name in "notebooks", "artifacts":
        (tmp_path / name).mkdir()
    (tmp_path / ".venv-triton").symlink_to(embedded_triton.paths.ENVIRONMENT)
    result = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['helpers'] = None\n" + program],
        cwd=tmp_path / "notebooks",
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 0, result.stderr
    assert "ready: True" in result.stdout and "as PyTorch: True" in result.stdout


def test_the_page_names_these_cells():
    text = (paths.ROOT / "docs" / "your_own_network.md").read_text()
    assert re.findall(r"\) \| `(.+?)` \|", text) == [line for _, line in CELLS]
