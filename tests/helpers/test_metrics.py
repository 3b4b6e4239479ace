"""The metrics of a server, read while it works."""

import http.server
import threading
from types import SimpleNamespace

import pytest

import embedded_triton
from helpers import metrics

PAGE = """\
# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{model="a",version="1"} 3
nv_inference_count{model="b",version="1"} 4
# HELP nv_inference_pending_request_count Instantaneous number of pending requests
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="a",version="1"} 2
"""


@pytest.fixture
def publisher():
    """A server that publishes PAGE."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/metrics"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        yield embedded_triton.Server("127.0.0.1:9", "127.0.0.1:9", address)
        server.shutdown()


def test_metrics_are_summed_over_models(publisher):
    assert metrics.read_metrics(publisher) == {
        "nv_inference_count": 7,
        "nv_inference_pending_request_count": 2,
    }


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch):
    def hang(url, timeout=None):
        assert timeout, "this would wait for ever"
        raise TimeoutError

    monkeypatch.setattr(metrics.urllib.request, "urlopen", hang)
    with pytest.raises(OSError):
        metrics.read_metrics(SimpleNamespace(metrics="127.0.0.1:9"))
