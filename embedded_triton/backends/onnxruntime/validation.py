"""Compare a config with an ONNX file. Lies beside the onnxruntime backend.

Each refusal has the words of the C++ backend, release 24.10, src/onnxruntime.cc.
"""

import re

from session import refuse

TRITON_TYPE = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "STRING",  # as TYPE_STRING; on the wire it is called BYTES
}
BOOLEAN_CONTROLS = "START", "END", "READY"
CONTROL_VALUES = {
    "int32_false_true": "TYPE_INT32",
    "fp32_false_true": "TYPE_FP32",
    "bool_false_true": "TYPE_BOOL",
}


def element_type(tensor):
    """``float`` of ``tensor(float)``."""
    return tensor.type[len("tensor(") : -1]


def triton_type(tensor):
    """The type of an ONNX Runtime tensor as configs write it."""
    return "TYPE_" + TRITON_TYPE.get(element_type(tensor), "INVALID")


def shape(tensor):
    """Dimensions of an ONNX Runtime tensor as Triton writes them: -1 for a free one."""
    return [x if isinstance(x, int) else -1 for x in tensor.shape]


def text(dims):
    return "[" + ",".join(map(str, dims)) + "]"


def dims_of(entry):
    """What the model sees of an entry of the config: its reshape where it has one."""
    dims = entry["reshape"].get("shape", ()) if "reshape" in entry else entry["dims"]
    return [int(x) for x in dims]


def check_kinds(tensors):
    """Refuse what is no tensor: scikit-learn's converters make sequences of maps."""
    for tensor in tensors:
        kind = re.match(r"(\w*)\(", tensor.type)[1]
        if kind != "tensor":
            known = {"seq": "SEQUENCE", "map": "MAP", "sparse_tensor": "SPARSETENSOR"}
            refuse(
                f"Unsupported ONNX Type 'ONNX_TYPE_{known.get(kind, 'UNKNOWN')}' for "
                f"I/O '{tensor.name}', expected 'ONNX_TYPE_TENSOR'."
            )


def check(config, session):
    """Refuse a config that the model cannot serve.

    Args:
        config: the model's config, a dict as Triton gives it.
        session: an ``onnxruntime.InferenceSession`` of its file.

    Raises:
        TritonModelException: with the words of Triton's own backend.
    """
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    outputs = {tensor.name: tensor for tensor in session.get_outputs()}
    check_kinds(inputs.values())
    expected = sum(not entry.get("optional") for entry in config["input"])
    expected += len(config.get("batch_input", ()))
    if batcher := config.get("sequence_batching"):
        for kind in *BOOLEAN_CONTROLS, "CORRID":
            expected += check_control(config, batcher, kind, inputs)
        expected += len(batcher.get("state", ()))
    if expected != len(inputs):
        refuse(
            f"unable to load model '{config['name']}', configuration expects "
            f"{expected} inputs, model provides {len(inputs)}"
        )
    # What the file has a value for, a request may give all the same.
    inputs |= {x.name: x for x in session.get_overridable_initializers()}
    for entry in config["input"]:
        check_input(config, entry, inputs)
    check_kinds(outputs.values())
    scattered = {
        name for x in config.get("batch_output", ()) for name in x["target_name"]
    }
    for entry in config["output"]:
        tensor = check_name_and_type(config, "output", entry, outputs)
        if entry["name"] not in scattered:
            check_dims(config, entry, tensor, exact=True)


