"""What the series needs of the system, and which Debian or Ubuntu package has it.

Needs nothing but Python, and keeps to the syntax of 3.8: set-up runs this file alone,
with whatever ``python3`` there is, to say what is missing.
"""

import platform
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

PYTHONS = ((3, 11), (3, 12))  # the server's packages need numpy<2
GLIBC = (2, 35)  # nvidia-pytriton's wheel: Debian 12, Ubuntu 22.04


def _numbers(version):
    return tuple(map(int, version.split(".")[:2]))


def describe():
    """System, processor and C library in words, such as ``Linux on x86_64, ...``."""
    name, version = platform.libc_ver()
    libc = " ".join((name, version)) if name else "no glibc"
    text = f"{platform.system()} on {platform.machine()}"
    return f"{text}, {libc}" if platform.system() == "Linux" else text


def find_refusal():
    """Why this system cannot run the series at all; None where it can."""
    if platform.system() == "Windows":
        return "found Windows: the series needs WSL2 there, with Ubuntu 22.04 or newer"
    if platform.system() == "Linux" and platform.libc_ver()[0] != "glibc":
        return (
            f"found {describe()}: PyTorch's packages need glibc, which Debian 12, "
            "Ubuntu 22.04 and containers of them have"
        )
    return None


def find_server_obstacle():
    """Why the embedded server cannot be installed here; None where it can."""
    libc, version = platform.libc_ver()
    found = platform.system(), platform.machine(), libc
    if found == ("Linux", "x86_64", "glibc") and _numbers(version) >= GLIBC:
        return None
    return (
        "the embedded server needs Linux on x86-64 with glibc "
        f"{'.'.join(map(str, GLIBC))} or newer, and this is {describe()}"
    )


def find_libpython():
    """Path of ``libpython3.X.so.1.0``, which Triton's Python stub is linked against.

    Returns:
        A ``Path``; None where this Python has none.
    """
    folders = (
        sysconfig.get_config_var("LIBDIR"),
        f"{sys.base_prefix}/lib",
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
    )
    name = f"libpython3.{sys.version_info.minor}.so.1.0"
    return next((Path(x, name) for x in folders if Path(x, name).exists()), None)


def find_missing():
    """What this system lacks, for the running Python.

    Returns:
        A list of (what is missing and what it is for, the package that has it).
    """
    version = f"3.{sys.version_info.minor}"
    known = sys.version_info[:2] in PYTHONS
    server = find_server_obstacle() is None
    rows = [
        (
            "venv, to make environments",
            f"python{version}-venv",
            known and not (find_spec("venv") and find_spec("ensurepip")),
        ),
        (
            f"libpython{version}.so.1.0, for the embedded server",
            f"libpython{version}",
            known and server and not find_libpython(),
        ),
        ("curl, a client without Python", "curl", not shutil.which("curl")),
        ("openssl, for certificates", "openssl", not shutil.which("openssl")),
        (
            "the certificates that pip trusts",
            "ca-certificates",
            Path("/etc/debian_version").exists()
            and not Path("/etc/ssl/certs/ca-certificates.crt").exists(),
        ),
    ]
    return [(what, package) for what, package, missing in rows if missing]


def explain_missing(missing):
    """The lines that tell a reader what ``find_missing`` found, and the cure."""
    lines = ["This system lacks", *(f"  {what}" for what, _ in missing)]
    packages = " ".join(package for _, package in missing)
    lines.append(f"On Debian or Ubuntu: sudo apt install {packages}")
    if any(package.startswith("libpython") for _, package in missing):
        lines.append(
            "A Python of pyenv has libpython where it was built with "
            "PYTHON_CONFIGURE_OPTS=--enable-shared; those of conda and uv have it."
        )
    return "\n".join(lines)
