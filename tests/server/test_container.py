"""NVIDIA's container is started and stopped, with a stand-in for docker."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest

import embedded_triton
import repository_check
from conftest import DOUBLE, ask_to_double, triton_processes
from embedded_triton import TritonServerError, versions

pytestmark = pytest.mark.server


# Stands where docker would be: checks the command line and starts the embedded server
# with what a container would be given.
DOCKER = """\
#!{python}
import json, os, sys
if sys.argv[1:3] == ["image", "inspect"]:
    sys.exit(0 if sys.argv[3] == "{image}" else "no such image")
end = sys.argv.index("{image}")
assert sys.argv[1] == "run" and sys.argv[end + 1] == "tritonserver"
json.dump(sys.argv[1:], open("{record}", "w"))
arguments = sys.argv[end + 2 :]
for option in sys.argv[2:end]:
    name, _, value = option.partition("=")
    if name == "--volume":
        folder, inside, _ = value.split(":")
        arguments = [x.replace(inside, folder) for x in arguments]
    if name == "--publish":
        address, outside, inside = value.split(":")
        kind = ["http", "grpc", "metrics"][int(inside) - 8000]
        arguments += [f"--{{kind}}-address={{address}}", f"--{{kind}}-port={{outside}}"]
    if name == "--name":  # a container has shared memory of its own
        prefix = f"--backend-config=python,shm-region-prefix-name={{value}}"
        arguments.append(prefix)
os.execv("{server}", ["{server}", *arguments])
"""


@pytest.fixture
def docker(monkeypatch, tmp_path):
    """A stand-in for docker on PATH; returns where it keeps its command line."""
    script, record = tmp_path / "bin" / "docker", tmp_path / "docker.json"
    script.parent.mkdir()
    script.write_text(
        DOCKER.format(
            python=sys.executable,
            image=versions.CONTAINER.where,
            record=record,
            server=embedded_triton.paths.TRITONSERVER,
        )
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    return record


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_container_is_started_and_stopped(
    make_repository, docker, monkeypatch, gpus
):
    before = triton_processes()
    monkeypatch.setattr(repository_check, "gpu_count", lambda: gpus)
    repository = make_repository({"double": DOUBLE})
    with embedded_triton.start(repository, models=["double"], docker=True) as server:
        x = np.ones((1, 4), np.float32)
        assert np.array_equal(ask_to_double(server, x), 2 * x)
        _, *command = server.command
    assert {*triton_processes()} <= {*before}
    assert command == json.loads(docker.read_text())
    assert ("--gpus=all" in command) == bool(gpus)
    image = command.index(versions.CONTAINER.where)
    assert command[:2] == ["run", "--rm"]
    assert {f"--volume={repository}:/models:ro", "--shm-size=1g"} < {*command[:image]}
    assert command[image + 1 :] == [
        "tritonserver",
        "--model-repository=/models",
        "--exit-timeout-secs=3",
        "--metrics-interval-ms=200",
        "--model-control-mode=explicit",
        "--load-model=double",
    ]


def test_the_container_is_what_serve_starts_when_asked(docker, artifacts, monkeypatch):
    monkeypatch.setenv("TUTORIAL_TRITON", "docker")
    with embedded_triton.serve(["classifier_onnx"]) as server:
        assert server.command[0] == "docker"
        assert server.is_alive()


def test_what_the_container_needs_is_named(docker, monkeypatch, tmp_path):
    other = dataclasses.replace(versions.CONTAINER, where="none:1")
    monkeypatch.setattr(versions, "CONTAINER", other)
    with pytest.raises(TritonServerError, match=r"no such image.*: docker pull none:1"):
        embedded_triton.start(docker=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TritonServerError, match="there is no docker on PATH"):
        embedded_triton.start(docker=True)
