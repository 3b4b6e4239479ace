"""Put a server under load and read what was measured; taught in notebook 08.

The load comes from NVIDIA's ``perf_analyzer``, a C++ program in the wheel of
tritonclient 2.51.0. Where it cannot run, and where requests may be refused (it ends
with the first error), an asyncio client in this process takes its place.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/perf_analyzer/README.html
"""

import asyncio
import base64
import collections
import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import tritonclient.grpc.aio as grpcclient
from prometheus_client.parser import text_string_to_metric_families
from tqdm import tqdm
from tritonclient.utils import (
    InferenceServerException,
    np_to_triton_dtype,
    triton_to_np_dtype,
)

from helpers import paths

WINDOW = 1.0  # seconds
WINDOWS = 3  # as many as perf_analyzer judges, a constant in it
TIMEOUT = 60  # seconds for a request of our own client
UNSTABLE = 0.25  # spread of the windows from which a reader should know


class LoadError(RuntimeError):
    """The load cannot be made, or the server did not answer it."""


# ---------------------------------------------------------------- perf_analyzer


def _environment():
    """Variables with which perf_analyzer finds its libraries, the server's own."""
    home = paths.TRITON_ENVIRONMENT
    libraries = home.glob("lib/python3.*/site-packages/nvidia_pytriton.libs")
    known = os.environ.get("LD_LIBRARY_PATH")
    folders = map(str, filter(None, [home / "lib", *libraries, known]))
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}


@cache
def perf_analyzer():
    """Path of perf_analyzer: the server environment's, or the one on PATH.

    Raises:
        LoadError: there is none, or it cannot run here; the message says why.
    """
    own = paths.TRITON_ENVIRONMENT / "bin" / "perf_analyzer"
    path = own if own.exists() else shutil.which("perf_analyzer")
    if not path:
        raise LoadError(f"there is no {own}, and no perf_analyzer on PATH")
    try:
        result = subprocess.run(
            [path, "--version"], env=_environment(), capture_output=True, text=True
        )
    except OSError as error:  # another system or processor
        raise LoadError(f"{path} cannot run here: {error}") from None
    if "Perf Analyzer" not in result.stdout + result.stderr:
        raise LoadError(f"{path} cannot run here: {result.stderr.strip()}")
    return Path(path)


def command(
    address,
    model,
    protocol="grpc",
    concurrency=1,
    rate=None,
    batch=1,
    data=None,
    shared_memory=None,
    window=WINDOW,
    report="report.csv",
):
    """How perf_analyzer is called, to run or to show.

    Args:
        address: ``host:port`` of the endpoint.
        model: name of a model that is ready.
        protocol: ``grpc`` or ``http``.
        concurrency: requests under way at any time (a closed loop).
        rate: requests a second with Poisson arrivals instead, whatever the server does
            (an open loop).
        batch: images in a request.
        data: a file from ``write_inputs``; None sends random numbers.
        shared_memory: ``system`` or ``cuda``: tensors are not sent, but lie in memory
            that client and server share.
        window: seconds of one of the three windows; they run a fifth longer.
        report: where the CSV file goes.

    Returns:
        A list of arguments, the program first.

    Raises:
        LoadError: there is no perf_analyzer.
    """
    loop = {"--concurrency-range": concurrency}
    if rate is not None:
        loop = {"--request-rate-range": rate, "--request-distribution": "poisson"}
    options = {
        "-m": model,
        "-u": address,
        "-i": protocol,
        **loop,
        "-b": batch,
        "-p": round(1000 * window),
        "-r": WINDOWS,
        "-s": 1_000_000,  # per cent: take them as they come; ``measure`` judges them
        "-f": report,
    }
    if data:
        options["--input-data"] = data
    if shared_memory:
        options["--shared-memory"] = shared_memory
    flags = ["--verbose-csv", "-v", *(["--async"] if rate is not None else [])]
    return [
        str(perf_analyzer()),
        *(str(x) for pair in options.items() for x in pair),
        *flags,
    ]


def shown(arguments):
    """A command as a line to paste into a terminal in ``notebooks/``."""
    libraries = _environment()["LD_LIBRARY_PATH"]
    text = " ".join([f"LD_LIBRARY_PATH={libraries}", *map(str, arguments)])
    return text.replace(f"{paths.ROOT}/", "../")


# What a server says that refuses a request by its queue policy.
REFUSED = r"(?:Exceeds maximum queue size|Request timeout expired)"

