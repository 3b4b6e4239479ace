# ruff: noqa: E501 - the table of cases has one a line
"""The checker says what the server says: each case is held against a live server."""

import dataclasses
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from onnx import helper, numpy_helper
from test_onnxruntime_backend import REFUSED
from tritonclient.utils import InferenceServerException

import embedded_triton
import repository_check
from conftest import make_model
from embedded_triton import TritonServerError
from embedded_triton.log_messages import explain
from helpers import paths
from repository_check import ERROR, WARNING, servers

SERVER = dataclasses.replace(servers.EMBEDDED, gpus=0, cache=False)
HEAD = 'backend: "onnxruntime"\nmax_batch_size: 8\n'
X = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
X2 = X.replace('"x"', '"x2"')
Y = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
GOOD = HEAD + X + Y
FREE_X, FREE_Y = X.replace("[ 4 ]", "[ -1, 4 ]"), Y.replace("[ 4 ]", "[ -1, 4 ]")
NO_BATCH = 'backend: "onnxruntime"\nmax_batch_size: 0\n' + FREE_X + FREE_Y
AUTO = 'backend: "onnxruntime"\n'
LABELS = HEAD + X + Y.replace("[ 4 ] }", '[ 4 ] label_filename: "labels.txt" }')
WARM = (
    'model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" '
    "value { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true } } } ]\n"
)
PYTHON = 'backend: "python"\nmax_batch_size: 8\n' + X + Y
MODEL_PY = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""
STEP = (
    '{ model_name: "good" model_version: -1 '
    'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }'
)
NEXT = (
    '{ model_name: "good" model_version: -1 '
    'input_map { key: "x" value: "m" } output_map { key: "y" value: "y" } }'
)


def onnx_file(inputs=("x",), batch="batch", op="Mul", external=None, **more):
    """A small ONNX model, as bytes: y = 2 x, or x + x2."""
    second = ["two"] if len(inputs) == 1 else []
    model = make_model(
        [helper.make_node(op, [*inputs, *second], ["y"])],
        [(name, [batch, 4]) for name in inputs],
        [("y", [batch, 4])],
        [numpy_helper.from_array(np.full(4, 2, np.float32), "two")] if second else [],
        **more,
    )
    if external:
        onnx.external_data_helper.convert_model_to_external_data(
            model, location=external, size_threshold=0
        )
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
    return model.SerializeToString()


