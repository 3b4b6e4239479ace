"""What the balancer passes and refuses, and what a client repeats."""

import json
import os
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import embedded_triton
from conftest import taught
from helpers import balancer, paths
from tools import run_series

NOTEBOOK = paths.NOTEBOOKS / "17_scale_out.ipynb"


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


# ---------------------------------------------------------------------- the door


def configure(replicas):
    """What the lesson's cells define up to its configuration, for these servers."""
    names = {"embedded_triton": embedded_triton, "live": False, "replicas": replicas}
    names = taught(NOTEBOOK.stem, "def list_servers(", **names)
    return taught(NOTEBOOK.stem, "CONFIG = f", **names)


TOKEN = "a-token"


def test_a_health_check_asks_whether_a_server_is_ready():
    assert "option httpchk GET /v2/health/ready\n" in configure([])["CONFIG"]


@pytest.fixture(scope="module")
def door(server, tmp_path_factory):
    """The notebook's door in front of one server; yields address and certificate."""
    if not balancer.find_haproxy():
        pytest.skip("HAProxy is not installed: apt install haproxy")
    folder = tmp_path_factory.mktemp("door")
    both, certificate = folder / "server.pem", folder / "server.crt"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    command += " -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command = [*command.split(), "-keyout", both, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(certificate.read_text() + both.read_text())
    names = configure([server])
    names = taught(NOTEBOOK.stem, "DOOR = rf", **names, both=both, os=os)
    with balancer.start(names["CONFIG"] + names["DOOR"], TOKEN=TOKEN):
        yield names["https"], certificate


MODEL = "/v2/models/classifier_onnx"
PASSED = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    *(
        f"{MODEL}{version}{what}"
        for version in ("", "/versions/1", "/versions/12")
        for what in ("", "/ready", "/infer", "/generate", "/generate_stream")
    ),
    "/v2/models/resnet-50.fp16/infer",  # a name that Triton allows
]
REFUSED = [
    *(
        f"{MODEL}{version}{what}"
        for version in ("", "/versions/1")
        for what in ("/config", "/stats", "/trace/setting", "/ready/", "/inferior")
    ),
    f"{MODEL}/versions",
    f"{MODEL}/versions/one/infer",
    "/v2/models/stats",  # of all models, though it looks like a model's metadata
    "/v2/models",
    "/v2/repository/index",
    "/v2/repository/models/classifier_onnx/load",
    "/v2/repository/models/classifier_onnx/unload",
    "/v2/repository/s3/models/classifier_onnx/load",
    *(
        f"/v2/{kind}sharedmemory{region}/{what}"
        for kind in ("system", "cuda")
        for region in ("", "/region/pixels")
        for what in ("status", "register", "unregister")
    ),
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/health/live/../../repository/index",
    f"{MODEL}%2fconfig",
    f"/x{MODEL}/infer",
    "/metrics",
    "/",
]


def get_status(door, path, method="GET", token=TOKEN):
    """HTTP status of a request at the door, whoever answers it."""
    https, certificate = door
    url = f"https://{https}{path}"
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, method=method, headers=headers)
    trusted = ssl.create_default_context(cafile=certificate)
    try:
        with urllib.request.urlopen(request, context=trusted) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_door_passes_over_http_what_is_the_clients(door):
    """The paths are those of Triton's http_server.cc; a path that passes may still be
    refused by Triton, as a request without a body is, but never with a 403."""
    assert get_status(door, MODEL) == get_status(door, f"{MODEL}/versions/1") == 200
    assert get_status(door, f"{MODEL}/versions/1/ready") == 200
    for method in "GET", "POST":
        for path in PASSED:
            assert get_status(door, path, method) not in (401, 403, 503), path
        for path in REFUSED:
            assert get_status(door, path, method) == 403, path


def test_the_door_needs_the_token(door):
    for token in "", "guess", TOKEN[:-1], f"{TOKEN}s":
        assert get_status(door, "/v2/health/ready", token=token) == 401, token


