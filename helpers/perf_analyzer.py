"""Measure a server with NVIDIA's ``perf_analyzer``; taught in notebook 10.

It is a C++ program in the wheel of tritonclient 2.51.0.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/perf_analyzer/README.html
"""

import base64
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

import embedded_triton.paths
from helpers import load_client
from helpers.load_client import LoadError

WINDOW = 1.0  # seconds
WINDOWS = 3  # as many as perf_analyzer judges, a constant in it
ATTEMPTS = 3  # with a longer window each
UNSTABLE = 0.25  # spread of the windows from which a reader should know


def _environment():
    """Variables with which perf_analyzer finds its libraries, the server's own."""
    home = embedded_triton.paths.ENVIRONMENT
    libraries = home.glob("lib/python3.*/site-packages/nvidia_pytriton.libs")
    known = os.environ.get("LD_LIBRARY_PATH")
    folders = map(str, filter(None, [home / "lib", *libraries, known]))
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}


@cache
def find_perf_analyzer():
    """Path of perf_analyzer: the server environment's, or the one on PATH.

    Raises:
        LoadError: there is none, or it cannot run here; the message says why.
    """
    own = embedded_triton.paths.ENVIRONMENT / "bin" / "perf_analyzer"
    path = own if own.exists() else shutil.which("perf_analyzer")
    if not path:
        raise LoadError(
            f"there is no {own}, and no perf_analyzer on PATH: run make setup"
        )
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
    """The command line of perf_analyzer.

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
        "-s": 1_000_000,  # per cent: every three windows will do, see ``measure``
        "-f": report,
    }
    if data:
        options["--input-data"] = data
    if shared_memory:
        options["--shared-memory"] = shared_memory
    flags = ["--verbose-csv", "-v", *(["--async"] if rate is not None else [])]
    return [
        str(find_perf_analyzer()),
        *(str(x) for pair in options.items() for x in pair),
        *flags,
    ]


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
        load_client.REFUSED,
        "the server refused a request, and perf_analyzer ends with the first: use "
        "load_client.send_requests, which counts them",
    ),
)


class _EmptyWindow(LoadError):
    """No request ended in one of the windows."""


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
        if "No valid requests recorded" in text:
            raise _EmptyWindow(f"{what}: no request ended in a window: make it longer")
        last = "\n".join(text.strip().splitlines()[-6:])
        raise LoadError(f"{what}: perf_analyzer failed. It said:\n{last}")
    if "not able to keep up" in text:
        print(f"{what}: perf_analyzer could not send at this rate", file=sys.stderr)
    return text


def measure(server, model, window=WINDOW, **options):
    """Put a model under load and measure it in three windows.

    The windows are taken as they come, and their spread is a part of the result. (By
    itself perf_analyzer goes on until three windows differ by 10 % at most, and reports
    nothing where it finds none: a long wait on a busy machine, and the spread of three
    that were chosen because they agree.) Where no request ended in a window, as under a
    rate that the server cannot keep up with, it tries again with twice the time.

    Args:
        server: an ``embedded_triton.Server``.
        model: name of a model that is ready.
        window, options: see ``command``.

    Returns:
        A dict: ``images/s`` (all windows together), ``low`` and ``high`` (of the
        windows), ``p50 ms`` ... ``p99 ms`` of a request as the client sees it, ``mean
        ms``, ``queue ms`` and ``compute ms`` (means, as the server sees it),
        ``requests``, and by the server ``inferences`` and ``runs`` (of the model; fewer
        than inferences where there were batches).

    Raises:
        LoadError: perf_analyzer gave up, or cannot run; the message says why.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _measure(server, model, window * 2**attempt, options)
        except _EmptyWindow:
            if attempt == ATTEMPTS - 1:
                raise


def _measure(server, model, window, options):
    protocol = options.get("protocol", "grpc")
    address = getattr(server, protocol)
    load = options.get("rate") or options.get("concurrency", 1)
    what = f"{model}, {protocol}, {load}{'/s' if options.get('rate') else ''}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.csv")
        arguments = command(address, model, window=window, report=report, **options)
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


def _encoded(value):
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {"b64": data, "shape": list(value.shape)}
