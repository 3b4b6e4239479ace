"""Set-up on a good machine and on bad ones; its files agree with each other."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
import tomllib
import yaml
from onnx import helper
from packaging.requirements import Requirement

import embedded_triton
from conftest import make_model
from embedded_triton import packages, versions
from embedded_triton.installation import BACKENDS_IN_PYTHON
from helpers import paths
from repository_check import servers
from tools import set_up

ROOT = paths.ROOT
OTHER_MACHINES = {
    "aarch64-apple-darwin": {
        "sys_platform": "darwin",
        "platform_machine": "arm64",
        "platform_system": "Darwin",
    },
    "aarch64-unknown-linux-gnu": {
        "sys_platform": "linux",
        "platform_machine": "aarch64",
        "platform_system": "Linux",
    },
}


def pins(text):
    """Names and versions of ``name==version`` lines, whatever their marker."""
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", text, re.M)
    return dict(found)


def requirements(name):
    """The lines of a file of requirements that are no comments."""
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(x) for x in lines if x and not x.lstrip().startswith("#")]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def client():
    return pins((ROOT / "requirements.txt").read_text())


@pytest.fixture(scope="module")
def server():
    return pins((ROOT / "requirements-server.txt").read_text())


FILES = sorted(file.name for file in ROOT.glob("requirements*.txt"))


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned(name):
    for requirement in requirements(name):
        (only,) = requirement.specifier
        assert only.operator == "==", requirement


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_requirements_says_the_command_that_makes_it(name):
    text = (ROOT / name).read_text()
    if name != "requirements-gpu.txt":  # that one is written by hand
        assert re.search(rf"^#    uv pip compile .* -o {name}$", text, re.M)
    assert "://" not in text  # no index of anyone


def test_requirements_hold_what_the_project_names(project, client, server):
    groups = project["dependency-groups"]
    developer = pins((ROOT / "requirements-dev.txt").read_text())
    for lines, pinned in (
        (project["project"]["dependencies"], client),
        (groups["dev"], developer),
        (groups["server"], server),
    ):
        named = pins("\n".join(lines))
        assert named and named.items() <= pinned.items()
    for name in client.keys() & developer.keys():
        assert client[name] == developer[name]


@pytest.mark.parametrize("machine", OTHER_MACHINES)
def test_what_only_linux_on_x86_64_has_is_not_asked_for_elsewhere(machine):
    environment = {**OTHER_MACHINES[machine], "python_full_version": "3.12.0"}
    here = {x.name for name in FILES for x in requirements(name)}
    there = {
        x.name
        for name in ("requirements.txt", "requirements-server.txt")
        for x in requirements(name)
        if not x.marker or x.marker.evaluate(environment)
    }
    for name in "tensorrt-rtx-cu13", "nvidia-pytriton":
        assert name in here - there
    assert {"torch", "onnxruntime", "jupyterlab"} <= there
    assert ("cuda-bindings" in there) == ("linux" in machine)  # torch asks for them


@pytest.mark.slow
@pytest.mark.parametrize("machine", OTHER_MACHINES)
def test_the_requirements_resolve_for_other_machines(machine):
    command = ["uv", "pip", "compile", "pyproject.toml", "--group", "dev", "--quiet"]
    command += ["--python-platform", machine, "--python-version", "3.12"]
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        # ONNX Runtime's wheel is for macOS 14 and newer
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"},
        capture_output=True,
        text=True,
    )
    if re.search("error sending request|dns error|timed out", result.stderr):
        pytest.skip(f"no network: {result.stderr.splitlines()[0]}")
    assert result.returncode == 0, result.stderr
    assert (
        pins(result.stdout)["torch"]
        == pins((ROOT / "requirements.txt").read_text())["torch"]
    )


def test_client_and_server_compute_alike(client, server):
    assert server["onnxruntime"] == client["onnxruntime"]
    assert server["opencv-python-headless"] == client["opencv-python"]
    assert server["numpy"].startswith("1.")


def test_conda_environment_installs_the_same(client):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert "python=3.12" in conda
    assert pip["pip"] == ["--requirement requirements.txt", "--editable ."]
    gpu = pins((ROOT / "requirements-gpu.txt").read_text())
    assert set(gpu) == {"tensorrt", "cuda-bindings"}
    assert gpu["cuda-bindings"] == client["cuda-bindings"]


def test_ruff_has_nothing_to_say():
    """Which includes that the syntax is that of Python 3.10, the target version."""
    for check in ["check"], ["format", "--check"]:
        command = [sys.executable, "-m", "ruff", *check, "--quiet", str(ROOT)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_notebook_06_names_the_container():
    text = (ROOT / "notebooks/06_serve_with_triton.ipynb").read_text()
    assert versions.CONTAINER.where in text


def test_the_versions_in_the_texts_are_the_pins(client, server):
    models = json.loads((ROOT / "tests/data/kserve_models.json").read_text())["source"]
    kserve = {"kserve": models.split("-")[1]}
    developer = pins((ROOT / "requirements-dev.txt").read_text())
    files = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]
    text = "\n".join(file.read_text() for file in files)
    found = re.findall(r"`([a-z-]+)` (\d[\d.]+\d)", text)
    assert found
    for package, version in found:
        assert version in [x.get(package) for x in (client, developer, server, kserve)]


def test_the_version_contract_is_that_of_the_pins(client, server):
    major, minor, _ = versions.CONTAINER.triton.split(".")
    assert client["tritonclient"].startswith(f"{major}.{minor}.")
    gpu = pins((ROOT / "requirements-gpu.txt").read_text())
    assert gpu["tensorrt"] == versions.CONTAINER.tensorrt
    assert server["onnxruntime"] == servers.EMBEDDED.onnxruntime
    assert servers.EMBEDDED.backends == {"python", *BACKENDS_IN_PYTHON}
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


@pytest.mark.server  # where the lessons have not written them yet
def test_every_exported_model_stays_inside_the_contract(artifacts):
    files = [*artifacts.glob("*.onnx"), *paths.MODEL_REPOSITORY.glob("*/*/model.onnx")]
    assert {"resnet50.onnx", "classifier.onnx", "model.onnx"} <= {x.name for x in files}
    for file in files:
        model = onnx.load(file, load_external_data=False)
        for server in servers.EMBEDDED, servers.CONTAINER:
            assert not [*servers.find_too_new(model, server)], file


@pytest.fixture
def checkout(tmp_path):
    """What set-up needs of the project, in a folder without environments."""
    folder = tmp_path / "checkout"
    for name in "tools", "embedded_triton":
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in "Makefile", "pyproject.toml", *FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def write_program(path, text):
    """An executable shell script."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def set_up_with(checkout, programs, *command, **variables):
    """Run a command where PATH holds these programs alone: names with scripts."""
    folder = checkout.parent / "bin"
    for name, text in programs.items():
        write_program(folder / name, text)
    environment = {"PATH": str(folder), "HOME": str(checkout), **variables}
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True
    )


