"""Set the project up: ``python3 tools/set_up.py [--dev]``, which ``make setup`` calls.

Any ``python3`` from 3.8 on runs this file. It finds a Python 3.11 or 3.12, tells all
that the system lacks before anything is installed, and makes ``.venv`` and, where the
embedded server runs, ``.venv-triton``. It does nothing where all is there.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
READY = VENV / "ready"  # not there while an installation goes on
READER = {
    "requirements.txt": ["--requirement", "requirements.txt"],
    "pyproject.toml": ["--no-deps", "--no-build-isolation", "--editable", "."],
}
DEVELOPER = {"requirements-dev.txt": ["--requirement", "requirements-dev.txt"]}
CURES = """\
Each of these should get one; none was tried with this project:
  conda:   conda create --name triton python=3.12 && conda activate triton
  Ubuntu:  sudo add-apt-repository ppa:deadsnakes/ppa
           sudo apt install python3.12 python3.12-venv libpython3.12
  uv, which downloads a Python of its own from GitHub:
           python3 -m venv /tmp/uv && /tmp/uv/bin/pip install uv
           /tmp/uv/bin/uv python install 3.12
Then say which it is, where it is not the first on PATH: make run PYTHON=python3.12
(for uv's: PYTHON=$(/tmp/uv/bin/uv python find 3.12))"""


def load_system():
    """``embedded_triton.system`` alone: the rest of the package needs Python 3.10."""
    file = ROOT / "embedded_triton" / "system.py"
    spec = importlib.util.spec_from_file_location("system", file)
    system = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(system)
    return system


def ask_python(name):
    """Version and path of a Python.

    Returns:
        (``3.11.2``, its path); (None, None) where it is not there or does not run, as
        some of pyenv's do not.
    """
    program = "import sys; print(sys.version.split()[0], sys.executable)"
    try:
        answer = subprocess.run(
            [name, "-c", program], capture_output=True, text=True, timeout=60
        )
        version, path = answer.stdout.strip().split(" ", 1)
        return version, path
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None, None


def find_python(wanted):
    """The Python to use: that of ``.venv``, PYTHON, or the first on PATH that fits.

    Args:
        wanted: pairs such as (3, 11).

    Returns:
        (its path or None, what was found, in words).
    """
    named = os.environ.get("PYTHON")
    names = [named] if named else ["python3", "python3.12", "python3.11"]
    if READY.exists():
        names.insert(0, str(VENV / "bin" / "python3"))
    found = []
    for name in names:
        version, path = ask_python(name)
        if version and tuple(map(int, version.split(".")[:2])) in wanted:
            return path, found
        found.append(f"{name} is Python {version}" if version else f"no {name} runs")
    return None, found


def is_installed(name):
    """Whether what is in ``.venv`` is what this file says now."""
    copy = VENV / name
    return copy.exists() and copy.read_text() == (ROOT / name).read_text()


def install(parts):
    """Make ``.venv``, or bring it up to date; what was interrupted starts again.

    Args:
        parts: the files that say what is needed, with arguments of ``pip install``.
    """
    from embedded_triton import packages

    python = VENV / "bin" / "python3"
    fresh = not (READY.exists() and python.exists())
    if fresh:
        print("Installing into .venv: 7 GB, a minute or two the first time", flush=True)
        packages.check_run(sys.executable, "-m", "venv", "--clear", VENV)
    READY.unlink(missing_ok=True)
    if not (VENV / "bin" / "uv").exists():
        packages.run(python, "-m", "pip", "install", "--quiet", packages.UV)
    for name, arguments in parts.items():
        if not is_installed(name):
            packages.install_packages(VENV, *arguments)
            if name == "requirements.txt":
                repair_opencv(python, packages)
            shutil.copy(ROOT / name, VENV / name)
    READY.touch()


def repair_opencv(python, packages):
    """Put OpenCV without windows where that with windows finds no libGL or glib."""
    text = packages.run(python, "-c", "import cv2").stdout
    missing = re.search(r"ImportError: (\S+\.so\S*): cannot open shared object", text)
    if missing:
        print(
            f"{missing[1]} is not there: opencv-python-headless is installed instead "
            "of opencv-python",
            flush=True,
        )
        requirements = (ROOT / "requirements.txt").read_text()
        version = re.search(r"^opencv-python==(\S+)", requirements, re.M)[1]
        both = "opencv-python", "opencv-python-headless"
        packages.run(python, "-m", "pip", "uninstall", "--quiet", "--yes", *both)
        packages.install_packages(VENV, f"{both[1]}=={version}")
        text = packages.run(python, "-c", "import cv2").stdout
    if "Error" in text:
        raise RuntimeError(f"OpenCV cannot be imported:\n{text}")


def main():
    system = load_system()
    refusal = system.find_refusal()
    if refusal:
        sys.exit(refusal)
    python, found = find_python(system.PYTHONS)
    if python and Path(python) != Path(sys.executable):
        os.execv(python, [python, __file__, *sys.argv[1:]])
    lines = []
    if not python:
        lines += [f"Python 3.11 or 3.12 is needed: {', '.join(found)}.", CURES]
    missing = system.find_missing()
    if missing:
        lines.append(system.explain_missing(missing))
    if lines:
        sys.exit("\n".join(lines))

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    import embedded_triton

    parts = {**READER, **(DEVELOPER if "--dev" in sys.argv else {})}
    try:
        if not (READY.exists() and all(map(is_installed, parts))):
            install(parts)
        embedded_triton.install()
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
