"""``make benchmark``: what the embedded server does with ResNet-50 on this machine.

    python -m tools.benchmark [--rounds N]

Candidates take turns, so that a busy moment hits all of them, and every number is the
median of several rounds, beside the lowest and the highest; only the curves, throughput
against latency, are measured once. Prints tables, and writes
``artifacts/benchmark.json`` with the machine and the versions. Needs what notebooks 01
and 05 make. The notebooks measure the same in short (10).
"""

import argparse
import json
import shutil
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort
import pandas as pd
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import shared_memory

import embedded_triton
from embedded_triton import versions
from helpers import classifiers, machine, paths, perf_analyzer
from helpers.null_model import write_null_model

BLOCKS, RUNS = 20, 10  # of single pictures
PAUSE = 0.2  # seconds, in which the threads of the other side stop spinning
CONCURRENCIES = [1, 2, 4, 8, 16]
WAYS = {
    "HTTP": {"protocol": "http"},
    "gRPC": {"protocol": "grpc"},
    "gRPC, shared memory": {"protocol": "grpc", "shared_memory": "system"},
}


def write_repository():
    """Write ResNet-50 with and without batcher, the classifier, and a null model.

    Raises:
        FileNotFoundError: notebook 05 has not run.
    """
    folder = paths.ARTIFACTS / "benchmark"
    shutil.rmtree(folder, ignore_errors=True)
    text = (paths.MODEL_REPOSITORY / "resnet50" / "config.pbtxt").read_text()
    text = text.replace('name: "resnet50"\n', "")
    text = text.replace('label_filename: "labels.txt"', "")
    without = text.replace("dynamic_batching { }", "")
    for name, source, config in (
        ("resnet50", "resnet50", text),
        ("unbatched", "resnet50", without),
        ("classifier", "classifier_onnx", text),
    ):
        (folder / name / "1").mkdir(parents=True)
        file = folder / name / "1" / "model.onnx"
        file.hardlink_to(paths.served_model(source))
        (folder / name / "config.pbtxt").write_text(config)
    write_null_model(folder, "nothing", text)
    return folder


def time_one_picture(server, session, image):
    """Milliseconds for one picture at a time, by way: lists, in alternating blocks."""
    with (
        httpclient.InferenceServerClient(server.http) as http,
        grpcclient.InferenceServerClient(server.grpc) as grpc,
    ):
        key = f"/benchmark-{server.http.rpartition(':')[2]}"
        region = shared_memory.create_shared_memory_region("image", key, image.nbytes)
        try:
            shared_memory.set_shared_memory_region(region, [image])
            grpc.register_system_shared_memory("image", key, image.nbytes)
            candidates = {
                "in this process": lambda: session.run(None, {"input": image}),
                "HTTP": _make_asker(httpclient, http, image),
                "gRPC": _make_asker(grpcclient, grpc, image),
                "gRPC, shared memory": _make_asker(grpcclient, grpc, image, "image"),
            }
            times = {name: [] for name in candidates}
            for _ in range(BLOCKS):
                for name, run in candidates.items():
                    time.sleep(PAUSE)
                    run()  # warm-up of this block
                    for _ in range(RUNS):
                        begin = time.perf_counter()
                        run()
                        times[name].append(1e3 * (time.perf_counter() - begin))
            time.sleep(PAUSE)  # the last request may hold the region for a moment
            grpc.unregister_system_shared_memory()
        finally:
            shared_memory.destroy_shared_memory_region(region)
    return times


def _make_asker(package, client, image, region=None):
    """A function that classifies an image, from a shared region where one is named."""
    tensor = package.InferInput("input", image.shape, "FP32")
    if region:
        tensor.set_shared_memory(region, image.nbytes)
    else:
        tensor.set_data_from_numpy(image)
    return lambda: client.infer("resnet50", [tensor])


def measure_in_process(session, image):
    """Images a second of ONNX Runtime in this process, one after the other."""
    time.sleep(PAUSE)
    session.run(None, {"input": image})
    begin, count = time.perf_counter(), 0
    while (
        took := time.perf_counter() - begin
    ) < perf_analyzer.WINDOW * perf_analyzer.WINDOWS:
        session.run(None, {"input": image})
        count += 1
    return count / took


