"""Rules about the model file: whether it is there, and what its first look shows."""

import numpy as np
import pytest
from case_models import (
    DOUBLE,
    GOOD,
    MODEL_PY,
    PYTHON,
    assert_case,
    model,
    onnx_file,
    write_models,
)
from onnx import helper

import repository_check
from conftest import make_model

PLAN_CONFIG = (
    GOOD.replace("onnxruntime", "tensorrt") + "instance_group { kind: KIND_CPU }\n"
)
HALF = DOUBLE[: len(DOUBLE) // 2]


def python(source):
    return model(PYTHON, {"1/model.py": source})


def graph(*nodes):
    """A model of these nodes, each (operator, its inputs, its output, attributes)."""
    nodes = [helper.make_node(op, [*x], [y], **more) for op, x, y, more in nodes]
    shape = ["batch", 4]
    onnx_model = make_model(nodes, [("x", shape)], [("y", shape)])
    return model(GOOD, {"1/model.onnx": onnx_model.SerializeToString()})


CASES = {
    "no_config_python": (None, model(None, {"1/model.py": MODEL_PY})),
    "no_file": ("error: no such file", model(GOOD, {"1/other.txt": ""})),
    "other_file": (
        "error: no such file; there is model.onnx",
        model(GOOD + 'default_model_filename: "net.onnx"\n'),
    ),
    "second_version": (
        "error: no such file",
        model(
            GOOD + "version_policy { all { } }\n",
            {"1/model.onnx": DOUBLE, "2/readme.txt": ""},
        ),
    ),
    "named_file": (
        None,
        model(GOOD + 'default_model_filename: "net.onnx"\n', {"1/net.onnx": DOUBLE}),
    ),
    "page": (
        "error: a file that is not ONNX; it begins with b'<html>",
        model(GOOD, {"1/model.onnx": "<html>log in</html>"}),
    ),
    "empty_file": ("error: a file without a graph", model(GOOD, {"1/model.onnx": ""})),
    "half_a_file": (
        "error: a file that is not ONNX",
        model(GOOD, {"1/model.onnx": HALF}),
    ),
    "lost_weights": (
        "error: weights that are said to be in model.onnx.data",
        model(GOOD, {"1/model.onnx": onnx_file(external="model.onnx.data")}),
    ),
    "weights_beside": (
        None,
        model(
            GOOD,
            {
                "1/model.onnx": onnx_file(external="model.onnx.data"),
                "1/model.onnx.data": np.full(4, 2, np.float32).tobytes(),
            },
        ),
    ),
    "new_opset": (
        "error: opset 27",
        model(GOOD, {"1/model.onnx": onnx_file(opset=27)}),
    ),
    "new_ir_version": (
        "error: IR version 14",
        model(GOOD, {"1/model.onnx": onnx_file(ir_version=14)}),
    ),
    "one_name_twice": (
        "error: onnx.checker says: Graph must be in single static assignment",
        graph(("Relu", "x", "y", {}), ("Abs", "x", "y", {})),
    ),
    "unknown_attribute": (
        "error: onnx.checker says: Unrecognized attribute: slope",
        graph(("Relu", "x", "y", {"slope": 0.1})),
    ),
    "one_input_of_two": (
        "error: onnx.checker says: Node with schema(::Add:14) has input size 1",
        graph(("Add", "x", "y", {})),
    ),
    "output_of_no_node": (
        "error: onnx.checker says: Graph output 'y' is not an output of any node",
        graph(("Relu", "x", "z", {})),
    ),
    "nodes_out_of_order": (
        "warning: onnx.checker says: Nodes in a graph must be topologically sorted",
        graph(("Relu", "a", "y", {}), ("Abs", "x", "a", {})),
    ),
    "microsoft_operator": (
        "warning: onnx.checker says: No opset import for domain 'com.microsoft'",
        graph(("Gelu", "x", "y", {"domain": "com.microsoft"})),
    ),
    "rtx_plan": (
        "error: an engine of TensorRT-RTX",
        model(PLAN_CONFIG, {"1/model.plan": b"vtrt\0\0"}),
    ),
    "json_plan": (
        "error: a file that begins with b'{",
        model(PLAN_CONFIG, {"1/model.plan": '{"error": "no access"}'}),
    ),
    "python": (None, python(MODEL_PY)),
    "python_syntax": ("error: invalid syntax", python("def x(:\n")),
    "python_nul": (
        "error: source code string cannot contain null bytes",
        python(b"x = 1\0"),
    ),
    "python_empty": ("error: no class", python("")),
    "python_other_class": (
        "error: the names Model, ",
        python(MODEL_PY.replace("TritonPythonModel", "Model")),
    ),
    "python_no_execute": (
        "warning: the methods run",
        python(MODEL_PY.replace("execute", "run")),
    ),
    "python_base": (
        None,
        python(
            MODEL_PY.replace("TritonPythonModel", "Base")
            + "\n\nclass TritonPythonModel(Base):\n    pass\n"
        ),
    ),
    "python_alias": (
        None,
        python(
            MODEL_PY.replace("TritonPythonModel", "Model")
            + "\n\nTritonPythonModel = Model\n"
        ),
    ),
    "python_import": (
        None,
        model(
            PYTHON,
            {
                "1/model.py": "from other import TritonPythonModel\n",
                "1/other.py": MODEL_PY,
            },
        ),
    ),
    "python_star": (
        None,
        model(PYTHON, {"1/model.py": "from other import *\n", "1/other.py": MODEL_PY}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    assert_case(tmp_path, name, CASES)


def test_a_folder_in_place_of_a_file_is_left_to_the_server(tmp_path):
    write_models(tmp_path, {"m": (GOOD, {"1/model.onnx/weights": "x"})})
    assert not repository_check.check(tmp_path)  # some backends take a folder