def test_the_door_passes_over_grpc_what_is_the_clients(door):
    """Every method of the service; one that a later version adds is refused."""
    https, certificate = door
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
    passed, refused = set(), set()
    with grpc.secure_channel(https, trusted) as channel:
        for method in service.methods:
            ask = channel.unary_unary(f"/{service.full_name}/{method.name}")
            known = [("authorization", f"Bearer {TOKEN}")]
            code = grpc.StatusCode.OK
            try:
                ask(b"", metadata=known, timeout=10)
            except grpc.RpcError as error:
                code = error.code()
            assert code is not grpc.StatusCode.UNAVAILABLE, method.name
            denied = code is grpc.StatusCode.PERMISSION_DENIED
            (refused if denied else passed).add(method.name)
            with pytest.raises(grpc.RpcError) as failed:
                ask(b"", timeout=10)
            assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert passed == {
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
    }
    assert refused == {x.name for x in service.methods} - passed


# ------------------------------------------------------------------- the repeats


@pytest.fixture
def failing_server():
    """A gRPC server that fails as often as its ``codes`` say, and then answers."""

    class Server(grpc.GenericRpcHandler):
        codes, asked = [], 0

        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(self.answer)

        def answer(self, request, context):
            self.asked += 1
            if self.codes:
                context.abort(self.codes.pop(0), "lost")
            return b""

    handler = Server()
    server = grpc.server(
        ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", -1)]
    )
    server.add_generic_rpc_handlers([handler])
    handler.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield handler
    server.stop(None)


def infer(client, side=224):
    tensor = grpcclient.InferInput("input", [1, 3, side, side], "FP32")
    tensor.set_data_from_numpy(np.zeros(tensor.shape(), np.float32))
    return client.infer("classifier", [tensor])


LOST, BROKEN = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("codes", "asked"), [([LOST] * 4, 5), ([BROKEN], 2), ([LOST, BROKEN, LOST], 4)]
)
def test_what_was_lost_is_asked_again(connect, failing_server, codes, asked):
    failing_server.codes = list(codes)
    with connect(failing_server.url) as client:
        infer(client)
    assert failing_server.asked == asked


@pytest.mark.parametrize(
    ("codes", "asked"),
    [
        ([LOST] * 5, 5),  # attempts are few: repeats add to an overload
        ([BROKEN] * 2, 2),
        ([grpc.StatusCode.INVALID_ARGUMENT], 1),  # asking again would not help
    ],
)
def test_what_fails_again_is_an_error(connect, failing_server, codes, asked):
    failing_server.codes = list(codes)
    with connect(failing_server.url) as client:
        with pytest.raises(InferenceServerException, match="lost"):
            infer(client)
    assert failing_server.asked == asked


def test_a_request_above_the_limit_is_sent_once(connect, failing_server):
    failing_server.codes = [LOST]
    with connect(failing_server.url, largest_request=256 * 1024) as client:
        with pytest.raises(InferenceServerException, match="lost"):
            infer(client)
    assert failing_server.asked == 1
    with connect(failing_server.url) as client:  # 19 MB: no limit of a message's size
        infer(client, 1260)


# ------------------------------------------------------------------- the buffers


@pytest.mark.parametrize(
    ("setting", "answered"),
    [("", ["lost", "healthy"]), ("    tune.bufsize 1048576\n", ["healthy", "lost"])],
    ids=["16 kB", "1 MB"],
)
def test_a_request_that_waits_holds_up_its_connection(
    failing_server, setting, answered
):
    """What docs/several_servers.md says. Two requests on one connection: the first goes
    to a server that is gone, where HAProxy tries for seconds, the second to a healthy
    one. With small buffers the second is not read before the first has failed."""
    if not balancer.find_haproxy():
        pytest.skip("HAProxy is not installed: apt install haproxy")
    gone = f"127.0.0.1:{embedded_triton.free_ports(1)[0]}"
    addresses = gone, failing_server.url
    servers = [SimpleNamespace(http=x, grpc=x, ports=[0]) for x in addresses]
    names = configure(servers)
    config = re.sub(r" +default-server .+\n", "", names["CONFIG"])
    config = re.sub(r" check port 0| check-proto h1", "", config)
    config = config.replace("leastconn", "roundrobin")
    config = config.replace("global\n", f"global\n{setting}")
    order = []
    with balancer.start(config), grpc.insecure_channel(names["grpc"]) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        calls = []
        for name in "lost", "healthy":
            calls.append(ask.future(bytes(602_000), timeout=30))
            calls[-1].add_done_callback(lambda _, name=name: order.append(name))
            time.sleep(0.5)  # the first is on its way before the second
        assert calls[0].code() is grpc.StatusCode.UNAVAILABLE
        assert calls[1].result() == b""
        while len(order) < 2:
            time.sleep(0.01)
    assert order == answered