def measure_throughput(server, session, image, rounds):
    """Images a second by candidate: a list with a number for each round."""

    def served(model, **options):
        return lambda: perf_analyzer.measure(server, model, **options)["images/s"]

    candidates = {
        "in this process": lambda: measure_in_process(session, image),
        "gRPC, 4 under way": served("resnet50", concurrency=4),
        "gRPC, shared memory, 4 under way": served(
            "resnet50", concurrency=4, shared_memory="system"
        ),
        "batcher off, 8 under way": served("unbatched", concurrency=8),
        "batcher on, 8 under way": served("resnet50", concurrency=8),
        "nothing, gRPC, 4 under way": served("nothing", concurrency=4),
    }
    found = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            found[name].append(run())
    return found


def measure_curves(server):
    """Throughput and latency by network, way and concurrency, one measurement each."""
    lines = {f"resnet50, {name}": ("resnet50", way) for name, way in WAYS.items()}
    lines[f"{classifiers.read_description().name}, gRPC"] = ("classifier", WAYS["gRPC"])
    return {
        name: {
            concurrency: perf_analyzer.measure(
                server, model, concurrency=concurrency, **way
            )
            for concurrency in CONCURRENCIES
        }
        for name, (model, way) in lines.items()
    }


def summarise(values):
    """Median, lowest and highest of the lists in a dict, as a DataFrame."""
    columns = {"median": statistics.median, "lowest": min, "highest": max}
    return pd.DataFrame(
        {name: {k: f(x) for k, f in columns.items()} for name, x in values.items()}
    ).T


def compute_ratios(pictures, images):
    """What the server keeps of ONNX Runtime's own speed: name and list.

    A number for each block of pictures, and for each round, of neighbours in time.
    """

    def share(name, of):
        return [a / b for a, b in zip(images[name], images[of])]

    def take_medians(name):
        times = pictures[name]
        starts = range(0, len(times), RUNS)
        return [statistics.median(times[i : i + RUNS]) for i in starts]

    here = "in this process"
    return {
        "p50 of a picture over gRPC / in this process": [
            a / b for a, b in zip(take_medians("gRPC"), take_medians(here))
        ],
        "images/s over gRPC / in this process": share("gRPC, 4 under way", here),
        "images/s with shared memory / in this process": share(
            "gRPC, shared memory, 4 under way", here
        ),
        "images/s with the batcher / without": share(
            "batcher on, 8 under way", "batcher off, 8 under way"
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of a candidate")
    rounds = parser.parse_args().rounds
    image = np.load(paths.artifact("reference.npz"))["input"][:1]
    session = ort.InferenceSession(paths.served_model("resnet50"))
    with embedded_triton.start(write_repository()) as server:
        pictures = time_one_picture(server, session, image)
        images = measure_throughput(server, session, image, rounds)
        lines = measure_curves(server)
    content = {
        "environment": {
            "processor": machine.processor(),
            "GPU": machine.gpu() or None,
            "Triton": versions.EMBEDDED.triton,
            "ONNX Runtime": ort.__version__,
        },
        "ms for one picture": pictures,
        "images/s": images,
        "ratios": compute_ratios(pictures, images),
        "curves": lines,
    }
    path = paths.ARTIFACTS / "benchmark.json"
    path.write_text(json.dumps(content) + "\n")
    print(*(f"{k}: {v}" for k, v in content["environment"].items() if v), sep="\n")
    for title in "ms for one picture", "images/s", "ratios":
        print(f"\n{title}\n{summarise(content[title]).round(2).to_string()}")
    for name, line in lines.items():
        columns = ["images/s", "low", "high", "p50 ms", "p95 ms", "p99 ms"]
        rows = pd.DataFrame(line).T[columns].rename_axis("under way")
        print(f"\n{name}\n{rows.round(1).to_string()}")
    print(f"\nAll numbers: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
