"""``make run``: the series from one end to the other, and what a failure looks like."""

import os
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

import embedded_triton
from conftest import started
from helpers import classifiers, parity, paths


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project that writes to folders of its own."""
    for name in "helpers", "notebooks", "model_repository", "recordings":
        ignore = shutil.ignore_patterns("model.onnx", "__pycache__")
        shutil.copytree(paths.ROOT / name, tmp_path / name, ignore=ignore)
    (tmp_path / ".venv-triton").symlink_to(embedded_triton.paths.ENVIRONMENT)
    return tmp_path


def run_series(checkout, *arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "tools.run_series", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), **variables},
        capture_output=True,
        text=True,
    )


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
    shutil.rmtree(checkout / "notebooks")
    (checkout / "notebooks").mkdir()
    cells = [
        nbformat.v4.new_markdown_cell("# 01 · Fail"),
        nbformat.v4.new_code_cell("wanted = 1\nwanted / 0"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, checkout / "notebooks" / "01_fail.ipynb")
    result = run_series(checkout)
    assert result.returncode == 1
    assert "01_fail.ipynb failed in the cell" in result.stderr
    assert "wanted / 0" in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr


def test_an_unknown_number_is_refused(checkout):
    result = run_series(checkout, "77")
    assert result.returncode != 0
    assert "no notebook 77; there are 00, 01" in result.stderr
