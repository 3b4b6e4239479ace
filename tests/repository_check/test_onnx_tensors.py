"""Rules about the tensors of a config against those of its ONNX file.

``test_against_the_server`` asks the embedded server about each case.
"""

import pytest
from case_models import AUTO, HEAD, HEAD_WITHOUT_BATCH, X, Y, assert_case

from conftest import parse_graph

START = (
    'sequence_batching { control_input [ { name: "START" control [ '
    "{ kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] } ] %s }\n"
)
STATE = (
    'state [ { input_name: "old" output_name: "new" data_type: TYPE_FP32 dims: [ 4 ]'
    ' initial_state: { name: "zero" data_type: TYPE_FP32 dims: [ 4 ]'
    " zero_data: true } } ]"
)
ONE = "[ 1 ] reshape { shape: [ ] }"
RAGGED = HEAD + X.replace("[ 4 ]", "[ -1 ] allow_ragged_batch: true")
COUNT = (
    "batch_input [ { kind: BATCH_ELEMENT_COUNT "
    'target_name: "count" data_type: TYPE_FP32 source_input: "x" } ]\n'
)
SCATTER = (
    "batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE "
    'target_name: "y" source_input: "x" } ]\n'
)


def case(config, graph):
    """A model: its graph as ``onnx.parser`` reads it."""
    return config, {"1/model.onnx": parse_graph(graph).SerializeToString()}


def sequence(start="float[batch,1] START"):
    return f"(float[batch,4] x, {start}) => (float[batch,4] y) {{ y = Neg(x) }}"


SCALAR = "(float x) => (float y) { y = Neg(x) }"
FLAT = "(float[batch] x) => (float[batch] y) { y = Neg(x) }"
WITH_SEQUENCE = (
    "(float[batch,4] x) => (float[batch,4] y, seq(float[batch,4]) z) "
    "{ y = Neg(x)  z = SequenceConstruct(x, x) }"
)
COUNTED = (
    "(float[n] x, float[requests] count) => (float[requests] y) { y = Neg(count) }"
)
CASES = {
    # controls and states are inputs too
    "control": (None, case(HEAD + X + Y + START % "", sequence())),
    "control_of_four": (
        "error: 'START' as TYPE_FP32 of [-1, 4] in the ONNX file, expected TYPE_FP32 "
        "of [-1, 1]",
        case(HEAD + X + Y + START % "", sequence("float[batch,4] START")),
    ),
    "control_of_another_type": (
        "error: 'START' as TYPE_INT32",
        case(HEAD + X + Y + START % "", sequence("int32[batch,1] START")),
    ),
    "control_that_is_not_there": (
        "error: no 'START'",
        case(HEAD + X + Y + START % "", sequence("float[batch,1] BEGIN")),
    ),
    "control_too_many": (
        "error: 2 inputs: x, START, expected 1: x",
        case(
            HEAD + X + Y + START % "",
            "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }",
        ),
    ),
    "state": (
        None,
        case(
            HEAD + X + Y + START % STATE,
            "(float[batch,4] x, float[batch,1] START, float[batch,4] old) => "
            "(float[batch,4] y, float[batch,4] new) { y = Add(x, old)  new = Neg(y) }",
        ),
    ),
    "state_too_many": (
        "error: 3 inputs: x, START, old, expected 2: x, START",
        case(HEAD + X + Y + START % STATE, sequence()),
    ),
    # scalars, and what has the batch alone
    "scalar": (
        None,
        case(HEAD_WITHOUT_BATCH + (X + Y).replace("[ 4 ]", "[ 1 ]"), SCALAR),
    ),
    "scalar_of_two": (
        "error: [2], expected [1]",
        case(
            HEAD_WITHOUT_BATCH
            + X.replace("[ 4 ]", "[ 2 ]")
            + Y.replace("[ 4 ]", "[ 1 ]"),
            SCALAR,
        ),
    ),
    "batch_alone": (None, case(HEAD + (X + Y).replace("[ 4 ]", ONE), FLAT)),
    "batch_alone_without_reshape": (
        "error: [1], which contain the batch, expected []",
        case(
            HEAD + X.replace("[ 4 ]", "[ 1 ]") + Y.replace("[ 4 ]", ONE),
            FLAT,
        ),
    ),
    # ragged batches
    "ragged": (
        None,
        case(RAGGED + Y.replace("[ 4 ]", ONE) + COUNT, COUNTED),
    ),
    "ragged_of_two_axes": (
        "error: true, where 'x' is [-1, -1] in the ONNX file",
        case(
            RAGGED + Y.replace("[ 4 ]", "[ -1 ]"),
            "(float[batch,n] x) => (float[batch,n] y) { y = Neg(x) }",
        ),
    ),
    "batch_input_too_many": (
        "error: 2 inputs: x, count, expected 1: x",
        case(
            RAGGED + Y.replace("[ 4 ]", ONE) + COUNT,
            "(float[n] x) => (float[n] y) { y = Neg(x) }",
        ),
    ),
    "scattered": (
        None,
        case(
            RAGGED + Y.replace("[ 4 ]", "[ -1 ]") + SCATTER,
            "(float[n] x) => (float[n] y) { y = Neg(x) }",
        ),
    ),
    # what is no tensor, and what has no batch
    "sequence_unlisted": (
        "error: 'z' in the ONNX file",
        case(HEAD + X + Y, WITH_SEQUENCE),
    ),
    "sequence_completed": ("error: 'z' in the ONNX file", case(AUTO, WITH_SEQUENCE)),
    "completed_without_batch": (
        "error: 8, where 'x' is [1, 4]",
        case(HEAD, "(float[1,4] x) => (float[1,4] y) { y = Neg(x) }"),
    ),
    "unlisted_output_without_batch": (
        None,
        case(
            HEAD + X + Y,
            "(float[batch,4] x) => (float[batch,4] y, float[1] z) "
            "{ y = Neg(x)  z = Constant <value_floats = [1.0]> () }",
        ),
    ),
    # a free size in the file
    "input_fixed": (
        None,
        case(
            HEAD + X + Y.replace("[ 4 ]", "[ -1 ]"),
            "(float[batch,n] x) => (float[batch,n] y) { y = Neg(x) }",
        ),
    ),
    "output_fixed": (
        "error: [4], expected [-1] (without the batch)",
        case(
            HEAD + X + Y,
            "(float[batch,n] x) => (float[batch,n] y) { y = Neg(x) }",
        ),
    ),
    "output_that_can_be_inferred": (
        None,
        case(HEAD + X + Y, "(float[batch,4] x) => (float[batch,n] y) { y = Neg(x) }"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    assert_case(tmp_path, name, CASES)
