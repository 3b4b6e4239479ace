"""The tensors of a config against those of its ONNX file.

Triton's onnxruntime backend compares them when it loads a model: release 24.10,
``ValidateInputs``, ``ValidateOutputs``, ``ValidateBooleanSequenceControl`` and
``AutoCompleteMaxBatch`` in src/onnxruntime.cc.
https://github.com/triton-inference-server/onnxruntime_backend
"""

from .data_types import name_data_type, read_onnx_tensors
from .findings import join_items
from .sequences import SEQUENCE_BATCHER, VALUES
from .tensors import INPUTS_AND_OUTPUTS, MAX_BATCH_SIZE


def check_against_onnx(model):
    config, file = model.config, model.onnx_model
    if not file or config.max_batch_size < 0:
        return
    inputs, outputs = (read_onnx_tensors(file, kind) for kind in ("input", "output"))
    if not (
        _check_kinds(model, inputs, outputs) and _check_batch(model, inputs, outputs)
    ):
        return
    if config.input and _check_count(model, inputs):
        stored = {x.name for x in file.graph.initializer}
        for i, entry in enumerate(config.input):
            if entry.name not in stored:
                _check_entry(model, ("input", i), entry, inputs)
        for path, name, control in _find_controls(config):
            _check_control(model, path, name, control, inputs)
    scattered = {name for x in config.batch_output for name in x.target_name}
    for i, entry in enumerate(config.output):
        _check_entry(model, ("output", i), entry, outputs, entry.name in scattered)


def _check_kinds(model, inputs, outputs):
    for kind, tensors in ("input", inputs), ("output", outputs):
        for name, (data_type, _) in tensors.items():
            if data_type is None:
                model.add_error(
                    kind,
                    found=f"{name!r} in the ONNX file, a sequence or a map",
                    expected="tensors alone, also where the config leaves one out",
                    fix="Convert the model without it; skl2onnx has zipmap=False",
                    link=INPUTS_AND_OUTPUTS,
                )
                return False
    return True


def _check_batch(model, inputs, outputs):
    """The first axis of what the config lists, or of all where Triton completes it."""
    config = model.config
    if config.max_batch_size <= 0:
        return True
    listed = {x.name for x in config.input if not x.allow_ragged_batch}
    listed |= {x.name for x in config.output}
    listed -= {name for x in config.batch_output for name in x.target_name}
    is_completed = not (config.input or config.batch_input) or not config.output
    for name, (_, shape) in (inputs | outputs).items():
        if shape is None or not (is_completed or name in listed):
            continue
        if shape[:1] != [-1] and (shape or is_completed):
            model.add_error(
                "max_batch_size",
                found=f"{config.max_batch_size}, where {name!r} is {shape} in the "
                "ONNX file",
                expected="0, since the file's first axis is no free batch",
                fix="Export with a dynamic batch, or write max_batch_size: 0 and all "
                "dims",
                link=MAX_BATCH_SIZE,
            )
            return False
    return True


def _find_controls(config):
    """Path, name and control of each tensor that tells a model of its sequence."""
    return [
        (("sequence_batching", "control_input", i), entry.name, control)
        for i, entry in enumerate(config.sequence_batching.control_input)
        for control in entry.control
    ]


def _check_count(model, inputs):
    config = model.config
    names = [x.name for x in config.input if not x.optional]
    names += [name for _, name, _ in _find_controls(config)]
    names += [x.input_name for x in config.sequence_batching.state]
    names += [x.target_name[0] for x in config.batch_input if x.target_name]
    if len(names) == len(inputs):
        return True
    model.add_error(
        "input",
        found=f"{len(names)} inputs: {join_items(names)}",
        expected=f"{len(inputs)}: {join_items(inputs)}, as in the ONNX file",
        fix="List each of the file's inputs once",
        link=INPUTS_AND_OUTPUTS,
    )
    return False


def _check_control(model, path, name, control, inputs):
    values = [x for x in VALUES if len(getattr(control, x)) == 2]
    expected = name_data_type(control.data_type)  # of the sequence's id
    if values:
        expected = VALUES[values[0]]
    batch = [-1] * model.has_batch_axis
    data_type, shape = inputs.get(name, (None, None))
    if (data_type, shape) != (expected, [*batch, 1]):
        found = f"{name!r} as {data_type} of {shape}" if data_type else f"no {name!r}"
        model.add_error(
            *path,
            found=f"{found} in the ONNX file",
            expected=f"{expected} of {[*batch, 1]}",
            fix="Give the control the type and name that the file has; its shape is 1",
            link=SEQUENCE_BATCHER,
        )


def _is_complete(entry):
    """Whether there is something to compare; what is missing has a finding."""
    sizes = [*entry.dims]
    return entry.name and entry.data_type and sizes and min(sizes) >= -1 and all(sizes)


def _check_entry(model, path, entry, tensors, is_scattered=False):
    """One entry of the config with the tensor of the ONNX file."""
    if not _is_complete(entry):
        return
    if entry.name not in tensors:
        model.add_error(
            *path,
            "name",
            found=f'"{entry.name}"',
            expected=f"one of the ONNX file's: {join_items(tensors)}",
            fix="Use the name in the file",
            link=INPUTS_AND_OUTPUTS,
        )
        return
    data_type, shape = tensors[entry.name]
    if name_data_type(entry.data_type) != data_type:
        model.add_error(
            *path,
            "data_type",
            found=name_data_type(entry.data_type),
            expected=f"{data_type}, as in the ONNX file",
            fix=f"Write data_type: {data_type}",
            link="model_configuration.html#datatypes",
        )
    is_ragged = path[0] == "input" and entry.allow_ragged_batch
    if is_ragged and shape not in ([-1], None):
        model.add_error(
            *path,
            "allow_ragged_batch",
            found=f"true, where {entry.name!r} is {shape} in the ONNX file",
            expected="[-1], since the requests of a batch are put end to end",
            fix="Remove the line, or let the network take one axis",
            link="ragged_batching.html",
        )
    elif not (shape is None or is_scattered or is_ragged):
        _check_dims(model, path, entry, shape)


def _check_dims(model, path, entry, shape):
    dims = list(entry.reshape.shape if entry.HasField("reshape") else entry.dims)
    batches = model.has_batch_axis
    if not shape:  # a scalar, whatever max_batch_size says
        fits, file_dims = set(dims) <= {1}, [1]
    else:
        file_dims = shape[batches:]
        fits = _fit_dims(dims, file_dims)
    if fits and path[0] == "output" and shape:
        file_dims = _infer_shape(model, entry.name, shape)[batches:]
        fits = dims == file_dims
    if fits:
        return
    fix = f"Write dims: {file_dims}"
    if not file_dims:  # nothing beside the batch, which Triton cannot write as dims
        fix = "Write dims: [ 1 ] reshape { shape: [ ] }"
    holds_batch = batches and dims[1:] == file_dims and len(dims) == len(shape)
    model.add_error(
        *path,
        "dims",
        found=f"{dims}" + (", which contain the batch" if holds_batch else ""),
        expected=f"{file_dims}" + (" (without the batch)" if batches else ""),
        fix=fix,
        link=MAX_BATCH_SIZE,
    )


def _fit_dims(dims, file_dims):
    """Whether the config's dims are the file's, where -1 stands for any size."""
    return len(dims) == len(file_dims) and all(
        in_file in (size, -1) for size, in_file in zip(dims, file_dims)
    )


def _infer_shape(model, name, shape):
    """The shape of an output as ONNX Runtime sees it, which infers what it can."""
    if -1 not in shape[model.has_batch_axis :]:
        return shape
    return model.inferred_outputs[name][1]
