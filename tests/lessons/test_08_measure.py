"""The load generators measure what they say, and give a reason where they cannot."""

import subprocess
import time

import numpy as np
import pytest

import embedded_triton
import repository_check
from helpers import load_client, metrics, paths, perf_analyzer
from helpers.load_client import LoadError
from helpers.null_model import write_null_model
from tools import benchmark

CONFIG = """\
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
"""
POLICY = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
QUICK = {"window": 0.3}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Two models that answer with zeros; the second takes 50 ms, with a short queue."""
    repository = tmp_path_factory.mktemp("repository")
    write_null_model(repository, "nothing", CONFIG)
    write_null_model(repository, "slow", CONFIG.replace("dynamic_batching { }", POLICY))
    slow = repository / "slow/1/model.py"
    text = slow.read_text().replace(
        "return [self", "time.sleep(0.05)\n        return [self"
    )
    slow.write_text(f"import time\n{text}")
    with embedded_triton.start(repository) as server:
        yield server


@pytest.mark.parametrize(
    "way",
    [
        {"concurrency": 4},
        {"protocol": "http"},
        {"shared_memory": "system"},
        {"batch": 4},
    ],
    ids=str,
)
def test_a_closed_loop_obeys_littles_law(server, way):
    row = perf_analyzer.measure(server, "nothing", **way, **QUICK)
    requests = row["images/s"] / way.get("batch", 1)
    under_way = requests * row["mean ms"] / 1000
    assert under_way == pytest.approx(way.get("concurrency", 1), rel=0.3)
    assert row["low"] <= row["images/s"] <= row["high"]
    assert row["p50 ms"] <= row["p90 ms"] <= row["p95 ms"] <= row["p99 ms"]
    assert row["queue ms"] + row["compute ms"] < row["mean ms"]
    assert 0 < row["runs"] <= row["inferences"]


def test_an_open_loop_has_the_rate_that_it_is_told(server):
    row = perf_analyzer.measure(server, "nothing", rate=100)
    assert row["images/s"] == pytest.approx(100, rel=0.3)


def test_our_client_agrees_with_perf_analyzer(server):
    ours = load_client.send_requests(server, "slow", concurrency=1, seconds=2)
    theirs = perf_analyzer.measure(server, "slow", window=0.5)
    assert ours["p50 ms"] == pytest.approx(theirs["p50 ms"], rel=0.2)
    assert ours["refused"] == 0 and ours["errors"] == {}


def test_refusals_are_counted(server):
    row = load_client.send_requests(server, "slow", rate=200, seconds=1)
    assert row["refused"] > 0.5
    (message,) = row["errors"]
    assert "Exceeds maximum queue size" in message
    assert sum(row["errors"].values()) == round(row["refused"] * row["requests"])


def test_inputs_are_sent_and_answers_compared(server, tmp_path):
    x, y = np.ones((3, 4), np.float32), np.zeros((3, 2), np.float32)
    file = perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y})
    assert perf_analyzer.measure(server, "nothing", data=file, **QUICK)["requests"]
    file = perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y + 1})
    with pytest.raises(LoadError, match="an answer differs from what the input file"):
        perf_analyzer.measure(server, "nothing", data=file, **QUICK)
    with pytest.raises(ValueError, match=r"numbers of items differ: \[3, 2\]"):
        perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y[:2]})


def test_what_went_wrong_is_said(server):
    with pytest.raises(LoadError, match="the server has no model nosuch ready"):
        perf_analyzer.measure(server, "nosuch")
    with pytest.raises(LoadError, match="which counts them"):
        perf_analyzer.measure(server, "slow", concurrency=16)
    with pytest.raises(LoadError, match="no request ended in a window: make it longer"):
        perf_analyzer.measure(server, "slow", window=0.005)
    with pytest.raises(LoadError, match=r"nosuch: .*is not found"):
        load_client.send_requests(
            server, "nosuch", {"x": np.ones((1, 4), np.float32)}, seconds=0.1
        )


def test_a_server_that_is_gone_is_named(server):
    gone = embedded_triton.Server("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9")
    for protocol in "http", "grpc":
        with pytest.raises(LoadError, match="nobody answers there"):
            perf_analyzer.measure(gone, "nothing", protocol=protocol)


def test_windows_that_disagree_are_told(capsys):
    perf_analyzer._warn_of_spread("m, grpc, 1", [100, 95, 105])
    assert not capsys.readouterr().err
    perf_analyzer._warn_of_spread("m, grpc, 1", [100, 60, 105])
    assert "the windows gave 100, 60, 105 images/s" in capsys.readouterr().err


def test_the_shown_command_can_be_pasted(server, tmp_path):
    report = tmp_path / "report.csv"
    arguments = perf_analyzer.command(server.grpc, "nothing", report=report, **QUICK)
    text = perf_analyzer.format_command(arguments)
    assert str(paths.ROOT) not in text
    subprocess.run(text, shell=True, cwd=paths.NOTEBOOKS, check=True)
    assert "Inferences/Second" in report.read_text()


@pytest.fixture
def no_perf_analyzer(monkeypatch, tmp_path):
    """A server environment without perf_analyzer; returns where it would be."""
    perf_analyzer.find_perf_analyzer.cache_clear()
    monkeypatch.setattr(embedded_triton.paths, "ENVIRONMENT", tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    yield tmp_path / "bin" / "perf_analyzer"
    perf_analyzer.find_perf_analyzer.cache_clear()


def test_our_client_takes_the_place_of_perf_analyzer(server, no_perf_analyzer):
    row = perf_analyzer.measure(server, "nothing", concurrency=2)
    assert row["images/s"] > 0 and row["refused"] == 0
    with pytest.raises(LoadError, match="and no perf_analyzer on PATH"):
        perf_analyzer.measure(server, "nothing", shared_memory="system")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("#!/bin/sh\necho libb64.so.0d: cannot open >&2", "libb64.so.0d: cannot open"),
        ("\x7fELF of another processor", "Exec format error"),
    ],
)
def test_a_perf_analyzer_that_cannot_run_is_named(no_perf_analyzer, program, reason):
    no_perf_analyzer.write_text(program)
    no_perf_analyzer.chmod(0o755)
    with pytest.raises(LoadError, match=f"cannot run here: .*{reason}"):
        perf_analyzer.find_perf_analyzer()


def test_metrics_are_read_again_and_again(server):
    time.sleep(0.5)  # they follow the answers of the test before
    before = metrics.read_metrics(server)["nv_inference_count"]
    with metrics.watch_metrics(server, interval=0.05) as readings:
        row = load_client.send_requests(server, "nothing", seconds=0.5)
    counts = [x["nv_inference_count"] for x in readings]
    assert counts == sorted(counts) and len(counts) > 3
    time.sleep(0.5)  # the metrics follow the answer
    after = metrics.read_metrics(server)["nv_inference_count"]
    assert after - before == row["requests"]


def test_the_benchmark_summarises_what_was_measured(artifacts):
    folder = benchmark.repository()
    assert not repository_check.check(folder)
    assert "dynamic_batching" in (folder / "resnet50/config.pbtxt").read_text()
    assert "dynamic_batching" not in (folder / "unbatched/config.pbtxt").read_text()
    pictures = {"in this process": [40, 50, 60], "gRPC": [54, 55, 90]}
    images = {
        "in this process": [20, 10],
        "gRPC, 4 under way": [19, 12],
        "gRPC, shared memory, 4 under way": [20, 10],
        "batcher off, 8 under way": [10, 10],
        "batcher on, 8 under way": [11, 12],
    }
    ratios = benchmark.ratios(pictures, images)
    assert ratios["p50 of a picture over gRPC / in this process"] == [1.1]
    assert ratios["images/s over gRPC / in this process"] == [0.95, 1.2]
    table = benchmark.summary(ratios).loc["images/s with the batcher / without"]
    assert dict(table) == {"median": 1.15, "lowest": 1.1, "highest": 1.2}
