"""Small models, right and wrong, for the tests of the checker.

A model is a pair: its config, or None, and a dict of its other files, both as text or
bytes. A case is a pair as well: how the finding begins, such as ``error: no backend``
(None where there is nothing to find), and the model. The server loads models with a
warning or with nothing, and refuses those with an error.
"""

import dataclasses

import numpy as np
import onnx
import tomllib
from onnx import helper, numpy_helper

import repository_check
from conftest import make_model
from helpers import paths
from repository_check import ERROR, servers

# The embedded server on a machine without a GPU, whatever this machine has.
SERVER = dataclasses.replace(servers.EMBEDDED, gpus=0, cache=False)
# What Triton's own onnxruntime backend refuses; the file says more.
REFUSALS = tomllib.loads((paths.ROOT / "tests/data/refusals.toml").read_text())

# Where a second finding follows from the first, or is as right.
TWO_FINDINGS = {
    ".hidden",
    "ensemble_nowhere",
    "input_twice",
    "leading_zero",
    "named_version",
}

HEAD = 'backend: "onnxruntime"\nmax_batch_size: 8\n'
X = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
X2 = X.replace('"x"', '"x2"')
Y = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
GOOD = HEAD + X + Y
FREE_X, FREE_Y = X.replace("[ 4 ]", "[ -1, 4 ]"), Y.replace("[ 4 ]", "[ -1, 4 ]")
HEAD_WITHOUT_BATCH = HEAD.replace("8", "0")
NO_BATCH = HEAD_WITHOUT_BATCH + FREE_X + FREE_Y
AUTO = 'backend: "onnxruntime"\n'
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
SUM = onnx_file(("x", "x2"), op="Add")


def model(config, files=None):
    """A model; its file is DOUBLE unless others are given."""
    return config, files or {"1/model.onnx": DOUBLE}


def step(part="good", inputs=(("x", "x"),), outputs=(("y", "y"),), version=-1):
    """A step of an ensemble, as text; maps from the part's names to the ensemble's."""
    maps = [
        f'{field} {{ key: "{name}" value: "{outer_name}" }}'
        for field, names in (("input_map", inputs), ("output_map", outputs))
        for name, outer_name in dict(names).items()
    ]
    versions = [] if version is None else [f"model_version: {version}"]
    fields = " ".join([f'model_name: "{part}"', *versions, *maps])
    return f"{{ {fields} }}"


def ensemble(*steps, x=X, y=Y, batch=8, more="", files=None):
    """An ensemble; Triton wants its version's folder, which is empty."""
    config = (
        f'platform: "ensemble"\nmax_batch_size: {batch}\n{x}{y}'
        f"ensemble_scheduling {{ step [ {', '.join(steps)} ] }}\n{more}"
    )
    return config, files or {"1/.keep": ""}


def write_models(repository, models):
    """Write models, given by name, into a repository; returns its folder."""
    for name, (config, files) in models.items():
        if config is not None:
            files = {"config.pbtxt": config, **files}
        for file, data in files.items():
            path = repository / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
    return repository


def assert_case(repository, name, cases, parts=()):
    """The checker finds what is wrong in a case, and nothing else.

    Args:
        repository: an empty folder.
        name: of the case, and of its model.
        cases: by name.
        parts: models that an ensemble may need, by name.
    """
    expected, content = cases[name]
    write_models(repository, {**dict(parts), name: content})
    every = repository_check.check(repository, [name], SERVER)
    findings = [x for x in every if x.model == name]
    said = [f"{x.severity}: {x.found}, expected {x.expected}" for x in findings]
    if expected is None:
        assert not said, said
    else:
        assert any(text.startswith(expected) for text in said), said
        assert len(said) == 1 + (name in TWO_FINDINGS), said
        is_refused = any(x.severity == ERROR for x in findings)
        assert is_refused == expected.startswith(ERROR), said
    for finding in findings:
        assert finding.fix and finding.link.startswith("https://"), finding
