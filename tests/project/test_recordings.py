"""The recordings hold what the lessons say of them."""

import base64
import importlib
import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from conftest import make_model
from helpers import engine, paths
from tools import record_engines

RECORDINGS = sorted(
    path
    for network in ("classifier", "resnet50")
    for path in paths.RECORDINGS.glob(f"{network}_*.json")
)


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda path: path.stem)
def test_recorded_engines_are_read(file):
    recording = json.loads(file.read_text())
    assert {"GPU", "driver", "TensorRT"} <= set(recording["environment"])
    layers = engine.read_layers(json.dumps(recording["inspector"]))
    times = recording["layer times ms at batch 64"]
    assert [layer["name"] for layer in layers] == list(times)
    assert len(layers) < len(recording["network"])  # fused
    network, precision = file.stem.split("_")
    expected = {"tf32": "FP32", "mixed": "FP16"}.get(precision, precision.upper())
    of_convolutions = {x["precision"] for x in layers if x["kind"] == "Convolution"}
    assert expected in of_convolutions
    if network == "classifier":  # that has trained weights
        assert recording["parity"]["top-1 agree"] == 1


def test_there_are_recordings():
    names = {x.stem for x in RECORDINGS}
    for precision in "fp32", "tf32", "fp16", "int8":
        assert {f"classifier_{precision}", f"resnet50_{precision}"} <= names


def test_models_are_exported_as_tensorrt_8_6_reads_them():
    """Its newest opset: docs.nvidia.com, TensorRT 8.6.1, support matrix, ONNX."""
    assert record_engines.OPSET <= 17


def test_the_recorded_speeds_are_what_the_notebooks_say():
    pytorch = engine.read_recording("pytorch")["latency ms"]
    default, fast = pytorch["PyTorch TF32"], pytorch["PyTorch FP16, channels last"]
    ratios = {}
    for precision in "fp16", "int8":
        ms = engine.read_recording(f"resnet50_{precision}")["latency ms"]["64"]
        ratios[precision] = default["64"] / ms, fast["64"] / ms
    assert ratios["fp16"] == pytest.approx((5.1, 2.4), abs=0.05)
    assert ratios["int8"][1] == pytest.approx(3.6, abs=0.05)


def test_the_recorded_server_batched_and_refused():
    served = engine.read_recording("serving", paths.RECORDINGS_H100)
    assert served["parity"]["top-1 agree"] == served["parity"]["top-5 agree"] == 1
    together = served["concurrent"]
    assert together["runs"] < together["requests"] / 2
    assert together["parity"]["top-1 agree"] == 1
    for name, words in {
        "batch_above_the_profile": "maximum batch size 512",
        "batch_in_dims": "the model expects 4 dimensions",
        "unknown_output": "allowed outputs are: logits",
        "wrong_type": "unexpected datatype TYPE_FP16",
        "half_a_plan": "8.6.0 cannot load this plan",
        "no_plan_at_all": "8.6.0 cannot load this plan",
    }.items():
        assert words in served["refused"][name]


def test_the_recorded_fp16_engine_is_close_where_four_layers_stay_in_fp32():
    assert engine.read_recording("classifier_mixed")["parity"]["relative L2"] < 5e-3
    assert engine.read_recording("resnet50_fp16")["parity"]["relative L2"] < 5e-3


def test_the_recorded_server_reaches_what_the_notebook_says():
    steps = engine.read_recording("throughput_steps")
    rates = {
        step: [each["images/s"] for each in rounds]
        for step, rounds in steps["images/s"].items()
    }
    assert all(len(rounds) == 3 for rounds in rates.values())
    assert min(rates["32 pictures in a request"]) > 20_000
    assert min(rates["tensors stay on the GPU"]) > 20_000
    assert max(rates["float32 over gRPC, one instance"]) < 1_500
    for model, distance in steps["parity"].items():
        assert distance["relative L2"] < (0.03 if "int8" in model else 5e-3), model


def test_the_page_about_gpus_has_the_recorded_rates_of_the_ensemble():
    recording = engine.read_recording("ensemble")
    page = (paths.ROOT / "docs" / "gpu_and_docker.md").read_text()
    for count in 1, 4:
        for route, rates in recording[f"images/s, instances: {count}"].items():
            medians = [
                np.median([x["images/s"] for x in rounds]) for rounds in rates.values()
            ]
            name = f"{route}, {count} instance{'s' * (count > 1)}"
            assert f"| {name} | " + " | ".join(f"{x:,.0f}" for x in medians) in page


def test_the_recorded_ensemble_differs_in_one_line_and_gives_the_same_classes():
    recording = engine.read_recording("ensemble")
    assert recording["lines changed"] == 1
    assert recording["parity"]["relative L2"] < 5e-3
    assert recording["parity"]["top-5 agree"] == 1


def test_the_function_of_lesson_04_ran_an_engine():
    recording = engine.read_recording("run_engine", paths.RECORDINGS_H100)
    distance = recording["parity"]["relative L2"]
    assert recording["printed"] == [f"logits (8, 1000) relative L2 {distance:.1e}"]
    assert 1e-4 < distance < 1e-2


def test_no_recording_names_a_folder_of_its_machine():
    files = sorted(paths.RECORDINGS.parent.rglob("*.json"))
    assert files
    for file in files:
        assert not re.search(r'[" ]/(root|home|tmp)/', file.read_text()), file


# -------------------------------------------------------------- the recorders


@pytest.fixture
def record_throughput(monkeypatch):
    """The program, which finds its neighbour as one that is started does."""
    monkeypatch.syspath_prepend(paths.ROOT / "tools")
    return importlib.import_module("record_throughput")


def test_each_bad_model_is_bad_in_one_way():
    config = paths.MODEL_REPOSITORY / "classifier_tensorrt" / "config.pbtxt"
    text, plan = config.read_text(), b"ftrt and more"
    bad = record_engines.make_bad_models(text, plan)
    for name, (config, data) in bad.items():
        assert (config != text) != (data != plan), name
    assert bad["half_a_plan"][1] == plan[:6]
    assert bad["no_plan_at_all"][1] == b"what and more"


def test_depthwise_convolutions_are_found():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], "plain", group=1),
        helper.make_node("Conv", ["y", "w"], ["z"], "depthwise", group=8),
    ]
    model = make_model(nodes, [("x", [1, 8, 4, 4])], [("z", [1, 8, 4, 4])])
    assert record_engines.find_depthwise(model) == ["depthwise"]


def test_pixels_are_normalised_in_front_of_a_network(record_throughput, tmp_path):
    shape = ["batch", 3, 224, 224]
    node = helper.make_node("Identity", ["input"], ["logits"])
    model = make_model([node], [("input", shape)], [("logits", shape)])
    onnx.save(model, tmp_path / "net_fp16.onnx")
    record_throughput.normalise_first(tmp_path / "net_fp16.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net_pixels_fp16.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    (found,) = session.run(None, {"pixels": pixels})
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # torchvision's
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_file_is_sent_behind_its_length(record_throughput):
    sent = base64.b64decode(record_throughput.encode_bytes(b"x" * 258))
    assert sent == b"\x02\x01\0\0" + b"x" * 258
