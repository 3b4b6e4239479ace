"""Measure what notebooks 04, 07, 09 and 12 show to readers who have no GPU.

    python tools/record_engines.py export FOLDER     # where PyTorch is
    python tools/record_engines.py engines FOLDER    # where TensorRT is
    python tools/record_engines.py run FOLDER        # there too, after the second
    python tools/record_engines.py serve FOLDER      # the same

FOLDER holds ``images.npy``, (N, 3, 224, 224) float32, to compare and to calibrate
with. The first step writes ResNet-50 as ONNX, with PyTorch's logits, and times PyTorch.
The second makes FP16 and INT8 models of every ``NAME.onnx`` that has a ``NAME.npz``
(``input``, ``logits``) beside it, and where it has depthwise convolutions a mixed one,
with four of them in FP32; it builds engines, reads, compares and times them. Both leave
JSON files that name GPU, driver and versions. They are apart because TensorRT 8.6, the
one complete build of TensorRT on PyPI, wants another Python than today's PyTorch.
``run`` runs ``classifier_fp16.plan`` with the function of notebook 04, and ``serve``
serves it with the embedded Triton.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # helpers, not installed

BATCHES = [1, 8, 32, 64, 128, 256]
BEST = 64  # the batch that engines are tuned for
KEPT = 4  # depthwise convolutions that a mixed model has in FP32
OPSET = 17  # the highest that TensorRT 8.6 reads
RUNS, WARM_UP = 100, 20


def describe_environment(**versions):
    """What was measured on."""
    query = "--query-gpu=name,driver_version,compute_cap"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    first, *_ = subprocess.check_output(command, text=True).splitlines()
    gpu, driver, capability = first.split(", ")
    return {
        "GPU": gpu,
        "driver": driver,
        "compute capability": capability,
        "Python": platform.python_version(),
        **versions,
    }


def write(folder, name, content):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content) + "\n")
    print("wrote", path, flush=True)


# --------------------------------------------------------------- with PyTorch


def export(folder):
    """ResNet-50 as ONNX, PyTorch's logits, PyTorch's times."""
    import torch
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.resnet50(weights=None).eval()
    for layer in module.modules():
        # All zero, the exporter would store them once, and TensorRT copy at run time
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.bias, std=0.1)
    images = np.load(folder / "images.npy")
    with torch.inference_mode():
        logits = module(torch.from_numpy(images)).numpy()
    np.savez(folder / "resnet50.npz", input=images, logits=logits)
    torch.onnx.export(
        module,
        (torch.from_numpy(images[:2]),),
        folder / "resnet50.onnx",
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )
    if torch.cuda.is_available():
        versions = {"torch": torch.__version__, "CUDA": torch.version.cuda}
        latencies = time_pytorch(torch, module.cuda())
        latencies |= time_onnxruntime(folder / "resnet50.onnx")
        content = {
            "environment": describe_environment(**versions),
            "latency ms": latencies,
        }
        write(folder, "pytorch", content)


def time_pytorch(torch, module):
    """Median latency in ms by candidate and batch size, by CUDA events."""
    candidates = {
        "PyTorch FP32": (torch.float32, torch.contiguous_format, False),
        "PyTorch TF32": (torch.float32, torch.contiguous_format, True),
        "PyTorch FP16, channels last": (torch.float16, torch.channels_last, False),
    }
    latencies = {}
    for name, (dtype, layout, tf32) in candidates.items():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        module = module.to(dtype=dtype, memory_format=layout)
        latencies[name] = {}
        for batch in BATCHES:
            images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=dtype)
            images = images.contiguous(memory_format=layout)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            times = []
            with torch.inference_mode():
                for _ in range(WARM_UP + RUNS):
                    begin.record()
                    module(images)
                    end.record()
                    end.synchronize()
                    times.append(begin.elapsed_time(end))
            latencies[name][batch] = float(np.median(times[WARM_UP:]))
            print(name, batch, latencies[name][batch], flush=True)
    return latencies


def time_onnxruntime(path):
    """The same for ONNX Runtime, on the GPU or, without CUDA, on all CPU cores."""
    import onnxruntime as ort

    cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    device = "cuda" if cuda else "cpu"
    where = "GPU" if cuda else f"{len(os.sched_getaffinity(0))} CPU cores"
    runs, warm_up = (RUNS, WARM_UP) if cuda else (20, 3)
    session = ort.InferenceSession(path, providers=[provider])
    latencies = {}
    for batch in BATCHES if cuda else BATCHES[:4]:
        images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224))
        value = ort.OrtValue.ortvalue_from_numpy(images.astype(np.float32), device, 0)
        binding = session.io_binding()
        binding.bind_ortvalue_input("input", value)
        binding.bind_output("logits", device)
        times = []
        for _ in range(warm_up + runs):
            begin = time.perf_counter()
            session.run_with_iobinding(binding)
            times.append(1e3 * (time.perf_counter() - begin))
        latencies[batch] = float(np.median(times[warm_up:]))
        print("ONNX Runtime", where, batch, latencies[batch], flush=True)
    return {f"ONNX Runtime {ort.__version__}, {where}": latencies}


# -------------------------------------------------------------- with TensorRT


def write_reduced_models(path, images):
    """Write FP16 and INT8 models beside an FP32 one, as notebooks 02 and 09 do."""
    import onnx
    from onnxconverter_common.float16 import convert_float_to_float16
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{"input": image[None]} for image in images])

        def get_next(self):
            return next(self.feeds, None)

    half = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    onnx.save(half, path.with_stem(f"{path.stem}_fp16"))
    model = onnx.load(path)
    if kept := find_depthwise(model)[:KEPT]:
        mixed = convert_float_to_float16(
            model, keep_io_types=True, node_block_list=kept
        )
        onnx.save(mixed, path.with_stem(f"{path.stem}_mixed"))
    quantize_static(
        path,
        path.with_stem(f"{path.stem}_int8"),
        Images(),
        op_types_to_quantize=["Conv", "Add"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv", "Add"],
        },
    )
    model = onnx.load(path.with_stem(f"{path.stem}_int8"))
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        first = made.get(node.input[0]) if node.op_type == "Add" else None
        if first and first.op_type == "DequantizeLinear":
            node.input[0] = made[first.input[0]].input[0]
    onnx.save(model, path.with_stem(f"{path.stem}_int8"))


def find_depthwise(model):
    """Names of the convolutions that have a filter for each channel."""
    return [
        node.name
        for node in model.graph.node
        if any(x.name == "group" and x.i > 1 for x in node.attribute)
    ]


def build(trt, path, tf32):
    """Build a plan for the GPU present: its bytes, seconds, the network's layers."""
    from embedded_triton.backends.engine import make_logger
    from helpers import engine

    logger = make_logger(trt)
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag
    typed = hasattr(flags, "STRONGLY_TYPED")
    kind = flags.STRONGLY_TYPED if typed else flags.EXPLICIT_BATCH
    network = builder.create_network(1 << int(kind))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)) or not network.num_outputs:
        raise ValueError([parser.get_error(i).desc() for i in range(parser.num_errors)])
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 4 << 30)
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if not typed:  # a weakly typed network has to be allowed, and forbidden, to
        allow_precisions(trt, path, config, network)
    profile = builder.create_optimization_profile()
    tensor = network.get_input(0)
    sizes = [(batch, *tensor.shape[1:]) for batch in (1, BEST, max(BATCHES))]
    profile.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(profile)
    layers = engine.read_network(network, trt)
    begin = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(logger.errors())
    return bytes(plan), time.monotonic() - begin, layers


