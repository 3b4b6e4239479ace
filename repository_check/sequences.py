"""Rules about sequence batching, which need the config alone.

Release 24.10 of Triton's core, ``ValidateModelConfig`` and
``GetBooleanSequenceControlProperties`` in src/model_config_utils.cc.
https://github.com/triton-inference-server/core
"""

from collections import Counter
from functools import partial

from tritonclient.grpc import model_config_pb2 as schema

from .data_types import name_data_type
from .findings import join_items

SEQUENCE_BATCHER = "model_configuration.html#sequence-batcher"
KIND = schema.ModelSequenceBatching.Control.Kind
VALUES = {  # of a control, with the type of its tensor
    "int32_false_true": "TYPE_INT32",
    "fp32_false_true": "TYPE_FP32",
    "bool_false_true": "TYPE_BOOL",
}
TYPES_OF_AN_ID = "UINT64", "INT64", "UINT32", "INT32", "STRING"


def check_sequences(model):
    if not model.config.HasField("sequence_batching"):
        return
    batcher, largest = model.config.sequence_batching, model.config.max_batch_size
    add_error = partial(model.add_error, "sequence_batching", link=SEQUENCE_BATCHER)
    _check_controls(batcher, add_error)
    for i, size in enumerate(batcher.oldest.preferred_batch_size):
        if not 1 <= size <= largest:
            add_error(
                "oldest",
                "preferred_batch_size",
                i,
                found=str(size),
                expected=f"1 to max_batch_size, which is {largest}",
                fix="Lower it, or raise max_batch_size",
            )
    used = batcher.direct.minimum_slot_utilization
    if not 0 <= used <= 1:
        add_error(
            "direct",
            "minimum_slot_utilization",
            found=f"{used:g}",
            expected="a part of the slots, from 0 to 1",
            fix="Write 0.5 for half of them",
        )


def _check_controls(batcher, add_error):
    names = [entry.name for entry in batcher.control_input]
    kinds = Counter(x.kind for entry in batcher.control_input for x in entry.control)
    for i, entry in enumerate(batcher.control_input):
        here = partial(add_error, "control_input", i)
        if not entry.name:
            here(
                found="a control without name",
                expected="the name of a tensor of the model",
                fix="Add name",
            )
        elif entry.name in names[:i]:
            here(
                found=f'"{entry.name}" a second time',
                expected="each tensor once",
                fix="Put all controls of a tensor into one entry, or rename one",
            )
        for control in entry.control:
            kind = KIND.Name(control.kind)
            if kinds[control.kind] > 1:
                here(
                    found=f"{kind} {kinds[control.kind]} times",
                    expected="one tensor for each kind of control",
                    fix="Remove all but one",
                )
                kinds[control.kind] = 0  # said once
            _check_values(kind, control, here)


def _check_values(kind, control, here):
    """The values that a control has for false and true, or its type."""
    given = [name for name in VALUES if len(getattr(control, name))]
    if kind.endswith("CORRID"):
        data_type = name_data_type(control.data_type)
        if given:
            here(
                found=f"{join_items(given)} for {kind}",
                expected="data_type alone: the value is the id of the sequence",
                fix=f"Remove {join_items(given)}",
            )
        elif data_type.removeprefix("TYPE_") not in TYPES_OF_AN_ID:
            here(
                found=f"{data_type} for {kind}",
                expected=join_items(f"TYPE_{x}" for x in TYPES_OF_AN_ID),
                fix="Write data_type: TYPE_UINT64",
            )
    elif len(given) != 1:
        here(
            found=f"{join_items(given)} for {kind}",
            expected=f"one of {join_items(VALUES)}",
            fix="Write the two values of the tensor's type: int32_false_true: [ 0, 1 ]",
        )
    elif len(getattr(control, given[0])) != 2:
        here(
            found=f"{len(getattr(control, given[0]))} values in {given[0]}",
            expected="two: what the tensor holds for false and for true",
            fix=f"Write {given[0]}: [ 0, 1 ]",
        )
