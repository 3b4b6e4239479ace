"""Rules of Triton's core that need the config alone, release 24.10.

The name of a case is that of a model. ``test_against_the_server`` asks the embedded
server about each.
"""

import pytest
from case_models import GOOD, MODEL_PY, PYTHON, assert_case, model


def python(config):
    return config, {"1/model.py": MODEL_PY}


def with_dims(dims, reshape=None, batch=8):
    """A Python model whose x has these dims."""
    text = dims if reshape is None else f"{dims} reshape {{ shape: {reshape} }}"
    config = PYTHON.replace("[ 4 ]", text, 1)
    return python(config.replace("max_batch_size: 8", f"max_batch_size: {batch}"))


def control(*controls, more=""):
    """A Python model with sequence batching; a control is a name and its text."""
    entries = ", ".join(f'{{ name: "{name}" control [ {x} ] }}' for name, x in controls)
    return python(
        PYTHON + f"sequence_batching {{ control_input [ {entries} ] {more} }}\n"
    )


def kind(name, values="int32_false_true: [ 0, 1 ]"):
    return f"{{ kind: CONTROL_SEQUENCE_{name} {values} }}"


def batcher(text):
    return model(GOOD + f"dynamic_batching {{ {text} }}\n")


def warm_text(text, length=None):
    """A Python model with a warm-up whose text has its length in front."""
    length = len(text) if length is None else length
    sample = (
        'model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value { data_type: '
        'TYPE_STRING dims: [ 1 ] input_data_file: "text" } } } ]\n'
    )
    config = PYTHON.replace("TYPE_FP32 dims: [ 4 ]", "TYPE_STRING dims: [ 1 ]", 1)
    files = {"1/model.py": MODEL_PY, "warmup/text": length.to_bytes(4, "little") + text}
    return config + sample, files


START, END = ("START", kind("START")), ("END", kind("END"))
CORRID = ("ID", kind("CORRID", "data_type: TYPE_UINT64"))
DELAY = "default_timeout_microseconds: 1000 timeout_action: DELAY"
TIMEOUT = "default_timeout_microseconds: 1000 timeout_action: REJECT"
RAGGED = PYTHON.replace("[ 4 ] }", "[ -1 ] allow_ragged_batch: true }", 1)
BATCH_INPUT = (
    'batch_input [ {{ kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: {} '
    "source_input: {} }} ]\n"
)
BATCH_OUTPUT = (
    "batch_output [ {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE "
    'target_name: {} source_input: "x" }} ]\n'
)