def allow_precisions(trt, path, config, network):
    """Precisions for TensorRT 8, which does not take them from the file alone."""
    import onnx

    precision = path.stem.rpartition("_")[2]
    mixed = ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    told = {"fp16": ["FP16"], "mixed": mixed, "int8": ["FP16", "INT8"]}
    for flag in told.get(precision, []):
        config.set_flag(getattr(trt.BuilderFlag, flag))
    kept = find_depthwise(onnx.load(path))[:KEPT] if precision == "mixed" else []
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.name in kept:
            layer.precision = trt.DataType.FLOAT
            print("in FP32:", layer.name)


def measure(trt, path, plan, label):
    """Everything that is to know of one engine."""
    from embedded_triton.backends.engine import Engine
    from helpers import parity

    reference = np.load(path.parent / f"{path.stem.split('_')[0]}.npz")
    random = np.random.default_rng(1)
    with Engine(plan, trt) as loaded:
        found = loaded.run({"input": reference["input"]})["logits"]
        latency = {}
        for batch in BATCHES:
            images = random.standard_normal((batch, 3, 224, 224), np.float32)
            latency[batch] = float(np.median(loaded.time({"input": images}, RUNS)))
            print(label, batch, latency[batch], flush=True)
        images = random.standard_normal((64, 3, 224, 224), np.float32)
        information = loaded.information()
        return {
            "parity": parity.compare(reference["logits"], found),
            "logits": found.round(5).tolist(),
            "latency ms": latency,
            "device memory bytes": loaded.device_memory,
            "layer times ms at batch 64": loaded.time_layers({"input": images}),
            "inspector": json.loads(information, strict=False),
        }