# What perf_analyzer says when it gives up, and what that means.
_REASONS = (
    (r"Request for unknown model: '([^']*)'", "the server has no model {0} ready"),
    (
        r"(?:[Ff]ailed to|[Cc]ouldn't|[Uu]nable to) connect|Connection refused",
        "nobody answers there; start the server, and take the port of the protocol",
    ),
    (
        r"doesn't match expected output",
        "an answer differs from what the input file expects",
    ),
    (
        REFUSED,
        "the server refused a request, and perf_analyzer ends with the first: use "
        "load.replay, which counts them",
    ),
    (r"No valid requests recorded", "no request ended in a window: make it longer"),
)


def _run(arguments, what):
    """Run perf_analyzer with a bar on stderr: what it printed, as one text."""
    lines = []
    with (
        subprocess.Popen(
            arguments,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        tqdm(total=WINDOWS, desc=what, leave=False, file=sys.stderr) as bar,
    ):
        try:
            for line in process.stdout:
                lines.append(line)
                bar.update("Pass [" in line)
        except BaseException:  # an interrupted cell ends it too
            process.kill()
            raise
    text = "".join(lines)
    if process.returncode:
        for pattern, reason in _REASONS:
            if match := re.search(f".*(?:{pattern}).*", text):
                reason = reason.format(*match.groups())
                raise LoadError(f"{what}: {reason}. It said: {match[0].strip()}")
        last = "\n".join(text.strip().splitlines()[-6:])
        raise LoadError(f"{what}: perf_analyzer failed. It said:\n{last}")
    if "not able to keep up" in text:
        print(f"{what}: perf_analyzer could not send at this rate", file=sys.stderr)
    return text


def measure(server, model, **options):
    """Put a model under load and measure it.

    Args:
        server: a ``triton_server.Server``.
        model: name of a model that is ready.
        options: see ``command``. Where perf_analyzer cannot run, ``replay`` makes the
            load, over gRPC only, and its dict is returned.

    Returns:
        A dict: ``images/s`` (all windows together), ``low`` and ``high`` (of the
        windows), ``p50 ms`` ... ``p99 ms`` of a request as the client sees it, ``mean
        ms``, ``queue ms`` and ``compute ms`` (means, as the server sees it),
        ``requests``, and by the server ``inferences`` and ``runs`` (of the model; fewer
        than inferences where there were batches).

    Raises:
        LoadError: perf_analyzer gave up, or cannot run and nothing takes its place; the
            message says why.
    """
    protocol = options.get("protocol", "grpc")
    try:
        perf_analyzer()
    except LoadError:
        if protocol != "grpc" or options.keys() & {"shared_memory", "batch", "data"}:
            raise
        options.pop("protocol", None)
        options["seconds"] = WINDOWS * options.pop("window", WINDOW)
        return replay(server, model, **options)
    address = getattr(server, protocol)
    load = options.get("rate") or options.get("concurrency", 1)
    what = f"{model}, {protocol}, {load}{'/s' if options.get('rate') else ''}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.csv")
        arguments = command(address, model, report=report, **options)
        text = _run(arguments, what)
        if not report.exists():
            raise LoadError(f"{what}: there is no report. It said:\n{text[-500:]}")
        with report.open() as file:
            (row,) = csv.DictReader(file)
    each = [float(x) for x in re.findall(r"Pass \[\d+\] throughput: ([\d.]+)", text)]
    _warn_of_spread(what, each)
    server_side = {
        "queue ms": ["Server Queue"],
        "compute ms": [f"Server Compute {x}" for x in ("Input", "Infer", "Output")],
    }
    return {
        "images/s": float(row["Inferences/Second"]),
        "low": min(each),
        "high": max(each),
        **{f"p{x} ms": float(row[f"p{x} latency"]) / 1e3 for x in (50, 90, 95, 99)},
        "mean ms": float(row["Avg latency"]) / 1e3,
        **{k: sum(float(row[x]) for x in v) / 1e3 for k, v in server_side.items()},
        "requests": int(re.search(r"Request count: (\d+)", text)[1]),
        "inferences": int(re.search(r"Inference count: (\d+)", text)[1]),
        "runs": int(re.search(r"Execution count: (\d+)", text)[1]),
    }


def _warn_of_spread(what, each):
    spread = (max(each) - min(each)) / np.median(each)
    if spread > UNSTABLE:
        numbers = ", ".join(f"{x:.0f}" for x in each)
        print(
            f"{what}: the windows gave {numbers} images/s. Close other programs, or "
            "measure in longer windows",
            file=sys.stderr,
        )


