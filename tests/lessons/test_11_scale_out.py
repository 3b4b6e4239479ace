"""The balancer comes up, gives reasons, never stays; the plan agrees with theory."""

import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import tritonclient.grpc as grpcclient

import embedded_triton
from conftest import taught
from helpers import balancer, paths
from tools import run_series

LESSON = "11_scale_out"
NOTEBOOK = paths.NOTEBOOKS / f"{LESSON}.ipynb"
TOKEN = "a-long-secret"


def test_nothing_was_lost_in_the_recording():
    recorded = json.loads(balancer.RECORDING.read_text())
    assert all(run["lost"] == 0 for run in recorded["with_retry"].values())
    assert not any(error for _, _, error in recorded["rolling"]["answers"])
    assert {"processor", "HAProxy", "Triton"} <= recorded["environment"].keys()


@pytest.mark.slow
def test_the_notebook_shows_the_recording_without_haproxy(artifacts, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HAPROXY", "")
    monkeypatch.setattr(run_series, "EXECUTED", paths.LOGS)
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    found = run_series.execute(NOTEBOOK)
    text = "".join(
        output.get("text", "") for x in found.cells for output in x.get("outputs", ())
    )
    assert "apt install haproxy" in text
    for lost in "HTTP: 0 lost", "gRPC: 0 lost", "lost: 0":
        assert lost in text


@pytest.fixture(scope="module")
def planning():
    """What the cell of the notebook defines that plans."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    namespace = {}
    for cell in cells:
        if cell.cell_type == "code" and re.search(
            r"def (simulate_p99|plan_replicas)\(", cell.source
        ):
            exec(cell.source, namespace)
    return namespace


def test_p99_is_that_of_queueing_theory(planning):
    service = np.random.default_rng(1).exponential(0.01, 100_000)
    found = planning["simulate_p99"](50, 1, service, requests=200_000)
    assert found == pytest.approx(np.log(100) / (100 - 50), rel=0.1)  # M/M/1
    assert planning["simulate_p99"](1, 1, [0.01]) == pytest.approx(
        0.01, rel=0.1
    )  # nobody waits


def test_a_plan_keeps_its_promise_with_one_to_lose(planning):
    seconds = [0.01, 0.012]
    needed = planning["plan_replicas"](500, 0.05, seconds)
    assert planning["simulate_p99"](500, needed - 1, seconds) <= 0.05
    assert planning["simulate_p99"](500, needed - 2, seconds) > 0.05
    assert planning["plan_replicas"](1, 0.05, seconds) == 2


def test_no_plan_for_a_promise_that_nobody_can_keep(planning):
    with pytest.raises(ValueError, match="takes 10 ms alone"):
        planning["plan_replicas"](10, 0.005, [0.01])
    # One in a hundred is slow: whether that breaks a p99 is a matter of chance, and
    # the search ends either way.
    for slow in range(95, 101):
        try:
            assert planning["plan_replicas"](50, 0.1, [0.01] * slow + [0.5]) >= 2
        except ValueError as error:
            assert "takes 500 ms alone" in str(error)


# --------------------------------------------------------------------- the door


@pytest.fixture(scope="module")
def door(null_server, tmp_path_factory):
    """The lesson's door in front of a server: its address, and the certificate."""
    if not balancer.available():
        pytest.skip("HAProxy is not installed: apt install haproxy")
    ARTIFACTS = tmp_path_factory.mktemp("door")
    made = taught(
        LESSON,
        "openssl req",
        paths=SimpleNamespace(ARTIFACTS=ARTIFACTS),
        subprocess=subprocess,
    )
    replicas = [null_server]
    addresses = [f"127.0.0.1:{x}" for x in embedded_triton.free_ports(4)]
    ports = SimpleNamespace(free_ports=lambda _: [x[10:] for x in addresses])
    servers = taught(LESSON, "def servers(", replicas=replicas)["servers"]
    backends = taught(LESSON, "BACKENDS = ", embedded_triton=ports, servers=servers)[
        "BACKENDS"
    ]
    names = {"https": addresses[3], "both": made["both"], "os": os, "live": False}
    config = taught(LESSON, "GENERAL = ")["GENERAL"]
    config += taught(LESSON, "DOOR = ", **names)["DOOR"] + backends
    with balancer.start(config, TOKEN=TOKEN):
        yield addresses[3], made["certificate"]


MODEL = "/v2/models/nothing"
PASS = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    MODEL,
    f"{MODEL}/ready",
    f"{MODEL}/versions/1",
    f"{MODEL}/versions/1/ready",
]
REFUSED = [
    f"{MODEL}/config",
    f"{MODEL}/versions/1/config",
    f"{MODEL}/stats",
    f"{MODEL}/versions/1/stats",
    "/v2/models/stats",
    f"{MODEL}/trace/setting",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/repository/index",
    "/v2/repository/models/nothing/load",
    "/v2/repository/models/nothing/unload",
    "/v2/systemsharedmemory/status",
    "/v2/systemsharedmemory/region/mine/register",
    "/v2/cudasharedmemory/status",
    "/metrics",
    "//v2/models/nothing",
    f"{MODEL}/",
    f"{MODEL}/ready/../config",
    "/v2/health/ready/../../models/nothing/config",
    "/v2/models/nothing%2Fconfig",
]


