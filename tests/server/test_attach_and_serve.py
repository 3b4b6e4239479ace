"""A server that runs already is used, and left alone."""

import urllib.request

import numpy as np
import pytest
import tritonclient.http as httpclient

import embedded_triton
from conftest import DOUBLE, ask_to_double, started
from embedded_triton import TritonServerError

pytestmark = pytest.mark.server


def test_attach_uses_a_server_and_leaves_it_alone(server):
    other = embedded_triton.attach(server.http)
    assert other.http == server.http
    other.stop()
    assert server.is_alive()


def test_a_proxy_does_not_come_between_a_server_that_runs(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the first proxies
    for host in "127.0.0.1", "localhost":
        address = server.http.replace("127.0.0.1", host)
        assert embedded_triton.attach(address).is_alive()


def test_attach_takes_the_ports_that_triton_has_by_default(monkeypatch):
    monkeypatch.setattr(embedded_triton.server, "_is_ready", lambda http: True)
    server = embedded_triton.attach("triton.lan")
    assert server.http == "triton.lan:8000" and server.ports == [8000, 8001, 8002]
    assert embedded_triton.attach("triton.lan:9000").ports == [9000, 9001, 9002]


def test_attach_says_what_is_wrong(server):
    with pytest.raises(TritonServerError, match="is this the HTTP port"):
        embedded_triton.attach(server.grpc)
    with pytest.raises(ValueError, match="not of the form host or host:port"):
        embedded_triton.attach("http://127.0.0.1:8000")
    with pytest.raises(TritonServerError, match="no Triton server is ready at 127"):
        embedded_triton.attach("127.0.0.1:9")


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch):
    def hang(url, timeout=None):
        assert timeout, "this would wait for ever"
        raise TimeoutError

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    with pytest.raises(TritonServerError, match="no Triton server is ready"):
        embedded_triton.attach("127.0.0.1:9")


def test_serve_loads_a_model_into_a_server_elsewhere(monkeypatch, make_repository):
    repository = make_repository({"double": DOUBLE})
    with started(repository, models=[]) as elsewhere:
        with httpclient.InferenceServerClient(elsewhere.http) as client:
            assert not client.is_model_ready("double")
        monkeypatch.setenv("TUTORIAL_TRITON", elsewhere.http)
        served = embedded_triton.serve(["double"])
        x = np.ones((1, 4), np.float32)
        assert np.array_equal(ask_to_double(served, x), 2 * x)
        with pytest.raises(TritonServerError, match="cannot load nosuch"):
            embedded_triton.serve(["nosuch"])