DOUBLE = onnx_file()
HALF = DOUBLE[: len(DOUBLE) // 2]


def ensemble(step, x=X, y=Y, batch=8, more=""):
    return (
        f'platform: "ensemble"\nmax_batch_size: {batch}\n{x}{y}'
        f"ensemble_scheduling {{ step [ {step} ] }}\n{more}"
    )


def model(config, **files):
    """A model's files; those of an ONNX model unless others are given."""
    files = {name.replace("__", "/"): data for name, data in files.items()}
    return config, files or {"1/model.onnx": DOUBLE}


def python(source):
    return model(PYTHON, **{"1__model.py": source})


def combined(*arguments, **options):
    return model(ensemble(*arguments, **options), **{"1__.keep": ""})


# What is said and where (None: nothing is), and the model. The server loads those with
# a warning or nothing, and refuses those with an error.
CASES = {
    "good": (None, model(GOOD)),
    "two_inputs": (None, model(HEAD + X + X2 + Y, **{"1__model.onnx": onnx_file(("x", "x2"), op="Add")})),
    "no_config": (None, model(None)),
    "no_config_python": (None, model(None, **{"1__model.py": MODEL_PY})),
    "no_config_no_file": ("error: no backend", model(None, **{"1__model.bin": "x"})),
    "empty_config": (None, model("")),
    "other_style": (None, model(
        "backend: \"onnxruntime\", max_batch_size: 8;\n"
        "input: { name: 'x', data_type: TYPE_FP32, dims: 4 },\n"
        "output < name: \"y\" data_type: TYPE_FP32 dims: [4] > # end"
    )),
    # folders
    "no_version": ("error: no folder for a version", model(GOOD, **{"readme.txt": ""})),
    "named_version": ("error: no folder for a version", model(GOOD, **{"v1__model.onnx": DOUBLE})),
    "leading_zero": ("error: no folder for a version", model(GOOD, **{"01__model.onnx": DOUBLE})),
    "version_zero": (None, model(GOOD, **{"0__model.onnx": DOUBLE})),
    "ignored_folder": ("warning: a model file in old/", model(GOOD, **{"1__model.onnx": DOUBLE, "old__model.onnx": DOUBLE})),
    "policy_of_none": ("error: a policy that chooses none", model(GOOD + "version_policy { specific { versions: [ 3 ] } }\n")),
    "policy_latest_0": ("error: a policy that chooses none", model(GOOD + "version_policy { latest { } }\n")),
    "policy_in_part": ("warning: the versions 3", model(GOOD + "version_policy { specific { versions: [ 1, 3 ] } }\n")),
    "policy_all": (None, model(GOOD + "version_policy { all { } }\n")),
    "no_file": ("error: no such file", model(GOOD, **{"1__other.txt": ""})),
    "other_file": ("error: no such file", model(GOOD + 'default_model_filename: "net.onnx"\n')),
    "named_file": (None, model(GOOD + 'default_model_filename: "net.onnx"\n', **{"1__net.onnx": DOUBLE})),
    # names and backends
    "other_name": ('error: "another"', model('name: "another"\n' + GOOD)),
    "platform_as_backend": ('error: "onnxruntime_onnx", which is a platform', model(GOOD.replace('"onnxruntime"', '"onnxruntime_onnx"'))),
    "plan_as_backend": ('error: "tensorrt_plan", which is a platform', model(GOOD.replace('"onnxruntime"', '"tensorrt_plan"'))),
    "backend_as_platform": ('error: "onnxruntime", which is a backend', model(GOOD.replace("backend:", "platform:"))),
    "platform": (None, model(GOOD.replace('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"'))),
    "both_differ": ('error: "tensorrt_plan" with backend', model('platform: "tensorrt_plan"\n' + GOOD)),
    "unknown_platform": ('error: "custom" with backend', model('platform: "custom"\n' + GOOD)),
    "no_backend": (None, model(GOOD.replace('backend: "onnxruntime"\n', ""))),
    "unknown_backend": ('error: "nosuch"', model(GOOD.replace('"onnxruntime"', '"nosuch"'))),
    "absent_backend": ('error: "pytorch"', model(GOOD.replace('backend: "onnxruntime"', 'platform: "pytorch_libtorch"'), **{"1__model.pt": "x"})),
    # text
    "misspelt": ('error: Message type "inference.ModelConfig" has no field named "max_batchsize"', model(GOOD.replace("max_batch_size", "max_batchsize"))),
    "unknown_value": ('error: Enum type "inference.DataType" has no value named FP32', model(GOOD.replace("TYPE_FP32", "FP32"))),
    "unfinished": ('error: Expected "{"', model(GOOD + "input [\n")),
    "twice": ("error: Message type \"inference.ModelConfig\" should not have multiple", model(GOOD + "max_batch_size: 4\n")),
    "two_batchers": ("error: Field \"sequence_batching\" is specified along with", model(GOOD + "dynamic_batching { }\nsequence_batching { }\n")),
    "binary": ("error: Expected identifier", model(b"\x00\xff\xfe\x80 binary")),
    "byte_order_mark": ("error: a byte order mark", model(b"\xef\xbb\xbf" + GOOD.encode())),
    "latin_comment": (None, model(("# caf\xe9\n" + GOOD).encode("latin-1"))),
    # tensors
    "negative_batch": ("error: -1", model(GOOD.replace("8", "-1"))),
    "no_dims": ("error: no dims", model(HEAD + X.replace(" dims: [ 4 ]", "") + Y)),
    "dims_of_0": ("error: [0]", model(HEAD + X.replace("[ 4 ]", "[ 0 ]") + Y)),
    "dims_of_minus_2": ("error: [-2]", model(HEAD + X.replace("[ 4 ]", "[ -2 ]") + Y)),
    "no_type": ("error: no data_type", model(HEAD + X.replace("data_type: TYPE_FP32 ", "") + Y)),
    "no_name": ("error: no name", model(HEAD + X.replace('name: "x" ', "") + Y)),
    "batch_in_dims": ("error: [-1, 4], which contain the batch", model(HEAD + FREE_X + Y)),
    "wrong_dims": ("error: [5]", model(HEAD + X.replace("[ 4 ]", "[ 5 ]") + Y)),
    "wrong_type": ("error: TYPE_FP16", model(HEAD + X.replace("FP32", "FP16") + Y)),
    "wrong_output": ('error: "z"', model(HEAD + X + Y.replace('"y"', '"z"'))),
    "wrong_input": ('error: "z"', model(HEAD + X.replace('"x"', '"z"') + Y)),
    "extra_input": ("error: 2 inputs: x, x2", model(HEAD + X + X2 + Y)),
    "missing_input": ("error: 1 inputs: x", model(GOOD, **{"1__model.onnx": onnx_file(("x", "x2"), op="Add")})),
    "input_twice": ("error: 2 inputs: x, x", model(HEAD + X + X + Y)),
    "output_twice": ('warning: "y" 2 times', model(HEAD + X + Y + Y)),
    "inputs_alone": (None, model(AUTO + X)),
    "wrong_inputs_alone": ("error: [5]", model(HEAD + X.replace("[ 4 ]", "[ 5 ]"))),
    "fixed_batch": ("error: 8, where 'x' is [1, 4]", model(GOOD, **{"1__model.onnx": onnx_file(batch=1)})),
    "fixed_batch_said": (None, model(NO_BATCH.replace("-1", "1"), **{"1__model.onnx": onnx_file(batch=1)})),
    "reshape": ("error: [1, 4] for dims [5]", model(NO_BATCH.replace("dims: [ -1, 4 ] } ]\noutput", "dims: [ 5 ] reshape { shape: [ 1, 4 ] } } ]\noutput"))),
    # model files
    "page": ("error: a file that is not ONNX; it begins with b'<html>", model(GOOD, **{"1__model.onnx": "<html>log in</html>"})),
    "empty_file": ("error: a file without a graph", model(GOOD, **{"1__model.onnx": ""})),
    "half_a_file": ("error: a file that is not ONNX", model(GOOD, **{"1__model.onnx": HALF})),
    "lost_weights": ("error: weights that are said to be in model.onnx.data", model(GOOD, **{"1__model.onnx": onnx_file(external="model.onnx.data")})),
    "new_opset": ("error: opset 27", model(GOOD, **{"1__model.onnx": onnx_file(opset=27)})),
    "new_ir_version": ("error: IR version 14", model(GOOD, **{"1__model.onnx": onnx_file(ir_version=14)})),
    "rtx_plan": ("error: an engine of TensorRT-RTX", model(GOOD.replace("onnxruntime", "tensorrt") + "instance_group { kind: KIND_CPU }\n", **{"1__model.plan": b"vtrt\0\0"})),
    "python": (None, python(MODEL_PY)),
    "python_syntax": ("error: invalid syntax", python("def x(:\n")),
    "python_nul": ("error: source code string cannot contain null bytes", python(b"x = 1\0")),
    "python_empty": ("error: no class", python("")),
    "python_other_class": ("error: the names Model, ", python(MODEL_PY.replace("TritonPythonModel", "Model"))),
    "python_no_execute": ("warning: the methods run", python(MODEL_PY.replace("execute", "run"))),
    "python_alias": (None, python(MODEL_PY.replace("TritonPythonModel", "Model") + "\n\nTritonPythonModel = Model\n")),
    "python_import": (None, model(PYTHON, **{"1__model.py": "from other import TritonPythonModel\n", "1__other.py": MODEL_PY})),
    "python_star": (None, model(PYTHON, **{"1__model.py": "from other import *\n", "1__other.py": MODEL_PY})),
    # labels
    "labels": (None, model(LABELS, **{"1__model.onnx": DOUBLE, "labels.txt": "a\r\nb\r\nc\r\nd\r\n"})),
    "no_labels": ('error: "labels.txt", which is not there', model(LABELS)),
    "few_labels": ("warning: 2 labels", model(LABELS, **{"1__model.onnx": DOUBLE, "labels.txt": "a\nb\n"})),
    "labels_of_no_vector": ("warning: labels for an output of dims [-1, 4]", model(NO_BATCH.replace("[ -1, 4 ] } ]\n", '[ -1, 4 ] label_filename: "labels.txt" } ]\n').replace(' label_filename: "labels.txt" } ]\noutput', " } ]\noutput"), **{"1__model.onnx": DOUBLE, "labels.txt": "a\nb\n"})),
    # instances and batching
    "instances": (None, model(GOOD + "instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_AUTO } ]\n")),
    "gpu": ("error: KIND_GPU on a machine without a GPU", model(GOOD + "instance_group { kind: KIND_GPU }\n")),
    "cpu_with_gpus": ("error: GPUs 0 for KIND_CPU", model(GOOD + "instance_group { kind: KIND_CPU gpus: [ 0 ] }\n")),
    "auto_with_gpus": ("error: GPUs 0 for KIND_AUTO without a GPU", model(GOOD + "instance_group { kind: KIND_AUTO gpus: [ 0 ] }\n")),
    "queue": (None, model(GOOD + "dynamic_batching { max_queue_delay_microseconds: 100 default_queue_policy { max_queue_size: 2 timeout_action: REJECT } }\n")),
    "never_batches": ("warning: a dynamic batcher with max_batch_size: 0", model(NO_BATCH + "dynamic_batching { }\n")),
    "preferred_large": ("error: 64", model(GOOD + "dynamic_batching { preferred_batch_size: [ 4, 64 ] }\n")),
    "preferred_zero": ("error: 0", model(GOOD + "dynamic_batching { preferred_batch_size: [ 0 ] }\n")),
    "preferred_unsaid": ("error: 4", model(AUTO + "dynamic_batching { preferred_batch_size: [ 4 ] }\n")),
    "no_priority": ("error: default_priority_level 0", model(GOOD + "dynamic_batching { priority_levels: 2 }\n")),
    "priority": (None, model(GOOD + "dynamic_batching { priority_levels: 2 default_priority_level: 1 }\n")),
    "cache": ("warning: a response cache for the model and none in the server", model(GOOD + "response_cache { enable: true }\n")),
    # warm-up
    "warm": (None, model(GOOD + WARM)),
    "warm_auto": (None, model(AUTO + WARM)),
    "warm_key": ("error: the inputs q", model(GOOD + WARM.replace('key: "x"', 'key: "q"'))),
    "warm_no_inputs": ("error: no inputs", model(GOOD + 'model_warmup [ { name: "w" batch_size: 1 } ]\n')),
    "warm_dims": ("error: dims [5] for 'x'", model(GOOD + WARM.replace("[ 4 ] zero", "[ 5 ] zero"))),
    "warm_free_dims": ("error: dims [-1] for 'x'", model(GOOD + WARM.replace("[ 4 ] zero", "[ -1 ] zero"))),
    "warm_type": ("error: TYPE_FP16 for 'x'", model(GOOD + WARM.replace("FP32", "FP16"))),
    "warm_batch": ("error: a batch of 9", model(GOOD + WARM.replace("batch_size: 1", "batch_size: 9"))),
    "warm_no_data": ("error: no data for 'x'", model(GOOD + WARM.replace(" zero_data: true", ""))),
    "warm_no_file": ('error: "x.raw", which is not there', model(GOOD + WARM.replace("zero_data: true", 'input_data_file: "x.raw"'))),
    "warm_short_file": ("error: 8 bytes in x.raw", model(GOOD + WARM.replace("zero_data: true", 'input_data_file: "x.raw"'), **{"1__model.onnx": DOUBLE, "warmup__x.raw": b"\0" * 8})),
    # ensembles
    "ensemble": (None, combined(STEP)),
    "ensemble_chain": (None, combined(STEP.replace('value: "y"', 'value: "m"') + ", " + NEXT)),
    "ensemble_of_ensemble": (None, combined(STEP.replace('"good"', '"ensemble_chain"'))),
    "ensemble_free_shape": (None, combined(STEP, x=X.replace("[ 4 ]", "[ -1 ]"))),
    "ensemble_auto": (None, combined(STEP.replace('"good"', '"no_config"'), batch=4)),
    "ensemble_auto_8": ("error: 8, where no_config has 4", combined(STEP.replace('"good"', '"no_config"'))),
    "ensemble_no_version": ("error: no folder for a version", model(ensemble(STEP), **{"readme.txt": ""})),
    "ensemble_no_model": ('error: "nosuch"', combined(STEP.replace('"good"', '"nosuch"'))),
    "ensemble_no_steps": ("error: no step", combined("")),
    "ensemble_input_key": ("error: key 'q', expected an input of good: x", combined(STEP.replace('key: "x"', 'key: "q"'))),
    "ensemble_output_key": ("error: key 'q', expected an output of good: y", combined(STEP.replace('key: "y"', 'key: "q"'))),
    "ensemble_nowhere": ("error: 'q' comes from nowhere", combined(STEP.replace('value: "x"', 'value: "q"'))),
    "ensemble_unused_input": ("error: 'x2' is used by nothing", combined(STEP, x=X + X2)),
    "ensemble_unused": ("error: 'm' is used by nothing", combined(STEP + ", " + NEXT.replace('"m"', '"y"').replace('key: "y" value: "y"', 'key: "y" value: "m"'))),
    "ensemble_made_twice": ("error: 'y' is made 2 times", combined(STEP + ", " + STEP)),
    "ensemble_loop": ("error: a loop through m, y", combined(NEXT + ", " + NEXT.replace('value: "m"', 'value: "y"').replace('key: "y" value: "y"', 'key: "y" value: "m"') + ", " + STEP.replace('value: "y"', 'value: "z"'), y=Y + Y.replace('"y"', '"z"'))),
    "ensemble_part_of_inputs": ("error: no value for x2 of two_inputs", combined(STEP.replace('"good"', '"two_inputs"'))),
    "ensemble_type": ("error: TYPE_FP16 for 'x', TYPE_FP32 for good's 'x'", combined(STEP, x=X.replace("FP32", "FP16"))),
    "ensemble_shape": ("error: [-1, 5] for 'x', [-1, 4] for good's 'x'", combined(STEP, x=X.replace("[ 4 ]", "[ 5 ]"))),
    "ensemble_batch": ("error: 16, where good has 8", combined(STEP, batch=16)),
    "ensemble_version": ("error: version 3 of good", combined(STEP.replace("version: -1", "version: 3"))),
    "ensemble_default_version": ("error: version 0 of good (the default", combined(STEP.replace("model_version: -1 ", ""))),
    "ensemble_no_input_map": ("error: no input_map", combined(STEP.replace('input_map { key: "x" value: "x" } ', ""))),
    "ensemble_no_output_map": ("error: no output_map", combined(STEP.replace('output_map { key: "y" value: "y" } ', ""))),
    "ensemble_of_itself": ("error: an ensemble that contains itself", combined(STEP.replace('"good"', '"ensemble_of_itself"'))),
    "ensemble_instances": ("error: instances for an ensemble", combined(STEP, more="instance_group { kind: KIND_CPU }\n")),
    "ensemble_warm": ("error: a warm-up for an ensemble", combined(STEP, more=WARM)),
    "ensemble_backend": ('error: platform "ensemble" and backend "onnxruntime"', combined(STEP, more='backend: "onnxruntime"\n')),
}  # fmt: skip

# On these Triton 2.51 ends, with every model that it serves; on those of a warm-up now
# and then (with one input too many in most loads, with a large batch in one of thirty).
DEADLY = {
    "warm_batch": CASES["warm_batch"][1],
    "config_folder": (None, {"config.pbtxt/x": "", "1/model.onnx": DOUBLE}),
    "labels_folder": (LABELS.replace("labels.txt", "1"), {"1/model.onnx": DOUBLE}),
    "warm_extra": (
        GOOD
        + WARM.replace(
            "} } } ]",
            '} } inputs { key: "q" value { data_type: TYPE_FP32 dims: [ 4 ] '
            "zero_data: true } } } ]",
        ),
        {"1/model.onnx": DOUBLE},
    ),
}


def put(repository, models):
    """Write models, each a config (or None) and a dict of files, into a repository."""
    for name, (config, files) in models.items():
        if config is not None:
            files = {"config.pbtxt": config, **files}
        for file, data in files.items():
            path = repository / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
    return repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    models = {name: content for name, (_, content) in CASES.items()}
    return put(tmp_path_factory.mktemp("repository"), models)


@pytest.fixture(scope="module")
def findings(repository):
    found = repository_check.check(repository, server=SERVER)
    return {name: [x for x in found if x.model == name] for name in CASES}


def refused(name):
    """Whether a model of that name should not load."""
    return (CASES[name][0] or "").startswith(ERROR)


# Refused by the onnxruntime backend: its own words are held against C++'s in
# test_onnxruntime_backend.py, and each of these would start two processes here.
BY_THE_BACKEND = {
    *("wrong_dims", "wrong_type", "wrong_output", "wrong_input", "extra_input"),
    *("missing_input", "input_twice", "batch_in_dims", "fixed_batch", "page"),
    *("wrong_inputs_alone", "half_a_file", "empty_file", "other_file", "no_file"),
}


# Asked of one server that has to live through all of them.
ASKED = [name for name in CASES if name not in BY_THE_BACKEND | DEADLY.keys()]


def load_each(repository, names):
    """Which models a live server loads, one after the other.

    Several loads at once end Triton 2.51 now and then.
    """
    found = {}
    with (
        embedded_triton.start(repository, models=[]) as server,
        grpcclient.InferenceServerClient(server.grpc) as client,
    ):
        for name in names:
            try:
                client.load_model(name)
                found[name] = client.is_model_ready(name)
            except InferenceServerException as error:
                assert "load" in error.message()
                found[name] = False
    return found


@pytest.fixture(scope="module")
def loaded(repository):
    """Which models a live server loads; each of six servers is asked for a part."""
    with ThreadPoolExecutor(6) as pool:
        parts = pool.map(load_each, [repository] * 6, [ASKED[i::6] for i in range(6)])
        return {name: each for part in parts for name, each in part.items()}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(findings, name):
    expected = CASES[name][0]
    found = [f"{x.severity}: {x.found}, expected {x.expected}" for x in findings[name]]
    if expected is None:
        assert not found
    else:
        assert any(text.startswith(expected) for text in found), found
        assert (ERROR in {x.severity for x in findings[name]}) == refused(name)
    for x in findings[name]:
        assert x.fix and x.link.startswith("https://")


@pytest.mark.parametrize("name", ASKED)
def test_the_server_is_of_the_same_opinion(loaded, name):
    assert loaded[name] != refused(name)


@pytest.mark.parametrize("name", DEADLY)
def test_what_would_end_the_server_is_an_error(tmp_path, name):
    put(tmp_path, {name: DEADLY[name]})
    found = repository_check.check(tmp_path, server=SERVER)
    assert {x.severity for x in found} == {ERROR}
    with embedded_triton.start(tmp_path, models=[]) as server:
        with grpcclient.InferenceServerClient(server.grpc) as client:
            with pytest.raises(InferenceServerException):  # refused, or nobody there
                client.load_model(name)
        if not name.startswith("warm"):
            deadline = time.monotonic() + 20
            while server.is_alive() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not server.is_alive()


@pytest.mark.parametrize("name", [x for x in REFUSED if x != "threads"])
def test_it_refuses_what_the_c_backend_refuses(tmp_path, name):
    """REFUSED holds the words of the C++ onnxruntime backend."""
    put(tmp_path, {name: (REFUSED[name][0], {"1/model.onnx": DOUBLE})})
    assert ERROR in {x.severity for x in repository_check.check(tmp_path)}


def test_the_line_is_that_of_the_field(tmp_path):
    text = GOOD.replace("dims: [ 4 ] } ]\noutput", "\n\n dims: [ 5 ] } ]\noutput")
    put(tmp_path, {"m": ("# a comment\n" + text, {"1/model.onnx": DOUBLE})})
    (finding,) = repository_check.check(tmp_path)
    assert (finding.file, finding.line) == ("m/config.pbtxt", 6)
    assert finding.field == "input[0].dims"
    assert str(finding).startswith("error: m/config.pbtxt:6: input[0].dims found [5]")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("max_batchsize: 8", "max_batch_size"),
        ("input { dim: 4 }", "dims"),
        ("instance_group { knd: KIND_CPU }", "kind"),
        ("input { data_type: FP32 }", "TYPE_FP32"),
        ("instance_group { kind: KIND_GPUS }", "KIND_GPU"),
    ],
)
def test_the_nearest_known_name_is_offered(tmp_path, text, near):
    put(tmp_path, {"m": ("\n " + text, {"1/model.onnx": DOUBLE})})
    (finding,) = repository_check.check(tmp_path)
    assert finding.fix == f"Did you mean {near}?"
    assert finding.line == 2 and re.match(r"column \d+", finding.field)


