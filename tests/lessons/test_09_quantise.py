"""What notebook 09 does to a network that becomes INT8."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from conftest import make_model, taught
from helpers import classifiers, images, paths

LESSON = "09_quantise_to_int8"
SCALE = 0.05


def residual_block(order):
    """A convolution added to the skip connection, with a Q/DQ pair behind each."""
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["conv"], pads=[1] * 4),
        helper.make_node("Relu", ["x"], ["skip"]),
        helper.make_node("Add", [f"{name}_dq" for name in order], ["y"]),
    ]
    for name in "conv", "skip":
        pair = [name, f"{name}_q", f"{name}_dq"]
        for kind, source, target in zip(
            ("QuantizeLinear", "DequantizeLinear"), pair, pair[1:]
        ):
            inputs = [source, f"{name}_scale", "zero"]
            nodes.insert(-1, helper.make_node(kind, inputs, [target]))
    constants = {"weights": np.full((1, 1, 3, 3), 0.1, np.float32), "zero": np.int8(0)}
    constants |= {f"{name}_scale": np.float32(SCALE) for name in order}
    shape = [1, 1, 4, 4]
    initializers = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    return make_model(nodes, [("x", shape)], [("y", shape)], initializers)


@pytest.mark.parametrize("order", [("conv", "skip"), ("skip", "conv")])
def test_only_the_pair_behind_the_convolution_goes(tmp_path, order):
    path = tmp_path / "block.onnx"
    onnx.save(residual_block(order), path)
    x = {"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)}
    (before,) = ort.InferenceSession(path).run(None, x)
    cell = "def remove_qdq_before_addition"
    taught(LESSON, cell)["remove_qdq_before_addition"](path)

    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    (addition,) = (node for node in graph.node if node.op_type == "Add")
    feeds = dict(zip(order, addition.input, strict=True))
    assert made[feeds["conv"]].op_type == "Conv"
    assert made[feeds["skip"]].op_type == "DequantizeLinear"
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    assert {x.name for x in graph.initializer} == {"weights", "skip_scale", "zero"}
    (after,) = ort.InferenceSession(path).run(None, x)
    assert 0 < np.abs(after - before).max() < SCALE * 0.51  # one rounding less


def test_each_network_is_calibrated_with_its_own_preprocessing():
    of_classifier = classifiers.EFFICIENTNET_LITE0_PREPROCESSING
    description = SimpleNamespace(preprocessing=of_classifier)
    calibrated = {}
    taught(
        LESSON,
        "quantise(paths.artifact",
        logging=SimpleNamespace(
            getLogger=lambda: SimpleNamespace(setLevel=id), ERROR=0
        ),
        classifiers=SimpleNamespace(
            read_description=lambda: description,
            RESNET50_PREPROCESSING=classifiers.RESNET50_PREPROCESSING,
        ),
        images=images,
        paths=SimpleNamespace(artifact=str, ARTIFACTS=paths.ARTIFACTS),
        quantise=lambda source, _, batch: calibrated.update({source: batch}),
    )
    for name, numbers in {
        "resnet50": classifiers.RESNET50_PREPROCESSING,
        "classifier": of_classifier,
    }.items():
        own = images.sample_batch(numbers)
        np.testing.assert_array_equal(calibrated[f"{name}.onnx"], own)
