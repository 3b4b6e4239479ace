"""How the embedded server and NVIDIA's container are started, and what they need."""

import difflib
import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

from embedded_triton import paths, system, versions
from embedded_triton.errors import NoServerError, TritonServerError
from embedded_triton.installation import BACKENDS_IN_PYTHON


def check_repository(repository, models, docker, arguments):
    """Raise TritonServerError where the server would refuse a model."""
    import repository_check  # not at the top: set-up runs without its packages

    server = replace(
        repository_check.server_features("container" if docker else "embedded"),
        cache=any("cache" in argument for argument in arguments),
    )
    findings = repository_check.check(repository, models, server)
    errors = [x for x in findings if x.severity == repository_check.ERROR]
    if errors:
        raise TritonServerError(
            "the server would refuse this repository (check=False starts it anyway):\n"
            + "\n".join(map(str, errors))
        )


@cache
def _known_arguments():
    result = subprocess.run(
        [paths.TRITONSERVER, "--help"], capture_output=True, text=True
    )
    return frozenset(re.findall(r"--[a-z][a-z-]+", result.stdout + result.stderr))


def check_arguments(arguments):
    """Raise TritonServerError for an argument that the embedded server lacks."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("--") and name not in _known_arguments():
            near = difflib.get_close_matches(name, _known_arguments(), 1)
            raise TritonServerError(
                f"tritonserver {versions.EMBEDDED.triton} does not know {name}"
                + (f": did you mean {near[0]}?" if near else ": see its --help")
            )


def embedded_command(repository, ports, shm_prefix):
    """How the embedded server is started."""
    endpoints = dict(zip(("http", "grpc", "metrics"), ports))
    return [
        str(paths.TRITONSERVER),
        f"--model-repository={repository}",
        *(f"--{endpoint}-address=127.0.0.1" for endpoint in endpoints),
        *(f"--{endpoint}-port={port}" for endpoint, port in endpoints.items()),
        *(
            f"--backend-config={backend},shm-region-prefix-name={shm_prefix}"
            for backend in ("python", *BACKENDS_IN_PYTHON)
        ),
    ]


def container_command(repository, ports, name):
    """How NVIDIA's container is started; ``docker run`` passes signals on to it."""
    from repository_check import gpu_count  # see check_repository

    return [
        "docker",
        "run",
        "--rm",
        f"--name={name}",
        "--shm-size=1g",
        *(["--gpus=all"] if gpu_count() else []),
        *(f"--publish=127.0.0.1:{x}:{y}" for x, y in zip(ports, (8000, 8001, 8002))),
        f"--volume={Path(repository).resolve()}:/models:ro",
        versions.CONTAINER.where,
        "tritonserver",
        "--model-repository=/models",
    ]


def check_docker():
    """Raise an error where the container cannot be started.

    Raises:
        NoServerError: there is no Docker, and the embedded server does not run here.
        TritonServerError: there is no Docker, or not yet the container's image.
    """
    image = versions.CONTAINER.where
    try:
        result = subprocess.run(
            ["docker", "image", "inspect", image], capture_output=True, text=True
        )
    except FileNotFoundError:
        if obstacle := system.find_server_obstacle():
            raise NoServerError(
                f"there is no docker on PATH, and {obstacle}: install Docker, or set, "
                "for lessons 07 and 13, TUTORIAL_TRITON=host:port of a server that runs"
            ) from None
        raise TritonServerError(
            "there is no docker on PATH: install it, or use the embedded server"
        ) from None
    if result.returncode:
        raise TritonServerError(
            f"docker cannot start {image}: {result.stderr.strip()}. Where it is not "
            f"there yet: docker pull {image} (9 GB)"
        )
