"""Rules about tensors: as the config has them, and as the ONNX file has them."""

from collections import Counter
from math import prod

from .data_types import name_data_type, read_onnx_tensors
from .findings import join_items

INPUTS_AND_OUTPUTS = "model_configuration.html#inputs-and-outputs"
MAX_BATCH_SIZE = "model_configuration.html#maximum-batch-size"


def check_tensors(model):
    config = model.config
    if config.max_batch_size < 0:
        model.add_error(
            "max_batch_size",
            found=str(config.max_batch_size),
            expected="0, or the largest batch",
            fix="0 means that the model has no batch axis of Triton's",
            link=MAX_BATCH_SIZE,
        )
    for kind in "input", "output":
        entries = getattr(config, kind)
        for i, entry in enumerate(entries):
            _check_entry(model, (kind, i), entry)
        names = [x.name for x in entries]
        for name, count in Counter(names).items():
            if name and count > 1:
                model.add_warning(
                    kind,
                    names.index(name),
                    found=f'"{name}" {count} times',
                    expected="each tensor once",
                    fix="Remove or rename all but one",
                    link=INPUTS_AND_OUTPUTS,
                )
    for i, entry in enumerate(config.output):
        if entry.label_filename:
            _check_labels(model, ("output", i, "label_filename"), entry)


def _check_entry(model, path, entry):
    """One input or output of the config, by itself."""
    for field in "name", "data_type", "dims":
        is_needed = field == "name" or not model.is_completed_by_backend
        if is_needed and not getattr(entry, field):
            model.add_error(
                *path,
                found=f"no {field}",
                expected=f"{field} of the tensor",
                fix=f"Add {field}, as the model file has it",
                link=INPUTS_AND_OUTPUTS,
            )
    if any(size == 0 or size < -1 for size in entry.dims):
        model.add_error(
            *path,
            "dims",
            found=str(list(entry.dims)),
            expected="sizes from 1 on, or -1 for one that varies",
            fix="Write -1 where a size is not fixed",
            link=INPUTS_AND_OUTPUTS,
        )
    shape = entry.reshape.shape
    if entry.HasField("reshape") and prod(entry.dims) != prod(shape):
        model.add_error(
            *path,
            "reshape",
            found=f"{list(shape)} for dims {list(entry.dims)}",
            expected="as many elements in both",
            fix="Correct one of the two",
            link="model_configuration.html#reshape",
        )


def _check_labels(model, path, entry):
    """The label file of an output: one line for each class."""
    file = model.folder / entry.label_filename
    if not file.is_file():
        model.add_error(
            *path,
            found=f'"{entry.label_filename}", which is not there',
            expected=f"{model.name}/{entry.label_filename}, beside config.pbtxt",
            fix="Put the file there, one label a line, or leave the field out",
            link=INPUTS_AND_OUTPUTS,
        )
    elif len([size for size in entry.dims if size != 1]) > 1:
        model.add_warning(
            *path,
            found=f"labels for an output of dims {list(entry.dims)}",
            expected="an output with one axis, the classes",
            fix="Remove label_filename, or flatten the output",
            link=INPUTS_AND_OUTPUTS,
        )
    elif -1 not in entry.dims:
        count = len(file.read_bytes().splitlines())
        if count != prod(entry.dims):
            model.add_warning(
                *path,
                found=f"{count} labels",
                expected=f"{prod(entry.dims)}, one for each class",
                fix="Compare the file with the model's classes",
                link=INPUTS_AND_OUTPUTS,
            )


def check_against_onnx(model):
    """What Triton's onnxruntime backend compares when it loads a model."""
    config, onnx_model = model.config, model.onnx_model
    # Inputs that the server makes itself are not in the config's list
    server_makes_inputs = config.HasField("sequence_batching") or config.batch_input
    if not onnx_model or config.max_batch_size < 0 or server_makes_inputs:
        return
    stored = {x.name for x in onnx_model.graph.initializer}
    for kind in "input", "output":
        provided = read_onnx_tensors(onnx_model, kind)
        entries = getattr(config, kind)
        if not entries:
            continue  # Triton takes them from the file
        required = [x.name for x in entries if not (kind == "input" and x.optional)]
        if kind == "input" and len(required) != len(provided):
            names = join_items(provided)
            model.add_error(
                "input",
                found=f"{len(required)} inputs: {join_items(required)}",
                expected=f"{len(provided)}: {names}, as in the ONNX file",
                fix="List each of the file's inputs once",
                link=INPUTS_AND_OUTPUTS,
            )
            continue
        for i, entry in enumerate(entries):
            if not _is_complete(entry) or (kind == "input" and entry.name in stored):
                continue
            if entry.name not in provided:
                model.add_error(
                    kind,
                    i,
                    "name",
                    found=f'"{entry.name}"',
                    expected=f"one of the ONNX file's: {join_items(provided)}",
                    fix="Use the name in the file",
                    link=INPUTS_AND_OUTPUTS,
                )
                continue
            data_type, shape = provided[entry.name]
            if data_type is None or shape is None:
                continue
            if model.has_batch_axis and shape[:1] != [-1]:
                model.add_error(
                    "max_batch_size",
                    found=f"{config.max_batch_size}, where {entry.name!r} is {shape} "
                    "in the ONNX file",
                    expected="0, since the file's first axis is no free batch",
                    fix="Export with a dynamic batch, or write max_batch_size: 0 and "
                    "all dims",
                    link=MAX_BATCH_SIZE,
                )
                return
            _compare_with_onnx(model, (kind, i), entry, data_type, shape)


def _is_complete(entry):
    """Whether there is something to compare; what is missing has a finding."""
    sizes = [*entry.dims]
    return entry.name and entry.data_type and sizes and min(sizes) >= -1 and all(sizes)


def _compare_with_onnx(model, path, entry, data_type, shape):
    """One entry of the config with the tensor of the ONNX file."""
    if name_data_type(entry.data_type) != data_type:
        model.add_error(
            *path,
            "data_type",
            found=name_data_type(entry.data_type),
            expected=f"{data_type}, as in the ONNX file",
            fix=f"Write data_type: {data_type}",
            link="model_configuration.html#datatypes",
        )
    dims = list(entry.reshape.shape if entry.HasField("reshape") else entry.dims)
    batches = model.has_batch_axis
    file_dims = shape[batches:]
    if not _fit_dims(dims, file_dims):
        holds_batch = batches and dims[1:] == file_dims
        model.add_error(
            *path,
            "dims",
            found=f"{dims}" + (", which contain the batch" if holds_batch else ""),
            expected=f"{file_dims}" + (" (without the batch)" if batches else ""),
            fix=f"Write dims: {file_dims}",
            link=MAX_BATCH_SIZE,
        )


def _fit_dims(dims, file_dims):
    """Whether the config's dims are the file's, where -1 stands for any size."""
    return len(dims) == len(file_dims) and all(
        in_file in (size, -1) for size, in_file in zip(dims, file_dims)
    )
