"""Measure what notebooks 12 and 13 show of a served TensorRT engine.

    python tools/record_throughput.py build FOLDER   # after record_engines.py's export
    python tools/record_throughput.py steps FOLDER
    python tools/record_throughput.py curves FOLDER
    python tools/record_throughput.py files FOLDER

FOLDER holds what ``record_engines.py`` needs and makes; ``pixels.npy``, (N, 224, 224,
3) uint8, from which its ``images.npy`` was computed with ImageNet's mean and
deviation; and for the last step a folder ``files`` of pictures ``*.jpg``, with
``answers.npz``, which has their tensors and logits (``input``, ``logits``) in the order
of their names.
``build`` makes engines that take pixels. ``steps`` takes the served ResNet-50 from what
the shipped config does to what the GPU can, one change at a time, beside a model that
does nothing. ``curves`` measures throughput against latency. ``files`` serves the
ensemble of notebook 13 with an engine at its end.
"""

import argparse
import base64
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import record_engines  # first: it makes the project importable

import embedded_triton
from embedded_triton import versions
from helpers import load_client, parity, paths, perf_analyzer
from helpers.null_model import write_null_model

ROUNDS = 3
INSTANCES = 4
WAYS = {  # what is changed, the model, how it is asked
    "float32 over gRPC, one instance": ("floats_1", {"concurrency": 64}),
    "four instances": ("floats", {"concurrency": 64}),
    "uint8, normalised in the engine": ("pixels", {"concurrency": 64}),
    "system shared memory": (
        "pixels",
        {"concurrency": 64, "shared_memory": "system"},
    ),
    "8 pictures in a request": (
        "pixels",
        {"concurrency": 32, "shared_memory": "system", "batch": 8},
    ),
    "32 pictures in a request": (
        "pixels",
        {"concurrency": 16, "shared_memory": "system", "batch": 32},
    ),
    "CUDA shared memory": (
        "pixels",
        {"concurrency": 16, "shared_memory": "cuda", "batch": 32},
    ),
    "tensors stay on the GPU": (
        "pixels_on_gpu",
        {"concurrency": 16, "shared_memory": "cuda", "batch": 32},
    ),
}
LINES = {
    "FP16, float32 over gRPC": ("floats", {}),
    "FP16, uint8 over gRPC": ("pixels", {}),
    "FP16, uint8 in shared memory": ("pixels", {"shared_memory": "system"}),
    "INT8, uint8 in shared memory": ("pixels_int8", {"shared_memory": "system"}),
    "FP16, 32 uint8 pictures in shared memory": (
        "pixels",
        {"shared_memory": "system", "batch": 32},
    ),
    "INT8, 32 uint8 pictures in shared memory": (
        "pixels_int8",
        {"shared_memory": "system", "batch": 32},
    ),
}
CONCURRENCIES = 1, 4, 16, 64
KEEP_ON_GPU = (
    'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }'
)
MODELS = {  # plan, instances, further lines of the config
    "floats_1": ("resnet50_fp16", 1, ""),
    "floats": ("resnet50_fp16", INSTANCES, ""),
    "pixels": ("resnet50_pixels_fp16", INSTANCES, ""),
    "pixels_on_gpu": ("resnet50_pixels_fp16", INSTANCES, KEEP_ON_GPU),
    "pixels_int8": ("resnet50_pixels_int8", INSTANCES, ""),
}
PIXELS = "TYPE_UINT8  dims: [ 224, 224, 3 ]"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as torchvision normalises


def normalise_first(path):
    """Put the normalisation in front of a network, as notebook 11 does."""
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper

    network = onnx.load(path)
    constants = {"scale": 255, "mean": MEAN, "std": STD}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    info = helper.make_tensor_value_info
    front = helper.make_model(
        helper.make_graph(
            nodes,
            "normalise",
            [info("pixels", TensorProto.UINT8, ["batch", 224, 224, 3])],
            [info("planes", TensorProto.FLOAT, ["batch", 3, 224, 224])],
            [numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()],
        ),
        opset_imports=network.opset_import,
        ir_version=network.ir_version,
    )
    whole = compose.merge_models(front, network, io_map=[("planes", "input")])
    stem, _, precision = path.stem.rpartition("_")
    onnx.save(whole, path.with_stem(f"{stem}_pixels_{precision}"))


def build(folder):
    """Engines of ResNet-50 in FP16, in FP16 and INT8 for pixels."""
    import tensorrt as trt

    if not (folder / "resnet50_int8.onnx").exists():
        record_engines.write_reduced_models(
            folder / "resnet50.onnx", np.load(folder / "images.npy")
        )
    for name in "resnet50_fp16", "resnet50_int8":
        normalise_first(folder / f"{name}.onnx")
    for name in "resnet50_fp16", "resnet50_pixels_fp16", "resnet50_pixels_int8":
        path = folder / f"{name}.onnx"
        plan, seconds, _ = record_engines.build(trt, path, tf32=False)
        path.with_suffix(".plan").write_bytes(plan)
        print(f"{name}: built in {seconds:.0f} s, {len(plan)} bytes", flush=True)


