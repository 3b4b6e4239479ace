"""Rules about tensors: as the config has them, and as the ONNX file has them."""

import onnx
import pytest
from case_models import (
    AUTO,
    DOUBLE,
    FREE_X,
    FREE_Y,
    GOOD,
    HEAD,
    HEAD_WITHOUT_BATCH,
    MODEL_PY,
    NO_BATCH,
    PYTHON,
    REFUSALS,
    SUM,
    X2,
    X,
    Y,
    assert_case,
    model,
    onnx_file,
    write_models,
)
from onnx import TensorProto, helper
from tritonclient.utils import np_to_triton_dtype

import repository_check
from repository_check import ERROR, data_types

COMPLETE = """
    @staticmethod
    def auto_complete_config(config):
        return config
"""
# ``two`` has a value in the file, and may be given with a request
with_default = onnx.load_from_string(DOUBLE)
with_default.graph.input.append(
    helper.make_tensor_value_info("two", TensorProto.FLOAT, [4])
)
WITH_DEFAULT = with_default.SerializeToString()
without_shape = onnx.load_from_string(DOUBLE)
without_shape.graph.output[0].type.tensor_type.ClearField("shape")
WITHOUT_SHAPE = without_shape.SerializeToString()
LABEL_FILE = 'label_filename: "labels.txt"'
LABELS = HEAD + X + Y.replace("[ 4 ]", f"[ 4 ] {LABEL_FILE}")

