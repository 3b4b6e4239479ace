"""The files that set a machine up agree with each other."""

import os
import re
import subprocess
import sys

import pytest
import tomllib
import yaml

from helpers import paths, triton_server

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
    assert set(gpu) == {"tensorrt"}


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


def test_the_readme_names_the_container():
    for file in "README.md", "notebooks/06_serve_with_triton.ipynb":
        assert triton_server.CONTAINER in (ROOT / file).read_text()


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
