"""Triton's ``onnxruntime`` backend in Python, for a server without the C++ one.

Triton takes this file for any model whose config says ``backend: "onnxruntime"``. It
fills in an incomplete config, refuses a wrong one and runs the model as the C++ backend
of release 24.10 does, in the same words where a reader meets them.
https://github.com/triton-inference-server/onnxruntime_backend
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).parent))
from batching import BatchingModel

DEFAULT_MAX_BATCH_SIZE = 4  # the server's own default for a model that can batch
TRITON_TYPE = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "STRING",  # as TYPE_STRING; on the wire it is called BYTES
}


def triton_type(tensor):
    """Triton's name for the type of an ONNX Runtime tensor."""
    if tensor.type not in TRITON_TYPE:
        raise pb_utils.TritonModelException(
            f"tensor '{tensor.name}' has the type {tensor.type}; this Python backend "
            f"serves {', '.join(TRITON_TYPE.values())}"
        )
    return TRITON_TYPE[tensor.type]


def shape(tensor):
    """Dimensions of an ONNX Runtime tensor as Triton writes them: -1 for a free one."""
    return [x if isinstance(x, int) else -1 for x in tensor.shape]


def text(dims):
    return "[" + ",".join(map(str, dims)) + "]"


def words(error):
    """The message of an ONNX Runtime error as the C++ backend passes it on."""
    return re.sub(
        r"^\[ONNXRuntimeError\] : (\d+) : \w+ : ",
        r"onnx runtime error \1: ",
        str(error),
    )


def open_session(path, parameters):
    """Open an ONNX file with the threads that the config asks for."""
    options = ort.SessionOptions()
    # Threads that spin after a run take the cores that Triton answers with.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, attribute in (
        ("intra_op_thread_count", "intra_op_num_threads"),
        ("inter_op_thread_count", "inter_op_num_threads"),
    ):
        if key in parameters:
            value = parameters[key]["string_value"]
            if not value.isdecimal():
                raise pb_utils.TritonModelException(
                    f"the parameter {key} is '{value}'; it has to be a whole number, "
                    "and 0 leaves the choice to ONNX Runtime"
                )
            setattr(options, attribute, int(value))
    if not Path(path).exists():
        raise pb_utils.TritonModelException(f"failed to stat file {path}")
    try:
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime raises many kinds, all told in words
        raise pb_utils.TritonModelException(words(error)) from None


def check(config, session):
    """Refuse a config that the model cannot serve."""
    name, batches = config["name"], config["max_batch_size"] > 0
    for kind, tensors in (
        ("input", session.get_inputs()),
        ("output", session.get_outputs()),
    ):
        known = {tensor.name: tensor for tensor in tensors}
        required = sum(not entry.get("optional") for entry in config[kind])
        if kind == "input" and required != len(known):
            raise pb_utils.TritonModelException(
                f"unable to load model '{name}', configuration expects "
                f"{required} inputs, model provides {len(known)}"
            )
        if kind == "input":  # what the file has a value for, a request may leave out
            known |= {x.name: x for x in session.get_overridable_initializers()}
        for entry in config[kind]:
            if batches and entry.get("optional"):
                raise pb_utils.TritonModelException(
                    f"unable to load model '{name}', optional input '{entry['name']}' "
                    "is not supported for models that support batching"
                )
            if entry["name"] not in known:
                raise pb_utils.TritonModelException(
                    f"unexpected inference {kind} '{entry['name']}', "
                    f"allowed {kind}s are: {', '.join(sorted(known))}"
                )
            check_tensor(name, batches, kind, entry, known[entry["name"]])


def check_tensor(name, batches, kind, entry, tensor):
    """Compare one entry of the config with the model's tensor of that name."""
    provided = triton_type(tensor)
    if entry["data_type"] != f"TYPE_{provided}":
        raise pb_utils.TritonModelException(
            f"unable to load model '{name}', configuration expects datatype "
            f"{entry['data_type']} for {kind} '{entry['name']}', "
            f"model provides TYPE_{provided}"
        )
    where = f"model '{name}', tensor '{entry['name']}': "
    model = shape(tensor)
    if batches and model[:1] != [-1]:
        raise pb_utils.TritonModelException(
            f"{where}for the model to support batching the shape should have at least "
            "1 dimension and the first dimension must be -1; but shape expected by the "
            f"model is {text(model)}"
        )
    dims = entry["reshape"]["shape"] if "reshape" in entry else entry["dims"]
    full = [-1] * batches + [int(x) for x in dims]
    free = -1 if kind == "input" else None  # an output has to be the model's exactly
    if len(full) != len(model) or any(b not in (a, free) for a, b in zip(full, model)):
        because = (
            "an initial batch dimension because max_batch_size > 0 followed by the "
            f"explicit tensor shape, making complete shape {text(full)}"
            if batches
            else f"shape {text(full)}"
        )
        raise pb_utils.TritonModelException(
            f"{where}the model expects {len(model)} dimensions (shape {text(model)}) "
            f"but the model configuration specifies {len(full)} dimensions ({because})"
        )


class TritonPythonModel(BatchingModel):
    """One model instance: one ONNX Runtime session."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Fill in what the config leaves out, from the model file."""
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        # The stub's command line is the one place that says where the model is.
        path = Path("/proc/self/cmdline").read_text().split("\0")[1]
        session = open_session(path, {})
        inputs, outputs = session.get_inputs(), session.get_outputs()
        can_batch = all(shape(tensor)[:1] == [-1] for tensor in (*inputs, *outputs))
        max_batch_size = config["max_batch_size"]
        if can_batch and not max_batch_size:
            max_batch_size = DEFAULT_MAX_BATCH_SIZE
            auto_complete_model_config.set_max_batch_size(max_batch_size)
        if can_batch and max_batch_size > 1 and "sequence_batching" not in config:
            auto_complete_model_config.set_dynamic_batching()
        for kind, tensors, add in (
            ("input", inputs, auto_complete_model_config.add_input),
            ("output", outputs, auto_complete_model_config.add_output),
        ):
            for tensor in tensors if not config[kind] else ():
                add(
                    {
                        "name": tensor.name,
                        "data_type": f"TYPE_{triton_type(tensor)}",
                        "dims": shape(tensor)[max_batch_size > 0 :],
                    }
                )
        return auto_complete_model_config

    def initialize(self, args):
        """Open the session and compare it with the config."""
        config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        file = config["default_model_filename"] or "model.onnx"
        self.session = open_session(version / file, config["parameters"])
        check(config, self.session)
        self.input_names = [entry["name"] for entry in config["input"]]
        self.batches = config["max_batch_size"] > 0

    def compute(self, names, feed):
        """The outputs of these names for one feed, as a list."""
        return self.session.run(names, feed)

    def words(self, error):
        """An error as a client should read it."""
        return words(error)

    def feed(self, request):
        """The inputs of a request by name; text as ONNX Runtime wants it."""
        feed = super().feed(request)
        for name, value in feed.items():
            if value.dtype == object:  # ONNX strings are text, Triton's are bytes
                strings = [x.decode() for x in value.ravel()]
                feed[name] = np.array(strings, object).reshape(value.shape)
        return feed
