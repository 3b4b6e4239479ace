"""The metrics of a server, read while it works."""

import http.server
import threading
import time
from types import SimpleNamespace

import pytest

import embedded_triton
from helpers import load_client, metrics
from helpers.load_client import LoadError

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
    """A server that publishes PAGE, and from its third answer on breaks off."""

    class Page(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self):
            Page.asked += 1
            assert self.path == "/metrics"
            if Page.asked > 2:
                self.wfile.write(b"no HTTP")
                return
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


def wait_until(done):
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_metrics_are_read_again_and_again(null_server):
    before, begin = count_when_quiet(null_server), time.perf_counter()
    with metrics.watch_metrics(null_server, interval=0.05) as readings:
        row = load_client.send_requests(null_server, "nothing", seconds=0.3)
        wait_until(lambda: len(readings) > 3)
    counts = [x["nv_inference_count"] for x in readings]
    assert counts == sorted(counts)
    times = [x["seconds"] for x in readings]
    assert times == sorted(times)
    assert 0.05 <= times[0] and times[-1] < time.perf_counter() - begin
    expected = before + row["requests"]
    wait_until(
        lambda: metrics.read_metrics(null_server)["nv_inference_count"] == expected
    )
    read = len(readings)
    time.sleep(0.2)
    assert len(readings) == read  # it has stopped


def count_when_quiet(server):
    """Inferences so far, once those of the test before are all counted."""
    counts = [-2, -1]
    while counts[-1] != counts[-2]:
        counts.append(metrics.read_metrics(server)["nv_inference_count"])
        time.sleep(0.5)
    return counts[-1]


def test_a_reading_that_fails_is_told(publisher):
    with (
        pytest.raises(LoadError, match=rf"{publisher.metrics} cannot be read: .*"),
        metrics.watch_metrics(publisher, interval=0.01) as readings,
    ):
        wait_until(lambda: len(readings) == 2)
        time.sleep(0.2)
    gone = embedded_triton.Server("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9")
    with (
        pytest.raises(LoadError, match=r"the metrics at 127.0.0.1:9 cannot be read"),
        metrics.watch_metrics(gone, interval=0.01),
    ):
        time.sleep(0.2)


def test_nothing_is_read_before_the_interval_is_over(null_server):
    with metrics.watch_metrics(null_server, interval=0.6) as readings:
        time.sleep(0.3)
        assert not readings


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch):
    def hang(url, timeout=None):
        assert timeout, "this would wait for ever"
        raise TimeoutError

    monkeypatch.setattr(metrics.urllib.request, "urlopen", hang)
    with pytest.raises(OSError):
        metrics.read_metrics(SimpleNamespace(metrics="127.0.0.1:9"))
