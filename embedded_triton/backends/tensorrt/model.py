"""Triton's ``tensorrt`` backend in Python, for a server without the C++ one.

Triton takes this file for any model whose config says ``backend: "tensorrt"``. It needs
an NVIDIA GPU, and ``tensorrt`` in the server's environment.
https://github.com/triton-inference-server/tensorrt_backend
"""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).parent))
from batching import BatchingModel
from engine import Engine


def open_engine(path, device=0):
    """Put a plan on a GPU, or say why that cannot be."""
    try:
        import tensorrt
    except ImportError as error:
        raise pb_utils.TritonModelException(
            f"the server's environment has no TensorRT ({error}): install "
            "requirements-gpu.txt there, or serve with NVIDIA's container"
        ) from None
    if not path.exists():
        raise pb_utils.TritonModelException(f"failed to stat file {path}")
    try:
        return Engine(path, tensorrt, device)
    except (ImportError, RuntimeError) as error:  # no CUDA bindings, no GPU, no plan
        raise pb_utils.TritonModelException(str(error)) from None


def check(config, engine):
    """Refuse a config that the engine cannot serve."""
    name, maximum = config["name"], config["max_batch_size"]
    largest = min(engine.profile[x][2][0] for x in engine.inputs)
    if maximum > largest:
        raise pb_utils.TritonModelException(
            f"unexpected configuration maximum batch size {maximum} for '{name}', "
            f"model maximum is {largest}: the largest of its optimisation profile"
        )
    for kind, known in ("input", engine.inputs), ("output", engine.outputs):
        for entry in config[kind]:
            if entry["name"] not in known:
                raise pb_utils.TritonModelException(
                    f"unexpected inference {kind} '{entry['name']}', "
                    f"allowed {kind}s are: {', '.join(sorted(known))}"
                )
            provided = engine.dtypes[entry["name"]]
            if pb_utils.triton_string_to_numpy(entry["data_type"]) != provided:
                raise pb_utils.TritonModelException(
                    f"unexpected datatype {entry['data_type']} for inference {kind} "
                    f"'{entry['name']}', the engine has {provided}"
                )
            dims = [-1] * (maximum > 0) + [int(x) for x in entry["dims"]]
            shape = list(engine.shapes[entry["name"]])
            if dims != shape:
                raise pb_utils.TritonModelException(
                    f"model '{name}', tensor '{entry['name']}': the model expects "
                    f"{len(shape)} dimensions (shape {shape}) but the model "
                    f"configuration specifies {len(dims)} dimensions (shape {dims}, "
                    "the batch included where max_batch_size > 0)"
                )


class DLTensor(ctypes.Structure):
    """How DLPack describes a tensor. https://dmlc.github.io/dlpack/latest/c_api.html"""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = (
    ctypes.c_void_p,
    [ctypes.py_object, ctypes.c_char_p],
)


class OnGPU:
    """A request's tensor in GPU memory, where Triton leaves it in the GPU."""

    def __init__(self, tensor):
        self._capsule = tensor.to_dlpack()  # kept: it owns the memory
        found = DLTensor.from_address(_pointer(self._capsule, b"dltensor"))
        self.shape = tuple(found.shape[: found.ndim])
        self.dtype = np.dtype(f"{'iuf'[found.type_code]}{found.bits // 8}")
        self.nbytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.__cuda_array_interface__ = {
            "data": (found.data + found.byte_offset, True),
            "shape": self.shape,
            "typestr": self.dtype.str,
            "version": 3,
        }

    def __len__(self):
        return self.shape[0]


class TritonPythonModel(BatchingModel):
    """One model instance: one engine with its execution context."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Accept the config as it is: an engine is loaded once, in ``initialize``."""
        return auto_complete_model_config

    def initialize(self, args):
        """Load the plan and compare it with the config."""
        config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        path = version / (config["default_model_filename"] or "model.plan")
        self.engine = open_engine(path, int(args["model_instance_device_id"]))
        check(config, self.engine)
        self.batches = config["max_batch_size"] > 0

    def compute(self, names, feed):
        """The outputs of these names for one feed, as a list."""
        results = self.engine.run(feed)
        return [results[name] for name in names]

    def join(self, parts):
        return parts  # the engine copies each to its place in the GPU

    def feed(self, request):
        return {
            tensor.name(): tensor.as_numpy() if tensor.is_cpu() else OnGPU(tensor)
            for tensor in request.inputs()
        }

    def words(self, error):
        """An error as a client should read it."""
        return str(error)

    def finalize(self):
        """Give the GPU's memory back."""
        self.engine.close()