def get_status(door, path, token=TOKEN, data=None):
    address, certificate = door
    request = urllib.request.Request(
        f"https://{address}{path}", data, {"Authorization": f"Bearer {token}"}
    )
    trust = ssl.create_default_context(cafile=certificate)
    try:
        with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.server
def test_the_door_lets_clients_ask_and_nobody_operate(door):
    assert {path: get_status(door, path) for path in PASS} == dict.fromkeys(PASS, 200)
    found = {
        (path, data): get_status(door, path, data=data)
        for path in REFUSED
        for data in (None, b"{}")
    }
    assert set(found.values()) == {403}, found
    assert {get_status(door, path, "guess") for path in PASS + REFUSED} == {401}
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0] * 4}
    request = json.dumps({"inputs": [tensor]}).encode()
    for path in MODEL, f"{MODEL}/versions/1":
        assert get_status(door, f"{path}/infer", data=request) == 200


@pytest.mark.server
def test_the_door_does_the_same_for_grpc(door):
    address, certificate = door
    client = grpcclient.InferenceServerClient(
        address, ssl=True, root_certificates=str(certificate)
    )
    token = {"authorization": f"Bearer {TOKEN}"}
    tensor = grpcclient.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))

    def status(call, *arguments, headers=token):
        try:
            call(*arguments, headers=headers)
        except grpcclient.InferenceServerException as error:
            return error.status().removeprefix("StatusCode.")

    passes = {
        client.is_server_live: (),
        client.is_server_ready: (),
        client.get_server_metadata: (),
        client.is_model_ready: ("nothing",),
        client.get_model_metadata: ("nothing",),
        client.infer: ("nothing", [tensor]),
    }
    refused = {
        client.get_model_config: ("nothing",),
        client.get_inference_statistics: (),
        client.get_model_repository_index: (),
        client.load_model: ("nothing",),
        client.unload_model: ("nothing",),
        client.get_trace_settings: (),
        client.update_trace_settings: (),
        client.get_log_settings: (),
        client.update_log_settings: ({"log_info": True},),
        client.get_system_shared_memory_status: (),
        client.register_system_shared_memory: ("mine", "/mine", 4),
        client.unregister_system_shared_memory: (),
        client.get_cuda_shared_memory_status: (),
        client.unregister_cuda_shared_memory: (),
    }
    assert not any(status(call, *x) for call, x in passes.items())
    answers = {call.__name__: status(call, *x) for call, x in refused.items()}
    assert set(answers.values()) == {"PERMISSION_DENIED"}, answers
    guess = {"authorization": "Bearer guess"}
    unknown = {status(call, *x, headers=guess) for call, x in passes.items()}
    assert unknown == {"UNAUTHENTICATED"}
    answered = []
    client.start_stream(lambda result, error: answered.append(error), headers=token)
    client.async_stream_infer("nothing", [tensor])
    client.stop_stream()
    assert answered == [None]
    client.close()


def test_the_balancer_of_the_lesson_asks_ready():
    config = taught(LESSON, "GENERAL = ")["GENERAL"]
    assert "option httpchk GET /v2/health/ready\n" in config
