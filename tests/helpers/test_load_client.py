"""The client that puts a model under load from this process."""

import pytest

from helpers import load_client, perf_analyzer


def test_our_client_agrees_with_perf_analyzer(null_server):
    ours = load_client.send_requests(null_server, "slow", concurrency=1, seconds=2)
    theirs = perf_analyzer.measure(null_server, "slow", window=0.5)
    assert ours["p50 ms"] == pytest.approx(theirs["p50 ms"], rel=0.2)
    assert ours["refused"] == 0 and ours["errors"] == {}


def test_refusals_are_counted(null_server):
    row = load_client.send_requests(null_server, "slow", rate=200, seconds=1)
    assert row["refused"] > 0.5
    (message,) = row["errors"]
    assert "Exceeds maximum queue size" in message
    assert sum(row["errors"].values()) == round(row["refused"] * row["requests"])