CASES = {
    # ValidateIOShape
    "reshape_around_free": (None, with_dims("[ 2, 4, -1, 6 ]", "[ 8, -1, 1, 6 ]")),
    "reshape_moves_over_free": (
        "error: [4, -1, 2, 6] for dims [2, 4, -1, 6]",
        with_dims("[ 2, 4, -1, 6 ]", "[ 4, -1, 2, 6 ]"),
    ),
    "reshape_frees": ("error: [-1] for dims [4]", with_dims("[ 4 ]", "[ -1 ]")),
    "reshape_to_zero": ("error: [0] for dims [4]", with_dims("[ 4 ]", "[ 0 ]")),
    "reshape_to_minus_2": ("error: [-2] for dims [4]", with_dims("[ 4 ]", "[ -2 ]")),
    "reshape_empty": (None, with_dims("[ 1 ]", "[ ]")),
    "reshape_empty_of_4": ("error: [] for dims [4]", with_dims("[ 4 ]", "[ ]")),
    "reshape_empty_no_batch": ("error: no shape", with_dims("[ 1 ]", "[ ]", batch=0)),
    # ValidateModelInput, ValidateNonLinearFormatIO
    "format": (
        None,
        python(PYTHON.replace("[ 4 ]", "[ 3, 2, 2 ] format: FORMAT_NCHW", 1)),
    ),
    "format_of_four_dims": (
        "error: FORMAT_NHWC for dims [1, 2, 2, 3]",
        python(PYTHON.replace("[ 4 ]", "[ 1, 2, 2, 3 ] format: FORMAT_NHWC", 1)),
    ),
    "shape_tensor": (
        "error: true, expected a model of the tensorrt",
        python(PYTHON.replace("[ 4 ]", "[ 4 ] is_shape_tensor: true", 1)),
    ),
    "non_linear": (
        "error: true, expected a tensor of three dims",
        python(PYTHON.replace("[ 4 ]", "[ 4 ] is_non_linear_format_io: true", 1)),
    ),
    # ValidateInstanceGroup
    "profile_without_tensorrt": (
        "error: profile 0",
        python(PYTHON + 'instance_group [ { kind: KIND_CPU profile: "0" } ]\n'),
    ),
    "gpus_of_kind_model": (
        "error: GPUs 0 for KIND_MODEL",
        python(PYTHON + "instance_group [ { kind: KIND_MODEL gpus: 0 } ]\n"),
    ),
    # GetBooleanSequenceControlProperties, GetTypedSequenceControlProperties
    "controls": (None, control(START, END, CORRID)),
    "control_twice": (
        "error: CONTROL_SEQUENCE_START 2 times",
        control(START, ("S", kind("START"))),
    ),
    "control_tensor_twice": (
        'error: "START" a second time',
        control(START, ("START", kind("END"))),
    ),
    "control_without_name": (
        "error: a control without name",
        control(("", kind("END"))),
    ),
    "control_without_values": (
        "error: nothing for CONTROL_SEQUENCE_START",
        control(("START", kind("START", ""))),
    ),
    "control_of_one_value": (
        "error: 1 values in int32_false_true",
        control(("START", kind("START", "int32_false_true: [ 1 ]"))),
    ),
    "control_of_two_types": (
        "error: int32_false_true, fp32_false_true for CONTROL_SEQUENCE_START",
        control(
            (
                "START",
                kind("START", "int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ]"),
            )
        ),
    ),
    "id_of_wrong_type": (
        "error: TYPE_FP32 for CONTROL_SEQUENCE_CORRID",
        control(("ID", kind("CORRID", "data_type: TYPE_FP32"))),
    ),
    "id_with_values": (
        "error: int32_false_true for CONTROL_SEQUENCE_CORRID",
        control(
            ("ID", kind("CORRID", "data_type: TYPE_UINT64 int32_false_true: [ 0, 1 ]"))
        ),
    ),
    # ValidateModelConfig
    "oldest": (None, control(START, more="oldest { preferred_batch_size: [ 8 ] }")),
    "oldest_of_16": (
        "error: 16, expected 1 to max_batch_size, which is 8",
        control(START, more="oldest { preferred_batch_size: [ 16 ] }"),
    ),
    "slots": (None, control(START, more="direct { minimum_slot_utilization: 1 }")),
    "slots_above_1": (
        "error: 1.5, expected a part of the slots",
        control(START, more="direct { minimum_slot_utilization: 1.5 }"),
    ),
    "order_with_timeout": (
        None,
        batcher(f"preserve_ordering: true default_queue_policy {{ {TIMEOUT} }}"),
    ),
    "order_with_delay": (
        "error: preserve_ordering with the timeout action DELAY",
        batcher(f"preserve_ordering: true default_queue_policy {{ {DELAY} }}"),
    ),
    "order_with_levels": (
        "error: preserve_ordering with 2 priority levels",
        batcher("preserve_ordering: true priority_levels: 2 default_priority_level: 1"),
    ),
    "policy_of_level_2": (
        None,
        batcher(
            "priority_levels: 2 default_priority_level: 1 "
            f"priority_queue_policy {{ key: 2 value {{ {TIMEOUT} }} }}"
        ),
    ),
    "policy_of_level_3": (
        "error: a policy for level 3",
        batcher(
            "priority_levels: 2 default_priority_level: 1 "
            f"priority_queue_policy {{ key: 3 value {{ {TIMEOUT} }} }}"
        ),
    ),
    "cache_and_decoupled": (
        "error: a response cache for a model with decoupled answers",
        python(
            PYTHON + "response_cache { enable: true }\n"
            "model_transaction_policy { decoupled: true }\n"
        ),
    ),
    "cache_and_sequences": (
        "error: a response cache for a model with sequence batching",
        python(PYTHON + "response_cache { enable: true }\nsequence_batching { }\n"),
    ),
    # fields that 24.10 does not know, files that a config names
    "metrics_of_a_newer_release": (
        "error: the field model_metrics",
        python(
            PYTHON + "model_metrics { metric_control [ { metric_identifier { family: "
            '"nv_inference_first_response_histogram_ms" } histogram_options { buckets: '
            "[ 1, 10 ] } } ] }\n"
        ),
    ),
    "environment_that_is_not_there": (
        'error: EXECUTION_ENV_PATH "$$TRITON_MODEL_DIRECTORY/env.tar.gz"',
        python(
            PYTHON + 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: '
            '"$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }\n'
        ),
    ),
    "warm_text": (None, warm_text("é".encode())),
    "warm_text_counted_in_characters": (
        "error: text, which does not hold 1 texts",
        warm_text("é".encode(), length=1),
    ),
    # ValidateBatchIO
    "batch_input": (None, python(RAGGED + BATCH_INPUT.format("TYPE_INT32", '"x"'))),
    "batch_input_of_int64": (
        "error: TYPE_INT64, expected TYPE_INT32 or TYPE_FP32",
        python(RAGGED + BATCH_INPUT.format("TYPE_INT64", '"x"')),
    ),
    "batch_input_of_two": (
        "error: 2 source inputs, expected one",
        python(RAGGED + BATCH_INPUT.format("TYPE_INT32", '[ "x", "x" ]')),
    ),
    "batch_input_of_nothing": (
        'error: the source input "z"',
        python(RAGGED + BATCH_INPUT.format("TYPE_INT32", '"z"')),
    ),
    "batch_output": (None, python(RAGGED + BATCH_OUTPUT.format('"y"'))),
    "batch_output_unknown": (
        "error: the targets z",
        python(RAGGED + BATCH_OUTPUT.format('"z"')),
    ),
    "batch_output_twice": (
        "error: the targets y, y",
        python(RAGGED + BATCH_OUTPUT.format('[ "y", "y" ]')),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    assert_case(tmp_path, name, CASES)
