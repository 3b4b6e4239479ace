"""What is said and shown of an ONNX file."""

import re
import urllib.request

import netron
import numpy as np
import onnx
import pytest
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


def test_netron_serves_one_graph_on_this_machine_alone(tmp_path, doubling_model):
    onnx.save(doubling_model, tmp_path / "double.onnx")
    shown = [onnx_tools.show_graph(tmp_path / "double.onnx").data for _ in range(2)]
    urls = [re.search(r'src="(http://127\.0\.0\.1:\d+)"', x)[1] for x in shown]
    with urllib.request.urlopen(f"{urls[1]}/data/double.onnx") as answer:
        assert answer.read() == (tmp_path / "double.onnx").read_bytes()
    with pytest.raises(OSError):  # the second call has stopped the first server
        urllib.request.urlopen(urls[0])
    netron.stop()
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        onnx_tools.show_graph(tmp_path / "none.onnx")


def test_netron_is_not_loaded_before_a_click(tmp_path, doubling_model, browser):
    """It would take the keyboard, and with it the consent that it asks for."""
    onnx.save(doubling_model, tmp_path / "double.onnx")
    shown, asked = onnx_tools.show_graph(tmp_path / "double.onnx").data, []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(shown)
    page.wait_for_timeout(1000)
    assert not asked
    page.get_by_text("Open Netron").click()
    page.frame_locator("iframe").get_by_text("Accept").wait_for()
    page.close()
    netron.stop()
