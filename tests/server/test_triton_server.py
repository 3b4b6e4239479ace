"""The embedded server starts, answers, fails with reasons, and never stays behind."""

import dataclasses
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

import embedded_triton
import repository_check
from conftest import triton_processes
from embedded_triton import TritonServerError, installation, packages, system, versions

DOUBLE = 'backend: "onnxruntime"\n'


def double(server, values):
    client = httpclient.InferenceServerClient(server.http)
    tensor = httpclient.InferInput("x", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    answer = client.infer("double", [tensor]).as_numpy("y")
    client.close()
    return answer


def shared_memory(prefix):
    return list(Path("/dev/shm").glob(f"{prefix}*"))


def shm_prefix(server):
    (prefix,) = {x.partition("shm-region-prefix-name=")[2] for x in server.command} - {
        ""
    }
    return prefix


def ports_of(server):
    return [int(x.split(":")[1]) for x in (server.http, server.grpc, server.metrics)]


def kill(server):
    """SIGKILL to the server itself, not to its supervisor."""
    (tritonserver,) = psutil.Process(server._supervisor.pid).children()
    tritonserver.kill()


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


@pytest.mark.parametrize(
    ("model", "file"),
    [("classifier_onnx", "classifier.onnx"), ("resnet50", "resnet50.onnx")],
)
def test_is_ready_within_ten_seconds_and_equals_onnx_runtime(artifacts, model, file):
    begin = time.monotonic()
    with embedded_triton.start(models=[model]) as server:
        assert time.monotonic() - begin < 10
        batch = np.load(artifacts / "reference.npz")["input"]
        session = ort.InferenceSession(artifacts / file)
        for size in 1, 2, 8:
            images = batch[:size]
            (expected,) = session.run(None, {"input": images})
            for library, url in (httpclient, server.http), (grpcclient, server.grpc):
                tensor = library.InferInput("input", images.shape, "FP32")
                tensor.set_data_from_numpy(images)
                client = library.InferenceServerClient(url)
                found = client.infer(model, [tensor]).as_numpy("logits")
                client.close()
                assert np.array_equal(found, expected)


def test_is_the_version_that_we_say(server):
    client = httpclient.InferenceServerClient(server.http)
    version = client.get_server_metadata()["version"]
    client.close()
    assert version == versions.EMBEDDED.triton


def test_listens_on_the_loopback_address_only(server):
    ports = set(ports_of(server))
    listening = [x for x in psutil.net_connections("tcp") if x.status == "LISTEN"]
    addresses = {x.laddr.ip for x in listening if x.laddr.port in ports}
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}  # one address, written twice
    assert len(ports) == 3 and addresses


def test_stop_leaves_nothing(make_repository):
    before = triton_processes()
    server = embedded_triton.start(make_repository({"double": DOUBLE}))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert np.array_equal(double(server, x), 2 * x)
    assert shared_memory(shm_prefix(server))
    server.stop()
    server.stop()  # a second time does nothing
    assert not server.is_alive()
    assert triton_processes() == before
    assert not shared_memory(shm_prefix(server))
    ports = ports_of(server)  # which are free again
    embedded_triton.start(models=[], ports=ports).stop()


OWNER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
import embedded_triton
server = embedded_triton.start(sys.argv[1])
print(server.http, flush=True)
time.sleep(600)
"""


def start_owner(repository):
    """A process that starts a server on this repository, and keeps it."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(repository)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for_its_server(owner):
    assert owner.stdout.readline().startswith("127.0.0.1:")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ends_with_its_owner(make_repository, number):
    before = triton_processes()
    owner = start_owner(make_repository({"double": DOUBLE}))
    wait_for_its_server(owner)
    assert len(triton_processes()) > len(before)
    owner.send_signal(number)
    owner.wait(timeout=60)
    assert wait_until(lambda: triton_processes() == before)
    assert wait_until(lambda: not shared_memory(f"triton-{owner.pid}-"))


