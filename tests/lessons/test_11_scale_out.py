"""The balancer comes up, gives reasons, never stays; the plan agrees with theory."""

import json
import re

import nbformat
import numpy as np
import pytest

from helpers import balancer, paths
from tools import run_series

NOTEBOOK = paths.NOTEBOOKS / "11_scale_out.ipynb"


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
