"""What is said of an ONNX file."""

import onnx

from helpers import (
    onnx_tools,
)


def test_onnx_file_is_described(tmp_path, doubling_model):
    onnx.save(doubling_model, tmp_path / "double.onnx")
    column = onnx_tools.describe(tmp_path / "double.onnx")["double.onnx"]
    assert column["inputs"] == "x: FLOAT [batch, 4]"
    assert (column["opset"], column["IR version"], column["nodes"]) == (
        "ai.onnx 17",
        8,
        1,
    )
    assert onnx_tools.count_operators(tmp_path / "double.onnx") == {"Mul": 1}