def test_twenty_starts_and_stops_leave_nothing(make_repository):
    before = triton_processes()
    repository = make_repository({"double": DOUBLE})
    x = np.ones((1, 4), np.float32)

    def cycle(_):
        with embedded_triton.start(repository) as server:
            assert np.array_equal(double(server, x), 2 * x)
        return shm_prefix(server)

    with ThreadPoolExecutor(10) as pool:
        prefixes = list(pool.map(cycle, range(20)))
    assert triton_processes() == before
    assert not any(map(shared_memory, prefixes))


def test_five_killed_owners_leave_nothing(make_repository):
    before = triton_processes()
    repository = make_repository({"double": DOUBLE})
    owners = [start_owner(repository) for _ in range(5)]
    for owner in owners:
        wait_for_its_server(owner)
    for owner in owners:
        owner.kill()
        owner.wait()
    assert wait_until(lambda: triton_processes() == before, seconds=40)
    assert not any(shared_memory(f"triton-{owner.pid}-") for owner in owners)


def test_a_request_to_a_server_that_is_killed_ends_with_an_error(artifacts):
    server = embedded_triton.start(models=["classifier_onnx"])
    client = grpcclient.InferenceServerClient(server.grpc)
    tensor = grpcclient.InferInput("input", (32, 3, 224, 224), "FP32")
    tensor.set_data_from_numpy(np.zeros((32, 3, 224, 224), np.float32))
    answers = queue.Queue()
    client.async_infer(
        "classifier_onnx", [tensor], callback=lambda result, error: answers.put(error)
    )
    time.sleep(0.1)  # the run itself takes longer
    kill(server)
    assert "UNAVAILABLE" in str(answers.get(timeout=20))
    server.stop()


def test_a_killed_server_takes_its_stubs_along(make_repository):
    before = triton_processes()
    server = embedded_triton.start(make_repository({"double": DOUBLE}))
    kill(server)
    assert wait_until(lambda: not server.is_alive())
    server.stop()
    assert triton_processes() == before
    assert not shared_memory(shm_prefix(server))


def test_two_servers_do_not_collide(make_repository):
    repository = make_repository({"double": DOUBLE})
    with (
        embedded_triton.start(repository) as one,
        embedded_triton.start(repository) as two,
    ):
        x = np.ones((1, 4), np.float32)
        assert np.array_equal(double(one, x), double(two, x))


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TritonServerError, match=f"port {port} on 127.0.0.1 cannot"):
            embedded_triton.start(models=[], ports=(port, port + 1, port + 2))


def test_a_missing_repository_is_named():
    with pytest.raises(FileNotFoundError, match="no model repository at /no/such"):
        embedded_triton.start("/no/such")


def test_a_failed_start_says_why_and_where_the_log_is(make_repository):
    repository = make_repository({"double": 'backend: "onnxruntime"\nmax_batch: 3\n'})
    with pytest.raises(TritonServerError) as failure:
        embedded_triton.start(repository, check=False)
    message = str(failure.value)
    assert 'has no field named "max_batch"' in message
    (log,) = (word for word in message.split() if ".log" in word)
    assert Path(log.rstrip(",")).exists()


def test_a_server_that_does_not_get_ready_in_time_is_stopped():
    before = triton_processes()
    with pytest.raises(TritonServerError, match="was not ready after 0 s"):
        embedded_triton.start(models=[], timeout=0)
    assert triton_processes() == before