def inspect(path, plan):
    """What ``polygraphy inspect model PLAN --model-type engine`` lists."""
    file = path.with_suffix(".plan")
    file.write_bytes(plan)
    # What its script does; TensorRT 8.6's JSON holds control characters
    polygraphy = (
        "import functools, json\n"
        "json.loads = functools.partial(json.loads, strict=False)\n"
        "from polygraphy.tools import main\n"
        "main()"
    )
    command = [sys.executable, "-c", polygraphy, "inspect", "model", str(file)]
    command += ["--model-type", "engine"]
    result = subprocess.run(command, capture_output=True, text=True)
    text = result.stdout + result.stderr
    return text.replace(f"{file.parent}/", "").splitlines()


def engines(folder, names=()):
    """Build, read, compare and time an engine of every ONNX file, or of those named."""
    import tensorrt as trt

    for answers in folder.glob("*.npz"):
        if not answers.with_stem(f"{answers.stem}_int8").with_suffix(".onnx").exists():
            write_reduced_models(
                answers.with_suffix(".onnx"), np.load(folder / "images.npy")
            )
    for path in sorted(folder.glob("*.onnx")):
        if names and path.stem not in names:
            continue
        precision = path.stem.partition("_")[2].upper()
        for tf32 in (False,) if precision else (False, True):
            label = (
                f"{path.stem.partition('_')[0]} {precision or ('FP32', 'TF32')[tf32]}"
            )
            plan, seconds, network = build(trt, path, tf32)
            print(f"{label}: built in {seconds:.0f} s, {len(plan)} bytes", flush=True)
            content = {
                "environment": describe_environment(TensorRT=trt.__version__),
                "build seconds": seconds,
                "plan bytes": len(plan),
                "network": network,
                **measure(trt, path, plan, label),
                "polygraphy": inspect(path, plan),
            }
            write(folder, label.replace(" ", "_").lower(), content)


def run(folder):
    """Run the classifier's FP16 engine with notebook 04's function, and compare."""
    import tensorrt

    from helpers import parity, paths

    notebook = paths.NOTEBOOKS / "04_run_and_inspect_an_engine.ipynb"
    lesson = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if "copyable" in cell["metadata"].get("tags", ()):
            exec("".join(cell["source"]), lesson)
        if "run_engine" in lesson:
            break
    loaded = lesson["load_engine"]((folder / "classifier_fp16.plan").read_bytes())
    stream = lesson["check"](lesson["cuda"].cudaStreamCreate())
    reference = np.load(folder / "classifier.npz")
    inputs = {"input": reference["input"]}
    logits = lesson["run_engine"](loaded, inputs, stream)["logits"]
    measures = parity.compare(reference["logits"], logits)
    content = {
        "environment": describe_environment(TensorRT=tensorrt.__version__),
        "printed": [f"logits {logits.shape} relative L2 {measures['relative L2']:.1e}"],
        "parity": measures,
        "logits": logits.round(5).tolist(),
    }
    write(folder, "run_engine", content)


# ----------------------------------------------------------------- with Triton


