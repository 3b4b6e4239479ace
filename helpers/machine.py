"""What this machine has, and what that lets the reader do."""

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import embedded_triton.paths
from embedded_triton import system, versions
from embedded_triton.errors import NotOnThisMachine
from helpers import classifiers
from repository_check import gpu_count


class NoTensorRTError(NotOnThisMachine, ImportError):
    """There is no TensorRT for this kind of machine."""


def import_tensorrt():
    """Import TensorRT where there is a GPU to use it, TensorRT-RTX otherwise.

    Without a driver ``tensorrt`` must not build or run anything (it would end the
    process), while ``tensorrt_rtx`` can build.

    Returns:
        The module; both have the same API for what this series does.

    Raises:
        NoTensorRTError: neither is installed, as on every machine that is not Linux on
            x86-64.
        ImportError: neither is installed, although it should be; the message says why.
    """
    names = ("tensorrt", "tensorrt_rtx") if gpu_count() else ("tensorrt_rtx",)
    reasons = []
    for name in names:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:
            reasons.append(f"{name}: {error}")
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        raise ImportError(f"{'; '.join(reasons)}: run make setup")
    raise NoTensorRTError(
        "the TensorRT that builds engines without a GPU is installed on Linux x86-64 "
        f"alone, and this is {system.describe()}: read the outputs that are stored here"
    )


def runs_engines():
    """Whether this machine has a GPU and the TensorRT that runs engines on it."""
    try:
        return import_tensorrt().__name__ == "tensorrt"
    except ImportError:
        return False


def _run(*command):
    """Output of a command, or None where it is missing, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor():
    """The processor's name, its cores that this process may use, and the memory."""
    import psutil

    file = Path("/proc/cpuinfo")  # Linux alone has it
    text = file.read_text() if file.exists() else ""
    name = re.search(r"model name\s*: (.+)", text)
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count()
    memory = psutil.virtual_memory().total / 1e9
    name = name[1] if name else platform.processor() or platform.machine()
    return f"{name}, {cores} cores, {memory:.0f} GB of memory"


def gpu():
    """Name, driver and compute capability of the GPUs; none: 0 or None."""
    query = "--query-gpu=name,driver_version,compute_cap"
    return gpu_count() and _run("nvidia-smi", query, "--format=csv,noheader")


def _onnx():
    from onnx.defs import onnx_opset_version

    return f"{_version('onnx')}, opsets 1 to {onnx_opset_version()}"


def _onnxruntime():
    from onnxruntime import __version__, get_available_providers

    names = [x.removesuffix("ExecutionProvider") for x in get_available_providers()]
    names = [x for x in names if x != "Azure"]  # that one sends the work elsewhere
    return f"{__version__}, providers {', '.join(names)}"


def _tensorrt():
    try:
        tensorrt = import_tensorrt()
    except ImportError:
        return None
    rtx = tensorrt.__name__ == "tensorrt_rtx"
    return f"TensorRT{'-RTX' if rtx else ''} {tensorrt.__version__}"


def _docker():
    return shutil.which("docker") and _run(
        "docker", "version", "--format", "{{.Server.Version}}"
    )


def _embedded_triton():
    found = list(
        embedded_triton.paths.ENVIRONMENT.glob(
            "lib/*/site-packages/nvidia_pytriton-*.dist-info"
        )
    )
    return f"{versions.EMBEDDED.triton}, from {found[0].stem}" if found else None


def _resnet50_weights():
    file = classifiers.resnet50_checkpoint()
    return file and file.name


# what, how to find it, what it lets the reader do, what to do where it is missing
_ROWS = [
    ("processor", processor, "run every notebook", ""),
    (
        "NVIDIA GPU and driver",
        gpu,
        "run TensorRT engines",
        "nothing to do",
    ),
    ("Python", platform.python_version, "run the notebooks (3.11 or 3.12)", ""),
    ("PyTorch", lambda: _version("torch"), "define and export the network (01)", ""),
    ("ONNX", _onnx, "write and check the exported file (01, 02)", ""),
    ("ONNX Runtime", _onnxruntime, "run it without PyTorch (02)", ""),
    (
        "TensorRT",
        _tensorrt,
        "build engines (03), walk a network (04)",
        "with a GPU: pip install -r requirements-gpu.txt",
    ),
    (
        "embedded Triton",
        _embedded_triton,
        "serve models without Docker (from 05 on)",
        "notebook 00 installs it",
    ),
    (
        "Docker",
        _docker,
        "serve them with NVIDIA's container (05, and from 07 on)",
        "nothing to do: the embedded Triton serves instead",
    ),
    (
        "ResNet-50 weights",
        _resnet50_weights,
        "ask ResNet-50 about pictures",
        "01 tries to download them; without, another network answers",
    ),
]


def report():
    """One row for each thing the series can use.

    Returns:
        A styled DataFrame with the columns "found" (— where it is missing), "lets you"
        and "if it is missing".
    """
    import pandas as pd

    rows = {what: [find() or "—", use, cure] for what, find, use, cure in _ROWS}
    columns = ["found", "lets you", "if it is missing"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    left = [{"selector": "th, td", "props": "text-align: left"}]
    return frame.style.set_table_styles(left).set_uuid("machine")


def check():
    """Say what this machine cannot do; stop where it cannot run the series at all.

    Prints nothing on a machine that runs all of it.

    Raises:
        RuntimeError: it is Windows or a Linux without glibc, Python is neither 3.11 nor
            3.12, a program or library is missing, or OpenCV cannot be imported.
    """
    if refusal := system.find_refusal():
        raise RuntimeError(refusal)
    if sys.version_info[:2] not in system.PYTHONS:
        raise RuntimeError(
            f"found Python {platform.python_version()}; the series needs 3.11 or 3.12"
        )
    if missing := system.find_missing():
        raise RuntimeError(system.explain_missing(missing))
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        raise RuntimeError(
            f"OpenCV cannot be imported: {error}. Cure: pip uninstall opencv-python, "
            f"and pip install opencv-python-headless=={_version('opencv-python')}"
        ) from None
    if obstacle := system.find_server_obstacle():
        print(
            f"Lessons 01 to 04 need no server. The others start one, and {obstacle}. "
            "With Docker, set TUTORIAL_TRITON=docker; without, 07 and 13 can ask a "
            "server that runs elsewhere: TUTORIAL_TRITON=host:port."
        )
