"""Requests that end a server, and the lines of deploy/haproxy.cfg that refuse them."""

import contextlib
import gzip
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from onnx import helper, numpy_helper
from served import answer_of, raw_request
from tritonclient.grpc import service_pb2

import embedded_triton
from conftest import DOUBLE, make_model, save_model, started
from helpers import balancer, paths

pytestmark = pytest.mark.server

MODEL = "/v2/models/double"
INFER = f"{MODEL}/infer"
JSON_LENGTH = "Inference-Header-Content-Length"


# ------------------------------------------------------------------- the requests


def post(body, path=INFER, **headers):
    """The bytes of a request."""
    body = body if isinstance(body, bytes) else body.encode()
    if "Transfer_Encoding" not in headers:
        headers.setdefault("Content_Length", len(body))
    lines = [f"POST {path} HTTP/1.1", "Host: triton"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def with_shape(shape, data="[1, 1, 1, 1]", name="shape"):
    tensor = f'"name": "x", "{name}": {shape}, "datatype": "FP32", "data": {data}'
    return f'{{"inputs": [{{{tensor}}}]}}'


def nested(depth):
    return "[" * depth + "]" * depth


LARGE = f"[{2**40}]"
COMPRESSED = gzip.compress(with_shape(LARGE).encode())
CHUNKS = 700_000 * b"1\r\n \r\n" + b"0\r\n\r\n"
ABORTED, CRASHED = 128 + signal.SIGABRT, 128 + signal.SIGSEGV
DEADLY = {  # the request, how the server ends, and what HAProxy answers
    "shape": (post(with_shape(LARGE)), ABORTED, 400),
    "escaped": (post(with_shape(LARGE, name=r"sh\u0061pe")), ABORTED, 400),
    "compressed": (post(COMPRESSED, Content_Encoding="gzip"), ABORTED, 415),
    "nesting": (post(with_shape("[1, 4]", nested(100_000))), CRASHED, 413),
    "elsewhere": (
        post(nested(400_000), f"{MODEL}/generate", **{JSON_LENGTH: 100}),
        CRASHED,
        413,
    ),
    "chunks": (post(CHUNKS, Transfer_Encoding="chunked"), CRASHED, 411),
}
LATE = with_shape(LARGE).replace("{", f'{{"id": "{9000 * "x"}", ', 1)
REFUSED = {name: (x, status) for name, (x, _, status) in DEADLY.items()} | {
    "above 10 MB": (
        post(b"", Content_Length=10_000_001, **{JSON_LENGTH: 9}),
        413,
    ),
    "JSON above 9,999 bytes": (post(with_shape("[1, 4]", nested(5000))), 413),
    "behind long headers": (post(LATE, X=8000 * "x"), 400),
    **{
        f"{JSON_LENGTH}: {x}": (post(nested(5000), **{JSON_LENGTH: x}), 400)
        for x in ("", "+9", "99999", "99999,9", "nine")
    },
}


def ask(address, request):
    """HTTP status of the answer; None where the connection ends without one.

    A refusal comes after the first bytes, and what follows is not read.
    """
    with socket.create_connection(address.split(":"), timeout=30) as connection:
        connection.sendall(request[:9000])
        if request[9000:] and not select.select([connection], [], [], 0.2)[0]:
            with contextlib.suppress(OSError):
                connection.sendall(request[9000:])
        with contextlib.suppress(ConnectionResetError):
            if answer := connection.recv(100):
                return int(answer.split()[1])


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model ``double`` of as many numbers as there are."""
    folder = tmp_path_factory.mktemp("repository")
    dims = ["batch", "numbers"]
    two = numpy_helper.from_array(np.float32(2), "two")
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    save_model(
        folder,
        "double",
        DOUBLE,
        make_model([node], [("x", dims)], [("y", dims)], [two]),
    )
    return folder


# ------------------------------------------------------------------ without HAProxy


def test_one_request_ends_a_server(repository):
    def end(name):
        with started(repository) as server:
            assert ask(server.http, DEADLY[name][0]) is None
            return server._supervisor.wait(30)

    with ThreadPoolExecutor(3) as pool:
        ends = dict(zip(DEADLY, pool.map(end, DEADLY)))
    assert ends == {name: expected for name, (_, expected, _) in DEADLY.items()}


# --------------------------------------------------------------------- with HAProxy


@pytest.fixture(scope="module")
def front(repository):
    """A server, and the addresses of HAProxy in front of it."""
    if not balancer.find_haproxy():
        pytest.skip("HAProxy is not installed: apt install haproxy")
    config = (paths.ROOT / "deploy/haproxy.cfg").read_text()
    assert config.count(" 5s") == 3
    config = config.replace(" 5s", " 2s")  # a shorter test
    admin = 'global\n    stats socket "${SOCKET}" mode 600 level admin\n'
    http, grpc = (f"127.0.0.1:{port}" for port in embedded_triton.free_ports(2))
    with started(repository) as server:
        addresses = {"TRITON_HTTP": server.http, "TRITON_GRPC": server.grpc}
        with balancer.start(admin + config, HTTP=http, GRPC=grpc, **addresses):
            yield SimpleNamespace(server=server, http=http, grpc=grpc)


@pytest.fixture(autouse=True)
def lives(request):
    """After each test that uses it, the server behind HAProxy answers."""
    yield
    if "front" in request.fixturenames:
        front = request.getfixturevalue("front")
        assert front.server.pid
        assert raw_request(front.http, "double")[0] == 200


@pytest.mark.parametrize("name", REFUSED)
def test_haproxy_refuses(front, name):
    request, status = REFUSED[name]
    assert ask(front.http, request) == status


def test_a_body_without_a_length_is_refused_over_http_2_too(front):
    with grpc.insecure_channel(front.http) as channel:  # its client sends none
        with pytest.raises(grpc.RpcError, match="status: 411"):
            channel.unary_unary(INFER)(with_shape("[1, 4]").encode(), timeout=10)


def test_a_request_has_to_come_in_time(front):
    whole = post(with_shape("[1, 4]"))
    headers = whole.index(b"\r\n\r\n")
    begin = time.monotonic()
    with ThreadPoolExecutor() as pool:
        parts = whole[:headers], whole[: headers + 9]
        assert [*pool.map(lambda x: ask(front.http, x), parts)] == [408, 408]
    assert 1.5 < time.monotonic() - begin < 8


def picture(client, shape=(1, 3 * 224 * 224)):
    tensor = client.InferInput("x", shape, "FP32")
    tensor.set_data_from_numpy(np.ones(shape, np.float32))
    return [tensor]


def test_real_requests_pass(front):
    status, body = raw_request(front.http, "double")
    assert (status, body["outputs"][0]["data"]) == (200, [2, 2, 2, 2])
    assert ask(front.http, post(with_shape("[1, 4]", nested(4000)))) == 500  # Triton's
    for client, address in (httpclient, front.http), (grpcclient, front.grpc):
        with client.InferenceServerClient(address) as connection:
            assert connection.is_model_ready("double")
            found = connection.infer("double", picture(client)).as_numpy("y")
        assert found.nbytes == 602_112 and (found == 2).all()


def test_a_grpc_message_that_follows_its_headers_late_is_measured_too(front):
    request = service_pb2.ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2_600_000])
    request.raw_input_contents.append(bytes(10_400_000))

    def later():
        time.sleep(0.5)
        yield request.SerializeToString()

    options = [("grpc.max_receive_message_length", -1)]
    for address in front.server.grpc, front.grpc:
        with grpc.insecure_channel(address, options) as channel:
            infer = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
            call = infer.future(later(), timeout=10)
            passes = address == front.server.grpc
            assert (call.code() is grpc.StatusCode.OK) == passes, call.details()
            assert call.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def test_over_grpc_the_shape_does_no_harm_and_the_size_is_limited(front):
    """The length of a message has a limit; what a stream sends later has none."""
    large = picture(grpcclient, (1, 2_600_000))
    wrong = picture(grpcclient, (1, 4))
    wrong[0]._input.shape[:] = [1, 2**40]
    with (
        grpcclient.InferenceServerClient(front.server.grpc) as direct,
        grpcclient.InferenceServerClient(front.grpc) as behind,
    ):
        for client in direct, behind:
            _, words = answer_of(lambda x=client: x.infer("double", wrong))
            assert f"Expected {4 * 2**40}, got 16" in words
        assert direct.infer("double", large).as_numpy("y").shape == (1, 2_600_000)
        assert answer_of(lambda: behind.infer("double", large))
        _, words = answer_of(
            lambda: behind.infer("double", wrong, compression_algorithm="gzip")
        )
        assert "status: 415" in words
        answers = []
        behind.start_stream(lambda result, error: answers.append(error))
        for tensors in picture(grpcclient), large:
            behind.async_stream_infer("double", tensors)
        behind.stop_stream()
        assert answers == [None, None]
