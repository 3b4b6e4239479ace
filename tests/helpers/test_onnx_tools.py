"""What is said of an ONNX file."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conftest import make_model
from helpers import onnx_tools


def test_onnx_file_is_described(tmp_path, doubling_model):
    onnx.save(doubling_model, tmp_path / "double.onnx")
    column = onnx_tools.describe(tmp_path / "double.onnx")["double.onnx"]
    assert column["inputs"] == "x: FLOAT [batch, 4]"
    assert column["outputs"] == "y: FLOAT [batch, 4]"
    assert (column["opset"], column["IR version"], column["nodes"]) == (
        "ai.onnx 17",
        8,
        1,
    )
    assert onnx_tools.count_operators(tmp_path / "double.onnx") == {"Mul": 1}


def test_parameters_are_counted_and_megabytes_are_those_of_a_disk(tmp_path):
    node, weights = helper.make_node, np.zeros((2500, 1000), np.float32)
    model = make_model(
        [
            node("Abs", ["x"], ["a"]),
            node("Add", ["a", "w"], ["b"]),
            node("Add", ["b", "w"], ["y"]),
        ],
        [("x", [2500, 1000])],
        [("y", [2500, 1000])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(model, tmp_path / "large.onnx")
    column = onnx_tools.describe(tmp_path / "large.onnx")["large.onnx"]
    assert (column["parameters"], column["size"]) == ("2,500,000", "10.0 MB")
    counts = onnx_tools.count_operators(tmp_path / "large.onnx")
    assert list(counts.items()) == [("Add", 2), ("Abs", 1)]