def write_inputs(path, inputs, expected=None):
    """Write real data for perf_analyzer.

    Args:
        path: of the JSON file.
        inputs: a dict of tensor name and array, (items, ...); the requests take the
            items in turn.
        expected: a dict of output name and array, (items, ...): perf_analyzer then
            compares every answer, bit for bit, and ends with the first that differs.

    Returns:
        The path.

    Raises:
        ValueError: the arrays have different numbers of items.
    """
    arrays = [*inputs.values(), *(expected or {}).values()]
    if len({len(x) for x in arrays}) != 1:
        raise ValueError(f"numbers of items differ: {[len(x) for x in arrays]}")

    def rows(tensors):
        return [
            {name: _encoded(values[i]) for name, values in tensors.items()}
            for i in range(len(arrays[0]))
        ]

    content = {"data": rows(inputs)}
    if expected:
        content["validation_data"] = rows(expected)
    Path(path).write_text(json.dumps(content))
    return path


IMITATION = """\
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.outputs = [
            (x["name"], x["dims"], pb_utils.triton_string_to_numpy(x["data_type"]))
            for x in json.loads(args["model_config"])["output"]
        ]

    def execute(self, requests):
        return [self.answer(len(x.inputs()[0].as_numpy())) for x in requests]

    def answer(self, batch):
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.zeros((batch, *map(int, dims)), kind))
                for name, dims, kind in self.outputs
            ]
        )
"""


def imitate(repository, name, config):
    """Write a model that has the tensors of another one and answers with zeros.

    What it reaches is the most that client, wire and server can carry.

    Args:
        repository: a model repository.
        name: of the new model.
        config: text of the other model's config; it has to allow batches.
    """
    folder = Path(repository, name)
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1" / "model.py").write_text(IMITATION)
    text = re.sub(r'backend: *"\w+"', 'backend: "python"', config)
    (folder / "config.pbtxt").write_text(text)


def _encoded(value):
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {"b64": data, "shape": list(value.shape)}


# ------------------------------------------------------------ a client of our own


def replay(
    server,
    model,
    inputs=None,
    rate=None,
    concurrency=1,
    seconds=WINDOWS * WINDOW,
    seed=0,
):
    """Put a model under load from this process; count refusals instead of ending.

    Latencies of an open loop count from the moment at which a request was due, so a
    slow server cannot hide its queue.

    Args:
        server: a ``triton_server.Server``; asked over gRPC.
        model: name of a model that is ready.
        inputs: a dict of tensor name and array, (items, ...), sent one item a request;
            None for random numbers.
        rate: requests a second, with Poisson arrivals (an open loop).
        concurrency: requests under way at any time, where there is no rate.
        seconds: for how long requests are sent.
        seed: of the random numbers and arrivals.

    Returns:
        A dict like that of ``measure``, without what only the server knows, with
        ``refused`` (share of the requests) and ``errors`` (messages and how many).

    Raises:
        LoadError: every request was refused, or one failed for another reason than a
            queue policy; the message holds the server's.
    """
    run = _replay(server.grpc, model, inputs, rate, concurrency, seconds, seed)
    with ThreadPoolExecutor(1) as pool:  # a notebook's thread has a running event loop
        return pool.submit(asyncio.run, run).result()


async def _replay(address, model, inputs, rate, concurrency, seconds, seed):
    random = np.random.default_rng(seed)
    latencies, errors = [], collections.Counter()
    async with grpcclient.InferenceServerClient(address) as client:
        if inputs is None:
            inputs = await _random_inputs(client, model, random)
        requests = itertools.cycle(_requests(inputs))
        begin = time.perf_counter()
        end = begin + seconds

        async def ask(due):
            try:
                await client.infer(model, next(requests), client_timeout=TIMEOUT)
                latencies.append(time.perf_counter() - due)
            except InferenceServerException as error:
                if not re.search(REFUSED, error.message()):
                    raise LoadError(f"{model}: {error.message()}") from None
                errors[error.message()] += 1

        async def ask_again_and_again():
            while (now := time.perf_counter()) < end:
                await ask(now)

        async def ask_when_due():
            due, tasks = begin, []
            while (due := due + random.exponential(1 / rate)) < end:
                await asyncio.sleep(due - time.perf_counter())
                tasks.append(asyncio.create_task(ask(due)))
            await asyncio.gather(*tasks)

        if rate is None:
            await asyncio.gather(*(ask_again_and_again() for _ in range(concurrency)))
        else:
            await ask_when_due()
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


# ---------------------------------------------------------------------- metrics


def read_metrics(server):
    """The server's metrics, summed over models, versions and devices.

    Args:
        server: a ``triton_server.Server``.

    Returns:
        A dict of name, such as ``nv_inference_count``, and number.
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
def watch(server, interval=0.1):
    """Read the metrics again and again while a block runs.

    Args:
        server: a ``triton_server.Server``.
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
        except OSError as error:
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