THIS_PYTHON = f'exec "{sys.executable}" "$@"'
FOUND = {"curl": "", "openssl": ""}  # the system check looks for them, and no further


@pytest.mark.parametrize("file", ["tools/set_up.py", "embedded_triton/system.py"])
def test_set_up_begins_with_any_python(file):
    """Their syntax is that of Python 3.8, and they import what that one has."""
    tree = ast.parse((ROOT / file).read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and node.col_offset == 0:
            names = [x.name for x in node.names]
            module = getattr(node, "module", None) or names[0]
            assert module.partition(".")[0] in sys.stdlib_module_names


def test_all_that_is_missing_is_told_at_once(checkout):
    python = 'exec "{}" -c "import sys, sysconfig; {}; {}" "$@"'.format(
        sys.executable,
        "sysconfig.get_config_var = str; sys.base_prefix = '/nowhere'",
        "sys.argv = ['tools/set_up.py']; import runpy; "
        "runpy.run_path('tools/set_up.py', run_name='__main__')",
    )
    result = set_up_with(
        checkout, {"python": python}, str(checkout.parent / "bin/python")
    )
    assert result.returncode == 1
    version = f"3.{sys.version_info.minor}"
    assert f"sudo apt install libpython{version} curl openssl" in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_named_python_of_another_version_is_refused(checkout):
    program = f'[ "$1" = -c ] && echo 3.13.0 /somewhere/python || {THIS_PYTHON}'
    named = str(checkout.parent / "bin/python3.13")
    programs = {"python3.13": program, **FOUND}
    make = shutil.which("make")
    result = set_up_with(checkout, programs, make, "setup", PYTHON=named)
    assert result.returncode != 0
    assert f"Python 3.11 or 3.12 is needed: {named} is Python 3.13.0." in result.stderr
    for cure in "conda create", "ppa:deadsnakes", "uv python install 3.12":
        assert cure in result.stderr
    assert "lacks" not in result.stderr
    assert not (checkout / ".venv").exists()


def test_the_bare_debian_has_what_the_readme_lists():
    script = (ROOT / "tools/try_on_minimal_debian.sh").read_text()
    packages = set(re.search(r"^readme=(\S+)$", script, re.M)[1].split(","))
    assert {"python3", "ca-certificates"} <= packages  # in other words there
    readme = (ROOT / "README.md").read_text()
    for package in packages - {"python3", "ca-certificates"}:
        assert f"`{package}`" in readme


def test_without_any_python_that_runs_make_says_so(checkout):
    programs = {"python3": "echo pyenv: python3: command not found >&2; exit 127"}
    result = set_up_with(checkout, programs, shutil.which("make"), "setup")
    assert result.returncode != 0
    assert "There is no Python that runs: install python3" in result.stderr


def test_the_first_python_that_runs_and_fits_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(set_up, "READY", tmp_path / "ready")
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    wanted = [(3, 11), (3, 12)]
    write_program(tmp_path / "bin/python3", "echo pyenv: not found >&2; exit 127")
    assert set_up.find_python(wanted) == (
        None,
        ["no python3 runs", "no python3.12 runs", "no python3.11 runs"],
    )
    write_program(tmp_path / "bin/python3.11", "echo 3.11.2 /usr/bin/python3.11")
    write_program(tmp_path / "bin/python3.12", "echo 3.10.0 /not/what/it/says")
    path, found = set_up.find_python(wanted)
    assert path == "/usr/bin/python3.11"
    assert found == ["no python3 runs", "python3.12 is Python 3.10.0"]
    monkeypatch.setenv("PYTHON", str(tmp_path / "bin/python3.12"))
    assert set_up.find_python(wanted)[0] is None  # what is named is not replaced
    (tmp_path / "ready").touch()
    monkeypatch.setattr(set_up, "VENV", tmp_path)  # one that is ready goes on
    write_program(tmp_path / "bin/python3", "echo 3.12.1 /here/.venv/bin/python3")
    assert set_up.find_python(wanted)[0] == "/here/.venv/bin/python3"


def test_set_up_goes_on_in_the_python_that_it_found(checkout):
    """Without curl here: a set-up by another Python would end, and install nothing."""
    script = '[ "$1" = -c ] && echo 3.12.0 "$0" || echo "$@"'
    python = checkout.parent / "bin/python3.12"
    command = sys.executable, "tools/set_up.py", "--dev"
    result = set_up_with(checkout, {python.name: script}, *command, PYTHON=str(python))
    assert result.stdout.endswith("tools/set_up.py --dev\n"), result


def test_a_python_that_hangs_is_none(monkeypatch):
    def hang(command, timeout=None, **options):
        assert timeout, "this would wait for ever"
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(set_up.subprocess, "run", hang)
    assert set_up.ask_python("python3") == (None, None)


@pytest.fixture
def pretended(monkeypatch, checkout):
    """Set-up in a checkout, with a list of what it would do instead of doing it."""
    done = []

    def pretend(*command):
        done.append(" ".join(map(str, command[1:])))
        program = checkout / ".venv/bin/python3"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(set_up, "ROOT", checkout)
    monkeypatch.setattr(set_up, "VENV", checkout / ".venv")
    monkeypatch.setattr(set_up, "READY", checkout / ".venv/ready")
    monkeypatch.setattr(packages, "run", pretend)
    monkeypatch.setattr(packages, "check_run", pretend)
    monkeypatch.setattr(
        packages, "install_packages", lambda home, *x: done.append(" ".join(x))
    )
    return done


def test_set_up_installs_what_changed_and_nothing_else(pretended, checkout):
    both = {**set_up.READER, **set_up.DEVELOPER}
    set_up.install(set_up.READER)
    assert pretended[0].startswith("-m venv --clear")
    assert f"-m pip install --quiet {packages.UV}" in pretended
    assert pretended[-1] == "--no-deps --no-build-isolation --editable ."
    opencv = pretended.index("--requirement requirements.txt") + 1
    assert pretended[opencv] == "-c import cv2"
    assert all(map(set_up.is_installed, set_up.READER))
    assert not set_up.is_installed("requirements-dev.txt")

    pretended.clear()
    set_up.install(both)
    assert pretended[-1] == "--requirement requirements-dev.txt"
    assert not [x for x in pretended if "venv" in x or "requirements.txt" in x]

    pretended.clear()
    with (checkout / "requirements.txt").open("a") as file:
        file.write("# another line\n")
    set_up.install(both)
    assert "--requirement requirements.txt" in pretended
    assert not [x for x in pretended if "venv" in x or "dev" in x]


def test_set_up_brings_a_part_that_is_missing(pretended, checkout, monkeypatch):
    set_up.install(set_up.READER)
    pretended.clear()
    monkeypatch.setattr(set_up, "find_python", lambda wanted: (sys.executable, []))
    system = SimpleNamespace(PYTHONS=(), find_refusal=str, find_missing=list)
    monkeypatch.setattr(set_up, "load_system", lambda: system)
    monkeypatch.setattr(embedded_triton, "install", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(checkout)
    added = "--requirement requirements-dev.txt"
    for arguments, done in ([], []), (["--dev"], [added]):
        monkeypatch.setattr(sys, "argv", ["set_up.py", *arguments])
        set_up.main()
        assert [x for x in pretended if "uv==" not in x] == done


def test_an_interrupted_set_up_begins_again(pretended, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    set_up.install(set_up.READER)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packages, "install_packages", interrupt)
        set_up.install({**set_up.READER, **set_up.DEVELOPER})
    pretended.clear()
    set_up.install(set_up.READER)
    assert pretended[0].startswith("-m venv --clear")


def test_opencv_without_windows_where_libgl_is_missing(monkeypatch, capsys, tmp_path):
    """A Python whose OpenCV lacks libGL until another is installed."""
    write_program(
        tmp_path / "bin/python3",
        f"""cd {tmp_path}
echo "$*" >> commands
case "$*" in
  *"install"*"headless=="*) touch headless;;
  *"import cv2") [ -e headless ] ||
    echo 'ImportError: libGL.so.1: cannot open shared object file: No such file';;
esac""",
    )
    monkeypatch.setattr(set_up, "VENV", tmp_path)
    monkeypatch.setattr(packages, "find_uv", lambda: None)
    set_up.repair_opencv(tmp_path / "bin/python3", packages)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("libGL.so.1 is not there: opencv-python-headless")
    version = pins((ROOT / "requirements.txt").read_text())["opencv-python"]
    commands = (tmp_path / "commands").read_text()
    assert "uninstall --quiet --yes opencv-python opencv" in commands
    assert f"install --quiet opencv-python-headless=={version}" in commands


def test_an_opencv_that_fails_in_another_way_is_an_error(tmp_path):
    write_program(tmp_path / "bin/python3", "echo ImportError: numpy is too new")
    with pytest.raises(RuntimeError, match=r"(?s)OpenCV cannot.*numpy is too new"):
        set_up.repair_opencv(tmp_path / "bin/python3", packages)


def test_pip_installs_where_uv_fails(monkeypatch, capsys, tmp_path):
    write_program(tmp_path / "bin/uv", "echo error: no such index >&2; exit 2")
    write_program(tmp_path / "bin/python3", f'echo "$@" >> {tmp_path}/commands')
    monkeypatch.setattr(packages, "find_uv", lambda: tmp_path / "bin/uv")
    packages.install_packages(tmp_path, "one==1")
    assert (tmp_path / "commands").read_text() == "-m pip install --quiet one==1\n"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "uv failed (error: no such index); pip takes some minutes instead"
    write_program(tmp_path / "bin/python3", "echo no such package; exit 1")
    with pytest.raises(RuntimeError, match=r"(?s)one==1 failed:.no such package"):
        packages.install_packages(tmp_path, "one==1")


def test_make_says_what_it_does():
    def plan(target):
        command = ["make", "--dry-run", target]
        text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
        return text.replace("\\\n", "")

    assert "set_up.py ; done" in plan("run")  # without --dev
    assert "-m tools.run_series 00 01 02 03 04 05 06 07 08\n" in plan("run")
    for target in "check", "test", "test-slow", "site":
        assert "set_up.py --dev; done" in plan(target)
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert {"run", "run-all", "test-slow"} <= {
        line.split()[0] for line in helped.stdout.splitlines()
    }