def serve(folder):
    """Serve the classifier's FP16 engine: compare, time, and see what is refused."""
    import shutil

    import tensorrt as trt
    import tritonclient.grpc as grpcclient

    import embedded_triton
    from helpers import parity, paths

    repository, plan = folder / "repository", folder / "classifier_fp16.plan"
    shutil.rmtree(repository, ignore_errors=True)
    source = paths.MODEL_REPOSITORY / "classifier_tensorrt"
    pbtxt = (source / "config.pbtxt").read_text()
    add_model(repository, "classifier_tensorrt", pbtxt, plan.read_bytes())
    labels = (source / "labels.txt").read_text()
    (repository / "classifier_tensorrt" / "labels.txt").write_text(labels)
    wrong = make_bad_models(pbtxt, plan.read_bytes())
    for name, (text, data) in wrong.items():
        text = text.replace('label_filename: "labels.txt"', "")
        add_model(repository, name, text.replace("classifier_tensorrt", name), data)
    reference = np.load(folder / "classifier.npz")
    with (
        embedded_triton.start(repository, models=["classifier_tensorrt"]) as server,
        grpcclient.InferenceServerClient(server.grpc) as client,
    ):

        def tensor(images):
            value = grpcclient.InferInput("input", images.shape, "FP32")
            value.set_data_from_numpy(images)
            return [value]

        def infer(images, **options):
            answer = client.infer("classifier_tensorrt", tensor(images), **options)
            return answer.as_numpy("logits")

        found = infer(reference["input"])
        five = grpcclient.InferRequestedOutput("logits", class_count=5)
        latency = {}
        for batch in 1, 8:
            images, times = reference["input"][:batch], []
            for _ in range(WARM_UP + RUNS):
                begin = time.perf_counter()
                infer(images)
                times.append(1e3 * (time.perf_counter() - begin))
            latency[batch] = float(np.median(times[WARM_UP:]))
        labels = infer(reference["input"], outputs=[five])
        content = {
            "environment": describe_environment(
                TensorRT=trt.__version__, Triton=client.get_server_metadata().version
            ),
            "parity": parity.compare(reference["logits"], found),
            "logits": found.round(5).tolist(),
            "classes": [[label.decode() for label in row] for row in labels],
            "latency ms over gRPC": latency,
            "concurrent": ask_together(client, tensor, reference, parity),
            "refused": {name: try_to_load(client, name) for name in wrong},
        }
    write(folder, "serving", content)


def add_model(repository, name, pbtxt, plan):
    """Put a model into a repository."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(pbtxt)
    (repository / name / "1" / "model.plan").write_bytes(plan)


def make_bad_models(pbtxt, plan):
    """What a server should refuse: a dict of name, config and plan."""
    damaged = bytearray(plan)
    damaged[:4] = b"what"
    return {
        "batch_above_the_profile": (
            pbtxt.replace("max_batch_size: 32", "max_batch_size: 512"),
            plan,
        ),
        "batch_in_dims": (
            pbtxt.replace(
                "[ 3, 224, 224 ]\n    format: FORMAT_NCHW", "[ 1, 3, 224, 224 ]"
            ),
            plan,
        ),
        "unknown_output": (pbtxt.replace('"logits"', '"probabilities"'), plan),
        "wrong_type": (pbtxt.replace("TYPE_FP32", "TYPE_FP16"), plan),
        "half_a_plan": (pbtxt, plan[: len(plan) // 2]),
        "no_plan_at_all": (pbtxt, bytes(damaged)),
    }


def try_to_load(client, name):
    """Why the server does not load a model, in its words; None where it does."""
    from tritonclient.utils import InferenceServerException

    try:
        client.load_model(name)
    except InferenceServerException as error:
        return error.message().partition("\n")[0]


def ask_together(client, tensor, reference, parity):
    """Send 64 single images at once; they are batched, and each gets its own answer."""
    import queue

    answers, images = queue.Queue(), reference["input"]
    before = client.get_inference_statistics("classifier_tensorrt").model_stats[0]
    for i in range(64):
        client.async_infer(
            "classifier_tensorrt",
            tensor(images[i % len(images)][None]),
            callback=lambda result, error: answers.put((result, error)),
            request_id=str(i),
        )
    found = {}
    for _ in range(64):
        result, error = answers.get(timeout=60)
        if error:
            raise error
        found[int(result.get_response().id)] = result.as_numpy("logits")[0]
    after = client.get_inference_statistics("classifier_tensorrt").model_stats[0]
    expected = reference["logits"][[i % len(images) for i in range(64)]]
    return {
        "requests": 64,
        "runs": after.execution_count - before.execution_count,
        "parity": parity.compare(expected, np.stack([found[i] for i in range(64)])),
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("step", choices=["export", "engines", "run", "serve"])
    options.add_argument("folder", type=Path)
    options.add_argument("names", nargs="*", help="engines: such as resnet50_fp16")
    arguments = options.parse_args()
    if arguments.step == "engines":
        engines(arguments.folder, arguments.names)
    else:
        {"export": export, "run": run, "serve": serve}[arguments.step](arguments.folder)