def test_our_own_repository_is_accepted(artifacts):
    names = ["classifier_onnx", "resnet50"]
    server = repository_check.server_features("embedded")
    assert not repository_check.check(paths.MODEL_REPOSITORY, names, server)


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
        {"1/model.py": MODEL_PY, "1/tokenizer/vocabulary.json": "{}"},
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
    "batch_around_it": (
        ensemble(STEP.replace('"good"', '"no_batch"')),
        {"1/.keep": ""},
    ),
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
    put(tmp_path, PUBLIC)
    assert not repository_check.check(tmp_path)


def test_numbers_that_no_enum_knows_give_no_traceback(tmp_path):
    text = PYTHON.replace("TYPE_FP32", "99") + "instance_group { kind: 9 }\n" + WARM
    put(tmp_path, {"m": (text, {"1/model.py": MODEL_PY})})
    repository_check.check(tmp_path, server=SERVER)


@pytest.mark.parametrize("kind", ["any", "embedded", "container"])
def test_each_kind_of_server_can_be_checked_for(repository, kind):
    repository_check.check(repository, ["good"], repository_check.server_features(kind))


def test_odd_names_and_files_give_findings(tmp_path):
    odd = {"with space": (GOOD, {"1/model.onnx": DOUBLE}), "café": (None, {"1/x": ""})}
    put(tmp_path, odd)
    (tmp_path / "a file").write_text("")
    (tmp_path / "broken link").symlink_to(tmp_path / "nothing")
    found = repository_check.check(tmp_path)
    assert {x.model for x in found} == {*odd}
    assert {x.severity for x in found if x.model == "with space"} == {WARNING}


