"""The metrics of a server, read while it works."""

import io
import threading
import time
from types import SimpleNamespace

import pytest

from helpers import load_client, metrics

SERVER = SimpleNamespace(metrics="127.0.0.1:8002")
TEXT = b"""\
# TYPE nv_inference_count counter
nv_inference_count{model="a",version="1"} 2
nv_inference_count{model="b",version="1"} 3
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
"""


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_metrics_are_read_again_and_again(null_server):
    def count():
        return metrics.read_metrics(null_server)["nv_inference_count"]

    time.sleep(0.5)  # they follow the answers of the test before
    before = count()
    with metrics.watch_metrics(null_server, interval=0.05) as readings:
        row = load_client.send_requests(null_server, "nothing", seconds=0.5)
        wait_until(lambda: len(readings) > 3)
    counts = [x["nv_inference_count"] for x in readings]
    assert counts == sorted(counts)
    wait_until(lambda: count() - before == row["requests"])


def test_metrics_are_summed_over_models(monkeypatch):
    urls = []

    def open_page(url, timeout):
        urls.append(url)
        return io.BytesIO(TEXT)

    monkeypatch.setattr(metrics.urllib.request, "urlopen", open_page)
    found = metrics.read_metrics(SERVER)
    assert found == {"nv_inference_count": 5, "nv_cpu_utilization": 0.5}
    assert urls == ["http://127.0.0.1:8002/metrics"]


def test_readings_have_seconds_since_the_beginning(monkeypatch):
    monkeypatch.setattr(metrics, "read_metrics", lambda server: {})
    begin = time.perf_counter()
    with metrics.watch_metrics(SERVER, interval=0.01) as readings:
        wait_until(lambda: readings)
    assert 0 <= readings[0]["seconds"] <= time.perf_counter() - begin
    with metrics.watch_metrics(SERVER, interval=60) as readings:
        time.sleep(0.3)
    assert not readings


def test_a_server_that_cannot_be_read_is_an_error(monkeypatch):
    tried = threading.Event()

    def fail(server):
        tried.set()
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(metrics, "read_metrics", fail)
    with pytest.raises(load_client.LoadError, match=r"at 127.* read: nobody there"):
        with metrics.watch_metrics(SERVER, interval=0.01):
            assert tried.wait(20)
