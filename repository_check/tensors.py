"""Rules about the tensors of a config, by themselves."""

from collections import Counter
from math import prod

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
