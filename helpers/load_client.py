"""Put a model under load from this process; taught in notebook 08.

Where requests may be refused, ``perf_analyzer`` ends with the first error: this asyncio
client counts them instead.
"""

import asyncio
import collections
import itertools
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc.aio as grpcclient
from tritonclient.utils import (
    InferenceServerException,
    np_to_triton_dtype,
    triton_to_np_dtype,
)

TIMEOUT = 60  # seconds for a request
# What a server says that refuses a request by its queue policy.
REFUSED = r"(?:Exceeds maximum queue size|Request timeout expired)"


class LoadError(RuntimeError):
    """The load cannot be made, or the server did not answer it."""


def send_requests(
    server,
    model,
    inputs=None,
    rate=None,
    concurrency=1,
    seconds=3.0,
):
    """Put a model under load from this process; count refusals instead of ending.

    Latencies of an open loop count from the moment at which a request was due, so a
    slow server cannot hide its queue.

    Args:
        server: an ``embedded_triton.Server``; asked over gRPC.
        model: name of a model that is ready.
        inputs: a dict of tensor name and array, (items, ...), sent one item a request;
            None for random numbers.
        rate: requests a second, with Poisson arrivals (an open loop).
        concurrency: requests under way at any time, where there is no rate.
        seconds: for how long requests are sent.

    Returns:
        A dict like that of ``perf_analyzer.measure``, without what only the server
        knows, with ``refused`` (share of the requests) and ``errors`` (messages and how
        many).

    Raises:
        LoadError: every request was refused, or one failed for another reason than a
            queue policy; the message holds the server's.
    """
    run = _send_requests(server.grpc, model, inputs, rate, concurrency, seconds)
    with ThreadPoolExecutor(1) as pool:  # a notebook's thread has a running event loop
        return pool.submit(asyncio.run, run).result()


async def _send_requests(address, model, inputs, rate, concurrency, seconds):
    random = np.random.default_rng(0)
    latencies, errors = [], collections.Counter()
    async with grpcclient.InferenceServerClient(address) as client:
        if inputs is None:
            inputs = await _random_inputs(client, model, random)
        requests = itertools.cycle(_requests(inputs))
        begin = time.perf_counter()
        end = begin + seconds

        async def send(due):
            try:
                await client.infer(model, next(requests), client_timeout=TIMEOUT)
                latencies.append(time.perf_counter() - due)
            except InferenceServerException as error:
                if not re.search(REFUSED, error.message()):
                    raise LoadError(f"{model}: {error.message()}") from None
                errors[error.message()] += 1

        async def send_one_after_another():
            while (now := time.perf_counter()) < end:
                await send(now)

        async def send_when_due():
            due, tasks = begin, []
            while (due := due + random.exponential(1 / rate)) < end:
                await asyncio.sleep(due - time.perf_counter())
                tasks.append(asyncio.create_task(send(due)))
            await asyncio.gather(*tasks)

        if rate is None:
            await asyncio.gather(
                *(send_one_after_another() for _ in range(concurrency))
            )
        else:
            await send_when_due()
        took = time.perf_counter() - begin
    if not latencies:
        raise LoadError(f"{model}: no request was answered: {dict(errors)}")
    percentiles = np.percentile(latencies, [50, 90, 95, 99]) * 1e3
    sent = len(latencies) + errors.total()
    return {
        "images/s": len(latencies) / took,
        **{f"p{x} ms": float(y) for x, y in zip((50, 90, 95, 99), percentiles)},
        "mean ms": float(np.mean(latencies)) * 1e3,
        "requests": sent,
        "refused": errors.total() / sent,
        "errors": dict(errors),
    }


async def _random_inputs(client, model, random):
    """One item for each input of a model, by the shapes and types that it tells."""
    config = (await client.get_model_config(model, as_json=True))["config"]
    return {
        x["name"]: random.standard_normal((1, *map(int, x["dims"]))).astype(
            triton_to_np_dtype(x["data_type"].removeprefix("TYPE_"))
        )
        for x in config["input"]
    }


def _requests(inputs):
    """The inputs of one request for each item, as tritonclient wants them."""
    count = len(next(iter(inputs.values())))
    requests = [[] for _ in range(count)]
    for name, values in inputs.items():
        for request, value in zip(requests, values):
            kind = np_to_triton_dtype(value.dtype)
            tensor = grpcclient.InferInput(name, (1, *value.shape), kind)
            tensor.set_data_from_numpy(value[np.newaxis])
            request.append(tensor)
    return requests
