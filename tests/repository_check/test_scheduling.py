"""Rules about running a model: instances, batcher, warm-up and response cache."""

import dataclasses

import pytest
from case_models import (
    AUTO,
    DOUBLE,
    GOOD,
    MODEL_PY,
    NO_BATCH,
    PYTHON,
    SERVER,
    WARM,
    X2,
    assert_case,
    model,
    onnx_file,
    write_models,
)

import repository_check

FROM_FILE = WARM.replace("zero_data: true", 'input_data_file: "x.raw"')

CASES = {
    "instances": (
        None,
        model(
            GOOD
            + "instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_AUTO } ]\n"
        ),
    ),
    "gpu": (
        "error: KIND_GPU on a machine without a GPU",
        model(GOOD + "instance_group { kind: KIND_GPU }\n"),
    ),
    "cpu_with_gpus": (
        "error: GPUs 0 for KIND_CPU",
        model(GOOD + "instance_group { kind: KIND_CPU gpus: [ 0 ] }\n"),
    ),
    "auto_with_gpus": (
        "error: GPUs 0 for KIND_AUTO without a GPU",
        model(GOOD + "instance_group { kind: KIND_AUTO gpus: [ 0 ] }\n"),
    ),
    # batcher and cache
    "queue": (
        None,
        model(
            GOOD + "dynamic_batching { max_queue_delay_microseconds: 100 "
            "default_queue_policy { max_queue_size: 2 timeout_action: REJECT } }\n"
        ),
    ),
    "never_batches": (
        "warning: a dynamic batcher with max_batch_size: 0",
        model(NO_BATCH + "dynamic_batching { }\n"),
    ),
    "preferred_large": (
        "error: 64",
        model(GOOD + "dynamic_batching { preferred_batch_size: [ 4, 64 ] }\n"),
    ),
    "preferred_zero": (
        "error: 0",
        model(GOOD + "dynamic_batching { preferred_batch_size: [ 0 ] }\n"),
    ),
    "preferred_unsaid": (
        "error: 4",
        model(AUTO + "dynamic_batching { preferred_batch_size: [ 4 ] }\n"),
    ),
    "no_priority": (
        "error: default_priority_level 0",
        model(GOOD + "dynamic_batching { priority_levels: 2 }\n"),
    ),
    "priority": (
        None,
        model(
            GOOD + "dynamic_batching { priority_levels: 2 default_priority_level: 1 }\n"
        ),
    ),
    "priority_last": (
        None,
        model(
            GOOD + "dynamic_batching { priority_levels: 2 default_priority_level: 2 }\n"
        ),
    ),
    "cache": (
        "warning: a response cache for the model and none in the server",
        model(GOOD + "response_cache { enable: true }\n"),
    ),
    # warm-up
    "warm": (None, model(GOOD + WARM)),
    "warm_auto": (None, model(AUTO + WARM)),
    "warm_auto_fixed": (
        None,
        model(
            AUTO + WARM.replace("[ 4 ]", "[ 1, 4 ]"),
            {"1/model.onnx": onnx_file(batch=1)},
        ),
    ),
    "warm_largest": (
        None,
        model(GOOD + WARM.replace("batch_size: 1", "batch_size: 8")),
    ),
    "warm_skipped": (  # without batch_size
        None,
        model(GOOD + WARM.replace("batch_size: 1", "").replace('"x"', '"q"')),
    ),
    "warm_optional": (
        None,
        (
            PYTHON + X2.replace(" } ]", " optional: true } ]") + WARM,
            {"1/model.py": MODEL_PY},
        ),
    ),
    "warm_file": (
        None,
        model(GOOD + FROM_FILE, {"1/model.onnx": DOUBLE, "warmup/x.raw": b"\0" * 16}),
    ),
    "warm_half_file": (
        None,
        (
            (PYTHON + FROM_FILE).replace("FP32", "FP16"),
            {"1/model.py": MODEL_PY, "warmup/x.raw": b"\0" * 8},
        ),
    ),
    "warm_short_table": (  # eight values take 32 bytes
        "error: 24 bytes in x.raw",
        (
            (PYTHON + FROM_FILE).replace("[ 4 ]", "[ 2, 4 ]"),
            {"1/model.py": MODEL_PY, "warmup/x.raw": b"\0" * 24},
        ),
    ),
    "warm_key": (
        "error: the inputs q",
        model(GOOD + WARM.replace('key: "x"', 'key: "q"')),
    ),
    "warm_no_inputs": (
        "error: no inputs",
        model(GOOD + 'model_warmup [ { name: "w" batch_size: 1 } ]\n'),
    ),
    "warm_dims": (
        "error: dims [5] for 'x'",
        model(GOOD + WARM.replace("[ 4 ] zero", "[ 5 ] zero")),
    ),
    "warm_free_dims": (
        "error: dims [-1] for 'x'",
        model(GOOD + WARM.replace("[ 4 ] zero", "[ -1 ] zero")),
    ),
    "warm_dims_of_0": (
        None,
        (
            (PYTHON + WARM)
            .replace("FP32 dims: [ 4 ] }", "FP32 dims: [ -1 ] }")
            .replace("[ 4 ] zero", "[ 0 ] zero"),
            {"1/model.py": MODEL_PY},
        ),
    ),
    "warm_type": (
        "error: TYPE_FP16 for 'x'",
        model(GOOD + WARM.replace("FP32", "FP16")),
    ),
    "warm_batch": (
        "error: a batch of 9",
        model(GOOD + WARM.replace("batch_size: 1", "batch_size: 9")),
    ),
    "warm_no_data": (
        "error: no data for 'x'",
        model(GOOD + WARM.replace(" zero_data: true", "")),
    ),
    "warm_no_file": ('error: "x.raw", which is not there', model(GOOD + FROM_FILE)),
    "warm_short_file": (
        "error: 8 bytes in x.raw",
        model(GOOD + FROM_FILE, {"1/model.onnx": DOUBLE, "warmup/x.raw": b"\0" * 8}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    assert_case(tmp_path, name, CASES)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("kind: KIND_GPU", []),
        ("kind: KIND_AUTO gpus: [ 0 ]", []),
        ("kind: KIND_GPU gpus: [ 0, 2 ]", ["GPU 2"]),
        ("kind: KIND_CPU gpus: [ 0 ]", ["GPUs 0 for KIND_CPU"]),
    ],
)
def test_instances_are_held_against_the_gpus(tmp_path, group, expected):
    write_models(tmp_path, {"m": model(GOOD + f"instance_group {{ {group} }}\n")})
    server = dataclasses.replace(SERVER, gpus=2)
    findings = repository_check.check(tmp_path, server=server)
    assert [x.found for x in findings] == expected


def test_what_is_not_known_of_a_server_is_not_held_against_it(tmp_path):
    config = (
        GOOD
        + "response_cache { enable: true }\n"
        + "instance_group { kind: KIND_GPU gpus: [ 9 ] }\n"
    )
    write_models(tmp_path, {"m": model(config)})
    assert not repository_check.check(tmp_path)
