"""Which versions meet in each server.

What an ONNX file may use in each of them is in ``repository_check.servers``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Versions:
    """What one server is made of.

    Attributes:
        where: the container's tag, or the package.
        triton: version number.
        tensorrt: version number; None where the server has no TensorRT of its own.
    """

    where: str
    triton: str
    tensorrt: str | None


# Triton 2.73.0 is release 26.09, based on CUDA 13.4.1:
#   docs.nvidia.com/deeplearning/triton-inference-server/release-notes/rel-26-09.html
# TensorRT: what github.com/triton-inference-server/tutorials/pull/170 builds r26.08 and
# the main branch of that time with, on the same CUDA; `docker run --rm TAG printenv
# TRT_VERSION` says what the container holds.
CONTAINER = Versions(
    where="nvcr.io/nvidia/tritonserver:26.09-py3", triton="2.73.0", tensorrt="11.2.1.2"
)
EMBEDDED = Versions(where="nvidia-pytriton 0.7.0", triton="2.51.0", tensorrt=None)