def check_control(config, batcher, kind, inputs):
    """Check the tensor that tells the model of a sequence's start, end, ...

    Returns:
        The number of such tensors: 1 or 0.
    """
    model, kind = config["name"], f"CONTROL_SEQUENCE_{kind}"
    found = [
        (entry["name"], control)
        for entry in batcher.get("control_input", ())
        for control in entry.get("control", ())
        if control["kind"] == kind
    ]
    if not found:
        return 0
    ((name, control),) = found  # Triton's core refuses a kind that is there twice
    if kind.endswith("CORRID"):
        expected = control["data_type"]
    else:
        (expected,) = [
            CONTROL_VALUES[x] for x in CONTROL_VALUES if len(control.get(x, ())) == 2
        ]
    if name not in inputs:
        refuse(
            f"configuration specified sequence control '{name}', but model does not "
            "provide that input"
        )
    dims = shape(inputs[name])[config["max_batch_size"] > 0 :]
    where = f"unable to load model '{model}', sequence control '{name}'"
    if dims != [1]:
        refuse(f"{where} in model has dims {text(dims)} but dims [1] is expected")
    if triton_type(inputs[name]) != expected:
        refuse(
            f"{where}, the model expects data-type "
            f"{element_type(inputs[name]).upper()} but the model configuration "
            f"specifies data-type {expected}"
        )
    return 1


def check_input(config, entry, inputs):
    model, name = config["name"], entry["name"]
    if entry.get("optional") and config["max_batch_size"]:
        refuse(
            f"unable to load model '{model}', optional input '{name}' is not supported "
            "for models that support batching"
        )
    tensor = check_name_and_type(config, "input", entry, inputs)
    if not entry.get("allow_ragged_batch"):
        check_dims(config, entry, tensor, exact=False)
    elif entry.get("optional"):
        refuse(
            f"unable to load model '{model}', configuration expects model provides "
            f"input with shape [-1] for ragged input '{name}', which is not supported "
            "for optional input"
        )
    elif shape(tensor) != [-1]:
        refuse(
            f"unable to load model '{model}', configuration expects model provides "
            f"input with shape [-1]  for ragged input '{name}', model provides "
            f"{text(shape(tensor))}"
        )


def check_name_and_type(config, kind, entry, tensors):
    """The tensor of an entry; refused where there is none, or it has another type."""
    name, expected = entry["name"], entry["data_type"]
    if name not in tensors:
        refuse(
            f"unexpected inference {kind} '{name}', allowed {kind}s are: "
            f"{', '.join(sorted(tensors))}"
        )
    if expected.removeprefix("TYPE_") not in TRITON_TYPE.values():
        refuse(
            f"unsupported datatype {expected} for {kind} '{name}' for model "
            f"'{config['name']}'"
        )
    provided = triton_type(tensors[name])
    if expected != provided:
        provided = "TYPE_<invalid>" if provided == "TYPE_INVALID" else provided
        refuse(
            f"unable to load model '{config['name']}', configuration expects datatype "
            f"{expected} for {kind} '{name}', model provides {provided}"
        )
    return tensors[name]


def check_dims(config, entry, tensor, exact):
    """Compare the dims of an entry with those of its tensor.

    Args:
        exact: whether a free axis of the model has to be free in the config: of an
            output, not of an input.
    """
    name, batches = config["name"], config["max_batch_size"] > 0
    model, dims = shape(tensor), dims_of(entry)
    if not model:  # a scalar
        if set(dims) - {1}:
            refuse(
                f"unable to load model '{name}', scalar tensor '{entry['name']}', "
                "should only provide 1 in the model configuration when the model "
                "doesn't support batching. Model configuration provided: "
                f"{text(dims)}."
            )
        return
    where = f"model '{name}', tensor '{entry['name']}': "
    if batches and model[0] != -1:
        refuse(
            f"{where}for the model to support batching the shape should have at least "
            "1 dimension and the first dimension must be -1; but shape expected by the "
            f"model is {text(model)}"
        )
    full = [-1] * batches + dims
    free = None if exact else -1
    if len(full) != len(model) or any(b not in (a, free) for a, b in zip(full, model)):
        because = (
            "an initial batch dimension because max_batch_size > 0 followed by the "
            f"explicit tensor shape, making complete shape {text(full)}"
            if batches
            else f"shape {text(full)}"
        )
        refuse(
            f"{where}the model expects {len(model)} dimensions (shape {text(model)}) "
            f"but the model configuration specifies {len(full)} dimensions ({because})"
        )
