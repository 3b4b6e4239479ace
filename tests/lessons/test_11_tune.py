"""Lesson 11's search finds the config that is known to be the best."""

import pandas as pd
import pytest
import tritonclient.grpc as grpcclient
from google.protobuf import json_format

from conftest import NULL_CONFIG, started, taught
from helpers import perf_analyzer, triton_config
from helpers.null_model import write_null_model

pytestmark = pytest.mark.slow

SECONDS = 0.02  # of a run, whatever its batch: 50 runs a second for each instance
ONE, TWO = "count: 1", "count: 2"
CONFIGS = {
    "one": NULL_CONFIG.replace("dynamic_batching { }", ""),
    "two": NULL_CONFIG.replace(ONE, TWO).replace("dynamic_batching { }", ""),
    "one, batches": NULL_CONFIG,
    "two, batches": NULL_CONFIG.replace(ONE, TWO),
}


@pytest.fixture(scope="module")
def search():
    return taught("11_tune_a_server", "def search(", pd=pd)["search"]


def test_it_finds_the_config_of_known_cost(search, tmp_path):
    """16 requests under way in runs of 8: two instances answer 800 a second, one 400;
    without batches it is 100 and 50."""
    write_null_model(tmp_path, "sleeping", NULL_CONFIG, seconds=SECONDS)
    with (
        started(tmp_path, models=["sleeping"]) as server,
        grpcclient.InferenceServerClient(server.grpc) as client,
    ):

        def load(text):
            python = text.replace('"onnxruntime"', '"python"')
            config = json_format.MessageToJson(triton_config.parse(python))
            client.load_model("sleeping", config=config)

        def measure(under_way, window):
            return perf_analyzer.measure(
                server, "sleeping", concurrency=under_way, window=window
            )

        table, best = search(CONFIGS, load, measure, budget=1000)
    assert best.iloc[0]["config"] == "two, batches"
    assert best.iloc[0]["under way"] == 16
    assert set(table["config"]) == {*CONFIGS}


def test_it_keeps_to_the_budget_and_measures_the_best_again(search):
    """Made-up measurements: `fast` is over the budget from 4 on, `lucky` only once."""
    asked = []
    rates = {"slow": 10, "fast": 100, "lucky": 30}
    loaded = []

    def measure(under_way, window):
        asked.append((loaded[-1], under_way, window))
        rate = rates[loaded[-1]] * under_way
        p99 = 60 if loaded[-1] == "fast" and under_way > 2 else 20
        if loaded[-1] == "lucky" and under_way == 16 and window == 0.7:
            rate = 1
        return {"images/s": rate, "p99 ms": p99}

    configs = {name: name for name in rates}
    table, best = search(configs, loaded.append, measure, budget=50)
    assert ("fast", 4, 0.3) in asked and ("fast", 8, 0.3) not in asked
    assert (table["p99 ms"] > 50).sum() == 1
    assert list(best["config"]) == ["slow", "lucky"]  # one row of each config
    assert list(best["under way"]) == [16, 16]
    assert list(best["images/s"]) == [160, 1]