def test_an_interrupted_start_leaves_nothing(monkeypatch):
    def interrupt(http):
        raise KeyboardInterrupt

    before = triton_processes()
    monkeypatch.setattr(embedded_triton.server, "_is_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        embedded_triton.start(models=[])
    assert triton_processes() == before


def test_a_forked_child_does_not_keep_the_server():
    with embedded_triton.start(models=[]) as server:
        child = os.fork()
        if child == 0:  # holds what it inherits until it is killed
            time.sleep(600)
            os._exit(0)
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 10
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_proxy_does_not_come_between(monkeypatch, make_repository):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with embedded_triton.start(make_repository({"double": DOUBLE})) as server:
        client = grpcclient.InferenceServerClient(server.grpc)
        assert client.is_server_ready()
        client.close()


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
    with pytest.raises(TritonServerError, match="run notebooks/00_check_your_machine"):
        embedded_triton.start(models=[])


def test_a_python_without_shared_library_is_refused(broken_environment, monkeypatch):
    monkeypatch.setattr(system.sysconfig, "get_config_var", lambda name: "none")
    monkeypatch.setattr(system.sys, "base_prefix", "/nowhere")
    with pytest.raises(TritonServerError, match="apt install libpython3"):
        embedded_triton.install()


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
    assert (tmp_path / "venv/backends/onnxruntime/model.py").exists()
    embedded_triton.install()
    assert len(commands) == 2
    requirements.write_text("one==2\n")
    embedded_triton.install()
    assert len(commands) == 4
    monkeypatch.setattr(installation.sys, "version_info", (3, 13, 0))
    requirements.write_text("one==3\n")
    with pytest.raises(TritonServerError, match=r"Python 3\.11 or 3\.12"):
        embedded_triton.install()
    assert script.exists()  # a refusal removes nothing


def test_one_bad_model_need_not_take_the_others_with_it(make_repository):
    repository = make_repository({"double": DOUBLE, "bad": 'backend: "nosuch"\n'})
    with pytest.raises(TritonServerError, match="--exit-on-error=false"):
        embedded_triton.start(repository, check=False)
    x = np.ones((1, 4), np.float32)
    arguments = ["--exit-on-error=false", "--strict-readiness=false"]
    with embedded_triton.start(repository, arguments=arguments, check=False) as server:
        assert np.array_equal(double(server, x), 2 * x)
    with embedded_triton.start(repository, models=["double"]) as server:
        client = httpclient.InferenceServerClient(server.http)
        with pytest.raises(InferenceServerException, match="unable to find backend"):
            client.load_model("bad")
        client.close()
        assert np.array_equal(double(server, x), 2 * x)


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
        prefix = f"--backend-config=onnxruntime,shm-region-prefix-name={{value}}"
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
        assert np.array_equal(double(server, x), 2 * x)
        _, *command = server.command
    assert triton_processes() == before
    assert command == json.loads(docker.read_text())
    assert ("--gpus=all" in command) == bool(gpus)
    image = command.index(versions.CONTAINER.where)
    assert command[:2] == ["run", "--rm"]
    assert f"--volume={repository}:/models:ro" in command[:image]
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


def test_attach_uses_a_server_and_leaves_it_alone(server):
    other = embedded_triton.attach(server.http)
    assert other.http == server.http
    other.stop()
    assert server.is_alive()


def test_attach_says_what_is_wrong(server):
    with pytest.raises(TritonServerError, match="is this the HTTP port"):
        embedded_triton.attach(server.grpc)
    with pytest.raises(ValueError, match="not of the form host or host:port"):
        embedded_triton.attach("http://127.0.0.1:8000")
    with pytest.raises(TritonServerError, match="no Triton server is ready at 127"):
        embedded_triton.attach("127.0.0.1:9")


def test_serve_loads_a_model_into_a_server_elsewhere(monkeypatch, make_repository):
    repository = make_repository({"double": DOUBLE})
    with embedded_triton.start(repository, models=[]) as elsewhere:
        monkeypatch.setenv("TUTORIAL_TRITON", elsewhere.http)
        served = embedded_triton.serve(["double"])
        x = np.ones((1, 4), np.float32)
        assert np.array_equal(double(served, x), 2 * x)
        with pytest.raises(TritonServerError, match="cannot load nosuch"):
            embedded_triton.serve(["nosuch"])
