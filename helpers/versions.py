"""Which versions meet in each server, and what an ONNX file may therefore use."""

from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class Versions:
    """What one server is made of.

    Attributes:
        where: the container's tag, or the package.
        triton, onnxruntime: version numbers.
        tensorrt: version number; None where the server has no TensorRT of its own.
        ir_version: the highest version of ONNX's file format that it reads.
        opset: the highest version of the operator set ``ai.onnx`` that it reads.
    """

    where: str
    triton: str
    tensorrt: str | None
    onnxruntime: str
    ir_version: int
    opset: int


# Triton 2.73.0 is release 26.09, based on CUDA 13.4.1:
#   docs.nvidia.com/deeplearning/triton-inference-server/release-notes/rel-26-09.html
# ONNX Runtime: github.com/triton-inference-server/server/pull/8966
# TensorRT: what github.com/triton-inference-server/tutorials/pull/170 builds r26.08 and
# the main branch of that time with, on the same CUDA; `docker run --rm TAG printenv
# TRT_VERSION` says what the container holds.
CONTAINER = Versions(
    where="nvcr.io/nvidia/tritonserver:26.09-py3",
    triton="2.73.0",
    tensorrt="11.2.1.2",
    onnxruntime="1.30.0",
    ir_version=13,
    opset=26,
)
# Triton: the server's own answer. ONNX Runtime: requirements-server.txt.
EMBEDDED = Versions(
    where="nvidia-pytriton 0.7.0",
    triton="2.51.0",
    tensorrt=None,
    onnxruntime="1.31.1",
    ir_version=13,
    opset=26,
)
# IR version and opset of both: the highest that the packages onnxruntime 1.30.0 and
# 1.31.1 open; both refuse the next one by name.
SERVERS = {"NVIDIA's container": CONTAINER, "embedded server": EMBEDDED}


def check(file):
    """Refuse an ONNX file that is too new for one of the servers.

    Args:
        file: path of an ONNX file.

    Raises:
        ValueError: its IR version or opset is above what a server reads; the message
            names both.
    """
    model = onnx.load(file, load_external_data=False)
    opset = max(x.version for x in model.opset_import if x.domain in ("", "ai.onnx"))
    for name, server in SERVERS.items():
        for what, found, highest in (
            ("IR version", model.ir_version, server.ir_version),
            ("opset", opset, server.opset),
        ):
            if found > highest:
                raise ValueError(
                    f"{file} has {what} {found}; ONNX Runtime {server.onnxruntime} in "
                    f"the {name} ({server.where}) reads up to {highest}. Export it "
                    "with a lower opset_version"
                )
