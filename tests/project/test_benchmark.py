"""``make benchmark`` sums up what it measured."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from tritonclient.utils import shared_memory

import repository_check
from conftest import started
from helpers import paths
from helpers.null_model import write_null_model
from tools import benchmark


def test_the_benchmark_summarises_what_was_measured(artifacts):
    folder = benchmark.write_repository()
    assert not repository_check.check(folder)
    assert "dynamic_batching" in (folder / "resnet50/config.pbtxt").read_text()
    assert "dynamic_batching" not in (folder / "unbatched/config.pbtxt").read_text()
    pictures = {  # two blocks
        "in this process": 5 * [40, 60] + 10 * [50],
        "gRPC": 5 * [54, 56] + 10 * [45],
    }
    images = {
        "in this process": [20, 10, 10],
        "gRPC, 4 under way": [19, 12, 10],
        "gRPC, shared memory, 4 under way": [20, 10, 10],
        "batcher off, 8 under way": [10, 10, 10],
        "batcher on, 8 under way": [11, 12, 18],
    }
    ratios = benchmark.compute_ratios(pictures, images)
    assert ratios["p50 of a picture over gRPC / in this process"] == [1.1, 0.9]
    assert ratios["images/s over gRPC / in this process"] == [0.95, 1.2, 1]
    table = benchmark.summarise(ratios).loc["images/s with the batcher / without"]
    assert dict(table) == {"median": 1.2, "lowest": 1.1, "highest": 1.8}


@pytest.mark.server
def test_one_picture_is_timed_in_milliseconds_by_each_way(monkeypatch, tmp_path):
    config = (paths.MODEL_REPOSITORY / "resnet50/config.pbtxt").read_text()
    config = config.replace('label_filename: "labels.txt"', "")
    write_null_model(tmp_path, "resnet50", config)
    for name, value in {"BLOCKS": 2, "RUNS": 2, "PAUSE": 0.01}.items():
        monkeypatch.setattr(benchmark, name, value)
    session = SimpleNamespace(run=lambda *arguments: time.sleep(0.02))
    image = np.zeros((1, 3, 224, 224), np.float32)
    with started(tmp_path) as server:
        times = benchmark.time_one_picture(server, session, image)
    assert {*times} == {"in this process", *benchmark.WAYS}
    assert {len(x) for x in times.values()} == {4}
    assert min(times["in this process"]) >= 20
    assert not shared_memory.mapped_shared_memory_regions()


def test_each_candidate_is_measured_under_its_name(monkeypatch):
    asked = []

    def measure(server, model, **options):
        asked.append((model, *options.values()))
        return {"images/s": len(asked)}

    monkeypatch.setattr(benchmark, "measure_in_process", lambda *arguments: 0)
    monkeypatch.setattr(benchmark.perf_analyzer, "measure", measure)
    found = benchmark.measure_throughput(None, None, None, rounds=2)
    assert {name: asked[x[0] - 1] for name, x in found.items() if any(x)} == {
        "gRPC, 4 under way": ("resnet50", 4),
        "gRPC, shared memory, 4 under way": ("resnet50", 4, "system"),
        "batcher off, 8 under way": ("unbatched", 8),
        "batcher on, 8 under way": ("resnet50", 8),
        "nothing, gRPC, 4 under way": ("nothing", 4),
    }
    assert found["in this process"] == [0, 0]
    assert found["gRPC, 4 under way"] == [1, 6]  # they take turns


def test_images_a_second_are_those_of_the_time_that_they_took(monkeypatch):
    monkeypatch.setattr(benchmark.perf_analyzer, "WINDOW", 0.1)
    monkeypatch.setattr(benchmark, "PAUSE", 0)
    session = SimpleNamespace(run=lambda *arguments: time.sleep(0.02))
    assert 0 < benchmark.measure_in_process(session, None) <= 1 / 0.02
