"""``make benchmark`` sums up what it measured."""

import repository_check
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
