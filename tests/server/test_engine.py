"""Engines of every TensorRT version are read; running one needs a GPU."""

import csv
import json
import re
from pathlib import Path

import nbformat
import onnx
import pytest
import tensorrt_rtx

import embedded_triton
from embedded_triton import TritonServerError
from embedded_triton.backends.engine import Engine, make_logger
from helpers import engine, machine, paths

RECORDINGS = sorted(
    path
    for network in ("classifier", "resnet50")
    for path in paths.RECORDINGS.glob(f"{network}_*.json")
)

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


def test_names_alone_are_read_too():
    (layer,) = engine.read_layers('{"Layers": ["a + b + c"], "Bindings": []}')
    assert (layer["name"], layer["nodes"], layer["precision"]) == ("a + b + c", 3, "")


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[]", '{"Layers": []}', None])
def test_what_is_no_inspector_json_is_refused(text):
    with pytest.raises(ValueError, match=r"inspector's JSON, found|has no \"Layers\""):
        engine.read_layers(text)


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


@pytest.mark.skipif(machine.gpu_count() > 0, reason="there is a GPU")
def test_an_engine_without_a_gpu_is_refused(tmp_path):
    (tmp_path / "model.plan").write_bytes(b"a plan")
    with pytest.raises(RuntimeError, match="needs an NVIDIA GPU and its driver"):
        Engine(tmp_path / "model.plan", tensorrt_rtx)
    with pytest.raises(FileNotFoundError):
        Engine(tmp_path / "none.plan", tensorrt_rtx)


@pytest.mark.skipif(machine.gpu_count() > 0, reason="there is a GPU")
def test_the_stand_in_for_the_tensorrt_backend_says_what_it_needs(tmp_path):
    (tmp_path / "plan" / "1").mkdir(parents=True)
    (tmp_path / "plan" / "1" / "model.plan").write_bytes(b"a plan")
    (tmp_path / "plan" / "config.pbtxt").write_text(
        'backend: "tensorrt"\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [4] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [4] }\n'
        "instance_group { kind: KIND_CPU }\n"
    )
    with pytest.raises(TritonServerError, match="environment has no TensorRT"):
        embedded_triton.start(tmp_path)


# --------------------------------------------------- names of TensorRT's versions

# What the project's variables hold.
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "inspector": "EngineInspector",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "self._trt_runtime": "Runtime",
    "kinds": "NetworkDefinitionCreationFlag",
    "flags": "NetworkDefinitionCreationFlag",
}


@pytest.fixture(scope="module")
def table():
    """Which name is in which version.

    RTX is checked below, and what record.py uses ran on 8.6. The columns of 10 and 11
    were not compared with an installation.
    """
    with Path(__file__).parents[1].joinpath("data/tensorrt_names.csv").open() as file:
        return {row.pop("name"): row for row in csv.DictReader(file)}


def sources():
    """Text of everything in the project that talks to TensorRT."""
    files = [
        paths.ROOT / "helpers/engine.py",
        paths.ROOT / "tools/record_engines.py",
        paths.ROOT / "embedded_triton/backends/tensorrt/model.py",
    ]
    yield from ((file.name, file.read_text()) for file in files)
    for file in paths.NOTEBOOKS.glob("0[34]_*.ipynb"):
        cells = nbformat.read(file, as_version=4).cells
        code = [x.source for x in cells if x.cell_type == "code"]
        yield file.name, "\n".join(code)


def names_in(text):
    """TensorRT's names in a source text, as ``Class`` or ``Class.member``."""
    found = set(re.findall(r"\btrt\.([A-Z]\w*(?:\.\w+)?)", text))
    for variable, owner in CLASSES.items():
        pattern = rf"(?<![\w./\"]){re.escape(variable)}\.(\w+)"  # no file's name
        found |= {f"{owner}.{member}" for member in re.findall(pattern, text)}
    return found


def test_every_name_is_in_the_table_and_guarded_where_a_version_lacks_it(table):
    count = 0
    for file, text in sources():
        for name in names_in(text):
            assert name in table, f"{name} in {file} is not in tensorrt_names.csv"
            count += 1
            if "no" in table[name].values():
                guarded = re.search(r"hasattr\(|getattr\(|builds_for_others", text)
                assert guarded, f"{name} in {file} is not in every version"
    assert count > 60


def test_the_table_is_right_about_the_installed_bindings(table):
    for name, versions in table.items():
        value = tensorrt_rtx
        try:
            for part in name.split("."):
                value = getattr(value, part)
            found = "yes"
        except AttributeError:
            found = "no"
        assert found == versions["RTX"], name
