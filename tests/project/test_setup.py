"""The files that set a machine up agree with each other."""

import json
import os
import re
import subprocess
import sys

import onnx
import onnxruntime
import pytest
import tomllib
import yaml
from onnx import helper

from conftest import make_model
from embedded_triton import versions
from helpers import paths
from repository_check import servers

ROOT = paths.ROOT


def pins(text):
    """Names and versions of ``name==version`` lines."""
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", text, re.M)
    return dict(found)


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def client():
    return pins((ROOT / "requirements.txt").read_text())


@pytest.fixture(scope="module")
def server():
    return pins((ROOT / "requirements-server.txt").read_text())


def test_every_requirement_is_pinned():
    for file in ROOT.glob("requirements*.txt"):
        for line in file.read_text().splitlines():
            if line and not line.lstrip().startswith("#"):
                assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", line), line


def test_requirements_hold_what_the_project_names(project, client, server):
    named = pins("\n".join(project["project"]["dependencies"]))
    assert len(named) == len(project["project"]["dependencies"])
    assert named.items() <= client.items()
    group = project["dependency-groups"]["server"]
    assert pins("\n".join(group)).items() <= server.items()


def test_client_and_server_compute_alike(client, server):
    assert server["onnxruntime"] == client["onnxruntime"]
    assert server["opencv-python-headless"] == client["opencv-python"]
    assert server["numpy"].startswith("1.")


def test_conda_environment_names_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert "python=3.12" in conda
    assert "--requirement requirements.txt" in pip["pip"]
    gpu = pins((ROOT / "requirements-gpu.txt").read_text())
    assert pins("\n".join(pip["pip"])) == gpu
    assert set(gpu) == {"tensorrt", "cuda-bindings"}
    assert (
        gpu["cuda-bindings"]
        == pins((ROOT / "requirements.txt").read_text())["cuda-bindings"]
    )


def test_ruff_has_nothing_to_say():
    """Which includes that the syntax is that of Python 3.10, the target version."""
    for check in ["check"], ["format", "--check"]:
        command = [sys.executable, "-m", "ruff", *check, "--quiet", str(ROOT)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_make_installs_only_when_requirements_change(tmp_path):
    for name in "Makefile", "requirements.txt":
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".venv").mkdir()

    def plan():
        command = ["make", "--dry-run", "run"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert "-m venv --clear" in plan().stdout
    (tmp_path / ".venv/ready").touch()
    assert "-m venv --clear" not in plan().stdout
    os.utime(tmp_path / ".venv/ready", (0, 0))
    assert "-m venv --clear" in plan().stdout


def test_notebook_06_names_the_container():
    text = (ROOT / "notebooks/06_serve_with_triton.ipynb").read_text()
    assert versions.CONTAINER.where in text


def test_the_versions_in_the_readmes_are_the_pins(client, server):
    models = json.loads((ROOT / "tests/data/kserve_models.json").read_text())["source"]
    kserve = {"kserve": models.split("-")[1]}
    for name in "README.md", "README.zh-CN.md":
        found = re.findall(r"`([a-z-]+)` (\d[\d.]+\d)", (ROOT / name).read_text())
        assert found
        for package, version in found:
            assert version in [x.get(package) for x in (client, server, kserve)]


def test_the_version_contract_is_that_of_the_pins(client, server):
    major, minor, _ = versions.CONTAINER.triton.split(".")
    assert client["tritonclient"].startswith(f"{major}.{minor}.")
    gpu = pins((ROOT / "requirements-gpu.txt").read_text())
    assert gpu["tensorrt"] == versions.CONTAINER.tensorrt
    assert server["onnxruntime"] == servers.EMBEDDED.onnxruntime
    assert versions.EMBEDDED.where == f"nvidia-pytriton {server['nvidia-pytriton']}"


@pytest.mark.parametrize(
    ("opset", "ir_version", "refused"),
    [(26, 13, None), (27, 13, "27"), (26, 14, "14")],
)
def test_onnx_runtime_reads_what_the_contract_says(
    tmp_path, opset, ir_version, refused
):
    node = helper.make_node("Add", ["x", "x"], ["y"])
    tensors = [("x", [1])], [("y", [1])]
    model = make_model([node], *tensors, opset=opset, ir_version=ir_version)
    onnx.save(model, tmp_path / "model.onnx")
    found = [str(x) for _, x, _ in servers.find_too_new(model, servers.EMBEDDED)]
    if refused is None:
        assert not found
        onnxruntime.InferenceSession(tmp_path / "model.onnx")
        return
    assert found == [refused]
    with pytest.raises(Exception, match=refused):
        onnxruntime.InferenceSession(tmp_path / "model.onnx")


def test_every_exported_model_stays_inside_the_contract(artifacts):
    files = [*artifacts.glob("*.onnx"), *paths.MODEL_REPOSITORY.glob("*/*/model.onnx")]
    assert {"resnet50.onnx", "classifier.onnx", "model.onnx"} <= {x.name for x in files}
    for file in files:
        model = onnx.load(file, load_external_data=False)
        for server in servers.EMBEDDED, servers.CONTAINER:
            assert not [*servers.find_too_new(model, server)], file


def test_make_refuses_another_python(tmp_path):
    python = tmp_path / "python"  # runs set-up's check as if it were Python 3.13
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; '
        "sys.version_info = (3, 13, 0); sys.version = '3.13.0'; exec(sys.argv[1])\" "
        '"$2"\n'
    )
    python.chmod(0o755)
    for name in "Makefile", "requirements.txt", "pyproject.toml":
        (tmp_path / name).symlink_to(ROOT / name)
    command = ["make", "test", f"PYTHON={python}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert "found Python 3.13.0: Python 3.11 or 3.12 is needed" in result.stderr
    assert not (tmp_path / ".venv").exists()
