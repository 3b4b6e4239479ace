"""Configs like those of public examples are accepted."""

from case_models import GOOD, MODEL_PY, PYTHON, WARM, X, Y, ensemble, step, write_models
from onnx import helper

import repository_check
from conftest import make_model

# Facts of public examples: a vision ensemble with a Python model, a language model's
# decoupled Python model, a TorchScript model, a sequence model, a model of many shapes.
PUBLIC = {
    "preprocessing": (
        'name: "preprocessing" backend: "python" max_batch_size: 256\n'
        'input [ { name: "IMAGE" data_type: TYPE_UINT8 dims: [ -1 ] } ]\n'
        'output [ { name: "PIXELS" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]\n'
        "instance_group [ { kind: KIND_CPU } ]\n",
        {"1/model.py": MODEL_PY},
    ),
    "decoupled": (
        'backend: "python" max_batch_size: 0\n'
        "model_transaction_policy { decoupled: True }\n"
        'input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] },\n'
        ' { name: "limit" data_type: TYPE_INT32 dims: [ 1 ] optional: true } ]\n'
        'output [ { name: "token" data_type: TYPE_STRING dims: [ -1 ] } ]\n'
        'parameters: { key: "EXECUTION_ENV_PATH", value: { string_value: "e.tgz" } }',
        {  # of another Python, with another syntax
            "1/model.py": "lazy import numpy\n" + MODEL_PY,
            "1/tokenizer/vocabulary.json": "{}",
        },
    ),
    "torchscript": (
        'platform: "pytorch_libtorch" max_batch_size: 16\n'
        'input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] '
        "format: FORMAT_NCHW } ]\n"
        'output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1000, 1, 1 ] '
        "reshape { shape: [ 1000 ] } } ]\n"
        "instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]\n",
        {"1/model.pt": "x", "3/model.pt": "x"},
    ),
    "sequence": (
        'backend: "simple_sequence" max_batch_size: 8\n'
        "sequence_batching { max_sequence_idle_microseconds: 5000000\n"
        ' control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START '
        "int32_false_true: [ 0, 1 ] } ] } ] }\n"
        'input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
        'output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n',
        {"1/libtriton_simple_sequence.so": "x"},
    ),
    "engine": (
        'name: "engine" platform: "tensorrt_plan" max_batch_size: 64\n'
        'input { name: "a" data_type: TYPE_FP16 dims: [ -1 ] }\n'
        'output { name: "b" data_type: TYPE_FP16 dims: [ -1 ] }\n'
        "dynamic_batching { preferred_batch_size: [ 16, 64 ] "
        "max_queue_delay_microseconds: 500 }\n"
        "optimization { cuda { graphs: true } }\n"
        'cc_model_filenames { key: "8.0" value: "a100.plan" }\n',
        {"1/a100.plan": b"ftrt"},
    ),
}


# Legal, and easily taken for a mistake.
PUBLIC |= {
    "strings_side_by_side": (
        PYTHON + 'parameters { key: "k" value: { string_value: "a" \'b\' } }\n'
        'name: "strings_" "side_by_side"',
        {"1/model.py": MODEL_PY},
    ),
    "backend_that_completes": (
        'backend: "dali" input [ { name: "x" data_type: TYPE_UINT8 } ]\n'
        'output [ { name: "y" } ]\n',
        {"1/model.dali": "x"},
    ),
    "library_elsewhere": (
        'backend: "identity" default_model_filename: "libtriton_identity.so"\n' + X + Y,
        {"1/.keep": ""},
    ),
    "torch_in_python": (
        'backend: "pytorch" runtime: "model.py"\n' + X + Y,
        {"1/model.py": "import torch\n"},
    ),
    "model.dali": ('parameters { key: "k" value { string_value: "v" } }', {"1/x": ""}),
    "two_files": (X + Y, {"1/model.plan": b"ftrt", "1/model.py": "x = 1\n"}),
    "guarded_import": (
        PYTHON,
        {
            "1/model.py": "try:\n    from fast import TritonPythonModel\n"
            "except ImportError:\n    from slow import TritonPythonModel\n"
        },
    ),
    "warm_control": (
        PYTHON + 'sequence_batching { control_input [ { name: "START" control [ { '
        "kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ] }\n"
        + WARM.replace(
            "} } } ]",
            '} } inputs { key: "START" value { data_type: TYPE_INT32 dims: [ 1 ] '
            "zero_data: true } } } ]",
        ),
        {"1/model.py": MODEL_PY},
    ),
    "no_batch": ('backend: "python"\n' + X + Y, {"1/model.py": MODEL_PY}),
    "batch_around_it": ensemble(step("no_batch")),
    "free_output": (
        GOOD,
        {
            "1/model.onnx": make_model(
                [helper.make_node("Identity", ["x"], ["y"])],
                [("x", ["batch", 4])],
                [("y", ["rows", "columns"])],
            ).SerializeToString()
        },
    ),
}


def test_configs_like_those_of_public_examples_are_accepted(tmp_path):
    write_models(tmp_path, PUBLIC)
    assert not repository_check.check(tmp_path)
