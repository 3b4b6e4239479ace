"""The metrics of a server, read while it works."""

import time

from helpers import load_client, metrics


def test_metrics_are_read_again_and_again(null_server):
    time.sleep(0.5)  # they follow the answers of the test before
    before = metrics.read_metrics(null_server)["nv_inference_count"]
    with metrics.watch_metrics(null_server, interval=0.05) as readings:
        row = load_client.send_requests(null_server, "nothing", seconds=0.5)
    counts = [x["nv_inference_count"] for x in readings]
    assert counts == sorted(counts) and len(counts) > 3
    time.sleep(0.5)  # the metrics follow the answer
    after = metrics.read_metrics(null_server)["nv_inference_count"]
    assert after - before == row["requests"]