def make_config(plan):
    """The config of ``classifier_tensorrt``, for pixels where the plan takes them."""
    source = (
        paths.MODEL_REPOSITORY / "classifier_tensorrt" / "config.pbtxt"
    ).read_text()
    source = re.sub(r'\s*label_filename: "labels.txt"', "", source)
    if "pixels" in plan:
        source = source.replace("TYPE_FP32  dims: [ 3, 224, 224 ]", PIXELS)
        source = source.replace('"input"', '"pixels"').replace("NCHW", "NHWC")
    return source


def write_repository(folder):
    """A repository of the models above, and of two that do nothing."""
    target = folder / "throughput"
    shutil.rmtree(target, ignore_errors=True)
    for name, (plan, count, more) in MODELS.items():
        config = make_config(plan).replace('"classifier_tensorrt"', f'"{name}"')
        config = config.replace("max_batch_size: 32", "max_batch_size: 64")
        config = config.replace("count: 1", f"count: {count}")
        config = re.sub(r"\nversion_policy.*|\nmodel_warmup(.|\n)*\n\]\n", "", config)
        config += more
        data = (folder / f"{plan}.plan").read_bytes()
        record_engines.add_model(target, name, config, data)
        if name in ("floats", "pixels"):
            null_config = config.replace(f'"{name}"', f'"nothing_{name}"')
            write_null_model(target, f"nothing_{name}", null_config)
    return target


def check(server, folder):
    """How far the served answers are from PyTorch's, by model and by way."""
    import tritonclient.grpc as grpcclient
    from tritonclient.utils import InferenceServerException, cuda_shared_memory

    reference = np.load(folder / "resnet50.npz")
    pixels = np.load(folder / "pixels.npy")
    found = {}
    with grpcclient.InferenceServerClient(server.grpc) as client:

        def ask(name, feed, region=None):
            kind = {"float32": "FP32", "uint8": "UINT8"}[str(feed.dtype)]
            key = "pixels" if feed.dtype == np.uint8 else "input"
            tensor = grpcclient.InferInput(key, feed.shape, kind)
            if region:
                tensor.set_shared_memory(region, feed.nbytes)
            else:
                tensor.set_data_from_numpy(feed)
            logits = client.infer(name, [tensor]).as_numpy("logits")
            return parity.compare(reference["logits"], logits)

        for name in MODELS:
            feed = reference["input"] if name.startswith("floats") else pixels
            found[name] = ask(name, feed)
        region = cuda_shared_memory.create_shared_memory_region("c", pixels.nbytes, 0)
        cuda_shared_memory.set_shared_memory_region(region, [pixels])
        handle = cuda_shared_memory.get_raw_handle(region)
        client.register_cuda_shared_memory("c", handle, 0, pixels.nbytes)
        for name in "pixels", "pixels_on_gpu":
            try:
                found[f"{name}, CUDA shared memory"] = ask(name, pixels, "c")
            except InferenceServerException as error:
                print(f"{name}, CUDA shared memory: {error}", flush=True)
        time.sleep(0.5)
        client.unregister_cuda_shared_memory("c")
        cuda_shared_memory.destroy_shared_memory_region(region)
    for name, distance in found.items():
        print(f"{name}: relative L2 {distance['relative L2']:.2g}", flush=True)
    return found


def try_to_measure(server, name, options):
    """A measurement, or None with its reason printed."""
    try:
        row = perf_analyzer.measure(server, name, **options)
    except load_client.LoadError as error:
        print(name, options, error, flush=True)
        return None
    print(f"{name} {options}: {row['images/s']:.0f} images/s", flush=True)
    return row


def start(folder, models=None):
    """A server of the models above."""
    return embedded_triton.start(write_repository(folder), models=models, timeout=200)


def describe_environment():
    """What was measured on; client, server and GPU are in one machine."""
    import tensorrt as trt

    found = record_engines.describe_environment(
        TensorRT=trt.__version__, Triton=versions.EMBEDDED.triton
    )
    return found | {"CPU cores": len(os.sched_getaffinity(0))}


def steps(folder):
    """From the shipped config to what the GPU can do, one change at a time."""
    content = {"environment": describe_environment(), "images/s": {}, "nothing": {}}
    with start(folder) as server:
        content["parity"] = check(server, folder)
        for _ in range(ROUNDS):
            for way, (name, options) in WAYS.items():
                nothing = "nothing_pixels" if "pixels" in name else "nothing_floats"
                for kind, model in ("images/s", name), ("nothing", nothing):
                    row = try_to_measure(server, model, options)
                    content[kind].setdefault(way, []).append(row)
            record_engines.write(folder, "throughput_steps", content)


