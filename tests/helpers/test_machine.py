"""What a machine can do: the table, and what ``check`` and ``start`` say of others."""

import platform
import re
import sys

import onnxruntime
import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell

import embedded_triton
from embedded_triton import NoServerError, system
from helpers import machine, paths

MAC = "Darwin", "arm64", ("", "")
ARM = "Linux", "aarch64", ("glibc", "2.36")
OLD = "Linux", "x86_64", ("glibc", "2.31")
ALPINE = "Linux", "x86_64", ("", "")
WINDOWS = "Windows", "AMD64", ("", "")


@pytest.fixture
def pretend(monkeypatch):
    """A function that makes this machine look like another."""
    monkeypatch.delenv("TUTORIAL_TRITON", raising=False)

    def change(name, processor, libc):
        monkeypatch.setattr(platform, "system", lambda: name)
        monkeypatch.setattr(platform, "machine", lambda: processor)
        monkeypatch.setattr(platform, "libc_ver", lambda: libc)

    return change


def test_report_has_every_row():
    text = machine.report().to_html()
    for row in "processor", "embedded Triton", "ResNet-50 weights", "Docker":
        assert row in text
    assert machine.import_tensorrt().__name__.startswith("tensorrt")


def test_the_processor_has_a_name_where_there_is_no_proc(monkeypatch):
    monkeypatch.setattr(machine, "Path", lambda name: paths.ROOT / "nosuch")
    monkeypatch.delattr(machine.os, "sched_getaffinity")
    assert re.fullmatch(r"\S.*, \d+ cores, \d+ GB of memory", machine.processor())


def test_the_processor_is_the_part_that_this_process_may_use(monkeypatch):
    cores = {0, 1, 5}
    monkeypatch.setattr(
        machine.os, "sched_getaffinity", lambda process: cores, raising=False
    )
    memory = psutil.virtual_memory().total / 1e9
    assert machine.processor().endswith(f", 3 cores, {memory:.0f} GB of memory")


def test_a_command_that_fails_has_no_output():
    failing = "print('half'); raise SystemExit(1)"
    assert machine._run(sys.executable, "-c", failing) is None
    assert machine._run(sys.executable, "-c", "print('whole')") == "whole"


def test_a_command_that_hangs_has_no_output(monkeypatch):
    def hang(command, timeout=None, **options):
        assert timeout, "this would wait for ever"
        raise machine.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(machine.subprocess, "run", hang)
    assert machine._run("nvidia-smi") is None


def test_onnx_runtime_is_named_without_what_sends_the_work_elsewhere(monkeypatch):
    names = ["AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    assert machine._onnxruntime() == f"{onnxruntime.__version__}, providers CPU"


@pytest.mark.parametrize(
    ("gpus", "tried"), [(0, ["tensorrt_rtx"]), (1, ["tensorrt", "tensorrt_rtx"])]
)
def test_tensorrt_itself_is_imported_where_there_is_a_gpu(monkeypatch, gpus, tried):
    asked = []

    def fail(name):
        asked.append(name)
        raise ImportError

    monkeypatch.setattr(machine, "gpu_count", lambda: gpus)
    monkeypatch.setattr(machine.importlib, "import_module", fail)
    with pytest.raises(ImportError):
        machine.import_tensorrt()
    assert asked == tried


def test_check_has_nothing_to_say_here(capsys):
    if system.find_server_obstacle():
        pytest.skip("the embedded server does not run on this machine")
    machine.check()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (MAC, "this is Darwin on arm64."),
        (ARM, "this is Linux on aarch64, glibc 2.36."),
        (OLD, "this is Linux on x86_64, glibc 2.31."),
    ],
)
def test_check_says_which_lessons_run_where_the_server_does_not(
    pretend, capsys, other, words
):
    pretend(*other)
    machine.check()
    text = capsys.readouterr().out
    assert text.startswith("Lessons 01 to 04 need no server.")
    assert words in text and "TUTORIAL_TRITON=docker" in text
    assert embedded_triton.install() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("No server is installed: the embedded server needs Linux")


@pytest.mark.parametrize(
    ("other", "words"),
    [(WINDOWS, "found Windows: the series needs WSL2"), (ALPINE, "need glibc")],
)
def test_check_refuses_what_cannot_run_the_series(pretend, other, words):
    pretend(*other)
    with pytest.raises(RuntimeError, match=words):
        machine.check()


def test_check_names_what_the_system_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="sudo apt install curl openssl"):
        machine.check()


def test_a_python_that_cannot_make_environments_is_named(monkeypatch):
    def find(name):
        return None if name == "ensurepip" else name

    monkeypatch.setattr(system, "find_spec", find)
    with pytest.raises(RuntimeError, match=r"sudo apt install python3\.\d+-venv"):
        machine.check()


def test_the_oldest_glibc_is_new_enough(pretend):
    pretend("Linux", "x86_64", ("glibc", "2.35"))
    assert system.find_server_obstacle() is None
    pretend("Linux", "x86_64", ("glibc", "2.34.9"))
    assert "glibc 2.35 or newer" in system.find_server_obstacle()


def test_check_refuses_another_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(RuntimeError, match=r"the series needs 3\.11 or 3\.12"):
        machine.check()


def test_check_proves_that_opencv_can_be_imported(monkeypatch):
    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(machine.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match=r"libGL\.so\.1.*opencv-python-headless=="):
        machine.check()


@pytest.mark.parametrize("other", [MAC, ARM, OLD])
def test_start_says_in_one_sentence_what_to_do_where_no_server_runs(
    pretend, monkeypatch, tmp_path, other
):
    pretend(*other)
    with pytest.raises(NoServerError, match="TUTORIAL_TRITON=docker") as without:
        embedded_triton.start(models=[])
    with pytest.raises(NoServerError):
        embedded_triton.find_tritonserver()
    monkeypatch.setenv("TUTORIAL_TRITON", "docker")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoServerError, match="no docker on PATH, and") as with_docker:
        embedded_triton.start(tmp_path)
    for error in without, with_docker:
        assert "\n" not in str(error.value) and ". " not in str(error.value)


@pytest.mark.parametrize("kind", [NoServerError, machine.NoTensorRTError])
def test_jupyter_shows_the_sentence_and_no_traceback(capsys, kind):
    source = f"import {kind.__module__}; raise {kind.__module__}.{kind.__name__}('so')"
    InteractiveShell().run_cell(source)
    assert capsys.readouterr().out.splitlines() == [f"{kind.__name__}: so"]


def test_without_tensorrt_the_reason_depends_on_the_machine(pretend, monkeypatch):
    def fail(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(machine.importlib, "import_module", fail)
    pretend(*OLD)
    with pytest.raises(ImportError, match="No module named 'tensorrt_rtx'") as broken:
        machine.import_tensorrt()
    assert type(broken.value) is ImportError  # no lesson is skipped for that
    pretend(*MAC)
    with pytest.raises(machine.NoTensorRTError, match="this is Darwin on arm64: read"):
        machine.import_tensorrt()
    assert not machine.runs_engines()


def test_the_lessons_that_ask_a_server_elsewhere_are_those_that_the_message_names():
    asking = {
        file.name[:2]
        for file in paths.NOTEBOOKS.glob("[0-9]*.ipynb")
        if "embedded_triton.serve(" in file.read_text()
    }
    assert asking == {"07", "13"}
