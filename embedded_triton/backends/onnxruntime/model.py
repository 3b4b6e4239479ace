"""Triton's ``onnxruntime`` backend in Python, for a server without the C++ one.

Triton takes this file for any model whose config says ``backend: "onnxruntime"``. It
fills in an incomplete config, refuses a wrong one and runs the model as the C++ backend
of release 24.10 does; docs/stand_in.md says where it does not.
https://github.com/triton-inference-server/onnxruntime_backend
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).parent))
from batching import BatchingModel
from ragged import make_batch_input, scatter_batch_output
from session import (
    default_max_batch_size,
    make_run_options,
    open_session,
    refuse,
    words,
)
from validation import check, check_kinds, dims_of, shape, triton_type

IS_SEQUENCE_START = pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
IS_SEQUENCE_END = pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END


def complete(config, session):
    """Fill in ``max_batch_size``, batching, inputs and outputs from the file."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    check_kinds([*inputs, *outputs])
    if all(shape(tensor)[:1] == [-1] for tensor in (*inputs, *outputs)):
        if not config["max_batch_size"]:
            config["max_batch_size"] = default_max_batch_size()
            pb_utils.Logger.log_warn(
                f"autofilled max_batch_size to {config['max_batch_size']} for model "
                f"'{config['name']}' since it can batch and its config does not say "
                "how much"
            )
        if config["max_batch_size"] > 1 and "sequence_batching" not in config:
            config.setdefault("dynamic_batching", {})
    elif config["max_batch_size"]:
        refuse(
            f"autofill failed for model '{config['name']}': model does not support "
            "batching while non-zero max_batch_size is specified"
        )
    for kind, tensors in ("input", inputs), ("output", outputs):
        config[kind] = config[kind] or [
            describe(tensor, config["max_batch_size"] > 0) for tensor in tensors
        ]


def describe(tensor, batches):
    """The entry of a config for a tensor. Triton accepts no empty dims."""
    dims = shape(tensor)[batches:]
    entry = {"name": tensor.name, "data_type": triton_type(tensor), "dims": dims or [1]}
    if batches and not dims:
        entry["reshape"] = {"shape": []}
    return entry


def as_c_strings(texts):
    """Bytes as ONNX Runtime reads them from NumPy: each ends at its first NUL."""
    strings = [text.partition(b"\0")[0] for text in texts.ravel()]
    width = max(map(len, strings), default=0) + 1  # so that the longest has a NUL too
    return np.array(strings, f"S{width}").reshape(texts.shape)


class TritonPythonModel(BatchingModel):
    """One model instance: one ONNX Runtime session."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Fill in what the config leaves out, from the model file."""
        config = auto_complete_model_config.as_dict()  # not a copy
        if not (config["input"] or config.get("batch_input")) or not config["output"]:
            # The stub's command line is the one place that says where the model is.
            path = Path("/proc/self/cmdline").read_text().split("\0")[1]
            complete(config, open_session(Path(path).parent, config))
        return auto_complete_model_config

    def initialize(self, args):
        """Open the session and compare it with the config."""
        config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        self.session = open_session(version, config)
        check(config, self.session)
        if args["model_instance_kind"] == "GPU":
            name = args["model_instance_name"]
            pb_utils.Logger.log_warn(f"{name} is of KIND_GPU, and runs on the CPU here")
        self.run_options = make_run_options(config)
        self.batches = config["max_batch_size"] > 0
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled")
        self.scalar_inputs = {x.name for x in self.session.get_inputs() if not x.shape}
        scalars = {x.name for x in self.session.get_outputs() if not x.shape}
        self.dims = {entry["name"]: dims_of(entry) for entry in config["output"]}
        self.scalar_outputs = scalars & self.dims.keys()
        self.ragged = {
            x["name"] for x in config["input"] if x.get("allow_ragged_batch")
        }
        self.batch_inputs = config.get("batch_input", ())
        self.batch_outputs = {
            x["target_name"][0]: x["source_input"][0]
            for x in config.get("batch_output", ())
        }
        batcher = config.get("sequence_batching", {})
        self.states = {
            x["output_name"]: x["input_name"] for x in batcher.get("state", ())
        }
        self.slots = batcher.get("oldest", {}).get("max_candidate_sequences")
        self.slots = self.slots or max(config["max_batch_size"], 1)
        self.sequences = {}  # the states of each, the latest used at the end

    def compute(self, names, feed):
        """The outputs of these names for one feed, as a list."""
        return self.session.run(names, feed, self.run_options)

    def words(self, error):
        """An error as a client should read it."""
        if isinstance(error, UnicodeDecodeError):
            return f"an output is text that is not UTF-8: {error}"
        return words(error)

    def names(self, wanted):
        return sorted(wanted | self.states.keys())

    def feed(self, request):
        """The inputs of a request by name; text as ONNX Runtime wants it."""
        feed = super().feed(request)
        if self.states and not request.flags() & IS_SEQUENCE_START:
            feed |= self.sequences.get(request.correlation_id(), {})
        for name, value in feed.items():
            if value.dtype == object:
                feed[name] = as_c_strings(value)
        return feed

    def gather(self, feeds):
        flat = [
            {k: x.ravel() if k in self.ragged else x for k, x in feed.items()}
            for feed in feeds
        ]
        batch = super().gather(flat)
        for name in self.scalar_inputs & batch.keys():
            batch[name] = batch[name].reshape(-1)[:1].reshape(())
        for entry in self.batch_inputs:
            value = make_batch_input(entry, feeds)
            batch |= dict.fromkeys(entry["target_name"], value)
        return batch

    def scatter(self, values, feeds):
        for name in self.scalar_outputs & values.keys():
            values[name] = np.reshape(values[name], self.dims[name])
        sources = {k: x for k, x in self.batch_outputs.items() if k in values}
        flat = {name: values.pop(name) for name in sources}
        parts = super().scatter(values, feeds)
        for name, source in sources.items():
            dims = [-1] * self.batches + self.dims[name]
            arrays = [feed[source] for feed in feeds]
            for part, own in zip(parts, scatter_batch_output(flat[name], dims, arrays)):
                part[name] = own
        return parts

    def remember(self, requests, parts):
        """Keep implicit state. Triton feeds the initial one, and can take none back
        from a Python model."""
        if not self.states:
            return
        for request, part in zip(requests, parts):
            sequence = request.correlation_id()
            self.sequences.pop(sequence, None)
            if sequence and not request.flags() & IS_SEQUENCE_END:
                states = {self.states[name]: part[name] for name in self.states}
                self.sequences[sequence] = states
            if len(self.sequences) > self.slots:  # one was never ended by its client
                del self.sequences[next(iter(self.sequences))]
