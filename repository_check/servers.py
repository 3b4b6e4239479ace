"""What a server can do, as far as that decides what it accepts."""

import ctypes
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ServerFeatures:
    """What a server can do; None for what is not known.

    Attributes:
        backends: names of its backends.
        gpus: how many GPUs it sees.
        cache: whether it was started with a response cache.
        onnxruntime: version of its ONNX Runtime.
        ir_version: the highest version of ONNX's file format that it reads.
        opset: the highest version of the operator set ``ai.onnx`` that it reads.
        lacks: fields of a config, as paths, that newer releases have and it has not.
    """

    backends: frozenset | None = None
    gpus: int | None = None
    cache: bool | None = None
    onnxruntime: str | None = None
    ir_version: int | None = None
    opset: int | None = None
    lacks: tuple = ()


# ONNX Runtime: requirements-server.txt, and for the container of release 26.09
#   github.com/triton-inference-server/server/pull/8966
# IR version and opset: the highest that the packages onnxruntime 1.30.0 and 1.31.1
# open; both refuse the next one by name.
EMBEDDED = ServerFeatures(
    backends=frozenset(("onnxruntime", "tensorrt", "python")),
    onnxruntime="1.31.1",
    ir_version=13,
    opset=26,
    lacks=(("model_metrics",), ("ensemble_scheduling", "max_inflight_requests")),
)
CONTAINER = ServerFeatures(onnxruntime="1.30.0", ir_version=13, opset=26)


def server_features(kind):
    """What a kind of server on this machine can do.

    Args:
        kind: ``any``, ``embedded`` or ``container``.
    """
    if kind == "any":
        return ServerFeatures()
    features = EMBEDDED if kind == "embedded" else CONTAINER
    return replace(features, gpus=gpu_count())


def find_too_new(model, server):
    """What an ONNX model uses that is newer than what a server reads.

    Args:
        model: an ``onnx.ModelProto``.
        server: ``ServerFeatures``.

    Yields:
        (``IR version`` or ``opset``, the model's, the highest that the server reads).
    """
    opset = max((x.version for x in model.opset_import if not x.domain), default=0)
    for what, found, highest in (
        ("IR version", model.ir_version, server.ir_version),
        ("opset", opset, server.opset),
    ):
        if highest is not None and found > highest:
            yield what, found, highest


def gpu_count():
    """How many GPUs the NVIDIA driver shows; 0 without a driver.

    Needs neither torch nor TensorRT, and is safe on a machine without a driver.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
