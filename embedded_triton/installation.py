"""Install the embedded server into an environment of its own."""

import shutil
import sys
from pathlib import Path

from embedded_triton import packages, paths, system
from embedded_triton.errors import NoServerError, TritonServerError

# Each, and what it imports beside the files of its own folder.
BACKENDS_IN_PYTHON = {
    "onnxruntime": ("batching.py",),
    "tensorrt": ("batching.py", "engine.py"),
}
START_SCRIPT = """\
#!/bin/sh
# The embedded Triton. Its Python backend starts the first python3 on PATH.
home=$(cd "$(dirname "$0")/.." && pwd)
site=$(echo "$home"/lib/python3.*/site-packages)
export PATH="$home/bin:$PATH"
libraries="$home/lib:$site/nvidia_pytriton.libs"
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
server="$site/pytriton/tritonserver"
exec "$server/bin/tritonserver" --backend-directory="$home/backends" \\
    --cache-directory="$server/caches" "$@"
"""


def backend_files(name):
    """The files of a stand-in, as the server has them in one folder."""
    shared = map(paths.BACKENDS.joinpath, BACKENDS_IN_PYTHON[name])
    return [*sorted((paths.BACKENDS / name).glob("*.py")), *shared]


def refresh():
    """Bring the start script and the stand-ins up to date; Triton refuses links."""
    files = {paths.TRITONSERVER: START_SCRIPT}
    for name in BACKENDS_IN_PYTHON:
        folder = paths.ENVIRONMENT / "backends" / name
        for source in backend_files(name):
            files[folder / source.name] = source.read_text()
    for file, text in files.items():
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    paths.TRITONSERVER.chmod(0o755)


def _add_python_backend(home):
    """Put Triton's Python backend together with the stub of this Python."""
    (site,) = home.glob("lib/python3.*/site-packages")
    server = site / "pytriton" / "tritonserver"
    stubs = server / "python_backend_stubs" / f"3.{sys.version_info.minor}"
    python_backend = home / "backends" / "python"
    python_backend.mkdir(parents=True)
    for part in (*(server / "backends" / "python").glob("*.*"), *stubs.iterdir()):
        shutil.copy(part, python_backend)


def _add_libraries_of_perf_analyzer(home):
    """Link two libraries of the server under the names that perf_analyzer asks for."""
    (libraries,) = home.glob("lib/python3.*/site-packages/nvidia_pytriton.libs")
    for name, pattern in (
        ("libb64.so.0d", "libb64-*.so*"),
        ("libcudart.so.12", "libcudart-*.so.12*"),
    ):
        for library in libraries.glob(pattern):
            (home / "lib" / name).symlink_to(library)


def install():
    """Make ``.venv-triton``: the server, the stand-in backends, and a start script.

    Does nothing where it is there already and ``requirements-server.txt`` has not
    changed since. An interrupted installation starts from nothing the next time.

    Returns:
        The path of the start script, ``.venv-triton/bin/tritonserver``; None, after a
        sentence that says why, where the embedded server does not run.

    Raises:
        TritonServerError: this Python is none that the server can use, or has no
            libpython.
        RuntimeError: pip failed.
    """
    if obstacle := system.find_server_obstacle():
        print(f"No server is installed: {obstacle}.", file=sys.stderr)
        return None
    home = paths.ENVIRONMENT
    installed = home / paths.REQUIREMENTS.name
    if (
        installed.exists()
        and installed.read_text() == paths.REQUIREMENTS.read_text()
        and (home / "bin" / "python3").exists()  # not so when its Python was removed
    ):
        refresh()
        return paths.TRITONSERVER
    if sys.version_info[:2] not in system.PYTHONS:
        raise TritonServerError(
            f"found Python {sys.version.split()[0]}; the embedded Triton needs numpy<2 "
            "and with it Python 3.11 or 3.12"
        )
    libpython = system.find_libpython()
    if libpython is None:
        raise TritonServerError(system.explain_missing(system.find_missing()))
    print(f"Installing the server into {home.name}: a minute or two", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    packages.check_run(python, "-m", "venv", home)
    packages.install_packages(home, "--requirement", paths.REQUIREMENTS)

    _add_python_backend(home)
    (home / "lib" / libpython.name).symlink_to(libpython)
    _add_libraries_of_perf_analyzer(home)
    refresh()
    shutil.copy(paths.REQUIREMENTS, installed)  # last: this file says that all is there
    return paths.TRITONSERVER


def find_tritonserver():
    """Path of the embedded server's start script, for who starts it by hand.

    Raises:
        NoServerError: the embedded server does not run on this kind of machine.
        TritonServerError: it is not installed, or not with the NumPy that it needs.
    """
    if obstacle := system.find_server_obstacle():
        raise NoServerError(
            f"{obstacle}: with TUTORIAL_TRITON=docker every lesson but 06 starts "
            "NVIDIA's container instead, and with TUTORIAL_TRITON=host:port lessons 07 "
            "and 13 ask a server that runs"
        )
    if not paths.TRITONSERVER.exists():
        raise TritonServerError(
            f"{paths.TRITONSERVER} is missing: run make setup, or "
            "notebooks/00_check_your_machine.ipynb"
        )
    numpy = list(paths.ENVIRONMENT.glob("lib/*/site-packages/numpy-*.dist-info"))
    if not any(path.name.startswith("numpy-1.") for path in numpy):
        found = ", ".join(path.stem for path in numpy) or "no numpy"
        raise TritonServerError(
            f"{paths.ENVIRONMENT} holds {found}; Triton 2.51's Python backend needs "
            "numpy 1: with any other it answers with empty outputs, or dies. Cure: "
            f"{paths.ENVIRONMENT}/bin/pip install 'numpy<2'"
        )
    return paths.TRITONSERVER
