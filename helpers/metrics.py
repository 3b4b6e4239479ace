"""Read the metrics that a server publishes for Prometheus; taught in notebook 11."""

import collections
import http.client
import threading
import time
import urllib.request
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from helpers.load_client import LoadError


def read_metrics(server):
    """The server's metrics, summed over models, versions and devices.

    Args:
        server: an ``embedded_triton.Server``.

    Returns:
        A dict of name, such as ``nv_inference_count``, and number.

    Raises:
        OSError: nobody answers there.
    """
    url = f"http://{server.metrics}/metrics"
    with urllib.request.urlopen(url, timeout=5) as page:
        text = page.read().decode()
    found = collections.Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:  # the parser adds _total to a counter's name
            counter = family.type == "counter"
            found[family.name if counter else sample.name] += sample.value
    return dict(found)


@contextmanager
def watch_metrics(server, interval=0.1):
    """Read the metrics again and again while a block runs.

    Args:
        server: an ``embedded_triton.Server``.
        interval: seconds between two readings.

    Yields:
        A list that fills with dicts like that of ``read_metrics``, with ``seconds``
        since the beginning.

    Raises:
        LoadError: a reading failed.
    """
    readings, failed, stop = [], [], threading.Event()
    begin = time.perf_counter()

    def read():
        try:
            while not stop.wait(interval):
                now = time.perf_counter() - begin
                readings.append({**read_metrics(server), "seconds": now})
        except (OSError, http.client.HTTPException) as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()
    if failed:
        raise LoadError(f"the metrics at {server.metrics} cannot be read: {failed[0]}")