def test_a_folder_in_place_of_a_file_gives_a_finding(tmp_path):
    put(tmp_path, {"m": (GOOD, {"1/model.onnx/weights": "x"})})
    repository_check.check(tmp_path)  # some backends take a folder


@pytest.mark.parametrize("name", ["labels", "rtx_plan", "python", "good"])
def test_an_unreadable_file_gives_a_finding(repository, monkeypatch, name):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    config = (repository / name / "config.pbtxt").read_bytes()
    monkeypatch.setattr(onnx, "load", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(
        Path, "read_bytes", lambda x: config if x.suffix == ".pbtxt" else refuse(x)
    )
    found = repository_check.check(repository, [name])
    assert "permission denied" in {x.found for x in found}


def test_inputs_that_the_server_makes_are_no_mistake(tmp_path):
    text = HEAD.replace("8", "0") + X.replace("[ 4 ]", "[ -1, 4 ]") + FREE_Y
    control = (
        'sequence_batching { control_input { name: "x2" '
        "control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } } }\n"
    )
    two = onnx_file(("x", "x2"), op="Add")
    put(tmp_path, {"m": (text + control, {"1/model.onnx": two})})
    assert not repository_check.check(tmp_path)


def test_a_models_folder_is_told_from_a_repository(repository):
    (finding,) = repository_check.check(repository / "good")
    assert finding.found == "a model's folder"


def test_200_models_take_less_than_2_seconds(tmp_path):
    models = {f"m{i}": (GOOD, {"1/model.onnx": DOUBLE}) for i in range(200)}
    put(tmp_path, models)
    begin = time.perf_counter()
    assert not repository_check.check(tmp_path, server=SERVER)
    assert time.perf_counter() - begin < 2


def command(*arguments):
    program = [sys.executable, "-m", "repository_check", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True)


def test_the_command_line(repository):
    good = command(repository, "good")
    assert (good.returncode, good.stdout) == (0, "0 errors, 0 warnings\n")
    warned = command(repository, "few_labels")
    assert warned.returncode == 0 and "0 errors, 1 warning" in warned.stdout
    bad = command(repository, "misspelt")
    assert bad.returncode == 1 and "misspelt/config.pbtxt:2" in bad.stdout
    assert "\033" not in bad.stdout  # no colour in a pipe
    (finding,) = json.loads(command(repository, "misspelt", "--json").stdout)
    assert (finding["line"], finding["severity"]) == (2, "error")
    wrong = command(repository / "nothing")
    assert wrong.returncode == 2 and "there is no folder" in wrong.stderr
    assert command().returncode == 2
    assert command(repository, "nosuch").returncode == 2


def test_a_server_is_not_started_on_what_it_would_refuse(repository):
    with pytest.raises(TritonServerError, match=r"misspelt/config\.pbtxt:2: column"):
        embedded_triton.start(repository, models=["good", "misspelt"])


def test_the_log_is_explained_where_the_check_is_off(repository):
    with pytest.raises(TritonServerError, match="That means: dims are those of one"):
        embedded_triton.start(repository, models=["wrong_dims"], check=False)


def test_an_argument_that_this_version_lacks_is_named():
    with pytest.raises(TritonServerError, match="does not know --allow-client-shm"):
        embedded_triton.start(models=[], arguments=["--allow-client-shm=true"])
    with pytest.raises(TritonServerError, match="did you mean --exit-on-error"):
        embedded_triton.start(models=[], arguments=["--exit-on-eror=false"])


def test_every_explanation_fits_a_message_that_servers_write():
    messages = [*(words for _, words in REFUSED.values())]
    assert all(map(explain, messages[:5]))
    for text, meaning in (
        ("unable to find backend library for backend 'x', try", "no backend x"),
        ("tritonserver: unrecognized option '--nosuch=1'", "not know that argument"),
        ("Serialization assertion plan->header.magicTag == ", "another TensorRT"),
        ("whose required version 0 is not loaded", "model_version: -1"),
        ("No space left on device", "--shm-size"),
    ):
        assert meaning in " ".join(explain(text))