def curves(folder):
    """Throughput against latency."""
    content = {"environment": describe_environment(), "curves": {}}
    models = sorted({name for name, _ in LINES.values()})
    with start(folder, models) as server:
        for line, (name, options) in LINES.items():
            content["curves"][line] = {
                concurrency: try_to_measure(
                    server, name, {**options, "concurrency": concurrency}
                )
                for concurrency in CONCURRENCIES
            }
            record_engines.write(folder, "throughput_curves", content)


def write_ensemble(folder, count):
    """The repository of notebook 13 with the engine in it: its path, lines changed."""
    target = folder / "ensemble"
    shutil.rmtree(target, ignore_errors=True)
    for name in "preprocess", "classify", "classifier_tensorrt":
        shutil.copytree(paths.MODEL_REPOSITORY / name, target / name)
        config = target / name / "config.pbtxt"
        config.write_text(config.read_text().replace("count: 1", f"count: {count}"))
    config = target / "classify" / "config.pbtxt"
    lines = config.read_text().splitlines()
    changed = [x.replace("classifier_onnx", "classifier_tensorrt") for x in lines]
    config.write_text("\n".join(changed) + "\n")
    version = target / "classifier_tensorrt" / "1"
    version.mkdir(exist_ok=True)
    shutil.copy(folder / "classifier_mixed.plan", version / "model.plan")
    return target, sum(a != b for a, b in zip(lines, changed))


def files(folder):
    """The ensemble of notebook 13, with the classifier's engine at its end."""
    content = {"environment": describe_environment(), "engine": "classifier_mixed"}
    pictures = sorted((folder / "files").glob("*.jpg"))
    content["bytes"] = {path.stem: path.stat().st_size for path in pictures}
    reference = np.load(folder / "files" / "answers.npz")
    sent = [
        {"image": {"b64": encode_bytes(path.read_bytes()), "shape": [1]}}
        for path in pictures
    ]
    (folder / "files.json").write_text(json.dumps({"data": sent}))
    perf_analyzer.write_inputs(folder / "tensors.json", {"input": reference["input"]})
    for count in 1, INSTANCES:
        repository, content["lines changed"] = write_ensemble(folder, count)
        with embedded_triton.start(repository, timeout=120) as server:
            if count == 1:
                content |= classify_files(server, pictures, reference["logits"])
            content[f"images/s, instances: {count}"] = measure_routes(server, folder)
        record_engines.write(folder, "ensemble", content)


def classify_files(server, pictures, expected):
    """Classify files, one a request: distances, labels, and where the time goes."""
    import tritonclient.grpc as grpcclient

    five = grpcclient.InferRequestedOutput("logits", class_count=5)
    logits, labels = [], {}
    with grpcclient.InferenceServerClient(server.grpc) as client:
        for path in pictures:
            tensor = grpcclient.InferInput("image", [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[path.read_bytes()]], object))
            for _ in range(record_engines.RUNS // len(pictures)):
                answer = client.infer("classify", [tensor])
            logits.append(answer.as_numpy("logits")[0])
        time.sleep(0.5)
        statistics = client.get_inference_statistics(as_json=True)["model_stats"]
        for path in pictures:
            tensor.set_data_from_numpy(np.array([[path.read_bytes()]], object))
            answer = client.infer("classify", [tensor], outputs=[five])
            found = answer.as_numpy("logits")[0]
            labels[path.stem] = [label.decode() for label in found]
    distance = parity.compare(expected, np.stack(logits))
    print(distance, flush=True)
    times = {x["name"]: x["inference_stats"] for x in statistics}
    return {
        "parity": distance,
        "classes": labels,
        "statistics of one client": times,
    }


def measure_routes(server, folder):
    """Images a second by what is sent and by requests under way, in every round."""
    return {
        route: {
            concurrency: [
                try_to_measure(server, name, {"concurrency": concurrency, "data": sent})
                for _ in range(ROUNDS)
            ]
            for concurrency in (8, 32)
        }
        for route, name, sent in (
            ("JPEG", "classify", str(folder / "files.json")),
            ("float32", "classifier_tensorrt", str(folder / "tensors.json")),
        )
    }


def encode_bytes(data):
    """BYTES as perf_analyzer wants them: behind their length."""
    return base64.b64encode(len(data).to_bytes(4, "little") + data).decode()


STEPS = {"build": build, "steps": steps, "curves": curves, "files": files}

if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("step", choices=STEPS)
    options.add_argument("folder", type=Path)
    arguments = options.parse_args()
    STEPS[arguments.step](arguments.folder)
