"""What TensorRT's inspector says is read alike for each version."""

import json

import numpy as np
import onnx
import pytest
import tensorrt_rtx

from embedded_triton.backends.engine import make_logger
from helpers import engine

# One fused convolution at detailed verbosity: 8.6 as recorded, 10 and 11 made by hand.
LAYER = {
    "Name": "/conv/Conv + /act/Clip",
    "LayerType": "CaskConvolution",
    "ParameterType": "Convolution",
    "TacticName": "sm80_kernel",
    "Metadata": "[ONNX Layer: /conv/Conv]\x1e[ONNX Layer: /act/Clip]",
}


OUTPUT = {"Name": "y", "Dimensions": [8, 32, 112, 112]}


OUTPUTS = {
    "8.6": {"Format/Datatype": "Channel major FP16 format where C % 8 == 0"},
    "10": {"Format/Datatype": "Half"},
    "11": {"Datatype": "HALF", "Format": "N/A due to dynamic shapes"},
}


TENSORS = {
    "8.6": {"Bindings": ["input", "logits"]},
    "10": {"Bindings": ["input", "logits"]},
    "11": {"I/O Tensors": [{"Name": "input"}, {"Name": "logits"}]},
}


@pytest.mark.parametrize("version", OUTPUTS)
def test_layers_of_each_version_read_alike(version):
    layer = LAYER | {"Outputs": [OUTPUT | OUTPUTS[version]]}
    text = json.dumps({"Layers": [layer], **TENSORS[version]})
    text = text.replace("\\u001e", "\x1e")  # as 8.6 writes it
    assert engine.read_layers(text) == [
        {
            "name": "/conv/Conv + /act/Clip",
            "kind": "Convolution",
            "nodes": 2,
            "precision": "FP16",
            "shape": "8×32×112×112",
            "tactic": "sm80_kernel",
        }
    ]


@pytest.mark.parametrize(
    ("written", "precision"),
    {
        **{"BFloat16": "BF16", "BF16": "BF16", "FP8": "FP8", "Float": "FP32"},
        **{"Int8": "INT8", "Int32": "INT32", "Int64": "INT64", "Bool": "BOOL"},
    }.items(),
)
def test_precisions_are_read(written, precision):
    layer = LAYER | {"Outputs": [OUTPUT | {"Datatype": written}]}
    (found,) = engine.read_layers(json.dumps({"Layers": [layer]}))
    assert found["precision"] == precision


def test_a_node_that_is_named_twice_is_one():
    layer = LAYER | {"Metadata": LAYER["Metadata"] + "\x1e[ONNX Layer: /act/Clip]"}
    (found,) = engine.read_layers(json.dumps({"Layers": [layer]}))
    assert found["nodes"] == 2


def test_names_alone_are_read_too():
    (layer,) = engine.read_layers('{"Layers": ["a + b + c"], "Bindings": []}')
    assert (layer["name"], layer["nodes"], layer["precision"]) == ("a + b + c", 3, "")


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[]", '{"Layers": []}', None])
def test_what_is_no_inspector_json_is_refused(text):
    with pytest.raises(ValueError, match=r"inspector's JSON, found|has no \"Layers\""):
        engine.read_layers(text)


def test_a_network_is_walked(artifacts):
    trt = tensorrt_rtx
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(artifacts / "resnet50.onnx"))
    layers = engine.read_network(network, trt)
    assert len(layers) == network.num_layers
    convolutions = [x for x in layers if x["kind"] == "Convolution"]
    assert len(convolutions) == 53
    kernel = 64 * 3 * 7 * 7  # random weights have no bias
    assert convolutions[0]["parameters"] in (kernel, kernel + 64)
    assert convolutions[0]["shape"] == "-1×64×112×112"
    model = onnx.load(artifacts / "resnet50.onnx", load_external_data=False)
    weights = sum(len(x.raw_data) // 4 for x in model.graph.initializer)
    assert sum(x["parameters"] for x in layers) == pytest.approx(weights, rel=1e-3)


def test_weights_and_bias_are_counted():
    trt = tensorrt_rtx
    network = trt.Builder(make_logger(trt)).create_network(0)
    tensor = network.add_input("x", trt.float32, (1, 3, 8, 8))
    kernel, bias = np.ones((4, 3, 3, 3), np.float32), np.ones(4, np.float32)
    network.add_convolution_nd(tensor, 4, (3, 3), kernel, bias)
    (layer,) = engine.read_network(network, trt)
    assert (layer["kind"], layer["parameters"]) == ("Convolution", 4 * 27 + 4)


def test_a_recording_has_the_time_of_each_layer_or_is_said_to_be_missing():
    recording = engine.read_recording("classifier_fp16")
    times = {x["name"]: x["ms"] for x in recording["layers"]}
    assert times == recording["layer times ms at batch 64"]
    with pytest.raises(FileNotFoundError, match=r"'x'; there are .*classifier_fp16"):
        engine.read_recording("x")
