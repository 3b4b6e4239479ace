"""perf_analyzer measures what it says, and says what went wrong."""

import numpy as np
import pytest

import embedded_triton
from helpers import load_client, perf_analyzer
from helpers.load_client import LoadError

QUICK = {"window": 0.3}


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
def test_a_closed_loop_obeys_littles_law(null_server, way):
    row = perf_analyzer.measure(null_server, "nothing", **way, **QUICK)
    requests = row["images/s"] / way.get("batch", 1)
    under_way = requests * row["mean ms"] / 1000
    assert under_way == pytest.approx(way.get("concurrency", 1), rel=0.3)
    assert row["low"] <= row["images/s"] <= row["high"]
    assert row["p50 ms"] <= row["p90 ms"] <= row["p95 ms"] <= row["p99 ms"]
    assert row["queue ms"] + row["compute ms"] < row["mean ms"]
    assert 0 < row["runs"] <= row["inferences"]


def test_an_open_loop_has_the_rate_that_it_is_told(null_server):
    row = perf_analyzer.measure(null_server, "nothing", rate=100)
    assert row["images/s"] == pytest.approx(100, rel=0.3)


def test_inputs_are_sent_and_answers_compared(null_server, tmp_path):
    x, y = np.ones((3, 4), np.float32), np.zeros((3, 2), np.float32)
    file = perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y})
    assert perf_analyzer.measure(null_server, "nothing", data=file, **QUICK)["requests"]
    file = perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y + 1})
    with pytest.raises(LoadError, match="an answer differs from what the input file"):
        perf_analyzer.measure(null_server, "nothing", data=file, **QUICK)
    with pytest.raises(ValueError, match=r"numbers of items differ: \[3, 2\]"):
        perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y[:2]})


def test_what_went_wrong_is_said(null_server):
    with pytest.raises(LoadError, match="the server has no model nosuch ready"):
        perf_analyzer.measure(null_server, "nosuch")
    with pytest.raises(LoadError, match="which counts them"):
        perf_analyzer.measure(null_server, "slow", concurrency=16)
    with pytest.raises(LoadError, match="no request ended in a window: make it longer"):
        perf_analyzer.measure(null_server, "slow", window=0.005)
    with pytest.raises(LoadError, match=r"nosuch: .*is not found"):
        load_client.send_requests(
            null_server, "nosuch", {"x": np.ones((1, 4), np.float32)}, seconds=0.1
        )


def test_a_server_that_is_gone_is_named(null_server):
    gone = embedded_triton.Server("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9")
    for protocol in "http", "grpc":
        with pytest.raises(LoadError, match="nobody answers there"):
            perf_analyzer.measure(gone, "nothing", protocol=protocol)


def test_windows_that_disagree_are_told(capsys):
    perf_analyzer._warn_of_spread("m, grpc, 1", [100, 95, 105])
    assert not capsys.readouterr().err
    perf_analyzer._warn_of_spread("m, grpc, 1", [100, 60, 105])
    assert "the windows gave 100, 60, 105 images/s" in capsys.readouterr().err


@pytest.fixture
def no_perf_analyzer(monkeypatch, tmp_path):
    """A server environment without perf_analyzer; returns where it would be."""
    perf_analyzer.find_perf_analyzer.cache_clear()
    monkeypatch.setattr(embedded_triton.paths, "ENVIRONMENT", tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    yield tmp_path / "bin" / "perf_analyzer"
    perf_analyzer.find_perf_analyzer.cache_clear()


def test_our_client_takes_the_place_of_perf_analyzer(null_server, no_perf_analyzer):
    row = perf_analyzer.measure(null_server, "nothing", concurrency=2)
    assert row["images/s"] > 0 and row["refused"] == 0
    with pytest.raises(LoadError, match="and no perf_analyzer on PATH"):
        perf_analyzer.measure(null_server, "nothing", shared_memory="system")


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
