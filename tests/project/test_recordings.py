"""The recordings hold what the lessons say of them."""

import json
import re

import pytest

from helpers import engine, paths

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


def test_the_recorded_speeds_are_what_the_notebooks_say():
    latency = {
        precision: engine.read_recording(f"resnet50_{precision}")["latency ms"]
        for precision in ("fp16", "int8")
    }
    pytorch = engine.read_recording("pytorch")["latency ms"]["PyTorch FP32"]
    assert pytorch["64"] / latency["fp16"]["64"] > 10
    best = max(1e3 * int(batch) / ms for batch, ms in latency["int8"].items())
    assert best > 65_000


def test_the_recorded_server_batched_and_refused():
    served = engine.read_recording("serving")
    assert served["parity"]["top-1 agree"] == served["parity"]["top-5 agree"] == 1
    together = served["concurrent"]
    assert together["runs"] < together["requests"] / 4
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


def test_the_recorded_ensemble_differs_in_one_line_and_gives_the_same_classes():
    recording = engine.read_recording("ensemble")
    assert recording["lines changed"] == 1
    assert recording["parity"]["relative L2"] < 5e-3
    assert recording["parity"]["top-5 agree"] == 1


def test_no_recording_names_a_folder_of_its_machine():
    files = sorted(paths.RECORDINGS.parent.rglob("*.json"))
    assert files
    for file in files:
        assert not re.search(r'[" ]/(root|home|tmp)/', file.read_text()), file
