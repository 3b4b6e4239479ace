"""What the balancer passes and refuses, what a client repeats, and whether the plan
agrees with theory."""

import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import nbformat
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


# ---------------------------------------------------------------------- the door


GENERAL = taught("17_scale_out", "GENERAL = ")["GENERAL"]
TOKEN = "a-token"


def test_a_health_check_asks_whether_a_server_is_ready():
    assert "option httpchk GET /v2/health/ready\n" in GENERAL


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
    https = f"127.0.0.1:{embedded_triton.free_ports(1)[0]}"
    (source,) = (
        cell.source
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells
        if "DOOR = " in cell.source
    )
    names = {"https": https, "both": both}
    exec(source.partition("token = ")[0], names)
    check = f"check port {server.ports[0]}"
    backends = (
        f"backend http\n    server r0 {server.http} {check}\n"
        f"backend grpc\n    server r0 {server.grpc} {check} proto h2 check-proto h1\n"
    )
    config = GENERAL + names["DOOR"] + backends
    with balancer.start(config, TOKEN=TOKEN):
        yield https, certificate


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
