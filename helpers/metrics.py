"""Read the metrics that a server publishes for Prometheus; taught in notebook 16."""

import collections
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


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
