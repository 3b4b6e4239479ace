"""Put a model under load from this process; taught in notebook 11.

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

    Throughput is that of the window in which requests are sent: the answers that come
    within ``seconds``, divided by ``seconds``. What an overloaded server answers later
    counts in the latencies only. Latencies of an open loop run from the moment at which
    a request was due, so neither a slow server nor a slow client can hide its queue.

    Args:
        server: an ``embedded_triton.Server``; asked over gRPC.
        model: name of a model that is ready.
        inputs: a dict of tensor name and array, (items, ...), sent one item a request;
            None for random numbers.
        rate: requests a second, with Poisson arrivals (an open loop).
        concurrency: requests under way at any time, where there is no rate.
        seconds: for how long requests are sent.

    Returns:
        A dict: ``images/s``; ``p50 ms`` ... ``p99 ms`` and ``mean ms`` of all answered
        requests; ``late ms``, by how much this client sent them too late, in the mean;
        ``requests`` that were sent, ``refused`` (their share) and ``errors`` (messages
        and how many).

    Raises:
        ValueError: a rate, a concurrency or a time is not above 0, or the inputs have
            different numbers of items.
        LoadError: every request was refused, or one failed for another reason than a
            queue policy; the message holds the server's.
    """
    if min(concurrency, seconds, *([] if rate is None else [rate])) <= 0:
        raise ValueError(
            f"rate {rate}, concurrency {concurrency}, seconds {seconds}: each has to "
            "be above 0"
        )
    run = _send_requests(server.grpc, model, inputs, rate, concurrency, seconds)
    with ThreadPoolExecutor(1) as pool:  # a notebook's thread has a running event loop
        return pool.submit(asyncio.run, run).result()


async def _send_requests(address, model, inputs, rate, concurrency, seconds):
    random = np.random.default_rng(0)
    answered, late, errors = [], [], collections.Counter()
    async with grpcclient.InferenceServerClient(address) as client:
        if inputs is None:
            inputs = await _random_inputs(client, model, random)
        requests = itertools.cycle(_requests(inputs))
        begin = time.perf_counter()

        def now():
            return time.perf_counter() - begin

        async def send(due):
            late.append(now() - due)
            try:
                await client.infer(model, next(requests), client_timeout=TIMEOUT)
                answered.append((due, now()))
            except InferenceServerException as error:
                if not re.search(REFUSED, error.message()):
                    raise LoadError(f"{model}: {error.message()}") from None
                errors[error.message()] += 1

        async def send_one_after_another():
            while (due := now()) < seconds:
                await send(due)

        async def send_when_due():
            due, tasks = 0, []
            while (due := due + random.exponential(1 / rate)) < seconds:
                await asyncio.sleep(due - now())
                tasks.append(asyncio.create_task(send(due)))
            await asyncio.gather(*tasks)

        if rate is None:
            await asyncio.gather(
                *(send_one_after_another() for _ in range(concurrency))
            )
        else:
            await send_when_due()
    if not answered:
        raise LoadError(f"{model}: no request was answered: {dict(errors)}")
    return _summarise(answered, late, errors, seconds)


def _summarise(answered, late, errors, seconds):
    """The result, from when each answered request was due and done, in seconds."""
    due, done = np.transpose(answered)
    latencies = 1e3 * (done - due)
    percents = 50, 90, 95, 99
    sent = len(answered) + errors.total()
    return {
        "images/s": int((done <= seconds).sum()) / seconds,
        **{f"p{x} ms": float(np.percentile(latencies, x)) for x in percents},
        "mean ms": float(latencies.mean()),
        "late ms": 1e3 * float(np.mean(late)),
        "requests": sent,
        "refused": errors.total() / sent,
        "errors": dict(errors),
    }


async def _random_inputs(client, model, random):
    """One item for each input of a model, by the shapes and types that it tells."""
    try:
        config = (await client.get_model_config(model, as_json=True))["config"]
    except InferenceServerException as error:
        raise LoadError(f"{model}: {error.message()}") from None
    found = {}
    for tensor in config["input"]:
        kind = tensor["data_type"].removeprefix("TYPE_")
        dims = [int(x) for x in tensor["dims"]]
        if kind == "STRING" or min(dims, default=1) < 0:
            raise LoadError(
                f"{model}: the input {tensor['name']} is {kind} {dims}, for which "
                "there are no random numbers: pass inputs"
            )
        values = random.standard_normal((1, *dims))
        found[tensor["name"]] = values.astype(triton_to_np_dtype(kind))
    return found


def _requests(inputs):
    """The inputs of one request for each item, as tritonclient wants them."""
    counts = {name: len(values) for name, values in inputs.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise ValueError(f"an item of every input goes into a request: {counts}")
    requests = [[] for _ in range(min(counts.values()))]
    for name, values in inputs.items():
        for request, value in zip(requests, values):
            kind = np_to_triton_dtype(value.dtype)
            tensor = grpcclient.InferInput(name, (1, *value.shape), kind)
            tensor.set_data_from_numpy(value[np.newaxis])
            request.append(tensor)
    return requests
