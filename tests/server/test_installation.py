"""What the server's environment needs is checked, and installed once."""

import os
import subprocess
import sys

import pytest

import embedded_triton
from embedded_triton import TritonServerError, installation, packages, system


@pytest.fixture
def broken_environment(tmp_path, monkeypatch):
    site = tmp_path / "lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (tmp_path / "tritonserver").touch()
    monkeypatch.setattr(embedded_triton.paths, "ENVIRONMENT", tmp_path)
    program = tmp_path / "tritonserver"
    monkeypatch.setattr(embedded_triton.paths, "TRITONSERVER", program)
    return site


def test_numpy_2_in_the_servers_environment_is_refused(broken_environment):
    (broken_environment / "numpy-2.4.6.dist-info").mkdir()
    with pytest.raises(TritonServerError, match=r"holds numpy-2.4.6.*'numpy<2'"):
        embedded_triton.start(models=[])


def test_a_missing_installation_names_the_notebook(broken_environment):
    embedded_triton.paths.TRITONSERVER.unlink()
    with pytest.raises(TritonServerError, match="make setup, or notebooks/00_check"):
        embedded_triton.start(models=[])


def test_a_python_without_shared_library_is_refused(broken_environment, monkeypatch):
    monkeypatch.setattr(system.sysconfig, "get_config_var", lambda name: "none")
    monkeypatch.setattr(system.sys, "base_prefix", "/nowhere")
    with pytest.raises(TritonServerError, match="apt install libpython3"):
        embedded_triton.install()


def test_libpython_is_looked_for_where_distributions_put_it(monkeypatch, tmp_path):
    monkeypatch.setattr(system.sysconfig, "get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(system.sys, "base_prefix", str(tmp_path / "base"))
    library = tmp_path / f"base/lib/libpython3.{sys.version_info.minor}.so.1.0"
    library.parent.mkdir(parents=True)
    assert system.find_libpython() is None
    library.touch()
    assert system.find_libpython() == library


def test_a_command_that_fails_is_told_with_what_it_printed():
    program = "import sys; print('half done'); sys.exit(1)"
    with pytest.raises(RuntimeError, match=r"import sys;.* failed:\nhalf done"):
        packages.check_run(sys.executable, "-c", program)


def test_install_does_nothing_twice_and_starts_again_where_it_must(
    tmp_path, monkeypatch
):
    commands = []

    def pretend(command, **options):
        commands.append(command)
        server = tmp_path / "venv/lib/python3.11/site-packages/pytriton/tritonserver"
        minor = sys.version_info.minor
        for folder in "backends/python", f"python_backend_stubs/3.{minor}":
            (server / folder).mkdir(parents=True, exist_ok=True)
            (server / folder / "part.so").touch()
        (server.parents[1] / "nvidia_pytriton.libs").mkdir(exist_ok=True)
        (tmp_path / "venv/bin").mkdir(exist_ok=True)
        (tmp_path / "venv/bin/python3").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    requirements = tmp_path / "requirements-server.txt"
    requirements.write_text("one==1\n")
    places = embedded_triton.paths
    monkeypatch.setattr(places, "ENVIRONMENT", tmp_path / "venv")
    monkeypatch.setattr(places, "TRITONSERVER", tmp_path / "venv/bin/tritonserver")
    monkeypatch.setattr(places, "REQUIREMENTS", requirements)
    monkeypatch.setattr(packages.subprocess, "run", pretend)
    script = embedded_triton.install()
    assert os.access(script, os.X_OK) and len(commands) == 2  # venv and pip
    libpython = system.find_libpython()
    assert (tmp_path / "venv/lib" / libpython.name).samefile(libpython)
    stand_in = tmp_path / "venv/backends/onnxruntime/model.py"
    stand_in.write_text("# of an older version")
    embedded_triton.install()
    assert len(commands) == 2
    source = places.BACKENDS / "onnxruntime/model.py"
    assert stand_in.read_text() == source.read_text()
    (tmp_path / "venv/bin/python3").unlink()  # as where its Python was removed
    embedded_triton.install()
    assert len(commands) == 4
    requirements.write_text("one==2\n")
    embedded_triton.install()
    assert len(commands) == 6
    monkeypatch.setattr(installation.sys, "version_info", (3, 13, 0))
    requirements.write_text("one==3\n")
    with pytest.raises(TritonServerError, match=r"Python 3\.11 or 3\.12"):
        embedded_triton.install()
    assert script.exists()  # a refusal removes nothing
