"""Rules about the tensors of a config, by themselves."""

from collections import Counter
from math import prod

from .data_types import name_data_type
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
    if entry.HasField("reshape"):
        _check_reshape(model, path, entry)
    is_on_tensorrt = model.backend == "tensorrt"
    if entry.is_shape_tensor and not is_on_tensorrt:
        model.add_error(
            *path,
            "is_shape_tensor",
            found="true",
            expected="a model of the tensorrt backend, which alone has such tensors",
            fix="Remove the line",
            link=INPUTS_AND_OUTPUTS,
        )
    if entry.is_non_linear_format_io and not (is_on_tensorrt and len(entry.dims) == 3):
        model.add_error(
            *path,
            "is_non_linear_format_io",
            found="true",
            expected="a tensor of three dims, of the tensorrt backend",
            fix="Remove the line",
            link=INPUTS_AND_OUTPUTS,
        )
    is_image = path[0] == "input" and entry.format != entry.FORMAT_NONE
    if is_image and len(entry.dims) != 3:
        model.add_error(
            *path,
            "format",
            found=f"{entry.Format.Name(entry.format)} for dims {list(entry.dims)}",
            expected="three dims, those of one image without the batch",
            fix="Remove format: the server does nothing with it",
            link=INPUTS_AND_OUTPUTS,
        )


def _check_reshape(model, path, entry):
    """``ValidateIOShape`` in Triton's core: each part between two -1 keeps its size."""
    dims, shape = list(entry.dims), list(entry.reshape.shape)
    found, expected = f"{shape} for dims {dims}", "as many elements in both"
    fix = "Correct one of the two"
    if not shape and model.config.max_batch_size == 0:
        found, expected = "no shape", "a shape, where the model has no batch"
        fix = "Remove reshape"
    elif any(size == 0 or size < -1 for size in shape):
        expected = "sizes from 1 on, or -1 for one that varies"
    elif _measure_parts(dims) == _measure_parts(shape):
        return
    model.add_error(
        *path,
        "reshape",
        found=found,
        expected=expected,
        fix=fix,
        link="model_configuration.html#reshape",
    )


def _measure_parts(shape):
    """Numbers of elements before, between and behind the sizes that vary."""
    sizes = [1]
    for size in shape:
        if size == -1:
            sizes.append(1)
        else:
            sizes[-1] *= size
    return sizes


def check_batch_tensors(model):
    """``ValidateBatchIO`` in Triton's core."""
    config = model.config
    inputs, outputs = ({x.name for x in y} for y in (config.input, config.output))
    for kind in "batch_input", "batch_output":
        for i, entry in enumerate(getattr(config, kind)):
            targets = list(entry.target_name)
            unknown = [x for x in entry.source_input if x not in inputs]
            found = None
            if len(entry.source_input) != 1:
                found, expected = f"{len(entry.source_input)} source inputs", "one"
            elif unknown:
                found = f'the source input "{unknown[0]}"'
                expected = f"one of the inputs: {join_items(inputs)}"
            elif kind == "batch_input":
                data_type = name_data_type(entry.data_type)
                if data_type not in ("TYPE_INT32", "TYPE_FP32"):
                    found, expected = data_type, "TYPE_INT32 or TYPE_FP32"
            elif not outputs.issuperset(targets):
                found = f"the targets {join_items(targets)}"
                expected = f"some of the outputs: {join_items(outputs)}"
            elif len(targets) != len({*targets}):
                found, expected = f"the targets {join_items(targets)}", "each once"
            if found:
                model.add_error(
                    kind,
                    i,
                    found=found,
                    expected=expected,
                    fix="Correct the entry",
                    link="ragged_batching.html",
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
