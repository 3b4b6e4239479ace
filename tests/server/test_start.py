"""A server is up, answers as ONNX Runtime does, or says why it is not."""

import os
import socket
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

import embedded_triton
from conftest import DOUBLE, ask_to_double, started
from embedded_triton import TritonServerError, versions

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    ("model", "file"),
    [("classifier_onnx", "classifier.onnx"), ("resnet50", "resnet50.onnx")],
)
def test_answers_as_onnx_runtime_does(artifacts, model, file):
    with started(models=[model]) as server:
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
    ports = set(server.ports)
    listening = [x for x in psutil.net_connections("tcp") if x.status == "LISTEN"]
    addresses = {x.laddr.ip for x in listening if x.laddr.port in ports}
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}  # one address, written twice
    assert len(ports) == 3 and addresses


def test_two_servers_do_not_collide(make_repository):
    repository = make_repository({"double": DOUBLE})
    with (
        started(repository) as one,
        started(repository) as two,
    ):
        x = np.ones((1, 4), np.float32)
        assert np.array_equal(ask_to_double(one, x), ask_to_double(two, x))


def test_a_port_is_handed_out_once():
    many = [port for _ in range(300) for port in embedded_triton.free_ports(3)]
    assert len({*many}) == 900


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
    assert "the server ended with status 1" in message  # it was not waited for
    (log,) = (word for word in message.split() if ".log" in word)
    assert Path(log.rstrip(",")).exists()


def test_a_proxy_does_not_come_between(monkeypatch, make_repository):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.com")
    with started(make_repository({"double": DOUBLE})) as server:
        assert os.environ["no_proxy"] == "example.com,127.0.0.1"
        client = grpcclient.InferenceServerClient(server.grpc)
        assert client.is_server_ready()
        client.close()


def test_one_bad_model_need_not_take_the_others_with_it(make_repository):
    repository = make_repository({"double": DOUBLE, "bad": 'backend: "nosuch"\n'})
    with pytest.raises(TritonServerError, match="--exit-on-error=false"):
        embedded_triton.start(repository, check=False)
    x = np.ones((1, 4), np.float32)
    arguments = ["--exit-on-error=false", "--strict-readiness=false"]
    with started(repository, arguments=arguments, check=False) as server:
        assert np.array_equal(ask_to_double(server, x), 2 * x)
    with started(repository, models=["double"]) as server:
        client = httpclient.InferenceServerClient(server.http)
        with pytest.raises(InferenceServerException, match="unable to find backend"):
            client.load_model("bad")
        client.close()
        assert np.array_equal(ask_to_double(server, x), 2 * x)