CASES = {
    "good": (None, model(GOOD)),
    "no_config": (None, model(None)),
    "no_shape_in_the_file": (None, model(GOOD, {"1/model.onnx": WITHOUT_SHAPE})),
    "two_inputs": (None, model(HEAD + X + X2 + Y, {"1/model.onnx": SUM})),
    "optional": (
        None,
        (PYTHON + X2.replace(" } ]", " optional: true } ]"), {"1/model.py": MODEL_PY}),
    ),
    # the config by itself
    "negative_batch": ("error: -1", model(GOOD.replace("8", "-1"))),
    "no_dims": ("error: no dims", model(HEAD + X.replace(" dims: [ 4 ]", "") + Y)),
    "dims_of_0": ("error: [0]", model(HEAD + X.replace("[ 4 ]", "[ 0 ]") + Y)),
    "dims_of_minus_2": ("error: [-2]", model(HEAD + X.replace("[ 4 ]", "[ -2 ]") + Y)),
    "no_type": (
        "error: no data_type",
        model(HEAD + X.replace("data_type: TYPE_FP32 ", "") + Y),
    ),
    "no_name": ("error: no name", model(HEAD + X.replace('name: "x" ', "") + Y)),
    "output_twice": ('warning: "y" 2 times', model(HEAD + X + Y + Y)),
    "axis_too_many": (
        "error: [4, 2], expected [4] (without the batch)",
        model(HEAD + X.replace("[ 4 ]", "[ 4, 2 ]") + Y),
    ),
    "reshape": (
        "error: [1, 4] for dims [5]",
        model(
            HEAD_WITHOUT_BATCH
            + X.replace("[ 4 ]", "[ 5 ] reshape { shape: [ 1, 4 ] }")
            + FREE_Y
        ),
    ),
    "reshape_free": (
        "error: [-1, 2] for dims [-1, 4]",
        (
            PYTHON.replace("[ 4 ]", "[ -1, 4 ] reshape { shape: [ -1, 2 ] }", 1),
            {"1/model.py": MODEL_PY},
        ),
    ),
    "reshaped_free": (
        None,
        (
            PYTHON.replace("[ 4 ]", "[ -1, 4 ] reshape { shape: [ -1, 2, 2 ] }", 1),
            {"1/model.py": MODEL_PY},
        ),
    ),
    "reshaped": (
        None,
        model(HEAD + X.replace("[ 4 ]", "[ 2, 2 ] reshape { shape: [ 4 ] }") + Y),
    ),
    "reshaped_alone": (
        None,
        model(HEAD + X.replace("[ 4 ]", "[ 2, 2 ] reshape { shape: [ 4 ] }")),
    ),
    "no_name_to_complete": (
        "error: no name",
        (
            PYTHON.replace('name: "x" ', ""),
            {"1/model.py": MODEL_PY + COMPLETE},
        ),
    ),
    # against the ONNX file
    "batch_in_dims": (
        "error: [-1, 4], which contain the batch",
        model(HEAD + FREE_X + Y),
    ),
    "wrong_dims": (
        "error: [5], expected [4]",
        model(HEAD + X.replace("[ 4 ]", "[ 5 ]") + Y),
    ),
    "wrong_type": ("error: TYPE_FP16", model(HEAD + X.replace("FP32", "FP16") + Y)),
    "wrong_output": ('error: "z"', model(HEAD + X + Y.replace('"y"', '"z"'))),
    "wrong_input": ('error: "z"', model(HEAD + X.replace('"x"', '"z"') + Y)),
    "extra_input": ("error: 2 inputs: x, x2", model(HEAD + X + X2 + Y)),
    "missing_input": ("error: 1 inputs: x", model(GOOD, {"1/model.onnx": SUM})),
    "input_twice": ("error: 2 inputs: x, x", model(HEAD + X + X + Y)),
    "inputs_alone": (None, model(AUTO + X)),
    "wrong_inputs_alone": ("error: [5]", model(HEAD + X.replace("[ 4 ]", "[ 5 ]"))),
    "fixed_batch": (
        "error: 8, where 'x' is [1, 4]",
        model(GOOD, {"1/model.onnx": onnx_file(batch=1)}),
    ),
    "fixed_batch_said": (
        None,
        model(NO_BATCH.replace("-1", "1"), {"1/model.onnx": onnx_file(batch=1)}),
    ),
    "optional_input": (
        None,
        model(
            NO_BATCH + X.replace('"x"', '"two"').replace(" } ]", " optional: true } ]"),
            {"1/model.onnx": WITH_DEFAULT},
        ),
    ),
    "wrong_newest": (
        "error: 1 inputs: x",
        model(
            GOOD + "version_policy { all { } }\n",
            {"1/model.onnx": DOUBLE, "2/model.onnx": SUM},
        ),
    ),
    # labels
    "labels": (
        None,
        model(LABELS, {"1/model.onnx": DOUBLE, "labels.txt": "a\r\nb\r\nc\r\nd\r\n"}),
    ),
    "no_labels": ('error: "labels.txt", which is not there', model(LABELS)),
    "few_labels": (
        "warning: 2 labels",
        model(LABELS, {"1/model.onnx": DOUBLE, "labels.txt": "a\nb\n"}),
    ),
    "many_labels": (
        "warning: 5 labels",
        model(LABELS, {"1/model.onnx": DOUBLE, "labels.txt": "a\nb\nc\nd\ne\n"}),
    ),
    "labels_of_a_column": (
        None,
        model(
            LABELS.replace("4 ] label", "4, 1 ] reshape { shape: [ 4 ] } label"),
            {"1/model.onnx": DOUBLE, "labels.txt": "a\nb\nc\nd\n"},
        ),
    ),
    "labels_of_a_free_axis": (
        None,
        (
            PYTHON.replace(Y, Y.replace("[ 4 ]", f"[ -1 ] {LABEL_FILE}")),
            {"1/model.py": MODEL_PY, "labels.txt": "a\nb\n"},
        ),
    ),
    "labels_of_no_vector": (
        "warning: labels for an output of dims [-1, 4]",
        model(
            HEAD_WITHOUT_BATCH + FREE_X + FREE_Y.replace("4 ]", f"4 ] {LABEL_FILE}"),
            {"1/model.onnx": DOUBLE, "labels.txt": "a\nb\n"},
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    assert_case(tmp_path, name, CASES)


@pytest.mark.parametrize("name", [x for x in REFUSALS if x != "threads"])
def test_it_refuses_what_the_c_backend_refuses(tmp_path, name):
    """Each text of refusals.toml was refused by the C++ onnxruntime backend."""
    write_models(tmp_path, {name: model(REFUSALS[name]["config"])})
    assert ERROR in {x.severity for x in repository_check.check(tmp_path)}


def test_types_have_the_names_and_sizes_of_triton_and_numpy():
    for number, name in data_types.FROM_ONNX.items():
        dtype = helper.tensor_dtype_to_np_dtype(number)
        wire = np_to_triton_dtype(dtype) or "BF16"  # which NumPy does not have
        assert name.removeprefix("TYPE_") == wire.replace("BYTES", "STRING")
        if name != "TYPE_STRING":
            assert data_types.BYTES_PER_ELEMENT[name] == dtype.itemsize
